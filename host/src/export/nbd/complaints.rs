// SPDX-License-Identifier: Apache-2.0
//! Log lines that clients bring about: so many a second, for a million hostile clients must not fill the log.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// Lines in one [`WINDOW`] of the whole process.
const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Window {
    begun: Instant,
    written: u32,
    left_out: u64,
}

impl Window {
    /// Whether a line may be written now, and how many were left out since the last window that left some out.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut left_out = 0;
        if now.saturating_duration_since(self.begun) >= WINDOW {
            left_out = self.left_out;
            *self = Self { begun: now, written: 0, left_out: 0 };
        }
        if self.written == LINES {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(left_out)
    }
}

/// Whether one more line about a client may be written. Says how many could not be before.
pub fn admitted() -> bool {
    static NOW: OnceLock<Mutex<Window>> = OnceLock::new();
    let now = Instant::now();
    let window = NOW.get_or_init(|| Mutex::new(Window { begun: now, written: 0, left_out: 0 }));
    let admitted = window.lock().unwrap_or_else(PoisonError::into_inner).admit(now);
    if let Some(left_out @ 1..) = admitted {
        tracing::warn!(left_out, "there were too many bad clients for a line each");
    }
    admitted.is_some()
}

/// `tracing::warn!` about what a client did, as long as there are not too many of these lines.
macro_rules! complain {
    ($($line:tt)*) => {
        if $crate::export::nbd::complaints::admitted() {
            tracing::warn!($($line)*);
        }
    };
}

pub(super) use complain;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_and_counted() {
        let begun = Instant::now();
        let mut window = Window { begun, written: 0, left_out: 0 };
        let admitted = (0..100).filter(|_| window.admit(begun) == Some(0)).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(window.admit(begun + WINDOW), Some(80), "said with the next line");
        assert_eq!(window.admit(begun + WINDOW), Some(0), "once");
        assert_eq!(window.admit(begun + 3 * WINDOW), Some(0));
    }
}
