// SPDX-License-Identifier: Apache-2.0
//! Buckets and objects through the API's socket, over a driver that holds them in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod buckets;
mod faults;
mod house;
mod jobs;
mod object;
#[path = "../plugins_support/mod.rs"]
mod plugins_support;
mod uploads;
