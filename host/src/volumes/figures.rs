// SPDX-License-Identifier: Apache-2.0
//! Usage, performance and health of volumes and backends, as the drivers tell them.

use std::{collections::BTreeMap, time::Duration};

use driver_api::{
    Abilities, Capabilities, Error, ErrorKind, Health, HealthState, Result, Stats, Usage,
    VolumeInfo,
};

use super::{
    backends::{BackendStatus, OpenBackend, control},
    record::VolumeRecord,
    room::Stored,
    service::Volumes,
};
use crate::plugins::Started;

/// How long a look at figures waits for one backend.
const GLANCE: Duration = Duration::from_secs(5);

/// A backend at one moment.
#[derive(Clone, Debug)]
pub struct BackendFigures {
    /// What it can do.
    pub capabilities: Capabilities,
    /// Its space, if it said.
    pub usage: Option<Usage>,
    /// Its health; failed if it does not answer.
    pub health: Health,
    /// Its counters.
    pub stats: Stats,
}

/// A volume at one moment.
#[derive(Clone, Debug)]
pub struct VolumeFigures {
    /// Its record.
    pub stored: Stored<VolumeRecord>,
    /// Who uses it here.
    pub users: Vec<String>,
    /// What its backend says of it, if it was asked and answered.
    pub info: Option<VolumeInfo>,
    /// Its counters, while attached.
    pub stats: Option<Stats>,
}

async fn glance<T: Send + 'static>(backend: &OpenBackend, what: &str, op: Started<T>) -> Result<T> {
    match tokio::time::timeout(GLANCE, backend.call(what, op)).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::TIMED_OUT, "the backend does not answer")
            .during(what)
            .with("backend", &backend.name)),
    }
}

impl Volumes {
    /// How a backend is.
    pub async fn backend_figures(&self, backend: &OpenBackend) -> Result<BackendFigures> {
        let handle = backend.handle();
        let capabilities = backend.note("show", handle.capabilities())?;
        let usage = glance(backend, "usage", handle.usage(&control())).await.ok();
        let mut health = match glance(backend, "health", handle.health(&control())).await {
            Ok(health) => health,
            Err(error) => Health::failed(error.message()),
        };
        if let Some(why) = backend.degraded()
            && health.state == HealthState::HEALTHY
        {
            health = Health::degraded(&why);
        }
        let stats = backend.note("stats", handle.stats())?;
        Ok(BackendFigures { capabilities, usage, health, stats })
    }

    /// How a volume is.
    pub async fn figures(&self, name: &str) -> Result<VolumeFigures> {
        let stored = self.record(name).await?;
        let info = match self.backend_of(&stored) {
            Ok(backend) => {
                let showing = backend.handle().show(&control(), &stored.record.inner_name);
                glance(&backend, "show", showing).await.ok()
            }
            Err(_) => None,
        };
        Ok(self.with_users(stored, info))
    }

    fn with_users(&self, stored: Stored<VolumeRecord>, info: Option<VolumeInfo>) -> VolumeFigures {
        let users = self.users_of(&stored);
        let attached = self.attached(&stored.name);
        let stats = attached.and_then(|attached| attached.volume.stats().ok());
        VolumeFigures { stored, users, info, stats }
    }

    /// All volumes, each backend asked once.
    pub async fn all_figures(&self) -> Result<Vec<VolumeFigures>> {
        let mut infos: BTreeMap<(String, String), VolumeInfo> = BTreeMap::new();
        for (name, status) in self.0.backends.list() {
            let BackendStatus::Open(backend) = status else { continue };
            if matches!(self.holds_volumes(&backend), Ok(false)) {
                continue;
            }
            match glance(&backend, "list", backend.handle().list(&control())).await {
                Ok(list) => {
                    infos.extend(list.into_iter().map(|i| ((name.clone(), i.name.to_string()), i)));
                }
                Err(error) => tracing::warn!("usage of volumes is unknown: {error:#}"),
            }
        }
        let mut all = Vec::new();
        for stored in self.records().await? {
            let key = (stored.record.backend.clone(), stored.record.inner_name.clone());
            all.push(self.with_users(stored, infos.remove(&key)));
        }
        Ok(all)
    }

    /// Whether a backend has volumes; one of an object store may have none.
    pub fn holds_volumes(&self, backend: &OpenBackend) -> Result<bool> {
        let capabilities = backend.note("capabilities", backend.handle().capabilities())?;
        Ok(capabilities.abilities.has_volumes())
    }

    /// Says that a backend has objects alone, if that is so.
    pub(super) fn refuse_without_volumes(
        &self,
        backend: &OpenBackend,
        operation: &str,
    ) -> Result<()> {
        if self.holds_volumes(backend)? {
            return Ok(());
        }
        let why = format!("backend `{}` has objects, and no volumes", backend.name);
        Err(Error::new(ErrorKind::UNSUPPORTED, why)
            .during(operation)
            .with("driver", self.backends().driver_of(&backend.name))
            .remedy("name another with --backend: novastor backend list; for objects: novastor bucket, novastor object"))
    }

    /// Whether a backend has an ability.
    pub fn backend_has(&self, backend: &OpenBackend, ability: Abilities) -> Result<bool> {
        Ok(backend.note("capabilities", backend.handle().capabilities())?.has(ability))
    }
}
