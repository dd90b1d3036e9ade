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

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Volume,
    state::{Io, IoKind, Kind, Link, Op, Phase, Role, Stage},
};
use crate::{
    Action, Cause, Digest, Finding, Generation, Judged, Notice, Outcome, Repaired, ScrubStatus,
    Slot, SlotSet, Time, Verdict,
    digest::{Digests, MOST_FINDINGS},
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
        !self.to_flush.is_empty()
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

    /// The digest that counts of the unit that begins at `offset`, and past its end, in bytes.
    pub fn digest_at(&self, offset: u64) -> Option<(u64, Digest)> {
        let unit = u32::try_from(offset / self.digests.unit()).ok()?;
        let (start, end) = self.digests.range(unit);
        self.digests.get(unit).filter(|_| start == offset).map(|digest| (end, digest))
    }

    /// Bytes of the units that have digests.
    pub fn digest_unit(&self) -> u64 {
        self.digests.unit()
    }

    /// Believes the digests that the state has, as far as the companions say.
    pub(super) fn restore_digests(&mut self, named: Option<(Generation, Vec<crate::Run>)>) {
        let found = std::mem::take(&mut self.scrub.found);
        let (size, region) = (self.descriptor.size, self.descriptor.region_size);
        self.digests = Digests::new(size, region, self.map.shard_size());
        let Some((version, void)) = named else { return };
        let Some(bytes) = found.get(&version) else { return };
        // One that is damaged is as good as none: the next scrub takes digests anew.
        if let Ok(status) = self.digests.restore(version, &void, bytes) {
            self.scrub.status = status;
        }
        for (start, end) in self.level_ranges() {
            self.void(start, end);
        }
    }

    /// Shards have another size. Where that makes other units, digests are of no use, and a scrub under way begins anew.
    pub(super) fn digests_resharded(&mut self) {
        let (size, region) = (self.descriptor.size, self.descriptor.region_size);
        let digests = Digests::new(size, region, self.map.shard_size());
        if digests.unit() == self.digests.unit() {
            return;
        }
        self.begin_digests(digests);
    }

    /// Another brick acknowledges that may lack what digests are of. The record that says so names none.
    pub(super) fn drop_digests(&mut self) {
        let (size, region) = (self.descriptor.size, self.descriptor.region_size);
        let digests = Digests::new(size, region, self.map.shard_size());
        self.begin_digests(digests);
    }

    /// Goes on with digests of which none counts yet; a scrub under way begins anew.
    fn begin_digests(&mut self, mut digests: Digests) {
        self.spoil(0, u64::MAX);
        digests.voided = self.digests.voided;
        self.digests = digests;
        self.want_intent = true;
        self.scrub.storing = None;
        (self.scrub.later, self.scrub.again) = (Vec::new(), Vec::new());
        (self.scrub.round, self.scrub.retry_at) = (0, None);
        let units = self.digests.units();
        if let Some(status) = self.scrub.status.as_mut().filter(|status| !status.is_over) {
            (status.units, status.cursor) = (units, 0);
        }
    }

    /// Something is about to be written there: what was read is no evidence, and digests count no more. The write waits
    /// for the record that names its regions, which says that, too.
    pub(super) fn void(&mut self, start: u64, end: u64) {
        self.spoil(start, end);
        if self.protections.digest_invalidation {
            self.digests.void(start, end);
        }
    }

    /// Examinations of this range tell nothing.
    pub(super) fn spoil(&mut self, start: u64, end: u64) {
        for exam in self.scrub.exams.values_mut() {
            let (from, to) = self.digests.range(exam.unit);
            exam.is_spoiled |= from < end && start < to;
        }
    }

    /// Whether an operation outside of the intent log has to wait until records say what became void.
    pub(super) fn void_first(&mut self, key: u64) -> bool {
        let Some(op) = self.ops.get(key) else { return true };
        let (start, end) = (op.at, op.at + op.step);
        self.void(start, end);
        let needed = self.digests.voided;
        if needed <= self.scrub.recorded {
            return false;
        }
        self.scrub.voiding.push((key, needed));
        self.want_intent = true;
        true
    }

    /// A record is everywhere that says what had become void, and names this checkpoint.
    pub(super) fn digests_recorded(&mut self, voided: u64, named: Option<Generation>) {
        self.scrub.recorded = self.scrub.recorded.max(voided);
        if self.digests.recorded(named)
            && let Some(before) = named
        {
            self.actions.push_back(Action::ForgetDigests { before });
        }
        let (ready, waiting) = std::mem::take(&mut self.scrub.voiding)
            .into_iter()
            .partition(|(_, needed)| *needed <= voided);
        self.scrub.voiding = waiting;
        self.want_intent |= !self.scrub.voiding.is_empty();
        let ready: Vec<(u64, u64)> = ready;
        for (key, _) in ready {
            if let Some(Kind::Repair { source }) = self.ops.get(key).map(|op| op.kind) {
                self.issue_repair(key, source);
            }
        }
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
        while self.copies < self.settings.copies_in_flight
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

    fn pump_checkpoint(&mut self) {
        let worth = (self.digests.units() / 8).max(WORTH_STORING);
        let is_wanted = self.scrub.want_checkpoint || self.digests.fresh() >= worth;
        if !is_wanted || self.digests.next().is_some() {
            return;
        }
        self.scrub.want_checkpoint = false;
        self.scrub.names += 1;
        let version = Generation { epoch: self.descriptor.epoch, change: self.scrub.names };
        // What is being examined is examined again by whoever goes on from here.
        let oldest = self.scrub.exams.values().map(|exam| exam.unit).min();
        let status = self.scrub.status.as_ref().map(|status| ScrubStatus {
            cursor: oldest.filter(|_| !status.is_over).unwrap_or(u32::MAX).min(status.cursor),
            ..status.clone()
        });
        let bytes = self.digests.checkpoint(version, status.as_ref());
        self.scrub.storing = Some((bytes.into(), None));
        self.store_digests();
    }

    fn store_digests(&mut self) {
        let Some(version) = self.digests.next().map(|next| next.version) else { return };
        let Some((bytes, retry_at)) = &mut self.scrub.storing else { return };
        *retry_at = None;
        let bytes = Arc::clone(bytes);
        let io = self.io(IoKind::DigestState, Slot(0), 0, 0, 0);
        self.actions.push_back(Action::StoreDigests { io, version, bytes });
    }

    pub(super) fn digests_stored(&mut self, outcome: &Outcome) {
        let retry_at = self.retry_time();
        if *outcome == Outcome::Ok {
            self.scrub.storing = None;
            if let Some(next) = self.digests.next() {
                next.is_stored = true;
                self.want_intent = true;
            }
        } else if let Some((_, at)) = &mut self.scrub.storing {
            *at = Some(retry_at);
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
        self.copies += 1;
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

    /// Whether something of a range is being mended.
    pub(super) fn is_mending(&self, start: u64, end: u64) -> bool {
        let here =
            |finding: &&Finding| finding.offset < end && start < finding.offset + finding.len;
        let copied = self.scrub.to_flush.iter().chain(&self.scrub.flushing);
        self.scrub.mends.values().chain(copied).any(|finding| here(&finding))
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

    /// Gives bad replicas what a good one has.
    pub(super) fn mend(&mut self, finding: Finding, source: Slot, bad: SlotSet) {
        let (offset, len) = (finding.offset, finding.len);
        self.scrub.mends.insert(offset, finding);
        self.submit_own(Kind::Mend { source, bad }, offset, len);
    }

    /// Copies to the bad ones only: who is good stays so whatever the source turns into.
    pub(super) fn issue_mend(&mut self, key: u64, source: Slot, bad: SlotSet) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        self.spoil(at, at + step);
        self.moves_lack(at, step);
        let members = self.with_role(Role::InSync);
        for (offset, len, set) in self.pieces(at, step) {
            let members = members.and(set);
            if !members.has(source) {
                if let Some(op) = self.ops.get_mut(key) {
                    op.retry = true;
                }
                continue;
            }
            for target in bad.and(members).without(SlotSet::only(source)).iter() {
                self.issue_copy(key, source, target, offset, len);
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.mended(key);
        }
    }

    pub(super) fn mended(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.at += op.step;
        let has_failed = op.retry || !op.missed.is_empty() || !op.full.is_empty();
        if !has_failed && op.at < op.end() {
            return self.begin_step(key);
        }
        let offset = op.offset;
        self.finish(key, Ok(()));
        let Some(finding) = self.scrub.mends.remove(&offset) else { return };
        if has_failed {
            self.end_mend(finding, Repaired::Failed);
        } else {
            self.scrub.to_flush.push(finding);
        }
    }

    fn end_mend(&mut self, finding: Finding, mending: Repaired) {
        self.doubts.is_mended(finding.offset, finding.offset + finding.len);
        let finding = self.scrub.end(finding, mending);
        self.report(Notice::Mended(Arc::new(finding)));
    }

    pub(super) fn flush_of_mends_begins(&mut self) {
        self.scrub.flushing = std::mem::take(&mut self.scrub.to_flush);
    }

    /// What was mended is on the disks: it is read back.
    pub(super) fn flush_of_mends_ended(&mut self) {
        for finding in std::mem::take(&mut self.scrub.flushing) {
            let unit = (finding.offset / self.digests.unit()) as u32;
            self.doubts.is_mended(finding.offset, finding.offset + finding.len);
            let may_look = self.barrier.is_none() && self.is_at_rest(unit);
            if !may_look || !self.examine(unit, Some(finding.clone())) {
                self.end_mend(finding, Repaired::Unverified);
            }
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
