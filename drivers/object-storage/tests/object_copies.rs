// SPDX-License-Identifier: Apache-2.0
//! Large copies on each kind of store, which `tests/services/object with` starts.

mod copies;

use copies::{
    AT_ONCE, LARGE, Scene, a_changing_source_is_not_mixed, bad_days, large_copies, low,
    support::{cx, noise, open, proxy::Fault, refused, within},
    what_hangs_is_given_up,
};
use driver_api::{
    ErrorKind,
    ext::{Conditions, CopyOptions},
};
use serde_json::json;

macro_rules! on {
    ($($name:ident: $body:ident($store:literal);)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs the servers of `tests/services/object with`"]
        async fn $name() {
            $body($store).await;
        }
    )*};
}

on! {
    moto_copies_large_objects: large_copies("moto");
    gcs_copies_large_objects: large_copies("gcs");
    azurite_copies_large_objects: large_copies("azurite");
    swift_copies_large_objects: large_copies("swift");
    moto_mixes_no_sources: a_changing_source_is_not_mixed("moto");
    gcs_mixes_no_sources: a_changing_source_is_not_mixed("gcs");
    moto_leaves_nothing_that_hangs: what_hangs_is_given_up("moto");
    moto_has_bad_days: bad_days("moto");
}

const PENDING: Fault = Fault::Head("x-ms-copy-status: success", "x-ms-copy-status: pending");

/// Azure answers before it has copied: it is waited for, and what fails or lasts is told as what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn azure_is_waited_for() {
    let scene = Scene::new("azurite").await;
    let (from, to) = (scene.source(&noise(LARGE)).await, scene.target().await);
    scene.proxy.next("PUT", "target", PENDING, 1);
    scene.proxy.next("HEAD", "target", PENDING, 3);
    let heads = scene.proxy.count("HEAD", "target");
    scene.copy(&from, &to, CopyOptions::default()).await.expect("copied at last");
    assert!(scene.proxy.count("HEAD", "target") >= heads + 4, "it was asked until it was done");

    scene.proxy.next("PUT", "target", PENDING, 1);
    let failed = Fault::Head("x-ms-copy-status: success", "x-ms-copy-status: failed");
    scene.proxy.next("HEAD", "target", failed, 1);
    let error =
        refused(scene.copy(&from, &to, CopyOptions::default()).await, ErrorKind::UNAVAILABLE);
    assert!(error.message().contains("there is no target now"), "{error:#}");
    let head = scene.objects.head(&cx(), to.clone(), Conditions::default()).await;
    refused(head, ErrorKind::NOT_FOUND);

    for fault in [PENDING, Fault::Refuse(500)] {
        scene.proxy.heal();
        scene.proxy.next("PUT", "target", PENDING, 1);
        scene.proxy.next("HEAD", "target", fault, 1000);
        let copy = scene.objects.copy(&within(3), from.clone(), to.clone(), CopyOptions::default());
        // The target is replaced, whatever is known of the rest.
        refused(copy.await, ErrorKind::TIMED_OUT);
    }
}

#[test]
fn what_is_copied_at_once_has_bounds() {
    let with = |kind: &str, bytes: u64| {
        let mut options = json!({"kind": kind, "copy_at_once": bytes, "auth": "v1", "user": "u"});
        if kind == "s3" {
            options = json!({"kind": kind, "copy_at_once": bytes, "credentials": "none"});
        }
        serde_json::from_value::<object_storage::Config>(options).expect("options").check()
    };
    with("s3", AT_ONCE).expect("the least");
    with("s3", 5 << 30).expect("the most");
    for (kind, bytes) in [("s3", AT_ONCE - 1), ("s3", (5 << 30) + 1), ("swift", AT_ONCE)] {
        assert_eq!(with(kind, bytes).expect_err("refused").kind(), ErrorKind::INVALID_ARGUMENT);
    }
    // Every other test would copy by one request.
    assert!(open(json!({"kind": "s3", "credentials": "none"}), low()).bucket_store("b").is_ok());
}
