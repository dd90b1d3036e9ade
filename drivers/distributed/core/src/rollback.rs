// SPDX-License-Identifier: Apache-2.0
//! A volume that is put back to a snapshot: what the state says before its fresh bricks are made, and after.

use crate::{BrickEntry, BrickId, Descriptor, Generation, Mode, ShardMap, Slot, SlotSet, Template};

impl Descriptor {
    /// The volume with fresh bricks, each a copy of what `template` names as its source, in the place of those that it
    /// has. It was detached in order. Bricks that have snapshots become keepers, the others are condemned; all snapshots
    /// stay, later ones, too. Its shard map is the template's, under the name that this descriptor gives.
    pub fn rolled_back(&self, template: &Template) -> Self {
        let mut descriptor = self.clone();
        let is_holder = |brick: BrickId| {
            let mut taken = self.snapshots.iter().filter(|snapshot| snapshot.is_taken);
            taken.any(|snapshot| snapshot.holders.iter().any(|(_, holder)| *holder == brick))
        };
        for entry in self.bricks.iter().filter(|entry| !entry.vacant) {
            let place = match is_holder(entry.brick) {
                true => &mut descriptor.keepers,
                false => &mut descriptor.condemned,
            };
            place.push((entry.brick, entry.node));
        }
        let first = self.next_brick;
        let fresh = (first..).map(BrickId).zip(&template.descriptor.bricks);
        descriptor.bricks = fresh
            .map(|(brick, entry)| BrickEntry { brick, left: Generation::default(), ..*entry })
            .collect();
        descriptor.next_brick = first + descriptor.bricks.len() as u32;
        descriptor.in_sync = (0..descriptor.bricks.len() as u8).map(Slot).collect::<SlotSet>();
        descriptor.size = template.descriptor.size;
        descriptor.region_size = template.descriptor.region_size;
        // Shards may have been split or merged since.
        descriptor.shard_size = template.map.shard_size();
        // No map that a host has written since it attached the volume has this name.
        descriptor.map = Generation { epoch: self.epoch, change: u32::MAX };
        descriptor.generation =
            Generation { change: self.generation.change + 1, ..self.generation };
        // The companions of all these bricks have it before the state does.
        descriptor.settled = descriptor.generation;
        // All that is fresh is equal. It is asynchronous again once it has as many replicas as are chosen.
        descriptor.mode = Mode::Synchronous;
        (descriptor.following, descriptor.followed) = (SlotSet::EMPTY, SlotSet::EMPTY);
        descriptor.moved = Vec::new();
        descriptor.litter = Vec::new();
        descriptor.clean = true;
        descriptor
    }

    /// The volume while the bricks of `target`, which [`Descriptor::rolled_back`] made of it, are being made: they are
    /// condemned, so that whoever attaches it before they count deletes them.
    pub fn reserving(&self, target: &Self) -> Self {
        let mut descriptor = self.clone();
        descriptor.next_brick = target.next_brick;
        descriptor.condemned.extend(target.bricks.iter().map(|entry| (entry.brick, entry.node)));
        descriptor
    }
}

impl ShardMap {
    /// Ranges of a brick of `size` bytes, offset and length, in which there are only shards that its slot is no replica of.
    /// A copy of a snapshot's brick may have something there: what had been moved away when the snapshot was taken, and
    /// was not freed yet. No record calls it litter, so it is freed before the brick counts.
    pub fn beside(&self, slot: Slot, size: u64) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for shard in
            (0..size.div_ceil(self.shard_size())).filter(|shard| !self.set(*shard).has(slot))
        {
            let start = shard * self.shard_size();
            let len = self.shard_size().min(size - start);
            match ranges.last_mut() {
                Some((offset, before)) if *offset + *before == start => *before += len,
                _ => ranges.push((start, len)),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Snapshot};

    #[test]
    fn old_bricks_are_kept_for_their_snapshots_and_the_others_condemned() {
        let nodes = [NodeId(3), NodeId(4), NodeId(5)];
        let mut before = Descriptor::new("v", 7, 8 << 20, &nodes);
        before.epoch = 2;
        before.generation = Generation { epoch: 2, change: 9 };
        let holders = vec![(Slot(0), BrickId(0)), (Slot(1), BrickId(1))];
        before.snapshots.push(Snapshot {
            number: 0,
            name: "s".into(),
            is_taken: true,
            created_unix_secs: 0,
            size: 4 << 20,
            map: Generation::default(),
            moved: Vec::new(),
            holders,
        });
        let both: SlotSet = [Slot(0), Slot(1)].into_iter().collect();
        let template = Template {
            descriptor: Descriptor::new("v", 7, 4 << 20, &nodes[..2]),
            map: ShardMap::from_sets(1 << 20, [both; 4]).unwrap(),
            sources: vec![BrickId(0), BrickId(1)],
        };
        let after = before.rolled_back(&template);
        let bricks: Vec<u32> = after.bricks.iter().map(|entry| entry.brick.0).collect();
        assert_eq!((bricks, after.next_brick, after.size), (vec![3, 4], 5, 4 << 20));
        assert_eq!(after.keepers, [(BrickId(0), NodeId(3)), (BrickId(1), NodeId(4))]);
        assert_eq!(after.condemned, [(BrickId(2), NodeId(5))]);
        assert_eq!(after.snapshots, before.snapshots);
        assert!(after.generation > before.generation && after.clean);
        assert_eq!((after.in_sync.len(), after.shard_size), (2, 1 << 20));
        assert!(after.map > before.map);
        let between = before.reserving(&after);
        assert_eq!(between.condemned, [(BrickId(3), NodeId(3)), (BrickId(4), NodeId(4))]);
        assert_eq!((between.bricks, between.next_brick), (before.bricks, 5));
    }

    #[test]
    fn beside_its_shards_a_brick_has_the_rest_of_the_volume() {
        let sets = [&[0, 1][..], &[1], &[1, 2], &[2, 0], &[1, 2]];
        let sets = sets.map(|set| set.iter().map(|slot| Slot(*slot)).collect::<SlotSet>());
        let map = ShardMap::from_sets(100, sets).unwrap();
        assert_eq!(map.beside(Slot(0), 450), [(100, 200), (400, 50)]);
        assert_eq!(map.beside(Slot(1), 450), [(300, 100)]);
        assert_eq!(map.beside(Slot(2), 500), [(0, 200)]);
        assert_eq!(map.beside(Slot(3), 500), [(0, 500)]);
    }
}
