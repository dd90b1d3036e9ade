// SPDX-License-Identifier: Apache-2.0
//! Looks at all units at rest, one after the other: are their replicas equal, and what they were?
//!
//! ```text
//!   next unit --in the intent log--> later: up to three more times
//!      | at rest
//!   read by each in-sync replica --written meanwhile, or a replica left--> later
//!      |
//!   judge: a digest that counts, else the majority --> equal: digest taken, or it still holds
//!      | some are bad
//!   finding --asked to mend--> copy from a good one --> flush --> read again --> verified
//! ```
//! Nothing waits for an examination: a write only spoils it. A mend has its range for itself.

mod mending;
mod stored;

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Volume,
    state::{Io, IoKind, Kind, Link, Op, Phase, Role},
};
use crate::{
    Action, Cause, Digest, Finding, Generation, Judged, Notice, Outcome, Repaired, ScrubStatus,
    Slot, SlotSet, Time, Verdict, digest::MOST_FINDINGS,
};

/// Units that are examined at once.
const MOST_AT_ONCE: usize = 2;
/// How often units that were not at rest are tried again.
const ROUNDS: u32 = 3;
/// Digests after which a checkpoint is worth its while, at least.
const WORTH_STORING: u32 = 256;

/// The scrub of a volume, and what it has under way.
#[derive(Debug, Default)]
pub(super) struct Scrub {
    /// The one under way, or the last one.
    pub(super) status: Option<ScrubStatus>,
    /// Units that were not at rest, for the next round, and those of this round.
    later: Vec<u32>,
    again: Vec<u32>,
    round: u32,
    /// When the next round begins.
    retry_at: Option<Time>,
    /// What was written before this round is at rest only when it is flushed, and maybe no client does that.
    wants_rest: bool,
    /// By operation.
    exams: BTreeMap<u64, Exam>,
    /// Ranges that are being mended, by where they begin.
    mends: BTreeMap<u64, Finding>,
    /// What was copied and is not flushed, and what the flush under way covers.
    to_flush: Vec<Finding>,
    flushing: Vec<Finding>,
    /// Checkpoints that were named.
    names: u32,
    want_checkpoint: bool,
    /// The one that is being stored, and when to try that again.
    storing: Option<(Arc<[u8]>, Option<Time>)>,
    /// Operations that wait for a record of what became void, and which they need.
    voiding: Vec<(u64, u64)>,
    /// What became void that records say.
    recorded: u64,
    /// Checkpoints that the attachment began with, until it is known which of them counts.
    found: BTreeMap<Generation, Arc<[u8]>>,
}

/// A unit that is being read by all replicas.
#[derive(Debug)]
struct Exam {
    unit: u32,
    asked: SlotSet,
    told: Vec<(Slot, Digest)>,
    /// What it will tell means nothing.
    is_spoiled: bool,
    /// What was mended there.
    mended: Option<Finding>,
}

impl Scrub {
    /// None yet; these checkpoints are in the state.
    pub(super) fn new(found: BTreeMap<Generation, Arc<[u8]>>) -> Self {
        Self { found, ..Self::default() }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.status.as_ref().is_some_and(|status| !status.is_over)
    }

    /// Whether units could be examined now, if copies were allowed.
    pub(super) fn is_wanted(&self) -> bool {
        (self.is_under_way() && self.retry_at.is_none()) || !self.mends.is_empty()
    }

    pub(super) fn wants_flush(&self) -> bool {
        self.wants_rest || !self.to_flush.is_empty()
    }

    pub(super) fn next_tick(&self) -> Option<Time> {
        let storing = self.storing.as_ref().and_then(|(_, at)| *at);
        self.retry_at.filter(|_| self.is_under_way()).into_iter().chain(storing).min()
    }

    /// The attachment is over.
    pub(super) fn clear(&mut self) {
        *self = Self { status: self.status.take(), ..Self::default() };
    }

    fn end(&mut self, finding: Finding, mending: Repaired) -> Finding {
        let finding = Finding { mending, ..finding };
        let known = self.status.iter_mut().flat_map(|status| &mut status.findings);
        if let Some(known) = known.into_iter().rfind(|known| known.offset == finding.offset) {
            known.mending = mending;
        }
        finding
    }
}

impl Volume {
    /// Begins a scrub; one that is under way mends from now on if this one is to.
    pub(super) fn begin_scrub(&mut self, repairs: bool, started: u64) {
        if self.phase != Phase::Serving {
            return;
        }
        if let Some(status) = self.scrub.status.as_mut().filter(|status| !status.is_over) {
            status.repairs |= repairs;
            return;
        }
        self.intent.clock_is(self.now);
        let units = self.digests.units();
        let status = ScrubStatus { started, repairs, units, ..ScrubStatus::default() };
        self.scrub.status = Some(status);
        (self.scrub.later, self.scrub.again) = (Vec::new(), Vec::new());
        (self.scrub.round, self.scrub.retry_at) = (0, None);
        // So that it goes on after a crash.
        self.scrub.want_checkpoint = true;
    }

    /// Ends a scrub before its end.
    pub(super) fn end_scrub(&mut self) {
        if let Some(status) = self.scrub.status.as_mut().filter(|status| !status.is_over) {
            status.is_over = true;
            status.passed_over += u64::from(status.units - status.cursor.min(status.units));
            self.scrub.want_checkpoint = true;
        }
    }

    /// The scrub under way, or the last one.
    pub fn scrub(&self) -> Option<ScrubStatus> {
        let digested = self.digests.known();
        self.scrub.status.as_ref().map(|status| ScrubStatus { digested, ..status.clone() })
    }

    /// Does what is next.
    pub(super) fn pump_scrub(&mut self) {
        // Units may get other sizes with the shards.
        if self.barrier.is_some() || self.resharding.is_some() || self.phase != Phase::Serving {
            return;
        }
        self.pump_checkpoint();
        if !self.scrub.is_under_way() {
            return;
        }
        while self.may_copy()
            && self.scrub.exams.len() < MOST_AT_ONCE
            && let Some(unit) = self.next_unit()
        {
            if !self.examine(unit, None) {
                self.scrub.later.push(unit);
            }
        }
        let Some(status) = &self.scrub.status else { return };
        let is_busy = status.cursor < status.units
            || !self.scrub.again.is_empty()
            || !self.scrub.exams.is_empty()
            || !self.scrub.mends.is_empty()
            || !self.scrub.to_flush.is_empty()
            || !self.scrub.flushing.is_empty();
        if !is_busy && self.scrub.retry_at.is_none() {
            self.end_round();
        }
    }

    /// The next unit at rest.
    fn next_unit(&mut self) -> Option<u32> {
        loop {
            let status = self.scrub.status.as_mut().filter(|status| !status.is_over)?;
            let unit = if status.cursor < status.units.min(self.digests.units()) {
                status.cursor += 1;
                status.cursor - 1
            } else {
                status.cursor = status.units;
                self.scrub.again.pop()?
            };
            if self.is_at_rest(unit) {
                return Some(unit);
            }
            self.scrub.later.push(unit);
        }
    }

    fn is_at_rest(&self, unit: u32) -> bool {
        let (start, end) = self.digests.range(unit);
        let hides = |held: &super::Held| held.hides && held.start < end && start < held.end;
        start < end
            && !self.intent.has_any(start, end - start)
            && !self.held.iter().any(hides)
            && !self.is_mending(start, end)
    }

    fn end_round(&mut self) {
        if !self.scrub.later.is_empty() && self.scrub.round < ROUNDS {
            let pause = self.settings.intent_idle_ns.max(self.settings.retry_ns);
            self.scrub.retry_at = Some(self.now.after(pause));
            self.scrub.wants_rest = self.intent.has_unflushed();
            return;
        }
        let passed_over = std::mem::take(&mut self.scrub.later).len() as u64;
        if let Some(status) = &mut self.scrub.status {
            status.is_over = true;
            status.passed_over += passed_over;
        }
        self.scrub.want_checkpoint = true;
        self.pump_checkpoint();
    }

    pub(super) fn retry_scrub(&mut self) {
        let pause = self.settings.intent_idle_ns.max(self.settings.retry_ns);
        let is_due = |at: Time, now: Time| at <= now || at > now.after(pause);
        if self.scrub.retry_at.is_some_and(|at| is_due(at, self.now)) {
            self.intent.clock_is(self.now);
            self.scrub.retry_at = None;
            self.scrub.round += 1;
            self.scrub.again = std::mem::take(&mut self.scrub.later);
        }
        let storing = self.scrub.storing.as_ref().and_then(|(_, at)| *at);
        if storing.is_some_and(|at| is_due(at, self.now)) {
            self.store_digests();
        }
    }

    /// The in-sync replicas of a unit, and whether these are all that it has.
    pub(super) fn replicas(&self, start: u64, end: u64) -> (SlotSet, bool) {
        let set = self.map.pieces(start, end - start).next().map_or(SlotSet::EMPTY, |p| p.2);
        let is_ready = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            brick.role == Role::InSync && brick.link == Link::Open
        };
        let ready: SlotSet = set.iter().filter(is_ready).collect();
        (ready, ready == set)
    }

    /// Has all replicas of a unit read it; false if there is none.
    fn examine(&mut self, unit: u32, mended: Option<Finding>) -> bool {
        let (start, end) = self.digests.range(unit);
        let (asked, _) = self.replicas(start, end);
        if asked.is_empty() {
            return false;
        }
        let key = self.ops.insert(Op::new(Kind::Digest, None, start, end - start));
        let (told, is_spoiled) = (Vec::new(), false);
        self.scrub.exams.insert(key, Exam { unit, asked, told, is_spoiled, mended });
        self.copy_begins(end - start);
        self.expect(key, asked.len());
        let (len, chunk) = (end - start, self.settings.copy_bytes.max(4096));
        for slot in asked.iter() {
            let brick = self.brick(slot).id;
            let io = self.io(IoKind::Digest, slot, key, start, len);
            let offset = start;
            self.actions.push_back(Action::Digest { io, brick, offset, len, chunk });
        }
        true
    }

    /// A replica was read, or not.
    pub(super) fn digest_done(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) {
        let cause = match outcome {
            Outcome::Digest(digest) if self.is_believed(io, incarnation, outcome) => {
                self.examined_by(io, *digest);
                return self.answered(io.op);
            }
            Outcome::Damaged => {
                self.examined_by(io, Digest::default());
                return self.answered(io.op);
            }
            Outcome::Digest(_) => Cause::Restarted,
            Outcome::NotFound => Cause::NotFound,
            Outcome::Unknown => Cause::Unknown,
            _ => Cause::Failed,
        };
        self.failed(io);
        // A last copy is given up when a client misses it, not for what nobody asked for.
        if self.is_doubted(io.op) || self.is_covered_without(io.slot) {
            if cause == Cause::Failed {
                // What could not be read is written again when the brick is resynced.
                self.brick(io.slot).dirty.insert(io.offset, io.offset + io.len);
            }
            self.give_up(io.slot, cause);
        }
        self.answered(io.op);
    }

    fn examined_by(&mut self, io: &Io, digest: Digest) {
        if self.doubt_told(io, digest) {
            return;
        }
        if let Some(exam) = self.scrub.exams.get_mut(&io.op) {
            exam.told.push((io.slot, digest));
        }
    }

    pub(super) fn digest_failed(&mut self, key: u64) {
        if let Some(exam) = self.scrub.exams.get_mut(&key) {
            exam.is_spoiled = true;
        } else if let Some(op) = self.ops.get_mut(key) {
            op.retry = true;
        }
    }

    /// All replicas of a unit have answered.
    pub(super) fn examined(&mut self, key: u64) {
        let Some(exam) = self.scrub.exams.remove(&key) else { return };
        self.copies = self.copies.saturating_sub(1);
        self.try_sweeps = true;
        self.finish(key, Ok(()));
        let (start, end) = self.digests.range(exam.unit);
        let (ready, is_complete) = self.replicas(start, end);
        let is_void =
            exam.is_spoiled || !exam.asked.without(ready).is_empty() || exam.told.is_empty();
        if is_void {
            self.scrub.later.push(exam.unit);
            if let Some(finding) = exam.mended {
                self.end_mend(finding, Repaired::Unverified);
            }
            return;
        }
        let (verdict, bad) = judge(self.digests.get(exam.unit), &exam.told);
        if bad.is_empty() && is_complete && exam.asked == ready {
            self.digests.take(exam.unit, exam.told[0].1);
        }
        if let Some(finding) = exam.mended {
            let mending = if bad.is_empty() { Repaired::Verified } else { Repaired::Failed };
            return self.end_mend(finding, mending);
        }
        if let Some(status) = &mut self.scrub.status {
            status.compared += 1;
        }
        if !bad.is_empty() {
            self.found((start, end), verdict, bad, &exam.told);
        }
    }

    fn found(
        &mut self,
        (start, end): (u64, u64),
        verdict: Verdict,
        bad: SlotSet,
        told: &[(Slot, Digest)],
    ) {
        let judged = |(slot, digest): &(Slot, Digest)| {
            let brick = &self.bricks[slot.index()];
            let (digest, is_bad) = (*digest, bad.has(*slot));
            Judged { slot: *slot, brick: brick.id, node: brick.node, digest, is_bad }
        };
        let mut replicas: Vec<Judged> = told.iter().map(judged).collect();
        replicas.sort_by_key(|replica| replica.slot);
        let source = replicas.iter().find(|replica| !replica.is_bad).map(|replica| replica.slot);
        let repairs = self.scrub.status.as_ref().is_some_and(|status| status.repairs);
        let source = source.filter(|_| repairs);
        let mending = if source.is_some() { Repaired::UnderWay } else { Repaired::Left };
        let finding = Finding { offset: start, len: end - start, verdict, mending, replicas };
        if let Some(status) = &mut self.scrub.status {
            status.found += 1;
            // A later round may find again what an earlier one found.
            status.findings.retain(|known| known.offset != start);
            if status.findings.len() < MOST_FINDINGS {
                status.findings.push(finding.clone());
            }
        }
        self.report(Notice::Damaged(Arc::new(finding.clone())));
        if let Some(source) = source {
            self.mend(finding, source, bad);
        }
    }
}

/// Which replicas are bad, or may be. Who could not be read told of no digest.
pub(super) fn judge(known: Option<Digest>, told: &[(Slot, Digest)]) -> (Verdict, SlotSet) {
    let slots =
        |told: &[(Slot, Digest)]| -> SlotSet { told.iter().map(|(slot, _)| *slot).collect() };
    let (unread, read): (Vec<_>, Vec<_>) =
        told.iter().copied().partition(|(_, digest)| *digest == Digest::default());
    if !unread.is_empty() && !read.is_empty() {
        let (verdict, bad) = judge(known, &read);
        let verdict = if bad.is_empty() { Verdict::Unreadable } else { verdict };
        return (verdict, bad.or(slots(&unread)));
    }
    let unlike = |right: Digest| -> SlotSet {
        told.iter().filter(|(_, digest)| *digest != right).map(|(slot, _)| *slot).collect()
    };
    let all = slots(told);
    let are_equal = told.windows(2).all(|pair| pair[0].1 == pair[1].1);
    if let Some(digest) = known {
        let bad = unlike(digest);
        return match bad {
            _ if bad != all => (Verdict::Digest, bad),
            _ if are_equal => (Verdict::Everywhere, bad),
            _ => (Verdict::Undecided, bad),
        };
    }
    if are_equal {
        return (Verdict::Majority, SlotSet::EMPTY);
    }
    let minority = told.iter().map(|(_, digest)| unlike(*digest));
    let minority = minority.min_by_key(|bad| bad.len()).unwrap_or_default();
    if told.len() >= 3 && 2 * minority.len() < all.len() {
        (Verdict::Majority, minority)
    } else {
        (Verdict::Undecided, all)
    }
}
