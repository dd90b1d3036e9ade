// SPDX-License-Identifier: Apache-2.0
//! Frees what bricks hold of shards that they are no replicas of.

use super::{
    Volume,
    state::{IoKind, Kind, Link, Rest, RestStage, Role, Stage},
};
use crate::{Action, Litter, Slot, ZeroKind};

impl Volume {
    /// A brick has, or will have, something of a shard that it is no replica of.
    pub(super) fn note_litter(&mut self, slot: Slot, shard: u64) {
        match self.litter.get_mut(&(slot, shard)) {
            // It was freed, and will have something again.
            Some(rest) if rest.stage != RestStage::Sweeping => *rest = Rest::default(),
            Some(_) => {}
            None => {
                self.litter.insert((slot, shard), Rest::default());
            }
        }
        self.try_sweeps = true;
    }

    /// A brick may have something of all shards in a range that it is no replica of.
    pub(super) fn note_litter_within(&mut self, slot: Slot, start: u64, end: u64) {
        let size = self.map.shard_size();
        for shard in start / size..end.div_ceil(size) {
            if self.bricks[slot.index()].role != Role::Vacant && !self.map.set(shard).has(slot) {
                self.note_litter(slot, shard);
            }
        }
    }

    pub(super) fn forget_litter(&mut self, slot: Slot, shard: u64) {
        self.litter.remove(&(slot, shard));
    }

    /// The slot has another brick, or none.
    pub(super) fn forget_litter_of(&mut self, slot: Slot) {
        self.litter.retain(|(other, _), _| *other != slot);
    }

    /// The volume is smaller: its bricks hold nothing past its end.
    pub(super) fn forget_litter_past_end(&mut self) {
        let shards = self.shards();
        self.litter.retain(|(_, shard), _| *shard < shards);
    }

    /// Whether a brick is being freed of a shard right now.
    pub(super) fn is_swept(&self, slot: Slot, shard: u64) -> bool {
        self.litter.get(&(slot, shard)).is_some_and(|rest| rest.stage == RestStage::Sweeping)
    }

    pub(super) fn restore_litter(&mut self) {
        self.litter.clear();
        let litter = self.descriptor.litter.iter().flat_map(Litter::shards);
        self.litter.extend(litter.map(|of_shard| (of_shard, Rest::default())));
        // The record that made the volume smaller was written before anything past its end was forgotten.
        self.forget_litter_past_end();
        self.try_sweeps = true;
    }

    /// Writes into the descriptor what the next record says of litter.
    pub(super) fn record_litter(&mut self) {
        let mut listed: Vec<Litter> = Vec::new();
        let mut list = |slot: Slot, shard: u64| Litter::push(&mut listed, slot, shard);
        let recorded: Vec<_> = self.moves.iter().filter(|m| m.is_recorded()).collect();
        let gains =
            |slot: Slot, shard: u64| recorded.iter().any(|m| m.shard == shard && m.gains.has(slot));
        // Who leaves takes everything along.
        let stays = |slot: Slot| !self.descriptor.bricks[slot.index()].vacant;
        for ((slot, shard), rest) in self.litter.iter_mut().filter(|((slot, _), _)| stays(*slot)) {
            if matches!(rest.stage, RestStage::Swept | RestStage::Dropping) {
                rest.stage = RestStage::Dropping;
            } else if !gains(*slot, *shard) {
                list(*slot, *shard);
            }
        }
        for m in recorded {
            m.old.without(m.new).iter().for_each(|slot| list(slot, m.shard));
        }
        self.descriptor.litter = listed;
    }

    pub(super) fn litter_recorded(&mut self) {
        self.litter.retain(|_, rest| rest.stage != RestStage::Dropping);
    }

    pub(super) fn pump_sweeps(&mut self) {
        let rests = self.barrier.is_some() || self.resharding.is_some();
        if rests || !std::mem::take(&mut self.try_sweeps) {
            return;
        }
        let mut found = Vec::new();
        let room = self.settings.copies_in_flight.saturating_sub(self.copies);
        let mut room = if self.may_copy() { room } else { 0 };
        for ((slot, shard), rest) in &mut self.litter {
            if room == 0 {
                // Whoever ends a copy, or allows more, comes here again.
                break;
            }
            let brick = &self.bricks[slot.index()];
            let gains = self.moves.iter().any(|m| m.shard == *shard && m.gains.has(*slot));
            // A read that began while the brick was a replica must not see it empty.
            let (start, end) = (shard * self.map.shard_size(), (shard + 1) * self.map.shard_size());
            let is_read = self.ios.iter().any(|(_, io)| {
                let here = io.slot == *slot && io.offset < end && start < io.offset + io.len;
                matches!(io.kind, IoKind::Read | IoKind::Digest) && here && !io.abandoned
            });
            let able = brick.role == Role::InSync && brick.link == Link::Open && !gains && !is_read;
            if able && rest.stage == RestStage::Waiting && !self.map.set(*shard).has(*slot) {
                rest.stage = RestStage::Sweeping;
                found.push((*slot, *shard, rest.done));
                room -= 1;
            }
        }
        for (slot, shard, done) in found {
            let (start, end) = self.shard_range(shard);
            let most = u64::from(self.settings.copy_bytes.max(4096));
            let (from, to) = (start + done, end.min(start + done + most));
            if from >= to {
                self.swept(slot, shard, Some(0));
                continue;
            }
            self.copy_begins(to - from);
            self.submit_own(Kind::Sweep { slot, shard }, from, to - from);
        }
        let is = |stage| self.litter.values().any(|rest| rest.stage == stage);
        if is(RestStage::Swept) && !is(RestStage::Sweeping) {
            self.want_membership = true;
        }
    }

    pub(super) fn issue_sweep(&mut self, key: u64, slot: Slot, shard: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        let brick = &self.bricks[slot.index()];
        let able = brick.role == Role::InSync && brick.link == Link::Open;
        if !able || !self.is_swept(slot, shard) {
            return self.sweep_ended(key, false);
        }
        let brick = brick.id;
        let io = self.io(IoKind::Mutate, slot, key, at, step);
        self.expect(key, 1);
        // Durable: it is forgotten as soon as it is done.
        let how = ZeroKind::Discard;
        self.actions.push_back(Action::Zero { io, brick, offset: at, len: step, how, fua: true });
    }

    pub(super) fn sweep_answered(&mut self, key: u64) {
        let Some(op) = self.ops.get(key) else { return };
        let went_well = op.missed.is_empty() && op.full.is_empty();
        self.sweep_ended(key, went_well);
    }

    fn sweep_ended(&mut self, key: u64, went_well: bool) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let Kind::Sweep { slot, shard } = op.kind else { return };
        op.at += op.step;
        if went_well && op.at < op.end() {
            return self.begin_step(key);
        }
        let swept = went_well.then_some(op.len);
        if !op.full.is_empty() {
            self.moves_retry_at = Some(self.retry_time());
        }
        self.copies = self.copies.saturating_sub(1);
        self.swept(slot, shard, swept);
        self.finish(key, Ok(()));
    }

    /// A piece was freed, or not.
    fn swept(&mut self, slot: Slot, shard: u64, bytes: Option<u64>) {
        // Even if the brick has left meanwhile: others may wait for the room of this one.
        self.try_sweeps = true;
        self.try_moves = true;
        let (start, end) = self.shard_range(shard);
        let Some(rest) = self.litter.get_mut(&(slot, shard)) else { return };
        rest.done += bytes.unwrap_or_default();
        let whole = bytes.is_some() && start + rest.done >= end;
        rest.stage = if whole { RestStage::Swept } else { RestStage::Waiting };
    }
}
