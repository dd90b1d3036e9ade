// SPDX-License-Identifier: Apache-2.0
//! The threads that end connections and images, and waiting for them: a process that exits while one of them is inside
//! librados crashes, for what librados needs is destroyed meanwhile. So do connections that somebody is about to give up.

use std::{
    sync::{Condvar, Mutex, Once, PoisonError},
    time::Duration,
};

/// How long a process that exits waits for them.
const PATIENCE_AT_EXIT: Duration = Duration::from_secs(10);

/// How long it waits for whoever has a connection to drop it.
const GRACE_AT_EXIT: Duration = Duration::from_secs(1);

static THREADS: Count = Count::new();
static CONNECTIONS: Count = Count::new();
static AT_EXIT: Once = Once::new();

/// How many of something there are.
struct Count {
    now: Mutex<usize>,
    less: Condvar,
}

impl Count {
    const fn new() -> Self {
        Self { now: Mutex::new(0), less: Condvar::new() }
    }

    fn one_more(&'static self) -> Counted {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Counted(self)
    }

    /// Waits until there are none; false if there are some by then.
    fn wait(&self, limit: Duration) -> bool {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.less.wait_timeout_while(now, limit, |now| *now > 0);
        let (now, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *now == 0
    }
}

/// One of them, counted until it is dropped, also where its work panics.
pub(crate) struct Counted(&'static Count);

impl Drop for Counted {
    fn drop(&mut self) {
        *self.0.now.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.less.notify_all();
    }
}

extern "C" fn wait_at_exit() {
    CONNECTIONS.wait(GRACE_AT_EXIT);
    wait(PATIENCE_AT_EXIT);
}

fn have_exits_wait() {
    AT_EXIT.call_once(|| {
        // What was registered last runs first: before librados' own end, which it registered when it was loaded.
        // SAFETY: the function takes and returns nothing, and this library is never unloaded.
        if unsafe { libc::atexit(wait_at_exit) } != 0 {
            tracing::warn!("a process that exits cannot be made to wait for connections that end");
        }
    });
}

/// Counts a connection, until a thread that ends it has begun or it has ended.
pub(crate) fn connection() -> Counted {
    have_exits_wait();
    CONNECTIONS.one_more()
}

/// Does what waits for librbd's threads where it cannot be one of them.
pub(crate) fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = start("nova-ceph-end", work) {
        tracing::error!(%error, "no thread to end a connection with: it stays until the host ends");
    }
}

/// Does `work` on a thread of this name, which a process that exits waits for.
pub(crate) fn start(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<()> {
    have_exits_wait();
    let counted = THREADS.one_more();
    let thread = std::thread::Builder::new().name(name.into());
    let started = thread.spawn(move || {
        work();
        drop(counted);
    });
    started.map(drop)
}

/// Waits until all have ended; false if some have not by then.
pub(crate) fn wait(limit: Duration) -> bool {
    THREADS.wait(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_waited_for_with_a_bound() {
        let (go, wait_for_it) = std::sync::mpsc::channel::<()>();
        on_a_thread(move || {
            let _ = wait_for_it.recv();
        });
        assert!(!wait(Duration::from_millis(20)));
        drop(go);
        assert!(wait(Duration::from_secs(5)));
    }
}
