// SPDX-License-Identifier: Apache-2.0
//! The threads that end connections and images, and waiting for them: a process that exits while one of them is inside
//! librados crashes, for what librados needs is destroyed meanwhile.

use std::{
    sync::{Condvar, Mutex, Once, PoisonError},
    time::Duration,
};

/// How long a process that exits waits for them.
const PATIENCE_AT_EXIT: Duration = Duration::from_secs(10);

/// How many there are.
static COUNT: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
static AT_EXIT: Once = Once::new();

/// One of them, counted until it is dropped, also where its work panics.
struct Counted;

impl Counted {
    fn new() -> Self {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *COUNT.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_all();
    }
}

extern "C" fn wait_at_exit() {
    wait(PATIENCE_AT_EXIT);
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
    AT_EXIT.call_once(|| {
        // What was registered last runs first: before librados' own end, which it registered when it was loaded.
        // SAFETY: the function takes and returns nothing, and this library is never unloaded.
        if unsafe { libc::atexit(wait_at_exit) } != 0 {
            tracing::warn!("a process that exits cannot be made to wait for connections that end");
        }
    });
    let counted = Counted::new();
    let thread = std::thread::Builder::new().name(name.into());
    let started = thread.spawn(move || {
        work();
        drop(counted);
    });
    started.map(drop)
}

/// Waits until all have ended; false if some have not by then.
pub(crate) fn wait(limit: Duration) -> bool {
    let count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ENDED.wait_timeout_while(count, limit, |count| *count > 0);
    let (count, _) = waited.unwrap_or_else(PoisonError::into_inner);
    *count == 0
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
