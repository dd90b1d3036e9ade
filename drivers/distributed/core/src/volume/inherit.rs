// SPDX-License-Identifier: Apache-2.0
//! Attaches a volume of asynchronous mode whose acknowledging brick is gone, from a follower.

use super::{Volume, state::Phase};
use crate::{
    DecodeError, Descriptor, Loss, Mode, NodeId, Notice, Record, Slot,
    recovery::{Recovered, inherit, recover},
};

/// A follower that is to acknowledge from the attachment on.
#[derive(Debug)]
pub(super) struct Inheritance {
    node: NodeId,
    slot: Option<Slot>,
    /// What the volume is once the follower's journal was replayed.
    recovered: Option<Recovered>,
}

impl Inheritance {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, slot: None, recovered: None }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }
}

impl Volume {
    /// All bricks that could be opened are: goes on from the follower of a node.
    pub(super) fn inherit(
        &mut self,
        node: NodeId,
        companions: &[(Slot, Result<Record, DecodeError>)],
    ) {
        let result = match recover(&self.descriptor, &self.maps, companions) {
            Ok(_) => {
                Err("its acknowledging brick can be reached: attach it without promoting".into())
            }
            Err(_) => inherit(&self.descriptor, &self.maps, companions, node),
        };
        match result {
            Ok((slot, follow, recovered)) => {
                if let Some(inheritance) = &mut self.inheritance {
                    (inheritance.slot, inheritance.recovered) = (Some(slot), Some(recovered));
                }
                self.brick(slot).follower.on_disk = follow;
                self.replay_journal(slot);
            }
            Err(reason) => {
                let volume = &self.descriptor.volume;
                let name = self.node_name(node);
                let text = format!("volume {volume:?}: node {name} is not promoted: {reason}");
                self.stop(Phase::Stopped(text.into()));
            }
        }
    }

    /// A journal was replayed; if it is that of the follower that is to acknowledge, it is at its point now.
    pub(super) fn inherited(&mut self) {
        let recovered =
            self.inheritance.as_mut().and_then(|inheritance| inheritance.recovered.take());
        if let Some(recovered) = recovered {
            for slot in self.slots() {
                self.brick(slot).follower.restart();
            }
            self.recovered(recovered);
        }
    }

    /// The follower that is to acknowledge was given up.
    pub(super) fn inheritance_fails(&mut self, slot: Slot) {
        let is_it = |inheritance: &Inheritance| inheritance.slot == Some(slot);
        if self.phase != Phase::Serving && self.inheritance.as_ref().is_some_and(is_it) {
            let volume = &self.descriptor.volume;
            let text = format!(
                "volume {volume:?}: the follower that is to acknowledge failed: promote it again, or another one"
            );
            self.stop(Phase::Stopped(text.into()));
        }
    }

    /// The companions name another acknowledging brick than the state: who promoted it could not tell what that loses.
    pub(super) fn note_promotion(&mut self, companions: &Descriptor) {
        let state = &self.descriptor;
        let is_other = companions.in_sync.and(state.in_sync).is_empty();
        let slot = companions.in_sync.first().filter(|slot| state.following.has(*slot));
        // One that became a member in synchronous mode had everything.
        let stays = [state.mode, companions.mode] == [Mode::Asynchronous; 2];
        if self.inheritance.is_none()
            && stays
            && is_other
            && let Some(slot) = slot
        {
            let node = self.bricks[slot.index()].node;
            self.inheritance = Some(Inheritance { node, slot: Some(slot), recovered: None });
        }
    }

    /// The record says who acknowledges: what that loses is told.
    pub(super) fn report_inheritance(&mut self) {
        let Some(slot) = self.inheritance.take().and_then(|inheritance| inheritance.slot) else {
            return;
        };
        let brick = self.brick(slot);
        let (brick, node) = (brick.id, brick.node);
        let (bytes, nanoseconds) = (self.settings.most_behind_bytes, self.settings.most_behind_ns);
        self.report(Notice::Promoted { brick, node, loss: Loss::AtMost { bytes, nanoseconds } });
    }
}
