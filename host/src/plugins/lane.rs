// SPDX-License-Identifier: Apache-2.0
//! A thread that polls futures which no connection may wait for: those of an isolated driver, and mutations that
//! their caller gave up.

use std::{
    future::{Future, pending},
    io,
    sync::OnceLock,
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    task::JoinHandle,
};

/// A thread of its own with an executor. It lives as long as the process: driver code may be on its stack for ever.
#[derive(Debug)]
pub(super) struct Lane {
    handle: Handle,
}

impl Lane {
    /// Starts a thread for `driver`.
    pub(super) fn start(driver: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name(format!("lane-{driver}"))
            .spawn(move || runtime.block_on(pending::<()>()))?;
        Ok(Self { handle })
    }

    /// Polls `future` to its end on this thread, whether or not anybody waits for the answer.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn(future)
    }

    /// The thread that finishes mutations whose caller is gone.
    pub(super) fn of_orphans() -> Option<&'static Self> {
        static ORPHANS: OnceLock<Option<Lane>> = OnceLock::new();
        let started = ORPHANS.get_or_init(|| match Self::start("orphans") {
            Ok(lane) => Some(lane),
            Err(error) => {
                tracing::error!(%error, "no thread for operations that lost their caller");
                None
            }
        });
        started.as_ref()
    }
}
