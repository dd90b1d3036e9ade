// SPDX-License-Identifier: Apache-2.0
//! Exports: which volumes clients may reach, under which names. The record and the hold on the volume are written in
//! one transaction, so that after a restart the same names lead to the same volumes.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
};

use driver_api::{Error, ErrorKind, Result, state::Transaction};

use super::{
    attach::{Access, Use},
    record::{ExportRecord, Hold, unix_now},
    room::Stored,
    service::Volumes,
};
use crate::config::validate_name;

/// What an export shall be.
#[derive(Clone, Debug)]
pub struct NewExport {
    /// The volume.
    pub volume: String,
    /// The name that clients ask for; the volume's if none.
    pub name: Option<String>,
    /// Clients may only read.
    pub read_only: bool,
    /// Take the volume from another host.
    pub take_over: bool,
}

fn holder(name: &str) -> String {
    format!("export {name}")
}

impl Volumes {
    /// Adds an export, attaching its volume. Repeated with the same wishes it gives the same answer.
    pub async fn export_add(&self, new: NewExport) -> Result<Stored<ExportRecord>> {
        let name = new.name.as_deref().unwrap_or(&new.volume);
        validate_name("export", name)?;
        let _turn = self.turn(&new.volume, "export add").await?;
        let mut stored = self.usable(&new.volume).await?;
        let hold = Hold { read_only: new.read_only };
        if let Some(existing) = self.0.exports.get(name).await? {
            let record = &existing.record;
            if record.volume != new.volume || record.read_only != new.read_only {
                let why = format!("there is an export `{name}` of volume `{}`", record.volume);
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, why)
                    .remedy("choose another with --name, or: novastor export list"));
            }
            let access = if new.read_only { Access::Read } else { Access::Write };
            self.attach_in_turn(&mut stored, access, &holder(name), new.take_over).await?;
            return Ok(existing);
        }
        let record = ExportRecord {
            volume: new.volume.clone(),
            read_only: new.read_only,
            created_unix_secs: unix_now(),
            other: Default::default(),
        };
        let key = self.0.exports.key(name);
        let more = Transaction::new().expect(&key, 0).put(&key, &self.0.exports.encode(&record)?);
        let used = self.hold(&mut stored, &holder(name), hold, new.take_over, more).await?;
        drop(used);
        Ok(Stored { name: name.to_owned(), revision: stored.revision, record })
    }

    /// All exports, by name.
    pub async fn exports(&self) -> Result<Vec<Stored<ExportRecord>>> {
        self.0.exports.list().await
    }

    /// One export.
    pub async fn export(&self, name: &str) -> Result<Stored<ExportRecord>> {
        self.0.exports.get(name).await?.ok_or_else(|| {
            Error::new(ErrorKind::NOT_FOUND, format!("there is no export `{name}`"))
                .remedy("novastor export list")
        })
    }

    /// Removes an export whose clients were sent away; the last hold on its volume detaches it.
    pub async fn export_remove(&self, name: &str) -> Result<()> {
        let export = self.export(name).await?;
        let _turn = self.turn(&export.record.volume, "export remove").await?;
        let mut stored = self.record(&export.record.volume).await?;
        let key = self.0.exports.key(name);
        let more = Transaction::new().expect(&key, export.revision).delete(&key);
        self.unhold(&mut stored, &holder(name), more).await
    }

    /// Lets no further client in, while the present ones are sent away.
    pub fn export_close(&self, name: &str) {
        self.closing().insert(name.to_owned());
    }

    /// Ends [`Volumes::export_close`].
    pub fn export_reopen(&self, name: &str) {
        self.closing().remove(name);
    }

    fn closing(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share in an exported volume, for one client, with the record of the export.
    pub async fn export_open(&self, name: &str) -> Result<(Stored<ExportRecord>, Use)> {
        let export = self.export(name).await?;
        if self.closing().contains(name) {
            let why = format!("export `{name}` is being removed");
            return Err(Error::new(ErrorKind::UNAVAILABLE, why));
        }
        let access = if export.record.read_only { Access::Read } else { Access::Write };
        let used = self.acquire(&export.record.volume, access, &holder(name)).await?;
        Ok((export, used))
    }
}
