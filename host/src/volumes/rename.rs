// SPDX-License-Identifier: Apache-2.0
//! Other names for volumes that nobody uses.
//!
//! ```text
//!   noted in the record --> the backend gives the name --> the record gets it, and the note goes, in one transaction
//!        ^                     | refused: the note goes           (with it the jobs that could be resumed)
//!        +---------------------+ unknown: the note stays, and nothing else is done with the volume
//! ```
//! A note that a crash left behind has the renaming done at restart, or found to be done. A backend that cannot rename keeps
//! its name for the volume; then there is only the transaction.

use driver_api::{Abilities, Error, ErrorKind, Result, state::Transaction};
use serde::{Deserialize, Serialize};

use super::{
    backends::{OpenBackend, control},
    lifecycle::{changed_nothing, exists},
    record::{AttachState, VolumeRecord},
    room::Stored,
    service::Volumes,
};
use crate::config::validate_name;

/// The most jobs that change with a volume's name, which is one transaction; older ones are history.
const FOLLOWING: usize = 40;
/// The kinds of jobs that go on with a volume by its name.
const RESUMED: [&str; 5] = ["verify", "repair", "scrub", "rebalance", "flatten"];
/// What became of jobs that can be resumed.
const CUT_OFF: [&str; 3] = ["failed", "cancelled", "interrupted"];

/// A job's record, as far as it names a volume.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(super) struct NamingJob {
    kind: String,
    target: String,
    detail: String,
    state: String,
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

impl NamingJob {
    fn goes_on_with(&self, volume: &str) -> bool {
        self.target == volume
            && RESUMED.contains(&self.kind.as_str())
            && CUT_OFF.contains(&self.state.as_str())
    }

    fn follow(&mut self, to: &str) {
        self.detail =
            self.detail.replacen(&format!(" of {}", self.target), &format!(" of {to}"), 1);
        to.clone_into(&mut self.target);
    }
}

impl Volumes {
    /// Gives a volume that nobody uses the name `to`: here, and in its backend if that is able to.
    pub async fn rename(&self, name: &str, to: &str) -> Result<Stored<VolumeRecord>> {
        validate_name("volume", to)?;
        if name == to {
            let why = format!("volume `{name}` has this name already");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .during("rename")
                .remedy("choose another name"));
        }
        let (first, second) = if name < to { (name, to) } else { (to, name) };
        let _first = self.turn(first, "rename").await?;
        let _second = self.turn(second, "rename").await?;
        let mut stored = self.record(name).await?;
        if stored.record.renaming.as_deref() != Some(to) {
            stored = self.usable(name).await?;
            self.intend_rename(&mut stored, to).await?;
        }
        let backend = self.backend_of(&stored)?;
        self.finish_renaming(&mut stored, &backend).await?;
        Ok(stored)
    }

    /// Notes the new name, after making sure that the volume is free to get it.
    async fn intend_rename(&self, stored: &mut Stored<VolumeRecord>, to: &str) -> Result<()> {
        self.refuse_in_use(stored, "rename")?;
        if stored.record.attach != AttachState::Detached && self.attached(&stored.name).is_some() {
            self.detach_unused(stored).await?;
        }
        if self.0.records.get(to).await?.is_some() {
            return Err(exists(to).during("rename"));
        }
        let backend = self.backend_of(stored)?;
        let inner_name = stored.record.inner_name.clone();
        if self.backend_has(&backend, Abilities::RENAME)? && inner_name != to {
            self.refuse_taken(&backend, to).await?;
            backend.call("rename", backend.handle().show(&control(), &inner_name)).await?;
        }
        stored.record.renaming = Some(to.to_owned());
        self.0.records.save(stored).await
    }

    async fn refuse_taken(&self, backend: &OpenBackend, to: &str) -> Result<()> {
        self.refuse_lent(&backend.name, to).await?;
        match backend.call("rename", backend.handle().show(&control(), to)).await {
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let why = match self.managed_as(&backend.name, to).await? {
                    Some(other) => format!("which is volume `{other}` of this host"),
                    None => "which this host does not manage".to_owned(),
                };
                let why = format!("backend `{}` has a volume `{to}`, {why}", backend.name);
                Err(Error::new(ErrorKind::ALREADY_EXISTS, why)
                    .during("rename")
                    .remedy("choose another name"))
            }
        }
    }

    /// Does what the note says, as far as it is not done.
    pub(super) async fn finish_renaming(
        &self,
        stored: &mut Stored<VolumeRecord>,
        backend: &OpenBackend,
    ) -> Result<()> {
        let Some(to) = stored.record.renaming.clone() else { return Ok(()) };
        let old = stored.record.inner_name.clone();
        if self.backend_has(backend, Abilities::RENAME)? && old != to {
            if let Err(error) = rename_in_backend(backend, &old, &to).await {
                return self.give_up_renaming(stored, &to, error).await;
            }
            stored.record.inner_name.clone_from(&to);
        }
        if self.0.records.get(&to).await?.is_some() {
            // Made after a crash, on another backend: the backend's name is the new one, and the host's stays.
            stored.record.renaming = None;
            stored.record.note =
                Some(format!("it was to be `{to}`, which another volume is by now"));
            self.0.records.save(stored).await?;
            return Err(exists(&to).during("rename"));
        }
        stored.record.renaming = None;
        stored.record.note = None;
        self.move_record(stored, &to).await
    }

    async fn give_up_renaming(
        &self,
        stored: &mut Stored<VolumeRecord>,
        to: &str,
        error: Error,
    ) -> Result<()> {
        if changed_nothing(error.kind()) {
            stored.record.renaming = None;
            self.0.records.save(stored).await?;
            return Err(error);
        }
        stored.record.note = Some(format!("whether it is `{to}` now is unknown: {error}"));
        self.0.records.save(stored).await?;
        let name = &stored.name;
        Err(error.remedy(format!(
            "whether it was renamed is unknown; repeat: novastor volume rename {name} {to}"
        )))
    }

    /// The record under the new name, and what else names the volume, at once.
    async fn move_record(&self, stored: &mut Stored<VolumeRecord>, to: &str) -> Result<()> {
        let records = &self.0.records;
        let (old, new) = (records.key(&stored.name), records.key(to));
        let mut all = Transaction::new()
            .expect(&old, stored.revision)
            .expect(&new, 0)
            .put(&new, &records.encode(&stored.record)?)
            .delete(&old);
        let jobs = self.0.jobs.list().await?;
        let going_on = jobs.into_iter().rev().filter(|job| job.record.goes_on_with(&stored.name));
        for mut job in going_on.take(FOLLOWING) {
            job.record.follow(to);
            let key = self.0.jobs.key(&job.name);
            all = all.expect(&key, job.revision).put(&key, &self.0.jobs.encode(&job.record)?);
        }
        stored.revision = records.commit(all).await?.revision;
        tracing::info!(from = %stored.name, to, "a volume has another name");
        to.clone_into(&mut stored.name);
        Ok(())
    }
}

/// Has the backend rename. What it does not find any more may have the new name already, by an attempt whose end nobody heard.
async fn rename_in_backend(backend: &OpenBackend, from: &str, to: &str) -> Result<()> {
    let renaming = backend.handle().rename(&control(), from, to);
    let error = match backend.call("rename", renaming).await {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => error,
        Err(error) => return Err(error),
    };
    match backend.call("rename", backend.handle().show(&control(), to)).await {
        Ok(_) => Ok(()),
        Err(second) if second.kind() == ErrorKind::NOT_FOUND => Err(error),
        Err(second) => Err(second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_go_on_follows_its_volume() {
        let text = r#"{"kind":"scrub","target":"a","detail":"what is at rest of a, with repairs",
            "state":"cancelled","started_unix_secs":7}"#;
        let mut job: NamingJob = serde_json::from_str(text).expect("a job");
        assert!(job.goes_on_with("a") && !job.goes_on_with("b"));
        job.follow("b");
        assert!(job.goes_on_with("b"));
        assert_eq!(job.detail, "what is at rest of b, with repairs");
        assert_eq!(job.other["started_unix_secs"], 7);
        job.state = "done".to_owned();
        assert!(!job.goes_on_with("b"));
    }
}
