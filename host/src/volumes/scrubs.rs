// SPDX-License-Identifier: Apache-2.0
//! Scrubs of replicated volumes: what their drivers do, and tell.

use driver_api::{
    Result,
    ext::{Cluster, Scrubbing},
};

use super::{
    attach::Use,
    backends::{OpenBackend, control},
    service::Volumes,
};
use crate::plugins::Call;

impl Volumes {
    /// How far the scrub of an attached volume is, or what the last one found.
    pub async fn scrubbing(&self, volume: &str) -> Result<Scrubbing> {
        let (backend, name) = self.cluster_of(volume).await?;
        scrubbing(&backend, name).await
    }
}

async fn scrubbing(backend: &OpenBackend, name: String) -> Result<Scrubbing> {
    let asking = backend
        .handle()
        .cluster(Call::Scrubbing, &control(), move |cluster, cx| cluster.scrubbing(cx, &name));
    backend.call("volume scrub", asking).await
}

impl Use {
    /// Begins a scrub of the volume, or ends the one under way.
    pub async fn scrub(&self, on: bool, repair: bool) -> Result<()> {
        let name = self.inner_name().to_owned();
        let handle = self.backend().handle();
        let scrubbing = handle.cluster(Call::Scrub, &self.cx(), move |cluster, cx| {
            cluster.scrub(cx, &name, on, repair)
        });
        self.backend().call("volume scrub", scrubbing).await
    }

    /// How far it is.
    pub async fn scrubbing(&self) -> Result<Scrubbing> {
        scrubbing(self.backend(), self.inner_name().to_owned()).await
    }
}
