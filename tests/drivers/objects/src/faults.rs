// SPDX-License-Identifier: Apache-2.0
//! Calls that fail or wait on request, and what was asked.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use driver_api::{Error, ErrorKind, Result, Stats};
use serde::Deserialize;

fn once() -> u32 {
    1
}

/// What the command `fault` takes.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    call: String,
    #[serde(default)]
    kind: u32,
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    after: bool,
    #[serde(default)]
    wait_ms: u64,
}

/// What is to go wrong, and what was asked.
#[derive(Default)]
pub struct Faults {
    waiting: Mutex<Vec<Fault>>,
    asked: Mutex<BTreeMap<&'static str, u64>>,
    now: AtomicU64,
    most: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    pub fn add(&self, fault: Fault) {
        lock(&self.waiting).push(fault);
    }

    fn next(&self, call: &str) -> Option<Fault> {
        let mut waiting = lock(&self.waiting);
        let place = waiting.iter().position(|fault| fault.call == call)?;
        let fault = waiting[place].clone();
        waiting[place].times = fault.times.saturating_sub(1);
        if waiting[place].times == 0 {
            waiting.remove(place);
        }
        Some(fault)
    }

    /// Does `work` as the call of this name, or what it was asked to do instead.
    pub async fn call<T>(&self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        *lock(&self.asked).entry(name).or_default() += 1;
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let result = self.faulty(name, work).await;
        self.now.fetch_sub(1, Ordering::Relaxed);
        result
    }

    async fn faulty<T>(&self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(fault) = self.next(name) else { return work() };
        if fault.wait_ms > 0 {
            tokio::time::sleep(Duration::from_millis(fault.wait_ms)).await;
            return work();
        }
        if fault.after {
            work()?;
        }
        Err(Error::new(ErrorKind::from_code(fault.kind), "asked to fail").during(name))
    }

    pub fn stats(&self) -> Stats {
        let stats = Stats::new().counter("most_at_once", self.most.load(Ordering::Relaxed));
        let asked = lock(&self.asked);
        asked
            .iter()
            .fold(stats, |stats, (name, count)| stats.counter(&format!("{name}_total"), *count))
    }
}
