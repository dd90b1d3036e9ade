// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod account;
mod backend;
mod call;
mod choices;
mod client;
mod commands;
mod config;
mod control;
mod copy;
mod credentials;
mod delete;
mod driver;
mod error;
mod features;
#[cfg(test)]
mod garbage_tests;
mod get;
mod health;
mod info;
mod mark;
mod names;
mod objects;
mod options;
mod outcome;
mod pace;
mod parts;
mod probing;
mod put;
mod reader;
mod retry;
mod sums;
mod swift;
mod traffic;
mod unreached;
mod wire;

pub use account::BucketStore;
pub use backend::{NoVolume, ObjectBackend};
pub use config::{
    Checksum, ConditionalPut, Config, Credentials, Encryption, Kind, Style, SwiftAuth,
};
pub use driver::ObjectStorage;

driver_api::export_driver!(ObjectStorage, "object-storage");
