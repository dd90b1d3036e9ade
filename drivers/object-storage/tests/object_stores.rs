// SPDX-License-Identifier: Apache-2.0
//! Whole objects on each kind of store, by one body of tests. `tests/services/object with` starts the stores.

mod support;

use serde_json::json;
use support::{Addresses, Stage, body, proxy::Proxy};

macro_rules! on {
    ($($store:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs the servers of `tests/services/object with`"]
        async fn $store() {
            body::exercise(Stage::new(stringify!($store)).await).await;
        }
    )*};
}

on! { moto azurite gcs swift }

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn options_of_s3_change_nothing_that_is_seen() {
    let ca = Addresses::read().get("ca").to_owned();
    let key = "bm92YXN0b3Igbm92YXN0b3Igbm92YXN0b3Igbm92YXM=";
    for (store, more) in [
        ("moto", json!({"checksum": "crc32c"})),
        ("moto", json!({"server_side_encryption": "AES256"})),
        ("moto", json!({"server_side_encryption": "aws:kms", "kms_key_id": "key"})),
        ("moto", json!({"sse_customer_key": key})),
        ("moto_tls", json!({"ca_file": ca})),
    ] {
        let stage = Stage::with(store, more).await;
        body::round_trip(&stage).await;
        body::ranges(&stage).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn requests_go_through_the_proxy() {
    let at = Addresses::read();
    let proxy = Proxy::before(at.get("moto"));
    let stage = Stage::with("moto", json!({"proxy": proxy.url(at.get("moto"))})).await;
    body::round_trip(&stage).await;
    assert!(proxy.count("PUT", "http://") > 3);
}

/// Behind Keystone there is the same Swift: that one gets in is what differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of `tests/services/object with`"]
async fn keystone_lets_in() {
    let stage = Stage::new("keystone").await;
    body::health(&stage).await;
    body::round_trip(&stage).await;
}
