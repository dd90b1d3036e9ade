// SPDX-License-Identifier: Apache-2.0
//! Counts how long operations take and how many fail, without locks or allocation: on nodes for health, and of clients for
//! the throttle of healing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use distributed_core::{Cause, LATENCY_BUCKETS, Latencies, NodeId, Window, latency_bucket};
use driver_api::{Error, ErrorKind};

/// Latencies that many threads count.
#[derive(Debug)]
pub(crate) struct Histogram(Box<[AtomicU32; LATENCY_BUCKETS]>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Box::new([const { AtomicU32::new(0) }; LATENCY_BUCKETS]))
    }
}

impl Histogram {
    /// Counts an operation that began then and ended now; gives the place where it was counted.
    pub fn ended(&self, begun: Instant) -> usize {
        let bucket = latency_bucket(begun.elapsed().as_nanos() as u64);
        self.count(bucket);
        bucket
    }

    /// Counts an operation in this place.
    pub fn count(&self, bucket: usize) {
        if let Some(count) = self.0.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted since this was asked last.
    pub fn take(&self) -> Latencies {
        let mut latencies = Latencies::default();
        for (bucket, count) in self.0.iter().enumerate() {
            // Most are zero, and a read is cheaper than an exchange.
            if count.load(Ordering::Relaxed) > 0 {
                latencies.add(bucket, count.swap(0, Ordering::Relaxed));
            }
        }
        latencies
    }
}

/// What is done on a node, of all volumes together.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    latencies: Histogram,
    errors: AtomicU64,
    falls: AtomicU64,
}

impl Meter {
    /// An operation that began then has ended, well or not.
    pub fn ended(&self, begun: Instant) {
        self.latencies.ended(begun);
    }

    /// Something failed, perhaps for a reason that is not the node's.
    pub fn failed(&self, error: &Error) {
        let is_the_nodes = ![
            ErrorKind::NO_SPACE,
            ErrorKind::FENCED,
            ErrorKind::INVALID_ARGUMENT,
            ErrorKind::OUT_OF_RANGE,
            ErrorKind::UNSUPPORTED,
            ErrorKind::IN_USE,
        ]
        .contains(&error.kind());
        if is_the_nodes {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A brick was given up. What a full node, an operator or a check did says nothing of what operations meet.
    pub fn fell(&self, cause: Cause) {
        let is_the_nodes = match cause {
            Cause::Failed | Cause::Unknown | Cause::Restarted | Cause::NotFound => true,
            Cause::NodeDown
            | Cause::Companion
            | Cause::NoSpace
            | Cause::Unreachable
            | Cause::Emptied => false,
        };
        self.falls.fetch_add(u64::from(is_the_nodes), Ordering::Relaxed);
    }

    fn take(&self) -> Window {
        let latencies = self.latencies.take();
        Window {
            operations: latencies.count(),
            errors: self.errors.swap(0, Ordering::Relaxed),
            falls: self.falls.swap(0, Ordering::Relaxed),
            p99_ns: latencies.p99(),
        }
    }
}

/// The meters of all nodes. Whoever works on a node keeps its meter: the lock is not for every operation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters(Arc<Mutex<BTreeMap<NodeId, Arc<Meter>>>>);

impl Meters {
    /// A node's.
    pub fn of(&self, node: NodeId) -> Arc<Meter> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(meters.entry(node).or_default())
    }

    /// What was done since this was asked last.
    pub fn take(&self) -> Vec<(NodeId, Window)> {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.iter().map(|(node, meter)| (*node, meter.take())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_taken_once() {
        let (meters, node) = (Meters::default(), NodeId(7));
        let meter = meters.of(node);
        let begun = Instant::now();
        (0..12).for_each(|_| meter.ended(begun));
        meter.failed(&Error::new(ErrorKind::UNAVAILABLE, "gone"));
        meter.failed(&Error::new(ErrorKind::NO_SPACE, "full"));
        meter.fell(Cause::Unknown);
        meter.fell(Cause::NodeDown);
        let [(taken, window)] = meters.take()[..] else { panic!("one node") };
        assert_eq!((taken, window.operations, window.errors, window.falls), (node, 12, 1, 1));
        assert!(window.p99_ns > 0);
        assert_eq!(meters.take(), [(node, Window::default())]);
    }
}
