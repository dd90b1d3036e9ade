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
