// SPDX-License-Identifier: Apache-2.0
//! Flushes in rounds: one at a time, on every brick that gets writes; who comes meanwhile is in the next one.

use super::{
    Volume,
    state::{BarrierStage, IoKind, Link, Role, Round},
};
use crate::{Action, Slot, SlotSet};

impl Volume {
    pub(super) fn pump_flush(&mut self) {
        if self.round.is_some() || self.is_headless() {
            return;
        }
        let wanted = !self.flush_requests.is_empty()
            || (!self.no_room.is_empty() && self.intent.has_unflushed())
            || self.barrier.as_ref().is_some_and(|b| b.stage == BarrierStage::Flushing)
            || self.moves_want_flush()
            || self.scrub.wants_flush()
            || self.slots().any(|slot| self.lacks_only_a_flush(slot));
        if wanted {
            self.begin_round();
        }
    }

    /// Whether a brick lacks nothing and only has to be flushed to be in sync.
    fn lacks_only_a_flush(&self, slot: Slot) -> bool {
        let brick = &self.bricks[slot.index()];
        brick.role == Role::Stale
            && brick.receiving
            && !brick.join
            && brick.copies == 0
            && brick.dirty.is_empty()
            && self.has_maps(slot)
    }

    fn begin_round(&mut self) {
        self.intent.flush_begins();
        self.flush_of_moves_begins();
        self.flush_of_mends_begins();
        let mut outstanding = SlotSet::EMPTY;
        for slot in self.slots() {
            let whole = self.lacks_only_a_flush(slot);
            let brick = self.brick(slot);
            brick.whole_at_flush = whole;
            let gets = brick.counts() || (brick.role == Role::Stale && brick.receiving);
            if !gets || brick.link != Link::Open {
                continue;
            }
            let mut volatile = std::mem::take(&mut brick.volatile);
            brick.flushing.absorb(&mut volatile);
            let brick = brick.id;
            let io = self.io(IoKind::Flush, slot, 0, 0, 0);
            outstanding.insert(slot);
            self.actions.push_back(Action::Flush { io, brick });
        }
        let requests = std::mem::take(&mut self.flush_requests);
        let missed = self.with_role(Role::Failing);
        self.round = Some(Round { requests, outstanding, missed, settling: false });
    }

    pub(super) fn flushed(&mut self, slot: Slot) {
        self.brick(slot).flushing.clear();
        if let Some(round) = &mut self.round {
            round.outstanding.remove(slot);
        }
        self.flush_answered();
    }

    pub(super) fn flush_missed(&mut self, slot: Slot) {
        self.brick(slot).whole_at_flush = false;
        if let Some(round) = &mut self.round {
            round.outstanding.remove(slot);
            round.missed.insert(slot);
        }
    }

    pub(super) fn flush_answered(&mut self) {
        let Some(round) = &mut self.round else { return };
        if !round.outstanding.is_empty() || round.settling {
            return;
        }
        round.settling = true;
        // Bricks that missed it took what they had not flushed with them when they were given up.
        self.intent.flush_ended();
        self.flush_of_moves_ended();
        self.flush_of_mends_ended();
        for slot in self.slots() {
            if self.lacks_only_a_flush(slot) && self.brick(slot).whole_at_flush {
                self.brick(slot).join = true;
                self.want_membership = true;
            }
        }
        self.settle_flush();
        self.wake_no_room();
    }

    /// Ends the round once it is recorded who missed it.
    pub(super) fn settle_flush(&mut self) {
        let failing = self.with_role(Role::Failing);
        let Some(round) = self.round.take_if(|round| {
            let missed = !round.missed.and(failing).is_empty();
            round.settling && !(missed && self.protections.stale_before_acknowledge)
        }) else {
            return;
        };
        for request in round.requests {
            self.reply(request, Ok(()));
        }
        self.barrier_flushed();
    }
}
