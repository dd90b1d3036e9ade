// SPDX-License-Identifier: Apache-2.0
//! Healing that is held back, and nodes that are left alone.

use super::{Desk, SIZE};
use crate::{
    Arrangement, BrickState, ClientOp, Event, NodeId, Outcome, RequestId, Settings, ShardMap,
    SlotSet, Time, VolumeState,
};

const SECOND: u64 = 1_000_000_000;

impl Desk {
    fn tell(&mut self, event: Event) {
        self.volume.handle(Time(self.now), event);
        self.work();
    }

    fn throttle(&mut self, copies: u32, bytes: u32) {
        self.tell(Event::Throttle { copies, bytes, rate: None });
    }
}

/// One replica missed a write and is back.
fn stale(desk: &mut Desk) {
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    assert_eq!(desk.write(1, 0), Some(Ok(())));
    desk.spoiled.clear();
}

#[test]
fn no_copies_pause_a_resync_and_nothing_else() {
    let mut desk = Desk::new(&Settings::default());
    stale(&mut desk);
    desk.throttle(0, 4096);
    desk.log.clear();
    desk.tick(2);
    assert_eq!(desk.states()[1], BrickState::Resyncing);
    assert_eq!(desk.done("Copy"), 0);
    let healing = desk.volume.healing();
    assert!(healing.is_wanted && healing.fewest == 2 && !healing.is_short, "{healing:?}");
    assert_eq!(desk.write(2, 4096), Some(Ok(())));
    assert_eq!(desk.write(3, 8 << 20), Some(Ok(())));
    assert_eq!(
        desk.ask(4, ClientOp::Read { offset: 0, len: 512, view: crate::View::Latest }),
        Some(Ok(()))
    );
    assert_eq!(desk.ask(5, ClientOp::Flush), Some(Ok(())));
    assert_eq!(desk.ask(6, ClientOp::Resize { size: 2 * SIZE }), Some(Ok(())));
    assert_eq!(desk.states()[1], BrickState::Resyncing);
    desk.throttle(1, 512 << 10);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    assert!(desk.done("Copy") > 0);
    assert!(!desk.volume.healing().is_wanted);
}

#[test]
fn a_paused_volume_detaches() {
    let mut desk = Desk::new(&Settings::default());
    stale(&mut desk);
    desk.throttle(0, 4096);
    desk.tick(2);
    assert_eq!(desk.ask(2, ClientOp::Detach), Some(Ok(())));
    assert_eq!(desk.volume.state(), VolumeState::Detached);
}

#[test]
fn copies_are_as_large_as_they_may_be() {
    let mut desk = Desk::new(&Settings::default());
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    let zero = ClientOp::Zero { offset: 0, len: 1 << 20, how: crate::ZeroKind::Zero, fua: false };
    assert_eq!(desk.ask(1, zero), Some(Ok(())));
    desk.spoiled.clear();
    desk.throttle(1, 64 << 10);
    desk.log.clear();
    desk.tick(2);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    let copies = desk.log.iter().filter(|line| line.starts_with("Copy"));
    assert!(copies.clone().all(|line| line.ends_with("len: 65536 }")));
    assert_eq!(copies.count(), 16);
}

#[test]
fn no_copies_pause_moves_and_the_freeing_after_them() {
    let mut desk = Desk::new(&Settings::default());
    desk.throttle(0, 1 << 20);
    let arrange = |request, slots| Event::Arrange {
        request: RequestId(request),
        arrangement: Arrangement {
            nodes: (0..3).map(NodeId).collect(),
            map: ShardMap::uniform(SIZE, 1, SlotSet(slots)),
        },
    };
    // One replica fewer: nothing is copied for that, but the third brick is to be freed of it.
    desk.tell(arrange(1, 3));
    assert!(desk.replies.contains(&(1, Ok(()))), "{:?}", desk.replies);
    assert_eq!((desk.done("Zero"), desk.volume.status().litter), (0, 1));
    assert!(desk.volume.healing().is_wanted);
    desk.throttle(2, 1 << 20);
    desk.tick(1);
    assert_eq!((desk.done("Zero"), desk.volume.status().litter), (64, 0));

    desk.throttle(0, 1 << 20);
    desk.tell(arrange(2, 7));
    desk.tick(5);
    assert_eq!((desk.done("Copy"), desk.volume.status().misplaced), (0, 1));
    assert_eq!(desk.write(3, 0), Some(Ok(())));
    desk.throttle(2, 1 << 20);
    desk.tick(1);
    assert!(desk.replies.contains(&(2, Ok(()))), "{:?}", desk.replies);
    assert_eq!(desk.volume.map().set(0), SlotSet(7));
}

#[test]
fn a_held_node_is_opened_when_its_time_is_over_or_it_is_up() {
    for is_told in [false, true] {
        let mut desk = Desk::new(&Settings::default());
        desk.tell(Event::Hold { node: NodeId(1), nanoseconds: 60 * SECOND });
        assert_eq!(desk.states(), [BrickState::InSync; 3], "what is open stays open");
        stale(&mut desk);
        desk.log.clear();
        desk.tick(59);
        assert_eq!(desk.done("Open"), 0);
        assert!(desk.volume.next_tick() >= Some(Time(60 * SECOND)), "no tick in vain");
        if is_told {
            desk.tell(Event::NodeUp(NodeId(1)));
        } else {
            desk.tick(1);
        }
        assert_eq!(desk.states(), [BrickState::InSync; 3]);
    }
}

#[test]
fn a_clock_that_jumps_back_ends_a_hold() {
    let mut desk = Desk::new(&Settings::default());
    desk.tick(1000);
    stale(&mut desk);
    desk.tell(Event::Hold { node: NodeId(1), nanoseconds: 60 * SECOND });
    desk.now = 0;
    desk.tick(0);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
}

#[test]
fn reads_prefer_other_nodes_to_one_that_is_shunned() {
    let mut desk = Desk::new(&Settings::default());
    let reads = |desk: &mut Desk, first: u64| {
        desk.log.clear();
        for request in first..first + 30 {
            desk.ask(request, ClientOp::Read { offset: 0, len: 512, view: crate::View::Latest });
        }
        let of = |line: &&String| line.starts_with("Read {") && line.contains("brick: BrickId(1)");
        desk.log.iter().filter(of).count()
    };
    assert_eq!(reads(&mut desk, 1), 10);
    desk.tell(Event::Shun { node: NodeId(1), is_shunned: true });
    assert_eq!(reads(&mut desk, 100), 0);
    // Better than none.
    desk.spoiled =
        vec![("brick: BrickId(0)", Outcome::Failed), ("brick: BrickId(2)", Outcome::Failed)];
    assert_eq!(desk.ask(200, ClientOp::Flush), Some(Ok(())));
    assert_eq!(reads(&mut desk, 300), 30);
    desk.spoiled.clear();
    desk.tick(2);
    desk.tell(Event::Shun { node: NodeId(1), is_shunned: false });
    assert_eq!(reads(&mut desk, 400), 10);
}

#[test]
fn a_failed_check_does_not_take_the_last_copy() {
    let mut desk = Desk::new(&Settings::default());
    for node in 0..3 {
        desk.tell(Event::NodeDown(NodeId(node)));
    }
    assert_eq!(desk.volume.state(), VolumeState::Serving);
    let in_sync = desk.states().iter().filter(|state| **state == BrickState::InSync).count();
    assert_eq!((in_sync, desk.volume.healing().fewest), (1, 1));
    assert_eq!(desk.write(1, 0), Some(Ok(())));
}

#[test]
fn what_has_the_fewest_copies_left_is_copied_first() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.ask(1, ClientOp::Resize { size: 2 * SIZE }), Some(Ok(())));
    let map = ShardMap::from_sets(SIZE, [SlotSet(7), SlotSet(3)]).unwrap();
    let nodes = (0..3).map(NodeId).collect();
    desk.tell(Event::Arrange { request: RequestId(2), arrangement: Arrangement { nodes, map } });
    desk.tick(1);
    assert!(desk.replies.contains(&(2, Ok(()))), "{:?}", desk.replies);
    desk.spoiled.push(("brick: BrickId(1)", Outcome::Failed));
    for (request, offset) in [(3, 0), (4, 8 << 20), (5, SIZE + (8 << 20)), (6, 16 << 20)] {
        assert_eq!(desk.write(request, offset), Some(Ok(())));
    }
    desk.spoiled.clear();
    desk.log.clear();
    desk.tick(2);
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    let copies: Vec<bool> = desk
        .log
        .iter()
        .filter(|line| line.starts_with("Copy"))
        .map(|line| line.contains(&format!("offset: {}", SIZE + (8 << 20))))
        .collect();
    assert!(copies.len() > 3 && copies[0] && !copies[copies.len() - 1], "{copies:?}");
}

#[test]
fn a_node_that_takes_copies_and_answers_none_is_tried_less_and_less_often() {
    let mut desk = Desk::new(&Settings::default());
    stale(&mut desk);
    desk.spoiled.push(("Copy", Outcome::Unknown));
    desk.log.clear();
    (0..120).for_each(|_| desk.tick(1));
    let openings = desk.done("Open");
    assert!((5..=9).contains(&openings), "{openings} in two minutes");
    desk.spoiled.clear();
    desk.tell(Event::NodeUp(NodeId(1)));
    assert_eq!(desk.states(), [BrickState::InSync; 3], "a node that is back is not made to wait");
}
