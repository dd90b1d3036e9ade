// SPDX-License-Identifier: Apache-2.0
//! Snapshots as the state and the companions know them, and what a new volume can be made of.

use std::collections::BTreeMap;

use crate::{
    BrickId, DecodeError, Descriptor, Generation, MAX_BRICKS, Moved, NodeId, ShardMap, Slot,
    SlotSet,
    codec::{Reader, SNAPSHOTS, Writer},
    descriptor::{read_moved, write_moved},
};

/// A snapshot of the volume: one of each of its bricks, all of the same moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Its number, which no other snapshot of the volume gets.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Whether it is whole. If not it is being taken or deleted: nobody may see it.
    pub is_taken: bool,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_secs: u64,
    /// The volume's size in bytes.
    pub size: u64,
    /// The stored shard map that it has.
    pub map: Generation,
    /// What had moved since that map was stored.
    pub moved: Vec<Moved>,
    /// The bricks that have it, with their slots of that time; before it is taken, those that may have it. A brick that
    /// was emptied has its successor here, a keeper.
    pub holders: Vec<(Slot, BrickId)>,
}

impl Snapshot {
    /// Where its shards are, from the stored map that it names.
    pub fn map_from(&self, stored: &ShardMap) -> Option<ShardMap> {
        stored.with(&self.moved, self.size.div_ceil(stored.shard_size()))
    }

    fn write(&self, writer: &mut Writer) {
        writer.u32(self.number);
        writer.text(&self.name);
        writer.u8(u8::from(self.is_taken));
        writer.u64(self.created_unix_secs);
        writer.u64(self.size);
        writer.u64(self.map.epoch);
        writer.u32(self.map.change);
        write_moved(writer, &self.moved);
        writer.len(self.holders.len());
        for (slot, brick) in &self.holders {
            writer.u8(slot.0);
            writer.u32(brick.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (number, name, is_taken) = (reader.u32()?, reader.text()?, reader.u8()? != 0);
        let (created_unix_secs, size) = (reader.u64()?, reader.u64()?);
        let map = Generation { epoch: reader.u64()?, change: reader.u32()? };
        let moved = read_moved(reader)?;
        let mut holders = Vec::new();
        for _ in 0..reader.count(5)? {
            holders.push((Slot(reader.u8()?), BrickId(reader.u32()?)));
        }
        Ok(Self { number, name, is_taken, created_unix_secs, size, map, moved, holders })
    }
}

impl Descriptor {
    /// Whether the volume has, or had, snapshots.
    pub(crate) fn has_snapshots(&self) -> bool {
        self.next_snapshot != 0
    }

    pub(crate) fn write_snapshots(&self, writer: &mut Writer) {
        writer.need(SNAPSHOTS);
        writer.u32(self.next_snapshot);
        writer.len(self.snapshots.len());
        self.snapshots.iter().for_each(|snapshot| snapshot.write(writer));
        writer.len(self.keepers.len());
        for (brick, node) in &self.keepers {
            writer.u32(brick.0);
            writer.u32(node.0);
        }
    }

    pub(crate) fn read_snapshots(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.next_snapshot = reader.u32()?;
        for _ in 0..reader.count(45)? {
            self.snapshots.push(Snapshot::read(reader)?);
        }
        for _ in 0..reader.count(8)? {
            self.keepers.push((BrickId(reader.u32()?), NodeId(reader.u32()?)));
        }
        Ok(())
    }

    /// The bricks that a snapshot is on, or the volume itself if `number` is `None`. `maps` are the stored shard maps by
    /// name. `None`: there is no such snapshot, its map is missing, or the volume was not detached in order, so that its
    /// replicas may differ.
    pub fn origin(
        &self,
        number: Option<u32>,
        maps: &BTreeMap<Generation, ShardMap>,
    ) -> Option<Origin> {
        let Some(number) = number else {
            let map = self.map_from(maps.get(&self.map)?)?;
            let in_sync = (0..).map(Slot).zip(&self.bricks);
            let in_sync = in_sync.filter(|(slot, _)| self.in_sync.has(*slot));
            let bricks = in_sync.map(|(slot, entry)| (slot, entry.brick, entry.node)).collect();
            return self.clean.then_some(Origin { map, size: self.size, bricks });
        };
        let snapshot = self.snapshots.iter().find(|s| s.number == number && s.is_taken)?;
        let map = snapshot.map_from(maps.get(&snapshot.map)?)?;
        let held = |(brick, node): (BrickId, NodeId)| {
            let (slot, _) = snapshot.holders.iter().find(|(_, holder)| *holder == brick)?;
            Some((*slot, brick, node))
        };
        let in_slots = self.bricks.iter().filter(|entry| !entry.vacant);
        let in_slots = in_slots.map(|entry| (entry.brick, entry.node));
        let mut bricks: Vec<_> =
            in_slots.chain(self.keepers.iter().copied()).filter_map(held).collect();
        let covered: SlotSet = bricks.iter().map(|(slot, _, _)| *slot).collect();
        if map.sets().any(|set| set.and(covered).is_empty()) {
            // Those that a snapshot needs are there; others may be gone already.
            bricks.extend(self.condemned.iter().copied().filter_map(held));
        }
        Some(Origin { map, size: snapshot.size, bricks })
    }
}

/// What a new volume can be made of: bricks that have the same moment of a volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Where the shards are.
    pub map: ShardMap,
    /// The volume's size at that moment, in bytes.
    pub size: u64,
    /// The bricks with their slots in that map, those to be preferred first.
    pub bricks: Vec<(Slot, BrickId, NodeId)>,
}

/// A volume to be made of another one's bricks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    /// As [`Descriptor::new`] makes it.
    pub descriptor: Descriptor,
    /// Where its shards will be.
    pub map: ShardMap,
    /// What the brick of each slot is to be a copy of.
    pub sources: Vec<BrickId>,
}

impl Origin {
    /// A volume of `size` bytes, not less than the origin's. It has one brick on each node, but where shards would be
    /// lost without a second one. `None` if a shard is on none of the bricks.
    pub fn template(&self, volume: &str, identity: u64, size: u64) -> Option<Template> {
        let mut chosen: Vec<(Slot, BrickId, NodeId)> = Vec::new();
        let mut covered = SlotSet::EMPTY;
        for wants_shards in [false, true] {
            for (slot, brick, node) in &self.bricks {
                let is_new = match wants_shards {
                    false => !chosen.iter().any(|(_, _, other)| other == node),
                    true => {
                        self.map.sets().any(|set| set.has(*slot) && set.and(covered).is_empty())
                    }
                };
                let is_used = self.map.sets().any(|set| set.has(*slot));
                if is_new && is_used && !covered.has(*slot) {
                    covered.insert(*slot);
                    chosen.push((*slot, *brick, *node));
                }
            }
        }
        if chosen.len() > MAX_BRICKS || self.map.sets().any(|set| set.and(covered).is_empty()) {
            return None;
        }
        let place = |slot: Slot| chosen.iter().position(|(other, _, _)| *other == slot);
        let mut map = self.map.renumbered(|slot| place(slot).map(|place| Slot(place as u8)));
        map.extend(size.div_ceil(map.shard_size()));
        let nodes: Vec<NodeId> = chosen.iter().map(|(_, _, node)| *node).collect();
        let descriptor = Descriptor::new(volume, identity, size, &nodes);
        Some(Template {
            descriptor,
            map,
            sources: chosen.into_iter().map(|(_, brick, _)| brick).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(slots: &[u8]) -> SlotSet {
        slots.iter().map(|slot| Slot(*slot)).collect()
    }

    fn volume() -> (Descriptor, BTreeMap<Generation, ShardMap>) {
        let mut volume = Descriptor::new("v", 7, 4 << 20, &[NodeId(4), NodeId(5), NodeId(6)]);
        let map = ShardMap::from_sets(1 << 20, [[0, 1], [1, 2], [2, 0], [0, 1]].map(|s| set(&s)));
        let moved = vec![Moved { first: 3, count: 1, set: set(&[2, 0]) }];
        let holders = vec![(Slot(0), BrickId(0)), (Slot(1), BrickId(1)), (Slot(2), BrickId(2))];
        let (number, name, is_taken) = (3, "s".to_owned(), true);
        let (map_name, size) = (Generation::default(), 4 << 20);
        let snapshot = Snapshot {
            number,
            name,
            is_taken,
            created_unix_secs: 77,
            size,
            map: map_name,
            moved,
            holders,
        };
        volume.snapshots.push(snapshot);
        volume.next_snapshot = 4;
        (volume, map.map(|map| (Generation::default(), map)).into_iter().collect())
    }

    #[test]
    fn a_descriptor_with_keepers_is_read_as_it_was_written() {
        let (mut volume, _) = volume();
        volume.keepers.push((BrickId(9), NodeId(2)));
        assert_eq!(Descriptor::decode(&volume.encode()).unwrap(), volume);
        assert!(volume.knows(BrickId(9)));
    }

    #[test]
    fn a_template_has_the_frozen_map_on_the_bricks_that_are_left() {
        let (mut volume, maps) = volume();
        // Slot 1 has another brick now, its old one is condemned, and slot 2's was replayed.
        volume.bricks[1].brick = BrickId(5);
        volume.condemned.push((BrickId(1), NodeId(5)));
        volume.snapshots[0].holders[2].1 = BrickId(6);
        volume.keepers.push((BrickId(6), NodeId(8)));
        let origin = volume.origin(Some(3), &maps).unwrap();
        let bricks = |all: &[(u8, u32, u32)]| -> Vec<(Slot, BrickId, NodeId)> {
            all.iter()
                .map(|(slot, brick, node)| (Slot(*slot), BrickId(*brick), NodeId(*node)))
                .collect()
        };
        assert_eq!(origin.bricks, bricks(&[(0, 0, 4), (2, 6, 8)]), "the condemned one may be gone");
        let template = origin.template("c", 9, 6 << 20).unwrap();
        assert_eq!(template.sources, [BrickId(0), BrickId(6)]);
        let nodes: Vec<NodeId> = template.descriptor.bricks.iter().map(|e| e.node).collect();
        assert_eq!(nodes, [NodeId(4), NodeId(8)]);
        let sets: Vec<SlotSet> = (0..4).map(|shard| template.map.set(shard)).collect();
        assert_eq!(sets, [set(&[0]), set(&[1]), set(&[0, 1]), set(&[0, 1])]);
        assert_eq!(template.map.len(), 6);
        volume.snapshots[0].holders.remove(0);
        let origin = volume.origin(Some(3), &maps).unwrap();
        assert_eq!(origin.bricks, bricks(&[(2, 6, 8), (1, 1, 5)]), "the condemned one is needed");
        assert!(volume.origin(Some(2), &maps).is_none());
    }

    #[test]
    fn two_bricks_of_one_node_are_taken_only_for_shards_that_have_no_other() {
        let (mut volume, maps) = volume();
        volume.snapshots[0].holders[2].1 = BrickId(6);
        volume.keepers.push((BrickId(6), NodeId(4)));
        let origin = volume.origin(Some(3), &maps).unwrap();
        let template = origin.template("c", 9, 4 << 20).unwrap();
        assert_eq!(template.sources, [BrickId(0), BrickId(1)]);
        volume.snapshots[0].holders.remove(1);
        let origin = volume.origin(Some(3), &maps).unwrap();
        let template = origin.template("c", 9, 4 << 20).unwrap();
        assert_eq!(template.sources, [BrickId(0), BrickId(6)]);
        volume.snapshots[0].holders.remove(0);
        let origin = volume.origin(Some(3), &maps).unwrap();
        assert!(origin.template("c", 9, 4 << 20).is_none());
    }

    #[test]
    fn a_volume_that_was_not_detached_in_order_is_no_origin() {
        let (mut volume, maps) = volume();
        assert_eq!(volume.origin(None, &maps).unwrap().bricks.len(), 3);
        volume.clean = false;
        assert!(volume.origin(None, &maps).is_none());
    }
}
