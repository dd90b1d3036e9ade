// SPDX-License-Identifier: Apache-2.0
//! The volume service: its parts, and the look-ups that all operations share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use driver_api::{Error, ErrorKind, Result, StateHandle};

use super::{
    attach::Attached,
    backends::{Backends, OpenBackend},
    lending::LentRecord,
    locks::{Locks, Turn},
    record::{ExportRecord, VolumeRecord, VolumeState},
    rename::NamingJob,
    room::{Room, Stored},
};

/// Volumes and what can be done with them. A cheap handle.
///
/// The futures of operations that change something must be polled to their end: spawn them.
#[derive(Clone)]
pub struct Volumes(pub(super) Arc<Service>);

pub(super) struct Service {
    pub(super) records: Room<VolumeRecord>,
    pub(super) exports: Room<ExportRecord>,
    pub(super) lent: Room<LentRecord>,
    pub(super) jobs: Room<NamingJob>,
    pub(super) backends: Backends,
    pub(super) locks: Locks,
    pub(super) attached: Mutex<HashMap<String, Arc<Attached>>>,
    pub(super) closing: Mutex<BTreeSet<String>>,
    pub(super) owner: String,
    pub(super) leftovers: tokio::sync::Mutex<BTreeSet<String>>,
}

/// What a new volume shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Its backend; the active one if none.
    pub backend: Option<String>,
    /// Options of the driver's own.
    pub options: BTreeMap<String, String>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
}

impl Volumes {
    /// The service over this state and these backends; `owner` names this host to others.
    pub fn new(state: StateHandle, backends: Backends, owner: &str) -> Self {
        Self(Arc::new(Service {
            records: Room::new(state.clone(), "volumes/"),
            exports: Room::new(state.clone(), "exports/"),
            lent: Room::new(state.clone(), "lent/"),
            jobs: Room::new(state, "jobs/"),
            backends,
            locks: Locks::default(),
            attached: Mutex::default(),
            closing: Mutex::default(),
            owner: owner.to_owned(),
            leftovers: tokio::sync::Mutex::default(),
        }))
    }

    /// The backends.
    pub fn backends(&self) -> &Backends {
        &self.0.backends
    }

    pub(super) async fn turn(&self, name: &str, operation: &str) -> Result<Turn> {
        self.0.locks.turn(name, operation).await
    }

    /// A volume's record.
    pub async fn record(&self, name: &str) -> Result<Stored<VolumeRecord>> {
        self.0.records.get(name).await?.ok_or_else(|| {
            Error::new(ErrorKind::NOT_FOUND, format!("there is no volume `{name}`"))
                .remedy("novastor volume list")
        })
    }

    /// All records, by name.
    pub async fn records(&self) -> Result<Vec<Stored<VolumeRecord>>> {
        self.0.records.list().await
    }

    /// The record of a volume that is neither being made nor going away.
    pub(super) async fn usable(&self, name: &str) -> Result<Stored<VolumeRecord>> {
        let stored = self.record(name).await?;
        if let Some(to) = &stored.record.renaming {
            let why =
                format!("volume `{name}` cannot be used: whether it is `{to}` now is unknown");
            return Err(Error::new(ErrorKind::IN_USE, why)
                .remedy(format!("novastor volume rename {name} {to}")));
        }
        let why = match (stored.record.state, stored.record.job) {
            (VolumeState::Available, _) => return Ok(stored),
            (VolumeState::Creating, Some(job)) => format!("job {job} is still filling it"),
            (VolumeState::Creating, None) => "it is still being created".to_owned(),
            (VolumeState::Deleting, _) => "it is being deleted".to_owned(),
        };
        Err(Error::new(ErrorKind::IN_USE, format!("volume `{name}` cannot be used: {why}"))
            .remedy(format!("novastor volume show {name}")))
    }

    pub(super) fn backend_of(&self, stored: &Stored<VolumeRecord>) -> Result<Arc<OpenBackend>> {
        self.0.backends.get(&stored.record.backend)
    }
}
