// SPDX-License-Identifier: Apache-2.0
//! What the host has seen of one loaded driver: panics, calls that held a thread, and whether it was isolated for them.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind};

use super::{call::Call, lane::Lane, watchdog};

/// So many held threads within [`WINDOW`] isolate a driver.
const TOLERATED: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);
/// One call that holds a thread this long isolates its driver at once: the next caller must not hang as well.
const HANGING: Duration = Duration::from_secs(1);

/// Figures and faults of one loaded driver. Shared by everything that calls it.
#[derive(Debug)]
pub struct DriverMeter {
    /// Number in the table of meters; never zero, so that a marked call is never the word for none.
    id: u32,
    driver: String,
    blocked_calls: AtomicU64,
    faults: Mutex<Faults>,
    lane: OnceLock<Lane>,
}

#[derive(Debug, Default)]
struct Faults {
    degraded: Option<String>,
    panics: u64,
    last_blocked: Option<(Call, Duration)>,
    recent: VecDeque<Instant>,
}

/// Every meter by its number less one, for the watchdog.
static METERS: RwLock<Vec<Weak<DriverMeter>>> = RwLock::new(Vec::new());

impl DriverMeter {
    /// A meter for the driver of this name, watched from now on.
    pub fn new(driver: &str) -> Arc<Self> {
        watchdog::start();
        let mut meters = METERS.write().unwrap_or_else(PoisonError::into_inner);
        let meter = Arc::new(Self {
            id: meters.len() as u32 + 1,
            driver: driver.to_owned(),
            blocked_calls: AtomicU64::new(0),
            faults: Mutex::default(),
            lane: OnceLock::new(),
        });
        meters.push(Arc::downgrade(&meter));
        meter
    }

    /// The meter with this number, while anybody uses its driver.
    pub(super) fn by_id(id: u32) -> Option<Arc<Self>> {
        let meters = METERS.read().unwrap_or_else(PoisonError::into_inner);
        meters.get(usize::try_from(id).ok()?.checked_sub(1)?)?.upgrade()
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The driver's name.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Why the driver is degraded, if it is.
    pub fn degraded(&self) -> Option<String> {
        self.faults().degraded.clone()
    }

    /// How many calls held a host thread for too long.
    pub fn blocked_calls(&self) -> u64 {
        self.blocked_calls.load(Ordering::Relaxed)
    }

    /// The last such call, as in `read for 35 ms`.
    pub fn last_blocked(&self) -> Option<String> {
        let (call, held) = self.faults().last_blocked?;
        Some(format!("{} for {} ms", call.name(), held.as_millis()))
    }

    /// Whether this driver's calls run on a thread of their own.
    pub fn isolated(&self) -> bool {
        self.lane.get().is_some()
    }

    /// The thread of an isolated driver.
    #[inline]
    pub(super) fn lane(&self) -> Option<&Lane> {
        self.lane.get()
    }

    /// Marks the driver degraded if `error` is a panic.
    pub fn note(&self, call: Call, error: &Error) {
        if error.kind() == ErrorKind::PANIC {
            self.panicked(call.name(), error.message());
        }
    }

    /// Marks the driver degraded: it panicked in `place`.
    pub fn panicked(&self, place: &str, message: &str) {
        let mut faults = self.faults();
        faults.panics += 1;
        let count = match faults.panics {
            1 => String::new(),
            count => format!(" ({count} panics so far)"),
        };
        faults.degraded = Some(format!("panic in {place}: {message}{count}"));
        drop(faults);
        tracing::error!(driver = self.driver, method = place, "driver degraded: {message}");
    }

    /// Learns that a call has held its thread for `held`, for the first time or for longer than before.
    pub(super) fn blocked(&self, call: Call, held: Duration, first: bool, now: Instant) {
        let mut faults = self.faults();
        faults.last_blocked = Some((call, held));
        if !first {
            drop(faults);
            if held >= HANGING {
                self.isolate("a call hangs");
            }
            return;
        }
        faults.recent.push_back(now);
        while faults.recent.front().is_some_and(|&then| now.duration_since(then) > WINDOW) {
            faults.recent.pop_front();
        }
        let repeated = faults.recent.len() >= TOLERATED;
        drop(faults);
        self.blocked_calls.fetch_add(1, Ordering::Relaxed);
        let (driver, method, held_ms) = (&self.driver, call.name(), held.as_millis() as u64);
        if self.isolated() {
            tracing::debug!(driver, method, held_ms, "the driver's call holds its own thread");
            return;
        }
        tracing::warn!(driver, method, held_ms, "the driver's call holds a thread of the host");
        if repeated {
            self.isolate("its calls held threads of the host repeatedly");
        }
    }

    /// Gives the driver a thread of its own, for good.
    fn isolate(&self, why: &str) {
        if self.isolated() {
            return;
        }
        match Lane::start(&self.driver) {
            Ok(lane) => {
                if self.lane.set(lane).is_ok() {
                    tracing::warn!(driver = self.driver, why, "driver isolated on its own thread");
                }
            }
            Err(error) => {
                tracing::error!(driver = self.driver, why, %error, "the driver cannot be isolated");
            }
        }
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn three_held_threads_within_a_minute_isolate() {
        let (meter, start) = (DriverMeter::new("often"), Instant::now());
        for (index, secs) in [0, 40, 61, 100].into_iter().enumerate() {
            assert!(!meter.isolated(), "after {index} calls");
            meter.blocked(Call::Read, 12 * MS, true, start + secs * 1000 * MS);
        }
        assert!(meter.isolated());
        assert_eq!(meter.blocked_calls(), 4);
    }

    #[test]
    fn a_call_that_goes_on_counts_once_and_isolates_when_it_hangs() {
        let (meter, now) = (DriverMeter::new("hangs"), Instant::now());
        meter.blocked(Call::Flush, 10 * MS, true, now);
        for held in [15, 500, 999] {
            meter.blocked(Call::Flush, held * MS, false, now);
        }
        assert_eq!(meter.blocked_calls(), 1);
        assert_eq!(meter.last_blocked().as_deref(), Some("flush for 999 ms"));
        assert!(!meter.isolated());
        meter.blocked(Call::Flush, 1000 * MS, false, now);
        assert!(meter.isolated());
    }

    #[test]
    fn only_a_panic_degrades() {
        let meter = DriverMeter::new("panics");
        meter.note(Call::Read, &Error::new(ErrorKind::CORRUPTED, "bad sum"));
        assert_eq!(meter.degraded(), None);
        meter.note(Call::Write, &Error::new(ErrorKind::PANIC, "boom"));
        assert_eq!(meter.degraded().as_deref(), Some("panic in write: boom"));
        meter.panicked("drop", "again");
        assert_eq!(meter.degraded().as_deref(), Some("panic in drop: again (2 panics so far)"));
    }
}
