// SPDX-License-Identifier: Apache-2.0
use super::{PlacementError, Policy, place};
use crate::{Node, NodeId, Slot};

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

#[test]
fn shards_follow_weights_and_zones() {
    let nodes: Vec<_> =
        (0..6).map(|id| node(id, ["a", "b", "c"][id as usize % 3], 1 + id / 3)).collect();
    let shards = 3000_u64;
    let placement = place(Policy::Balanced, &nodes, 3, shards * 4096, 4096, 7).unwrap();
    let mut held = [0_u64; 6];
    for shard in 0..shards {
        let set = placement.map.set(shard);
        assert_eq!(set.len(), 3);
        let mut zones: Vec<_> = set.iter().map(|slot| slot.0 % 3).collect();
        zones.sort_unstable();
        assert_eq!(zones, [0, 1, 2], "two replicas in one zone while one is free");
        set.iter().for_each(|slot| held[slot.index()] += 1);
    }
    for (slot, held) in held.iter().enumerate() {
        let wanted = if slot < 3 { shards / 3 } else { shards * 2 / 3 };
        assert!(held.abs_diff(wanted) <= 1, "slot {slot} has {held}, not {wanted}");
    }
    assert_eq!(placement, place(Policy::Balanced, &nodes, 3, shards * 4096, 4096, 7).unwrap());
}

#[test]
fn as_many_replicas_as_nodes_need_no_table() {
    let nodes: Vec<_> = (0..3).map(|id| node(id, "", 1 + id)).collect();
    let placement = place(Policy::Balanced, &nodes, 3, 1 << 46, 64 << 20, 1).unwrap();
    assert!(placement.map.memory() < 200);
    assert_eq!(placement.map.set(1 << 19).iter().last(), Some(Slot(2)));
}

#[test]
fn what_cannot_be_placed_is_refused_with_a_remedy() {
    let mut nodes: Vec<_> = (0..3).map(|id| node(id, "", 1)).collect();
    nodes[1].available = false;
    let refusal =
        |factor, size, shard| place(Policy::Balanced, &nodes, factor, size, shard, 1).unwrap_err();
    assert_eq!(refusal(3, 1 << 30, 1 << 20), PlacementError::TooFewNodes { factor: 3, nodes: 2 });
    assert_eq!(refusal(0, 1 << 30, 1 << 20), PlacementError::NoReplicas);
    assert_eq!(refusal(2, 1 << 30, 0), PlacementError::ShardSize);
    assert_eq!(refusal(2, 0, 4096), PlacementError::Size);
    let text = refusal(3, 1 << 30, 1 << 20).to_string();
    assert!(text.contains("2 are available") && text.contains("add nodes"), "{text}");
}

/// How many shards each node holds.
fn held(placement: &super::Placement, nodes: usize, shards: u64) -> Vec<u64> {
    let mut held = vec![0; nodes];
    for shard in 0..shards {
        for slot in placement.map.set(shard).iter() {
            held[placement.nodes[slot.index()].0 as usize] += 1;
        }
    }
    held
}

#[test]
fn zones_have_what_their_weights_say() {
    // Zone a: one node of weight 4; b: two of 1 and 3; c: four of 1.
    let weights = [("a", 4), ("b", 1), ("b", 3), ("c", 1), ("c", 1), ("c", 1), ("c", 1)];
    let nodes: Vec<_> =
        (0..).zip(weights).map(|(id, (zone, weight))| node(id, zone, weight)).collect();
    let shards = 1200;
    let placement = place(Policy::Zone, &nodes, 2, shards * 4096, 4096, 3).unwrap();
    for shard in 0..shards {
        let zones: Vec<_> = placement
            .map
            .set(shard)
            .iter()
            .map(|slot| weights[placement.nodes[slot.index()].0 as usize].0)
            .collect();
        assert!(zones.len() == 2 && zones[0] != zones[1], "shard {shard} is in {zones:?}");
    }
    let held = held(&placement, nodes.len(), shards);
    for (held, (_, weight)) in held.iter().zip(weights) {
        assert!(held.abs_diff(200 * u64::from(weight)) <= 1, "{held} for weight {weight}");
    }
}

#[test]
fn locality_keeps_neighbours_together_and_nodes_even() {
    let nodes: Vec<_> = (0..8).map(|id| node(id, "", 1)).collect();
    let shards = 1024;
    let changes = |policy| {
        let map = place(policy, &nodes, 2, shards * 4096, 4096, 5).unwrap().map;
        (1..shards).filter(|shard| map.set(*shard) != map.set(shard - 1)).count()
    };
    assert!(changes(Policy::Locality) < 64, "{} changes", changes(Policy::Locality));
    assert!(changes(Policy::Balanced) > 900);
    let placement = place(Policy::Locality, &nodes, 2, shards * 4096, 4096, 5).unwrap();
    for held in held(&placement, nodes.len(), shards) {
        assert!(held.abs_diff(256) <= 16, "{held} shards, not 256");
    }
    let few = place(Policy::Locality, &nodes, 2, 8 * 4096, 4096, 5).unwrap();
    assert!(few.nodes.len() > 4, "a small volume is spread as well");
}

#[test]
fn random_moves_nothing_that_need_not_move() {
    let mut nodes: Vec<_> = (0..8).map(|id| node(id, "", 1 + id % 2)).collect();
    let shards = 4000;
    let at = |nodes: &[Node]| {
        let placement = place(Policy::Random, nodes, 1, shards * 4096, 4096, 9).unwrap();
        let on = |shard| placement.map.set(shard).first().map(|slot| placement.nodes[slot.index()]);
        (0..shards).map(on).collect::<Vec<_>>()
    };
    let before = at(&nodes);
    nodes.push(node(8, "", 2));
    let after = at(&nodes);
    let moved: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old != new).collect();
    assert!(moved.iter().all(|(_, new)| **new == Some(NodeId(8))), "only to the new node");
    // Its share is 2 of 14.
    assert!(moved.len().abs_diff(4000 / 7) < 100, "{} moved", moved.len());
}
