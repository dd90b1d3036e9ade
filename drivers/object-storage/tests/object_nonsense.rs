// SPDX-License-Identifier: Apache-2.0
//! Servers that answer nonsense, by mistake or on purpose: no bytes are made up, no write counts as done that nobody
//! confirmed, nothing panics, and nothing goes on for ever.

mod support;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use driver_api::{
    Backend, ErrorKind, ROption, Tuple2,
    ext::{
        BucketSpec, Conditions, ListQuery, ObjectChange, ObjectName, Objects, PartInfo, PutOptions,
        UploadInfo,
    },
};
use object_storage::ObjectBackend;
use serde_json::json;
use support::{
    buf, open, refused,
    script::{Asked, Script, answer, endless},
    within,
};

fn s3(script: &Script) -> ObjectBackend {
    let options = json!({
        "kind": "s3", "endpoint": script.url(), "access_key": "a", "secret_key": "b",
    });
    open(options, json!({}))
}

fn azure(script: &Script) -> ObjectBackend {
    open(json!({"kind": "azure", "emulator": true, "endpoint": script.url()}), json!({}))
}

fn swift(script: &Script) -> ObjectBackend {
    let auth = format!("{}/auth/v1.0", script.url());
    let options = json!({
        "kind": "swift", "auth": "v1", "auth_url": auth, "user": "a:b", "password": "c",
    });
    open(options, json!({}))
}

/// What Swift answers to a login, and to questions about itself.
fn login(asked: &Asked, more: &str) -> Option<Vec<u8>> {
    let host = asked.headers.lines().find_map(|line| line.strip_prefix("host: "));
    let url = format!("http://{}/v1/AUTH_a", host.unwrap_or_default());
    if asked.target.starts_with("/auth") {
        let head = format!("200 OK\nX-Auth-Token: t\nX-Storage-Url: {url}{more}");
        return Some(answer(&head, ""));
    }
    let info = r#"{"swift": {"version": "2.30.1"}, "slo": {}, "bulk_delete": {}}"#;
    asked.target.starts_with("/info").then(|| answer("200 OK", info))
}

fn objects(backend: &ObjectBackend) -> Arc<dyn Objects> {
    backend.objects().expect("objects")
}

fn object(key: &str) -> ObjectName {
    ObjectName::new("bucket", key)
}

const ETAG: &str = "ETag: \"0123456789abcdef0123456789abcdef-2\"";

#[tokio::test]
async fn a_size_that_is_not_told_is_not_zero() {
    let content_range = Arc::new(std::sync::Mutex::new("/"));
    let range = Arc::clone(&content_range);
    let script = Script::new(move |asked| match *range.lock().expect("a range") {
        _ if asked.method == "HEAD" => endless(&format!("200 OK\n{ETAG}"), ""),
        "" => endless(&format!("200 OK\n{ETAG}"), "hello"),
        range => answer(&format!("206 Partial Content\n{ETAG}\nContent-Range: {range}"), "hello"),
    });
    let objects = objects(&s3(&script));
    // The last would make the length overflow.
    for range in ["", "bytes 0-4/*", "bytes 0-18446744073709551615/5", "bytes */5", "bytes 0-4"] {
        *content_range.lock().expect("a range") = range;
        let got = objects.get(&within(3), object("a"), 0, 10, Conditions::default()).await;
        let error = refused(got.map(|piece| piece.data.len()), ErrorKind::CORRUPTED);
        assert!(error.message().contains("not to what was asked"), "{range}: {error:#}");
    }
    let head = objects.head(&within(3), object("a"), Conditions::default()).await;
    refused(head.map(|info| info.size), ErrorKind::CORRUPTED);
}

#[tokio::test]
async fn a_success_that_is_not_the_stores_is_none() {
    let script = Script::new(|asked| match asked.method.as_str() {
        "HEAD" => answer("404 Not Found", ""),
        "PUT" if asked.target.ends_with("/error") => {
            answer("200 OK\nETag: \"x\"", "<Error><Code>AccessDenied</Code></Error>")
        }
        "DELETE" => answer("200 OK", "<Error><Code>AccessDenied</Code></Error>"),
        _ => answer("200 OK\nContent-Type: text/html", "<html>Please log in</html>"),
    });
    for objects in [objects(&s3(&script)), objects(&azure(&script))] {
        for key in ["login", "error"] {
            let put = objects.put(&within(3), object(key), buf(b"data"), PutOptions::default());
            let error = refused(put.await, ErrorKind::TIMED_OUT);
            assert!(error.remedy_text().contains("unknown"), "{error:#}");
        }
        let deleted = objects.delete(&within(3), object("a"), Conditions::default()).await;
        refused(deleted, ErrorKind::TIMED_OUT);
    }
}

fn upload(id: &str) -> (UploadInfo, Vec<PartInfo>) {
    let upload = UploadInfo {
        bucket: "bucket".into(),
        key: "large".into(),
        id: id.into(),
        mark: "ab12".into(),
        ..UploadInfo::default()
    };
    let part = PartInfo {
        number: 1,
        size: 5,
        etag: "0123456789abcdef0123456789abcdef".into(),
        checksum: "".into(),
        reserved: [0; 2],
    };
    (upload, vec![part])
}

/// The answer to a completion is nonsense: the mark of what is there tells, or the outcome is unknown.
#[tokio::test]
async fn a_completion_without_an_answer_is_proven_or_unknown() {
    // `{"k":"ab12"}` in base64.
    let azures = "0123456789abcdef0123456789abcdef.eyJrIjoiYWIxMiJ9";
    for body in ["", "  ", "<html/>", "<CompleteMultipartUploadResult><ETag>"] {
        for own in [true, false] {
            let script = Script::new(move |asked| match asked.method.as_str() {
                "HEAD" if own => answer(
                    &format!(
                        "200 OK\n{ETAG}\nx-amz-meta-novastor-mark: ab12\nx-ms-meta-novastor_mark: ab12"
                    ),
                    "12345",
                ),
                "HEAD" | "GET" => answer("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"),
                _ => answer("200 OK", body),
            });
            for (objects, id) in [(objects(&s3(&script)), "id"), (objects(&azure(&script)), azures)]
            {
                let (upload, parts) = upload(id);
                let done = objects
                    .complete_upload(&within(3), upload, parts.into(), Conditions::default())
                    .await;
                if own {
                    assert_eq!(done.expect("proven").size, 5, "{body:?}");
                } else {
                    refused(done, ErrorKind::TIMED_OUT);
                }
            }
        }
    }
}

/// An object of parts that is shorter than they are has lost some.
#[tokio::test]
async fn a_completed_object_has_the_size_of_its_parts() {
    let script = Script::new(|asked| match asked.method.as_str() {
        "HEAD" => answer(&format!("200 OK\n{ETAG}\nx-amz-meta-novastor-mark: ab12"), "1234"),
        _ => answer(
            "200 OK",
            "<CompleteMultipartUploadResult><ETag>\"0123456789abcdef0123456789abcdef-2\"</ETag></CompleteMultipartUploadResult>",
        ),
    });
    let (upload, mut parts) = upload("id");
    let objects = objects(&s3(&script));
    for more in [0, u64::MAX] {
        if more > 0 {
            parts.push(PartInfo { number: 2, size: more, ..parts[0].clone() });
        }
        let done = objects
            .complete_upload(
                &within(3),
                upload.clone(),
                parts.clone().into(),
                Conditions::default(),
            )
            .await;
        refused(done, ErrorKind::CORRUPTED);
    }
}

#[tokio::test]
async fn times_beyond_every_clock_are_no_panic() {
    let script = Script::new(|asked| {
        let most = u64::MAX;
        let more = format!("\nX-Auth-Token-Expires: {most}");
        login(asked, &more)
            .unwrap_or_else(|| answer(&format!("503 Busy\nRetry-After: {most}"), "busy"))
    });
    for objects in [objects(&s3(&script)), objects(&azure(&script)), objects(&swift(&script))] {
        let head = objects.head(&within(2), object("a"), Conditions::default()).await;
        refused(head, ErrorKind::UNAVAILABLE);
        let got = objects.get(&within(2), object("a"), 0, 5, Conditions::default()).await;
        refused(got.map(drop), ErrorKind::UNAVAILABLE);
    }
}

#[tokio::test]
async fn values_that_no_header_should_have_are_refused_before_anything_is_asked() {
    let script = Script::new(|asked| login(asked, "").unwrap_or_else(|| answer("500 No", "")));
    for objects in [objects(&s3(&script)), objects(&azure(&script))] {
        for bad in ["text/grün", "text/plain\r\nX-Evil: 1", "a\0b"] {
            let options = PutOptions { content_type: bad.into(), ..PutOptions::default() };
            let put = objects.put(&within(2), object("a"), buf(b"x"), options).await;
            refused(put, ErrorKind::INVALID_ARGUMENT);
            let options = PutOptions { storage_class: bad.into(), ..PutOptions::default() };
            let put = objects.put(&within(2), object("a"), buf(b"x"), options).await;
            refused(put, ErrorKind::INVALID_ARGUMENT);
            let put = objects.head(&within(2), object("a"), Conditions::matching(bad)).await;
            refused(put, ErrorKind::INVALID_ARGUMENT);
        }
    }
    assert_eq!(script.asked().len(), 0);
}

/// What an object's own time adds to the clock's may be beyond it.
#[tokio::test]
async fn an_expiry_beyond_every_clock_is_no_panic() {
    let script = Script::new(|asked| {
        login(asked, "").unwrap_or_else(|| match asked.method.as_str() {
            "PUT" => answer("201 Created\nETag: \"9dd4e461268c8034f5c8564e155c67a6\"", ""),
            "POST" => answer("202 Accepted", ""),
            _ => answer(&format!("200 OK\n{ETAG}"), "x"),
        })
    });
    let objects = objects(&swift(&script));
    let options = PutOptions { expire_after_secs: u64::MAX, ..PutOptions::default() };
    let put = objects.put(&within(2), object("a"), buf(b"x"), options.clone()).await.expect("put");
    assert_eq!(put.expires_ms, u64::MAX);
    let change =
        ObjectChange { expire_after_secs: ROption::RSome(u64::MAX), ..ObjectChange::default() };
    objects.change(&within(2), object("a"), change).await.expect("a change");
    let begun = objects.begin_upload(&within(2), object("a"), options).await;
    assert_ne!(begun.expect_err("no such sum").kind(), ErrorKind::PANIC);
}

/// A refusal that says nothing of why is not taken for somebody else's bucket.
#[tokio::test]
async fn wrong_keys_are_no_bucket_of_somebody_elses() {
    for (code, kind) in [
        ("InvalidAccessKeyId", ErrorKind::UNAUTHENTICATED),
        ("SignatureDoesNotMatch", ErrorKind::UNAUTHENTICATED),
        ("AccessDenied", ErrorKind::ALREADY_EXISTS),
    ] {
        let script = Script::new(move |asked| match asked.method.as_str() {
            "HEAD" => answer("403 Forbidden", ""),
            _ => answer("403 Forbidden", &format!("<Error><Code>{code}</Code></Error>")),
        });
        let created =
            objects(&s3(&script)).create_bucket(&within(2), BucketSpec::new("bucket")).await;
        refused(created, kind);
        assert_eq!(script.count("PUT", ""), 0);
    }
}

/// An upload that is completed while it is given up leaves no object that looks whole.
#[tokio::test]
async fn an_upload_that_is_completed_while_it_is_given_up_is_told() {
    const ID: &str = "1795447560040-0123456789abcdef0123456789abcdef";
    let heads = AtomicUsize::new(0);
    let script = Script::new(move |asked| {
        login(asked, "").unwrap_or_else(|| match asked.method.as_str() {
            "HEAD" if heads.fetch_add(1, Relaxed) == 0 => answer("404 Not Found", ""),
            "HEAD" => answer(&format!("200 OK\n{ETAG}\nX-Object-Meta-Nvs-Upload: {ID}"), ""),
            "GET" => answer("200 OK", "[]"),
            _ => answer("204 Gone", ""),
        })
    });
    let (upload, _) = upload(ID);
    let aborted = objects(&swift(&script)).abort_upload(&within(2), upload).await;
    refused(aborted, ErrorKind::CORRUPTED);
}

/// A bucket's name in a host's name, which it cannot be.
#[tokio::test]
async fn a_bucket_that_makes_no_host_is_refused() {
    let options = json!({
        "kind": "s3", "endpoint": "http://localhost:1", "access_key": "a", "secret_key": "b",
        "style": "virtual",
    });
    let objects = objects(&open(options, json!({})));
    let head = objects.head(&within(2), ObjectName::new("xn--a", "a"), Conditions::default());
    refused(head.await, ErrorKind::INVALID_ARGUMENT);
}

/// Swift says so of a write that came too late, and keeps the other.
#[tokio::test]
async fn a_write_that_was_not_kept_is_not_taken_for_a_damaged_one() {
    let script = Script::new(|asked| {
        login(asked, "").unwrap_or_else(|| match asked.method.as_str() {
            "PUT" => answer("202 Accepted", ""),
            _ => answer("404 Not Found", ""),
        })
    });
    let put = objects(&swift(&script))
        .put(&within(2), object("a"), buf(b"x"), PutOptions::default())
        .await;
    let error = refused(put, ErrorKind::CONFLICT);
    assert!(error.message().contains("later time"), "{error:#}");
}

/// A name that would become another one is refused; what can be asked for as it is, is.
#[tokio::test]
async fn swift_never_takes_one_name_for_another() {
    let script = Script::new(|asked| {
        login(asked, "").unwrap_or_else(|| match asked.method.as_str() {
            "DELETE" => answer("204 Gone", ""),
            _ => answer(&format!("200 OK\n{ETAG}"), ""),
        })
    });
    let objects = objects(&swift(&script));
    for key in ["/a", "a/", "/a/", "a//b", "/"] {
        let put = objects.put(&within(2), object(key), buf(b"x"), PutOptions::default()).await;
        refused(put, ErrorKind::INVALID_ARGUMENT);
        let got = objects.get(&within(2), object(key), 0, 5, Conditions::default()).await;
        refused(got.map(drop), ErrorKind::INVALID_ARGUMENT);
        let begun = objects.begin_upload(&within(2), object(key), PutOptions::default()).await;
        refused(begun, ErrorKind::INVALID_ARGUMENT);
        // What another client named so can be deleted.
        objects.delete(&within(2), object(key), Conditions::default()).await.expect("deleted");
        let sent = script.asked();
        let last = sent.iter().rfind(|asked| asked.method == "DELETE").expect("a deletion");
        assert_eq!(last.target, format!("/v1/AUTH_a/bucket/{key}"));
    }
    assert_eq!(script.count("PUT", ""), 0);
}

/// A gateway gives shorter pages than it is asked for, and says nothing of it.
#[tokio::test]
async fn a_short_page_is_not_the_end_of_a_gateways_listing() {
    let script = Script::new(|asked| {
        let told = asked.target.starts_with("/info");
        if told {
            return answer("200 OK", r#"{"swift": {"version": "16.2"}}"#);
        }
        login(asked, "").unwrap_or_else(|| {
            let lines: Vec<String> = ["a", "b", "c"]
                .iter()
                .filter(|name| !asked.target.contains(&format!("marker={name}")))
                .filter(|name| !asked.target.contains("marker=b") || **name == "c")
                .filter(|_| !asked.target.contains("marker=c"))
                .take(if asked.target.contains("limit=1&") || asked.target.ends_with("limit=1") { 1 } else { 2 })
                .map(|name| {
                    format!(
                        r#"{{"name": "{name}", "bytes": 1, "hash": "x", "content_type": "t", "last_modified": "2026-11-23T15:26:00.0"}}"#
                    )
                })
                .collect();
            answer("200 OK", &format!("[{}]", lines.join(",")))
        })
    });
    let objects = objects(&swift(&script));
    let mut query = ListQuery { limit: 1000, ..ListQuery::default() };
    let mut keys = Vec::new();
    loop {
        let page = objects.list(&within(3), "bucket", query.clone()).await.expect("a page");
        keys.extend(page.objects.iter().map(|object| object.key.to_string()));
        if page.next.is_empty() {
            break;
        }
        query.page = page.next;
    }
    assert_eq!(keys, ["a", "b", "c"]);
}

/// Listings that go round are noticed, not collected until memory ends.
#[tokio::test]
async fn listings_that_do_not_advance_are_refused() {
    let script = Script::new(|asked| {
        if let Some(login) = login(asked, "") {
            return login;
        }
        if asked.target.starts_with("/v1/AUTH_a?") {
            return answer("200 OK", r#"[{"name": "a", "count": 1, "bytes": 1}]"#);
        }
        if asked.target.starts_with("/v1/") {
            let line = r#"{"name": ".begun/a/1", "bytes": 1, "hash": "x", "last_modified": "2026-11-23T15:26:00.0"}"#;
            return answer("200 OK", &format!("[{line}]"));
        }
        // S3's buckets: two tokens in turn.
        let next = if asked.target.contains("=one") { "two" } else { "one" };
        let bucket = "<Bucket><Name>a</Name></Bucket>";
        answer(
            "200 OK",
            &format!(
                "<ListAllMyBucketsResult><Buckets>{bucket}</Buckets><ContinuationToken>{next}</ContinuationToken></ListAllMyBucketsResult>"
            ),
        )
    });
    for objects in [objects(&s3(&script)), objects(&swift(&script))] {
        let error = refused(objects.buckets(&within(3)).await, ErrorKind::CORRUPTED);
        assert!(error.message().contains("advance"), "{error:#}");
    }
    let uploads = objects(&swift(&script)).uploads(&within(3), "bucket", Default::default());
    let error = refused(uploads.await, ErrorKind::CORRUPTED);
    assert!(error.message().contains("advance"), "{error:#}");
    assert!(script.asked().len() < 20, "{}", script.asked().len());
}

/// Pages without names keep the place: the names before it may not come again.
#[tokio::test]
async fn empty_pages_keep_the_place_of_a_listing() {
    let script = Script::new(|asked| {
        let (key, next) = match asked.target.as_str() {
            target if target.contains("token=one") => ("", "two"),
            target if target.contains("token=two") => ("b", "three"),
            _ => ("b", "one"),
        };
        let key = match key {
            "" => String::new(),
            key => format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>"),
        };
        answer(
            "200 OK",
            &format!(
                "<ListBucketResult><Name>bucket</Name><Prefix/>{key}<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
            ),
        )
    });
    let objects = objects(&s3(&script));
    let mut query = ListQuery { limit: 10, ..ListQuery::default() };
    for _ in 0..2 {
        query.page = objects.list(&within(3), "bucket", query.clone()).await.expect("a page").next;
    }
    let error = refused(objects.list(&within(3), "bucket", query).await, ErrorKind::CORRUPTED);
    assert!(error.message().contains("advance"), "{error:#}");
}

#[tokio::test]
async fn what_is_not_repeated_is_not_counted_as_repeated() {
    let script = Script::new(|_| answer("404 Not Found", "<Error><Code>NoSuchKey</Code></Error>"));
    let backend = s3(&script);
    let got = objects(&backend).get(&within(3), object("a"), 0, 5, Conditions::default()).await;
    refused(got.map(drop), ErrorKind::NOT_FOUND);
    let stats = backend.stats();
    let retries = stats.metrics.iter().find(|metric| metric.name == "retries_total");
    assert_eq!(retries.map(|metric| metric.value), Some(0.0));
}

/// What another program said of an object in other letters is told, so that nothing drops it without a word.
#[tokio::test]
async fn metadata_of_other_letters_are_told() {
    let script = Script::new(|_| {
        answer(&format!("200 OK\n{ETAG}\nContent-Type: text/grün\nx-amz-meta-a: blau, grün"), "x")
    });
    let head = objects(&s3(&script)).head(&within(3), object("a"), Conditions::default()).await;
    let head = head.expect("a head");
    assert_eq!(head.metadata.to_vec(), [Tuple2("a".into(), "blau, grün".into())]);
    assert_eq!(head.content_type, "text/grün");
}

/// A change under a condition whose answer was lost, and whose repetition finds the changed object.
#[tokio::test]
async fn a_change_that_is_refused_after_a_lost_answer_is_unknown() {
    let asked = AtomicUsize::new(0);
    let script = Script::new(move |request| match request.method.as_str() {
        "PUT" if asked.fetch_add(1, Relaxed) == 0 => answer("500 Lost", ""),
        "PUT" => answer("412 Precondition Failed", "<Error><Code>ConditionNotMet</Code></Error>"),
        _ => answer(&format!("200 OK\n{ETAG}"), "x"),
    });
    let change = ObjectChange {
        metadata: ROption::RSome(vec![Tuple2("a".into(), "b".into())].into()),
        ..ObjectChange::default()
    };
    let done = objects(&azure(&script)).change(&within(3), object("a"), change).await;
    refused(done, ErrorKind::TIMED_OUT);
}

/// One that waits for what another finds out does not wait beyond its own deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_deadline_does_not_wait_for_a_long_one() {
    let script = Script::raw(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let objects = objects(&s3(&script));
    let create = || PutOptions { conditions: Conditions::create_only(), ..PutOptions::default() };
    let (first, long) = (Arc::clone(&objects), create());
    let first =
        tokio::spawn(async move { first.put(&within(20), object("a"), buf(b"x"), long).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let put = objects.put(&within(1), object("b"), buf(b"x"), create()).await;
    put.expect_err("no answer");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    first.abort();
}

/// The text of a refusal is not read for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_refusals_are_cut_off() {
    let script = Script::raw(|asked, stream| {
        if let Some(login) = login(asked, "") {
            return drop(stream.write_all(&login));
        }
        let head = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n";
        if stream.write_all(head.as_bytes()).is_ok() {
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
        }
    });
    for backend in [s3(&script), swift(&script)] {
        let began = Instant::now();
        let got = objects(&backend).get(&within(10), object("a"), 0, 5, Conditions::default());
        refused(got.await.map(drop), ErrorKind::PERMISSION_DENIED);
        let put = objects(&backend).put(&within(10), object("a"), buf(b"x"), PutOptions::default());
        refused(put.await, ErrorKind::PERMISSION_DENIED);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
