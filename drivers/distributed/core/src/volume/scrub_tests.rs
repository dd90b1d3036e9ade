// SPDX-License-Identifier: Apache-2.0
//! Digests, scrubs, and reads that are compared.

use super::{Desk, SIZE};
use crate::{
    BrickId, ClientOp, Event, Failure, Outcome, Record, Repaired, ScrubStatus, Settings, Slot,
    SlotSet, Verdict,
};

const UNIT: u64 = 4 << 20;

impl Desk {
    fn scrub(&mut self, repairs: bool) -> ScrubStatus {
        self.volume.handle(crate::Time(self.now), Event::Scrub { repairs, started: 5 });
        self.work();
        for _ in 0..20 {
            self.tick(10);
        }
        self.volume.scrub().unwrap()
    }

    fn void_in_companions(&self) -> Vec<(u32, u32)> {
        let records = self.companions.values().map(|slots| Record::newest(slots).unwrap());
        let void: Vec<_> = records.map(|record| record.digests.unwrap().1).collect();
        assert!(void.windows(2).all(|pair| pair[0] == pair[1]), "{void:?}");
        void[0].clone()
    }

    /// How many actions have this in their text.
    fn told(&self, part: &str) -> usize {
        self.log.iter().filter(|line| line.contains(part)).count()
    }

    fn position(&self, part: &str) -> usize {
        self.log.iter().position(|line| line.contains(part)).unwrap()
    }
}

fn bad(status: &ScrubStatus) -> Vec<(u64, Verdict, SlotSet)> {
    let bad = status.findings.iter();
    bad.map(|f| (f.offset, f.verdict, f.bad().map(|bad| bad.slot).collect())).collect()
}

#[test]
fn a_scrub_names_the_bad_replica_and_mends_it() {
    let mut desk = Desk::new(&Settings::default());
    let status = desk.scrub(false);
    assert!(status.is_over, "{status:?}");
    assert_eq!((status.digested, u64::from(status.units)), (16, SIZE / UNIT));
    // Two of three are bad: the majority would be wrong.
    desk.rotten = vec![(BrickId(0), UNIT + 1), (BrickId(1), UNIT + 1), (BrickId(2), 3 * UNIT)];
    let status = desk.scrub(false);
    let two = SlotSet(0b11);
    let expected =
        [(UNIT, Verdict::Digest, two), (3 * UNIT, Verdict::Digest, SlotSet::only(Slot(2)))];
    assert_eq!(bad(&status), expected);
    assert_eq!(desk.done("Copy"), 0, "nobody asked for repairs");
    desk.log.clear();
    let status = desk.scrub(true);
    assert_eq!(bad(&status), expected);
    assert!(status.findings.iter().all(|f| f.mending == Repaired::Verified), "{status:?}");
    assert!(desk.rotten.is_empty());
    assert_eq!((desk.done("Copy"), desk.told("from: BrickId(2), source")), (12, 8));
    assert!(desk.position("Copy") < desk.position("Flush"), "it must be on the disks first");
}

#[test]
fn what_cannot_be_told_is_left_as_it_is() {
    let mut desk = Desk::new(&Settings::default());
    desk.rotten = vec![(BrickId(0), 1), (BrickId(1), UNIT), (BrickId(2), UNIT + 9)];
    let status = desk.scrub(true);
    let expected =
        [(0, Verdict::Majority, SlotSet::only(Slot(0))), (UNIT, Verdict::Undecided, SlotSet(7))];
    assert_eq!(bad(&status), expected);
    assert_eq!(desk.rotten.len(), 2, "only the one that was outvoted is mended");
    desk.rotten.clear();
    desk.scrub(true);
    desk.rotten = (0..3).map(|brick| (BrickId(brick), 5 * UNIT)).collect();
    assert_eq!(bad(&desk.scrub(true)), [(5 * UNIT, Verdict::Everywhere, SlotSet(7))]);
}

#[test]
fn a_digest_is_void_before_anything_is_written_and_stays_so() {
    let settings = Settings::default();
    let mut desk = Desk::new(&settings);
    desk.scrub(false);
    assert_eq!(desk.void_in_companions(), []);
    desk.log.clear();
    assert_eq!(desk.write(1, 2 * UNIT + 4096), Some(Ok(())));
    assert_eq!(desk.void_in_companions(), [(2, 1)]);
    assert!(desk.position("WriteCompanion") < desk.position("Write {"));
    let records = desk.done("WriteCompanion");
    assert_eq!(desk.write(2, 2 * UNIT + 8192), Some(Ok(())));
    assert_eq!(desk.done("WriteCompanion"), records, "the next write costs no record");
    desk.attach_again(&settings);
    assert_eq!(desk.volume.digest_at(2 * UNIT), None);
    assert!(desk.volume.digest_at(UNIT).is_some());
    let status = desk.scrub(false);
    assert_eq!((status.digested, status.found), (16, 0), "{status:?}");
    assert_eq!(desk.void_in_companions(), [], "a new checkpoint has it");
}

#[test]
fn an_operators_repair_voids_before_it_copies() {
    let mut desk = Desk::new(&Settings::default());
    desk.scrub(false);
    desk.log.clear();
    let repair = ClientOp::Repair { offset: 0, len: 4096, source: Slot(1) };
    assert_eq!(desk.ask(1, repair), Some(Ok(())));
    assert!(desk.position("WriteCompanion") < desk.position("Copy"));
    assert_eq!((desk.void_in_companions(), desk.volume.digest_at(0)), (vec![(0, 1)], None));
}

#[test]
fn reads_are_compared_and_the_bad_replica_is_mended() {
    let settings = Settings { verify_reads: true, ..Settings::default() };
    let mut desk = Desk::new(&settings);
    let read = |offset| ClientOp::Read { offset, len: 4096, view: crate::View::Latest };
    assert_eq!(desk.ask(1, read(0)), Some(Ok(())));
    assert_eq!(desk.told("wants_digest: true"), 2);
    desk.scrub(false);
    // Of three, two are bad in the same way; only the digest tells.
    desk.rotten = vec![(BrickId(0), UNIT + 1), (BrickId(1), UNIT + 1)];
    for request in 10..14 {
        desk.log.clear();
        let answer = desk.ask(request, read(UNIT));
        if desk.told("wants_digest: false") > 0 {
            assert!(
                desk.log
                    .iter()
                    .any(|l| l.contains("wants_digest: false") && l.contains("brick: BrickId(2)"))
            );
        }
        assert_eq!(answer, Some(Ok(())));
    }
    assert!(desk.rotten.is_empty(), "what a read finds bad is mended: {:?}", desk.rotten);
    // Without a digest, three that differ leave it open.
    assert_eq!(desk.write(20, 5 * UNIT), Some(Ok(())));
    desk.rotten = vec![(BrickId(0), 5 * UNIT + 4096), (BrickId(1), 5 * UNIT + 4097)];
    let told = desk.ask(21, read(5 * UNIT + 4096));
    assert!(
        matches!(&told, Some(Err(Failure::Damaged(text))) if text.contains("nas1")),
        "{told:?}"
    );
    // Damage beside what is read does not matter.
    assert_eq!(desk.ask(22, read(5 * UNIT)), Some(Ok(())));
    desk.volume.handle(crate::Time(desk.now), Event::VerifyReads(false));
    assert_eq!(desk.ask(23, read(5 * UNIT + 4096)), Some(Ok(())));
}

#[test]
fn a_range_that_cannot_be_read_is_written_anew() {
    let mut desk = Desk::new(&Settings::default());
    desk.spoiled.push(("Read { io: IoId(", Outcome::Damaged));
    let mut broken = desk.spoiled.clone();
    broken[0].0 = "brick: BrickId(1), request";
    desk.spoiled = broken;
    for request in 1..4 {
        assert_eq!(
            desk.ask(request, ClientOp::Read { offset: 0, len: 4096, view: crate::View::Latest }),
            Some(Ok(()))
        );
    }
    assert!(desk.told("to: BrickId(1)") > 0);
    assert!(desk.log.iter().all(|line| !line.contains("Stale")), "the brick stays in sync");
}
