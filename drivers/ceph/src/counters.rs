// SPDX-License-Identifier: Apache-2.0
//! What operators see of a volume's work.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use driver_api::Stats;

/// Counters of one kind of operation.
#[derive(Default)]
pub(crate) struct Counter {
    operations: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    waited_ns: AtomicU64,
}

impl Counter {
    /// One that has ended.
    pub fn ended(&self, bytes: u64, begun: Instant, succeeded: bool) {
        self.operations.fetch_add(1, Relaxed);
        self.waited_ns.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
        if succeeded {
            self.bytes.fetch_add(bytes, Relaxed);
        } else {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    fn stats(&self, name: &str, stats: Stats) -> Stats {
        let seconds = self.waited_ns.load(Relaxed) as f64 / 1e9;
        stats
            .counter(&format!("{name}_operations_total"), self.operations.load(Relaxed))
            .counter(&format!("{name}_bytes_total"), self.bytes.load(Relaxed))
            .counter(&format!("{name}_errors_total"), self.errors.load(Relaxed))
            .gauge(&format!("{name}_waited_seconds_sum"), seconds)
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
