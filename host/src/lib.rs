// SPDX-License-Identifier: Apache-2.0
//! The storage host: loads drivers, keeps volumes, serves them.

pub mod access;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod errors;
pub mod export;
pub mod jobs;
pub mod log;
pub mod memory;
pub mod objects;
pub mod plugins;
pub mod state;
pub mod volumes;
