// SPDX-License-Identifier: Apache-2.0
//! The client against real servers, which `NOVASTOR_OBJECT=DIR` names: Swift with its own authentication and with
//! Keystone.

#![allow(missing_docs, clippy::unwrap_used)]

mod accounts;
mod conformance;
mod containers;
mod objects;
#[path = "../real_servers/mod.rs"]
mod real_servers;
mod segments;
mod signatures;
mod stranger;
mod uploads;

use std::time::UNIX_EPOCH;

use conformance::conforms;
use object_store::integration;
use real_servers::Server;
use signatures::signs;
use swift::TempUrlScope;

/// Seconds since 1970.
fn now() -> i64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn swift_conforms() {
    conforms(Server::Swift).await;
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn swift_with_keystone_conforms() {
    // Only how tokens are got differs, and this server asks Keystone about each of them.
    let store = |name: &'static str| Server::Keystone.fresh(name);
    integration::put_opts(&store("modes").await, false).await;
    integration::put_get_attributes(&store("attributes").await).await;
}

#[tokio::test]
#[ignore = "needs servers: NOVASTOR_OBJECT"]
async fn signed_urls_do_what_they_say_and_no_more() {
    signs(Server::Swift, TempUrlScope::Container).await;
    signs(Server::Keystone, TempUrlScope::Account).await;
}
