// SPDX-License-Identifier: Apache-2.0
//! Holds the changes of a volume's content for a moment, so that several volumes stand still at one point.
//!
//! ```text
//!   open --pause--> paused: those admitted end, others wait --Pause dropped--> open, those that waited go on
//! ```
//! Each change is [`Admitted`] before its driver is asked, and counts until the driver has answered, whoever polls it.
//! Reads and flushes pass: they change nothing.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// The bit of [`Gate::word`] that says paused; those below count.
const PAUSED: u64 = 1 << 63;

/// Where the changes of one volume go through.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Whether it is paused, and how many changes are under way: one word, so that neither can be seen without the other.
    word: AtomicU64,
    opened: Notify,
    settled: Notify,
}

/// A change that was let through. It counts as under way until this is dropped.
#[derive(Debug)]
pub struct Admitted(Arc<Gate>);

/// Lets no change begin until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it lets changes go on"]
pub struct Pause(Arc<Gate>);

impl Gate {
    /// Lets a change through, unless the gate is paused.
    #[inline]
    pub(super) fn try_admit(self: &Arc<Self>) -> Option<Admitted> {
        if self.word.fetch_add(1, Ordering::AcqRel) & PAUSED == 0 {
            return Some(Admitted(Arc::clone(self)));
        }
        self.end_one();
        None
    }

    /// Lets a change through once the gate is open.
    pub(super) async fn admit(self: &Arc<Self>) -> Admitted {
        loop {
            // It hears of everything that happens from here on.
            let opened = self.opened.notified();
            if let Some(admitted) = self.try_admit() {
                return admitted;
            }
            opened.await;
        }
    }

    /// Pauses the gate; `None` if somebody else has.
    pub(super) fn pause(self: &Arc<Self>) -> Option<Pause> {
        let before = self.word.fetch_or(PAUSED, Ordering::AcqRel);
        (before & PAUSED == 0).then(|| Pause(Arc::clone(self)))
    }

    fn end_one(&self) {
        if self.word.fetch_sub(1, Ordering::AcqRel) == PAUSED | 1 {
            self.settled.notify_waiters();
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.end_one();
    }
}

impl Pause {
    /// Waits until no change is under way.
    pub async fn settled(&self) {
        loop {
            let settled = self.0.settled.notified();
            // One that comes now and is turned away counts for an instant, and then tells as well.
            if self.0.word.load(Ordering::Acquire) == PAUSED {
                return;
            }
            settled.await;
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.word.fetch_and(!PAUSED, Ordering::AcqRel);
        self.0.opened.notify_waiters();
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
