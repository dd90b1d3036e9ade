// SPDX-License-Identifier: Apache-2.0
//! Shards that are split and merged while nothing fails.

use super::*;
use crate::Arrangement;

const MIB: u64 = 1 << 20;

impl Desk {
    fn arrange(&mut self, request: u64, map: ShardMap) -> Option<Result<(), Failure>> {
        let nodes = (0..3).map(NodeId).collect();
        let arrangement = Arrangement { nodes, map };
        let event = Event::Arrange { request: RequestId(request), arrangement };
        self.volume.handle(Time(self.now), event);
        self.work();
        self.replies.iter().find(|(other, _)| *other == request).map(|(_, result)| result.clone())
    }

    fn stored(&self) -> Descriptor {
        Descriptor::decode(&self.state).unwrap()
    }
}

fn sets(shard_mib: u64, sets: &[u64]) -> ShardMap {
    ShardMap::from_sets(shard_mib * MIB, sets.iter().map(|set| SlotSet(*set))).unwrap()
}

#[test]
fn a_split_copies_nothing_and_one_record_says_it() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.write(1, 20 * MIB), Some(Ok(())));
    desk.log.clear();
    let split = ShardMap::uniform(16 * MIB, 4, SlotSet(7));
    assert_eq!(desk.arrange(2, split.clone()), Some(Ok(())));
    assert_eq!(*desk.volume.map(), split);
    assert_eq!((desk.done("Copy"), desk.done("StoreMap"), desk.done("SwapState")), (0, 1, 1));
    let stored = desk.stored();
    assert_eq!((stored.shard_size, stored.moved.len()), (16 * MIB, 0));
    assert_eq!(stored.map_from(&split).as_ref(), Some(&split));
    assert_eq!(stored.map_from(&map()), None, "the map of before is not its map any more");
    assert_eq!(desk.state[16] & 16, 16, "a host from before this refuses it");
    assert_eq!(desk.write(3, 20 * MIB), Some(Ok(())));
    assert!(desk.volume.is_whole());
}

#[test]
fn shards_are_brought_together_before_they_are_one() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.arrange(1, sets(16, &[3, 3, 6, 5])), Some(Ok(())));
    desk.log.clear();
    assert_eq!(desk.arrange(2, sets(32, &[3, 6])), Some(Ok(())));
    assert_eq!((desk.volume.map().shard_size(), desk.volume.map().set(1)), (32 * MIB, SlotSet(6)));
    let copies: Vec<&String> = desk.log.iter().filter(|line| line.starts_with("Copy")).collect();
    assert_eq!(copies.len(), 16, "a MiB each, of the last shard to slot 1: {copies:#?}");
    assert!(copies.iter().all(|line| line.contains("to: BrickId(1)")), "{copies:#?}");
    assert!(desk.volume.is_whole(), "{:?}", desk.volume.status());
    assert!(matches!(desk.arrange(3, sets(24, &[3, 3, 3])), Some(Err(Failure::Refused(_)))));
}

#[test]
fn litter_is_counted_in_the_new_shards() {
    let mut desk = Desk::new(&Settings::default());
    // What one brick loses is not freed yet.
    desk.volume.handle(Time(0), Event::Throttle { copies: 0, bytes: 1 << 20, rate: None });
    assert_eq!(desk.arrange(1, sets(16, &[3, 7, 7, 7])), Some(Ok(())));
    assert_eq!(desk.volume.status().litter, 1);
    let mut split = [7; 16];
    split[..4].fill(3);
    assert_eq!(desk.arrange(2, sets(4, &split)), Some(Ok(())));
    assert_eq!(desk.volume.status().litter, 4);
    let litter = &desk.stored().litter;
    assert_eq!(
        (litter.len(), litter[0].slot, litter[0].first, litter[0].count),
        (1, Slot(2), 0, 4)
    );
    desk.volume.handle(Time(0), Event::Throttle { copies: 4, bytes: 1 << 20, rate: None });
    desk.work();
    assert!(desk.volume.is_whole() && desk.stored().litter.is_empty());
}

#[test]
fn a_wish_that_is_taken_back_leaves_the_shards() {
    let mut desk = Desk::new(&Settings::default());
    // The state does not take the map, so that nothing comes of it.
    desk.spoiled.push(("StoreMap", Outcome::Failed));
    assert_eq!(desk.arrange(1, ShardMap::uniform(16 * MIB, 4, SlotSet(7))), None);
    let (map, stays) = (map(), SlotSet(7));
    assert_eq!(desk.arrange(2, ShardMap::uniform(64 * MIB, 1, stays)), None);
    assert!(matches!(&desk.replies[..], [(1, Err(Failure::Refused(_)))]));
    desk.spoiled.clear();
    desk.tick(2);
    assert_eq!(desk.replies.last(), Some(&(2, Ok(()))));
    assert_eq!((desk.volume.map(), desk.stored().shard_size), (&map, 0));
    assert!(!desk.log.iter().any(|line| line.starts_with("ForgetMaps")), "{:#?}", desk.log);
}

/// A volume that got smaller, to so many MiB, and whose state is about to get a map of shards of another size.
fn about_to_reshard(sets_of_16: &[u64], mib: u64, wish: ShardMap) -> Desk {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.arrange(1, sets(16, sets_of_16)), Some(Ok(())));
    assert_eq!(desk.ask(2, ClientOp::Resize { size: mib * MIB }), Some(Ok(())));
    desk.held = Some("StoreMap");
    assert_eq!(desk.arrange(3, wish), None);
    assert_eq!(desk.unanswered.len(), 1);
    desk
}

#[test]
fn what_is_past_an_end_is_not_counted_by_a_map_that_is_about_to_go() {
    let mut desk = about_to_reshard(&[3, 3, 6, 6], 32, sets(4, &[3; 8]));
    // Two bricks are away while the volume grows, and may hold what was there when it was larger.
    desk.spoiled =
        vec![("brick: BrickId(0)", Outcome::Failed), ("brick: BrickId(2)", Outcome::Failed)];
    for node in [0, 2] {
        desk.volume.handle(Time(0), Event::NodeDown(NodeId(node)));
    }
    desk.work();
    assert_eq!(desk.states(), [BrickState::Stale, BrickState::InSync, BrickState::Stale]);
    desk.held = Some("ResizeBrick");
    assert_eq!(desk.ask(4, ClientOp::Resize { size: SIZE }), None);
    assert_eq!(desk.unanswered.len(), 2);
    // The map is stored while the bricks grow, and they have grown before the state has a record that could name it.
    desk.held = Some("SwapState");
    let (io, outcome) = desk.unanswered.remove(0);
    desk.volume.handle(Time(0), Event::Done { io, incarnation: 1, outcome });
    desk.work();
    desk.let_go();
    assert!(desk.replies.contains(&(4, Ok(()))), "{:?}", desk.replies);
    desk.log.clear();
    desk.spoiled.clear();
    desk.tick(2);
    desk.tick(2);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    assert!(desk.replies.contains(&(3, Ok(()))), "{:?}", desk.replies);
    assert!(desk.volume.is_whole(), "{:?}", desk.volume.status());
    assert!(desk.stored().litter.is_empty());
    // What it may hold of shards that it is no replica of.
    let frees = |line: &&String| line.starts_with("Zero") && line.contains("brick: BrickId(2)");
    assert_eq!(desk.log.iter().filter(frees).count(), 32, "a MiB each: {:#?}", desk.log);
}

#[test]
fn merged_shards_are_not_where_a_smaller_volume_had_them() {
    let mut desk = about_to_reshard(&[3, 3, 3, 6], 48, sets(32, &[3, 3]));
    assert_eq!(desk.ask(4, ClientOp::Resize { size: SIZE }), Some(Ok(())));
    desk.log.clear();
    assert_eq!(desk.write(5, 50 * MIB), Some(Ok(())));
    let written: Vec<&String> = desk.log.iter().filter(|l| l.starts_with("Write {")).collect();
    assert!(written.len() == 2 && !written.iter().any(|line| line.contains("BrickId(0)")));
    // Half of what becomes the last shard came when it had been made, and is elsewhere.
    desk.log.clear();
    desk.let_go();
    assert!(desk.replies.contains(&(3, Ok(()))), "{:?}", desk.replies);
    assert_eq!((desk.volume.map().shard_size(), desk.volume.map().set(1)), (32 * MIB, SlotSet(3)));
    let copies: Vec<&String> = desk.log.iter().filter(|line| line.starts_with("Copy")).collect();
    assert_eq!(copies.len(), 16, "a MiB each of what slot 0 did not have: {copies:#?}");
    assert!(desk.volume.is_whole(), "{:?}", desk.volume.status());
}
