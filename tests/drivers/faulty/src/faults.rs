// SPDX-License-Identifier: Apache-2.0
//! The misbehaviour: what a call does before it answers, and how it answers.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use driver_api::{Capabilities, Error, ErrorKind, Fencing, Op, Result};
use serde::Deserialize;
use tokio::sync::watch;

use crate::store::CAPABILITIES;

/// The options of the backend; the crate's documentation explains them.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    panic_in: String,
    block_in: String,
    block_ms: u64,
    hang_in: String,
    slow_in: String,
    slow_ms: u64,
    pending: bool,
    pub(crate) lose_unflushed: bool,
    pub(crate) short_reads: bool,
    pub(crate) fences: bool,
    pub(crate) min_block: u32,
    fail_in: String,
    fail_as: String,
}

/// The options, and whether the storage is frozen now. A cheap handle.
#[derive(Clone)]
pub(crate) struct Faults(Arc<Options>, watch::Sender<bool>);

impl Faults {
    pub(crate) fn new(options: Options) -> Self {
        Self(Arc::new(options), watch::Sender::new(false))
    }

    pub(crate) fn options(&self) -> &Options {
        &self.0
    }

    /// What touches data waits from now on, or goes on.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.1.send_replace(frozen);
    }

    /// Does what was asked for on entering `call`: panic, hold the thread.
    pub(crate) fn enter(&self, call: &str) {
        if self.0.panic_in == call {
            panic!("asked to panic in {call}");
        }
        if self.0.block_in == call {
            thread::sleep(Duration::from_millis(self.0.block_ms));
        }
    }

    /// Answers the question for the abilities.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.enter("capabilities");
        let fencing = if self.0.fences { Fencing::EXCLUSIVE_LOCK } else { Fencing::NONE };
        Capabilities { min_block: self.0.min_block.max(1), fencing, ..CAPABILITIES }
    }

    /// The error that was asked for in `call`.
    fn failure(&self, call: &str) -> Option<Error> {
        let Options { fail_in, fail_as, .. } = &*self.0;
        if fail_in != call {
            return None;
        }
        let mut kinds = ErrorKind::ALL.iter().copied();
        let kind = kinds.find(|kind| kind.name() == fail_as);
        let kind = kind.unwrap_or_else(|| panic!("no kind of error is called {fail_as:?}"));
        Some(Error::new(kind, format!("asked to fail in {call}")))
    }

    /// Answers a call that does not touch data.
    pub(crate) fn op<T: Send + 'static>(&self, call: &'static str, result: Result<T>) -> Op<T> {
        self.answer(call, false, move || result)
    }

    /// Answers a call that touches data, through a future if that was asked for.
    pub(crate) fn data_op<T: Send + 'static>(
        &self,
        call: &'static str,
        result: Result<T>,
    ) -> Op<T> {
        self.answer(call, self.0.pending || *self.1.borrow(), move || result)
    }

    /// As [`Faults::data_op`], with the work done at the end, so that a dropped future leaves it undone.
    pub(crate) fn data_op_then<T: Send + 'static>(
        &self,
        call: &'static str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.answer(call, self.0.pending || *self.1.borrow(), work)
    }

    fn answer<T: Send + 'static>(
        &self,
        call: &'static str,
        later: bool,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.enter(call);
        if let Some(error) = self.failure(call) {
            return Op::err(error);
        }
        let (hangs, slow) = (self.0.hang_in == call, self.0.slow_in == call);
        let faulty_future = ["future", "future_drop"].contains(&self.0.panic_in.as_str());
        if !(later || hangs || slow || faulty_future) {
            return Op::ready(work());
        }
        let faults = self.clone();
        let slow_ms = self.0.slow_ms;
        Op::run(Dropped {
            _on_drop: self.on_drop("future_drop"),
            future: Box::pin(async move {
                faults.enter("future");
                if later {
                    // The sender is in `faults`, so that waiting cannot fail.
                    let _ = faults.1.subscribe().wait_for(|frozen| !frozen).await;
                }
                if hangs {
                    pending::<()>().await;
                }
                if slow {
                    tokio::time::sleep(Duration::from_millis(slow_ms)).await;
                }
                work()
            }),
        })
    }

    /// Something whose last copy panics when dropped, if that was asked for in `place`.
    pub(crate) fn on_drop(&self, place: &'static str) -> DropFault {
        DropFault((self.0.panic_in == place).then(|| Arc::new(Bomb(place))))
    }
}

#[derive(Clone)]
pub(crate) struct DropFault(#[allow(dead_code, reason = "kept for its drop")] Option<Arc<Bomb>>);

struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("asked to panic in {}", self.0);
    }
}

struct Dropped<T> {
    future: Pin<Box<dyn Future<Output = Result<T>> + Send>>,
    _on_drop: DropFault,
}

impl<T> Future for Dropped<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.future.as_mut().poll(cx)
    }
}
