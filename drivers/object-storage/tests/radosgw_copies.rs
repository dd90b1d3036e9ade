// SPDX-License-Identifier: Apache-2.0
//! Large copies on a Ceph gateway: `NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with`.

mod copies;

use copies::{a_changing_source_is_not_mixed, bad_days, large_copies, what_hangs_is_given_up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn radosgw() {
    large_copies("radosgw").await;
    a_changing_source_is_not_mixed("radosgw").await;
    what_hangs_is_given_up("radosgw").await;
    bad_days("radosgw").await;
}
