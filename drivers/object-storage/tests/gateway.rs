// SPDX-License-Identifier: Apache-2.0
//! Whole objects on a Ceph gateway, which `NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with` starts: it takes longer than
//! all other stores together.

mod support;

use support::{Stage, body};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn radosgw() {
    body::exercise(Stage::new("radosgw").await).await;
}
