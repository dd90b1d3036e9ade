// SPDX-License-Identifier: Apache-2.0
//! Volumes, jobs, API and command line over a backend in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod crash;
mod disks;
mod flat;
mod groups;
mod jobs;
mod life;
mod names;
mod pictures;
