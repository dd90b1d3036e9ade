// SPDX-License-Identifier: Apache-2.0
//! Buckets and objects as users type them: a real host with a store in memory, and a road to it on which requests and
//! answers are lost and damaged.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../plugins_support/mod.rs"]
mod support;

mod commands;
mod conditions;
mod down;
mod house;
mod road;
mod safety;
mod up;
