// SPDX-License-Identifier: Apache-2.0
//! Buckets, what is set on them, listings, uploads, deletions in bulk and signed URLs on each kind of store, by one body of
//! tests.
#![allow(dead_code)]

mod buckets;
mod changes;
mod early;
mod listings;
mod signatures;
#[path = "../support/mod.rs"]
pub mod support;
mod uploads;

use std::time::Duration;

pub use buckets::{buckets, lifecycle, policies};
pub use changes::{bulk, changes};
use driver_api::ext::{Conditions, ObjectAbilities, ObjectInfo, PutOptions};
pub use early::early_refusals;
pub use listings::{listings, versions};
pub use signatures::signatures;
use support::{Stage, buf, cx};
pub use uploads::{abandoned, upload_conditions, uploads};

pub fn can(stage: &Stage, ability: ObjectAbilities) -> bool {
    stage.objects.features().abilities.has(ability)
}

pub async fn put(stage: &Stage, key: &str, data: &[u8]) -> ObjectInfo {
    stage
        .objects
        .put(&cx(), stage.object(key), buf(data), PutOptions::default())
        .await
        .expect("put")
}

pub async fn content(stage: &Stage, key: &str) -> Vec<u8> {
    let get = stage.objects.get(&cx(), stage.object(key), 0, 64 << 20, Conditions::default());
    get.await.unwrap_or_else(|error| panic!("{key}: {error:#}")).data.to_vec()
}

pub fn sleep(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

pub fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs()
}

/// A test of each kind for each store.
macro_rules! on {
    ($($store:ident)*) => {$(
        mod $store {
            on! { $store: buckets policies lifecycle listings versions bulk changes uploads upload_conditions early_refusals abandoned signatures }
        }
    )*};
    ($store:ident: $($test:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs the servers of `tests/services/object`"]
        async fn $test() {
            let stage = crate::control::support::Stage::new(stringify!($store)).await;
            crate::control::$test(&stage).await;
        }
    )*};
}
