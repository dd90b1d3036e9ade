// SPDX-License-Identifier: Apache-2.0
//! What operators see of the work of mounts and volumes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use driver_api::{Histogram, Stats};

/// Counters of one kind of operation of a volume.
#[derive(Default)]
pub(crate) struct Counter {
    begun: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    took: Histogram,
}

impl Counter {
    /// One that begins.
    pub fn begun(&self) -> Instant {
        self.begun.fetch_add(1, Relaxed);
        Instant::now()
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

    fn stats(&self, name: &str, moves_bytes: bool, mut stats: Stats) -> Stats {
        let ended = self.took.count();
        let in_flight = self.begun.load(Relaxed).saturating_sub(ended);
        if moves_bytes {
            stats = stats.counter(&format!("{name}_bytes_total"), self.bytes.load(Relaxed));
        }
        stats
            .counter(&format!("{name}_operations_total"), ended)
            .counter(&format!("{name}_errors_total"), self.errors.load(Relaxed))
            .gauge(&format!("{name}_in_flight"), in_flight as f64)
            .histogram(&format!("{name}_seconds"), &self.took)
    }
}

/// Counters of all kinds of operations of a volume.
#[derive(Default)]
pub(crate) struct Counters {
    pub reads: Counter,
    pub writes: Counter,
    pub flushes: Counter,
    pub zeroes: Counter,
    pub discards: Counter,
}

impl Counters {
    /// The figures.
    pub fn stats(&self) -> Stats {
        let stats = self.reads.stats("read", true, Stats::new());
        let stats = self.writes.stats("write", true, stats);
        let stats = self.flushes.stats("flush", false, stats);
        let stats = self.zeroes.stats("zero", true, stats);
        self.discards.stats("discard", true, stats)
    }
}

/// What happened on the connections of one mount.
#[derive(Default)]
pub(crate) struct Figures {
    round_trips: AtomicU64,
    unanswered: AtomicU64,
    retransmits: AtomicU64,
    stray_replies: AtomicU64,
    asked_to_wait: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    mounted: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    replayed_bytes: AtomicU64,
    encrypted: AtomicU64,
    took: Histogram,
}

impl Figures {
    /// A call that began then has ended, with an answer or without.
    pub fn called(&self, begun: Instant, answered: bool) {
        if answered {
            self.round_trips.fetch_add(1, Relaxed);
            self.took.observe(begun.elapsed());
        } else {
            self.unanswered.fetch_add(1, Relaxed);
        }
    }

    /// Bytes that left.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes that came.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// An answer that nobody waits for.
    pub fn stray(&self) {
        self.stray_replies.fetch_add(1, Relaxed);
    }

    /// A call that is sent again, because its answer was lost.
    pub fn retransmitted(&self) {
        self.retransmits.fetch_add(1, Relaxed);
    }

    /// The server asked to be asked later.
    pub fn asked_to_wait(&self) {
        self.asked_to_wait.fetch_add(1, Relaxed);
    }

    /// An attempt to mount.
    pub fn tried(&self, succeeded: bool) {
        let counter = if succeeded { &self.mounted } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }

    /// A mount that ended by itself.
    pub fn lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// Bytes that were written again, because the server may have lost them.
    pub fn replayed(&self, bytes: u64) {
        self.replayed_bytes.fetch_add(bytes, Relaxed);
    }

    /// Whether what was mounted last travels encrypted.
    pub fn encrypted(&self, encrypted: bool) {
        self.encrypted.store(encrypted.into(), Relaxed);
    }

    /// The figures of the mount `name`.
    pub fn stats(&self, name: &str, stats: Stats) -> Stats {
        let counters = [
            ("mount_round_trips_total", &self.round_trips),
            ("mount_unanswered_calls_total", &self.unanswered),
            ("mount_retransmits_total", &self.retransmits),
            ("mount_stray_replies_total", &self.stray_replies),
            ("mount_asked_to_wait_total", &self.asked_to_wait),
            ("mount_sent_bytes_total", &self.sent_bytes),
            ("mount_received_bytes_total", &self.received_bytes),
            ("mount_mounted_total", &self.mounted),
            ("mount_failed_total", &self.failed),
            ("mount_lost_total", &self.lost),
            ("mount_replayed_bytes_total", &self.replayed_bytes),
        ];
        let stats = counters.into_iter().fold(stats, |stats, (figure, value)| {
            stats.counter_of(figure, ("mount", name), value.load(Relaxed))
        });
        let encrypted = self.encrypted.load(Relaxed) as f64;
        let stats = stats.gauge_of("mount_encrypted", ("mount", name), encrypted);
        let seconds = self.took.seconds();
        let count = self.took.count();
        let mean = if count == 0 { 0.0 } else { seconds / count as f64 };
        stats.gauge_of("mount_round_trip_mean_seconds", ("mount", name), mean)
    }
}
