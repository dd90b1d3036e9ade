// SPDX-License-Identifier: Apache-2.0
//! Volumes, jobs, API and command line over a backend in memory.

mod api;
mod crash;
mod disks;
mod jobs;
mod life;
