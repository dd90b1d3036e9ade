// SPDX-License-Identifier: Apache-2.0
//! Asynchronous volumes whose acknowledging node is replaced by another.

use driver_api::{
    Result,
    ext::{Cluster, Promote, Promotion},
};

use super::{
    attach::Access,
    backends::{OpenBackend, control},
    service::Volumes,
};
use crate::plugins::Call;

async fn promote(backend: &OpenBackend, name: String, how: Promote) -> Result<Promotion> {
    let promoting = backend
        .handle()
        .cluster(Call::Promote, &control(), move |cluster, cx| cluster.promote(cx, &name, how));
    backend.call("volume promote", promoting).await
}

impl Volumes {
    /// What another node's acknowledging would lose by now.
    pub async fn promotion(&self, volume: &str, node: &str, at_once: bool) -> Result<Promotion> {
        let (backend, name) = self.cluster_of(volume).await?;
        let how = Promote { node: node.into(), at_once, dry_run: true, ..Promote::default() };
        promote(&backend, name, how).await
    }

    /// Has another node acknowledge. A volume that is not attached is for a moment: it is promoted by that.
    pub async fn promote(&self, volume: &str, node: &str, at_once: bool) -> Result<Promotion> {
        let (backend, name) = self.cluster_of(volume).await?;
        let how = Promote { node: node.into(), at_once, ..Promote::default() };
        let mut promotion = promote(&backend, name, how).await?;
        if promotion.done {
            return Ok(promotion);
        }
        let used = self.acquire(volume, Access::Write, "volume promote").await?;
        self.release(used).await?;
        promotion.done = true;
        Ok(promotion)
    }
}
