// SPDX-License-Identifier: Apache-2.0
use std::collections::{BTreeMap, BTreeSet};

use super::{Mending, Policy, Present, Wish, mend};
use crate::{Node, NodeId, ShardMap, place};

const SHARD: u64 = 4096;

fn node(id: u32, zone: &str, weight: u32) -> Node {
    Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: "storage".into(),
        address: String::new(),
        port: 0,
        zone: zone.into(),
        weight,
        available: true,
    }
}

struct Volume {
    slots: Vec<Option<NodeId>>,
    map: ShardMap,
    size: u64,
}

impl Volume {
    fn placed(policy: Policy, nodes: &[Node], factor: u32, shards: u64) -> Self {
        let placement = place(policy, nodes, factor, shards * SHARD, SHARD, 7).unwrap();
        let slots = placement.nodes.into_iter().map(Some).collect();
        Self { slots, map: placement.map, size: shards * SHARD }
    }

    fn mended(&self, policy: Policy, nodes: &[Node], factor: u32, lost: &[u32]) -> Mending {
        let leaving: Vec<NodeId> = lost.iter().map(|id| NodeId(*id)).collect();
        // What is lost does not answer.
        let mut nodes = nodes.to_vec();
        nodes.iter_mut().for_each(|node| node.available &= !leaving.contains(&node.id));
        let wish = Wish { policy, factor, nodes: &nodes, leaving: &leaving, seed: 7 };
        mend(&Present { slots: &self.slots, map: &self.map, size: self.size }, &wish).unwrap()
    }

    fn after(&self, mending: &Mending) -> Self {
        Self { slots: mending.slots.clone(), map: mending.map.clone(), size: self.size }
    }

    fn shards(&self) -> Vec<BTreeSet<u32>> {
        let nodes = |shard| {
            let slots = self.map.set(shard);
            slots.iter().filter_map(|slot| self.slots[slot.index()]).map(|id| id.0).collect()
        };
        (0..self.size.div_ceil(SHARD)).map(nodes).collect()
    }
}

/// Every other replica stays, none is lost any more, and as much is copied as was lost.
fn check(before: &Volume, mending: &Mending, lost: &[u32]) -> Vec<BTreeSet<u32>> {
    let after = before.after(mending).shards();
    let (mut bytes, mut changed) = (0, 0);
    for (then, now) in before.shards().iter().zip(&after) {
        let kept: BTreeSet<u32> = then.iter().filter(|id| !lost.contains(id)).copied().collect();
        assert!(now.is_superset(&kept), "{then:?} became {now:?}");
        assert!(now.iter().all(|id| !lost.contains(id)), "{now:?} is on a lost node");
        assert_eq!(now.len(), then.len());
        bytes += (then.len() - kept.len()) as u64 * SHARD;
        changed += u64::from(then != now);
    }
    assert_eq!((mending.bytes, mending.shards), (bytes, changed));
    after
}

#[test]
fn only_what_was_lost_is_copied_and_evenly() {
    let nodes: Vec<Node> = (0..6).map(|id| node(id, "", 100)).collect();
    for policy in [Policy::Balanced, Policy::Random, Policy::Locality, Policy::Zone] {
        let before = Volume::placed(policy, &nodes, 3, 600);
        for lost in [&[2][..], &[0, 5]] {
            let mending = before.mended(policy, &nodes, 3, lost);
            let after = check(&before, &mending, lost);
            assert_eq!(mending.fewest, 3 - lost.len() as u32);
            let mut held: BTreeMap<u32, i64> = BTreeMap::new();
            after.iter().flatten().for_each(|id| *held.entry(*id).or_default() += 1);
            let ideal = 1800 / (6 - lost.len() as i64);
            let near = if policy == Policy::Random { 60 } else { 20 };
            assert!(held.values().all(|has| (has - ideal).abs() <= near), "{policy:?} {held:?}");
        }
    }
}

#[test]
fn zones_stay_apart_while_one_is_free() {
    let zone = |id: u32| ["a", "b", "c", "d"][id as usize % 4];
    let nodes: Vec<Node> = (0..8).map(|id| node(id, zone(id), 100)).collect();
    let before = Volume::placed(Policy::Zone, &nodes, 3, 200);
    let after = check(&before, &before.mended(Policy::Zone, &nodes, 3, &[1, 5]), &[1, 5]);
    for shard in after {
        let zones: BTreeSet<u32> = shard.iter().map(|id| id % 4).collect();
        assert_eq!(zones.len(), 3, "{shard:?}");
    }
}

#[test]
fn what_nobody_can_replace_stays_listed() {
    let mut nodes: Vec<Node> = (0..3).map(|id| node(id, "", 100)).collect();
    let before = Volume::placed(Policy::Balanced, &nodes, 3, 10);
    let mending = before.mended(Policy::Balanced, &nodes, 3, &[1]);
    assert!(mending.is_empty());
    assert_eq!(before.after(&mending).shards(), before.shards());
    // One comes: of two lost replicas one is replaced.
    nodes.push(node(9, "", 100));
    let mending = before.mended(Policy::Balanced, &nodes, 3, &[1, 2]);
    assert_eq!((mending.bytes, mending.shards, mending.fewest), (10 * SHARD, 10, 1));
    for shard in before.after(&mending).shards() {
        assert!(shard.len() == 3 && shard.contains(&0) && shard.contains(&9), "{shard:?}");
    }
    // Nothing is left to copy from.
    let mending = before.mended(Policy::Balanced, &nodes, 3, &[0, 1, 2]);
    assert!(mending.is_empty());
}

#[test]
fn nodes_that_are_away_keep_what_they_have_and_get_nothing() {
    let mut nodes: Vec<Node> = (0..5).map(|id| node(id, "", 100)).collect();
    let before = Volume::placed(Policy::Balanced, &nodes, 2, 100);
    nodes[3].available = false;
    let after = check(&before, &before.mended(Policy::Balanced, &nodes, 2, &[0]), &[0]);
    for (then, now) in before.shards().iter().zip(&after) {
        assert_eq!(then.contains(&3), now.contains(&3));
    }
}

#[test]
fn a_mending_that_was_interrupted_goes_on_with_what_is_left() {
    let nodes: Vec<Node> = (0..5).map(|id| node(id, "", 100)).collect();
    let before = Volume::placed(Policy::Balanced, &nodes, 3, 120);
    let mending = before.mended(Policy::Balanced, &nodes, 3, &[4]);
    let half = (0..120).map(|shard| match shard < 60 {
        true => mending.map.set(shard),
        false => before.map.set(shard),
    });
    let map = ShardMap::from_sets(SHARD, half).unwrap();
    let middle = Volume { slots: mending.slots.clone(), map, size: before.size };
    let rest = middle.mended(Policy::Balanced, &nodes, 3, &[4]);
    let done = (0..60).filter(|shard| before.map.set(*shard) != mending.map.set(*shard)).count();
    assert_eq!(rest.bytes, mending.bytes - done as u64 * SHARD);
    assert!(middle.after(&rest).mended(Policy::Balanced, &nodes, 3, &[4]).is_empty());
}
