// SPDX-License-Identifier: Apache-2.0
//! What the core tells the operator, in the log and in the nodes' meters.

use distributed_core::{NodeId, Notice};

use super::Engine;
use crate::session::token;

impl Engine {
    /// Tells the operator.
    pub(super) fn report(&self, notice: &Notice) {
        let volume = self.volume.as_str();
        let name =
            |node: NodeId| self.node(node).map_or_else(|| node.to_string(), |node| node.name);
        match notice {
            Notice::Stale { brick, node, cause } => {
                self.nodes.meters().of(*node).fell(*cause);
                let node = name(*node);
                tracing::warn!(volume, %brick, node, %cause, "a replica is out of sync");
            }
            Notice::ResyncStarted { brick, bytes } => {
                tracing::info!(volume, %brick, bytes, "a replica fetches what it missed");
            }
            Notice::InSync { brick, copied } => {
                tracing::info!(volume, %brick, copied, "a replica is in sync again");
            }
            Notice::Replaced { old, new, node, cause } => {
                // One that was stale already is not said to be out of sync again.
                self.nodes.meters().of(*node).fell(*cause);
                tracing::warn!(volume, %old, %new, %cause, "a brick is replaced by a fresh one");
            }
            Notice::Damaged(finding) => self.report_damage(finding),
            Notice::Mended(finding) => self.report_mend(finding),
            Notice::HeadLost { brick, node, cause } => {
                self.nodes.meters().of(*node).fell(*cause);
                let node = name(*node);
                tracing::error!(volume, %brick, node, %cause, "the acknowledging node is gone: promote another");
            }
            Notice::Following { brick, node, point } => {
                let (node, point) = (name(*node), token(*point));
                tracing::info!(volume, %brick, node, point, "a replica follows");
            }
            Notice::FellOut { brick, node } => {
                let node = name(*node);
                tracing::warn!(volume, %brick, node, "a replica cannot follow, and is resynced");
            }
            Notice::Promoted { brick, node, loss } => {
                let node = name(*node);
                tracing::warn!(volume, %brick, node, ?loss, "another node acknowledges");
            }
            Notice::Serving => tracing::info!(volume, "the volume serves"),
            Notice::Stopped(why) => tracing::error!(volume, %why, "the volume stopped"),
        }
    }
}
