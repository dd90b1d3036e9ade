// SPDX-License-Identifier: Apache-2.0
//! The driver's own tokio: at least one worker, entered on every host thread that comes by.

use std::{cell::Cell, io, marker::PhantomData, sync::OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Starts the driver's runtime, once in the life of the library.
pub(crate) fn start(name: &str) -> io::Result<()> {
    if RUNTIME.get().is_none() {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4);
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name(format!("nova-{name}"))
            .enable_all()
            .build()?;
        // Losing a race to another thread is fine: its runtime serves both, and ours ends here.
        if let Err(unused) = RUNTIME.set(runtime) {
            unused.shutdown_background();
        }
    }
    Ok(())
}

/// Evidence that this thread is inside the driver's tokio.
///
/// A thread enters once and stays inside: leaving and entering again would cost each operation more than the
/// operation itself, and this copy of tokio belongs to the driver alone.
pub(crate) struct Entered(PhantomData<*const ()>);

impl Entered {
    pub(crate) fn new() -> Self {
        if !ENTERED.get() {
            enter();
        }
        Self(PhantomData)
    }
}

#[cold]
fn enter() {
    // Inside a runtime of its own (unit tests, the driver's workers) a thread is left as it is.
    if Handle::try_current().is_ok() {
        return;
    }
    if let Some(runtime) = RUNTIME.get() {
        std::mem::forget(runtime.enter());
        ENTERED.set(true);
    }
}
