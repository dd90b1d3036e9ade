// SPDX-License-Identifier: Apache-2.0
//! Deletes many objects: all of a bucket, which then goes as well, or those under a prefix. What is gone is gone; a job
//! that was cut off goes on with what is left.

use std::sync::Arc;

use driver_api::{
    Error, ErrorKind, Result,
    ext::{ListQuery, ObjectAbilities, ObjectName, UploadInfo, UploadQuery},
};
use serde::{Deserialize, Serialize};

use super::{JobControl, JobState, JobView, ReplicaJobs, transfer::record};
use crate::{
    objects::{Objects, Store, delete_all},
    plugins::Call,
};

const EMPTY_BUCKET: &str = "empty-bucket";
const DELETE_OBJECTS: &str = "delete-objects";

/// How often a listing is begun anew: others may write meanwhile, and some stores list late.
const PASSES: u32 = 5;

/// Which objects a job deletes.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Emptying {
    /// The backend.
    pub backend: String,
    /// The bucket.
    pub bucket: String,
    /// Only what has keys that begin with this.
    #[serde(default)]
    pub prefix: String,
    /// Objects go.
    #[serde(default)]
    pub objects: bool,
    /// All versions of objects go, and the markers of deletions.
    #[serde(default)]
    pub versions: bool,
    /// Unfinished uploads go.
    #[serde(default)]
    pub uploads: bool,
    /// The bucket goes in the end.
    #[serde(default)]
    pub delete_bucket: bool,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl Emptying {
    fn kind(&self) -> &'static str {
        if self.delete_bucket { EMPTY_BUCKET } else { DELETE_OBJECTS }
    }

    fn detail(&self) -> String {
        let what = match (self.objects, self.uploads) {
            (true, true) => "objects and uploads",
            (false, true) => "uploads",
            _ => "objects",
        };
        let what = if self.versions { format!("{what}, all versions,") } else { what.to_owned() };
        match self.prefix.as_str() {
            "" => format!("{what} in bucket {}", self.bucket),
            prefix => format!("{what} under {}/{prefix}", self.bucket),
        }
    }
}

impl ReplicaJobs {
    /// Starts deleting objects. The bucket is asked for first: what is not there is told at once.
    pub async fn empty(&self, store: Store, mut emptying: Emptying) -> Result<JobView> {
        // What a store cannot list it either does not have or lets go with the bucket.
        let can = store.features().abilities;
        emptying.objects |= emptying.versions;
        emptying.versions &= can.has(ObjectAbilities::VERSIONING);
        emptying.uploads &= can.has(ObjectAbilities::LIST_UPLOADS);
        let bucket = emptying.bucket.clone();
        let asking = store.ask(Call::ShowBucket, move |objects, cx| objects.bucket(cx, &bucket));
        let objects = asking.await?.objects;
        let id = self.jobs.next_id();
        let target = format!("{}/{}", emptying.backend, emptying.bucket);
        let mut job = record(emptying.kind(), &target, emptying.detail(), None);
        if emptying.prefix.is_empty() && objects != u64::MAX {
            job.total = objects;
        }
        job.emptying = Some(emptying.clone());
        self.jobs.start(id, job, |control| empty(store, emptying, control)).await
    }

    /// Goes on with what is left.
    pub(super) async fn empty_again(&self, job: JobView) -> Result<JobView> {
        if job.record.state == JobState::Done {
            let why = "it came to its end: there is nothing to go on with";
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .during("resume")
                .with("job", job.id)
                .remedy("start another one"));
        }
        let emptying = job.record.emptying.clone().unwrap_or_default();
        let store = Objects::new(self.volumes.clone()).store(&emptying.backend)?;
        self.jobs.restart(job, |control| empty(store, emptying, control)).await
    }
}

/// One job at work.
struct Work {
    store: Store,
    what: Emptying,
    control: Arc<JobControl>,
    done: u64,
    /// The object that was deleted last.
    last: String,
}

async fn empty(store: Store, what: Emptying, control: Arc<JobControl>) -> Result<()> {
    let (done, _) = control.progress();
    let mut work = Work { store, what, control, done, last: String::new() };
    work.repeat().await?;
    if !work.what.delete_bucket {
        return Ok(());
    }
    work.control.check()?;
    let bucket = work.what.bucket.clone();
    let deleting = work
        .store
        .ask(Call::DeleteBucket, move |objects, cx| objects.delete_bucket(cx, &bucket))
        .await;
    deleting.map_err(|error| match error.kind() {
        ErrorKind::IN_USE => error.remedy(
            "consent to what is left (objects, versions, uploads), or see who writes to it",
        ),
        _ => error,
    })
}

impl Work {
    /// Lists and deletes until a listing finds nothing.
    async fn repeat(&mut self) -> Result<()> {
        for _ in 0..PASSES {
            let found = self.pass().await?;
            if found == 0 {
                return Ok(());
            }
        }
        let why = format!(
            "there are still objects after {PASSES} passes: somebody writes there, or they have expired and the store still lists them"
        );
        Err(Error::new(ErrorKind::IN_USE, why)
            .with("bucket", &self.what.bucket)
            .with("key", &self.last)
            .remedy("end those who write, or wait until the store has removed what expired; then resume the job"))
    }

    async fn pass(&mut self) -> Result<u64> {
        let mut found = 0;
        if self.what.objects {
            found += self.objects().await?;
        }
        if self.what.uploads {
            found += self.uploads().await?;
        }
        Ok(found)
    }

    fn count(&mut self, gone: u64) {
        self.done += gone;
        self.control.set_done(self.done);
        let (_, total) = self.control.progress();
        // More came than were there at the beginning.
        if total != 0 && total < self.done {
            self.control.set_total(self.done);
        }
    }

    async fn objects(&mut self) -> Result<u64> {
        let (mut found, mut page) = (0, Default::default());
        loop {
            self.control.check()?;
            let query = ListQuery {
                prefix: self.what.prefix.as_str().into(),
                page,
                limit: self.store.features().max_page,
                versions: self.what.versions,
                ..ListQuery::default()
            };
            let bucket = self.what.bucket.clone();
            let listing = self
                .store
                .ask(Call::ListObjects, move |objects, cx| objects.list(cx, &bucket, query));
            let listed = listing.await?;
            let names: Vec<ObjectName> = listed
                .objects
                .iter()
                .filter(|object| self.what.versions || !object.deleted)
                .map(|object| ObjectName {
                    bucket: self.what.bucket.as_str().into(),
                    key: object.key.clone(),
                    version: match self.what.versions {
                        true => object.version.clone(),
                        false => Default::default(),
                    },
                })
                .collect();
            found += names.len() as u64;
            self.delete(names).await?;
            page = listed.next;
            if page.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn delete(&mut self, names: Vec<ObjectName>) -> Result<()> {
        let outcomes = delete_all(&self.store, &self.what.bucket, names.clone()).await;
        let gone = outcomes.iter().filter(|outcome| outcome.gone).count();
        self.count(gone as u64);
        let failed = names.len() - gone;
        let first = names.iter().zip(&outcomes).find(|(_, outcome)| !outcome.gone);
        if let Some(name) = names.last() {
            self.last = name.key.to_string();
        }
        let Some((name, outcome)) = first else { return Ok(()) };
        let why = format!("{failed} objects were not deleted; the first: {}", outcome.reason);
        Err(Error::new(outcome.kind, why)
            .with("bucket", &self.what.bucket)
            .with("key", &name.key)
            .remedy("when the cause is gone, resume the job"))
    }

    async fn uploads(&mut self) -> Result<u64> {
        let (mut found, mut page) = (0, Default::default());
        loop {
            self.control.check()?;
            let query = UploadQuery {
                prefix: self.what.prefix.as_str().into(),
                page,
                limit: self.store.features().max_page,
                ..UploadQuery::default()
            };
            let bucket = self.what.bucket.clone();
            let listing = self
                .store
                .ask(Call::ListUploads, move |objects, cx| objects.uploads(cx, &bucket, query));
            let listed = listing.await?;
            for upload in listed.uploads {
                self.control.check()?;
                self.abort(upload).await?;
                found += 1;
            }
            page = listed.next;
            if page.is_empty() {
                return Ok(found);
            }
        }
    }

    async fn abort(&self, upload: UploadInfo) -> Result<()> {
        self.store.ask(Call::AbortUpload, move |objects, cx| objects.abort_upload(cx, upload)).await
    }
}
