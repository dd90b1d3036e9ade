// SPDX-License-Identifier: Apache-2.0
//! Objects that are read in order from servers that break off, drip, replace them, and answer nonsense: what comes is what
//! the object has, or an error.

mod support;

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use driver_api::{
    Backend, Error, ErrorKind,
    ext::{Conditions, ObjectAbilities, ObjectName, ObjectReader, Objects, OpenedObject},
};
use object_storage::ObjectBackend;
use serde_json::json;
use support::{
    noise, open, refused,
    script::{Asked, Script, answer, endless},
    within,
};

const ETAG: &str = "0123456789abcdef0123456789abcdef-2";
const SIZE: usize = 5_000_000;

fn s3(script: &Script) -> Arc<dyn Objects> {
    let options = json!({
        "kind": "s3", "endpoint": script.url(), "access_key": "a", "secret_key": "b",
        "request_timeout_secs": 2,
    });
    open(options, json!({})).objects().expect("objects")
}

/// The value of a header that was sent.
fn header<'a>(asked: &'a Asked, name: &str) -> &'a str {
    let prefix = format!("{name}: ");
    asked.headers.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default()
}

/// The first and the last byte that were asked for, of so many.
fn range(asked: &Asked, size: usize) -> (usize, usize) {
    let range = header(asked, "range").trim_start_matches("bytes=").to_owned();
    let (first, last) = range.split_once('-').expect("a range");
    let last = last.parse().unwrap_or(usize::MAX).min(size - 1);
    (first.parse().expect("a place"), last)
}

fn head(etag: &str, first: usize, last: usize, size: usize, more: &str) -> Vec<u8> {
    let length = last + 1 - first;
    format!(
        "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nContent-Range: bytes \
         {first}-{last}/{size}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Answers with the bytes that were asked for, of which only the first `most` come.
fn give(asked: &Asked, stream: &mut TcpStream, data: &[u8], more: &str, most: usize) {
    let (first, last) = range(asked, data.len());
    let _ = stream.write_all(&head(ETAG, first, last, data.len(), more));
    let end = (first + most).min(last + 1);
    let _ = stream.write_all(&data[first..end]);
}

async fn opened(objects: &Arc<dyn Objects>, offset: u64, len: u64) -> OpenedObject {
    let object = ObjectName::new("bucket", "a");
    let opening = objects.open_read(&within(5), object, offset, len, Conditions::default());
    opening.await.expect("it opens")
}

/// What comes until the end or an error.
async fn rest(reader: &Arc<dyn ObjectReader>, secs: u64) -> (Vec<u8>, Option<Error>) {
    let mut found = Vec::new();
    loop {
        match reader.next(&within(secs)).await {
            Ok(bytes) if bytes.is_empty() => return (found, None),
            Ok(bytes) => found.extend_from_slice(&bytes),
            Err(error) => return (found, Some(error)),
        }
    }
}

#[tokio::test]
async fn one_request_brings_all_of_it() {
    let data = Arc::new(noise(SIZE));
    let all = Arc::clone(&data);
    let script = Script::raw(move |asked, stream| give(asked, stream, &all, "", SIZE));
    let objects = s3(&script);
    assert!(objects.features().abilities.has(ObjectAbilities::STREAM));
    for (offset, len) in [(0, u64::MAX), (7, 1), (1_000_000, 3_000_000), (SIZE as u64 - 1, 5)] {
        let before = script.asked().len();
        let opened = opened(&objects, offset, len).await;
        let end = (SIZE as u64).min(offset.saturating_add(len));
        assert_eq!((opened.offset, opened.len), (offset, end - offset));
        assert_eq!(&*opened.object.etag, ETAG);
        let (found, failed) = rest(&opened.reader, 5).await;
        assert!(failed.is_none(), "{failed:?}");
        assert!(found == data[offset as usize..end as usize], "{} bytes", found.len());
        assert!(rest(&opened.reader, 5).await.0.is_empty(), "nothing comes after the end");
        assert_eq!(script.asked().len() - before, 1, "one request");
    }
}

#[tokio::test]
async fn what_breaks_off_is_gone_on_with_at_its_place_and_under_its_etag() {
    let data = Arc::new(noise(SIZE));
    let all = Arc::clone(&data);
    let script = Script::raw(move |asked, stream| give(asked, stream, &all, "", 1_300_000));
    let objects = s3(&script);
    let opened = opened(&objects, 1000, 4_000_000).await;
    let (found, failed) = rest(&opened.reader, 5).await;
    assert!(failed.is_none(), "{failed:?}");
    assert!(found == data[1000..4_001_000], "{} bytes", found.len());
    let asked = script.asked();
    assert_eq!(asked.len(), 4, "from 0, 1.3, 2.6 and 3.9 million on");
    assert_eq!(header(&asked[0], "range"), "bytes=1000-4000999");
    assert_eq!(header(&asked[0], "if-match"), "");
    for (number, asked) in asked.iter().enumerate().skip(1) {
        let from = 1000 + number * 1_300_000;
        assert_eq!(header(asked, "range"), format!("bytes={from}-4000999"));
        assert_eq!(header(asked, "if-match"), format!("\"{ETAG}\""));
    }
}

#[tokio::test]
async fn what_drips_is_asked_for_anew_from_its_place_on() {
    let data = Arc::new(noise(SIZE));
    let all = Arc::clone(&data);
    let requests = AtomicUsize::new(0);
    let script = Script::raw(move |asked, stream| {
        if requests.fetch_add(1, Relaxed) > 0 {
            return give(asked, stream, &all, "", SIZE);
        }
        // Its end would come after a quarter of an hour.
        let _ = stream.write_all(&head(ETAG, 0, SIZE - 1, SIZE, ""));
        for piece in all.chunks(64) {
            sleep(Duration::from_millis(10));
            if stream.write_all(piece).is_err() {
                return;
            }
        }
    });
    let objects = s3(&script);
    let opened = opened(&objects, 0, u64::MAX).await;
    let since = Instant::now();
    let (found, failed) = rest(&opened.reader, 5).await;
    assert!(failed.is_none(), "{failed:?}");
    assert!(found == *data, "{} bytes", found.len());
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    assert!(range(&asked[1], SIZE).0 > 64, "what came is not asked for again");
    assert_eq!(header(&asked[1], "if-match"), format!("\"{ETAG}\""));
}

#[tokio::test]
async fn a_store_that_was_not_listened_to_for_long_costs_a_request_and_no_error() {
    let data = Arc::new(noise(SIZE));
    let all = Arc::clone(&data);
    let script = Script::raw(move |asked, stream| {
        // It takes the half, waits for a second to be read, and hangs up.
        give(asked, stream, &all, "", SIZE / 2);
        sleep(Duration::from_secs(1));
    });
    let objects = s3(&script);
    let opened = opened(&objects, 0, u64::MAX).await;
    let first = opened.reader.next(&within(5)).await.expect("the first bytes");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let (rest, failed) = rest(&opened.reader, 5).await;
    assert!(failed.is_none(), "{failed:?}");
    assert!([&first[..], &rest].concat() == **data);
    assert!(script.asked().len() <= 3);
}

#[tokio::test]
async fn silence_and_drips_end_with_the_deadline_of_each_call() {
    let script = Script::raw(|asked, stream| {
        let _ = stream.write_all(&head(ETAG, 0, 99, 100, ""));
        if asked.target.ends_with("/a") {
            for _ in 0..100 {
                let _ = stream.write_all(b"x");
                sleep(Duration::from_millis(10));
            }
        }
    });
    let objects = s3(&script);
    // Each drop is handed on as it comes.
    let dripping = opened(&objects, 0, u64::MAX).await;
    let began = Instant::now();
    let first = dripping.reader.next(&within(5)).await.expect("a drop");
    assert!(first.len() < 50 && began.elapsed() < Duration::from_secs(1));
    let (found, failed) = rest(&dripping.reader, 5).await;
    assert!(failed.is_none() && first.len() + found.len() == 100, "{failed:?}");

    let silent = Script::raw(|asked, stream| {
        if header(asked, "range").starts_with("bytes=0-") {
            let _ = stream.write_all(&head(ETAG, 0, 99, 100, ""));
            let _ = stream.write_all(b"0123456789");
        }
        sleep(Duration::from_secs(10));
    });
    let opened = opened(&s3(&silent), 0, u64::MAX).await;
    assert_eq!(&opened.reader.next(&within(5)).await.expect("some")[..], b"0123456789");
    let began = Instant::now();
    let failed = opened.reader.next(&within(1)).await;
    let error = refused(failed.map(|bytes| bytes.len()), ErrorKind::TIMED_OUT);
    assert!(began.elapsed() < Duration::from_secs(2), "{error:#}");
}

#[tokio::test]
async fn an_object_that_is_replaced_in_its_middle_is_not_mixed_with_its_successor() {
    let data = Arc::new(noise(SIZE));
    // How the store tells of the successor: by its condition, by another ETag, by another size, by a place past the end.
    for (how, kind) in [
        ("412", ErrorKind::CONFLICT),
        ("etag", ErrorKind::CORRUPTED),
        ("size", ErrorKind::CONFLICT),
        ("416", ErrorKind::CONFLICT),
        ("404", ErrorKind::NOT_FOUND),
    ] {
        let all = Arc::clone(&data);
        let script = Script::raw(move |asked, stream| {
            let (first, last) = range(asked, SIZE);
            if first == 0 {
                return give(asked, stream, &all, "", 1_000_000);
            }
            let successor = |etag, size: usize| {
                [head(etag, first, size - 1, size, ""), vec![7; size - first]].concat()
            };
            let _ = stream.write_all(&match how {
                "412" => answer("412 Precondition Failed", ""),
                "416" => answer("416 Range Not Satisfiable", ""),
                "404" => answer("404 Not Found", ""),
                "etag" => successor("another", last + 1),
                _ => successor(ETAG, last + 2),
            });
        });
        let opened = opened(&s3(&script), 0, u64::MAX).await;
        let (found, failed) = rest(&opened.reader, 5).await;
        assert_eq!(failed.expect(how).kind(), kind, "{how}");
        assert!(found == data[..1_000_000], "{how}: {} bytes", found.len());
    }
}

#[tokio::test]
async fn answers_that_are_not_to_what_was_asked_are_refused() {
    let strange = ["", "bytes 5-9/10", "bytes 0-4/10", "bytes 0-9/*", "bytes */10", "bytes 0-9"];
    for told in strange {
        let script = Script::new(move |_| match told {
            "" => endless(&format!("200 OK\nETag: \"{ETAG}\""), "0123456789"),
            range => {
                let head = format!("206 Partial Content\nETag: \"{ETAG}\"\nContent-Range: {range}");
                answer(&head, "0123456789")
            }
        });
        let objects = s3(&script);
        let object = ObjectName::new("bucket", "a");
        let opening = objects.open_read(&within(3), object, 0, u64::MAX, Conditions::default());
        refused(opening.await, ErrorKind::CORRUPTED);
    }
    // The same of what an object is gone on with.
    for told in ["bytes 0-9/10", "bytes 6-9/10", "bytes 5-9/*", "bytes 5-9"] {
        let script = Script::raw(move |asked, stream| {
            let (first, last) = range(asked, 10);
            if first == 0 {
                let _ = stream.write_all(&head(ETAG, first, last, 10, ""));
                let _ = stream.write_all(b"01234");
                return;
            }
            let head = format!("206 Partial Content\nETag: \"{ETAG}\"\nContent-Range: {told}");
            let _ = stream.write_all(&answer(&head, "xxxxx"));
        });
        let opened = opened(&s3(&script), 0, u64::MAX).await;
        let (found, failed) = rest(&opened.reader, 3).await;
        assert_eq!(found, b"01234", "{told}");
        assert_eq!(failed.expect(told).kind(), ErrorKind::CORRUPTED, "{told}");
    }
}

#[tokio::test]
async fn a_wrong_sum_is_told_before_the_last_bytes() {
    let data = Arc::new(noise(SIZE));
    let sum = |data: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(crc32c::crc32c(data).to_be_bytes())
    };
    for (right, len) in [(true, SIZE), (false, SIZE), (true, 100_000), (false, 100_000)] {
        let told = if right { sum(&data[..len]) } else { sum(b"another") };
        let (all, more) = (data[..len].to_vec(), format!("x-amz-checksum-crc32c: {told}\r\n"));
        // It breaks off as well: the sum is of all that came, however it came.
        let script =
            Script::raw(move |asked, stream| give(asked, stream, &all, &more, len / 3 + 1));
        let objects = s3(&script);
        let opened = opened(&objects, 0, u64::MAX).await;
        let (found, failed) = rest(&opened.reader, 5).await;
        if right {
            assert!(failed.is_none() && found == data[..len], "{failed:?}");
        } else {
            assert_eq!(failed.expect("an error").kind(), ErrorKind::CORRUPTED);
            assert!(found.len() < len && found == data[..found.len()]);
            let again = opened.reader.next(&within(5)).await;
            refused(again.map(|bytes| bytes.len()), ErrorKind::CORRUPTED);
        }
        // A part of it has no sum.
        let opened = self::opened(&objects, 1, 50).await;
        assert!(rest(&opened.reader, 5).await.0 == data[1..51]);
    }
}

#[tokio::test]
async fn what_came_damaged_and_was_not_handed_out_is_fetched_again() {
    let data = noise(100_000);
    let all = data.clone();
    let told = {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(crc32c::crc32c(&data).to_be_bytes())
    };
    let times = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&times);
    let script = Script::raw(move |asked, stream| {
        let mut data = all.clone();
        data[5] ^= u8::from(count.fetch_add(1, Relaxed) < 2);
        give(asked, stream, &data, &format!("x-amz-checksum-crc32c: {told}\r\n"), usize::MAX >> 1);
    });
    let opened = opened(&s3(&script), 0, u64::MAX).await;
    let (found, failed) = rest(&opened.reader, 5).await;
    assert!(failed.is_none() && found == data, "{failed:?}");
    assert_eq!(times.load(Relaxed), 3);
}

#[tokio::test]
async fn without_an_etag_and_outside_the_object_nothing_is_opened() {
    let script = Script::new(|asked| match header(asked, "range") {
        _ if asked.target.ends_with("/empty") && asked.method == "HEAD" => {
            answer(&format!("200 OK\nETag: \"{ETAG}\""), "")
        }
        _ if asked.target.ends_with("/empty") => answer("416 Range Not Satisfiable", ""),
        "bytes=0-" => answer("206 Partial Content\nContent-Range: bytes 0-4/5", "hello"),
        _ if asked.method == "HEAD" => answer(&format!("200 OK\nETag: \"{ETAG}\""), "hello"),
        _ => answer("416 Range Not Satisfiable", ""),
    });
    let objects = s3(&script);
    let opening = |key: &str, offset| {
        let object = ObjectName::new("bucket", key);
        objects.open_read(&within(3), object, offset, u64::MAX, Conditions::default())
    };
    refused(opening("a", 0).await, ErrorKind::UNSUPPORTED);
    refused(opening("a", 5).await, ErrorKind::INVALID_ARGUMENT);
    refused(opening("a", u64::MAX).await, ErrorKind::INVALID_ARGUMENT);
    refused(opening("empty", 1).await, ErrorKind::INVALID_ARGUMENT);
    let empty = opening("empty", 0).await.expect("it is there");
    assert_eq!(empty.len, 0);
    assert!(empty.reader.next(&within(3)).await.expect("the end").is_empty());
}

#[tokio::test]
async fn a_call_that_is_dropped_loses_nothing_and_letting_go_ends_the_connection() {
    let data = Arc::new(noise(SIZE));
    let ended = Arc::new(AtomicUsize::new(0));
    let (all, count) = (Arc::clone(&data), Arc::clone(&ended));
    let script = Script::raw(move |asked, stream| {
        let (first, last) = range(asked, SIZE);
        let _ = stream.write_all(&head(ETAG, first, last, SIZE, ""));
        for some in all[first..].chunks(50_000) {
            sleep(Duration::from_millis(3));
            if stream.write_all(some).is_err() {
                count.fetch_add(1, Relaxed);
                return;
            }
        }
    });
    let objects = s3(&script);
    let reading = opened(&objects, 0, u64::MAX).await;
    let mut found = Vec::new();
    while found.len() < SIZE {
        let (cx, soon) = (within(5), Duration::from_millis(2));
        let next = async { reading.reader.next(&cx).await };
        if let Ok(bytes) = tokio::time::timeout(soon, next).await {
            found.extend_from_slice(&bytes.expect("bytes"));
        }
    }
    assert!(found == **data);
    assert_eq!(script.asked().len(), 1, "on one connection");
    let reading = opened(&objects, 0, u64::MAX).await;
    reading.reader.next(&within(5)).await.expect("the first bytes");
    drop(reading);
    let began = Instant::now();
    while ended.load(Relaxed) == 0 {
        assert!(began.elapsed() < Duration::from_secs(3), "the store still sends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn stores_that_tell_sums_of_ranges_are_read_in_pieces() {
    let script = Script::new(|_| answer("200 OK", ""));
    let azure: ObjectBackend =
        open(json!({"kind": "azure", "emulator": true, "endpoint": script.url()}), json!({}));
    let objects = azure.objects().expect("objects");
    assert!(!objects.features().abilities.has(ObjectAbilities::STREAM));
    let object = ObjectName::new("bucket", "a");
    let opening = objects.open_read(&within(3), object, 0, 1, Conditions::default());
    refused(opening.await, ErrorKind::UNSUPPORTED);
    assert!(script.asked().is_empty());
}
