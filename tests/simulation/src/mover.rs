// SPDX-License-Identifier: Apache-2.0
//! The operator wants shards to be elsewhere: on more nodes or fewer, with more replicas or fewer; or of another size.

use distributed_core::{Arrangement, Event, Failure, NodeId, RequestId, ShardMap, Slot, SlotSet};

use crate::{deeds::Deed, operator::set_of, storage::SECTOR, world::World};

/// Sectors that a shard may get. Not each of them divides each other.
const CUTS: [usize; 6] = [4, 8, 16, 24, 32, 48];

impl World {
    /// Asks a host for another arrangement.
    pub fn arrange(&mut self, host: usize) {
        let is_mending = self.plan.judges && self.rng.bool();
        let drawn = if is_mending { self.draw_mending(host) } else { self.draw_arrangement(host) };
        let Some(arrangement) = drawn else { return };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.arranging.insert(request, host);
        self.arranged = Some((request, arrangement.clone()));
        self.deeds.count(Deed::Arranged);
        let instance = self.hosts[host].instance;
        self.deliver(host, instance, Event::Arrange { request, arrangement });
    }

    /// Sectors of a shard that the operator wants, and whether shards stay where they are as far as that goes.
    fn draw_cut(&mut self, host: usize) -> (usize, bool) {
        let has = self.shard_sectors(host);
        if !self.plan.cuts || self.rng.bool() {
            return (has, false);
        }
        (CUTS[self.rng.usize(0..CUTS.len())], self.rng.bool())
    }

    /// Any nodes, any sets; about half of the shards stay where they are if they can.
    fn draw_arrangement(&mut self, host: usize) -> Option<Arrangement> {
        let (of_shard, stays) = self.draw_cut(host);
        let least = self.plan.min_in_sync.max(1) as usize;
        let count = self.rng.usize(least..=self.nodes.len());
        let mut nodes: Vec<u32> = (0..self.nodes.len() as u32).collect();
        self.rng.shuffle(&mut nodes);
        nodes.truncate(count);
        let factor = self.rng.usize(least..=count.min(3));
        let volume = self.hosts[host].volume.as_ref()?;
        let status = volume.status();
        let now = volume.map().clone();
        let index_of = |slot: Slot| {
            let brick = status.bricks.iter().find(|brick| brick.slot == slot)?;
            let index = nodes.iter().position(|node| *node == brick.node.0)?;
            Some(Slot(index as u8))
        };
        let mut sets = Vec::new();
        for first in (0..self.sectors_at(host)).step_by(of_shard) {
            let kept: Option<SlotSet> = set_of(&now, first).iter().map(index_of).collect();
            let kept = kept.filter(|set| set.len() as usize == factor);
            let kept = kept.filter(|_| self.rng.bool() || stays);
            sets.push(kept.unwrap_or_else(|| {
                let chosen = self.rng.choose_multiple(0..count as u8, factor);
                chosen.into_iter().map(Slot).collect()
            }));
        }
        let map = ShardMap::from_sets(of_shard as u64 * SECTOR, sets)?;
        Some(Arrangement { nodes: nodes.into_iter().map(NodeId).collect(), map })
    }

    /// A host answered: everything is where it was wanted, or something else is wanted.
    pub fn arranged(&mut self, result: &Result<(), Failure>) {
        match result {
            Ok(()) => self.deeds.count(Deed::Moved),
            Err(Failure::Refused(_) | Failure::Stopped(_) | Failure::Fenced) => {}
            Err(failure) => self.fail(format!("an arrangement failed: {failure:?}")),
        }
    }
}
