// SPDX-License-Identifier: Apache-2.0
//! The client against the Swift of a Ceph gateway, which `NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with` starts.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "swift_library/conformance.rs"]
mod conformance;
mod real_servers;
#[path = "swift_library/signatures.rs"]
mod signatures;
#[path = "swift_library/stranger.rs"]
#[allow(dead_code, reason = "what only Swift is asked")]
mod stranger;

use real_servers::Server;
use swift::TempUrlScope;

#[tokio::test]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn a_ceph_gateway_conforms() {
    conformance::conforms(Server::Radosgw).await;
}

#[tokio::test]
#[ignore = "needs NOVASTOR_OBJECT_SERVERS=radosgw tests/services/object with"]
async fn signed_urls_do_what_they_say_and_no_more() {
    signatures::signs(Server::Radosgw, TempUrlScope::Account).await;
}
