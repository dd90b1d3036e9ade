// SPDX-License-Identifier: Apache-2.0
//! Asynchronous mode, over the desk of the other tests.

use super::*;
use crate::{Configuration, Loss, Mode, Notice, Point, View};

fn asynchronous() -> Configuration {
    Configuration {
        mode: Mode::Asynchronous,
        acknowledging: None,
        min_in_sync: 1,
        shortage: Shortage::ReadOnly,
        most_behind_bytes: 1 << 20,
        most_behind_ns: 1_000_000_000,
    }
}

impl Desk {
    fn configure(&mut self, request: u64, configuration: Configuration) -> Result<(), Failure> {
        let request = RequestId(request);
        self.volume.handle(Time(self.now), Event::Configure { request, configuration });
        self.work();
        self.answer(request.0)
    }

    fn promote(&mut self, request: u64, node: u32, at_once: bool) -> Result<(), Failure> {
        let (request, node) = (RequestId(request), NodeId(node));
        self.volume.handle(Time(self.now), Event::Promote { request, node, at_once });
        self.work();
        self.answer(request.0)
    }

    fn answer(&self, request: u64) -> Result<(), Failure> {
        let mut replies = self.replies.iter();
        replies.find(|(other, _)| *other == request).map(|(_, result)| result.clone()).unwrap()
    }
}

#[test]
fn followers_get_writes_through_their_journals_in_order() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    assert_eq!(desk.states(), [BrickState::InSync, BrickState::Following, BrickState::Following]);
    desk.log.clear();
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    let of_follower = |line: &&String| {
        line.contains("brick: BrickId(1)")
            || line.starts_with("Reply")
            || line.starts_with("Release")
    };
    let names = desk.log.iter().filter(of_follower);
    let names: Vec<&str> = names.map(|line| line.split_whitespace().next().unwrap()).collect();
    let expected = ["Reply", "WriteJournal", "WriteCompanion", "Write", "Flush", "Release"];
    assert_eq!(names, expected, "{:#?}", desk.log);
}

#[test]
fn a_follower_is_promoted_and_nothing_is_lost_that_the_host_remembers() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    desk.spoiled = vec![("Write { io", Outcome::Failed)];
    let result = desk.write(3, 0);
    assert!(matches!(result, Some(Err(Failure::Headless(_)))), "{result:?}");
    desk.spoiled.clear();
    let read = |view| ClientOp::Read { offset: 0, len: 512, view };
    assert!(matches!(desk.ask(4, read(View::Latest)), Some(Err(Failure::Headless(_)))));
    assert_eq!(desk.ask(5, read(View::Consistent)), Some(Ok(())));
    desk.log.clear();
    assert_eq!(desk.promote(6, 1, false), Ok(()));
    let loss = Loss::Exact {
        writes: 0,
        bytes: 0,
        ranges: 0,
        from: Point { epoch: 1, sequence: 1 },
        to: Point { epoch: 1, sequence: 1 },
        oldest_ns: 0,
    };
    let notice = Notice::Promoted { brick: BrickId(1), node: NodeId(1), loss };
    assert!(desk.log.contains(&format!("Report({notice:?})")), "{:#?}", desk.log);
    assert_eq!(desk.write(7, 0), Some(Ok(())));
    assert_eq!(desk.volume.status().acknowledging, Some(NodeId(1)));
}

#[test]
fn a_size_that_was_not_recorded_is_taken_back_with_the_acknowledging_brick() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    let size = desk.volume.size();
    desk.log.clear();
    desk.spoiled = vec![("WriteCompanion", Outcome::Failed)];
    let result = desk.ask(2, ClientOp::Resize { size: size / 2 });
    assert!(matches!(result, Some(Err(Failure::Headless(_)))), "{result:?}");
    desk.spoiled.clear();
    assert_eq!(desk.volume.size(), size);
    assert_eq!(desk.promote(3, 1, false), Ok(()));
    let cut_off = desk.log.iter().find(|line| line.contains(&format!("size: {}", size / 2)));
    assert_eq!(cut_off, None, "a brick was made smaller");
    assert_eq!(Descriptor::decode(&desk.state).unwrap().size, size);
}

#[test]
fn a_promotion_whose_record_may_have_arrived_is_not_said_to_be_refused() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    desk.spoiled = vec![("Write { io", Outcome::Failed)];
    assert!(matches!(desk.write(3, 0), Some(Err(Failure::Headless(_)))));
    desk.spoiled = vec![("WriteCompanion", Outcome::Unknown)];
    let result = desk.promote(4, 1, false);
    assert!(
        matches!(&result, Err(Failure::Headless(text)) if text.contains("0 acknowledged writes")),
        "{result:?}"
    );
    desk.spoiled.clear();
    // Another one is promoted, and the record leaves out the first.
    assert_eq!(desk.promote(5, 2, false), Ok(()));
    let state = Descriptor::decode(&desk.state).unwrap();
    assert_eq!(state.in_sync, SlotSet::only(Slot(2)));
    assert!(state.bricks[1].fresh || state.bricks[1].left > Generation::default(), "{state:?}");
}

#[test]
fn followers_join_again_when_the_mode_is_changed_back() {
    let mut desk = Desk::new(&Settings::default());
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    let back = Configuration { mode: Mode::Synchronous, ..asynchronous() };
    assert_eq!(desk.configure(3, back), Ok(()));
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
    assert_eq!(desk.volume.status().mode, Mode::Synchronous);
}

#[test]
fn a_write_waits_when_followers_would_be_too_far_behind() {
    let mut desk = Desk::new(&Settings::default());
    // Zero stands for a time that is not known.
    desk.tick(1);
    let few = Configuration { most_behind_bytes: 8192, ..asynchronous() };
    assert_eq!(desk.configure(1, few), Ok(()));
    desk.spoiled = vec![("WriteJournal", Outcome::Unknown)];
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    // Both followers were given up, and the log is kept for them: one more fits, and then they fall out.
    assert_eq!(desk.write(3, 8192), Some(Ok(())));
    assert_eq!(desk.volume.status().bricks[1].state, BrickState::Following);
    assert_eq!(desk.write(4, 16_384), Some(Ok(())));
    assert_eq!(desk.volume.status().bricks[1].state, BrickState::Stale);
    let state = Descriptor::decode(&desk.state).unwrap();
    assert_eq!(state.following, SlotSet::EMPTY, "written before it is recorded that they fell out");
}

#[test]
fn nothing_is_acknowledged_while_a_follower_lacks_what_is_older_than_the_bound() {
    let mut desk = Desk::new(&Settings::default());
    desk.tick(1);
    assert_eq!(desk.configure(1, asynchronous()), Ok(()));
    desk.held = Some("WriteJournal");
    assert_eq!(desk.write(2, 0), Some(Ok(())));
    desk.tick(1);
    assert_eq!(desk.write(3, 8192), Some(Ok(())), "just within the bound");
    desk.tick(1);
    assert_eq!(desk.write(4, 16_384), None);
    desk.tick(3);
    assert_eq!(desk.write(5, 32_768), None);
    let behind = desk.volume.status().bricks[1].behind.unwrap();
    assert_eq!((behind.writes, behind.bytes), (2, 8192), "no more than it was at the bound");
    assert_eq!(behind.nanoseconds, 5_000_000_000, "although it gets older");
    desk.let_go();
    assert_eq!((desk.answer(4), desk.answer(5)), (Ok(()), Ok(())));
}

#[test]
fn only_a_whole_volume_becomes_asynchronous() {
    let mut desk = Desk::new(&Settings::default());
    desk.volume.map = ShardMap::uniform(64 << 20, 1, SlotSet(3));
    assert!(matches!(desk.configure(1, asynchronous()), Err(Failure::Refused(_))));
    assert_eq!(desk.states(), [BrickState::InSync; 3]);
}
