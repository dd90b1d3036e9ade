// SPDX-License-Identifier: Apache-2.0
//! Clones made by the backend itself.

use driver_api::{OpContext, Result, VolumeSpec};

use super::service::{NewVolume, Volumes};

impl Volumes {
    /// Records the intent of a clone that a job will make; the volume stays `creating` until then.
    pub(crate) async fn begin_cloning(&self, new: &NewVolume, job: u64) -> Result<()> {
        let backend = self.check_new(new)?;
        let _turn = self.turn(&new.name, "clone").await?;
        self.intend(new, &backend, Some(job)).await?;
        Ok(())
    }

    /// Has the backend fill the volume `name`, whose record is there, from `source` or one of its snapshots.
    pub(crate) async fn clone_in_backend(
        &self,
        source: &str,
        snapshot: &str,
        name: &str,
    ) -> Result<()> {
        let _source_turn = self.turn(source, &format!("clone to {name}")).await?;
        let from = self.usable(source).await?;
        let mut stored = self.record(name).await?;
        let backend = self.backend_of(&stored)?;
        let mut spec = VolumeSpec::new(&stored.record.inner_name, stored.record.size);
        for (key, value) in &stored.record.options {
            spec = spec.option(key, value);
        }
        // It may be a full copy, which takes as long as it takes.
        let cx = OpContext::new();
        let cloning = backend.handle().clone_volume(&cx, &from.record.inner_name, snapshot, spec);
        let info = backend.call("clone", cloning).await?;
        stored.record.size = info.size;
        self.0.records.save(&mut stored).await
    }
}
