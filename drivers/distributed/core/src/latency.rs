// SPDX-License-Identifier: Apache-2.0
//! Durations, counted in buckets: eight for each doubling, so that a quantile is right within an eighth.

/// How many buckets there are.
pub const LATENCY_BUCKETS: usize = 320;

/// Buckets for each doubling, as a power of two.
const FINE: u32 = 3;
/// Nanoseconds that the first doubling begins at, as a power of two: what is quicker shares a bucket with it.
const LEAST: u32 = 8;

/// The bucket that a duration belongs to, less than [`LATENCY_BUCKETS`].
pub fn latency_bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.max(1 << LEAST);
    let doubling = value.ilog2();
    let within = (value >> (doubling - FINE)) as usize & ((1 << FINE) - 1);
    ((((doubling - LEAST) as usize) << FINE) | within).min(LATENCY_BUCKETS - 1)
}

/// The longest duration that belongs to a bucket, in nanoseconds.
fn bucket_end(bucket: usize) -> u64 {
    let within = bucket as u64 & ((1 << FINE) - 1);
    ((1 << FINE) + within + 1) * bucket_width(bucket) - 1
}

fn bucket_width(bucket: usize) -> u64 {
    1 << ((bucket >> FINE) as u32 + LEAST - FINE)
}

/// How many operations took how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Latencies {
    counts: Box<[u32; LATENCY_BUCKETS]>,
    total: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: Box::new([0; LATENCY_BUCKETS]), total: 0 }
    }
}

impl Latencies {
    /// Counts an operation that took so many nanoseconds.
    pub fn record(&mut self, nanoseconds: u64) {
        self.add(latency_bucket(nanoseconds), 1);
    }

    /// Counts operations of a bucket of [`latency_bucket`].
    pub fn add(&mut self, bucket: usize, operations: u32) {
        if let Some(count) = self.counts.get_mut(bucket) {
            let before = *count;
            *count = count.saturating_add(operations);
            self.total += u64::from(*count - before);
        }
    }

    /// Counts what another one did.
    pub fn merge(&mut self, other: &Self) {
        other.counts.iter().enumerate().for_each(|(bucket, count)| self.add(bucket, *count));
    }

    /// Forgets half of everything.
    pub fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.total = self.counts.iter().copied().map(u64::from).sum();
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.total = 0;
    }

    /// How many operations were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The duration in nanoseconds that 99 of 100 operations did not exceed; zero without operations.
    pub fn p99(&self) -> u64 {
        let rank = self.total - self.total / 100;
        let mut before = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = u64::from(*count);
            if count > 0 && before + count >= rank {
                // As if they were spread evenly within their bucket.
                let (end, width) = (bucket_end(bucket), bucket_width(bucket));
                return end - width * (before + count - rank) / count;
            }
            before += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::{LATENCY_BUCKETS, Latencies, bucket_end, latency_bucket};

    #[test]
    fn buckets_grow_without_gaps_and_are_an_eighth_wide() {
        let mut last = 0;
        for exponent in 8..45 {
            for eighth in 0..8_u64 {
                let value = (8 + eighth) << (exponent - 3);
                let bucket = latency_bucket(value);
                assert!(bucket == last || bucket == last + 1, "{value}");
                assert!(bucket_end(bucket) >= value, "{value}");
                assert!(bucket_end(bucket) - value <= value / 8, "{value}");
                assert_eq!(latency_bucket(bucket_end(bucket)), bucket, "{value}");
                last = bucket;
            }
        }
        assert_eq!(latency_bucket(0), 0);
        assert_eq!(latency_bucket(u64::MAX), LATENCY_BUCKETS - 1);
    }

    #[test]
    fn the_99th_of_100_counts_and_the_last_does_not() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.count(), latencies.p99()), (0, 0));
        (0..99).for_each(|_| latencies.record(100_000));
        latencies.record(50_000_000);
        assert!(latencies.p99() < 115_000, "{}", latencies.p99());
        latencies.record(50_000_000);
        latencies.record(50_000_000);
        assert!(latencies.p99() >= 48_000_000, "{}", latencies.p99());
        let mut other = Latencies::default();
        other.merge(&latencies);
        assert_eq!(other, latencies);
        other.halve();
        assert_eq!(other.count(), 49 + 1);
        other.clear();
        assert_eq!(other, Latencies::default());
    }
}
