// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod arrange;
mod bricks;
mod catalog;
mod claims;
mod client;
mod clones;
mod cluster;
mod config;
mod create;
mod digest;
mod driver;
mod engine;
mod error;
mod heal;
mod health;
mod meters;
mod mode;
mod names;
mod nodes;
mod orphans;
mod promote;
mod readers;
mod recover;
mod rollback;
mod scrubs;
mod session;
mod sharding;
mod snapshots;
mod throttle;
mod volume;

pub use driver::{Distributed, DistributedBackend};
pub use volume::DistributedVolume;

driver_api::export_driver!(Distributed, "distributed");
