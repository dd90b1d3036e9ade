// SPDX-License-Identifier: Apache-2.0
//! Snapshots: the bricks' own, all taken at one moment at which no write is under way.
//!
//! ```text
//!   asked --> listed (a record names it, so that no half of it is ever forgotten)
//!     --> barrier: writes wait, those under way end --> every brick in sync takes it --> writes go on
//!     --> recorded as taken, answered        | one did not, or it took too long
//!                                            +--> collected: dropped on every brick, then forgotten
//! ```

use std::collections::BTreeMap;

use super::{
    Volume,
    state::{BarrierKind, BarrierStage, Io, IoKind, Link, Phase, Role, Snapping, SnappingStage},
};
use crate::{
    Action, BrickId, Cause, Descriptor, Failure, Generation, Outcome, RequestId, ShardMap, Slot,
    SlotSet, Snapshot,
};

/// A volume has at most this many snapshots: each record names them all.
pub const MAX_SNAPSHOTS: usize = 256;
/// The longest name of a snapshot, in bytes.
const MOST_NAME: usize = 255;

impl Volume {
    /// Takes a wish for a snapshot.
    pub(super) fn snapshot(&mut self, request: RequestId, name: String, unix_secs: u64) {
        let detaching =
            self.barrier.as_ref().is_some_and(|barrier| barrier.kind == BarrierKind::Detach);
        let refusal = if self.phase != Phase::Serving || detaching {
            Some("the volume is not attached: attach it first")
        } else if name.is_empty() || name.len() > MOST_NAME {
            Some("a snapshot's name has 1 to 255 bytes")
        } else if self.descriptor.snapshots.len() + self.snapshot_queue.len() >= MAX_SNAPSHOTS {
            Some("the volume has 256 snapshots: delete one first")
        } else if self.is_snapshot(&name) || self.snapshot_queue.iter().any(|(_, n, _)| *n == name)
        {
            Some("the volume has a snapshot of this name: choose another one")
        } else {
            None
        };
        match refusal {
            Some(reason) => self.reply(request, Err(Failure::Refused(reason.into()))),
            None => self.snapshot_queue.push_back((request, name, unix_secs)),
        }
    }

    /// Whether there is one of this name that was taken, or is being taken.
    fn is_snapshot(&self, name: &str) -> bool {
        let taking = self.snapping.as_ref().map(|snapping| snapping.number);
        let mut snapshots = self.descriptor.snapshots.iter();
        snapshots.any(|s| s.name == name && (s.is_taken || Some(s.number) == taking))
    }

    /// Takes a wish to have a snapshot deleted; answered once no attachment will show it any more.
    pub(super) fn delete_snapshot(&mut self, request: RequestId, number: u32) {
        let is_shown = self.shown_snapshots().any(|snapshot| snapshot.number == number);
        if self.phase != Phase::Serving || !is_shown {
            let reason = "the volume has no such snapshot, or is not attached".into();
            return self.reply(request, Err(Failure::Refused(reason)));
        }
        if let Some(snapshot) = self.entry(number) {
            snapshot.is_taken = false;
        }
        self.snapshot_deletions.push((request, false));
        self.want_membership = true;
    }

    /// Snapshots of which a record says everywhere that they are taken.
    pub(super) fn shown_snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let taking = self.snapping.as_ref().map(|snapping| snapping.number);
        let snapshots = self.descriptor.snapshots.iter();
        snapshots.filter(move |snapshot| snapshot.is_taken && Some(snapshot.number) != taking)
    }

    pub(super) fn pump_snapshots(&mut self) {
        if self.snapping.is_none()
            && self.barrier.is_none()
            && let Some((request, name, unix_secs)) = self.snapshot_queue.pop_front()
        {
            self.list_snapshot(request, name, unix_secs);
        }
        if let Some(snapping) = &mut self.snapping
            && snapping.stage == SnappingStage::Listed
            && self.barrier.is_none()
        {
            snapping.stage = SnappingStage::Taking;
            let (request, number) = (snapping.request, snapping.number);
            let until = self.now.after(self.settings.snapshot_deadline_ns);
            self.begin_barrier(request, BarrierKind::Snapshot { number, until });
        }
        self.collect_snapshots();
    }

    fn list_snapshot(&mut self, request: RequestId, name: String, unix_secs: u64) {
        let number = self.descriptor.next_snapshot;
        self.descriptor.next_snapshot += 1;
        self.descriptor.snapshots.push(Snapshot {
            number,
            name,
            is_taken: false,
            created_unix_secs: unix_secs,
            size: self.descriptor.size,
            map: Generation::default(),
            moved: Vec::new(),
            holders: self.holders(),
        });
        let stage = SnappingStage::Unlisted;
        self.snapping = Some(Snapping { request, number, stage });
        self.want_membership = true;
    }

    fn holders(&self) -> Vec<(Slot, BrickId)> {
        let in_sync = self.with_role(Role::InSync);
        in_sync.iter().map(|slot| (slot, self.bricks[slot.index()].id)).collect()
    }

    fn entry(&mut self, number: u32) -> Option<&mut Snapshot> {
        self.descriptor.snapshots.iter_mut().find(|snapshot| snapshot.number == number)
    }

    /// The next record says what the descriptor says now.
    pub(super) fn record_snapshots(&mut self) {
        self.record_replay();
        if let Some(snapping) = &mut self.snapping {
            snapping.stage = match snapping.stage {
                SnappingStage::Unlisted => SnappingStage::Listing,
                SnappingStage::Taken => SnappingStage::Recording,
                stage => stage,
            };
        }
        self.snapshot_deletions.iter_mut().for_each(|(_, is_recorded)| *is_recorded = true);
        let taking = self.snapping.as_ref().map(|snapping| snapping.number);
        let snapshots = self.descriptor.snapshots.iter();
        let refuse = snapshots.filter(|s| !s.is_taken && Some(s.number) != taking);
        self.collected = refuse.map(|snapshot| snapshot.number).collect();
    }

    /// The record is everywhere.
    pub(super) fn snapshots_recorded(&mut self) {
        self.replay_recorded();
        match self.snapping.as_mut().map(|snapping| snapping.stage) {
            Some(SnappingStage::Listing) => {
                if let Some(snapping) = &mut self.snapping {
                    snapping.stage = SnappingStage::Listed;
                }
            }
            Some(SnappingStage::Recording) => {
                if let Some(snapping) = self.snapping.take() {
                    self.reply(snapping.request, Ok(()));
                }
            }
            _ => {}
        }
        for (request, is_recorded) in std::mem::take(&mut self.snapshot_deletions) {
            match is_recorded {
                true => self.reply(request, Ok(())),
                false => self.snapshot_deletions.push((request, false)),
            }
        }
        self.may_drop.extend(std::mem::take(&mut self.collected));
    }

    /// The attachment is to end.
    pub(super) fn refuse_snapshots(&mut self) {
        let queued =
            std::mem::take(&mut self.snapshot_queue).into_iter().map(|(request, _, _)| request);
        let snapping = self.snapping.take().map(|snapping| snapping.request);
        for request in snapping.into_iter().chain(queued) {
            self.reply(request, Err(Failure::Refused("the volume is being detached".into())));
        }
    }

    /// Nothing is written any more: the bricks take it.
    pub(super) fn take_snapshot(&mut self, number: u32) {
        let mut holders = self.holders();
        let (map, moved, size) = (self.base.0, self.settled_moved.clone(), self.descriptor.size);
        if let Some(entry) = self.entry(number) {
            (entry.map, entry.moved, entry.size) = (map, moved, size);
            // One that came in sync since then is not listed: what it took could be forgotten.
            holders.retain(|holder| entry.holders.contains(holder));
            entry.holders.clone_from(&holders);
        }
        let taking: SlotSet = holders.iter().map(|(slot, _)| *slot).collect();
        let sets = self.settled_sets();
        if sets.iter().any(|set| set.and(taking).is_empty()) {
            return self.snapshot_fails("replicas came and went meanwhile: try again".into());
        }
        self.frozen.insert(number, sets);
        if let Some(barrier) = &mut self.barrier {
            barrier.stage = BarrierStage::Bricks;
            barrier.outstanding = holders.len() as u32;
        }
        for (slot, brick) in holders {
            let io = self.io(IoKind::Snapshot { number }, slot, 0, 0, 0);
            self.actions.push_back(Action::Snapshot { io, brick, number });
        }
    }

    /// A brick took it, or not.
    pub(super) fn snapshot_done(&mut self, io: &Io, number: u32, outcome: &Outcome) {
        if *outcome == Outcome::Unknown {
            *self.unknown_snapshots.entry((io.brick, number)).or_default() += 1;
        }
        match outcome {
            Outcome::Ok => self.snapshot_answered(number),
            Outcome::NoSpace => self.snapshot_ends(Failure::NoSpace),
            Outcome::Unknown => self.snapshot_fails("a node did not answer in time".into()),
            _ => self.snapshot_fails("a node refused".into()),
        }
    }

    fn snapshot_answered(&mut self, number: u32) {
        let Some(barrier) = &mut self.barrier else { return };
        if !matches!(barrier.kind, BarrierKind::Snapshot { number: its, .. } if its == number) {
            return;
        }
        barrier.outstanding = barrier.outstanding.saturating_sub(1);
        if barrier.outstanding > 0 {
            return;
        }
        if let Some(entry) = self.entry(number) {
            entry.is_taken = true;
        }
        if let Some(snapping) = &mut self.snapping {
            snapping.stage = SnappingStage::Taken;
        }
        self.want_membership = true;
        self.lift_barrier();
    }

    /// The replica sets that shards have by the last record that is everywhere; by one under way some have more.
    fn settled_sets(&self) -> Vec<SlotSet> {
        let mut map = self.map.clone();
        for m in self.moves.iter().filter(|m| m.is_recorded()) {
            map.change(m.shard, m.old);
        }
        map.sets().collect()
    }

    /// It is not taken; what is there of it will be dropped.
    pub(super) fn snapshot_fails(&mut self, why: std::sync::Arc<str>) {
        self.snapshot_ends(Failure::Refused(why));
    }

    fn snapshot_ends(&mut self, failure: Failure) {
        let is_taking = self.snapping.as_ref().is_some_and(|s| s.stage == SnappingStage::Taking);
        let Some(snapping) = self.snapping.take_if(|_| is_taking) else { return };
        self.reply(snapping.request, Err(failure));
        self.want_membership = true;
        self.lift_barrier();
    }

    pub(super) fn retry_snapshots(&mut self) {
        if let Some(barrier) = &self.barrier
            && let BarrierKind::Snapshot { until, .. } = barrier.kind
            && (until <= self.now || until > self.now.after(self.settings.snapshot_deadline_ns))
        {
            self.snapshot_fails("writes would have waited for it for too long: try again".into());
        }
        for at in self.dropping.values_mut() {
            if at.is_some_and(|at| at <= self.now || at > self.now.after(self.settings.retry_ns)) {
                *at = Some(self.now);
            }
        }
    }

    /// Drops snapshots that are not, or no longer, wanted.
    fn collect_snapshots(&mut self) {
        if self.phase != Phase::Serving || self.descriptor.snapshots.iter().all(|s| s.is_taken) {
            return;
        }
        let taking = self.snapping.as_ref().map(|snapping| snapping.number);
        let mut wanted = Vec::new();
        for entry in &mut self.descriptor.snapshots {
            let recorded = self.may_drop.contains(&entry.number);
            if entry.is_taken || Some(entry.number) == taking || !recorded {
                continue;
            }
            // A brick that is gone took its snapshots along.
            let (bricks, keepers) = (&self.bricks, &self.descriptor.keepers);
            let in_slot = |(slot, brick): &(Slot, BrickId)| {
                bricks.get(slot.index()).filter(|b| b.id == *brick && b.role != Role::Vacant)
            };
            let keeps = |brick: BrickId| keepers.iter().any(|(keeper, _)| *keeper == brick);
            entry.holders.retain(|held| in_slot(held).is_some() || keeps(held.1));
            for (slot, brick) in &entry.holders {
                let key = (*brick, entry.number);
                let due =
                    self.dropping.get(&key).is_none_or(|at| at.is_some_and(|at| at <= self.now));
                // A keeper is opened when there is something to ask of it.
                let in_slot = in_slot(&(*slot, *brick));
                let open = in_slot.is_none_or(|b| b.link == Link::Open);
                let is_coming = self.unknown_snapshots.contains_key(&key)
                    || self.ios.iter().any(|(_, io)| {
                        let takes_it = io.kind == IoKind::Snapshot { number: entry.number };
                        io.brick == *brick && takes_it && !io.abandoned
                    });
                if due && open && !is_coming {
                    wanted.push((*slot, *brick, entry.number));
                }
            }
        }
        for (slot, brick, number) in wanted {
            let is_keeper = self.descriptor.keepers.iter().any(|(keeper, _)| *keeper == brick);
            if is_keeper && !self.is_keeper_open(brick) {
                continue;
            }
            self.dropping.insert((brick, number), None);
            let kind = IoKind::DropSnapshot { number };
            let io = match is_keeper {
                true => self.io_beside(kind, brick, None, 0),
                false => self.io(kind, slot, 0, 0, 0),
            };
            self.actions.push_back(Action::DropSnapshot { io, brick, number });
        }
        let taken_or_held = |snapshot: &Snapshot| {
            snapshot.is_taken || Some(snapshot.number) == taking || !snapshot.holders.is_empty()
        };
        let before = self.descriptor.snapshots.len();
        self.descriptor.snapshots.retain(taken_or_held);
        if self.descriptor.snapshots.len() != before {
            self.want_membership = true;
            self.keepers.look = true;
            self.forget_frozen();
        }
    }

    /// A brick dropped a snapshot, or not.
    pub(super) fn snapshot_dropped(&mut self, io: &Io, number: u32, outcome: &Outcome) {
        let key = (io.brick, number);
        if !matches!(outcome, Outcome::Ok | Outcome::NotFound) {
            let retry_at = self.retry_time();
            self.dropping.insert(key, Some(retry_at));
            self.keeper_failed(io.brick);
            return;
        }
        self.dropping.remove(&key);
        if let Some(entry) = self.entry(number) {
            entry.holders.retain(|(_, brick)| *brick != io.brick);
        }
    }

    /// A brick is given up, or was opened anew, or is gone: nothing that was asked of it is still to come.
    pub(super) fn snapshots_abandoned(&mut self, brick: BrickId) {
        self.dropping.retain(|(other, _), _| *other != brick);
    }

    pub(super) fn snapshots_fenced(&mut self, brick: BrickId) {
        self.unknown_snapshots.retain(|(other, _), _| *other != brick);
    }

    /// A snapshot whose end was unknown has ended.
    pub(super) fn snapshot_ended_late(&mut self, brick: BrickId, number: u32) {
        if let Some(count) = self.unknown_snapshots.get_mut(&(brick, number)) {
            *count -= 1;
            if *count == 0 {
                self.unknown_snapshots.remove(&(brick, number));
            }
        }
    }

    /// Whether a brick may yet take a snapshot that it was asked for.
    pub(super) fn may_come(&self, brick: BrickId, number: u32) -> bool {
        self.unknown_snapshots.contains_key(&(brick, number))
    }

    /// Whether somebody may yet see a snapshot: one that is to be deleted until every record says so, and one that is
    /// being taken.
    pub(super) fn counts(&self, snapshot: &Snapshot) -> bool {
        !self.may_drop.contains(&snapshot.number)
    }

    /// Whether a snapshot has shards of which only this brick has a replica.
    pub(super) fn is_needed(&self, brick: BrickId) -> bool {
        if self.is_replayed(brick) {
            return true;
        }
        self.descriptor.snapshots.iter().filter(|snapshot| self.counts(snapshot)).any(|snapshot| {
            let Some(sets) = self.sets_of(snapshot.number) else { return true };
            // Condemned ones may be deleted already, by an attachment that did not come to record it. One that leaves will be.
            let leaves = |brick: BrickId| self.bricks.iter().any(|b| b.id == brick && b.leaving);
            let others = snapshot
                .holders
                .iter()
                .filter(|(_, other)| *other != brick && self.lives(*other) && !leaves(*other));
            let others: SlotSet = others.map(|(slot, _)| *slot).collect();
            let mine = snapshot.holders.iter().find(|(_, other)| *other == brick);
            mine.is_some_and(|(slot, _)| {
                sets.iter().any(|set| set.has(*slot) && set.and(others).is_empty())
            })
        })
    }

    /// The replica sets of each snapshot's shards.
    pub(super) fn freeze(&mut self, maps: &BTreeMap<Generation, ShardMap>) {
        let frozen = self.descriptor.snapshots.iter().filter_map(|snapshot| {
            let map = snapshot.map_from(maps.get(&snapshot.map)?)?;
            Some((snapshot.number, map.sets().collect()))
        });
        self.frozen = frozen.collect();
        self.keepers.look = true;
        let base = self.base.0;
        let old = maps.iter().filter(|(version, _)| **version != base);
        self.old_maps = old.map(|(version, map)| (*version, map.encode().into())).collect();
        self.forget_maps();
        let refuse = self.descriptor.snapshots.iter().filter(|snapshot| !snapshot.is_taken);
        self.may_drop = refuse.map(|snapshot| snapshot.number).collect();
    }

    fn forget_frozen(&mut self) {
        let known = |descriptor: &Descriptor, number: u32| {
            descriptor.snapshots.iter().any(|snapshot| snapshot.number == number)
        };
        let descriptor = &self.descriptor;
        self.frozen.retain(|number, _| known(descriptor, *number));
        self.may_drop.retain(|number| known(descriptor, *number));
        self.forget_maps();
    }

    /// The shard maps that snapshots name.
    pub(super) fn frozen_maps(&self) -> Vec<Generation> {
        self.descriptor.snapshots.iter().map(|snapshot| snapshot.map).collect()
    }

    pub(super) fn snapshot_not_believed(&mut self, io: &Io) {
        self.give_up(io.slot, Cause::Restarted);
        self.snapshot_fails("a node restarted".into());
    }
}
