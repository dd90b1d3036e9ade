// SPDX-License-Identifier: Apache-2.0
//! A complete driver: volumes in memory, 64 KiB a page, zero until written.
//!
//! `cargo build --release --example memory`, then drop `libmemory.so` into `plugins.d`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use driver_api::*;

const PAGE: usize = 64 << 10;

struct Memory;

type Volumes = Arc<Mutex<BTreeMap<String, Arc<Disk>>>>;

#[derive(Clone, Default)]
struct Room(Volumes);

struct Disk {
    size: u64,
    attached: AtomicBool,
    pages: Box<[Mutex<Option<Box<[u8]>>>]>,
}

fn main() {}
