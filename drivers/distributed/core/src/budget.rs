// SPDX-License-Identifier: Apache-2.0
//! Bytes that may be moved, by the second.

use crate::Time;

/// What was not used is kept for so long at most: longer than a timer is late, shorter than what a client would notice.
const MEMORY_NS: u64 = 10_000_000;

/// An allowance that grows with time. Whoever finds something left may take more than that; it is paid back before anybody
/// gets the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Budget {
    /// Bytes a second; `None`: as many as one likes.
    rate: Option<u64>,
    /// Bytes that are left, or with a minus are owed, times the nanoseconds of a second.
    left: i128,
    /// When that was so.
    at: Time,
    /// Whether somebody was refused.
    is_awaited: bool,
}

const SECOND: i128 = 1_000_000_000;

impl Budget {
    /// Everything is allowed.
    pub(crate) fn unlimited() -> Self {
        Self { rate: None, left: 0, at: Time(0), is_awaited: false }
    }

    /// Allows so many bytes a second from now on. What is owed stays owed, but not for longer than a second.
    pub(crate) fn set(&mut self, now: Time, rate: Option<u64>) {
        self.grow(now);
        self.rate = rate.map(|rate| rate.max(1));
        self.left = self.rate.map_or(0, |rate| self.left.max(-i128::from(rate) * SECOND));
    }

    /// Whether something may be begun now.
    pub(crate) fn allows(&mut self, now: Time) -> bool {
        self.grow(now);
        let allows = self.rate.is_none() || self.left > 0;
        self.is_awaited = !allows;
        allows
    }

    /// So many bytes are being moved.
    pub(crate) fn spend(&mut self, bytes: u64) {
        if self.rate.is_some() {
            self.left -= i128::from(bytes) * SECOND;
        }
    }

    /// When to ask again, if somebody was refused.
    pub(crate) fn next(&self) -> Option<Time> {
        let rate = i128::from(self.rate.filter(|_| self.is_awaited)?);
        let wait = (-self.left).max(0) / rate + 1;
        Some(self.at.after(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    fn grow(&mut self, now: Time) {
        // A clock that was set back gives nothing and takes nothing.
        let passed = now.0.saturating_sub(self.at.0);
        self.at = now;
        if let Some(rate) = self.rate.map(i128::from) {
            let most = rate * i128::from(MEMORY_NS);
            self.left = (self.left + rate * i128::from(passed)).min(most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;
    use crate::Time;

    const MS: u64 = 1_000_000;

    #[test]
    fn as_many_bytes_are_allowed_as_the_rate_says() {
        let mut budget = Budget::unlimited();
        budget.set(Time(0), Some(1 << 20));
        let (mut now, mut moved) = (Time(0), 0);
        while now < Time(10_000 * MS) {
            while budget.allows(now) {
                budget.spend(64 << 10);
                moved += 64 << 10;
            }
            now = budget.next().unwrap();
        }
        assert!((10 << 20..=(10 << 20) + (64 << 10)).contains(&moved), "{moved}");
    }

    #[test]
    fn what_was_not_used_is_soon_lost_and_what_is_owed_is_not() {
        let mut budget = Budget::unlimited();
        budget.set(Time(0), Some(1000));
        assert!(!budget.allows(Time(0)));
        assert_eq!(budget.next(), Some(Time(1)));
        assert!(budget.allows(Time(3_600_000 * MS)));
        budget.spend(2010);
        assert!(!budget.allows(Time(3_602_000 * MS)), "an hour's bytes were kept");
        assert_eq!(budget.next(), Some(Time(3_602_000 * MS + 1)));
        // Set back.
        assert!(!budget.allows(Time(5 * MS)));
        assert_eq!(budget.next(), Some(Time(5 * MS + 1)));
        budget.spend(50_000);
        budget.set(Time(6 * MS), Some(10));
        assert!(!budget.allows(Time(1_005 * MS)));
        assert!(budget.allows(Time(1_007 * MS)), "it owes for longer than a second");
        budget.set(Time(1_007 * MS), None);
        budget.spend(1 << 40);
        assert!(budget.allows(Time(0)));
        assert_eq!(budget.next(), None);
    }
}
