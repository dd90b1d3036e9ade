// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod attaching;
mod clones;
mod commands;
mod companion;
mod config;
mod copying;
mod counters;
mod disk;
mod driver;
mod ending;
mod error;
mod extents;
mod file;
mod flush;
mod formatting;
mod holders;
mod holes;
mod image;
mod image_file;
mod layers;
mod mounts;
mod names;
mod opened;
mod places;
mod ranges;
mod removal;
mod rename;
mod resize;
mod share;
mod snapshots;
mod standing;
mod store;
mod unstable;
mod verified;
mod volume;
mod wishes;

pub use config::{Config, NamedShare, Protocol, ShareOptions};
pub use driver::{Netfs, NetfsBackend};
pub use volume::NetfsVolume;

driver_api::export_driver!(Netfs, "netfs");
