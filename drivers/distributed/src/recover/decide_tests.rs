// SPDX-License-Identifier: Apache-2.0
use distributed_core::{Slot, SlotSet};

use super::*;

static NO_MAPS: BTreeMap<Generation, ShardMap> = BTreeMap::new();

const NODES: [NodeId; 3] = [NodeId(4), NodeId(5), NodeId(6)];

fn set(slots: &[u8]) -> SlotSet {
    slots.iter().map(|slot| Slot(*slot)).collect()
}

/// What the three companions of an attached volume say: brick 2 is stale since generation 3.1, and all know it.
fn records() -> Vec<Record> {
    let made = Descriptor::new("v", 7, 64 << 20, &NODES);
    let attached = Descriptor {
        phase: Phase::Ready,
        epoch: 2,
        generation: Generation { epoch: 2, change: 1 },
        ..made
    };
    let mut now = Descriptor {
        epoch: 3,
        settled: Generation { epoch: 3, change: 1 },
        generation: Generation { epoch: 3, change: 2 },
        in_sync: set(&[0, 1]),
        ..attached.clone()
    };
    now.bricks[2].left = attached.generation;
    let record = |descriptor: &Descriptor, slot| Record::initial(descriptor, Slot(slot), 99);
    [record(&now, 0), record(&now, 1), record(&attached, 2)].into_iter().flatten().collect()
}

fn map() -> ShardMap {
    ShardMap::from_sets(1 << 20, [set(&[0, 1]), set(&[1, 2]), set(&[0, 2])]).expect("a map")
}

/// Companions found on nodes whose numbers are now 2, 1 and 0.
fn companions<'a>(
    records: &'a [Record],
    maps: &'a [Option<ShardMap>],
    which: &[usize],
) -> Vec<Companion<'a>> {
    let one = |index: &usize| Companion {
        node: NodeId(2 - *index as u32),
        record: &records[*index],
        map: maps[*index].as_ref(),
        frozen: &NO_MAPS,
    };
    which.iter().map(one).collect()
}

#[test]
fn nodes_are_where_their_bricks_were_found() {
    let (records, maps) = (records(), [Some(map()), Some(map()), Some(map())]);
    let all = companions(&records, &maps, &[2, 0, 1]);
    let findings = Findings::new(&all).unwrap().unwrap();
    let rebuilt = findings.rebuild(false, 5).unwrap();
    let descriptor = rebuilt.renumbered();
    let nodes: Vec<NodeId> = descriptor.bricks.iter().map(|entry| entry.node).collect();
    assert_eq!(nodes, [NodeId(2), NodeId(1), NodeId(0)]);
    assert_eq!((descriptor.phase, descriptor.in_sync), (Phase::Ready, set(&[0, 1])));
    assert_eq!((rebuilt.map.clone(), rebuilt.lost()), (map(), Vec::new()));
    assert!(findings.missing.is_empty() && rebuilt.given_up.is_empty());
}

#[test]
fn a_stale_replica_may_be_absent_and_its_node_is_guessed_or_lost() {
    let (records, maps) = (records(), [Some(map()), Some(map()), None]);
    let all = companions(&records, &maps, &[0, 1]);
    let findings = Findings::new(&all).unwrap().unwrap();
    assert_eq!(findings.missing, [(BrickId(2), NodeId(6))]);
    let mut rebuilt = findings.rebuild(false, 5).unwrap();
    rebuilt.guess(|_| false);
    assert_eq!(rebuilt.lost(), [NodeId(6)]);
    let mut guessed = findings.rebuild(false, 5).unwrap();
    guessed.guess(|node| node == NodeId(6));
    assert!(guessed.lost().is_empty());
    assert_eq!(guessed.renumbered().bricks[2].node, NodeId(6));
}

#[test]
fn a_number_whose_node_has_another_brick_is_not_guessed() {
    let (records, maps) = (records(), [Some(map()), Some(map()), None]);
    let mut all = companions(&records, &maps, &[0, 1]);
    all[0].node = NodeId(6);
    let findings = Findings::new(&all).unwrap().unwrap();
    let mut rebuilt = findings.rebuild(false, 5).unwrap();
    rebuilt.guess(|_| true);
    assert_eq!(rebuilt.lost(), [NodeId(6)]);
}

#[test]
fn the_stale_replica_alone_is_refused_and_if_accepted_the_others_are_never_believed() {
    let (records, maps) =
        (records(), [None, None, Some(ShardMap::uniform(1 << 20, 64, set(&[2])))]);
    let all = companions(&records, &maps, &[2]);
    let findings = Findings::new(&all).unwrap().unwrap();
    let refusal = findings.rebuild(false, 5).unwrap_err();
    assert!(refusal.contains("node 4") && refusal.contains("b1"), "{refusal}");
    let rebuilt = findings.rebuild(true, 5).unwrap();
    assert_eq!(rebuilt.given_up, [(BrickId(0), NodeId(4)), (BrickId(1), NodeId(5))]);
    assert_eq!(rebuilt.descriptor.in_sync, set(&[2]));
    assert!(rebuilt.descriptor.bricks[0].fresh && rebuilt.descriptor.bricks[1].fresh);
}

#[test]
fn what_no_replica_has_is_not_accepted() {
    let (records, maps) = (records(), [None, None, Some(map())]);
    let all = companions(&records, &maps, &[2]);
    let refusal = Findings::new(&all).unwrap().unwrap().rebuild(true, 5).unwrap_err();
    assert!(refusal.contains("of some of its shards") && refusal.contains("node 4"), "{refusal}");
}

#[test]
fn the_map_is_the_one_that_the_newest_record_names() {
    let mut records = records();
    let other = ShardMap::uniform(1 << 20, 64, set(&[0]));
    let map_of = |records: &[Record], maps: &[Option<ShardMap>; 3]| {
        let all = companions(records, maps, &[2, 1, 0]);
        let findings = Findings::new(&all).unwrap().unwrap();
        findings.map(findings.newest)
    };
    assert_eq!(map_of(&records, &[None, Some(map()), None]), Some(map()));
    let unfit = ShardMap::uniform(1 << 20, 64, set(&[3]));
    assert_eq!(map_of(&records, &[None, Some(unfit), Some(other.clone())]), Some(other.clone()));
    let maps = [None, None, None];
    let all = companions(&records, &maps, &[2, 1, 0]);
    assert!(
        Findings::new(&all).unwrap().unwrap().rebuild(true, 5).unwrap_err().contains("shard map")
    );
    let later = Generation { epoch: 9, change: 1 };
    for record in &mut records[..2] {
        record.descriptor.map = later;
    }
    assert_eq!(map_of(&records, &[Some(map()), None, Some(other.clone())]), Some(map()));
    assert_eq!(map_of(&records, &[None, None, Some(other)]), None, "it was before the last move");
}

#[test]
fn of_a_copied_brick_the_newer_counts_and_equal_ones_are_refused() {
    let (mut records, maps) = (records(), [Some(map()), Some(map()), None]);
    let mut all = companions(&records, &maps, &[0, 1]);
    all.push(Companion { node: NodeId(9), ..companions(&records, &maps, &[1]).remove(0) });
    assert!(Findings::new(&all).unwrap_err().contains("b1"));
    records[2] = Record { brick: BrickId(1), ..records[2].clone() };
    let all = companions(&records, &maps, &[2, 0, 1]);
    let rebuilt = Findings::new(&all).unwrap().unwrap().rebuild(false, 5).unwrap();
    assert_eq!(rebuilt.renumbered().bricks[1].node, NodeId(1));
    assert!(Findings::new(&[]).unwrap().is_none());
}

#[test]
fn maps_of_snapshots_come_from_any_companion_that_has_them() {
    let (mut records, maps) = (records(), [Some(map()), Some(map()), None]);
    let (old, gone) = (Generation { epoch: 1, change: 1 }, Generation { epoch: 1, change: 2 });
    let snapshot = |number: u32, map: Generation| distributed_core::Snapshot {
        number,
        name: number.to_string(),
        is_taken: true,
        created_unix_secs: 0,
        size: 64 << 20,
        map,
        moved: Vec::new(),
        holders: Vec::new(),
    };
    let base = records[0].descriptor.map;
    for record in &mut records {
        record.descriptor.snapshots = vec![snapshot(0, old), snapshot(1, base), snapshot(2, gone)];
    }
    let frozen = BTreeMap::from([(old, ShardMap::uniform(1 << 20, 64, set(&[2])))]);
    let mut all = companions(&records, &maps, &[0, 1, 2]);
    all[2].frozen = &frozen;
    let findings = Findings::new(&all).unwrap().unwrap();
    let found = findings.frozen(findings.newest);
    assert_eq!(found, BTreeMap::from([(base, map()), (old, frozen[&old].clone())]));
}
