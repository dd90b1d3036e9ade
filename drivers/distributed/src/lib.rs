// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod arrange;
mod catalog;
mod claims;
mod client;
mod cluster;
mod config;
mod create;
mod driver;
mod engine;
mod error;
mod health;
mod meters;
mod mode;
mod names;
mod nodes;
mod orphans;
mod promote;
mod recover;
mod session;
mod throttle;
mod volume;

pub use driver::{Distributed, DistributedBackend};
pub use volume::DistributedVolume;

driver_api::export_driver!(Distributed, "distributed");
