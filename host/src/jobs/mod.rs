// SPDX-License-Identifier: Apache-2.0
//! Jobs: work that outlives a request. Each can be listed, watched and cancelled.
//!
//! ```text
//!   running ---> done | failed | cancelled <--+
//!      | found at restart                       | a walk, rebalancing or flattening that did not come to its end: resume
//!      +------> interrupted --------------------+---> running
//! ```
//! The record in the state changes when a job starts and ends; progress is kept in memory alone, except that a walk over
//! replicas notes its place now and then.

mod copy;
mod empty;
mod flatten;
mod image;
mod rebalance;
mod replicas;
mod scrub;
mod transfer;
mod walk;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use driver_api::{Error, ErrorKind, Result, StateHandle};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::volumes::{Room, Stored, unix_now};

pub use empty::Emptying;
pub use flatten::FLATTEN;
pub use image::ImageFormat;
pub use rebalance::REBALANCE;
pub use replicas::ReplicaJobs;
pub use transfer::{ClonePlan, ExportPlan, ImportPlan, Transfers};
pub use walk::{Difference, Walk};

/// Finished jobs that are remembered.
const REMEMBERED: usize = 1000;
/// How often a walk notes its place.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What became of a job.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It is at work.
    Running,
    /// It ended well.
    Done,
    /// It ended with an error; what it had made is gone again.
    Failed,
    /// It was cancelled; what it had made is gone again. A walk, a rebalancing or a flattening can be resumed.
    Cancelled,
    /// The host ended before it did; what it had made is removed at restart. A walk, a rebalancing or a flattening can be
    /// resumed.
    Interrupted,
}

impl JobState {
    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// A job's failure as the state keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// Number of the error's kind.
    pub code: u32,
    /// The error's text, with its causes.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}

/// A job as the state keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// `import`, `export`, `clone`, `verify`, `repair`, `scrub`, `rebalance`, `flatten`, `empty-bucket` or
    /// `delete-objects`.
    pub kind: String,
    /// The volume it is about, or the backend and its bucket.
    pub target: String,
    /// What it does, in words.
    pub detail: String,
    /// What became of it.
    pub state: JobState,
    /// When it started, in seconds since 1970.
    pub started_unix_secs: u64,
    /// When it ended, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_unix_secs: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// A file that it writes and that is worth nothing without its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// Bytes done when it ended.
    #[serde(default)]
    pub done: u64,
    /// Bytes in all when it ended.
    #[serde(default)]
    pub total: u64,
    /// What a walk over replicas has found, and where it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// Which objects a job deletes. It counts objects where others count bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptying: Option<Emptying>,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// What a running job and those who watch it share.
#[derive(Default, Debug)]
pub struct JobControl {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
    ended: AtomicBool,
    end: Notify,
    walk: Mutex<Option<Walk>>,
}

impl JobControl {
    /// Says how many bytes there are in all.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Says how many of them are done.
    pub fn set_done(&self, bytes: u64) {
        self.done.store(bytes, Ordering::Relaxed);
    }

    /// Bytes done and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// An error once somebody cancelled the job. Ask between steps that must not be cut in two.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::UNAVAILABLE, "the job was cancelled"));
        }
        Ok(())
    }

    /// Reads or changes what the job's walk has found; one that is none begins here.
    fn walk<T>(&self, with: impl FnOnce(&mut Walk) -> T) -> T {
        let mut walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        with(walk.get_or_insert_default())
    }

    fn walked(&self) -> Option<Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A job with its progress at one moment.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its number.
    pub id: u64,
    /// Its record.
    pub record: JobRecord,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; zero while unknown.
    pub total: u64,
}

/// All jobs. A cheap handle.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    records: Room<JobRecord>,
    running: Mutex<HashMap<u64, Arc<JobControl>>>,
    next: AtomicU64,
}

fn key(id: u64) -> String {
    format!("{id:016}")
}

impl Jobs {
    /// The jobs of this state. What an earlier process left running is marked as interrupted, and its files removed.
    pub async fn begin(state: StateHandle) -> Result<Self> {
        let records: Room<JobRecord> = Room::new(state, "jobs/");
        let mut last = 0;
        for mut stored in records.list().await? {
            last = last.max(stored.name.parse().unwrap_or(0));
            if stored.record.state != JobState::Running {
                continue;
            }
            if let Some(path) = &stored.record.scratch {
                match std::fs::remove_file(path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => tracing::warn!(path = %path.display(), "left behind: {error}"),
                }
            }
            stored.record.state = JobState::Interrupted;
            stored.record.ended_unix_secs = Some(unix_now());
            records.save(&mut stored).await?;
        }
        let next = AtomicU64::new(last + 1);
        Ok(Self(Arc::new(Inner { records, running: Mutex::default(), next })))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<JobControl>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a job that is about to start.
    pub fn next_id(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a job under a number from [`Jobs::next_id`]. Its future is polled to its end, whatever happens.
    pub async fn start<F>(
        &self,
        id: u64,
        record: JobRecord,
        work: impl FnOnce(Arc<JobControl>) -> F,
    ) -> Result<JobView>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stored = self.0.records.create(&key(id), record).await?.ok_or_else(|| {
            Error::new(ErrorKind::INTERNAL, format!("there is a job {id} already"))
        })?;
        Ok(self.run(id, stored, work))
    }

    /// Starts a job again that did not come to its end: a walk at the place where it was.
    async fn restart<F>(
        &self,
        job: JobView,
        work: impl FnOnce(Arc<JobControl>) -> F,
    ) -> Result<JobView>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut stored = self.stored(job.id).await?;
        if stored.record.state != job.record.state {
            return Err(Error::new(ErrorKind::IN_USE, "somebody else changed it at the same time")
                .remedy(format!("novastor job show {}", job.id)));
        }
        stored.record.state = JobState::Running;
        stored.record.ended_unix_secs = None;
        stored.record.error = None;
        self.0.records.save(&mut stored).await?;
        Ok(self.run(job.id, stored, work))
    }

    /// Lets `work` do what the stored job is for.
    fn run<F>(
        &self,
        id: u64,
        mut stored: Stored<JobRecord>,
        work: impl FnOnce(Arc<JobControl>) -> F,
    ) -> JobView
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let record = stored.record.clone();
        let walk = Mutex::new(record.walk.clone());
        let control = Arc::new(JobControl { walk, ..JobControl::default() });
        control.set_total(record.total);
        control.set_done(record.done);
        self.running().insert(id, Arc::clone(&control));
        let work = work(Arc::clone(&control));
        let jobs = self.clone();
        let (done, total) = (record.done, record.total);
        tokio::spawn(async move {
            // A task of its own, so that a panic in the work still ends the job.
            let mut working = tokio::spawn(work);
            let result = loop {
                match tokio::time::timeout(NOTE_EVERY, &mut working).await {
                    Ok(ended) => break ended,
                    Err(_) => jobs.note_place(&mut stored, &control).await,
                }
            };
            let result = result.unwrap_or_else(|panic| {
                Err(Error::new(ErrorKind::INTERNAL, format!("the job ended in a panic: {panic}")))
            });
            jobs.finish(&mut stored, &control, result).await;
            jobs.forget(id, &control);
            control.ended.store(true, Ordering::Release);
            control.end.notify_waiters();
        });
        JobView { id, record, done, total }
    }

    /// Takes the job off those at work, unless it was resumed meanwhile.
    fn forget(&self, id: u64, control: &Arc<JobControl>) {
        let mut running = self.running();
        if running.get(&id).is_some_and(|now| Arc::ptr_eq(now, control)) {
            running.remove(&id);
        }
    }

    /// Records where a walk is, so that it loses little if the host ends now.
    async fn note_place(&self, stored: &mut Stored<JobRecord>, control: &JobControl) {
        let walk = control.walked();
        if walk == stored.record.walk {
            return;
        }
        stored.record.walk = walk;
        (stored.record.done, stored.record.total) = control.progress();
        if let Err(error) = self.0.records.save(stored).await {
            tracing::warn!(job = %stored.name, "its place could not be recorded: {error:#}");
        }
    }

    async fn finish(
        &self,
        stored: &mut Stored<JobRecord>,
        control: &JobControl,
        result: Result<()>,
    ) {
        let record = &mut stored.record;
        (record.done, record.total) = control.progress();
        record.walk = control.walked();
        record.ended_unix_secs = Some(unix_now());
        record.state = match result {
            Ok(()) => JobState::Done,
            Err(_) if control.is_cancelled() => JobState::Cancelled,
            Err(error) => {
                tracing::error!(job = %stored.name, kind = %record.kind, "{error:#}");
                let mut message = error.to_string();
                for source in error.sources() {
                    message = format!("{message}: {source}");
                }
                record.error = Some(JobError {
                    code: error.kind().code(),
                    message,
                    remedy: error.remedy_text().to_owned(),
                });
                JobState::Failed
            }
        };
        if let Err(error) = self.0.records.save(stored).await {
            tracing::error!(job = %stored.name, "its end could not be recorded: {error:#}");
        }
        if let Err(error) = self.forget_oldest().await {
            tracing::warn!("old jobs stay recorded: {error:#}");
        }
    }

    async fn forget_oldest(&self) -> Result<()> {
        let all = self.0.records.list().await?;
        let finished: Vec<_> =
            all.iter().filter(|stored| stored.record.state != JobState::Running).collect();
        for stored in finished.iter().take(finished.len().saturating_sub(REMEMBERED)) {
            self.0.records.remove(stored).await?;
        }
        Ok(())
    }

    fn view(&self, stored: Stored<JobRecord>) -> JobView {
        let id = stored.name.parse().unwrap_or(0);
        let control = self.running().get(&id).cloned();
        let running = control.as_ref().map(|control| control.progress());
        let (done, total) = running.unwrap_or((stored.record.done, stored.record.total));
        let mut record = stored.record;
        if let Some(control) = control {
            record.walk = control.walked();
        }
        JobView { id, record, done, total }
    }

    /// All jobs, newest first.
    pub async fn list(&self) -> Result<Vec<JobView>> {
        let all = self.0.records.list().await?;
        Ok(all.into_iter().rev().map(|stored| self.view(stored)).collect())
    }

    /// One job.
    pub async fn show(&self, id: u64) -> Result<JobView> {
        Ok(self.view(self.stored(id).await?))
    }

    async fn stored(&self, id: u64) -> Result<Stored<JobRecord>> {
        self.0.records.get(&key(id)).await?.ok_or_else(|| {
            Error::new(ErrorKind::NOT_FOUND, format!("there is no job {id}"))
                .remedy("novastor job list")
        })
    }

    /// One job, once it ended or `patience` is over.
    pub async fn wait(&self, id: u64, patience: Duration) -> Result<JobView> {
        let control = self.running().get(&id).cloned();
        if let Some(control) = control {
            let ended = control.end.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if !control.ended.load(Ordering::Acquire) {
                // Running out of patience is an answer too: the job as it is.
                let _ = tokio::time::timeout(patience, ended).await;
            }
        }
        self.show(id).await
    }

    /// Asks a job to end; it does so between two steps. One that ended already stays as it is.
    pub async fn cancel(&self, id: u64) -> Result<JobView> {
        if let Some(control) = self.running().get(&id) {
            control.cancelled.store(true, Ordering::Relaxed);
        }
        self.show(id).await
    }

    /// Cancels all jobs and waits for their end.
    pub async fn stop(&self, patience: Duration) {
        let ids: Vec<u64> = self.running().keys().copied().collect();
        for id in &ids {
            if let Err(error) = self.cancel(*id).await {
                tracing::warn!(job = id, "{error:#}");
            }
        }
        for id in ids {
            if let Err(error) = self.wait(id, patience).await {
                tracing::warn!(job = id, "{error:#}");
            }
        }
    }
}
