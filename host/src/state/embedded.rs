// SPDX-License-Identifier: Apache-2.0
//! The embedded engine: the state in one redb file, for one process.
//!
//! Reads are answered at once from what is durable. Changes go through a bounded queue to one thread, which makes a
//! whole queue durable with one sync and only then answers. A change whose caller stopped waiting still happens.

mod apply;
mod engine;
mod format;
mod history;
mod leases;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use driver_api::{
    Error, Op, ROption, RVec, Result, StateHandle, StateService, WatchHandle,
    state::{Committed, Entry, Transaction},
};
use redb::ReadableDatabase;
use tokio::sync::{Semaphore, oneshot};

use self::{
    apply::{Applied, Tables},
    engine::{Engine, Job, Opener, QUEUE, Shared, Work},
    format::{ENTRIES, storage_error},
    history::{Feed, Watch, closed_error},
    leases::Leases,
};
use super::limits;

/// The state in one file. A cheap handle; the file is closed with the last of them.
#[derive(Clone)]
pub struct EmbeddedState {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    shared: Arc<Shared>,
    feed: Arc<Feed>,
    slots: Arc<Semaphore>,
    /// Gone while dropping: that ends the engine.
    queue: Option<mpsc::Sender<Box<dyn Work>>>,
    engine: Option<JoinHandle<()>>,
}

/// Opens the state file at `path`, or creates it in an existing directory.
///
/// `InUse` while another process has it open. A file that is damaged, of another program or of a newer release is
/// refused and left as it is. Leases run for their full time from now.
pub fn open_embedded(path: &Path) -> Result<EmbeddedState> {
    let file = path.to_owned();
    open_with(path, Box::new(move || format::open(&file)))
        .map_err(|error| error.during("open the state"))
}

fn open_with(path: &Path, open: Opener) -> Result<EmbeddedState> {
    let database = open()?;
    let (revision, stored) = format::summary(&database)
        .map_err(|error| storage_error("read the state", path, &error))?;
    let mut leases = Leases::default();
    leases.reload(&stored, Instant::now());
    let shared = Arc::new(Shared::new(Some(database)));
    let feed = Arc::new(Feed::new(revision));
    let (sender, queue) = mpsc::channel();
    let engine = Engine {
        path: path.to_owned(),
        open,
        shared: Arc::clone(&shared),
        feed: Arc::clone(&feed),
        leases,
        queue,
    };
    let engine = thread::Builder::new()
        .name("novastor-state".into())
        .spawn(move || engine.run())
        .map_err(|error| Error::from_io("cannot start the state's thread", &error))?;
    let inner = Inner {
        path: path.to_owned(),
        shared,
        feed,
        slots: Arc::new(Semaphore::new(QUEUE)),
        queue: Some(sender),
        engine: Some(engine),
    };
    Ok(EmbeddedState { inner: Arc::new(inner) })
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(engine) = self.engine.take()
            // The last handle may sit in a future that the engine wakes.
            && engine.thread().id() != thread::current().id()
            && engine.join().is_err()
        {
            tracing::error!(file = %self.path.display(), "the state's thread panicked");
        }
    }
}

impl fmt::Debug for EmbeddedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EmbeddedState").field(&self.inner.path).finish()
    }
}

impl EmbeddedState {
    /// The state as everybody uses it.
    pub fn handle(&self) -> StateHandle {
        StateHandle::new(self.clone())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Hands `work` to the engine and waits until its outcome is durable.
    fn change<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Tables<'_>) -> Applied<T> + Send + 'static,
    ) -> Op<T> {
        let inner = Arc::clone(&self.inner);
        Op::run(async move {
            let slots = Arc::clone(&inner.slots);
            let slot = slots.acquire_owned().await.map_err(|_| closed_error())?;
            let (reply, answer) = oneshot::channel();
            let queue = inner.queue.as_ref().ok_or_else(closed_error)?;
            queue.send(Box::new(Job::new(work, reply, slot))).map_err(|_| closed_error())?;
            answer.await.map_err(|_| closed_error())?
        })
    }
}

type Entries = redb::ReadOnlyTable<&'static str, (u64, u64, &'static [u8])>;

impl Inner {
    /// Reads from the entries as of the last durable change.
    fn read<T>(&self, read: impl FnOnce(&Entries) -> Result<T, redb::Error>) -> Result<T> {
        let shared = engine::shared(&self.shared);
        let database = shared.as_ref().ok_or_else(|| engine::unavailable(&self.path))?;
        let open =
            || -> Result<Entries, redb::Error> { Ok(database.begin_read()?.open_table(ENTRIES)?) };
        open()
            .and_then(|entries| read(&entries))
            .map_err(|error| storage_error("read the state", &self.path, &error))
    }
}

fn entry(key: &str, (revision, lease, value): (u64, u64, &[u8])) -> Entry {
    Entry { key: key.into(), value: value.into(), revision, lease }
}

impl StateService for EmbeddedState {
    fn get(&self, key: &str) -> Op<ROption<Entry>> {
        let found = limits::check_key(key).and_then(|()| {
            self.inner.read(|entries| Ok(entries.get(key)?.map(|row| entry(key, row.value()))))
        });
        Op::ready(found.map(ROption::from))
    }

    fn range(&self, prefix: &str, after: &str, limit: u32) -> Op<RVec<Entry>> {
        Op::ready(self.inner.read(|entries| {
            let mut found = RVec::new();
            for row in entries.range(prefix.max(after)..)? {
                let (key, value) = row?;
                let key = key.value();
                if found.len() >= limit as usize || !key.starts_with(prefix) {
                    break;
                }
                if after.is_empty() || key > after {
                    found.push(entry(key, value.value()));
                }
            }
            Ok(found)
        }))
    }

    fn commit(&self, transaction: Transaction) -> Op<Committed> {
        match limits::check_transaction(&transaction) {
            Ok(()) => self.change(move |tables| tables.commit(&transaction)),
            Err(error) => Op::err(error),
        }
    }

    fn watch(&self, prefix: &str, after_revision: u64) -> Result<WatchHandle> {
        Ok(WatchHandle::new(Watch::new(Arc::clone(&self.inner.feed), prefix, after_revision)))
    }

    fn grant_lease(&self, ttl_ms: u64) -> Op<u64> {
        match limits::check_lease(ttl_ms) {
            Ok(()) => self.change(move |tables| tables.grant(ttl_ms)),
            Err(error) => Op::err(error),
        }
    }

    fn keep_lease(&self, lease: u64) -> Op<()> {
        self.change(move |tables| tables.keep(lease))
    }

    fn revoke_lease(&self, lease: u64) -> Op<()> {
        self.change(move |tables| tables.revoke(lease))
    }
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
