// SPDX-License-Identifier: Apache-2.0
//! Who was woken: a bit per slot, and an eventfd that is written only while the connection's thread sleeps.
//!
//! The eventfd is made for the first request: a connection that only rests has one descriptor, its socket.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    task::{Wake, Waker},
};

use rustix::event::{EventfdFlags, eventfd};

/// The woken slots of one connection.
pub struct Wakes {
    bits: Box<[AtomicU64]>,
    sleeping: AtomicBool,
    event: OnceLock<OwnedFd>,
}

impl Wakes {
    /// Room for so many slots.
    pub fn new(slots: usize) -> Self {
        Self {
            bits: (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            sleeping: AtomicBool::new(false),
            event: OnceLock::new(),
        }
    }

    /// Makes the event, which must be there before anything is in flight. What [`Wakes::interrupt`] is for must be
    /// looked at after this: earlier it had nothing to write to. True the first time.
    pub fn arm(&self) -> io::Result<bool> {
        if self.event.get().is_some() {
            return Ok(false);
        }
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let first = self.event.set(event).is_ok();
        // Either the caller sees the reason for an interruption, or the interruption sees the event.
        fence(Ordering::SeqCst);
        Ok(first)
    }

    /// What is readable when the sleep shall end; none before [`Wakes::arm`].
    pub fn event(&self) -> Option<BorrowedFd<'_>> {
        self.event.get().map(AsFd::as_fd)
    }

    /// A waker for a slot; it may be used after the slot's operation ended.
    pub fn waker(self: &Arc<Self>, slot: usize) -> Waker {
        Waker::from(Arc::new(SlotWaker { wakes: Arc::clone(self), slot }))
    }

    /// Takes all woken slots.
    pub fn take(&self, mut each: impl FnMut(usize)) {
        for (index, word) in self.bits.iter().enumerate() {
            // The plain load keeps quiet slots' cache lines shared.
            let mut bits = match word.load(Ordering::Relaxed) {
                0 => continue,
                _ => word.swap(0, Ordering::SeqCst),
            };
            while bits != 0 {
                each(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Whether a slot is woken.
    pub fn any(&self) -> bool {
        self.bits.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Announces that the thread is about to sleep. False if somebody was woken meanwhile: then it must not.
    pub fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        // Either this load sees the bit, or the waker's swap sees the announcement: both are SeqCst.
        let none = self.bits.iter().all(|word| word.load(Ordering::SeqCst) == 0);
        if !none {
            self.sleeping.store(false, Ordering::SeqCst);
        }
        none
    }

    /// The thread is awake again; `signalled` if the event was readable.
    pub fn awake(&self, signalled: bool) {
        self.sleeping.store(false, Ordering::SeqCst);
        if signalled && let Some(event) = self.event.get() {
            // It can only fail with nothing to read; the next sleep finds whatever is written later.
            let _ = rustix::io::read(event, &mut [0; 8]);
        }
    }

    /// Ends the thread's sleep, or forbids its next one.
    pub fn interrupt(&self) {
        fence(Ordering::SeqCst);
        if let Some(event) = self.event.get() {
            // A full counter is readable as well, so that a failed write has the same effect.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }

    fn wake(&self, slot: usize) {
        self.bits[slot / 64].fetch_or(1 << (slot % 64), Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.interrupt();
        }
    }
}

struct SlotWaker {
    wakes: Arc<Wakes>,
    slot: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wakes.wake(self.slot);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.wake(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wakes: &Wakes) -> Vec<usize> {
        let mut slots = Vec::new();
        wakes.take(|slot| slots.push(slot));
        slots
    }

    fn event_is_set(wakes: &Wakes) -> bool {
        rustix::io::read(wakes.event().unwrap(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn woken_slots_are_taken_once() {
        let wakes = Arc::new(Wakes::new(130));
        wakes.waker(129).wake();
        wakes.waker(0).wake_by_ref();
        wakes.waker(0).wake();
        assert_eq!(taken(&wakes), [0, 129]);
        assert!(taken(&wakes).is_empty());
    }

    #[test]
    fn the_event_is_written_only_during_sleep() {
        let wakes = Arc::new(Wakes::new(1));
        wakes.interrupt();
        assert!(wakes.event().is_none(), "nothing is made for who rests");
        assert!(wakes.arm().unwrap() && !wakes.arm().unwrap());
        wakes.waker(0).wake();
        assert!(!event_is_set(&wakes), "nobody slept");
        assert!(!wakes.may_sleep(), "a slot is woken");
        assert_eq!(taken(&wakes), [0]);
        assert!(wakes.may_sleep());
        wakes.waker(0).wake();
        assert!(event_is_set(&wakes), "the sleeper must be woken");
        wakes.waker(0).wake();
        assert!(!event_is_set(&wakes), "once is enough");
    }
}
