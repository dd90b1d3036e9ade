// SPDX-License-Identifier: Apache-2.0
//! Threads that share a transfer's work.
//!
//! Each has a scheduler and a connection of its own: a file that takes its time holds up its own thread only, and no byte
//! changes threads on its way.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use driver_api::{Error, ErrorKind, Result};

use super::patience::{Stop, is_stopped, stopped};

/// Has so many threads do `work`, until all are done. The first error ends all of them, and so does `stop`.
pub(super) async fn share<F, W>(threads: usize, stop: &Arc<Stop>, work: F) -> Result<()>
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = Result<()>>,
{
    let (work, first) = (Arc::new(work), Arc::new(Mutex::new(None)));
    let mut running = Vec::with_capacity(threads);
    for number in 0..threads {
        let (work, first, stop) = (Arc::clone(&work), Arc::clone(&first), Arc::clone(stop));
        let body = move || {
            let Err(error) = on_own_scheduler(|| work()) else { return };
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            // Before anybody is stopped by it: an error that was not the cause is not told.
            if first.as_ref().is_none_or(is_stopped) {
                *first = Some(error);
            }
            drop(first);
            stop.set();
        };
        let thread = thread::Builder::new().name(format!("transfer-{number}")).spawn(body);
        match thread {
            Ok(thread) => running.push(thread),
            // Fewer do it as well.
            Err(_) if !running.is_empty() => break,
            Err(error) => return Err(Error::from_io("no threads to transfer on", &error)),
        }
    }
    let ended = tokio::task::spawn_blocking(move || {
        running.into_iter().map(thread::JoinHandle::join).filter(|end| end.is_err()).count()
    });
    let panics = ended.await;
    let error = first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (error, panics) {
        (Some(error), _) => Err(error),
        (None, Ok(0)) if stop.is_set() => Err(stopped()),
        (None, Ok(0)) => Ok(()),
        (None, _) => Err(Error::new(ErrorKind::INTERNAL, "a thread of the transfer panicked")),
    }
}

fn on_own_scheduler<W: Future<Output = Result<()>>>(work: impl FnOnce() -> W) -> Result<()> {
    let scheduler = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let scheduler =
        scheduler.map_err(|error| Error::from_io("no scheduler to transfer with", &error))?;
    scheduler.block_on(work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_ended_the_work_is_told_and_not_that_others_were_ended() {
        for _ in 0..500 {
            let (stop, turn) = (Stop::new(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
            let heard = Arc::clone(&stop);
            let work = move || {
                let is_cause = turn.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 7;
                let stop = Arc::clone(&heard);
                async move {
                    match is_cause {
                        true => Err(Error::new(ErrorKind::CONFLICT, "the file changed")),
                        false => stop.unless(std::future::pending()).await,
                    }
                }
            };
            let error = share(8, &stop, work).await.unwrap_err();
            assert_eq!(error.message(), "the file changed");
        }
    }
}
