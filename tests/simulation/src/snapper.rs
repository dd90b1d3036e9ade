// SPDX-License-Identifier: Apache-2.0
//! The operator takes snapshots and deletes them; the judge holds each to the moment at which it was taken.

use std::collections::BTreeSet;

use distributed_core::{BrickId, Descriptor, Event, Failure, RequestId};

use crate::{
    deeds::Deed,
    operator::{is_rotten, set_of},
    storage::Tag,
    world::World,
};

/// What a snapshot has to hold.
#[derive(Clone, Debug, Default)]
pub struct Frozen {
    /// The sectors, at the moment at which bricks were told to take it; `None` of those that no such brick has.
    pub sectors: Vec<Option<Tag>>,
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
                (Wish::Take(name.clone()), Event::Snapshot { request, name, unix_secs: 0 })
            }
        };
        self.snapping.insert(request, (host, wish));
        self.deliver(host, instance, event);
    }

    /// A brick is told to take a snapshot: no write is under way, so what those hold that are told is what the snapshot
    /// is to hold. One that restarted meanwhile holds less, but then the snapshot comes to nothing.
    pub fn snapshot_begins(&mut self, host: usize, number: u32, brick: BrickId) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let Some(name) = volume.snapshot_name(number).map(str::to_owned) else { return };
        let status = volume.status();
        let Some(status) = status.bricks.iter().find(|other| other.brick == brick) else { return };
        let held = self.nodes[status.node.0 as usize].bricks.get(&brick);
        let size = self.sectors_at(host);
        let frozen = self.frozen.entry(name).or_default();
        frozen.sectors.resize(size, None);
        for (sector, place) in frozen.sectors.iter_mut().enumerate() {
            let is_its = set_of(volume.map(), sector).has(status.slot);
            if place.is_none() && is_its {
                *place = held.and_then(|held| held.memory.get(sector)).copied();
            }
        }
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
                    | Failure::NoSpace
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
    pub fn compare_snapshots(&mut self, is_peace: bool) {
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
                let expected = expected.unwrap_or_default();
                let set = set_of(&map, sector);
                let mut holders = 0;
                for (slot, brick) in snapshot.holders.iter().filter(|(slot, _)| set.has(*slot)) {
                    let Some(held) = self.snapshot_of(*brick, snapshot.number) else { continue };
                    holders += 1;
                    let held = held.get(sector).copied().unwrap_or_default();
                    if held != expected && !is_rotten(held) && !is_rotten(expected) {
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
        if !is_peace {
            // What is being deleted is still on bricks, and what is told may be in companions only.
            return self.complain(complaints);
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
                || descriptor.keepers.iter().any(|(keeper, _)| keeper == *brick)
        };
        for (brick, held) in self.nodes.iter().flat_map(|node| &node.bricks).filter(stays) {
            for number in
                held.snapshots.keys().filter(|number| !known.contains(&(*brick, **number)))
            {
                complaints.push(format!("brick {brick} has a snapshot {number} that nobody knows"));
            }
        }
        self.complain(complaints);
    }

    fn complain(&mut self, complaints: Vec<String>) {
        if let Some(complaint) = complaints.into_iter().next() {
            self.fail(complaint);
        }
    }

    pub fn snapshot_of(&self, brick: BrickId, number: u32) -> Option<&Vec<Tag>> {
        self.nodes.iter().find_map(|node| node.bricks.get(&brick)?.snapshots.get(&number))
    }
}
