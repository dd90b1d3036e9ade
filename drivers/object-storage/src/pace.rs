// SPDX-License-Identifier: Apache-2.0
//! How fast the store wants to be asked: a storm of 429 and 503 slows all requests of a backend, success ends that.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The first gap between requests after a store asked for patience, and the least that is kept at all.
const FIRST: Duration = Duration::from_millis(20);
const LEAST: Duration = Duration::from_millis(1);
/// The longest gap: slow, but never still.
const MOST: Duration = Duration::from_secs(2);
/// How long after the last call for patience a backend counts as slowed down.
const STORM: Duration = Duration::from_secs(30);

/// The gap that is kept between requests.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    gap: Duration,
    next: Option<Instant>,
    slowed: Option<Instant>,
    answers: u32,
}

impl Pace {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a request may leave that has to be done by `until`; its place in the row is taken. However long the row is, a
    /// request waits for no more than the longest gap, nor for more than half of its time: a row of requests whose time
    /// has run out must not keep those that come later from asking whether the store is well again.
    pub fn turn(&self, now: Instant, until: Instant) -> Instant {
        let mut inner = self.lock();
        if inner.gap.is_zero() {
            return now;
        }
        let latest = now + MOST.min(until.saturating_duration_since(now) / 2);
        let at = inner.next.map_or(now, |next| next.max(now).min(latest));
        inner.next = Some(at + inner.gap);
        at
    }

    /// The store asked for patience.
    pub fn slower(&self, now: Instant) {
        let mut inner = self.lock();
        // Many requests under way are all refused at once: that is one call for patience.
        let lately = inner.slowed.is_some_and(|slowed| now < slowed + inner.gap.max(FIRST));
        if !lately {
            inner.gap = (inner.gap * 2).clamp(FIRST, MOST);
        }
        inner.slowed = Some(now);
        inner.answers = inner.answers.saturating_add(1);
    }

    /// The store did as it was asked.
    pub fn faster(&self) {
        let mut inner = self.lock();
        if !inner.gap.is_zero() {
            inner.gap = inner.gap.mul_f64(0.8);
            if inner.gap < LEAST {
                (inner.gap, inner.next, inner.answers) = (Duration::ZERO, None, 0);
            }
        }
    }

    /// The gap that is kept now, and how many answers asked for patience; `None` when there is no storm.
    pub fn storm(&self, now: Instant) -> Option<(Duration, u32)> {
        let inner = self.lock();
        let lately = inner.slowed.is_some_and(|slowed| now < slowed + STORM);
        (lately && !inner.gap.is_zero()).then_some((inner.gap, inner.answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_spaces_requests_and_success_ends_it() {
        let (pace, now) = (Pace::default(), Instant::now());
        let until = now + 100 * MOST;
        assert_eq!(pace.turn(now, until), now);
        assert!(pace.storm(now).is_none());
        pace.slower(now);
        assert_eq!((pace.turn(now, until), pace.turn(now, until)), (now, now + FIRST));
        pace.slower(now + FIRST);
        assert_eq!(pace.storm(now + FIRST), Some((2 * FIRST, 2)));
        for _ in 0..20 {
            pace.faster();
        }
        assert!(pace.storm(now + FIRST).is_none());
        assert_eq!(pace.turn(now + FIRST, until), now + FIRST);
    }

    #[test]
    fn a_long_row_keeps_nobody_from_asking() {
        let (pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..50 {
            pace.slower(now);
            now += MOST;
        }
        let brief = Duration::from_secs(1);
        for _ in 0..1000 {
            assert!(pace.turn(now, now + brief) <= now + brief / 2);
        }
        assert!(pace.turn(now, now + 100 * MOST) <= now + MOST);
        // Time that has run out already is the caller's to see.
        assert_eq!(pace.turn(now, now), now);
    }

    #[test]
    fn refusals_that_come_together_count_once_and_the_gap_has_an_end() {
        let (pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..50 {
            pace.slower(now);
        }
        assert_eq!(pace.storm(now), Some((FIRST, 50)));
        for _ in 0..50 {
            now += MOST;
            pace.slower(now);
        }
        assert_eq!(pace.storm(now).map(|storm| storm.0), Some(MOST));
        assert!(pace.storm(now + STORM).is_none());
    }
}
