// SPDX-License-Identifier: Apache-2.0
//! Drivers: found, verified, loaded, watched.

mod guarded;

pub use guarded::{Guarded, GuardedVolume, Started};
