// SPDX-License-Identifier: Apache-2.0
//! What a driver tells volumes of nodes and of their clients, at any moment and for any reason: how hard they may heal, whom
//! to leave alone, and whose replicas are lost.

use distributed_core::{
    Arrangement, Event, Node, NodeId, Policy, Present, RequestId, ShardMap, Slot, SlotSet, Wish,
    mend,
};

use crate::{
    deeds::Deed,
    world::{MS, Next, US, World},
};

/// A judgement that came late is known by then, whatever its host did meanwhile.
const ALL_KNOWN: u64 = 50 * MS;
/// What a volume may do when nobody holds it back: as it is attached.
const UNTHROTTLED: Event = Event::Throttle { copies: 3, bytes: 4096, rate: None };

impl World {
    /// Tells a host something of a node or of its clients.
    pub fn judge(&mut self) {
        let host = self.rng.usize(0..self.hosts.len());
        let node = NodeId(self.rng.u32(0..self.nodes.len() as u32));
        let (deed, event) = match self.rng.u32(0..10) {
            0..4 => {
                let copies = self.rng.u32(0..4);
                let bytes = 4096 << self.rng.u32(0..3);
                let rate = self.rng.bool().then(|| (1 << 20) << self.rng.u32(0..8));
                (Deed::Throttled, Event::Throttle { copies, bytes, rate })
            }
            4..7 => {
                let nanoseconds = self.rng.u64(MS..200 * MS);
                (Deed::Held, Event::Hold { node, nanoseconds })
            }
            _ => (Deed::Shunned, Event::Shun { node, is_shunned: self.rng.bool() }),
        };
        self.deeds.count(deed);
        let (delay, instance) = (self.rng.u64(100 * US..3 * MS), self.hosts[host].instance);
        self.after(delay, Next::Deliver { host, instance, event });
    }

    /// Lets everybody heal as they like. Holds end by themselves.
    pub fn acquit(&mut self) {
        if !self.plan.judges {
            return;
        }
        for host in 0..self.hosts.len() {
            let instance = self.hosts[host].instance;
            self.after(ALL_KNOWN, Next::Deliver { host, instance, event: UNTHROTTLED });
        }
    }

    /// What one node has is to be on others, and nothing else moves; now and then nothing moves at all any more.
    pub fn draw_mending(&mut self, host: usize) -> Option<Arrangement> {
        let lost = NodeId(self.rng.u32(0..self.nodes.len() as u32));
        let is_end = self.rng.u32(0..4) == 0;
        let nodes: Vec<Node> = (0..self.nodes.len() as u32).map(|id| node(id, lost)).collect();
        let volume = self.hosts[host].volume.as_ref()?;
        let (status, map) = (volume.status(), volume.map_ahead());
        let mut slots = vec![None; 64];
        for brick in &status.bricks {
            slots[brick.slot.index()] = Some(brick.node);
        }
        // A node whose brick leaves may have another one.
        let used = map.sets().fold(SlotSet::EMPTY, SlotSet::or);
        for (slot, node) in (0..).map(Slot).zip(&mut slots) {
            if !used.has(slot) {
                *node = None;
            }
        }
        if is_end {
            return Some(arrangement(&slots, &map));
        }
        let leaving = [lost];
        let wish = Wish {
            policy: Policy::Balanced,
            factor: 64,
            nodes: &nodes,
            leaving: &leaving,
            seed: 1,
        };
        let mending = mend(&Present { slots: &slots, map: &map, size: status.size }, &wish).ok()?;
        self.deeds.count(Deed::Rehomed);
        Some(arrangement(&mending.slots, &mending.map))
    }

    /// An arrangement was reached: every shard is on the nodes that it named.
    pub fn check_arranged(&mut self, request: RequestId, host: usize) {
        let Some((asked, Arrangement { nodes, map: wanted })) = &self.arranged else { return };
        let Some(volume) = &self.hosts[host].volume else { return };
        if *asked != request {
            return;
        }
        let bricks = volume.status().bricks;
        let shards = volume.size().div_ceil(wanted.shard_size()).min(wanted.len());
        let is_there = |shard: &u64| {
            let on = |slot: Slot| bricks.iter().find(|b| b.slot == slot).map(|brick| brick.node);
            let mut now: Vec<_> = volume.map().set(*shard).iter().filter_map(on).collect();
            let wanted = wanted.set(*shard).iter();
            let mut wanted: Vec<_> = wanted.filter_map(|slot| nodes.get(slot.index())).collect();
            now.sort_unstable();
            wanted.sort_unstable();
            now.iter().eq(wanted)
        };
        if let Some(shard) = (0..shards).find(|shard| !is_there(shard)) {
            self.fail(format!("an arrangement was reached, but shard {shard} is elsewhere"));
        }
    }
}

fn node(id: u32, lost: NodeId) -> Node {
    Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: String::new(),
        address: String::new(),
        port: 0,
        zone: String::new(),
        weight: 1,
        available: NodeId(id) != lost,
    }
}

/// An order for these nodes, without those that hold nothing.
fn arrangement(slots: &[Option<NodeId>], map: &ShardMap) -> Arrangement {
    let used: Vec<Slot> = map.sets().fold(SlotSet::EMPTY, SlotSet::or).iter().collect();
    let nodes = used.iter().filter_map(|slot| slots.get(slot.index()).copied().flatten());
    let nodes = nodes.collect();
    let place = |slot: Slot| used.iter().position(|other| *other == slot);
    let map = map.renumbered(|slot| place(slot).map(|place| Slot(place as u8)));
    Arrangement { nodes, map }
}
