// SPDX-License-Identifier: Apache-2.0
//! Whole objects on a Ceph gateway, which `NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with` starts: it takes longer than
//! all other stores together.

mod support;

use driver_api::{
    Backend, ErrorKind,
    ext::{Conditions, CopyOptions, SignRequest, SignedMethod},
};
use serde_json::json;
use support::{Addresses, Stage, body, buf, cx, open, options, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn radosgw() {
    body::exercise(Stage::new("radosgw").await).await;
}

/// The gateway encrypts with the key that comes along, over TLS only, and keeps it not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn what_a_customer_s_key_encrypts_is_read_with_it_alone() {
    let at = Addresses::read();
    let with = |key: &str| json!({"sse_customer_key": key});
    let (key, other) = (
        "bm92YXN0b3Igbm92YXN0b3Igbm92YXN0b3Igbm92YXM=",
        "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3Q=",
    );
    let stage = Stage::with("radosgw_tls", with(key)).await;
    body::round_trip(&stage).await;
    body::ranges(&stage).await;
    // The gateway is asked which conditions it heeds, with the key, too.
    body::write_conditions(&stage).await;
    body::uploads(&stage).await;
    let secret = buf(b"only with the key");
    stage.objects.put(&cx(), stage.object("s"), secret, Default::default()).await.expect("put");
    // This gateway copies nothing that is encrypted, and says so.
    let copied =
        stage.objects.copy(&cx(), stage.object("s"), stage.object("c"), CopyOptions::default());
    refused(copied.await, ErrorKind::UNSUPPORTED);
    for more in [json!({}), with(other)] {
        let objects = open(options("radosgw_tls"), more).objects().expect("objects");
        let got = objects.get(&cx(), stage.object("s"), 0, 100, Conditions::default()).await;
        let head = objects.head(&cx(), stage.object("s"), Conditions::default()).await;
        for error in [got.map(drop).expect_err("no bytes"), head.map(drop).expect_err("nothing")] {
            let text = format!("{error:#}");
            assert!(text.contains("`sse_customer_key`"), "{text}");
            assert!(!text.contains(key) && !text.contains(other), "{text}");
        }
    }
    let got = stage.objects.get(&cx(), stage.object("s"), 0, 100, Conditions::default());
    assert_eq!(got.await.expect("get").data[..], *b"only with the key");
    // Who has a signed URL needs the key as well: it is told in the headers that go with it.
    let request = SignRequest {
        method: SignedMethod::GET,
        object: stage.object("s"),
        expire_secs: 60,
        ..SignRequest::default()
    };
    let signed = stage.objects.sign(&cx(), request).await.expect("a URL");
    assert!(!signed.url.contains(key));
    assert!(signed.headers.iter().any(|header| header.0.ends_with("customer-key")));

    let plain = open(options("radosgw"), with(key)).objects().expect("objects");
    let put = plain.put(&cx(), stage.object("p"), buf(b"x"), Default::default()).await;
    let error = refused(put, ErrorKind::INVALID_ARGUMENT);
    assert!(error.remedy_text().contains("https"), "{error:#}");
    assert!(!at.get("radosgw_s3_tls").is_empty());
}
