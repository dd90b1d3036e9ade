// SPDX-License-Identifier: Apache-2.0
//! Clients that stop, stores that fail, and writers that meet.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::house::{House, at, content, eventually};

const UNAVAILABLE: u32 = 9;
const TIMED_OUT: u32 = 10;

/// Abilities without which objects are read in order, and in pieces.
const WAYS: [&str; 2] = ["", "stream"];

/// A connection on which a request was begun.
async fn begun(house: &House, head: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&house.socket).await.unwrap();
    let head = format!("{head}\r\nhost: novastor\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_leaves_neither_object_nor_upload() {
    let house = House::new().await;
    // Within what is written at once, in the first part, and after several parts; of known length and of unknown.
    for sent in [10_000, 70_000, 300_000] {
        let head = format!("PUT {} HTTP/1.1\r\ncontent-length: 400000", at("a"));
        let mut stream = begun(&house, &head).await;
        stream.write_all(&content(sent)).await.unwrap();
        if sent > 65536 {
            eventually("the upload begins", async || house.open_uploads().await == 1).await;
        }
        drop(stream);
        eventually("it is given up", async || house.open_uploads().await == 0).await;

        let head = format!("PUT {} HTTP/1.1\r\ntransfer-encoding: chunked", at("a"));
        let mut stream = begun(&house, &head).await;
        stream.write_all(format!("{sent:x}\r\n").as_bytes()).await.unwrap();
        stream.write_all(&content(sent)).await.unwrap();
        stream.write_all(b"\r\n").await.unwrap();
        if sent > 65536 {
            eventually("the upload begins", async || house.open_uploads().await == 1).await;
        }
        drop(stream);
        eventually("it is given up", async || house.open_uploads().await == 0).await;
    }
    house.get(&at("a")).await.refused(404, "NotFound");
    let free = || async { house.api.objects().writing.free() };
    let all = novastor::objects::LARGEST_PART;
    eventually("all room is given back", async || free().await == all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unknown_length_is_written_whole() {
    let house = House::new().await;
    for len in [0, 5, 65536, 65537, 500_000] {
        let head =
            format!("PUT {} HTTP/1.1\r\nconnection: close\r\ntransfer-encoding: chunked", at("a"));
        let mut stream = begun(&house, &head).await;
        let data = content(len);
        for chunk in data.chunks(30_000) {
            stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await.unwrap();
            stream.write_all(chunk).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(house.get(&at("a")).await.ok().body == data, "{len}");
    }
    assert_eq!(house.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_fails_leaves_the_object_as_it_was() {
    let house = House::new().await;
    house.put(&at("a"), "before").await.ok();
    for (call, kind, title, status) in [
        ("put_part", UNAVAILABLE, "Unavailable", 503),
        ("put_part", TIMED_OUT, "Unavailable", 503),
        ("begin_upload", TIMED_OUT, "Unavailable", 503),
        ("complete_upload", UNAVAILABLE, "Unavailable", 503),
    ] {
        house.fault(json!({ "call": call, "kind": kind })).await;
        let refused = house.put(&at("a"), content(400_000)).await;
        refused.refused(status, title);
        assert_eq!(house.get(&at("a")).await.ok().body, "before");
        assert_eq!(house.open_uploads().await, 0, "{call} {kind}");
    }
    let all = novastor::objects::LARGEST_PART;
    assert_eq!(house.api.objects().writing.free(), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_told_as_one_and_harms_nothing() {
    let house = House::new().await;
    for after in [false, true] {
        let aborted = house.figure("abort_upload_total").await;
        house.put(&at("a"), "before").await.ok();
        house.fault(json!({ "call": "put", "kind": TIMED_OUT, "after": after })).await;
        let text = house.put(&at("a"), "after").await.refused(504, "TimedOut");
        assert!(text.contains("unknown"), "{text}");
        let expected = if after { "after" } else { "before" };
        assert_eq!(house.get(&at("a")).await.ok().body, expected);

        house.fault(json!({ "call": "complete_upload", "kind": TIMED_OUT, "after": after })).await;
        let text = house.put(&at("a"), content(200_000)).await.refused(504, "TimedOut");
        assert!(text.contains("unknown") && text.contains("upload/"), "{text}");
        let len = house.get(&at("a")).await.ok().body.len();
        assert_eq!(len, if after { 200_000 } else { expected.len() });
        // Whether its parts are the object's is not known: they are left alone.
        assert_eq!(house.open_uploads().await, usize::from(!after));
        assert_eq!(house.figure("abort_upload_total").await, aborted);
        if !after {
            let listed = house.get("/v1/backends/o/buckets/box/uploads").await.ok().json();
            let id = super::house::part(listed["uploads"][0]["id"].as_str().unwrap());
            let path = format!("/v1/backends/o/buckets/box/uploads/{id}?key=a");
            house.delete(&path).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_under_create_only_one_wins() {
    let house = House::new().await;
    for (round, len) in [(0, 10), (1, 10), (2, 200_000), (3, 200_000)] {
        let path = at(&format!("race{round}"));
        let only = [("if-none-match", "*")];
        let (mut one, mut two) = (content(len), content(len));
        (one[0], two[0]) = (1, 2);
        // Both pass the early check before either completes.
        house.fault(json!({ "call": "begin_upload", "wait_ms": 50, "times": 2 })).await;
        let first = house.send("PUT", &path, &only, one);
        let second = house.send("PUT", &path, &only, two);
        let (first, second) = tokio::join!(first, second);
        let (winner, loser) = if first.status == 200 { (1, second) } else { (2, first) };
        loser.refused(412, "AlreadyExists");
        let read = house.get(&path).await.ok();
        assert_eq!((read.body[0], read.body.len()), (winner, len), "round {round}");
    }
    assert_eq!(house.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_write_is_known_by_its_mark() {
    let house = House::new().await;
    for len in [10, 200_000] {
        let path = at(&format!("m{len}"));
        let mine = [("if-none-match", "*"), ("novastor-mark", "0123456789abcdef0123456789abcdef")];
        let other = [("if-none-match", "*"), ("novastor-mark", "ff")];
        let first = house.send("PUT", &path, &mine, content(len)).await.ok();
        let again = house.send("PUT", &path, &mine, content(len)).await.ok();
        assert_eq!(first.header("etag"), again.header("etag"));
        house.send("PUT", &path, &other, content(len)).await.refused(412, "AlreadyExists");
    }
    assert_eq!(house.open_uploads().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_while_it_is_read_is_an_error() {
    for without in WAYS {
        replaced_while_read(House::with(json!({ "without": without })).await).await;
    }
}

async fn replaced_while_read(house: House) {
    let old = vec![1; 8_000_000];
    house.put(&at("a"), old.clone()).await.ok();
    let head = format!("GET {} HTTP/1.1\r\nconnection: close", at("a"));
    let mut stream = begun(&house, &head).await;
    let mut first = vec![0; 1000];
    stream.read_exact(&mut first).await.unwrap();
    assert!(String::from_utf8_lossy(&first).starts_with("HTTP/1.1 200"), "it began");
    house.put(&at("a"), vec![2; 8_000_000]).await.ok();
    let mut rest = Vec::new();
    // The connection may end in a reset as well.
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < old.len(), "{} bytes: it ends early", rest.len());
    assert!(!rest.contains(&2), "never a mixture");
    assert!(house.get(&at("a")).await.ok().body.iter().all(|byte| *byte == 2));
    let free = async || house.api.objects().reading.free() == 256 << 20;
    eventually("all room is given back", free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_gets_all_of_it_and_holds_little() {
    for (without, figure) in WAYS.into_iter().zip(["next_total", "get_total"]) {
        slow_client(House::with(json!({ "without": without })).await, figure).await;
    }
}

async fn slow_client(house: House, figure: &str) {
    let data = content(12_000_000);
    house.put(&at("a"), data.clone()).await.ok();
    let asked = house.figure(figure).await;
    let head = format!("GET {} HTTP/1.1\r\nconnection: close", at("a"));
    let mut stream = begun(&house, &head).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ahead = house.figure(figure).await - asked;
    assert!(
        (1..180).contains(&ahead),
        "{ahead} of 733 pieces were asked for before the client took any"
    );
    let held = (256 << 20) - house.api.objects().reading.free();
    assert!(held < 1 << 20, "{held} bytes are held");
    let mut read = Vec::new();
    let mut piece = vec![0; 100_000];
    loop {
        match stream.read(&mut piece).await.unwrap() {
            0 => break,
            len => read.extend_from_slice(&piece[..len]),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(read.ends_with(&data[data.len() - 100_000..]) && read.len() > data.len());
    let start = read.len() - data.len();
    assert!(read[start..] == data, "every byte in its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_whose_client_is_gone_is_given_up_at_once() {
    let house = House::new().await;
    // More than is sent ahead of a client that takes nothing.
    house.put(&at("a"), content(12_000_000)).await.ok();
    assert_eq!(house.get(&at("a")).await.ok().body.len(), 12_000_000);
    let dropped = async || house.figure("readings_dropped_total").await;
    eventually("one that came to its end is let go", async || dropped().await == 1).await;
    // The store says nothing for longer than the test waits; the first call is for the answer's beginning.
    let head = format!("GET {} HTTP/1.1\r\nconnection: close", at("a"));
    let mut stream = begun(&house, &head).await;
    stream.read_exact(&mut vec![0; 1000]).await.unwrap();
    house.fault(json!({ "call": "next", "wait_ms": 60_000, "times": 1000 })).await;
    let mut some = vec![0; 100_000];
    while let Ok(read) =
        tokio::time::timeout(Duration::from_millis(200), stream.read(&mut some)).await
    {
        assert_ne!(read.unwrap(), 0, "it came to its end");
    }
    assert_eq!(dropped().await, 1, "it waits for the store");
    drop(stream);
    eventually("it is let go", async || dropped().await == 2).await;
    let free = async || house.api.objects().reading.free() == 256 << 20;
    eventually("all room is given back", free).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_fails_in_its_middle_ends_early() {
    let house = House::new().await;
    house.put(&at("a"), content(8_000_000)).await.ok();
    house.fault(json!({ "call": "next", "kind": UNAVAILABLE })).await;
    let refused = house.get(&at("a")).await;
    assert_eq!(refused.status, 503, "before the first byte it is told");
    let head = format!("GET {} HTTP/1.1\r\nconnection: close", at("a"));
    let mut stream = begun(&house, &head).await;
    stream.read_exact(&mut vec![0; 1000]).await.unwrap();
    house.fault(json!({ "call": "next", "kind": UNAVAILABLE })).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 7_900_000, "{} bytes", rest.len());
    assert!(house.get(&at("a")).await.ok().body == content(8_000_000));
    assert_eq!(house.figure("get_total").await, 0, "all was read in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_writer_and_a_slow_store_come_to_their_end() {
    let house = House::new().await;
    house.fault(json!({ "call": "put_part", "wait_ms": 30, "times": 1000 })).await;
    let data = content(600_000);
    let head =
        format!("PUT {} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}", at("a"), data.len());
    let mut stream = begun(&house, &head).await;
    for chunk in data.chunks(50_000) {
        stream.write_all(chunk).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(house.get(&at("a")).await.ok().body == data);
    let most = house.figure("most_at_once").await;
    assert!((2..=6).contains(&most), "{most} parts at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transfers_wait_for_room_and_do_not_fail() {
    let house = House::new().await;
    let writing = &house.api.objects().writing;
    let all = writing.reserve(novastor::objects::LARGEST_PART).await.unwrap();
    let path = at("a");
    let putting = house.put(&path, content(100_000));
    tokio::pin!(putting);
    let waiting = tokio::time::timeout(Duration::from_millis(200), putting.as_mut()).await;
    assert!(waiting.is_err(), "there is no room");
    drop(all);
    putting.await.ok();
    assert!(house.get(&at("a")).await.ok().body == content(100_000));
}
