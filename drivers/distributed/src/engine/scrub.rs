// SPDX-License-Identifier: Apache-2.0
//! Scrubs: what the core tells of them, and checkpoints of digests on their way to the state.

use std::sync::Arc;

use distributed_core::{Event, Finding, Generation, Node, NodeId, Repaired, ScrubStatus};
use driver_api::Result;

use super::Engine;

impl Engine {
    /// Begins a scrub, or ends the one under way.
    pub fn scrub(self: &Arc<Self>, on: bool, repairs: bool) {
        let started = crate::recover::unix_millis();
        self.tell(vec![if on { Event::Scrub { repairs, started } } else { Event::EndScrub }]);
    }

    /// The scrub under way, or the last one; and bytes of a unit of it.
    pub fn scrubbed(&self) -> Result<(Option<ScrubStatus>, u64)> {
        let inner = self.inner()?;
        Ok((inner.core.scrub(), inner.core.digest_unit()))
    }

    /// Tells the operator of replicas that are not what they must be.
    pub(super) fn report_damage(&self, finding: &Finding) {
        let volume = self.volume.as_str();
        let (bad, good) = (self.names(finding, true), self.names(finding, false));
        let Finding { offset, len, verdict, mending, .. } = finding;
        tracing::error!(volume, offset, len, ?verdict, ?mending, bad, good, "replicas are damaged");
    }

    /// Tells what became of them.
    pub(super) fn report_mend(&self, finding: &Finding) {
        let (volume, bad) = (self.volume.as_str(), self.names(finding, true));
        let Finding { offset, len, mending, .. } = finding;
        match mending {
            Repaired::Verified => {
                tracing::info!(volume, offset, len, bad, "damaged replicas are repaired");
            }
            _ => {
                tracing::warn!(volume, offset, len, ?mending, bad, "a repair is not proven");
            }
        }
    }

    fn names(&self, finding: &Finding, is_bad: bool) -> String {
        let chosen = finding.replicas.iter().filter(|replica| replica.is_bad == is_bad);
        let names: Vec<String> = chosen.map(|replica| self.name(replica.node)).collect();
        names.join(", ")
    }

    /// The name of a node.
    pub fn name(&self, node: NodeId) -> String {
        self.node(node).map_or_else(|| node.to_string(), |Node { name, .. }| name)
    }

    /// Deletes checkpoints that count no more. What a crash leaves goes with the next ones.
    pub(super) fn forget_digests(&self, before: Generation) {
        let (catalog, volume) = (self.catalog.clone(), self.volume.clone());
        tokio::spawn(async move {
            if let Err(error) = catalog.forget_digests(&volume, Some(before)).await {
                let error = format!("{error:#}");
                tracing::info!(volume, error, "old digests are left to the next change");
            }
        });
    }
}
