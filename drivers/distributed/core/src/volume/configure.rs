// SPDX-License-Identifier: Apache-2.0
//! Changes of how a volume replicates, while it serves.
//!
//! To asynchronous: once nothing is under way, all replicas in sync are equal; a record then names the one that
//! acknowledges, and the others follow from there. To synchronous: once followers have everything, a record names them
//! all in sync.

use super::{
    Volume,
    followers::FollowStage,
    state::{Barrier, BarrierKind, BarrierStage, Link, Phase, Role},
};
use crate::{Configuration, Failure, Mode, RequestId, Slot, SlotSet};

impl Volume {
    /// Takes a wish to behave otherwise.
    pub(super) fn configure(&mut self, request: RequestId, configuration: Configuration) {
        match self.check_configuration(&configuration) {
            Err(reason) => self.reply(request, Err(Failure::Refused(reason.into()))),
            Ok(()) if configuration.mode == self.descriptor.mode => {
                self.apply_configuration(&configuration);
                self.reply(request, Ok(()));
            }
            Ok(()) => {
                let (kind, stage) =
                    (BarrierKind::Configure { configuration }, BarrierStage::Draining);
                let (outstanding, full, resized) = (0, false, false);
                self.barrier = Some(Barrier { request, kind, stage, outstanding, full, resized });
            }
        }
    }

    fn check_configuration(&self, configuration: &Configuration) -> Result<(), &'static str> {
        if self.phase != Phase::Serving {
            return Err("the volume is not attached: attach it first");
        }
        if self.is_headless() {
            return Err("the acknowledging brick is gone: promote a follower first");
        }
        if self.barrier.is_some() || self.snapping.is_some() {
            return Err("the volume is being resized, detached, or a snapshot is taken: try again");
        }
        let chosen = configuration.acknowledging.map(|node| {
            self.slots().find(|slot| {
                let brick = &self.bricks[slot.index()];
                brick.node == node && brick.role == Role::InSync && brick.link == Link::Open
            })
        });
        if chosen == Some(None) {
            return Err(
                "the node that is to acknowledge has no replica in sync: in asynchronous mode switch to \
                        synchronous first, else wait until it is in sync",
            );
        }
        if configuration.mode == Mode::Asynchronous && self.descriptor.mode == Mode::Synchronous {
            let all =
                self.slots().filter(|s| self.bricks[s.index()].role != Role::Vacant).collect();
            let is_whole = self.map.sets().all(|set| set == all)
                && self.goal.is_none()
                && self.moves.is_empty()
                && self.litter.is_empty();
            if !is_whole {
                return Err(
                    "in asynchronous mode each node of the volume holds all of it: arrange its shards so, wait \
                            until they are moved, and switch then",
                );
            }
        }
        Ok(())
    }

    fn apply_configuration(&mut self, configuration: &Configuration) {
        self.settings.min_in_sync = configuration.min_in_sync.max(1);
        self.settings.shortage = configuration.shortage;
        self.settings.most_behind_bytes = configuration.most_behind_bytes;
        self.settings.most_behind_ns = configuration.most_behind_ns;
        if self.barrier.is_none() {
            self.wake_short();
        }
    }

    /// Nothing is under way: the next record says the new mode.
    pub(super) fn change_mode(&mut self, configuration: &Configuration) {
        self.descriptor.mode = configuration.mode;
        match configuration.mode {
            Mode::Asynchronous => self.leave_to_follow(configuration),
            Mode::Synchronous => self.join_from_following(),
        }
        if let Some(barrier) = &mut self.barrier {
            barrier.stage = BarrierStage::Recording;
        }
        self.want_membership = true;
    }

    fn leave_to_follow(&mut self, configuration: &Configuration) {
        let in_sync = self.with_role(Role::InSync);
        let chosen = in_sync.iter().find(|slot| {
            configuration.acknowledging.is_none_or(|node| self.bricks[slot.index()].node == node)
        });
        // One that was chosen and left meanwhile: any other is as good.
        let Some(head) = chosen.or(in_sync.first()) else { return };
        for slot in in_sync.without(SlotSet::only(head)).iter() {
            let mut unflushed = self.unflushed();
            let brick = self.brick(slot);
            brick.role = Role::Failing;
            brick.volatile.absorb(&mut unflushed);
            brick.follower.restart();
        }
        for slot in self.with_role(Role::Stale).iter() {
            let brick = self.brick(slot);
            brick.follower.restart();
            // A flush that ends before the record is there must not take it back.
            (brick.join, brick.receiving) = (false, false);
        }
    }

    fn join_from_following(&mut self) {
        for slot in self.following().iter() {
            self.brick(slot).join = true;
        }
    }

    /// The record that says the new mode is everywhere.
    pub(super) fn mode_changed(&mut self, configuration: &Configuration) {
        self.apply_configuration(configuration);
        self.trim_log();
        for slot in self.slots() {
            let brick = self.brick(slot);
            let is_open = brick.role == Role::Stale && brick.link == Link::Open;
            match configuration.mode {
                Mode::Asynchronous if is_open => {
                    brick.receiving = false;
                    self.follow(slot);
                }
                Mode::Synchronous => self.stop_following(slot, is_open),
                Mode::Asynchronous => {}
            }
        }
    }

    fn stop_following(&mut self, slot: Slot, is_open: bool) {
        let brick = self.brick(slot);
        brick.follower.stage = FollowStage::Lacking;
        if is_open {
            self.receive(slot);
        }
    }
}
