// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod config;
mod error;
mod layout;

#[cfg(librbd)]
mod aio;
#[cfg(librbd)]
mod answers;
#[cfg(librbd)]
mod attached;
#[cfg(librbd)]
mod blocking;
#[cfg(librbd)]
mod changes;
#[cfg(librbd)]
mod cluster;
#[cfg(librbd)]
mod commands;
#[cfg(librbd)]
mod copyup;
#[cfg(librbd)]
mod counters;
#[cfg(librbd)]
mod doubt;
#[cfg(librbd)]
mod driver;
#[cfg(librbd)]
mod ending;
#[cfg(librbd)]
mod ffi;
#[cfg(librbd)]
mod ffi_pool;
#[cfg(librbd)]
mod flatten;
#[cfg(librbd)]
mod groups;
#[cfg(librbd)]
mod heard;
#[cfg(librbd)]
mod holders;
#[cfg(librbd)]
mod image;
#[cfg(librbd)]
mod mirror;
#[cfg(librbd)]
mod mirrored;
#[cfg(not(librbd))]
mod missing;
#[cfg(librbd)]
mod perf;
#[cfg(librbd)]
mod protection;
#[cfg(librbd)]
mod rename;
#[cfg(librbd)]
mod renewal;
#[cfg(librbd)]
mod store;
#[cfg(librbd)]
mod succession;
#[cfg(librbd)]
mod trash;
#[cfg(librbd)]
mod volume;
#[cfg(librbd)]
mod watch;

pub use config::Config;
#[cfg(librbd)]
pub use driver::{Ceph, CephBackend};
#[cfg(not(librbd))]
pub use missing::Ceph;
#[cfg(librbd)]
pub use volume::CephVolume;

/// The feature without which nobody is kept away from an image.
const EXCLUSIVE_LOCK: u64 = 1 << 2;

driver_api::export_driver!(Ceph, "ceph");
