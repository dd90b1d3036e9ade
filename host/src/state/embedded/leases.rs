// SPDX-License-Identifier: Apache-2.0
//! When leases end. Pure: time comes in as an argument. A lease whose deadline has passed still lives until the engine
//! has removed it from the file, and may be renewed until then.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The running leases with their deadlines.
#[derive(Default)]
pub(super) struct Leases {
    deadlines: HashMap<u64, Instant>,
}

/// What a transaction did to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseChange {
    /// Granted or renewed, for this many milliseconds from now on.
    Runs {
        lease: u64,
        ttl_ms: u64,
    },
    Ended {
        lease: u64,
    },
}

impl Leases {
    /// Notes a change that has become durable.
    pub(super) fn note(&mut self, change: LeaseChange, now: Instant) {
        match change {
            LeaseChange::Runs { lease, ttl_ms } => {
                self.deadlines.insert(lease, now + Duration::from_millis(ttl_ms));
            }
            LeaseChange::Ended { lease } => {
                self.deadlines.remove(&lease);
            }
        }
    }

    /// Takes over what the file holds: leases it does not have are gone, unknown ones run for their full time.
    pub(super) fn reload(&mut self, stored: &[(u64, u64)], now: Instant) {
        let known = std::mem::take(&mut self.deadlines);
        for &(lease, ttl_ms) in stored {
            let full = now + Duration::from_millis(ttl_ms);
            self.deadlines.insert(lease, known.get(&lease).copied().unwrap_or(full));
        }
    }

    /// The leases whose time is over.
    pub(super) fn due(&self, now: Instant) -> Vec<u64> {
        let over = self.deadlines.iter().filter(|(_, deadline)| **deadline <= now);
        let mut due: Vec<u64> = over.map(|(lease, _)| *lease).collect();
        due.sort_unstable();
        due
    }

    /// How long until the next lease is due.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.deadlines.values().min().map(|deadline| deadline.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_is_due_after_its_time_unless_renewed_or_ended() {
        let start = Instant::now();
        let mut leases = Leases::default();
        assert_eq!(leases.wait(start), None);
        leases.note(LeaseChange::Runs { lease: 1, ttl_ms: 2000 }, start);
        leases.note(LeaseChange::Runs { lease: 2, ttl_ms: 2000 }, start);
        leases.note(LeaseChange::Runs { lease: 3, ttl_ms: 5000 }, start);
        assert_eq!(leases.wait(start), Some(2 * SECOND));
        leases.note(LeaseChange::Runs { lease: 1, ttl_ms: 2000 }, start + SECOND);
        assert_eq!(leases.due(start + 2 * SECOND), [2]);
        leases.note(LeaseChange::Ended { lease: 2 }, start + 2 * SECOND);
        assert_eq!(leases.due(start + 3 * SECOND), [1]);
        assert_eq!(leases.wait(start + 4 * SECOND), Some(Duration::ZERO));
    }

    #[test]
    fn reloading_keeps_known_deadlines_and_gives_the_others_their_full_time() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.note(LeaseChange::Runs { lease: 1, ttl_ms: 2000 }, start);
        leases.note(LeaseChange::Runs { lease: 2, ttl_ms: 2000 }, start);
        leases.reload(&[(1, 2000), (3, 2000)], start + SECOND);
        assert_eq!(leases.due(start + 2 * SECOND), [1]);
        assert_eq!(leases.due(start + 3 * SECOND), [1, 3]);
    }
}
