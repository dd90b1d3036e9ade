// SPDX-License-Identifier: Apache-2.0
//! Volumes of a cluster whose state is lost: the driver makes them anew from their bricks; this host, whose own records
//! are lost too, gives the bricks back to the backend that made them and takes the volumes under management again.

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Cluster, RecoveredVolume, RecoveryOutcome},
};

use super::{backends::control, service::Volumes};
use crate::plugins::{Call, Holder};

/// What an operator wants recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The volume; all that are found if none.
    pub volume: Option<String>,
    /// Give up bricks that were not found and may have later writes.
    pub accept_missing: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// What became of one volume, and whether this host manages it.
#[derive(Clone, Debug)]
pub struct Regained {
    /// What the driver says.
    pub volume: RecoveredVolume,
    /// The volume's name on this host, if it manages it now.
    pub managed: Option<String>,
}

impl Volumes {
    /// Makes volumes of a backend anew from their bricks. Poll it to its end.
    ///
    /// The driver is asked first what it would do: what others have on the nodes is never taken from them.
    pub async fn regain(&self, backend: &str, wish: &Recovery) -> Result<Vec<Regained>> {
        let name = wish.volume.clone().unwrap_or_default();
        let found = self.ask_to_recover(backend, &name, wish.accept_missing, true).await?;
        let mut regained = Vec::new();
        for volume in found {
            regained.push(self.regain_one(backend, volume, wish).await?);
        }
        Ok(regained)
    }

    async fn regain_one(
        &self,
        backend: &str,
        mut volume: RecoveredVolume,
        wish: &Recovery,
    ) -> Result<Regained> {
        if volume.outcome == RecoveryOutcome::REFUSED {
            return Ok(Regained { volume, managed: None });
        }
        if let Some(whose) = self.foreign_brick(backend, &volume).await? {
            volume.outcome = RecoveryOutcome::REFUSED;
            volume.reason = whose.into();
            return Ok(Regained { volume, managed: None });
        }
        if wish.dry_run {
            let managed = self.managed_as(backend, &volume.name).await?;
            return Ok(Regained { volume, managed });
        }
        self.reclaim(backend, &volume).await?;
        if volume.outcome == RecoveryOutcome::WOULD_RECOVER {
            let again = self.ask_to_recover(backend, &volume.name, wish.accept_missing, false);
            let found = again.await?.into_iter().find(|one| one.identity == volume.identity);
            let gone = || Error::new(ErrorKind::UNAVAILABLE, "its bricks are not there any more");
            volume =
                found.ok_or_else(|| gone().with("volume", &volume.name).remedy("try again"))?;
        }
        let mut managed = None;
        if volume.outcome != RecoveryOutcome::REFUSED {
            match self.adopt(Some(backend), &volume.name, &volume.name).await {
                Ok(stored) => managed = Some(stored.name),
                Err(error) => {
                    managed = self.managed_as(backend, &volume.name).await?;
                    if managed.is_none() {
                        volume.reason = not_adopted(&volume, backend, &error).into();
                    }
                }
            }
        }
        Ok(Regained { volume, managed })
    }

    async fn ask_to_recover(
        &self,
        backend: &str,
        volume: &str,
        accept_missing: bool,
        dry_run: bool,
    ) -> Result<Vec<RecoveredVolume>> {
        let (backend, volume) = (self.cluster_named(backend)?, volume.to_owned());
        let recovering = backend.handle().cluster(Call::Recover, &control(), move |cluster, cx| {
            cluster.recover(cx, &volume, accept_missing, dry_run)
        });
        Ok(backend.call("node recover", recovering).await?.into())
    }

    /// Whose a brick is that the backend did not make, in words.
    async fn foreign_brick(
        &self,
        backend: &str,
        volume: &RecoveredVolume,
    ) -> Result<Option<String>> {
        for place in &volume.found {
            let tenure = self.tenure(&place.node, backend);
            for name in [&place.brick, &place.companion] {
                if let Holder::Other(whose) = tenure.holder(name).await? {
                    return Ok(Some(format!(
                        "{name} on {} is {whose}: recover it there, or free it first",
                        place.node
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Notes again that the backend made these bricks.
    async fn reclaim(&self, backend: &str, volume: &RecoveredVolume) -> Result<()> {
        for place in &volume.found {
            let tenure = self.tenure(&place.node, backend);
            for name in [&place.brick, &place.companion] {
                if tenure.holder(name).await? == Holder::Nobody {
                    tenure.claim(name).await?;
                }
            }
        }
        Ok(())
    }

    /// The name under which this host manages a backend's volume.
    pub(super) async fn managed_as(
        &self,
        backend: &str,
        inner_name: &str,
    ) -> Result<Option<String>> {
        let records = self.records().await?;
        let its = records.into_iter().find(|one| one.record.is_called(backend, inner_name));
        Ok(its.map(|stored| stored.name))
    }
}

fn not_adopted(volume: &RecoveredVolume, backend: &str, error: &Error) -> String {
    let next = format!(
        "this host does not manage it: {}; under another name: novastor volume adopt NAME --inner-name {} \
         --backend {backend}",
        error.message(),
        volume.name
    );
    if volume.reason.is_empty() { next } else { format!("{}; {next}", volume.reason) }
}
