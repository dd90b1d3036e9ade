// SPDX-License-Identifier: Apache-2.0
//! Nodes, replicas, shards, walks over replicas, and backends that are lent to drivers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod house;
mod lent;
mod nodes;
#[path = "../plugins_support/mod.rs"]
mod plugins_support;
mod shards;
mod walks;
