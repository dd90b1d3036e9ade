// SPDX-License-Identifier: Apache-2.0
//! Who keeps others waiting: a connection whose client neither sends the data it announced nor fetches its replies,
//! while somebody is refused what it holds.

use std::time::{Duration, Instant};

/// How long such a client may be slow.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The part of what it holds that must move in that time.
const PART: u64 = 8;

/// Watches one connection.
#[derive(Default)]
pub struct Patience {
    since: Option<Mark>,
}

struct Mark {
    at: Instant,
    moved: u64,
    refusals: u64,
}

impl Patience {
    /// Whether patience ends now, for a client that keeps `held` bytes of the pools by being slow: it has sent and
    /// fetched `moved` bytes in all, and the pools have refused `refusals` times in all.
    ///
    /// To be asked whenever the connection wakes, and at least every [`PATIENCE`] while it holds anything.
    pub fn ends(&mut self, held: usize, moved: u64, refusals: u64, now: Instant) -> bool {
        if held == 0 {
            self.since = None;
            return false;
        }
        let mark = self.since.get_or_insert(Mark { at: now, moved, refusals });
        if now.saturating_duration_since(mark.at) < PATIENCE {
            return false;
        }
        let slow = moved.wrapping_sub(mark.moved) < held as u64 / PART;
        let others_wait = refusals != mark.refusals;
        *mark = Mark { at: now, moved, refusals };
        slow && others_wait
    }

    /// Whether nobody is watched.
    pub fn is_calm(&self) -> bool {
        self.since.is_none()
    }
}
