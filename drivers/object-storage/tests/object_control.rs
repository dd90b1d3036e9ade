// SPDX-License-Identifier: Apache-2.0
//! Everything but the bytes of objects on the stores that `tests/services/object with` starts.

#[macro_use]
mod control;

use control::{
    now, put,
    support::{Addresses, Stage, buf, cx, fresh, open, pairs, refused},
};
use driver_api::{
    ErrorKind, RVec,
    ext::{BucketSpec, Conditions, LifecycleRule, ListQuery, ObjectChange, ObjectName, PutOptions},
};
use futures_util::StreamExt;

on! { moto azurite gcs swift }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn swift_expires_by_prefix_and_age() {
    let stage = Stage::new("swift").await;
    for number in 0..5 {
        put(&stage, &format!("old/{number}"), b"x").await;
    }
    put(&stage, "new", b"x").await;
    let early = PutOptions { expire_after_secs: 600, ..PutOptions::default() };
    stage.objects.put(&cx(), stage.object("old/early"), buf(b"x"), early).await.expect("put");
    let commands = driver_api::Backend::commands(&stage.backend).expect("commands");
    let run =
        |arguments: serde_json::Value| commands.run(&cx(), "expire-prefix", &arguments.to_string());
    for bad in [
        serde_json::json!({"bucket": stage.bucket, "prefix": "old/", "days": 0}),
        serde_json::json!({"bucket": stage.bucket, "prefix": "old/"}),
    ] {
        refused(run(bad).await, ErrorKind::INVALID_ARGUMENT);
    }
    let wish = serde_json::json!({"bucket": stage.bucket, "prefix": "old/", "days": 2});
    let done = run(wish.clone()).await.expect("done");
    assert_eq!(done, r#"{"set":5,"kept":1,"after":""}"#);
    let expires = async |key: &str| {
        let head = stage
            .objects
            .head(&cx(), stage.object(key), Conditions::default())
            .await
            .expect("head");
        if head.expires_ms == 0 { 0 } else { head.expires_ms / 1000 - now() }
    };
    let left = expires("old/3").await;
    assert!((2 * 86_400 - 60..=2 * 86_400).contains(&left), "{left}");
    assert!(expires("old/early").await <= 600);
    assert_eq!(expires("new").await, 0);
    assert_eq!(run(wish).await.expect("done"), r#"{"set":0,"kept":6,"after":""}"#);
}

/// Swift's S3 takes what it does not know for something else: `GET ?lifecycle` lists the bucket, `DELETE ?lifecycle` would
/// delete it. What is not answered as it should be is not asked to change anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object`"]
async fn a_store_that_takes_a_question_for_another_loses_nothing() {
    let at = Addresses::read();
    let options = serde_json::json!({
        "kind": "s3", "endpoint": at.get("swift_s3"),
        "access_key": at.get("swift_user"), "secret_key": at.get("swift_key"),
    });
    let backend = open(options, serde_json::json!({}));
    let objects = driver_api::Backend::objects(&backend).expect("objects");
    let bucket = fresh("taken");
    objects.create_bucket(&cx(), BucketSpec::new(&bucket)).await.expect("a bucket");
    let object = ObjectName::new(&bucket, "kept");
    objects.put(&cx(), object.clone(), buf(b"content"), PutOptions::default()).await.expect("put");
    let there = async || {
        let get =
            objects.get(&cx(), object.clone(), 0, 100, Conditions::default()).await.expect("get");
        assert_eq!(&get.data[..], b"content");
    };
    let rules = vec![LifecycleRule {
        id: "a".into(),
        enabled: true,
        expire_days: 1,
        ..LifecycleRule::default()
    }];
    for error in [
        objects.lifecycle(&cx(), &bucket).await.expect_err("lifecycle"),
        objects.set_lifecycle(&cx(), &bucket, RVec::new()).await.expect_err("no lifecycle"),
        objects.set_lifecycle(&cx(), &bucket, rules.into()).await.expect_err("lifecycle"),
        objects.set_policy(&cx(), &bucket, "").await.expect_err("no policy"),
        objects.set_policy(&cx(), &bucket, "{}").await.expect_err("a policy"),
    ] {
        assert!(
            [ErrorKind::UNSUPPORTED, ErrorKind::CORRUPTED].contains(&error.kind()),
            "{error:#}"
        );
        there().await;
    }
    let tags = pairs(&[("a", "b")]);
    for tags in [tags, RVec::new()] {
        let change = ObjectChange { tags: Some(tags).into(), ..ObjectChange::default() };
        // Some versions know tags.
        if let Err(error) = objects.change(&cx(), object.clone(), change).await {
            assert!(
                [ErrorKind::UNSUPPORTED, ErrorKind::CORRUPTED].contains(&error.kind()),
                "{error:#}"
            );
        }
        there().await;
    }
    objects.delete(&cx(), object.clone(), Conditions::default()).await.expect("delete");
    objects.set_lifecycle(&cx(), &bucket, RVec::new()).await.expect_err("no lifecycle");
    objects.set_policy(&cx(), &bucket, "").await.expect_err("no policy");
    objects.bucket(&cx(), &bucket).await.expect("the empty bucket is still there");
}

/// Full pages of the store's own size, to the last of them. `NOVASTOR_MANY` says how many objects; with `--nocapture` it
/// tells how long that takes, and keeps the bucket for others to list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object`"]
async fn many_objects_are_listed_in_full_pages() {
    let said = std::env::var("NOVASTOR_MANY").ok();
    let many: usize = said.as_deref().map_or(2500, |text| text.parse().expect("a number"));
    let stage = &Stage::new("gcs").await;
    let puts = futures_util::stream::iter(0..many).map(|number| async move {
        put(stage, &format!("d/{number:07}"), b"").await;
    });
    puts.buffer_unordered(32).collect::<Vec<()>>().await;
    let started = std::time::Instant::now();
    let mut query = ListQuery { limit: stage.objects.features().max_page, ..ListQuery::default() };
    let (mut pages, mut found) = (0, 0);
    loop {
        let page = stage.objects.list(&cx(), &stage.bucket, query.clone()).await.expect("a page");
        for object in &page.objects {
            assert_eq!(object.key, format!("d/{found:07}"));
            found += 1;
        }
        pages += 1;
        query.page = page.next;
        if query.page.is_empty() {
            break;
        }
    }
    println!("{found} objects of {} in {pages} pages: {:?}", stage.bucket, started.elapsed());
    assert_eq!((found, pages), (many, many.div_ceil(1000)));
    if said.is_none() {
        let all: Vec<_> = (0..many).map(|number| stage.object(&format!("d/{number:07}"))).collect();
        for some in all.chunks(1000) {
            let outcomes = stage
                .objects
                .delete_many(&cx(), &stage.bucket, some.to_vec().into())
                .await
                .expect("outcomes");
            assert!(outcomes.iter().all(|outcome| outcome.gone));
        }
        stage.objects.delete_bucket(&cx(), &stage.bucket).await.expect("an empty bucket");
    }
}
