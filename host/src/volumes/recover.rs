// SPDX-License-Identifier: Apache-2.0
//! After a restart: what was begun is finished or taken back, and held volumes are attached again.

use std::{collections::BTreeSet, sync::Arc};

use driver_api::{ErrorKind, Result};

use super::{
    attach::Access,
    backends::{OpenBackend, control},
    record::{AttachState, VolumeRecord, VolumeState},
    room::Stored,
    service::Volumes,
};

impl Volumes {
    /// To be called once, before anything else: no volume is attached by this process yet.
    ///
    /// What the state holds now may be half done. Only that is touched by recovery, never what this process has under way.
    pub async fn begin(&self) -> Result<()> {
        let mut names = self.0.leftovers.lock().await;
        for mut stored in self.records().await? {
            let record = &mut stored.record;
            if record.attach != AttachState::Detached {
                record.attach = AttachState::Detached;
                self.0.records.save(&mut stored).await?;
            }
            names.insert(stored.name);
        }
        Ok(())
    }

    /// Opens a backend and recovers its volumes. One that is open stays as it is.
    pub async fn open_backend(&self, name: &str) -> Result<Arc<OpenBackend>> {
        let backend = self.0.backends.open(name).await?;
        self.recover(&backend).await?;
        Ok(backend)
    }

    /// Opens every backend that is not open, as far as that is possible now, and recovers their volumes.
    pub async fn open_backends(&self) -> Result<()> {
        for name in self.0.backends.open_missing().await {
            let backend = self.0.backends.get(&name)?;
            self.recover(&backend).await?;
        }
        Ok(())
    }

    /// What fails is logged and stays for the operator.
    async fn recover(&self, backend: &OpenBackend) -> Result<()> {
        let mut names = self.0.leftovers.lock().await;
        let mut kept = BTreeSet::new();
        for name in std::mem::take(&mut *names) {
            let _turn = self.turn(&name, "recovery").await?;
            let Some(mut stored) = self.0.records.get(&name).await? else { continue };
            if stored.record.backend != backend.name {
                kept.insert(name);
                continue;
            }
            if let Err(error) = self.recover_volume(&mut stored, backend).await {
                tracing::error!(volume = %name, "recovery: {error:#}");
            }
        }
        *names = kept;
        Ok(())
    }

    async fn recover_volume(
        &self,
        stored: &mut Stored<VolumeRecord>,
        backend: &OpenBackend,
    ) -> Result<()> {
        if stored.record.renaming.is_some() {
            tracing::info!(volume = %stored.name, "its renaming was interrupted: finishing it");
            self.finish_renaming(stored, backend).await?;
        }
        match stored.record.state {
            VolumeState::Creating => {
                tracing::info!(volume = %stored.name, "its creation was interrupted: removing it");
                return self.discard_unfinished(stored).await;
            }
            VolumeState::Deleting => {
                tracing::info!(volume = %stored.name, "its deletion was interrupted: finishing it");
                return self.finish_deleting(stored, backend, VolumeState::Available).await;
            }
            VolumeState::Available => {}
        }
        if let Some(pending) = stored.record.pending.take() {
            let showing = backend.handle().show(&control(), &stored.record.inner_name);
            stored.record.size = backend.call("recovery", showing).await?.size;
            stored.record.note = Some(format!(
                "a crash interrupted: {pending}; whether it was done is unknown, repeat it if needed"
            ));
            self.0.records.save(stored).await?;
        }
        self.recover_group(stored).await?;
        self.attach_held(stored).await
    }

    async fn attach_held(&self, stored: &mut Stored<VolumeRecord>) -> Result<()> {
        let holds = &stored.record.holds;
        if holds.is_empty() {
            return Ok(());
        }
        let access =
            if holds.values().all(|hold| hold.read_only) { Access::Read } else { Access::Write };
        match self.attach_in_turn(stored, access, "recovery", false).await {
            Ok(used) => {
                drop(used);
                Ok(())
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::IN_USE | ErrorKind::FENCED) {
                    stored.record.note = Some(format!("not attached again: {error}"));
                    self.0.records.save(stored).await?;
                }
                Err(error)
            }
        }
    }

    /// Detaches every volume, for the end of the process. Holds stay.
    pub async fn detach_all(&self) {
        let attached: Vec<_> = {
            let mut all = self.0.attached.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.drain().collect()
        };
        for (name, attached) in attached {
            let detaching = attached.volume.detach(&control());
            let ending = attached.backend.call("detach", detaching);
            match tokio::time::timeout(super::backends::CONTROL_TIMEOUT, ending).await {
                Ok(Ok(())) => self.mark_detached(&name).await,
                Ok(Err(error)) => tracing::error!(volume = %name, "detach: {error:#}"),
                Err(_) => tracing::error!(volume = %name, "its driver does not finish detaching"),
            }
        }
    }

    async fn mark_detached(&self, name: &str) {
        let marked = async {
            let mut stored = self.record(name).await?;
            stored.record.attach = AttachState::Detached;
            self.0.records.save(&mut stored).await
        };
        if let Err(error) = marked.await {
            tracing::warn!(volume = %name, "its record still says attached: {error:#}");
        }
    }
}
