// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod account;
mod call;
mod client;
mod config;
mod copy;
mod credentials;
mod delete;
mod error;
mod get;
mod info;
mod mark;
mod names;
mod options;
mod outcome;
mod pace;
mod probing;
mod put;
mod retry;
mod sums;
mod traffic;

pub use config::{
    Checksum, ConditionalPut, Config, Credentials, Encryption, Kind, Style, SwiftAuth,
};
