// SPDX-License-Identifier: Apache-2.0
//! What placement costs and how good it is, in figures with their targets.

use std::{fs, hint::black_box, time::Instant};

use distributed_core::{
    Node, NodeId, Placement, PlacementError, Plan, Policy, Present, Wish, place, plan,
};
use serde_json::{Value, json};

const SHARD: u64 = 64 << 20;
const FACTOR: u32 = 3;
const SEED: u64 = 9;

fn nodes(count: u32, zones: u32) -> Vec<Node> {
    let node = |id| Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: "storage".into(),
        address: String::new(),
        port: 0,
        zone: if zones > 0 { format!("z{}", id % zones) } else { String::new() },
        weight: 1 + id % 3,
        available: true,
    };
    (0..count).map(node).collect()
}

fn row(name: &str, figure: f64, unit: &str, target: f64) -> Value {
    json!({ "name": name, "figure": figure, "unit": unit, "target": target })
}

/// Measures all figures; each has a name, the figure, its unit, and the most that it may be.
///
/// # Errors
/// When something cannot be placed.
pub fn figures() -> Result<Vec<Value>, PlacementError> {
    let mut rows = vec![lookup()?];
    for policy in [Policy::Balanced, Policy::Random, Policy::Locality, Policy::Zone] {
        rows.push(placing(policy)?);
    }
    for policy in [Policy::Balanced, Policy::Zone] {
        rows.extend(moving(policy)?);
    }
    Ok(rows)
}

/// Does something, and tells the nanoseconds that this thread worked for it: what others do on the machine does not count where Linux tells.
fn worked<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let on_processor = || -> Option<u64> {
        let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        told.split_whitespace().next()?.parse().ok()
    };
    let (started, before) = (Instant::now(), on_processor());
    let done = black_box(work());
    let took = started.elapsed().as_nanos() as u64;
    let own = before.zip(on_processor()).map(|(before, after)| after - before);
    (done, own.filter(|own| *own > 0).unwrap_or(took) as f64)
}

/// Nanoseconds of a lookup in a map of a million shards, as scattered as reads are; the least of some rounds.
fn lookup() -> Result<Value, PlacementError> {
    let shards = 1_000_000;
    let map = place(Policy::Balanced, &nodes(8, 0), FACTOR, shards * SHARD, SHARD, SEED)?.map;
    let (mut rng, rounds, mut least) = (fastrand::Rng::with_seed(1), 1_000_000_u32, f64::INFINITY);
    for _ in 0..5 {
        let ((), took) = worked(|| {
            for _ in 0..rounds {
                black_box(map.set(black_box(rng.u64(0..shards))));
            }
        });
        least = least.min(took / f64::from(rounds));
    }
    Ok(row("lookup of a shard's nodes", least, "ns", 50.0))
}

/// Microseconds of placing a shard among a thousand nodes.
fn placing(policy: Policy) -> Result<Value, PlacementError> {
    let (nodes, shards) = (nodes(1000, 10), 50_000_u32);
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let size = u64::from(shards) * SHARD;
        let (placed, took) = worked(|| place(policy, &nodes, FACTOR, size, SHARD, SEED));
        placed?;
        least = least.min(took / 1e3 / f64::from(shards));
    }
    Ok(row(&format!("{policy:?}: placing one among 1000 nodes"), least, "us", 10.0))
}

/// What moves when a node joins and when one is drained, beside the least that can move; how even it is then, in shards; and
/// shards with two replicas in a zone while another has none.
fn moving(policy: Policy) -> Result<Vec<Value>, PlacementError> {
    let zones = if policy == Policy::Zone { 5 } else { 0 };
    let (all, shards) = (nodes(11, zones), 30_000);
    let size = shards * SHARD;
    let placed = place(policy, &all[..10], FACTOR, size, SHARD, SEED)?;
    let (joined, slots) = planned(policy, &placed, &all, &[], size)?;
    let after = Placement { nodes: slots, map: joined.map.clone() };
    let (drained, _) = planned(policy, &after, &all, &[NodeId(2)], size)?;
    let mut rows = Vec::new();
    for (what, plan) in [("a node joins", &joined), ("one is drained", &drained)] {
        let shard = SHARD as f64;
        let least = least_movement(plan);
        let allowed = (1.05 * least).max(least + shard);
        let name = |figure: &str| format!("{policy:?}, {what}: {figure}");
        let moves = &plan.moves;
        // What zones ask for besides, the exact solver of the core's tests knows.
        if zones == 0 {
            rows.push(row(&name("moved"), moves.bytes as f64 / shard, "", allowed / shard));
        }
        rows.push(row(&name("worst node off"), moves.worst_after as f64 / shard, "", 1.0));
        let violations = moves.zone_violations_after as f64;
        rows.push(row(&name("zone violations"), violations, "", 0.0));
    }
    Ok(rows)
}

fn planned(
    policy: Policy,
    placed: &Placement,
    nodes: &[Node],
    leaving: &[NodeId],
    size: u64,
) -> Result<(Plan, Vec<NodeId>), PlacementError> {
    let slots: Vec<Option<NodeId>> = placed.nodes.iter().copied().map(Some).collect();
    let present = Present { slots: &slots, map: &placed.map, size };
    let plan = plan(&present, &Wish { policy, factor: FACTOR, nodes, leaving, seed: SEED })?;
    let slots = plan.slots.iter().copied().flatten().collect();
    Ok((plan, slots))
}

/// Bytes that have to be copied whatever the plan, for each node to be within one shard of what it should have.
fn least_movement(plan: &Plan) -> f64 {
    let shard = SHARD as f64;
    let lacks = |share: &distributed_core::Share| {
        let least = (share.ideal as f64 / shard - 1.0).ceil() * shard;
        (least - share.before as f64).max(0.0)
    };
    let lacking: f64 = plan.moves.nodes.iter().map(lacks).sum();
    // What leaves has to go somewhere.
    let leaving = plan.moves.nodes.iter().filter(|share| share.ideal == 0);
    lacking.max(leaving.map(|share| share.before as f64).sum())
}
