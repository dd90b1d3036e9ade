// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod client;
mod clones;
mod config;
mod copy_before_write;
mod counters;
mod disk;
mod driver;
mod error;
mod extents;
mod fence;
mod fiemap;
mod layout;
mod ledger;
mod metadata;
mod nowait;
mod pool;
mod qcow2;
mod qcow2_actor;
mod resize;
mod slot;
mod snapshots;
mod store;
mod volume;

pub use config::{Config, Format, Preallocation};
pub use driver::{Local, LocalBackend};
pub use volume::LocalVolume;

driver_api::export_driver!(Local, "local");
