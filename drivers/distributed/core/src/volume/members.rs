// SPDX-License-Identifier: Apache-2.0
//! Gives bricks up, takes them back, and replaces those that cannot be taken back.

use super::{
    Volume,
    state::{Brick, Io, IoKind, Link, Phase, Role},
};
use crate::{
    Action, BrickId, Cause, MapPlace, NodeId, Notice, Outcome, Record, Session, Slot, SlotSet,
    Time, extents::ExtentSet,
};

impl Volume {
    /// A brick did not do what it was asked. Nothing is sent to it until it is opened anew.
    pub(super) fn give_up(&mut self, slot: Slot, cause: Cause) {
        if self.is_over() {
            return;
        }
        let role = self.brick(slot).role;
        let is_headless_now =
            role == Role::InSync && !self.is_covered_without(slot) && self.has_heirs();
        if role == Role::InSync && !self.is_covered_without(slot) && !is_headless_now {
            let text = self.last_copy_text(slot, cause);
            return self.stop(Phase::Stopped(text.into()));
        }
        if is_headless_now {
            self.lose_head(slot, cause);
        }
        let now = self.now;
        let retry_at = self.retry_after_setback(slot);
        let unflushed = (role == Role::InSync).then(|| self.unflushed());
        if role == Role::InSync && self.phase == Phase::Leveling {
            // It may differ where it was not leveled yet.
            self.lacks_intent(slot);
        }
        let brick = self.brick(slot);
        match role {
            Role::InSync | Role::Joining => {
                if let Some(mut unflushed) = unflushed {
                    brick.volatile.absorb(&mut unflushed);
                }
                brick.role = Role::Failing;
            }
            Role::Failing | Role::Stale | Role::Vacant => {}
        }
        brick.join = false;
        brick.keeping = None;
        brick.receiving = false;
        brick.whole_at_flush = false;
        brick.retry_at = retry_at;
        brick.cause = Some((cause, now));
        let (id, node) = (brick.id, brick.node);
        if matches!(role, Role::InSync | Role::Joining) {
            self.want_membership = true;
            self.report(Notice::Stale { brick: id, node, cause });
        }
        self.joins_no_more(slot);
        self.moves_lose(slot);
        self.follower_lost(slot);
        self.promotion_fails(slot);
        self.abandon(slot);
        if is_headless_now {
            self.head_lost();
        }
        if self.is_asynchronous() {
            self.inheritance_fails(slot);
            self.check_heirs();
        }
        if role == Role::InSync && self.phase == Phase::Leveling {
            self.begin_leveling();
        }
    }

    /// What an in-sync brick may not have flushed: what the log says, and what is being written.
    pub(super) fn unflushed(&self) -> ExtentSet {
        let mut set = self.intent.unflushed();
        for (_, op) in self.ops.iter().filter(|(_, op)| op.holds) {
            set.insert(op.at, op.at + op.step);
        }
        set.remove(self.descriptor.size, u64::MAX);
        set
    }

    pub(super) fn is_covered_without(&self, slot: Slot) -> bool {
        let left = self.with_role(Role::InSync).without(SlotSet::only(slot));
        self.map.sets().all(|set| !set.and(left).is_empty())
    }

    fn last_copy_text(&self, slot: Slot, cause: Cause) -> String {
        let brick = &self.bricks[slot.index()];
        let others: Vec<String> = (0..)
            .map(Slot)
            .zip(&self.bricks)
            .filter(|(other, brick)| *other != slot && brick.role != Role::Vacant)
            .map(|(_, brick)| match brick.cause {
                Some((cause, at)) => {
                    format!(
                        "{} ({cause}, {} s after it was attached)",
                        self.node_name(brick.node),
                        at.0 / 1_000_000_000
                    )
                }
                None => self.node_name(brick.node),
            })
            .collect();
        format!(
            "volume {:?}: the last in-sync copy is gone: node {} (brick {}): {cause}, {} s after it was attached. Given up before: {}. \
             At risk: writes that were not flushed ({} bytes). Bring node {} back and attach again; if it is lost for \
             good, the others have older data only",
            self.descriptor.volume,
            self.node_name(brick.node),
            brick.id,
            self.now.0 / 1_000_000_000,
            if others.is_empty() { "none".to_owned() } else { others.join(", ") },
            self.unflushed().bytes(),
            self.node_name(brick.node),
        )
    }

    pub(super) fn node_up(&mut self, node: NodeId) {
        let now = self.now;
        self.held_nodes.remove(&node);
        self.setbacks.remove(&node);
        for brick in self.bricks.iter_mut().filter(|brick| brick.node == node) {
            brick.retry_at = now;
        }
    }

    pub(super) fn node_down(&mut self, node: NodeId) {
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            if brick.node != node || brick.link != Link::Open || self.is_over() {
                continue;
            }
            // A check is hearsay: the last copy goes only when it fails itself.
            if brick.role != Role::InSync || self.is_covered_without(slot) {
                self.give_up(slot, Cause::NodeDown);
            }
        }
    }

    /// Tries to reach every stale brick that is due.
    pub(super) fn open_bricks(&mut self) {
        if self.barrier.is_some() {
            return;
        }
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            if !self.wants_opening(brick) || self.opens_at(brick) > self.now {
                continue;
            }
            if brick.created {
                self.open(slot);
            } else {
                self.create(slot);
            }
        }
    }

    fn create(&mut self, slot: Slot) {
        let size = self.descriptor.size;
        let brick = self.brick(slot);
        brick.link = Link::Creating;
        let (brick, node) = (brick.id, brick.node);
        let io = self.io(IoKind::Create, slot, 0, 0, 0);
        self.actions.push_back(Action::Create { io, brick, node, size });
    }

    pub(super) fn created(&mut self, io: &Io, outcome: &Outcome) {
        if *outcome == Outcome::Unknown {
            *self.creating.entry(io.brick).or_default() += 1;
        }
        let retry_at = self.retry_time();
        let brick = self.brick(io.slot);
        if brick.id != io.brick {
            return self.replay_created(io, outcome);
        }
        brick.link = Link::Closed;
        if *outcome == Outcome::Ok {
            brick.created = true;
        } else {
            brick.retry_at = retry_at;
        }
    }

    /// A creation whose end was unknown has ended.
    pub(super) fn created_late(&mut self, brick: BrickId) {
        if let Some(count) = self.creating.get_mut(&brick) {
            *count -= 1;
            if *count == 0 {
                self.creating.remove(&brick);
            }
        }
        self.delete_condemned();
    }

    /// Begins a session with a brick.
    pub(super) fn open(&mut self, slot: Slot) {
        let (epoch, size) = (self.descriptor.epoch, self.descriptor.size);
        let brick = self.brick(slot);
        brick.link = Link::Opening;
        brick.opening += 1;
        let session = Session { epoch, opening: brick.opening };
        let (brick, node) = (brick.id, brick.node);
        let io = self.io(IoKind::Open, slot, 0, 0, 0);
        self.actions.push_back(Action::Open { io, brick, node, session, size });
    }

    pub(super) fn opened(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) {
        let slot = io.slot;
        if self.brick(slot).id != io.brick {
            return self.keeper_opened(io, incarnation, outcome);
        }
        if self.brick(slot).link != Link::Opening {
            return;
        }
        let attaching = self.phase == Phase::Opening;
        let Outcome::Opened { fenced } = *outcome else {
            self.brick(slot).link = Link::Closed;
            self.brick(slot).retry_at = self.retry_time();
            if *outcome == Outcome::NotFound {
                self.not_found(slot);
            }
            return self.opening_ended();
        };
        let (check, late_write_rule) =
            (self.protections.incarnation_check, self.protections.late_write_rule);
        let brick = self.brick(slot);
        let old_writes = brick.unknown > 0 || brick.foreign;
        if fenced {
            brick.unknown = 0;
            brick.fenced_before = brick.opening;
            brick.foreign = false;
            self.snapshots_fenced(io.brick);
        }
        let brick = self.brick(slot);
        let restarted = brick.incarnation != Some(incarnation);
        brick.incarnation = Some(incarnation);
        if restarted && check {
            let (mut lost, mut flushing) =
                (std::mem::take(&mut brick.volatile), std::mem::take(&mut brick.flushing));
            brick.dirty.absorb(&mut lost);
            brick.dirty.absorb(&mut flushing);
        }
        let doubtful = !fenced && old_writes;
        if attaching && doubtful && !self.settings.accept_unfenced {
            self.brick(slot).link = Link::Closed;
            return self.opening_ended();
        }
        if !attaching && doubtful && late_write_rule {
            return self.replace(slot, Cause::Unknown);
        }
        let is_fresh = self.descriptor.bricks[slot.index()].fresh;
        if is_fresh && !self.is_asynchronous() {
            return self.receive(slot);
        }
        let brick = self.brick(slot);
        brick.link = Link::Checking;
        let brick = brick.id;
        let io = self.io(IoKind::Check, slot, 0, 0, 0);
        self.actions.push_back(Action::ReadCompanion { io, brick });
    }

    fn not_found(&mut self, slot: Slot) {
        if self.descriptor.bricks[slot.index()].fresh {
            self.brick(slot).created = false;
        } else if self.phase == Phase::Serving {
            self.replace(slot, Cause::NotFound);
        } else {
            self.brick(slot).cause = Some((Cause::NotFound, self.now));
        }
    }

    /// A companion was read.
    pub(super) fn checked(&mut self, io: &Io, incarnation: u64, outcome: Outcome) {
        let slot = io.slot;
        if self.brick(slot).id != io.brick || self.brick(slot).link != Link::Checking {
            return;
        }
        let same = io.incarnation == Some(incarnation) || !self.protections.incarnation_check;
        let Outcome::Companion(bytes) = outcome else {
            self.brick(slot).link = Link::Closed;
            self.brick(slot).retry_at = self.retry_time();
            if outcome == Outcome::NotFound && self.phase == Phase::Serving {
                self.replace(slot, Cause::Companion);
            }
            return self.opening_ended();
        };
        if !same {
            self.brick(slot).link = Link::Closed;
            self.brick(slot).retry_at = self.retry_time();
            return self.opening_ended();
        }
        let record = Record::newest(&bytes);
        if let Ok(record) = &record {
            let (version, at, bytes) = (record.descriptor.map, record.map_at, record.map_bytes);
            let base = (bytes > 0).then_some(MapPlace { version, at, bytes });
            let brick = self.brick(slot);
            brick.sequence = record.sequence + 1;
            brick.kept = base.into_iter().chain(record.snapshot_maps.iter().copied()).collect();
            brick.follower.on_disk = record.follow.clone();
        }
        if self.phase == Phase::Opening {
            self.brick(slot).link = Link::Open;
            self.companions.push((slot, record));
            return self.opening_ended();
        }
        let entry = self.descriptor.bricks[slot.index()];
        if entry.fresh && matches!(record, Err(crate::DecodeError::Empty)) {
            return self.receive(slot);
        }
        let is_ours = record.as_ref().is_ok_and(|record| {
            record.descriptor.identity == self.descriptor.identity
                && record.brick == entry.brick
                && record.descriptor.generation >= entry.left
        });
        if matches!(record, Err(crate::DecodeError::TooNew)) {
            self.brick(slot).link = Link::Closed;
            self.brick(slot).retry_at = self.retry_time();
        } else if is_ours {
            self.receive(slot);
        } else {
            self.replace(slot, Cause::Companion);
        }
    }

    /// From now on the brick gets new writes, and copies of what it lacks.
    pub(super) fn receive(&mut self, slot: Slot) {
        if self.is_asynchronous() {
            return self.follow(slot);
        }
        if self.bricks[slot.index()].follower.on_disk.point.is_some() {
            self.brick(slot).link = Link::Open;
            return self.mark(slot);
        }
        let brick = self.brick(slot);
        brick.link = Link::Open;
        brick.receiving = true;
        brick.copy_cursor = (0, 0);
        brick.copied = 0;
        let (brick, bytes) = (brick.id, brick.dirty.bytes());
        self.report(Notice::ResyncStarted { brick, bytes });
    }

    /// Gives the slot a fresh brick. The state knows it before it is created, so that it is never an orphan.
    pub(super) fn replace(&mut self, slot: Slot, cause: Cause) {
        let (size, now) = (self.descriptor.size, self.now);
        let new = BrickId(self.descriptor.next_brick);
        self.descriptor.next_brick += 1;
        let entry = &mut self.descriptor.bricks[slot.index()];
        let (old, node) = (entry.brick, entry.node);
        entry.brick = new;
        entry.fresh = true;
        entry.left = crate::Generation::default();
        self.descriptor.condemned.push((old, node));
        let listed_in = self.descriptor.generation.next();
        let mut brick = Brick::new(new, node, Role::Stale);
        brick.foreign = false;
        brick.created = false;
        brick.unrecorded = true;
        brick.listed_in = listed_in;
        brick.dirty.insert(0, size);
        brick.cause = Some((cause, now));
        brick.copies = self.brick(slot).copies;
        *self.brick(slot) = brick;
        self.forget_litter_of(slot);
        self.want_membership = true;
        self.report(Notice::Replaced { old, new, node, cause });
    }

    /// Deletes bricks that were replaced, once the state says so.
    pub(super) fn delete_condemned(&mut self) {
        for (brick, node) in self.descriptor.condemned.clone() {
            let is_listed = self.bricks.iter().any(|b| {
                (b.node == node && b.unrecorded) || (b.id == brick && b.role != Role::Vacant)
            });
            let waits = match self.deleting.get(&brick) {
                Some(None) => true,
                Some(Some(at)) => *at > self.now,
                None => false,
            };
            // A creation that may still happen would leave the brick behind for ever.
            if is_listed || waits || self.creating.contains_key(&brick) || self.is_needed(brick) {
                continue;
            }
            self.deleting.insert(brick, None);
            let io = self.io(IoKind::Delete, Slot(0), 0, 0, 0);
            if let Some(io) = self.ios.get_mut(io.0) {
                io.brick = brick;
            }
            self.actions.push_back(Action::Delete { io, brick, node });
        }
    }

    pub(super) fn deleted(&mut self, brick: BrickId, outcome: &Outcome) {
        if matches!(outcome, Outcome::Ok | Outcome::NotFound) {
            self.deleting.remove(&brick);
            self.descriptor.condemned.retain(|(condemned, _)| *condemned != brick);
            self.want_membership = true;
        } else {
            let retry_at: Time = self.retry_time();
            self.deleting.insert(brick, Some(retry_at));
        }
    }
}
