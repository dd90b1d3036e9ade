// SPDX-License-Identifier: Apache-2.0
//! The thread that owns all writing: it takes what has queued up, does it in one redb transaction, and answers when
//! that is durable. Then it ends the leases that are due; a renewal that waits in the queue therefore always comes first.
//!
//! ```text
//!              work                durable               published
//!   callers ----------> one redb ----------> answers, --------------> watches
//!                      transaction           leases
//!                           | file failed: outcome unknown
//!                           v
//!                        reopen: revision and leases from the file, history begins anew
//! ```

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use redb::{Database, Durability};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    apply::{Applied, Changes, Tables},
    format::{self, storage_error},
    history::{Feed, closed_error},
    leases::Leases,
};

/// Work that may wait; all of them go into one redb transaction.
pub(super) const QUEUE: usize = 256;
/// How long a file that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// Something to do in a redb transaction for a caller that waits.
pub(super) trait Work: Send {
    /// Does it, and keeps the outcome back.
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error>;
    /// Answers the caller: with the outcome, now durable, or with the failure of the whole redb transaction.
    fn answer(self: Box<Self>, failure: Option<&Error>);
}

/// A closure as [`Work`], with its place in the queue.
pub(super) struct Job<F, T> {
    work: F,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
    _slot: OwnedSemaphorePermit,
}

impl<F: FnMut(&mut Tables<'_>) -> Applied<T> + Send, T: Send> Job<F, T> {
    pub(super) fn new(
        work: F,
        reply: oneshot::Sender<Result<T>>,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self { work, outcome: None, reply, _slot: slot }
    }
}

impl<F: FnMut(&mut Tables<'_>) -> Applied<T> + Send, T: Send> Work for Job<F, T> {
    fn apply(&mut self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        self.outcome = Some((self.work)(tables)?);
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&Error>) {
        let outcome = match failure {
            Some(failure) => Err(failure.clone()),
            None => self.outcome.unwrap_or_else(|| Err(closed_error())),
        };
        // A caller that went away does not want its answer.
        drop(self.reply.send(outcome));
    }
}

/// The open file, for readers; nothing while it is being reopened.
pub(super) type Shared = RwLock<Option<Database>>;

/// How to open the file, at first and after it failed.
pub(super) type Opener = Box<dyn Fn() -> Result<Database> + Send>;

pub(super) struct Engine {
    pub(super) path: PathBuf,
    pub(super) open: Opener,
    pub(super) shared: Arc<Shared>,
    pub(super) feed: Arc<Feed>,
    pub(super) leases: Leases,
    pub(super) queue: Receiver<Box<dyn Work>>,
}

impl Engine {
    /// Serves until every sender of the queue is gone and the queue is empty.
    pub(super) fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            if !batch.is_empty() {
                self.serve(batch);
            }
            self.end_leases();
        }
    }

    fn next_batch(&self) -> Option<Vec<Box<dyn Work>>> {
        let first = match self.leases.wait(Instant::now()) {
            None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => self.queue.recv_timeout(wait),
        };
        let mut batch = match first {
            Ok(first) => vec![first],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return None,
        };
        while batch.len() < QUEUE
            && let Ok(next) = self.queue.try_recv()
        {
            batch.push(next);
        }
        Some(batch)
    }

    fn serve(&mut self, mut batch: Vec<Box<dyn Work>>) {
        let done =
            self.write(|tables| batch.iter_mut().try_for_each(|work| work.apply(tables))).err();
        batch.into_iter().for_each(|work| work.answer(done.as_ref()));
    }

    fn end_leases(&mut self) {
        let due = self.leases.due(Instant::now());
        if due.is_empty() {
            return;
        }
        let ended = self.write(|tables| {
            for lease in due {
                // A lease that is gone already has ended, which is what is wanted.
                drop(tables.revoke(lease)?);
            }
            Ok(())
        });
        if let Err(error) = ended {
            tracing::error!(error = format!("{error:#}"), "leases cannot be ended now");
            std::thread::sleep(RETRY);
        }
    }

    /// Runs `work` in one redb transaction and makes known what it changed once that is durable.
    fn write(
        &mut self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
    ) -> Result<()> {
        if shared(&self.shared).is_none() {
            self.reopen()?;
        }
        let mut committing = false;
        let written = match shared(&self.shared).as_ref() {
            Some(database) => transact(database, work, &mut committing),
            None => return Err(unavailable(&self.path)),
        };
        match written {
            Ok((revision, changes)) => {
                let now = Instant::now();
                changes.leases.into_iter().for_each(|change| self.leases.note(change, now));
                if !changes.events.is_empty() {
                    self.feed.publish(changes.events, revision);
                }
                Ok(())
            }
            Err(error) => {
                let mut failure = storage_error("write the state", &self.path, &error);
                if committing {
                    failure = Error::new(
                        ErrorKind::TIMED_OUT,
                        "the state file failed during a commit: whether it was done is unknown",
                    )
                    .with("file", self.path.display())
                    .caused_by(&error)
                    .remedy(
                        "read what you wanted to change, and repeat the change if it is missing",
                    );
                }
                tracing::error!(error = format!("{failure:#}"), "the state file failed");
                if let Err(error) = self.reopen() {
                    tracing::error!(error = format!("{error:#}"), "the state file stays closed");
                }
                Err(failure)
            }
        }
    }

    /// Opens the file again: after a failure redb trusts nothing it has in memory, and neither do we.
    fn reopen(&mut self) -> Result<()> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        // The old handle goes first, with its lock on the file.
        drop(shared.take());
        let database = (self.open)()?;
        let (revision, leases) = format::summary(&database)
            .map_err(|error| storage_error("read the state", &self.path, &error))?;
        self.leases.reload(&leases, Instant::now());
        self.feed.restart(revision);
        *shared = Some(database);
        Ok(())
    }
}

impl Drop for Engine {
    /// However the thread ends, even by a panic in redb: nobody waits for events that cannot come.
    fn drop(&mut self) {
        self.feed.close();
    }
}

/// The open file, for reading.
pub(super) fn shared(shared: &Shared) -> RwLockReadGuard<'_, Option<Database>> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}

/// The answer while the file is closed after a failure.
pub(super) fn unavailable(path: &Path) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the state file failed and could not be opened again")
        .with("file", path.display())
        .remedy("check the disk under it; it is tried again with the next change")
}

fn transact(
    database: &Database,
    work: impl FnOnce(&mut Tables<'_>) -> Result<(), redb::Error>,
    committing: &mut bool,
) -> Result<(u64, Changes), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let (revision, changes) = {
        let mut tables = Tables::open(&transaction)?;
        work(&mut tables)?;
        tables.finish()
    };
    *committing = changes.dirty;
    if changes.dirty {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok((revision, changes))
}
