// SPDX-License-Identifier: Apache-2.0
//! Everything but the bytes of objects on the stores that `tests/services/object with` starts.

#[macro_use]
mod control;

use control::{
    now, put,
    support::{Stage, buf, cx, refused},
};
use driver_api::{
    ErrorKind,
    ext::{Conditions, PutOptions},
};

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
