// SPDX-License-Identifier: Apache-2.0
//! Writes that overlap go one after the other, so that the order in which the server does them is known.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The ranges that are being written.
#[derive(Default)]
pub(crate) struct Ranges {
    held: Mutex<Held>,
    freed: Notify,
}

#[derive(Default)]
struct Held {
    ranges: Vec<(u64, u64, u64)>,
    next: u64,
}

/// A range that nobody else writes while this lives.
pub(crate) struct Hold<'a> {
    ranges: &'a Ranges,
    id: u64,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.ranges.held().ranges.retain(|(id, ..)| *id != self.id);
        self.ranges.freed.notify_waiters();
    }
}

impl Ranges {
    /// Waits until nobody writes any of the range.
    pub async fn hold(&self, offset: u64, len: u64) -> Hold<'_> {
        let end = offset.saturating_add(len);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Before looking, so that what is freed between looking and waiting is heard.
            freed.as_mut().enable();
            if let Some(id) = self.try_hold(offset, end) {
                return Hold { ranges: self, id };
            }
            freed.await;
        }
    }

    fn try_hold(&self, offset: u64, end: u64) -> Option<u64> {
        let mut held = self.held();
        if held.ranges.iter().any(|(_, start, stop)| *start < end && offset < *stop) {
            return None;
        }
        held.next += 1;
        let id = held.next;
        held.ranges.push((id, offset, end));
        Some(id)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn only_what_overlaps_waits() {
        let ranges = Ranges::default();
        let Poll::Ready(first) = poll(pin!(ranges.hold(0, 10))) else { panic!("nobody writes") };
        assert!(poll(pin!(ranges.hold(10, 5))).is_ready());
        let mut waits = pin!(ranges.hold(9, 1));
        assert!(poll(waits.as_mut()).is_pending());
        drop(first);
        assert!(poll(waits).is_ready());
    }
}
