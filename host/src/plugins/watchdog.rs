// SPDX-License-Identifier: Apache-2.0
//! Notices driver calls that hold a host thread.
//!
//! Every call into a driver is marked in a word of its thread's own: two relaxed stores, no clock. One thread samples
//! these words. A call that is still there at the next sample is measured from then on, in time that it slept or ran:
//! time that its thread spent waiting for a processor is not the driver's fault.

use std::{
    cell::Cell,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{call::Call, meter::DriverMeter};

/// How often the words are sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);
/// A call that holds its thread this long is counted and named.
const TOO_LONG: Duration = Duration::from_millis(10);

/// The call that a thread is in: meter, call and a number that differs from call to call; zero for none.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    #[inline]
    fn new(meter: u32, call: Call, sequence: u32) -> Self {
        Self((u64::from(meter) << 40) | ((call as u64) << 32) | u64::from(sequence))
    }

    fn meter(self) -> u32 {
        (self.0 >> 40) as u32
    }

    fn call(self) -> Option<Call> {
        Call::from_number((self.0 >> 32) as u8)
    }
}

/// A thread's place. Reused by later threads, never freed.
struct Slot {
    word: AtomicU64,
    sequence: AtomicU32,
    /// Zero while no thread has the slot.
    thread: AtomicI32,
}

static SLOTS: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());

thread_local! {
    static SLOT: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    static OWNER: Owner = Owner::new();
}

/// Gives the thread's slot back at its end.
struct Owner(&'static Slot);

impl Owner {
    fn new() -> Self {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let free = slots.iter().find(|slot| slot.thread.load(Ordering::Relaxed) == 0).copied();
        let slot = free.unwrap_or_else(|| {
            let slot: &'static Slot = Box::leak(Box::new(Slot {
                word: AtomicU64::new(0),
                sequence: AtomicU32::new(0),
                thread: AtomicI32::new(0),
            }));
            slots.push(slot);
            slot
        });
        slot.thread.store(thread, Ordering::Relaxed);
        Self(slot)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        SLOT.set(None);
        let _slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.word.store(0, Ordering::Relaxed);
        self.0.thread.store(0, Ordering::Relaxed);
    }
}

/// The mark of a call that is under way on this thread.
pub(super) struct Mark {
    slot: Option<&'static Slot>,
    before: u64,
}

impl Mark {
    /// Marks that this thread enters `call` of the meter's driver.
    #[inline]
    pub(super) fn new(meter: &DriverMeter, call: Call) -> Self {
        let Some(slot) = SLOT.get().or_else(take_slot) else {
            return Self { slot: None, before: 0 };
        };
        let sequence = slot.sequence.load(Ordering::Relaxed).wrapping_add(1);
        slot.sequence.store(sequence, Ordering::Relaxed);
        let before = slot.word.load(Ordering::Relaxed);
        slot.word.store(Word::new(meter.id(), call, sequence).0, Ordering::Relaxed);
        Self { slot: Some(slot), before }
    }
}

impl Drop for Mark {
    #[inline]
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.word.store(self.before, Ordering::Relaxed);
        }
    }
}

/// A thread's first call takes a slot; while the thread ends there is none, and its calls go unwatched.
#[cold]
fn take_slot() -> Option<&'static Slot> {
    let slot = OWNER.try_with(|owner| owner.0).ok()?;
    SLOT.set(Some(slot));
    Some(slot)
}

/// Starts the watchdog, once.
pub(super) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let started = thread::Builder::new().name("nova-watchdog".to_owned()).spawn(watch);
        if let Err(error) = started {
            tracing::error!(%error, "no thread to watch drivers with: blocking calls go unnoticed");
        }
    });
}

fn watch() {
    let mut trackers: Vec<Tracker> = Vec::new();
    loop {
        thread::sleep(SAMPLE_EVERY);
        let slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        trackers.resize_with(slots.len(), Tracker::default);
        for (slot, tracker) in slots.iter().zip(&mut trackers) {
            let word = Word(slot.word.load(Ordering::Relaxed));
            let thread = slot.thread.load(Ordering::Relaxed);
            let now = Instant::now();
            let Some(held) = tracker.sample(word, now, || ThreadTimes::read(thread)) else {
                continue;
            };
            let meter = DriverMeter::by_id(word.meter());
            if let (Some(meter), Some(call)) = (meter, word.call()) {
                meter.blocked(call, held.time, held.first, now);
            }
        }
    }
}

/// A call that has held its thread for too long.
#[derive(PartialEq, Eq, Debug)]
struct Held {
    time: Duration,
    /// Whether this call had not been reported before.
    first: bool,
}

/// What the samples of one slot have shown.
#[derive(Default)]
struct Tracker {
    last: Option<Seen>,
}

struct Seen {
    word: Word,
    since: Instant,
    /// The thread's figures when it was first looked at, and what went before that look.
    times: Option<(ThreadTimes, Duration)>,
    reported: bool,
}

impl Tracker {
    /// Takes a sample; `times` is asked only for a call that was there before.
    fn sample(
        &mut self,
        word: Word,
        now: Instant,
        times: impl FnOnce() -> Option<ThreadTimes>,
    ) -> Option<Held> {
        if word == Word(0) {
            self.last = None;
            return None;
        }
        let last = self.last.as_mut().filter(|seen| seen.word == word);
        let Some(seen) = last else {
            self.last = Some(Seen { word, since: now, times: None, reported: false });
            return None;
        };
        let times = times();
        let elapsed = now.duration_since(seen.since);
        let time = match (&seen.times, times) {
            (Some((first, before)), Some(latest)) => *before + latest.held_since(first, elapsed),
            // Without these figures, which some containers hide, only the clock is left.
            (_, None) => elapsed,
            // The first look at the thread itself. It cannot tell how much of the time before was waiting, so no more
            // than one round counts: this thread may have waited for a processor, too.
            (None, Some(first)) => {
                seen.since = now;
                seen.times = Some((first, elapsed.min(SAMPLE_EVERY)));
                return None;
            }
        };
        if time < TOO_LONG {
            return None;
        }
        let first = !std::mem::replace(&mut seen.reported, true);
        Some(Held { time, first })
    }
}

/// What the kernel says of a thread's time.
struct ThreadTimes {
    sleeps: bool,
    ran: Duration,
    waited: Duration,
}

impl ThreadTimes {
    fn read(thread: i32) -> Option<Self> {
        let figures =
            std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
        Self::parse(&figures, &stat)
    }

    fn parse(figures: &str, stat: &str) -> Option<Self> {
        let mut figures = figures.split_ascii_whitespace();
        let mut next = || figures.next()?.parse().ok().map(Duration::from_nanos);
        let (ran, waited) = (next()?, next()?);
        // The thread's name stands in parentheses and may hold anything; the state follows it.
        let state = stat.rsplit_once(") ")?.1.chars().next()?;
        Some(Self { sleeps: state != 'R', ran, waited })
    }

    /// How long the thread slept or ran since `first`, out of `elapsed`.
    fn held_since(&self, first: &Self, elapsed: Duration) -> Duration {
        if self.sleeps {
            elapsed.saturating_sub(self.waited.saturating_sub(first.waited))
        } else {
            // Runnable: the wait that is still going on is not in the figures yet, so only time that ran counts.
            self.ran.saturating_sub(first.ran)
        }
    }
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
