// SPDX-License-Identifier: Apache-2.0
//! Copies of what one request does not copy. `copy_at_once` is set low, so that some MiB are large.

#![allow(dead_code)]

#[path = "../support/mod.rs"]
pub mod support;

use std::time::{Duration, Instant};

use driver_api::{
    ErrorKind, ROption,
    ext::{
        Conditions, CopyOptions, ObjectAbilities, ObjectChange, ObjectName, Objects, PutOptions,
        UploadQuery,
    },
};
use serde_json::{Value, json};
use support::{
    Stage, buf, cx, noise, options, pairs,
    proxy::{Fault, Proxy},
    refused, within,
};

pub const AT_ONCE: u64 = 5 << 20;
pub const LARGE: usize = (12 << 20) + 7;

pub fn low() -> Value {
    json!({ "copy_at_once": AT_ONCE })
}

/// A store that copies in pieces, the proxy before it, and both together.
pub struct Scene {
    pub stage: Stage,
    pub proxy: Proxy,
    pub objects: std::sync::Arc<dyn Objects>,
}

impl Scene {
    pub async fn new(store: &str) -> Self {
        let pieces = matches!(store, "moto" | "radosgw" | "gcs");
        let more = if pieces { low() } else { json!({}) };
        let stage = Stage::with(store, more.clone()).await;
        if store == "swift" {
            let objects = stage.objects.clone();
            return Self { stage, proxy: Proxy::before("http://127.0.0.1:1"), objects };
        }
        let proxy = Proxy::before(options(store)["endpoint"].as_str().expect("an endpoint"));
        let objects = stage.through(&proxy, more);
        Self { stage, proxy, objects }
    }

    pub fn can(&self, ability: ObjectAbilities) -> bool {
        self.objects.features().abilities.has(ability)
    }

    pub async fn source(&self, data: &[u8]) -> ObjectName {
        let object = self.stage.object("large/source ü");
        let mut said = PutOptions {
            content_type: "text/x-large".into(),
            metadata: pairs(&[("cache-control", "no-store"), ("kept", "yes")]),
            ..PutOptions::default()
        };
        if self.can(ObjectAbilities::TAGS) {
            said.tags = pairs(&[("a b", "1+2"), ("c", "d")]);
        }
        // In parts, so that it is a large object of Swift's.
        let upload = self.stage.objects.begin_upload(&cx(), object.clone(), said).await;
        let upload = upload.expect("begun");
        let mut parts = Vec::new();
        for (number, piece) in (1..).zip(data.chunks(5 << 20)) {
            let part = self.stage.objects.put_part(&cx(), upload.clone(), number, buf(piece));
            parts.push(part.await.expect("a part"));
        }
        let made =
            self.stage.objects.complete_upload(&cx(), upload, parts.into(), Conditions::default());
        made.await.expect("complete");
        object
    }

    pub async fn content(&self, object: &ObjectName) -> Vec<u8> {
        let whole =
            self.stage.objects.get(&cx(), object.clone(), 0, 64 << 20, Conditions::default());
        whole.await.unwrap_or_else(|error| panic!("{}: {error:#}", object.key)).data.to_vec()
    }

    pub async fn copy(&self, from: &ObjectName, to: &ObjectName, how: CopyOptions) -> Copied {
        self.objects.copy(&within(60), from.clone(), to.clone(), how).await
    }

    pub async fn nothing_is_left(&self) {
        let query = UploadQuery { limit: 100, ..UploadQuery::default() };
        let found = self.stage.objects.uploads(&cx(), &self.stage.bucket, query).await;
        let found = found.expect("uploads").uploads;
        assert!(found.is_empty(), "{found:?}");
    }

    /// A target that is there before, and is as it was when it cannot be replaced.
    pub async fn target(&self) -> ObjectName {
        let target = self.stage.object("target");
        let put =
            self.stage.objects.put(&cx(), target.clone(), buf(b"before"), PutOptions::default());
        put.await.expect("put");
        target
    }
}

type Copied = driver_api::Result<driver_api::ext::ObjectInfo>;

fn create_only() -> CopyOptions {
    CopyOptions { target: Conditions::create_only(), ..CopyOptions::default() }
}

/// What is said of the source goes with it, and what is asked for instead; conditions hold; nothing is left.
pub async fn large_copies(store: &str) {
    let scene = Scene::new(store).await;
    let data = noise(LARGE);
    let from = scene.source(&data).await;
    let to = scene.target().await;
    let began = Instant::now();
    let copied = scene.copy(&from, &to, CopyOptions::default()).await;
    let copied = copied.unwrap_or_else(|error| panic!("{store}: {error:#}"));
    println!("{store}: {LARGE} bytes in {:?}", began.elapsed());
    assert_eq!((copied.size, copied.content_type.as_str()), (LARGE as u64, "text/x-large"));
    assert_eq!(copied.metadata, pairs(&[("cache-control", "no-store"), ("kept", "yes")]));
    assert!(scene.content(&to).await == data, "other bytes");
    let requests = match store {
        "moto" | "radosgw" => scene.proxy.count("PUT", "partNumber="),
        "gcs" => scene.proxy.count("POST", "/rewriteTo/"),
        _ => 3,
    };
    // 12 MiB and some are three pieces of 5 MiB, and four steps of the fake's 4 MiB.
    assert_eq!(requests, if store == "gcs" { 4 } else { 3 });
    if scene.can(ObjectAbilities::TAGS) {
        let mut tags = scene.objects.tags(&cx(), to.clone()).await.expect("tags");
        tags.sort();
        assert_eq!(tags, pairs(&[("a b", "1+2"), ("c", "d")]));
    }
    let wrong = Conditions::matching("00000000000000000000000000000000");
    let other = CopyOptions { source: wrong, ..CopyOptions::default() };
    refused(scene.copy(&from, &to, other).await, ErrorKind::CONFLICT);
    let new = scene.stage.object("new");
    match scene.copy(&from, &new, create_only()).await {
        Ok(_) => {
            assert!(scene.content(&new).await == data, "other bytes");
            refused(scene.copy(&from, &new, create_only()).await, ErrorKind::ALREADY_EXISTS);
        }
        Err(error) => {
            assert_eq!((error.kind(), store), (ErrorKind::UNSUPPORTED, "radosgw"), "{error:#}");
        }
    }
    if store != "swift" {
        let said = pairs(&[("content-language", "de"), ("new", "1")]);
        let change = ObjectChange {
            metadata: ROption::RSome(said.clone()),
            content_type: ROption::RSome("text/new".into()),
            ..ObjectChange::default()
        };
        let copied = scene.copy(
            &from,
            &to,
            CopyOptions { change: change.clone(), ..CopyOptions::default() },
        );
        let copied = copied.await.unwrap_or_else(|error| panic!("{store}: {error:#}"));
        assert_eq!((&copied.metadata, copied.content_type.as_str()), (&said, "text/new"));
        let changed = scene.objects.change(&cx(), from.clone(), change).await;
        let changed = changed.unwrap_or_else(|error| panic!("{store}: {error:#}"));
        assert_eq!((&changed.metadata, changed.content_type.as_str()), (&said, "text/new"));
        assert!(scene.content(&from).await == data, "other bytes");
        if scene.can(ObjectAbilities::TAGS) {
            let tags = scene.objects.tags(&cx(), from.clone()).await.expect("tags");
            assert_eq!(tags.len(), 2, "{tags:?}");
        }
    }
    // The copy has bytes of its own.
    scene.objects.delete(&cx(), from, Conditions::default()).await.expect("delete");
    assert!(scene.content(&to).await == data, "other bytes");
    scene.nothing_is_left().await;
}

/// A source that is replaced while it is copied makes no object of two.
pub async fn a_changing_source_is_not_mixed(store: &str) {
    let scene = Scene::new(store).await;
    let (from, to) = (scene.source(&noise(LARGE)).await, scene.target().await);
    let piece = if store == "gcs" { ("POST", "rewriteToken=") } else { ("PUT", "partNumber=2") };
    scene.proxy.next(piece.0, piece.1, Fault::Late(Duration::from_secs(3)), 1);
    let other = vec![7; LARGE];
    let replacing = async {
        let began = Instant::now();
        while scene.proxy.count(piece.0, piece.1) == 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "no second piece is copied");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let put = scene.stage.objects.put(&cx(), from.clone(), buf(&other), PutOptions::default());
        put.await.expect("another source");
    };
    let (copied, ()) = tokio::join!(scene.copy(&from, &to, CopyOptions::default()), replacing);
    let error = copied.expect_err("a source that changed");
    assert!([ErrorKind::CONFLICT, ErrorKind::NOT_FOUND].contains(&error.kind()), "{error:#}");
    assert_eq!(scene.content(&to).await, b"before");
    scene.nothing_is_left().await;
}

/// A store that hangs is waited for until the deadline; then, or when the caller goes away, nothing is left.
pub async fn what_hangs_is_given_up(store: &str) {
    let scene = Scene::new(store).await;
    let (from, to) = (scene.source(&noise(LARGE)).await, scene.target().await);
    scene.proxy.next("PUT", "partNumber=3", Fault::Silence, 100);
    let copy =
        |secs| scene.objects.copy(&within(secs), from.clone(), to.clone(), CopyOptions::default());
    let began = Instant::now();
    let error = refused(copy(3).await, ErrorKind::UNAVAILABLE);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(!error.remedy_text().is_empty(), "{error:#}");
    scene.nothing_is_left().await;
    let gone = tokio::time::timeout(Duration::from_secs(2), copy(60).into_future()).await;
    assert!(gone.is_err(), "it hangs");
    tokio::time::sleep(Duration::from_secs(1)).await;
    scene.nothing_is_left().await;
    assert_eq!(scene.content(&to).await, b"before");
}

const INTERNAL: &str = "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>We failed</Message></Error>";
const DENIED: &str = "<Error><Code>AccessDenied</Code><Message>Not you</Message></Error>";

/// Errors with status 200, lost answers and refusals, of parts and of the completion.
pub async fn bad_days(store: &str) {
    let scene = Scene::new(store).await;
    let data = noise(LARGE);
    let (from, to) = (scene.source(&data).await, scene.target().await);
    scene.proxy.next("PUT", "partNumber=1", Fault::Say(200, INTERNAL), 1);
    scene.proxy.next("PUT", "partNumber=2", Fault::LoseAnswer, 1);
    scene.proxy.next("PUT", "partNumber=3", Fault::Refuse(503), 1);
    scene.proxy.next("POST", "target?uploadId=", Fault::LoseAnswer, 1);
    scene.copy(&from, &to, CopyOptions::default()).await.expect("copied in spite of all");
    assert!(scene.content(&to).await == data, "other bytes");
    scene.nothing_is_left().await;
    let to = scene.target().await;
    for (method, path) in [("PUT", "partNumber=2"), ("POST", "target?uploadId=")] {
        scene.proxy.next(method, path, Fault::Say(200, DENIED), 1);
        let error = scene.copy(&from, &to, CopyOptions::default()).await.expect_err("refused");
        assert!(format!("{error:#}").contains("AccessDenied"), "{error:#}");
        assert_eq!(scene.content(&to).await, b"before");
        scene.nothing_is_left().await;
    }
}
