// SPDX-License-Identifier: Apache-2.0
//! What placement costs. Debug builds are only watched for gross faults.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use distributed_core::{Node, NodeId, PlacementError, Plan, Policy, Present, Wish, place, plan};

const SHARD: u64 = 64 << 20;
const SHARDS: u64 = 1_000_000;

/// How much slower a debug build may be.
const PATIENCE: u32 = if cfg!(debug_assertions) { 50 } else { 1 };

fn nodes(count: u32) -> Vec<Node> {
    let node = |id| Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: "storage".into(),
        address: String::new(),
        port: 0,
        zone: if count > 10 { format!("z{}", id % 10) } else { String::new() },
        weight: 1 + id % 3,
        available: true,
    };
    (0..count).map(node).collect()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

/// A volume of so many shards on the first `had` of `count` nodes, planned for all of them.
fn planned(
    policy: Policy,
    factor: u32,
    had: usize,
    count: u32,
) -> Result<(Plan, Duration), PlacementError> {
    let nodes = nodes(count);
    let size = SHARDS * SHARD;
    let placed = place(policy, &nodes[..had], factor, size, SHARD, 9)?;
    let slots: Vec<Option<NodeId>> = placed.nodes.into_iter().map(Some).collect();
    let present = Present { slots: &slots, map: &placed.map, size };
    let wish = Wish { policy, factor, nodes: &nodes, leaving: &[], seed: 9 };
    let (plan, took) = timed(|| plan(&present, &wish));
    Ok((plan?, took))
}

#[test]
fn a_lookup_takes_nanoseconds() {
    let map = place(Policy::Balanced, &nodes(8), 3, SHARDS * SHARD, SHARD, 9).unwrap().map;
    let rounds = 2_000_000;
    let mut rng = fastrand::Rng::with_seed(1);
    // As scattered as reads are; the generator's own time counts.
    let (_, took) = timed(|| {
        for _ in 0..rounds {
            black_box(map.set(black_box(rng.u64(0..SHARDS))));
        }
    });
    let each = took.as_nanos() as u64 / rounds;
    println!("a shard's nodes are found in {each} ns");
    assert!(each <= 50 * u64::from(PATIENCE));
}

#[test]
fn a_shard_is_placed_among_a_thousand_nodes_within_ten_microseconds() {
    let nodes = nodes(1000);
    for policy in [Policy::Balanced, Policy::Random, Policy::Locality, Policy::Zone] {
        let shards = 100_000;
        let (placed, took) = timed(|| place(policy, &nodes, 3, shards * SHARD, SHARD, 9).unwrap());
        black_box(placed);
        let each = took.as_nanos() as u64 / shards;
        println!("{policy:?}: a shard is placed among 1000 nodes in {each} ns");
        assert!(each <= 10_000 * u64::from(PATIENCE));
    }
}

#[test]
fn a_million_shards_are_planned_within_a_second() {
    for (policy, factor, had, count) in [
        (Policy::Balanced, 3, 5, 6),
        (Policy::Random, 3, 5, 6),
        (Policy::Locality, 3, 5, 6),
        (Policy::Zone, 3, 5, 6),
        (Policy::Balanced, 3, 32, 64),
        (Policy::Balanced, 3, 63, 64),
        (Policy::Balanced, 4, 39, 40),
    ] {
        if cfg!(debug_assertions) && count > 6 {
            continue;
        }
        let (plan, took) = planned(policy, factor, had, count).unwrap();
        let moves = plan.moves;
        println!(
            "{policy:?}, factor {factor}: 1000000 shards on {had} nodes are planned for {count} in {took:?}; {} replicas \
             move, no node is further than {:.2} shards from its share",
            moves.bytes / SHARD,
            moves.worst_after as f64 / SHARD as f64
        );
        assert!(took < Duration::from_secs(if count == 6 { 1 } else { 5 }) * PATIENCE);
    }
}
