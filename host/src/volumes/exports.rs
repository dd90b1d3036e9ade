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
use crate::{
    access::{Peer, Rule},
    config::validate_name,
};

/// Whoever adds a default export holds the turn of this name, which no volume can have.
const DEFAULT_EXPORT: &str = "of the default export";

/// What an export shall be.
#[derive(Clone, Debug, Default)]
pub struct NewExport {
    /// The volume.
    pub volume: String,
    /// The name that clients ask for; the volume's if none.
    pub name: Option<String>,
    /// Clients may only read.
    pub read_only: bool,
    /// The clients that it admits; none: whoever may connect.
    pub allow: Vec<Rule>,
    /// Serve it to clients that name no export.
    pub default: bool,
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
        let _alone = match new.default {
            true => Some(self.turn(DEFAULT_EXPORT, "export add").await?),
            false => None,
        };
        let _turn = self.turn(&new.volume, "export add").await?;
        let mut stored = self.usable(&new.volume).await?;
        let hold = Hold { read_only: new.read_only };
        let allow: Vec<String> = new.allow.iter().map(Rule::to_string).collect();
        if let Some(existing) = self.0.exports.get(name).await? {
            let record = &existing.record;
            let same = record.read_only == new.read_only
                && record.allow == allow
                && record.default == new.default;
            if record.volume != new.volume || !same {
                let why = format!("there is an export `{name}` of volume `{}`", record.volume);
                let remedy = if record.volume == new.volume {
                    "to change what it allows, remove it and add it again"
                } else {
                    "choose another with --name, or: novastor export list"
                };
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, why).remedy(remedy));
            }
            let access = if new.read_only { Access::Read } else { Access::Write };
            self.attach_in_turn(&mut stored, access, &holder(name), new.take_over).await?;
            return Ok(existing);
        }
        if new.default
            && let Some(other) = self.exports().await?.iter().find(|other| other.record.default)
        {
            let why = format!("export `{}` is the default", other.name);
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, why).remedy(
                "add this one without --default; or remove that one, and add it again without",
            ));
        }
        let record = ExportRecord {
            volume: new.volume.clone(),
            read_only: new.read_only,
            allow,
            default: new.default,
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
        if validate_name("export", name).is_err() {
            // Clients may ask for anything: it is not repeated, and no state is asked for it.
            return Err(Error::new(ErrorKind::NOT_FOUND, "no export can have such a name")
                .remedy("novastor export list"));
        }
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

    /// The name of the export for clients that name none: the one that was made it, or else the only one.
    pub async fn default_export(&self) -> Result<String> {
        let exports = self.exports().await?;
        let chosen = exports.iter().find(|export| export.record.default);
        match (chosen, exports.as_slice()) {
            (Some(export), _) | (None, [export]) => Ok(export.name.clone()),
            (None, _) => Err(Error::new(ErrorKind::NOT_FOUND, "there is no default export")
                .remedy("name an export")),
        }
    }

    /// One export, for a client that it admits.
    pub async fn export_for(&self, name: &str, peer: &Peer) -> Result<Stored<ExportRecord>> {
        let export = self.export(name).await?;
        if export.admits(peer) {
            return Ok(export);
        }
        tracing::warn!(export = name, %peer, "a client is not admitted");
        let why = format!("export `{name}` does not admit this client");
        Err(Error::new(ErrorKind::PERMISSION_DENIED, why)
            .remedy("ask its operator, who sees the rules with: novastor export show"))
    }

    /// A share in an exported volume, for one client, with the record of the export.
    pub async fn export_open(
        &self,
        name: &str,
        peer: &Peer,
    ) -> Result<(Stored<ExportRecord>, Use)> {
        let export = self.export_for(name, peer).await?;
        if self.closing().contains(name) {
            let why = format!("export `{name}` is being removed");
            return Err(Error::new(ErrorKind::UNAVAILABLE, why));
        }
        let access = if export.record.read_only { Access::Read } else { Access::Write };
        let used = self.acquire(&export.record.volume, access, &holder(name)).await?;
        Ok((export, used))
    }
}

impl Stored<ExportRecord> {
    /// Whether its rules admit a client. A rule that only a newer version understands admits nobody.
    pub fn admits(&self, peer: &Peer) -> bool {
        let admits = |text: &String| match text.parse::<Rule>() {
            Ok(rule) => rule.admits(peer),
            Err(error) => {
                tracing::error!(export = self.name, "a rule is not understood: {error}");
                false
            }
        };
        self.record.allow.is_empty() || self.record.allow.iter().any(admits)
    }
}

#[cfg(test)]
#[path = "exports_tests.rs"]
mod tests;
