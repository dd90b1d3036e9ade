// SPDX-License-Identifier: Apache-2.0
//! How long operations take: counted with atomics, without a lock or an allocation per operation.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in nanoseconds: 1, 2 and 5 of each decade, from 10 µs to 50 s.
const BOUNDS: [u64; 21] = {
    let (mut bounds, mut decade, mut index) = ([0; 21], 10_000, 0);
    while index < bounds.len() {
        bounds[index] = decade;
        bounds[index + 1] = 2 * decade;
        bounds[index + 2] = 5 * decade;
        decade *= 10;
        index += 3;
    }
    bounds
};

/// The bounds in seconds, as the label `le` of Prometheus has them.
const LABELS: [&str; BOUNDS.len() + 1] = [
    "0.00001", "0.00002", "0.00005", "0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005",
    "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "+Inf",
];

/// A histogram of durations, which any number of threads count into. Since 1.3.
///
/// [`Stats::histogram`](crate::Stats::histogram) makes figures of it.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanos);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(nanos, Relaxed);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Their sum in seconds.
    pub fn seconds(&self) -> f64 {
        self.sum_ns.load(Relaxed) as f64 / 1e9
    }

    /// The label of each bucket, and how many durations were at most so long.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counted = self.buckets.iter().scan(0, |sum, bucket| {
            *sum += bucket.load(Relaxed);
            Some(*sum)
        });
        LABELS.into_iter().zip(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_are_the_bounds() {
        for (label, bound) in LABELS.iter().zip(BOUNDS) {
            let seconds: f64 = label.parse().expect("a number");
            assert_eq!((seconds * 1e9).round() as u64, bound, "{label}");
        }
    }

    #[test]
    fn a_duration_is_counted_in_every_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for nanos in [0, 10_000, 10_001, 49_999_999_999, 50_000_000_001] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        histogram.observe(Duration::MAX);
        let counted: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counted[0], ("0.00001", 2));
        assert_eq!(counted[1], ("0.00002", 3));
        assert_eq!(counted[20], ("50", 4));
        assert_eq!(counted[21], ("+Inf", 6));
        assert_eq!(histogram.count(), 6);
    }
}
