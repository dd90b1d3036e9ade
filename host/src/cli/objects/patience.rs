// SPDX-License-Identifier: Apache-2.0
//! How a transfer is interrupted, and how it waits for a host or a store that does not answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::watch;

use super::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// The exit code of what was interrupted at once, as shells have it.
const INTERRUPTED: i32 = 130;
const STOPPED: &str = "interrupted";
/// What passes sooner is not worth telling.
const QUIET: Duration = Duration::from_secs(2);

/// Ends a transfer, wherever it waits.
#[derive(Debug)]
pub(super) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(false)))
    }

    /// One that is set by Ctrl-C. Who presses it again does not wait for what can go on.
    pub(super) fn on_key_press() -> Arc<Self> {
        let stop = Self::new();
        let pressed = Arc::clone(&stop);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                if pressed.is_set() {
                    std::process::exit(INTERRUPTED);
                }
                pressed.set();
            }
        });
        stop
    }

    pub(super) fn set(&self) {
        self.0.send_replace(true);
    }

    pub(super) fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Does this, unless the transfer is ended.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut set = self.0.subscribe();
        tokio::select! {
            biased;
            _ = set.wait_for(|set| *set) => Err(stopped()),
            done = work => done,
        }
    }
}

/// The error of whoever was in the middle of something when the transfer ended.
pub(super) fn stopped() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, STOPPED)
}

/// Whether it is that error.
pub(super) fn is_stopped(error: &Error) -> bool {
    error.message() == STOPPED
}

/// Whether this may be over when it is tried again: the host or the store does not answer, or what became of a request is
/// unknown.
fn may_pass(error: &Error) -> bool {
    [ErrorKind::UNAVAILABLE, ErrorKind::TIMED_OUT].contains(&error.kind())
}

/// How long a transfer goes on without any success.
#[derive(Debug)]
pub(super) struct Patience {
    limit: Duration,
    failing: Mutex<Option<Failing>>,
    stop: Arc<Stop>,
    progress: Arc<Progress>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    told: bool,
}

impl Patience {
    pub(super) fn new(limit: Duration, stop: &Arc<Stop>, progress: &Arc<Progress>) -> Self {
        Self {
            limit,
            failing: Mutex::new(None),
            stop: Arc::clone(stop),
            progress: Arc::clone(progress),
        }
    }

    /// Something succeeded.
    pub(super) fn well(&self) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits before the next attempt after so many that failed; gives the error back if there is to be none.
    pub(super) async fn after(&self, error: Error, failed: u32) -> Result<()> {
        if !may_pass(&error) || self.stop.is_set() {
            return Err(error);
        }
        let tell = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            let failing =
                failing.get_or_insert_with(|| Failing { since: Instant::now(), told: false });
            let lasted = failing.since.elapsed();
            if lasted >= self.limit {
                return Err(error.with("tried for", format!("{} s", lasted.as_secs())));
            }
            let tell = !failing.told && lasted >= QUIET;
            failing.told |= tell;
            tell
        };
        if tell {
            self.progress
                .say(&format!("{error}; trying again for up to {} s", self.limit.as_secs()));
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << failed.min(8)).min(LONGEST_PAUSE);
        self.stop
            .unless(async {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await
    }

    /// Does what may be done more than once until it succeeds, is refused, or has failed for too long.
    pub(super) async fn insist<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut failed = 0;
        loop {
            match self.stop.unless(attempt()).await {
                Ok(done) => {
                    self.well();
                    return Ok(done);
                }
                Err(error) => self.after(error, failed).await?,
            }
            failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Output;

    fn patience(limit: Duration) -> (Patience, Arc<Stop>) {
        let (stop, progress) = (Stop::new(), Arc::new(Progress::new(Output::Json, None)));
        (Patience::new(limit, &stop, &progress), stop)
    }

    async fn tries(limit: Duration, errors: Vec<ErrorKind>) -> (Result<()>, usize) {
        let (patience, _) = patience(limit);
        let (mut left, mut tried) = (errors.into_iter(), 0);
        let result = patience
            .insist(async || {
                tried += 1;
                left.next().map_or(Ok(()), |kind| Err(Error::new(kind, "no")))
            })
            .await;
        (result, tried)
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_what_is_refused_is_not() {
        let minute = Duration::from_secs(60);
        let passing = vec![ErrorKind::UNAVAILABLE, ErrorKind::TIMED_OUT];
        assert!(matches!(tries(minute, passing).await, (Ok(()), 3)));
        for kind in [ErrorKind::CONFLICT, ErrorKind::ALREADY_EXISTS, ErrorKind::NOT_FOUND] {
            assert!(matches!(tries(minute, vec![kind]).await, (Err(_), 1)), "{kind}");
        }
        let forever = vec![ErrorKind::UNAVAILABLE; 100];
        let (result, tried) = tries(Duration::from_millis(500), forever).await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::UNAVAILABLE);
        assert!((2..6).contains(&tried), "{tried}");
    }

    #[tokio::test]
    async fn an_end_is_heard_while_waiting() {
        let (patience, stop) = patience(Duration::from_secs(60));
        let ending = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.set();
        };
        let never = patience.insist(async || std::future::pending::<Result<()>>().await);
        let begun = Instant::now();
        let (result, ()) = tokio::join!(never, ending);
        assert_eq!(result.unwrap_err().message(), "interrupted");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
