// SPDX-License-Identifier: Apache-2.0
//! The operator takes snapshots and deletes them; the judge holds each to the moment at which it was taken.

use std::collections::BTreeSet;

use distributed_core::{BrickId, Descriptor, Event, Failure, RequestId};

use crate::{deeds::Deed, operator::is_rotten, plan::SHARD_SECTORS, storage::Tag, world::World};

/// What a snapshot has to hold.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// The sectors, at the moment at which bricks were told to take it.
    pub sectors: Vec<Tag>,
    /// Somebody was told that it exists.
    pub is_told: bool,
}

/// What somebody wants with a snapshot.
#[derive(Clone, Debug)]
pub enum Wish {
    Take(String),
    Delete,
}

impl World {
    /// Asks a host for a snapshot, or to delete one.
    pub fn snap(&mut self, host: usize) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let known = volume.status().snapshots;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let instance = self.hosts[host].instance;
        let old = self.rng.choice(&known).filter(|_| known.len() > 3 || self.rng.u32(0..3) == 0);
        let (wish, event) = match old {
            Some(old) => {
                let event = Event::DeleteSnapshot { request, number: old.number };
                if let Some(frozen) = self.frozen.get_mut(&old.name) {
                    // From the wish on it may be gone.
                    frozen.is_told = false;
                }
                (Wish::Delete, event)
            }
            None => {
                let name = format!("s{}", request.0);
                (Wish::Take(name.clone()), Event::Snapshot { request, name })
            }
        };
        self.snapping.insert(request, (host, wish));
        self.deliver(host, instance, event);
    }

    /// Bricks are told to take a snapshot: no write is under way, so what they hold now is what it is to hold.
    pub fn snapshot_begins(&mut self, host: usize, number: u32) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let Some(name) = volume.snapshot_name(number).map(str::to_owned) else { return };
        if self.frozen.contains_key(&name) {
            return;
        }
        let status = volume.status();
        let held = |sector: usize| {
            let set = volume.map().set((sector / SHARD_SECTORS) as u64);
            let mut bricks = status.bricks.iter().filter(|brick| {
                set.has(brick.slot) && brick.state == distributed_core::BrickState::InSync
            });
            bricks.find_map(|brick| {
                let node = &self.nodes[brick.node.0 as usize];
                node.bricks.get(&brick.brick)?.memory.get(sector).copied()
            })
        };
        let size = self.sectors_at(host);
        let sectors: Vec<Tag> = (0..size).map(|sector| held(sector).unwrap_or_default()).collect();
        self.frozen.insert(name, Frozen { sectors, is_told: false });
    }

    /// A host answered.
    pub fn snapped(&mut self, wish: Wish, result: &Result<(), Failure>) {
        match (wish, result) {
            (Wish::Take(name), Ok(())) => {
                self.deeds.count(Deed::Snapped);
                match self.frozen.get_mut(&name) {
                    Some(frozen) => frozen.is_told = true,
                    None => self.fail(format!("snapshot {name} was taken of nothing")),
                }
            }
            (Wish::Delete, Ok(())) => self.deeds.count(Deed::Unsnapped),
            (
                _,
                Err(
                    Failure::Refused(_)
                    | Failure::Stopped(_)
                    | Failure::Fenced
                    | Failure::Headless(_),
                ),
            ) => {
                self.deeds.count(Deed::NotSnapped);
            }
            (wish, Err(failure)) => self.fail(format!("{wish:?} failed: {failure:?}")),
        }
    }

    /// Every snapshot that somebody was told of is there, and each is what it has to be; no brick has one that nobody
    /// knows.
    pub fn compare_snapshots(&mut self) {
        let Ok(descriptor) = Descriptor::decode(&self.stored.bytes) else { return };
        let mut complaints = Vec::new();
        for snapshot in descriptor.snapshots.iter().filter(|snapshot| snapshot.is_taken) {
            let Some(frozen) = self.frozen.get(&snapshot.name) else {
                complaints.push(format!("nobody asked for snapshot {}", snapshot.name));
                continue;
            };
            let stored = self.stored.maps.get(&snapshot.map);
            let Some(map) = stored.and_then(|stored| snapshot.map_from(stored)) else {
                complaints.push(format!("snapshot {} has no shard map", snapshot.name));
                continue;
            };
            for (sector, expected) in frozen.sectors.iter().enumerate() {
                let set = map.set((sector / SHARD_SECTORS) as u64);
                let mut holders = 0;
                for (slot, brick) in snapshot.holders.iter().filter(|(slot, _)| set.has(*slot)) {
                    let Some(held) = self.snapshot_of(*brick, snapshot.number) else { continue };
                    holders += 1;
                    let held = held.get(sector).copied().unwrap_or_default();
                    if held != *expected && !is_rotten(held) && !is_rotten(*expected) {
                        complaints.push(format!(
                            "snapshot {} of {slot:?} holds {held} in sector {sector}, not {expected}",
                            snapshot.name
                        ));
                    }
                }
                if holders == 0 && !self.has_lost_bricks {
                    let name = &snapshot.name;
                    complaints.push(format!("nobody has sector {sector} of snapshot {name}"));
                }
            }
        }
        let there: BTreeSet<&String> =
            descriptor.snapshots.iter().filter(|s| s.is_taken).map(|s| &s.name).collect();
        for (name, frozen) in &self.frozen {
            if frozen.is_told && !there.contains(name) && !self.has_lost_bricks {
                complaints.push(format!("snapshot {name} is gone"));
            }
        }
        let known: BTreeSet<(BrickId, u32)> = descriptor
            .snapshots
            .iter()
            .flat_map(|s| s.holders.iter().map(move |(_, brick)| (*brick, s.number)))
            .collect();
        // Condemned bricks take theirs along.
        let stays = |(brick, _): &(&BrickId, &crate::storage::Brick)| {
            descriptor.bricks.iter().any(|entry| entry.brick == **brick && !entry.vacant)
        };
        for (brick, held) in self.nodes.iter().flat_map(|node| &node.bricks).filter(stays) {
            for number in
                held.snapshots.keys().filter(|number| !known.contains(&(*brick, **number)))
            {
                complaints.push(format!("brick {brick} has a snapshot {number} that nobody knows"));
            }
        }
        if let Some(complaint) = complaints.into_iter().next() {
            self.fail(complaint);
        }
    }

    fn snapshot_of(&self, brick: BrickId, number: u32) -> Option<&Vec<Tag>> {
        self.nodes.iter().find_map(|node| node.bricks.get(&brick)?.snapshots.get(&number))
    }
}
