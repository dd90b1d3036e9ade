// SPDX-License-Identifier: Apache-2.0
//! Gives shards other replica sets while the volume serves.
//!
//! ```text
//!   unlisted -- litter recorded --> filling -- lacks nothing --> flushing -- flushed --> ready
//!                                      ^  gets new writes, and copies                      |
//!                                      +------- lacks something again                      v
//!   gone: old replicas are litter <------------ recorded everywhere <---------------- recording
//! ```
//! A brick that gains a shard is named as having litter there before the first byte goes to it, so that a crash leaves
//! nothing behind that nobody knows of. It counts from the record on that says so; while that is written, old and new
//! replicas get every write, and either may be believed after a crash.

use std::collections::VecDeque;

use super::{
    Volume,
    keepers::Leave,
    state::{BarrierKind, Goal, Kind, Link, Move, MoveStage, Phase, Role, Stage},
};
use crate::{
    Arrangement, BrickId, Cause, Failure, MAX_BRICKS, Moved, RequestId, Slot, SlotSet,
    extents::ExtentSet,
};

/// Shards that are on their way at once: they share the records that list and settle them.
const MOVES_AT_ONCE: usize = 16;
/// Shards that are looked at in vain before something else has to happen.
const MOST_TRIES: usize = 64;

impl Volume {
    /// Takes an order of where all shards are to be.
    pub(super) fn arrange(&mut self, request: RequestId, arrangement: Arrangement) {
        if let Err(reason) = self.check_arrangement(&arrangement) {
            return self.reply(request, Err(Failure::Refused(reason.into())));
        }
        self.end_goal(Err(Failure::Refused("another arrangement was asked for".into())));
        self.try_leavers_again();
        let Arrangement { nodes, map } = arrangement;
        let (slots, queue) = (Vec::new(), VecDeque::new());
        self.goal = Some(Goal { request, nodes, map, slots, queue, is_queued: false });
        self.moves_retry_at = None;
        self.try_moves = true;
    }

    fn check_arrangement(&self, arrangement: &Arrangement) -> Result<(), &'static str> {
        let Arrangement { nodes, map } = arrangement;
        let detaching = |b: &super::Barrier| b.kind == BarrierKind::Detach;
        let all: SlotSet =
            (0..nodes.len().min(MAX_BRICKS)).map(|index| Slot(index as u8)).collect();
        let is_twice = |index: usize| nodes[..index].contains(&nodes[index]);
        if self.phase != Phase::Serving || self.barrier.as_ref().is_some_and(detaching) {
            return Err("the volume is not attached: attach it first");
        }
        let changes = |b: &super::Barrier| matches!(b.kind, BarrierKind::Configure { .. });
        if self.barrier.as_ref().is_some_and(changes) {
            return Err("the volume's mode is being changed: try again");
        }
        if self.is_asynchronous() {
            return Err(
                "in asynchronous mode each node of the volume holds all of it: switch to synchronous first",
            );
        }
        if !self.can_reshard(map) || map.is_empty() {
            return Err(
                "shards are split and merged into ones of which one size divides the other",
            );
        }
        if nodes.len() > MAX_BRICKS || (0..nodes.len()).any(is_twice) {
            return Err("the arrangement names a node twice, or more than 64");
        }
        if map.sets().any(|set| !set.without(all).is_empty()) {
            return Err("the arrangement gives shards to nodes that it does not name");
        }
        Ok(())
    }

    /// Answers whoever asked for the present arrangement.
    pub(super) fn end_goal(&mut self, result: Result<(), Failure>) {
        self.forget_leavers();
        self.end_resharding();
        if let Some(goal) = self.goal.take() {
            self.reply(goal.request, result);
        }
    }

    /// Does what can be done for the arrangement.
    pub(super) fn pump_moves(&mut self) {
        if self.barrier.is_some() {
            return;
        }
        if std::mem::take(&mut self.try_moves)
            && let Some(goal) = self.goal.take()
        {
            let goal = self.go_on_with(goal);
            self.goal = goal;
        }
        self.pump_fills();
        let filling = |m: &Move| matches!(m.stage, MoveStage::Filling | MoveStage::Flushing);
        let ready = self.moves.iter().filter(|m| m.stage == MoveStage::Ready && self.may_settle(m));
        let ready = ready.count();
        // While nothing is copied there is nobody to wait for.
        let alone = self.is_paused() || !self.moves.iter().any(filling);
        let together = ready * 2 >= MOVES_AT_ONCE || alone;
        if ready > 0 && together && self.map_write.is_none() {
            self.want_membership = true;
        }
    }

    /// Begins moves; gives the goal back unless it is reached.
    fn go_on_with(&mut self, mut goal: Goal) -> Option<Goal> {
        let waits = self.moves_retry_at.is_some() || self.resharding.is_some();
        if !waits && !self.can_reshard(&goal.map) {
            let reason = "the volume's shards got another size meanwhile: plan anew";
            self.reply(goal.request, Err(Failure::Refused(reason.into())));
            return None;
        }
        if waits || !self.give_slots(&mut goal) || self.reshard_for(&goal, false) {
            return Some(goal);
        }
        let shards = self.shards();
        if !self.map.covers(shards) {
            self.want_map = true;
            return Some(goal);
        }
        self.map.extend(shards);
        if !std::mem::replace(&mut goal.is_queued, true) {
            self.keep_moves_to(&goal);
            goal.queue = self.misplaced(&goal);
        }
        let mut in_vain = 0;
        while self.moves.len() < MOVES_AT_ONCE && in_vain < MOST_TRIES {
            let Some(shard) = goal.queue.pop_front() else { break };
            let wanted = goal.wanted(self.shard_range(shard).0);
            if self.leads_to(shard) == wanted || shard >= shards {
                continue;
            }
            if self.is_moving(shard) || !self.begin_move(shard, wanted) {
                goal.queue.push_back(shard);
                in_vain += 1;
                if in_vain >= goal.queue.len() {
                    break;
                }
            }
        }
        if !goal.queue.is_empty() || !self.moves.is_empty() || self.reshard_for(&goal, true) {
            return Some(goal);
        }
        if self.vacate(&goal) {
            return Some(goal);
        }
        if self.map_write.is_some() || self.want_membership || self.commit.is_some() {
            return Some(goal);
        }
        let kept = self.why_kept().map(|why| Failure::Refused(why.into()));
        self.forget_leavers();
        self.reply(goal.request, kept.map_or(Ok(()), Err));
        None
    }

    /// Shards that are not where they are to be, those with the fewest copies in sync first.
    fn misplaced(&self, goal: &Goal) -> VecDeque<u64> {
        let in_sync = self.with_role(Role::InSync);
        let is_misplaced =
            |shard: &u64| self.leads_to(*shard) != goal.wanted(self.shard_range(*shard).0);
        let shards = (0..self.shards()).filter(is_misplaced);
        let mut shards: Vec<u64> = shards.collect();
        shards.sort_by_key(|shard| self.map.set(*shard).and(in_sync).len());
        shards.into()
    }

    fn is_moving(&self, shard: u64) -> bool {
        self.moves.iter().any(|m| m.shard == shard)
    }

    /// Where a shard is, or will be when its move has ended.
    fn leads_to(&self, shard: u64) -> SlotSet {
        let moving = self.moves.iter().find(|m| m.shard == shard);
        moving.map_or_else(|| self.map.set(shard), |m| m.new)
    }

    /// Begins to move a shard; false if that has to wait.
    fn begin_move(&mut self, shard: u64, new: SlotSet) -> bool {
        let old = self.map.set(shard);
        let gains = new.without(old);
        let able = |slot: Slot| {
            let brick = &self.bricks[slot.index()];
            brick.role == Role::InSync && brick.link == Link::Open && !self.is_swept(slot, shard)
        };
        if !gains.iter().all(able) {
            return false;
        }
        let (start, end) = self.shard_range(shard);
        let lacks = gains.iter().map(|slot| {
            let mut lacks = ExtentSet::default();
            lacks.insert(start, end);
            (slot, lacks, ExtentSet::default())
        });
        let (lacks, stage) = (lacks.collect(), MoveStage::Unlisted);
        for slot in gains.iter() {
            self.note_litter(slot, shard);
        }
        let stage = if gains.is_empty() { MoveStage::Ready } else { stage };
        self.want_membership |= !gains.is_empty();
        self.moves.push(Move { shard, start, end, old, new, gains, lacks, stage });
        true
    }

    pub(super) fn shards(&self) -> u64 {
        self.descriptor.size.div_ceil(self.map.shard_size())
    }

    pub(super) fn shard_range(&self, shard: u64) -> (u64, u64) {
        let start = shard.saturating_mul(self.map.shard_size());
        (start, start.saturating_add(self.map.shard_size()).min(self.descriptor.size))
    }

    /// Copies to bricks what they lack of the shards that they gain.
    pub(super) fn pump_fills(&mut self) {
        let most = u64::from(self.settings.copy_bytes.max(4096));
        for index in 0..self.moves.len() {
            while self.may_copy() {
                let Some(m) = self.moves.get_mut(index) else { return };
                if m.stage != MoveStage::Filling {
                    break;
                }
                let shard = m.shard;
                let next = m.lacks.iter_mut().find_map(|(slot, lacks, issued)| {
                    let (start, end) = lacks.next_from(0)?;
                    let end = end.min(start + most);
                    lacks.remove(start, end);
                    issued.insert(start, end);
                    Some((*slot, start, end))
                });
                let Some((slot, start, end)) = next else { break };
                self.copy_begins(end - start);
                self.submit_own(Kind::Fill { slot, shard }, start, end - start);
            }
        }
    }

    pub(super) fn issue_fill(&mut self, key: u64, slot: Slot, shard: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        let old = self.gaining(slot, shard).map(|m| m.old);
        match old.and_then(|old| self.least_busy(old)) {
            Some(source) => self.issue_copy(key, source, slot, at, step),
            None => self.fill_ended(key),
        }
    }

    pub(super) fn fill_ended(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let Kind::Fill { slot, shard } = op.kind else { return };
        op.at += op.step;
        let (start, end) = (op.offset, op.end());
        let (done, failed) = (op.at >= end, op.retry || !op.missed.is_empty());
        if !done && !failed {
            return self.begin_step(key);
        }
        if let Some((lacks, issued)) = self.gap(slot, shard) {
            // What was not copied is to be copied still.
            let left: Vec<(u64, u64)> = issued.iter().collect();
            for (from, to) in left {
                let (from, to) = (from.max(start), to.min(end));
                lacks.insert(from, to);
                issued.remove(from, to);
            }
        }
        self.copies = self.copies.saturating_sub(1);
        self.try_sweeps = true;
        self.finish(key, Ok(()));
    }

    /// A piece of a gained shard was copied.
    pub(super) fn filled(&mut self, slot: Slot, shard: u64, start: u64, end: u64) {
        if let Some((_, issued)) = self.gap(slot, shard) {
            issued.remove(start, end);
        }
    }

    fn gaining(&mut self, slot: Slot, shard: u64) -> Option<&mut Move> {
        let gains = |m: &&mut Move| {
            m.shard == shard && m.gains.has(slot) && m.stage != MoveStage::Recording
        };
        self.moves.iter_mut().find(gains)
    }

    fn gap(&mut self, slot: Slot, shard: u64) -> Option<(&mut ExtentSet, &mut ExtentSet)> {
        let m = self.gaining(slot, shard)?;
        let (_, lacks, issued) = m.lacks.iter_mut().find(|(other, _, _)| *other == slot)?;
        Some((lacks, issued))
    }

    /// Sends a client's mutation also to bricks that gain shards which it touches.
    pub(super) fn mirror(&mut self, key: u64, at: u64, len: u64) {
        for index in 0..self.moves.len() {
            let Some(m) = self.moves.get_mut(index) else { return };
            let (start, end) = (at.max(m.start), (at + len).min(m.end));
            // While it is recorded the map has old and new replicas.
            if start >= end || m.stage == MoveStage::Recording {
                continue;
            }
            let mut gets = SlotSet::EMPTY;
            for (slot, lacks, issued) in &mut m.lacks {
                if lacks.touches(start, end) || issued.touches(start, end) {
                    lacks.insert(start, end);
                } else {
                    gets.insert(*slot);
                }
            }
            for slot in gets.iter() {
                self.issue_mutation(key, slot, start, end - start);
            }
        }
    }

    /// Something changed what a range holds without the bricks that gain it.
    pub(super) fn moves_lack(&mut self, at: u64, len: u64) {
        for m in self.moves.iter_mut().filter(|m| m.stage != MoveStage::Recording) {
            let (start, end) = (at.max(m.start), (at + len).min(m.end));
            m.lacks.iter_mut().for_each(|(_, lacks, _)| lacks.insert(start, end));
            if m.stage == MoveStage::Ready && !m.lacks_nothing() {
                m.stage = MoveStage::Filling;
            }
        }
    }

    /// Whether a move waits for nothing but a flush.
    pub(super) fn moves_want_flush(&self) -> bool {
        self.moves.iter().any(|m| m.stage == MoveStage::Filling && m.lacks_nothing())
    }

    pub(super) fn flush_of_moves_begins(&mut self) {
        let whole = |m: &&mut Move| m.stage == MoveStage::Filling && m.lacks_nothing();
        self.moves.iter_mut().filter(whole).for_each(|m| m.stage = MoveStage::Flushing);
    }

    pub(super) fn flush_of_moves_ended(&mut self) {
        for m in self.moves.iter_mut().filter(|m| m.stage == MoveStage::Flushing) {
            m.stage = if m.lacks_nothing() { MoveStage::Ready } else { MoveStage::Filling };
        }
    }

    /// Whether the new replicas are as good as the old ones: whole, or the only ones that are left.
    fn may_settle(&self, m: &Move) -> bool {
        let in_sync = self.with_role(Role::InSync);
        let (old, new) = (m.old.and(in_sync).len(), m.new.and(in_sync).len());
        let is_whole = m.gains.without(in_sync).is_empty() && new >= old.min(m.new.len());
        m.lacks_nothing() && new >= 1 && (is_whole || old == 0)
    }

    /// Writes into the descriptor what the next record says of moves. One before may have come to nothing.
    pub(super) fn record_moves(&mut self) {
        self.descriptor.moved.clone_from(&self.settled_moved);
        for index in (0..self.moves.len()).rev() {
            let m = &self.moves[index];
            let (shard, old, new) = (m.shard, m.old, m.new);
            match m.stage {
                MoveStage::Unlisted | MoveStage::Listing => {
                    self.moves[index].stage = MoveStage::Listing;
                }
                MoveStage::Ready | MoveStage::Recording
                    if self.map_write.is_none()
                        && self.may_settle(m)
                        && self.map.change(shard, old.or(new)) =>
                {
                    self.moves[index].stage = MoveStage::Recording;
                    push_moved(&mut self.descriptor.moved, shard, new);
                }
                MoveStage::Recording => {
                    self.map.change(shard, old);
                    self.moves.remove(index);
                    self.move_again(shard);
                }
                _ => {}
            }
        }
        self.record_litter();
    }

    /// The record is everywhere. False if a shard has no replica now that is in sync.
    pub(super) fn moves_recorded(&mut self) -> bool {
        self.settled_moved.clone_from(&self.descriptor.moved);
        self.litter_recorded();
        let mut moved = Vec::new();
        self.moves.retain_mut(|m| {
            if m.stage == MoveStage::Listing {
                m.stage = MoveStage::Filling;
            }
            let is_done = m.stage == MoveStage::Recording;
            if is_done {
                moved.push((m.shard, m.old, m.new));
            }
            !is_done
        });
        if !moved.is_empty() {
            self.spoil(0, u64::MAX);
        }
        let in_sync = self.with_role(Role::InSync);
        let mut covered = true;
        for (shard, old, new) in moved {
            self.map.change(shard, new);
            covered &= !new.and(in_sync).is_empty();
            for slot in new.without(old).iter() {
                self.forget_litter(slot, shard);
            }
            for slot in old.without(new).iter() {
                self.note_litter(slot, shard);
            }
        }
        self.try_moves = true;
        self.try_sweeps = true;
        covered
    }

    /// A brick was given up: what it was to gain is begun anew when it is back.
    pub(super) fn moves_lose(&mut self, slot: Slot) {
        let in_sync = self.with_role(Role::InSync);
        for index in (0..self.moves.len()).rev() {
            let m = &self.moves[index];
            let gained = m.gains.has(slot);
            if m.stage == MoveStage::Recording {
                let lost = gained || m.new.and(in_sync).is_empty();
                if let Some(commit) = self.commit.as_mut().filter(|commit| !commit.storing) {
                    commit.void |= lost;
                }
            } else if gained {
                let shard = m.shard;
                self.moves.remove(index);
                self.move_again(shard);
            }
        }
    }

    /// A brick has no room for a shard that it is to gain.
    pub(super) fn gain_is_full(&mut self, slot: Slot, offset: u64) {
        let shard = offset / self.map.shard_size();
        if let Some(index) = self.moves.iter().position(|m| m.shard == shard && m.gains.has(slot)) {
            self.moves.remove(index);
            self.move_again(shard);
        }
        self.moves_retry_at = Some(self.retry_time());
    }

    fn move_again(&mut self, shard: u64) {
        if let Some(goal) = &mut self.goal {
            goal.queue.push_back(shard);
        }
        self.try_moves = true;
        self.try_sweeps = true;
    }

    /// Ends all moves that are not being recorded; what is still wanted begins anew.
    pub(super) fn abort_moves(&mut self) {
        self.moves.retain(|m| m.stage == MoveStage::Recording);
        if let Some(goal) = &mut self.goal {
            goal.is_queued = false;
        }
        self.try_moves = true;
        self.try_sweeps = true;
    }

    pub(super) fn retry_moves(&mut self) {
        let due = |at: crate::Time| at <= self.now || at > self.retry_time();
        if self.moves_retry_at.is_some_and(due) {
            self.moves_retry_at = None;
            self.try_moves = true;
            self.try_sweeps = true;
        }
    }

    /// Has the slots vacated that the goal does not have and that hold no shard; false when there is none.
    fn vacate(&mut self, goal: &Goal) -> bool {
        let holding = self.map.sets().fold(SlotSet::EMPTY, SlotSet::or);
        let mut any = false;
        self.forget_leavers();
        let keepers = self.descriptor.keepers.iter().filter(|(_, at)| !goal.nodes.contains(at));
        let keepers: Vec<BrickId> = keepers.map(|(brick, _)| *brick).collect();
        for keeper in keepers {
            any |= self.leave(keeper, goal) == Leave::Later;
        }
        for slot in self.slots().filter(|slot| !goal.slots.contains(slot) && !holding.has(*slot)) {
            let (id, role) = (self.brick(slot).id, self.brick(slot).role);
            if role == Role::Vacant {
                continue;
            }
            match self.leave(id, goal) {
                Leave::Now => {}
                Leave::Later => {
                    any = true;
                    continue;
                }
                Leave::Never => continue,
            }
            any = true;
            let brick = self.brick(slot);
            if !std::mem::replace(&mut brick.leaving, true) {
                self.want_membership = true;
                self.give_up(slot, Cause::Emptied);
            }
        }
        any
    }
}

fn push_moved(moved: &mut Vec<Moved>, shard: u64, set: SlotSet) {
    match moved.last_mut() {
        Some(last)
            if last.set == set
                && last.first + u64::from(last.count) == shard
                && last.count < u32::MAX =>
        {
            last.count += 1;
        }
        _ => moved.push(Moved { first: shard, count: 1, set }),
    }
}
