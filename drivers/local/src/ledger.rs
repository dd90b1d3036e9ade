// SPDX-License-Identifier: Apache-2.0
//! What of a file's writes is durable, and whether acknowledged ones were lost. It knows no file.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// Counts the writes of one file, and those of them that are durable.
pub(crate) struct Ledger {
    written: AtomicU64,
    flushed: AtomicU64,
    /// Acknowledged writes were lost.
    lost: AtomicBool,
    /// One flush at a time: those that wait for it find their writes durable already.
    flushing: Mutex<()>,
}

impl Ledger {
    /// Of a file just opened. The first flush goes to the disk: an earlier attachment may have left writes in the page cache.
    pub fn new() -> Self {
        Self {
            written: AtomicU64::new(1),
            flushed: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            flushing: Mutex::new(()),
        }
    }

    /// Counts a write that has ended, well or not.
    pub fn wrote(&self) {
        self.written.fetch_add(1, Ordering::Release);
    }

    /// How many writes have ended.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits until no other flush is under way.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `written` writes are durable.
    pub fn flushed(&self, written: u64) {
        self.flushed.fetch_max(written, Ordering::AcqRel);
    }

    /// Whether the first `written` writes are durable.
    pub fn is_flushed(&self, written: u64) -> bool {
        self.flushed.load(Ordering::Acquire) >= written
    }

    /// Acknowledged writes were lost: no later flush can be true.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether acknowledged writes were lost.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}
