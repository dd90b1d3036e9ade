// SPDX-License-Identifier: Apache-2.0
//! What operators see of the work of volumes and of their backend.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use driver_api::{ErrorKind, Histogram, Stats};

/// Counters of one kind of operation.
#[derive(Default)]
pub(crate) struct Counter {
    begun: AtomicU64,
    /// Ended without the cluster having been asked.
    refused: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    took: Histogram,
}

impl Counter {
    /// One that begins.
    pub fn begun(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// One that has ended.
    pub fn ended(&self, bytes: u64, begun: Instant, succeeded: bool) {
        self.took.observe(begun.elapsed());
        if succeeded {
            self.bytes.fetch_add(bytes, Relaxed);
        } else {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    /// One that failed before the cluster was asked.
    pub fn refused(&self) {
        self.begun.fetch_sub(1, Relaxed);
        self.refused.fetch_add(1, Relaxed);
        self.errors.fetch_add(1, Relaxed);
    }

    fn stats(&self, name: &str, moves_bytes: bool, mut stats: Stats) -> Stats {
        let ended = self.took.count();
        let in_flight = self.begun.load(Relaxed).saturating_sub(ended);
        let operations = ended + self.refused.load(Relaxed);
        if moves_bytes {
            stats = stats.counter(&format!("{name}_bytes_total"), self.bytes.load(Relaxed));
        }
        stats
            .counter(&format!("{name}_operations_total"), operations)
            .counter(&format!("{name}_errors_total"), self.errors.load(Relaxed))
            .gauge(&format!("{name}_in_flight"), in_flight as f64)
            .histogram(&format!("{name}_seconds"), &self.took)
    }
}

/// Counters of all kinds of operations of an attached volume.
#[derive(Default)]
pub(crate) struct Counters {
    pub reads: Counter,
    pub writes: Counter,
    pub flushes: Counter,
    pub zeroes: Counter,
    /// Of the volume's backend.
    pub totals: Arc<Totals>,
}

impl Counters {
    /// The figures.
    pub fn stats(&self) -> Stats {
        let stats = self.reads.stats("read", true, Stats::new());
        let stats = self.writes.stats("write", true, stats);
        let stats = self.flushes.stats("flush", false, stats);
        self.zeroes.stats("zero", true, stats)
    }
}

/// What has happened to a backend's connections: its own, and those of its volumes.
#[derive(Default)]
pub(crate) struct Totals {
    made: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    blocklisted: AtomicU64,
    timed_out: AtomicU64,
}

impl Totals {
    /// An attempt to connect.
    pub fn tried(&self, succeeded: bool) {
        let counter = if succeeded { &self.made } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// A connection that is given up because the cluster does not answer over it.
    pub fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// A connection that the cluster has fenced.
    pub fn blocklisted(&self) {
        self.blocklisted.fetch_add(1, Relaxed);
    }

    /// What a call ended with.
    pub fn note(&self, kind: ErrorKind) {
        if kind == ErrorKind::TIMED_OUT {
            self.timed_out.fetch_add(1, Relaxed);
        }
    }

    /// The figures.
    pub fn stats(&self, stats: Stats) -> Stats {
        stats
            .counter("connections_made_total", self.made.load(Relaxed))
            .counter("connections_failed_total", self.failed.load(Relaxed))
            .counter("connections_lost_total", self.lost.load(Relaxed))
            .counter("connections_blocklisted_total", self.blocklisted.load(Relaxed))
            .counter("calls_timed_out_total", self.timed_out.load(Relaxed))
    }
}
