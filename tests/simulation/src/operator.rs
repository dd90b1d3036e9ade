// SPDX-License-Identifier: Apache-2.0
//! The operator, and what only an operator can mend: resizes, verifies, repairs; disks that rot under it.

use std::ops::Range;

use distributed_core::{BrickId, BrickState, Failure, Generation, ShardMap, Slot, SlotSet};

use crate::{
    clients::{Call, CallKind},
    deeds::Deed,
    plan::{MOST_SECTORS, SHARD_SECTORS},
    storage::{SECTOR, Tag},
    world::{MS, Next, World},
};

/// Rotten sectors read values from here on.
pub const ROTTEN: Tag = 1 << 31;

/// Whether a value is one that a disk made up.
pub fn is_rotten(tag: Tag) -> bool {
    tag >= ROTTEN
}

/// The slots of a sector's shard.
pub fn set_of(map: &ShardMap, sector: usize) -> SlotSet {
    map.set(sector as u64 * SECTOR / map.shard_size())
}

/// Sectors of one step of a verification: a quarter of the intent log of eight regions.
const STEP: usize = 16;

/// How many sectors the volume may have.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// It has these, unless a resize that was not answered took effect.
    pub known: usize,
    /// What such resizes asked for. One of a host that has lost the volume counts, too: it leaves its wish in the
    /// companions, from where a lost state may get it.
    pub asked: Vec<usize>,
}

/// A sector that one disk changed behind everybody's back.
#[derive(Clone, Copy, Debug)]
pub struct Rot {
    pub tag: Tag,
    pub sector: usize,
    pub since: u64,
    /// More than one brick was given it.
    pub is_spread: bool,
    /// From here on nothing holds it.
    healed: Option<u64>,
}

/// What an operator's check is judged by: how things were when it began.
#[derive(Clone, Debug, Default)]
pub struct Before {
    pub in_sync: SlotSet,
    map: Option<ShardMap>,
    generation: Option<Generation>,
    incarnations: Vec<u64>,
}

impl World {
    /// Sectors of the volume, as a host knows it.
    pub fn sectors_at(&self, host: usize) -> usize {
        let volume = self.hosts[host].volume.as_ref();
        volume.map_or(self.plan.sectors, |volume| (volume.size() / SECTOR) as usize)
    }

    /// The operator does one of the things that this run has.
    pub fn operate(&mut self, client: usize) {
        let size = self.sectors_at(self.clients[client].host);
        if self.plan.arranges && self.rng.u32(0..3) == 0 {
            self.after(MS, Next::Client(client));
            return self.arrange(self.clients[client].host);
        }
        if self.plan.snaps && self.rng.u32(0..4) == 0 {
            self.after(MS, Next::Client(client));
            return self.snap(self.clients[client].host);
        }
        if self.plan.scrubs && self.rng.u32(0..3) == 0 {
            self.after(MS, Next::Client(client));
            return self.order_scrub(self.clients[client].host);
        }
        if self.plan.switches && self.rng.u32(0..3) == 0 {
            self.after(MS, Next::Client(client));
            return self.reconfigure(self.clients[client].host);
        }
        match self.rng.u32(0..10) {
            0..2 if self.plan.resizes => {
                let to = self.rng.usize(8..=MOST_SECTORS);
                self.ask(client, CallKind::Resize, 0..to, false);
            }
            2..7 if self.plan.checks => {
                let first = self.rng.usize(0..size);
                let most = if self.rng.bool() { 8 } else { 48 };
                let count = self.rng.usize(1..=most).min(size - first);
                self.ask(client, CallKind::Verify, first..first + count, false);
            }
            7.. if self.plan.checks => {
                let first = match self.rots.iter().rev().find(|rot| rot.healed.is_none()) {
                    Some(rot) if rot.sector < size => rot.sector,
                    _ => self.rng.usize(0..size),
                };
                let of_shard = self.shard_sectors(self.current);
                let end = size.min((first / of_shard + 1) * of_shard);
                let count = self.rng.usize(1..=end - first);
                match self.sound_source(first..first + count) {
                    Some(source) => {
                        let kind = CallKind::Repair { source };
                        self.ask(client, kind, first..first + count, false);
                    }
                    None => self.ask(client, CallKind::Flush, 0..0, false),
                }
            }
            _ => self.ask(client, CallKind::Flush, 0..0, false),
        }
    }

    /// The bricks that the present host says are in sync, with their nodes.
    pub fn in_sync(&self) -> Vec<(Slot, BrickId, usize)> {
        let Some(volume) = &self.hosts[self.current].volume else { return Vec::new() };
        let bricks = volume.status().bricks.into_iter();
        let in_sync = bricks.filter(|brick| brick.state == BrickState::InSync);
        in_sync.map(|brick| (brick.slot, brick.brick, brick.node.0 as usize)).collect()
    }

    /// The slots of a sector's shard, as the present host sees them.
    pub fn set_of(&self, sector: usize) -> SlotSet {
        let volume = self.hosts[self.current].volume.as_ref();
        volume.map_or(SlotSet::EMPTY, |volume| set_of(volume.map(), sector))
    }

    /// Sectors of a shard, as a host sees them.
    pub fn shard_sectors(&self, host: usize) -> usize {
        let volume = self.hosts[host].volume.as_ref();
        volume.map_or(SHARD_SECTORS, |volume| (volume.map().shard_size() / SECTOR) as usize)
    }

    pub fn held(&self, brick: BrickId, node: usize, sector: usize) -> Option<Tag> {
        self.nodes[node].bricks.get(&brick)?.memory.get(sector).copied()
    }

    /// A replica of a range of one shard, in sync and without rot there; who repairs knows it from elsewhere.
    fn sound_source(&mut self, sectors: Range<usize>) -> Option<Slot> {
        let set = self.set_of(sectors.start);
        let is_sound = |brick, node| {
            let mut values = sectors.clone().map(|sector| self.held(brick, node, sector));
            values.all(|value| value.is_some_and(|tag| tag < ROTTEN))
        };
        let bricks = self.in_sync().into_iter();
        let sound: Vec<Slot> = bricks
            .filter(|(slot, brick, node)| set.has(*slot) && is_sound(*brick, *node))
            .map(|(slot, _, _)| slot)
            .collect();
        self.rng.choice(sound)
    }

    /// How things are when a check begins.
    pub fn before(&self) -> Before {
        Before {
            in_sync: self.in_sync().into_iter().map(|(slot, _, _)| slot).collect(),
            map: self.hosts[self.current].volume.as_ref().map(|volume| volume.map().clone()),
            generation: self.hosts[self.current].volume.as_ref().map(|v| v.status().generation),
            incarnations: self.nodes.iter().map(|node| node.incarnation).collect(),
        }
    }

    /// Whether a brick's node has not died since the brick was opened last.
    pub fn lives(&self, brick: BrickId, node: usize) -> bool {
        let node = &self.nodes[node];
        node.bricks.get(&brick).is_some_and(|brick| brick.opened_in == node.incarnation)
    }

    /// Whether nothing happened since that makes a check's answer a matter of luck.
    fn is_judged(&self, call: &Call) -> bool {
        let now = self.before();
        call.host == self.current
            && self.hosts[call.host].epoch == self.stored.epoch
            && call.before.in_sync == now.in_sync
            && call.before.map == now.map
            && call.before.incarnations == now.incarnations
            && self.in_sync().into_iter().all(|(_, brick, node)| self.lives(brick, node))
            && self.rots.iter().all(|rot| rot.since < call.called)
    }

    /// Whether the same replicas were in sync, in the same places, as when a call began.
    pub fn is_as_before(&self, call: &Call) -> bool {
        let now = self.before();
        let before = &call.before;
        call.host == self.current
            && (before.in_sync, &before.map, before.generation)
                == (now.in_sync, &now.map, now.generation)
    }

    /// The replicas that a verification of these sectors must name: of the first step that has any, those that differ
    /// from the lowest.
    fn differing(&self, sectors: Range<usize>) -> SlotSet {
        let bricks = self.in_sync();
        for first in sectors.clone().step_by(STEP) {
            let mut differing = SlotSet::EMPTY;
            for sector in first..sectors.end.min(first + STEP) {
                let set = self.set_of(sector);
                let mut here = bricks.iter().filter(|(slot, _, _)| set.has(*slot));
                let Some((_, brick, node)) = here.next() else { continue };
                let lowest = self.held(*brick, *node, sector);
                here.filter(|(_, brick, node)| self.held(*brick, *node, sector) != lowest)
                    .for_each(|(slot, _, _)| differing.insert(*slot));
            }
            if !differing.is_empty() {
                return differing;
            }
        }
        SlotSet::EMPTY
    }

    /// Judges what an operator was told.
    pub fn check_answered(&mut self, call: &Call, result: &Result<(), Failure>) {
        let sectors = call.sectors.clone();
        let told = match result {
            Ok(()) => SlotSet::EMPTY,
            Err(Failure::Differs(slots)) if call.kind == CallKind::Verify => *slots,
            Err(Failure::Refused(_)) => return self.deeds.count(Deed::Refused),
            Err(Failure::ReadOnly) if call.kind != CallKind::Verify => return,
            Err(failure) => return self.fail(format!("{:?} failed: {failure:?}", call.kind)),
        };
        self.deeds.count(match call.kind {
            CallKind::Verify if told.is_empty() => Deed::Verified,
            CallKind::Verify => Deed::Found,
            _ => Deed::Repaired,
        });
        if !self.is_judged(call) {
            return;
        }
        let known = self.differing(sectors.clone());
        if told != known {
            self.fail(format!(
                "{:?} of {sectors:?} told of {told:?}, but {known:?} differ from the lowest replica",
                call.kind
            ));
        }
    }

    /// A resize took effect.
    pub fn resized(&mut self, called: u64, to: usize) {
        let from = std::mem::replace(&mut self.sizes.known, to);
        self.sizes.asked.clear();
        if to != from {
            self.deeds.count(if to > from { Deed::Grown } else { Deed::Shrunk });
        }
        if to < from {
            self.oracle.cut_off(called, self.now, to..from);
            self.order.cut_off(to);
        }
    }

    /// A volume serves: whether a resize that nobody answered took effect shows now.
    pub fn settle_size(&mut self, host: usize) {
        let size = self.sectors_at(host);
        if size != self.sizes.known && !self.sizes.asked.contains(&size) {
            return self.fail(format!("the volume has {size} sectors, but {:?}", self.sizes));
        }
        // A host that lost the volume may have made it smaller before it made it what it is now.
        let made = self.sizes.asked.iter().rposition(|asked| *asked == size).unwrap_or(0);
        let smallest = self.sizes.asked.iter().take(made).min();
        let kept = size.min(self.sizes.known);
        if let Some(smallest) = smallest.filter(|smallest| **smallest < kept) {
            self.oracle.may_be_cut_off(self.now, *smallest..kept);
        }
        self.resized(self.now, size);
    }

    /// One disk changes a sector of an in-sync replica.
    pub fn rot(&mut self) {
        let bricks = self.in_sync();
        let Some((_, brick, node)) = self.rng.choice(bricks) else { return };
        let bound = if self.rng.bool() { self.plan.hot_sectors } else { self.sizes.known };
        let sector = self.rng.usize(0..bound);
        self.rot_at(brick, node, sector);
    }

    /// One disk changes a sector of a brick; not one that was changed and is not healed.
    pub fn rot_at(&mut self, brick: BrickId, node: usize, sector: usize) -> bool {
        let is_new = self.rots.iter().all(|rot| rot.sector != sector || rot.healed.is_some());
        let tag = ROTTEN + self.rots.len() as Tag;
        let has_rotted = is_new && self.nodes[node].rot(brick, sector, tag);
        if has_rotted {
            self.rots.push(Rot { tag, sector, since: self.now, is_spread: false, healed: None });
            self.deeds.count(Deed::Rotted);
            self.note(|| format!("sector {sector} of {brick} rots"));
        }
        has_rotted
    }

    /// Whether a value is rot that somebody who asks at `called` may see there.
    pub fn is_rot(&self, sector: usize, tag: Tag, called: u64) -> bool {
        let rot = tag.checked_sub(ROTTEN).and_then(|index| self.rots.get(index as usize));
        rot.is_some_and(|rot| rot.sector == sector && rot.healed.is_none_or(|at| at >= called))
    }

    /// What was flushed over, or repaired and flushed, is gone for good.
    pub fn note_healed(&mut self) {
        for rot in self.rots.iter_mut().filter(|rot| rot.healed.is_none()) {
            let is_held = self.nodes.iter().flat_map(|node| node.bricks.values()).any(|brick| {
                [&brick.memory, &brick.durable].iter().any(|d| d.get(rot.sector) == Some(&rot.tag))
            });
            if !is_held {
                rot.healed = Some(self.now);
                self.deeds.count(Deed::Healed);
            }
        }
    }

    /// Finds and repairs all rot that is left; false if that cannot be done.
    pub fn scrub(&mut self) -> bool {
        for rot in self.rots.clone() {
            if rot.healed.is_some() || rot.sector >= self.sizes.known {
                continue;
            }
            let sectors = rot.sector..rot.sector + 1;
            let differing = self.differing(sectors.clone());
            if !self.ask_in_peace(CallKind::Verify, sectors.clone()) {
                return false;
            }
            if differing.is_empty() {
                continue;
            }
            let Some(source) = self.sound_source(sectors.clone()) else { continue };
            if !self.ask_in_peace(CallKind::Repair { source }, sectors.clone()) {
                return false;
            }
            if !self.differing(sectors).is_empty() {
                self.fail(format!("rot of sector {} was not repaired", rot.sector));
                return false;
            }
        }
        true
    }
}
