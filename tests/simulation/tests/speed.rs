// SPDX-License-Identifier: Apache-2.0
//! What a decision costs, and what a large volume costs. Debug builds are only watched for gross faults.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Instant};

use distributed_core::{
    Action, Attach, AttachError, ClientOp, Descriptor, Event, Generation, Node, NodeId, Outcome,
    Phase, Policy, Protections, Record, RequestId, Settings, ShardMap, Slot, Time, Volume, place,
};

const SHARD: u64 = 64 << 20;

/// How much slower a debug build may be.
const PATIENCE: u32 = if cfg!(debug_assertions) { 50 } else { 1 };

fn nodes(count: u32) -> Vec<Node> {
    let node = |id| Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: "storage".into(),
        address: String::new(),
        port: 0,
        zone: String::new(),
        weight: 1,
        available: true,
    };
    (0..count).map(node).collect()
}

fn attach(state: &Arc<[u8]>, map: ShardMap) -> Result<Volume, AttachError> {
    let attach = Attach {
        digests: BTreeMap::new(),
        state: Arc::clone(state),
        maps: BTreeMap::from([(Generation::default(), map)]),
        settings: Settings::default(),
        protections: Protections::default(),
        holder: 1,
        node_names: BTreeMap::new(),
        promote: None,
    };
    Volume::attach(attach, Time(0))
}

/// Answers everything that is asked for, and counts the answers to clients.
fn work(volume: &mut Volume, descriptor: &Descriptor, events: &mut u64) {
    while let Some(action) = volume.poll_action() {
        let (io, outcome) = match action {
            Action::Open { io, .. } => (io, Outcome::Opened { fenced: true }),
            Action::ReadCompanion { io, brick } => {
                let record = Record::initial(descriptor, Slot(brick.0 as u8), 0);
                let bytes = record.map(|record| record.encode()).unwrap_or_default();
                (io, Outcome::Companion([bytes, Vec::new()]))
            }
            Action::WriteCompanion { io, .. }
            | Action::SwapState { io, .. }
            | Action::Read { io, .. }
            | Action::Write { io, .. } => (io, Outcome::Ok),
            _ => continue,
        };
        *events += 1;
        volume.handle(Time(1), Event::Done { io, incarnation: 1, outcome });
    }
}

#[test]
fn a_million_shards_load_within_a_second_and_a_decision_within_a_microsecond() {
    let shards = 1_000_000;
    let placed = Instant::now();
    let placement = place(Policy::Balanced, &nodes(5), 3, shards * SHARD, SHARD, 9).unwrap();
    let placed = placed.elapsed();
    let stored = placement.map.encode();
    let mut descriptor = Descriptor::new("v", 1, shards * SHARD, &placement.nodes);
    descriptor.phase = Phase::Ready;
    let state: Arc<[u8]> = descriptor.encode().into();

    let loaded = Instant::now();
    let map = ShardMap::decode(&stored).unwrap();
    let per_shard = map.memory() as f64 / shards as f64;
    let mut volume = attach(&state, map).unwrap();
    let mut events = 0;
    work(&mut volume, &descriptor, &mut events);
    let loaded = loaded.elapsed();
    assert!(volume.is_serving());

    let mut rng = fastrand::Rng::with_seed(1);
    let ask = |volume: &mut Volume, op, request| {
        volume.handle(Time(1), Event::Request { request: RequestId(request), op });
    };
    let mut costs = Vec::new();
    for writes in [true, false] {
        let rounds = 200_000;
        events = 0;
        let started = Instant::now();
        for request in 0..rounds {
            // Within the regions that the log holds, as a hot working set is.
            let offset = rng.u64(0..200 << 20) / 4096 * 4096;
            let op = if writes {
                ClientOp::Write { offset, len: 4096, fua: false }
            } else {
                ClientOp::Read { offset, len: 4096, view: distributed_core::View::Latest }
            };
            ask(&mut volume, op, request);
            events += 1;
            work(&mut volume, &descriptor, &mut events);
        }
        black_box(&volume);
        let elapsed = started.elapsed();
        costs.push((elapsed / rounds as u32, elapsed.as_nanos() as u64 / events));
    }
    println!(
        "1000000 shards: placed in {placed:?}, loaded in {loaded:?}, {per_shard:.1} bytes a shard; a write to three \
         replicas {:?}, {} ns an event; a read {:?}, {} ns an event",
        costs[0].0, costs[0].1, costs[1].0, costs[1].1
    );
    assert!(per_shard < 100.0);
    assert!(loaded.as_secs_f64() < 1.0 * f64::from(PATIENCE));
    for (_, per_event) in costs {
        assert!(per_event < 1000 * u64::from(PATIENCE), "{per_event} ns a decision");
    }
}
