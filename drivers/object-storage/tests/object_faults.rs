// SPDX-License-Identifier: Apache-2.0
//! Bad days of networks and stores: right bytes, or a clear error within the deadline; nothing is taken for what it is not.
//! `tests/services/object with` starts the stores.

mod support;

use std::time::{Duration, Instant};

use driver_api::{
    Backend, ErrorKind, HealthState, Retry,
    ext::{Conditions, CopyOptions, ObjectName, PutOptions},
};
use serde_json::json;
use support::{
    Addresses, Stage, buf, cx, noise, open, options,
    proxy::{Fault, Proxy},
    refused, within,
};

async fn stage(store: &str) -> (Stage, Proxy) {
    let stage = Stage::new(store).await;
    let options = options(store);
    let proxy = Proxy::before(options["endpoint"].as_str().expect("an endpoint"));
    (stage, proxy)
}

fn create_only() -> PutOptions {
    PutOptions { conditions: Conditions::create_only(), ..PutOptions::default() }
}

/// A create-only write whose answer is lost, or is an error, is proven by its mark.
async fn lost_answers_are_proven(store: &str) {
    let (stage, proxy) = stage(store).await;
    let objects = stage.through(&proxy, json!({}));
    // The conditions are tried out now, so that the faults hit the writes.
    objects.put(&cx(), stage.object("first"), buf(b"x"), create_only()).await.expect("put");
    for (key, fault) in [
        ("lost", Fault::LoseAnswer),
        ("failed", Fault::DoneBut(500)),
        ("busy", Fault::DoneBut(503)),
    ] {
        proxy.next("PUT", key, fault, 1);
        let put = objects.put(&cx(), stage.object(key), buf(b"content"), create_only()).await;
        let put = put.unwrap_or_else(|error| panic!("{fault:?}: {error:#}"));
        assert_eq!((put.size, put.metadata.len()), (7, 0));
        assert_eq!(proxy.count("PUT", key), 2, "{fault:?}");
        let second = objects.put(&cx(), stage.object(key), buf(b"other"), create_only()).await;
        refused(second, ErrorKind::ALREADY_EXISTS);
    }
}

/// Another writer's equal content is not taken for ours: it is older, which proves that ours had no effect, or nobody can tell.
async fn another_writers_content_is_not_ours(store: &str) {
    let (stage, proxy) = stage(store).await;
    let objects = stage.through(&proxy, json!({}));
    objects.put(&cx(), stage.object("older"), buf(b"same"), create_only()).await.expect("put");
    tokio::time::sleep(Duration::from_secs(8)).await;
    proxy.next("PUT", "older", Fault::LoseAnswer, 1);
    let put = objects.put(&cx(), stage.object("older"), buf(b"same"), create_only()).await;
    refused(put, ErrorKind::ALREADY_EXISTS);
    stage
        .objects
        .put(&cx(), stage.object("newer"), buf(b"same"), create_only())
        .await
        .expect("put");
    proxy.next("PUT", "newer", Fault::LoseAnswer, 1);
    let put = objects.put(&cx(), stage.object("newer"), buf(b"same"), create_only()).await;
    let error = refused(put, ErrorKind::TIMED_OUT);
    assert_eq!(error.retry(), Retry::PERMANENT, "{error:#}");
    assert!(format!("{error:#}").contains("unknown"), "{error:#}");
}

/// A storm slows; it fails nothing that the deadline allows.
async fn storms_slow(store: &str) {
    let (stage, proxy) = stage(store).await;
    let mut through = options(store);
    through["endpoint"] = proxy.url(through["endpoint"].as_str().expect("a URL")).into();
    let backend = open(through, json!({}));
    let objects = backend.objects().expect("objects");
    let data = noise(10_000);
    for status in [429, 503, 500] {
        proxy.next("PUT", "stormy", Fault::Refuse(status), 3);
        proxy.next("GET", "stormy", Fault::Refuse(status), 3);
        let put = objects.put(&cx(), stage.object("stormy"), buf(&data), PutOptions::default());
        put.await.unwrap_or_else(|error| panic!("{status}: {error:#}"));
        let get = objects.get(&cx(), stage.object("stormy"), 0, 20_000, Conditions::default());
        let get = get.await.unwrap_or_else(|error| panic!("{status}: {error:#}"));
        assert!(get.data[..] == data[..]);
    }
    proxy.next("GET", "stormy", Fault::Refuse(503), 1000);
    let began = Instant::now();
    let get = objects.get(&within(3), stage.object("stormy"), 0, 10, Conditions::default()).await;
    let error = refused(get, ErrorKind::UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(error.message().contains("patience"), "{error:#}");
    let health = backend.health(&cx()).await.expect("health");
    assert_eq!(health.state, HealthState::DEGRADED, "{}", health.reason);
    proxy.heal();
    for _ in 0..60 {
        let get = objects.get(&cx(), stage.object("stormy"), 0, 10, Conditions::default());
        get.await.expect("after the storm");
    }
    let health = backend.health(&cx()).await.expect("health");
    assert_eq!(health.state, HealthState::HEALTHY, "{}", health.reason);
    let stats = backend.stats();
    let value = |name: &str| {
        stats.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    };
    assert!(value("slow_down_answers_total") >= Some(12.0) && value("retries_total") >= Some(18.0));
}

/// What comes truncated is gone on with; what comes damaged is fetched again.
async fn answers_are_checked(store: &str) {
    let (stage, proxy) = stage(store).await;
    let objects = stage.through(&proxy, json!({}));
    let data = noise(200_000);
    let object = stage.object("content");
    objects.put(&cx(), object.clone(), buf(&data), PutOptions::default()).await.expect("put");
    let get =
        |cx, offset, len| objects.get(&cx, object.clone(), offset, len, Conditions::default());
    for keep in [0, 1, 60_000, 199_999] {
        proxy.next("GET", "content", Fault::Truncate(keep), 1);
        let piece = get(cx(), 0, 200_000).await.unwrap_or_else(|error| panic!("{keep}: {error:#}"));
        assert!(piece.data[..] == data[..], "{keep}");
    }
    proxy.next("GET", "content", Fault::Truncate(30_000), 5);
    let before = proxy.count("GET", "content");
    let piece = get(cx(), 20_000, 160_000).await.expect("in pieces");
    assert!(piece.data[..] == data[20_000..180_000]);
    assert_eq!(proxy.count("GET", "content") - before, 6);
    proxy.next("GET", "content", Fault::CorruptAnswer, 1);
    assert!(get(cx(), 0, 200_000).await.expect("fetched again").data[..] == data[..]);
    proxy.next("GET", "content", Fault::CorruptAnswer, 100);
    refused(get(cx(), 0, 200_000).await, ErrorKind::CORRUPTED);
    proxy.heal();
    proxy.next("GET", "content", Fault::Truncate(0), 1000);
    let began = Instant::now();
    let error = refused(get(within(2), 0, 200_000).await, ErrorKind::UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(3), "{error:#}");
    // An object that is replaced while it is read is not mixed with its successor.
    proxy.heal();
    proxy.next("GET", "content", Fault::Truncate(50_000), 1);
    let reading = get(cx(), 0, 200_000);
    let replacing = async {
        while proxy.count("GET", "content") < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let other = vec![7; 200_000];
        stage
            .objects
            .put(&cx(), object.clone(), buf(&other), PutOptions::default())
            .await
            .expect("put");
    };
    let (read, ()) = tokio::join!(async { reading.await }, replacing);
    match read {
        Ok(piece) => {
            assert!(piece.data[..] == data[..] || piece.data.iter().all(|&byte| byte == 7))
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::CONFLICT, "{error:#}"),
    }
}

/// What is damaged on its way to the store is noticed and sent again.
async fn requests_are_checked(store: &str) {
    let (stage, proxy) = stage(store).await;
    let objects = stage.through(&proxy, json!({}));
    let data = noise(50_000);
    for (key, options) in [("plain", PutOptions::default()), ("created", create_only())] {
        objects
            .put(&cx(), stage.object("first"), buf(b"x"), PutOptions::default())
            .await
            .expect("put");
        proxy.next("PUT", key, Fault::CorruptRequest, 1);
        let put = objects.put(&cx(), stage.object(key), buf(&data), options).await;
        if let Err(error) = put {
            // A store that checks refuses, and keeps nothing.
            assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{error:#}");
            let head = stage.objects.head(&cx(), stage.object(key), Conditions::default()).await;
            refused(head, ErrorKind::NOT_FOUND);
            continue;
        }
        let get = stage.objects.get(&cx(), stage.object(key), 0, 50_000, Conditions::default());
        assert!(get.await.expect("get").data[..] == data[..], "{key}");
    }
}

/// Silence and dripping end at the deadline.
async fn deadlines_hold(store: &str) {
    let (stage, proxy) = stage(store).await;
    let objects = stage.through(&proxy, json!({}));
    let object = stage.object("slow");
    objects
        .put(&cx(), object.clone(), buf(&noise(5000)), PutOptions::default())
        .await
        .expect("put");
    for fault in [Fault::Silence, Fault::Drip] {
        proxy.next("GET", "slow", fault, 100);
        proxy.next("PUT", "slow", fault, 100);
        let began = Instant::now();
        let get = objects.get(&within(2), object.clone(), 0, 5000, Conditions::default()).await;
        refused(get, ErrorKind::TIMED_OUT);
        assert!(began.elapsed() < Duration::from_secs(3), "{fault:?} {:?}", began.elapsed());
        let began = Instant::now();
        let put = objects.put(&within(2), object.clone(), buf(b"new"), PutOptions::default()).await;
        let error = refused(put, ErrorKind::TIMED_OUT);
        assert!(format!("{error:#}").contains("unknown"), "{error:#}");
        assert!(began.elapsed() < Duration::from_secs(3), "{fault:?} {:?}", began.elapsed());
        proxy.heal();
    }
    // Silence shorter than the deadline costs one attempt.
    let objects = stage.through(&proxy, json!({"request_timeout_secs": 1}));
    proxy.next("GET", "slow", Fault::Silence, 1);
    objects.get(&cx(), object, 0, 5000, Conditions::default()).await.expect("the second attempt");
}

macro_rules! on {
    ($($test:ident: $($store:ident)*;)*) => {$(
        mod $test {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs the servers of `tests/services/object with`"]
                async fn $store() {
                    super::$test(stringify!($store)).await;
                }
            )*
        }
    )*};
}

on! {
    lost_answers_are_proven: moto azurite gcs;
    another_writers_content_is_not_ours: moto azurite gcs;
    storms_slow: moto azurite gcs;
    answers_are_checked: moto gcs;
    requests_are_checked: moto azurite gcs;
    deadlines_hold: moto azurite gcs;
}

const INTERNAL: &str = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We failed</Message></Error>";
const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Not you</Message></Error>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn an_error_with_status_200_is_an_error() {
    let (stage, proxy) = stage("moto").await;
    let objects = stage.through(&proxy, json!({}));
    objects.put(&cx(), stage.object("from"), buf(b"x"), PutOptions::default()).await.expect("put");
    let copy = || {
        objects.copy(&cx(), stage.object("from"), stage.object("target"), CopyOptions::default())
    };
    proxy.next("PUT", "target", Fault::Say(200, INTERNAL), 1);
    copy().await.expect("copied by the second attempt");
    proxy.next("PUT", "target", Fault::Say(200, DENIED), 1);
    let error = copy().await.expect_err("refused");
    assert!(format!("{error:#}").contains("AccessDenied"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn causes_and_remedies_are_told() {
    let at = Addresses::read();
    let head = |options, bucket: &'static str| async move {
        let objects = open(options, json!({})).objects().expect("objects");
        let name = ObjectName::new(bucket, "x");
        objects.head(&within(5), name, Conditions::default()).await.expect_err("refused")
    };
    let told = |error: &driver_api::Error, kind, words: &[&str]| {
        let text = format!("{error:#}");
        assert_eq!(error.kind(), kind, "{text}");
        assert!(!error.remedy_text().is_empty(), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text:?}");
        }
    };
    // moto does not look at keys, Swift's S3 does.
    let keys = |access: &str, secret: &str| json!({"kind": "s3", "endpoint": at.get("swift_s3"), "access_key": access, "secret_key": secret});
    let error = head(keys(at.get("swift_user"), "wrong"), "bucket").await;
    told(&error, ErrorKind::UNAUTHENTICATED, &["SignatureDoesNotMatch", "secret_key"]);
    let error = head(keys("nobody:here", "wrong"), "bucket").await;
    told(&error, ErrorKind::UNAUTHENTICATED, &["access_key"]);
    let error = head(keys(at.get("swift_user"), at.get("swift_key")), "no-such-bucket").await;
    told(&error, ErrorKind::NOT_FOUND, &["no-such-bucket", "novastor bucket create"]);
    let error = head(options("moto_tls"), "bucket").await;
    told(&error, ErrorKind::UNAVAILABLE, &["certificate", "ca_file"]);
    let mut trusted = options("moto_tls");
    trusted["ca_file"] = at.get("ca").into();
    let error = head(trusted, "no-such-bucket").await;
    told(&error, ErrorKind::NOT_FOUND, &["no-such-bucket"]);
    let error = head(options("moto"), "ab").await;
    told(&error, ErrorKind::INVALID_ARGUMENT, &["shorter than 3", "3 to 63"]);
    let elsewhere =
        |url: &str| json!({"kind": "s3", "endpoint": url, "access_key": "a", "secret_key": "b"});
    let began = Instant::now();
    let error = head(elsewhere("http://127.0.0.1:1"), "bucket").await;
    told(&error, ErrorKind::UNAVAILABLE, &["refused", "endpoint"]);
    let error = head(elsewhere("http://no-such-host.invalid"), "bucket").await;
    told(&error, ErrorKind::UNAVAILABLE, &["DNS", "endpoint"]);
    // An address that is kept for examples: nobody answers.
    let mut nobody = elsewhere("http://192.0.2.1");
    nobody["connect_timeout_secs"] = 1.into();
    let error = head(nobody, "bucket").await;
    told(&error, ErrorKind::UNAVAILABLE, &["endpoint"]);
    assert!(began.elapsed() < Duration::from_secs(17), "{:?}", began.elapsed());
    let mut wrong = options("azurite");
    wrong["account_key"] = "d3Jvbmc=".into();
    let error = head(wrong, "bucket").await;
    told(&error, ErrorKind::UNAUTHENTICATED, &["account_key"]);
    let mut wrong = options("swift");
    wrong["password"] = "wrong".into();
    let error = head(wrong, "bucket").await;
    told(&error, ErrorKind::UNAUTHENTICATED, &["key"]);
}
