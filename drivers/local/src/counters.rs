// SPDX-License-Identifier: Apache-2.0
//! What operators see of a volume's or backend's work.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use driver_api::{Histogram, Stats};

/// Counters of one kind of operation.
#[derive(Default)]
pub(crate) struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    inline: AtomicU64,
    slow: Histogram,
}

impl Counter {
    /// One that was answered at once.
    pub fn inline(&self, bytes: u64) {
        self.operations.fetch_add(1, Relaxed);
        self.inline.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// One that went through a thread.
    pub fn slow(&self, bytes: u64, begun: Instant, succeeded: bool) {
        self.operations.fetch_add(1, Relaxed);
        self.slow.observe(begun.elapsed());
        if succeeded {
            self.bytes.fetch_add(bytes, Relaxed);
        } else {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    fn stats(&self, name: &str, stats: Stats) -> Stats {
        stats
            .counter(&format!("{name}_operations_total"), self.operations.load(Relaxed))
            .counter(&format!("{name}_bytes_total"), self.bytes.load(Relaxed))
            .counter(&format!("{name}_errors_total"), self.errors.load(Relaxed))
            .counter(&format!("{name}_inline_total"), self.inline.load(Relaxed))
            .histogram(&format!("{name}_waited_seconds"), &self.slow)
    }
}

/// Counters of all kinds of operations.
#[derive(Default)]
pub(crate) struct Counters {
    pub reads: Counter,
    pub writes: Counter,
    pub flushes: Counter,
    pub zeroes: Counter,
}

impl Counters {
    /// The figures.
    pub fn stats(&self) -> Stats {
        let stats = self.reads.stats("read", Stats::new());
        let stats = self.writes.stats("write", stats);
        let stats = self.flushes.stats("flush", stats);
        self.zeroes.stats("zero", stats)
    }
}
