// SPDX-License-Identifier: Apache-2.0
//! The operator wants shards to be elsewhere: on more nodes or fewer, with more replicas or fewer.

use distributed_core::{Arrangement, Event, Failure, NodeId, RequestId, ShardMap, Slot, SlotSet};

use crate::{deeds::Deed, plan::SHARD_SECTORS, storage::SECTOR, world::World};

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

    /// Any nodes, any sets; about half of the shards stay where they are if they can.
    fn draw_arrangement(&mut self, host: usize) -> Option<Arrangement> {
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
        let shards = self.sectors_at(host).div_ceil(SHARD_SECTORS) as u64;
        let mut sets = Vec::new();
        for shard in 0..shards {
            let kept: Option<SlotSet> = now.set(shard).iter().map(index_of).collect();
            let kept = kept.filter(|set| set.len() as usize == factor && self.rng.bool());
            sets.push(kept.unwrap_or_else(|| {
                let chosen = self.rng.choose_multiple(0..count as u8, factor);
                chosen.into_iter().map(Slot).collect()
            }));
        }
        let map = ShardMap::from_sets(SHARD_SECTORS as u64 * SECTOR, sets)?;
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
