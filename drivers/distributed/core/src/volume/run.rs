// SPDX-License-Identifier: Apache-2.0
//! Issues an operation's step to the bricks, and decides what its answers together mean.

use super::{
    Volume,
    log::EntryState,
    state::{IoKind, Kind, Link, Op, Role, Stage},
};
use crate::{Action, Failure, Slot, SlotSet};

impl Volume {
    /// Sends a read to the in-sync brick that is least busy.
    pub(super) fn issue_read(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        op.retry = false;
        op.point = None;
        let (offset, len) = (op.offset, op.len);
        self.forget_told(key);
        if self.read_follower(key) {
            return;
        }
        if self.is_headless() {
            return self.read_headless(key);
        }
        let pieces = self.pieces(offset, len);
        for (offset, len, set) in pieces {
            let set = self.readable(set, offset, offset + len);
            let Some(first) = self.least_busy(set) else { continue };
            let second = self.second_opinion(set, first);
            for slot in std::iter::once(first).chain(second) {
                self.issue_read_piece(key, slot, (offset, len), second.is_some());
            }
        }
    }

    /// Sends all of a read to one brick.
    pub(super) fn issue_read_at(&mut self, key: u64, slot: Slot) {
        if let Some((offset, len)) = self.ops.get(key).map(|op| (op.offset, op.len)) {
            self.issue_read_piece(key, slot, (offset, len), false);
        }
    }

    fn issue_read_piece(
        &mut self,
        key: u64,
        slot: Slot,
        (offset, len): (u64, u64),
        wants_digest: bool,
    ) {
        let Some(request) = self.ops.get(key).and_then(|op| op.request) else { return };
        self.brick(slot).reads += 1;
        let brick = self.brick(slot).id;
        let io = self.io(IoKind::Read, slot, key, offset, len);
        self.expect(key, 1);
        let len = len as u32;
        self.actions.push_back(Action::Read { io, brick, request, offset, len, wants_digest });
    }

    /// The pieces of a range, without allocating for the usual one.
    pub(super) fn pieces(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = (u64, u64, SlotSet)> + use<> {
        let mut pieces = self.map.pieces(offset, len);
        let first = pieces.next();
        let rest: Vec<_> = pieces.collect();
        first.into_iter().chain(rest)
    }

    /// An in-sync brick of a set; equally busy ones take turns.
    pub(super) fn least_busy(&mut self, set: SlotSet) -> Option<Slot> {
        self.turn = self.turn.wrapping_add(1);
        let count = self.bricks.len() as u64;
        let ready = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            brick.role == Role::InSync && brick.link == Link::Open
        };
        let load = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            let is_shunned = !self.shunned.is_empty() && self.shunned.contains(&brick.node);
            (is_shunned, brick.reads, (u64::from(slot.0) + self.turn) % count)
        };
        set.iter().filter(ready).min_by_key(load)
    }

    pub(super) fn expect(&mut self, key: u64, more: u32) {
        if let Some(op) = self.ops.get_mut(key) {
            op.outstanding += more;
        }
    }

    /// Issues a write or zero step: its regions are committed.
    pub(super) fn run(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        self.log_step(key);
        let is_asynchronous = self.is_asynchronous();
        for (offset, len, set) in self.pieces(at, step) {
            for slot in set.iter() {
                let brick = self.brick(slot);
                let gets = match brick.role {
                    Role::InSync | Role::Joining => true,
                    Role::Failing => {
                        brick.dirty.insert(offset, offset + len);
                        self.miss(key, slot);
                        false
                    }
                    Role::Stale if is_asynchronous => {
                        self.note_for_follower(slot, offset, len);
                        false
                    }
                    Role::Stale => {
                        let gets = brick.receiving && !brick.dirty.touches(offset, offset + len);
                        if !gets {
                            brick.dirty.insert(offset, offset + len);
                        }
                        gets
                    }
                    Role::Vacant => false,
                };
                if gets {
                    self.issue_mutation(key, slot, offset, len);
                }
            }
        }
        if !self.moves.is_empty() {
            self.mirror(key, at, step);
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.progress(key);
        }
    }

    pub(super) fn issue_mutation(&mut self, key: u64, slot: Slot, offset: u64, len: u64) {
        let Some(op) = self.ops.get(key) else { return };
        let (kind, request) = (op.kind, op.request);
        let brick = self.brick(slot).id;
        let io = self.io(IoKind::Mutate, slot, key, offset, len);
        let action = match (kind, request) {
            (Kind::Write { fua }, Some(request)) => {
                Action::Write { io, brick, request, offset, len: len as u32, fua }
            }
            (Kind::Zero { how, fua }, _) => Action::Zero { io, brick, offset, len, how, fua },
            _ => return,
        };
        self.expect(key, 1);
        self.actions.push_back(action);
    }

    pub(super) fn miss(&mut self, key: u64, slot: Slot) {
        if let Some(op) = self.ops.get_mut(key) {
            op.missed.insert(slot);
        }
    }

    /// One answer of an operation is in; with the last one, decides.
    pub(super) fn answered(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.outstanding = op.outstanding.saturating_sub(1);
        if op.outstanding == 0 {
            self.progress(key);
        }
    }

    fn progress(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        match op.kind {
            Kind::Read if op.retry => {
                // The range may have a writer by now.
                op.stage = Stage::Queued;
                self.waiting.push_back(key);
                self.wake_waiting();
            }
            Kind::Read => {
                if !self.agrees(key) {
                    return self.doubt(key);
                }
                // What was read may be freed now.
                self.try_sweeps = true;
                self.finish(key, Ok(()));
            }
            Kind::Resync { .. } => self.resync_ended(key),
            Kind::Fill { .. } => self.fill_ended(key),
            Kind::Sweep { .. } => self.sweep_answered(key),
            Kind::Level { .. } => self.level_ended(key),
            Kind::Verify => self.compared(key),
            Kind::Doubt => self.doubt_answered(key),
            Kind::Digest => self.examined(key),
            Kind::Mend { .. } => self.mended(key),
            Kind::Repair { .. } if op.retry => {
                let reason = "the source could not be read: choose another one".into();
                self.finish(key, Err(Failure::Refused(reason)));
            }
            Kind::Write { .. } | Kind::Zero { .. } | Kind::Repair { .. } => {
                let unequal = op.stage == Stage::Running && !op.full.is_empty();
                if unequal || op.retry {
                    return self.level_step(key);
                }
                self.settle(key);
            }
        }
    }

    /// Ends a step once it is recorded who missed it.
    pub(super) fn settle(&mut self, key: u64) {
        let failing = self.with_role(Role::Failing);
        let Some(op) = self.ops.get_mut(key) else { return };
        if !op.missed.and(failing).is_empty() && self.protections.stale_before_acknowledge {
            op.stage = Stage::Settling;
            self.settling.push(key);
            return;
        }
        let full = !op.full.is_empty();
        if std::mem::take(&mut op.holds) {
            self.intent.release(op.at, op.step, true);
        }
        if !full {
            let step = (op.step_entry, op.last_entry);
            self.log.ended(key, step, EntryState::Done, self.now);
        }
        op.at += op.step;
        let done = op.at >= op.end();
        if full {
            self.finish(key, Err(Failure::NoSpace));
        } else if done {
            self.finish(key, Ok(()));
        } else {
            self.begin_step(key);
        }
    }

    /// Gives every in-sync brick what a full one has, so that they are equal again. Overwriting what is there needs no
    /// space on the others; the client learns that nothing, or not all, was written.
    fn level_step(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        // Some have what the one before gave that then failed, and the full one may have left the shard.
        let is_again = op.stage == Stage::Leveling;
        op.stage = Stage::Leveling;
        op.retry = false;
        let (at, step, full) = (op.at, op.step, op.full);
        self.moves_lack(at, step);
        for (offset, len, set) in self.pieces(at, step) {
            let members = set.and(self.counting());
            let source = full.and(members).first().or(members.first());
            let is_unequal = is_again || !full.and(set).is_empty();
            let Some(source) = source.filter(|_| is_unequal) else { continue };
            for target in set.without(SlotSet::only(source)).iter() {
                if members.has(target) {
                    self.issue_copy(key, source, target, offset, len);
                } else {
                    self.brick(target).dirty.insert(offset, offset + len);
                }
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.settle(key);
        }
    }

    /// Issues copies of one range; they are split so that each has a 32-bit length.
    pub(super) fn issue_copy(&mut self, key: u64, from: Slot, to: Slot, offset: u64, len: u64) {
        let end = offset + len;
        let most = u64::from(self.settings.copy_bytes.max(4096));
        let check = self.protections.incarnation_check;
        let source_incarnation = self.brick(from).incarnation.filter(|_| check);
        let (source, target) = (self.brick(from).id, self.brick(to).id);
        let mut at = offset;
        while at < end {
            let len = most.min(end - at);
            let io = self.io(IoKind::Copy { from }, to, key, at, len);
            self.expect(key, 1);
            let len = len as u32;
            self.actions.push_back(Action::Copy {
                io,
                from: source,
                source_incarnation,
                to: target,
                offset: at,
                len,
            });
            at += u64::from(len);
        }
    }

    /// Issues a repair step. It is no intent: a crash would have the region leveled, from a replica that may be the bad
    /// one. Without intent the replicas differ after a crash where they did before.
    pub(super) fn issue_repair(&mut self, key: u64, source: Slot) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        self.moves_lack(at, step);
        let members = self.counting();
        // Shards may have moved away from it since it was chosen.
        let has_all = self.map.pieces(at, step).all(|(_, _, set)| set.has(source));
        if !members.has(source) || !has_all || self.brick(source).role != Role::InSync {
            let reason =
                format!("slot {} has no replica in sync: choose a source that has", source.0);
            return self.finish(key, Err(Failure::Refused(reason.into())));
        }
        for (offset, len, set) in self.pieces(at, step) {
            for target in set.without(SlotSet::only(source)).iter() {
                if members.has(target) {
                    self.issue_copy(key, source, target, offset, len);
                } else {
                    self.brick(target).dirty.insert(offset, offset + len);
                }
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.settle(key);
        }
    }

    pub(super) fn issue_compare(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        let members = self.with_role(Role::InSync);
        for (offset, len, set) in self.pieces(at, step) {
            let slots: Vec<Slot> = set.and(members).iter().collect();
            let Some(first) = slots.first().filter(|_| slots.len() > 1) else { continue };
            let io = self.io(IoKind::Compare, *first, key, offset, len);
            self.expect(key, 1);
            let bricks = slots.iter().map(|slot| (*slot, self.bricks[slot.index()].id)).collect();
            self.actions.push_back(Action::Compare { io, bricks, offset, len: len as u32 });
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.compared(key);
        }
    }

    fn compared(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.at += op.step;
        let (done, differs, failed) = (op.at >= op.end(), op.differs, op.retry);
        if failed {
            let reason = "a replica could not be read, or left: verify again".into();
            self.finish(key, Err(Failure::Refused(reason)));
        } else if !differs.is_empty() {
            self.finish(key, Err(Failure::Differs(differs)));
        } else if done {
            self.finish(key, Ok(()));
        } else {
            self.begin_step(key);
        }
    }

    /// Queues an operation of the volume's own.
    pub(super) fn submit_own(&mut self, kind: Kind, offset: u64, len: u64) {
        self.submit(Op::new(kind, None, offset, len));
    }
}
