// SPDX-License-Identifier: Apache-2.0
//! From the claim to serving: epoch, sessions, companions, leveling, record.

use std::sync::Arc;

use super::{
    Volume,
    inherit::Inheritance,
    state::{Brick, IoKind, Kind, Link, Phase, Role},
};
use crate::{
    Action, Cause, Descriptor, Generation, NodeId, Notice, Outcome, Slot, SlotSet,
    recovery::{Recovered, Refusal, recover},
};

impl Volume {
    /// Asks the state for the next epoch: whoever had the volume can commit nothing more.
    pub(super) fn begin_claim(&mut self, holder: u64) {
        let was_clean = self.descriptor.clean;
        self.descriptor.epoch += 1;
        self.descriptor.holder = holder;
        self.descriptor.clean = false;
        self.bricks = self
            .descriptor
            .bricks
            .iter()
            .map(|entry| {
                let role = if entry.vacant { Role::Vacant } else { Role::Stale };
                let mut brick = Brick::new(entry.brick, entry.node, role);
                brick.foreign = !was_clean;
                brick
            })
            .collect();
        self.claim = Some((self.descriptor.encode().into(), None));
        self.store_claim();
    }

    fn store_claim(&mut self) {
        let Some((bytes, retry)) = &mut self.claim else { return };
        *retry = None;
        let (expected, bytes) = (Arc::clone(&self.stored), Arc::clone(bytes));
        let io = self.io(IoKind::State, Slot(0), 0, 0, 0);
        self.actions.push_back(Action::SwapState { io, expected, bytes });
    }

    pub(super) fn retry_claim(&mut self) {
        let due = self.claim.as_ref().and_then(|claim| claim.1);
        if due.is_some_and(|at| at <= self.now || at > self.retry_time()) {
            self.store_claim();
        }
    }

    pub(super) fn claimed(&mut self, outcome: &Outcome) {
        let retry_at = self.retry_time();
        if *outcome != Outcome::Ok {
            if let Some(claim) = &mut self.claim {
                claim.1 = Some(retry_at);
            }
            return;
        }
        if let Some((bytes, _)) = self.claim.take() {
            self.stored = bytes;
        }
        self.phase = Phase::Opening;
        for slot in self.slots() {
            let entry = &self.descriptor.bricks[slot.index()];
            if !entry.fresh && !entry.vacant {
                self.open(slot);
            }
        }
        self.opening_ended();
    }

    /// A brick was opened and its companion read, or not; with the last one, decides.
    pub(super) fn opening_ended(&mut self) {
        let opening = |brick: &Brick| matches!(brick.link, Link::Opening | Link::Checking);
        if self.phase != Phase::Opening || self.bricks.iter().any(opening) {
            return;
        }
        let mut companions = std::mem::take(&mut self.companions);
        // One that was given up since cannot be served from.
        companions.retain(|(slot, _)| self.bricks[slot.index()].link == Link::Open);
        if let Some(node) = self.inheritance.as_ref().map(Inheritance::node) {
            return self.inherit(node, &companions);
        }
        match recover(&self.descriptor, &self.maps, &companions) {
            Ok(recovered) => self.recovered(recovered),
            Err(refusal) => {
                let text = self.refusal_text(&refusal);
                self.stop(Phase::Stopped(text.into()));
            }
        }
    }

    pub(super) fn recovered(&mut self, recovered: Recovered) {
        let Recovered { descriptor, members, distrusted, intent, dirty, map, digests } = recovered;
        self.note_promotion(&descriptor);
        self.settled = self.descriptor.everybody_has();
        self.members = self.descriptor.in_sync;
        let epoch = self.descriptor.epoch;
        let maps = std::mem::take(&mut self.maps);
        if let Some(base) = maps.get(&descriptor.map) {
            self.base = (descriptor.map, base.encode().into());
        }
        self.map = map;
        // The companions may know of slots that the state did not get to know.
        for entry in descriptor.bricks.get(self.bricks.len()..).unwrap_or_default() {
            self.bricks.push(Brick::new(entry.brick, entry.node, Role::Stale));
        }
        let (now, all): (_, SlotSet) = (self.now, self.slots().collect());
        for (slot, entry) in (0..).map(Slot).zip(&descriptor.bricks).filter(|(s, _)| all.has(*s)) {
            let brick = self.brick(slot);
            if brick.id != entry.brick {
                // The companions know of a fresh brick that the state did not get to know.
                *brick = Brick::new(entry.brick, entry.node, Role::Stale);
            }
            if entry.vacant {
                brick.role = Role::Vacant;
                brick.link = Link::Closed;
                continue;
            }
            if entry.fresh {
                brick.created = false;
                brick.dirty.insert(0, descriptor.size);
            }
            brick.may_be_listed = descriptor.in_sync.has(slot);
            if members.has(slot) {
                brick.role = Role::InSync;
            } else if descriptor.in_sync.has(slot) {
                // Until it is recorded, it is a member that did not come.
                brick.role = Role::Failing;
                brick.cause = Some((Cause::Unreachable, now));
            }
            if distrusted.has(slot) {
                self.distrusted.insert(slot);
            }
        }
        self.descriptor = Descriptor {
            generation: Generation { epoch, change: 0 },
            in_sync: members,
            ..descriptor
        };
        self.settled_moved.clone_from(&self.descriptor.moved);
        self.settled_shard_size = self.descriptor.shard_size;
        self.restore_litter();
        self.freeze(&maps);
        self.level_regions = intent;
        self.restore_digests(digests);
        self.restore_dirty(&dirty);
        self.intent.restore(self.now, &self.level_regions);
        self.phase = Phase::Leveling;
        self.begin_leveling();
    }

    /// What bricks outside the in-sync set lack: what the records say, and everything with intent.
    fn restore_dirty(&mut self, dirty: &[(Slot, Vec<crate::Run>)]) {
        let (region, size) = (u64::from(self.descriptor.region_size), self.descriptor.size);
        let members = self.counting();
        for slot in self.slots().filter(|slot| !members.has(*slot)) {
            self.lacks_intent(slot);
            let brick = self.brick(slot);
            for (first, count) in dirty.iter().filter(|(s, _)| *s == slot).flat_map(|(_, r)| r) {
                let start = u64::from(*first) * region;
                brick.dirty.insert(start, start + u64::from(*count) * region);
            }
            brick.dirty.remove(size, u64::MAX);
        }
    }

    /// Notes that a brick may differ wherever the records have intent.
    pub(super) fn lacks_intent(&mut self, slot: Slot) {
        let (region, size) = (u64::from(self.descriptor.region_size), self.descriptor.size);
        let dirty = &mut self.bricks[slot.index()].dirty;
        for number in &self.level_regions {
            let start = u64::from(*number) * region;
            dirty.insert(start, (start + region).min(size));
        }
    }

    /// The bytes of all regions with intent.
    pub(super) fn level_ranges(&self) -> Vec<(u64, u64)> {
        let region = u64::from(self.descriptor.region_size);
        let range = |number: &u32| (u64::from(*number) * region, (u64::from(*number) + 1) * region);
        self.level_regions.iter().map(range).collect()
    }

    /// Makes every region with intent equal on all members, from the beginning.
    pub(super) fn begin_leveling(&mut self) {
        if self.mark_members() {
            return;
        }
        self.level_round += 1;
        let (region, size) = (u64::from(self.descriptor.region_size), self.descriptor.size);
        let chunk = u64::from(self.settings.copy_bytes.max(4096));
        self.level.clear();
        for number in &self.level_regions {
            let start = u64::from(*number) * region;
            let end = (start + region).min(size);
            let mut at = start;
            while at < end {
                self.level.push_back((at, chunk.min(end - at)));
                at += chunk;
            }
        }
        self.pump_level();
    }

    /// Whether companions are still to say of members that they are at no point. One that followed until the last record,
    /// which the state may not have, could otherwise be promoted after it was leveled in part.
    fn mark_members(&mut self) -> bool {
        let members = self.with_role(Role::InSync);
        if members.len() < 2 || self.level_regions.is_empty() {
            return false;
        }
        for slot in members.iter() {
            let follower = &self.bricks[slot.index()].follower;
            if follower.on_disk.point.is_some() && follower.work.is_none() {
                self.mark(slot);
            }
        }
        members.iter().any(|slot| self.bricks[slot.index()].follower.work.is_some())
    }

    fn pump_level(&mut self) {
        // Clients wait for this: it is never paused.
        let most = self.settings.copies_in_flight.max(1);
        while self.phase == Phase::Leveling && self.copies < most {
            let Some((offset, len)) = self.level.pop_front() else { break };
            self.copies += 1;
            self.submit_own(Kind::Level { round: self.level_round }, offset, len);
        }
        if self.phase == Phase::Leveling && self.copies == 0 && self.level.is_empty() {
            self.phase = Phase::Recording;
            self.want_membership = true;
        }
    }

    pub(super) fn issue_level(&mut self, key: u64) {
        let Some(op) = self.ops.get(key) else { return };
        let (at, step) = (op.at, op.step);
        let members = self.with_role(Role::InSync);
        for (offset, len, set) in self.pieces(at, step) {
            let members = members.and(set);
            let Some(source) = members.first() else { continue };
            for target in members.without(SlotSet::only(source)).iter() {
                self.issue_copy(key, source, target, offset, len);
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.level_ended(key);
        }
    }

    pub(super) fn level_ended(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.at += op.step;
        if op.at < op.end() {
            return self.begin_step(key);
        }
        self.copies = self.copies.saturating_sub(1);
        self.finish(key, Ok(()));
        self.pump_level();
    }

    /// The record is everywhere: clients are served.
    pub(super) fn serve(&mut self) {
        self.phase = Phase::Serving;
        self.level_regions.clear();
        self.pump_maps();
        self.report_inheritance();
        self.report(Notice::Serving);
        let late_write_rule = self.protections.late_write_rule;
        let distrusted = std::mem::take(&mut self.distrusted);
        for slot in self.slots() {
            let brick = self.brick(slot);
            if brick.role != Role::Stale {
                continue;
            }
            let doubtful = brick.foreign && late_write_rule && brick.link == Link::Open;
            if distrusted.has(slot) {
                self.replace(slot, Cause::Companion);
            } else if doubtful {
                self.replace(slot, Cause::Unknown);
            } else if brick.link == Link::Open {
                self.receive(slot);
            }
        }
        for (request, op) in std::mem::take(&mut self.early) {
            self.request(request, op);
        }
    }

    fn refusal_text(&self, refusal: &Refusal) -> String {
        let volume = &self.descriptor.volume;
        let name = |node: &NodeId| self.node_name(*node);
        match refusal {
            Refusal::TooNew(node) => format!(
                "volume {volume:?}: the companion on node {} was written by a newer version: use that version",
                name(node)
            ),
            Refusal::NoMap(version) => format!(
                "volume {volume:?}: its shard map {version} is not in the host's state: attach again, and if that does \
                 not help, recover the volume from its companions"
            ),
            Refusal::NoMember(nodes) => {
                let names: Vec<String> = nodes.iter().map(name).collect();
                format!(
                    "volume {volume:?}: no brick that has every acknowledged write could be opened within {} s. In sync in \
                     generation {} were those on: {}. Bring one of these nodes back and attach again. If all of them \
                     are lost for good, the others have older data only: everything written since they left is at risk{}",
                    self.now.0 / 1_000_000_000,
                    self.descriptor.generation,
                    names.join(", "),
                    if self.is_asynchronous() {
                        "; a follower at a consistent point can be promoted"
                    } else {
                        ""
                    }
                )
            }
        }
    }
}
