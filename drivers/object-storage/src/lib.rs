// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]

mod account;
mod call;
mod client;
mod config;
mod control;
mod credentials;
mod error;
mod names;
mod options;
mod pace;
mod retry;
mod traffic;
mod wire;

pub use config::{
    Checksum, ConditionalPut, Config, Credentials, Encryption, Kind, Style, SwiftAuth,
};
