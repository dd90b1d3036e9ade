// SPDX-License-Identifier: Apache-2.0
//! Whether a thread that has nothing to do polls for a while before it sleeps: to be woken costs more than most requests.
//!
//! A connection polls while that pays. After a few times in vain it sleeps at once, and tries again when it was woken so
//! soon that polling would have been enough: an idle connection costs nothing. None polls while more of them are awake than
//! there are cores for them and their clients.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// So many times in a row polling may be in vain.
const PATIENCE: u8 = 4;

/// Connections of this process whose threads do not sleep.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// Cores that this process may use; one where that cannot be known.
fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// How one connection's thread waits. The thread counts as awake while this exists, except while it sleeps.
pub struct Busy {
    limit: Duration,
    /// How often it may still poll in vain.
    tries: u8,
}

impl Busy {
    /// For a thread that begins to serve. It polls for `limit` at a time; zero: never.
    pub fn new(limit: Duration) -> Self {
        AWAKE.fetch_add(1, Ordering::Relaxed);
        Self { limit, tries: if limit.is_zero() { 0 } else { PATIENCE } }
    }

    /// Until when to poll before the next sleep; none to sleep at once.
    pub fn until(&self) -> Option<Instant> {
        let polls = self.tries > 0 && has_room(AWAKE.load(Ordering::Relaxed), cores());
        polls.then(|| Instant::now() + self.limit)
    }

    /// Polling found something to do.
    pub fn paid(&mut self) {
        self.tries = PATIENCE;
    }

    /// Polling found nothing. False: the time is over, and polling was in vain.
    pub fn goes_on(&mut self, until: Instant) -> bool {
        if Instant::now() < until {
            // Whoever has something to do goes first: it may be the client.
            thread::yield_now();
            return true;
        }
        self.tries -= 1;
        false
    }

    /// Runs what puts the thread to sleep.
    pub fn sleep<T>(&mut self, sleep: impl FnOnce() -> T) -> T {
        if self.limit.is_zero() {
            return sleep();
        }
        AWAKE.fetch_sub(1, Ordering::Relaxed);
        let start = Instant::now();
        let result = sleep();
        AWAKE.fetch_add(1, Ordering::Relaxed);
        self.woken_after(start.elapsed());
        result
    }

    fn woken_after(&mut self, slept: Duration) {
        if self.tries == 0 && slept < self.limit {
            self.tries = 1;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whoever is awake has a client that may want a core too.
fn has_room(awake: usize, cores: usize) -> bool {
    2 * awake <= cores
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    fn in_vain(busy: &mut Busy) {
        assert!(!busy.goes_on(Instant::now()), "its time is over");
    }

    #[test]
    fn who_waits_in_vain_sleeps_at_once() {
        let mut busy = Busy::new(LIMIT);
        for _ in 0..PATIENCE {
            assert!(busy.tries > 0);
            in_vain(&mut busy);
            busy.woken_after(LIMIT * 20);
        }
        assert!(busy.until().is_none());
        busy.woken_after(LIMIT);
        assert!(busy.until().is_none(), "polling would not have been enough");
    }

    #[test]
    fn a_short_sleep_is_reason_for_one_try_and_success_for_more() {
        let mut busy = Busy { tries: 0, ..Busy::new(LIMIT) };
        busy.woken_after(LIMIT / 2);
        assert_eq!(busy.tries, 1);
        in_vain(&mut busy);
        assert_eq!(busy.tries, 0);
        busy.woken_after(LIMIT / 2);
        busy.paid();
        assert_eq!(busy.tries, PATIENCE);
    }

    #[test]
    fn polling_goes_on_until_its_time_is_over() {
        let mut busy = Busy::new(LIMIT);
        assert!(busy.goes_on(Instant::now() + Duration::from_secs(3600)));
        assert_eq!(busy.tries, PATIENCE);
    }

    #[test]
    fn without_time_nobody_polls() {
        let mut busy = Busy::new(Duration::ZERO);
        busy.sleep(|| ());
        busy.woken_after(Duration::ZERO);
        assert!(busy.until().is_none());
    }

    #[test]
    fn cores_are_left_to_the_clients() {
        assert!(has_room(1, 2) && has_room(2, 5));
        assert!(!has_room(1, 1) && !has_room(2, 2) && !has_room(3, 4));
    }
}
