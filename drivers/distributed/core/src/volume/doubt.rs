// SPDX-License-Identifier: Apache-2.0
//! Reads that are answered only if two replicas agree, and what is done if they do not.
//!
//! ```text
//!   two replicas read --same bytes--> answered
//!      | not
//!   doubt: has its range for itself --> all replicas read the units at rest: the digest tells who is good
//!      |                                   | no digest, or none has it
//!      |                                   +--> all replicas read the range: all equal, or the majority tells
//!      |                                           | nothing tells: the read fails
//!   read from a good one --> answered --> the bad ones are mended
//! ```
//! Replicas may differ because of a write that came meanwhile: then the doubt finds them equal. A shard with only one
//! replica in sync is read from that: there is nothing to compare it with.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Volume,
    state::{Io, IoKind, Kind, Stage},
};
use crate::{Action, Digest, Failure, Finding, Judged, Notice, Repaired, Slot, SlotSet, Verdict};

/// How often a doubt begins anew because a replica left meanwhile.
const TRIES: u32 = 4;

/// Reads that are compared, and those in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// What replicas read for a request, by operation: where, and what.
    told: BTreeMap<u64, Vec<(u64, Digest)>>,
    all: BTreeMap<u64, Doubt>,
    /// Ranges that a replica cannot read, until they are mended.
    unreadable: Vec<(Slot, u64, u64)>,
}

#[derive(Debug)]
struct Doubt {
    /// What the client asked for.
    start: u64,
    end: u64,
    parts: Vec<Part>,
    is_reading: bool,
    tries: u32,
}

/// A unit, or what of it the client asked for.
#[derive(Debug)]
struct Part {
    start: u64,
    end: u64,
    /// The whole unit is looked at, because it has a digest.
    is_whole: bool,
    told: Vec<(Slot, Digest)>,
    verdict: Verdict,
    bad: SlotSet,
    is_settled: bool,
}

impl Doubts {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A range was mended, or could not be.
    pub(super) fn is_mended(&mut self, start: u64, end: u64) {
        self.unreadable.retain(|(_, from, to)| *to <= start || end <= *from);
    }
}

impl Volume {
    /// Whether reads are compared from now on.
    pub(super) fn verify_reads(&mut self, on: bool) {
        self.settings.verify_reads = on;
    }

    /// A slot that could be read instead of `first`, if reads are compared.
    pub(super) fn second_opinion(&mut self, set: SlotSet, first: Slot) -> Option<Slot> {
        let verifies = self.settings.verify_reads;
        verifies.then(|| self.least_busy(set.without(SlotSet::only(first)))).flatten()
    }

    /// The slots of a set that can read a range, as far as known.
    pub(super) fn readable(&self, set: SlotSet, start: u64, end: u64) -> SlotSet {
        let here = |entry: &&(Slot, u64, u64)| entry.1 < end && start < entry.2;
        let unreadable = self.doubts.unreadable.iter().filter(here).map(|entry| entry.0).collect();
        set.without(unreadable)
    }

    /// A read begins, perhaps anew.
    pub(super) fn forget_told(&mut self, key: u64) {
        self.doubts.told.remove(&key);
    }

    /// A replica was read for a client.
    pub(super) fn read_told(&mut self, io: &Io, digest: Digest) {
        self.doubts.told.entry(io.op).or_default().push((io.offset, digest));
    }

    /// Whether all that was read for a request agrees.
    pub(super) fn agrees(&mut self, key: u64) -> bool {
        let Some(mut told) = self.doubts.told.remove(&key) else { return true };
        told.sort_unstable();
        told.windows(2).all(|pair| pair[0].0 != pair[1].0 || pair[0].1 == pair[1].1)
    }

    /// Has a read wait for its units, and look at all replicas.
    pub(super) fn doubt(&mut self, key: u64) {
        let unit = self.digests.unit();
        let Some(op) = self.ops.get_mut(key) else { return };
        let (start, end) = (op.offset, op.end());
        op.kind = Kind::Doubt;
        op.stage = Stage::Queued;
        op.retry = false;
        op.offset = start / unit * unit;
        op.len = end.next_multiple_of(unit).min(self.descriptor.size).max(end) - op.offset;
        op.at = op.offset;
        let doubt = Doubt { start, end, parts: Vec::new(), is_reading: false, tries: 0 };
        self.doubts.all.insert(key, doubt);
        self.waiting.push_back(key);
        self.wake_waiting();
    }

    /// The doubt has its units for itself.
    pub(super) fn begin_doubt(&mut self, key: u64) {
        let unit = self.digests.unit();
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        op.retry = false;
        let Some(doubt) = self.doubts.all.get_mut(&key) else { return };
        doubt.is_reading = false;
        doubt.tries += 1;
        if doubt.tries > TRIES {
            let text = "replicas that differ could not all be read";
            return self.fail_doubt(key, text.to_owned());
        }
        let (start, end) = (doubt.start, doubt.end);
        let mut parts = Vec::new();
        for number in start / unit..=(end - 1) / unit {
            let number = number as u32;
            let (from, to) = self.digests.range(number);
            let is_whole =
                self.digests.get(number).is_some() && !self.intent.has_any(from, to - from);
            let (from, to) = if is_whole { (from, to) } else { (from.max(start), to.min(end)) };
            let (verdict, bad) = (Verdict::Undecided, SlotSet::EMPTY);
            let (told, is_settled) = (Vec::new(), false);
            parts.push(Part { start: from, end: to, is_whole, told, verdict, bad, is_settled });
        }
        if let Some(doubt) = self.doubts.all.get_mut(&key) {
            doubt.parts = parts;
        }
        self.look(key);
    }

    /// Has all replicas read the parts that are not settled.
    fn look(&mut self, key: u64) {
        let Some(doubt) = self.doubts.all.get(&key) else { return };
        let open = doubt.parts.iter().filter(|part| !part.is_settled);
        let ranges: Vec<(u64, u64)> = open.map(|part| (part.start, part.end)).collect();
        let chunk = self.settings.copy_bytes.max(4096);
        for (start, end) in ranges {
            let (asked, _) = self.replicas(start, end);
            for slot in asked.iter() {
                let (brick, len, offset) = (self.brick(slot).id, end - start, start);
                let io = self.io(IoKind::Digest, slot, key, offset, len);
                self.expect(key, 1);
                self.actions.push_back(Action::Digest { io, brick, offset, len, chunk });
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.doubt_answered(key);
        }
    }

    /// Whether an operation is a read in doubt.
    pub(super) fn is_doubted(&self, key: u64) -> bool {
        self.doubts.all.contains_key(&key)
    }

    /// A replica was read for a doubt; false if there is none.
    pub(super) fn doubt_told(&mut self, io: &Io, digest: Digest) -> bool {
        let Some(doubt) = self.doubts.all.get_mut(&io.op) else { return false };
        if let Some(part) = doubt.parts.iter_mut().find(|part| part.start == io.offset) {
            part.told.push((io.slot, digest));
        }
        true
    }

    /// All that was asked for has been read, or not.
    pub(super) fn doubt_answered(&mut self, key: u64) {
        let Some(op) = self.ops.get(key) else { return };
        let has_failed = op.retry;
        let Some(mut doubt) = self.doubts.all.remove(&key) else { return };
        if has_failed {
            self.doubts.all.insert(key, doubt);
            return self.begin_doubt(key);
        }
        if doubt.is_reading {
            self.try_sweeps = true;
            self.finish(key, Ok(()));
            return self.mend_doubted(doubt.parts);
        }
        let unit = self.digests.unit();
        let mut undecided = None;
        for part in doubt.parts.iter_mut().filter(|part| !part.is_settled) {
            let told = std::mem::take(&mut part.told);
            let known =
                part.is_whole.then(|| self.digests.get((part.start / unit) as u32)).flatten();
            (part.verdict, part.bad) = super::scrub::judge(known, &told);
            part.is_settled = part.bad.is_empty() || part.bad.len() < told.len() as u32;
            if !part.is_settled && part.is_whole {
                // The damage may lie beside what was asked for.
                part.is_whole = false;
                (part.start, part.end) = (part.start.max(doubt.start), part.end.min(doubt.end));
            } else if !part.is_settled {
                undecided = Some(told.iter().map(|(slot, _)| *slot).collect::<SlotSet>());
            }
            part.told = if part.is_settled { told } else { Vec::new() };
        }
        let is_settled = doubt.parts.iter().all(|part| part.is_settled);
        if let Some(slots) = undecided {
            let nodes: Vec<String> =
                slots.iter().map(|slot| self.node_name(self.bricks[slot.index()].node)).collect();
            self.doubts.all.insert(key, doubt);
            let text = format!(
                "the replicas on {} differ, and nothing tells which is right",
                nodes.join(", ")
            );
            return self.fail_doubt(key, text);
        }
        self.doubts.all.insert(key, doubt);
        if is_settled {
            self.read_good(key);
        } else {
            self.look(key);
        }
    }

    /// Reads what the client asked for from replicas that are good.
    fn read_good(&mut self, key: u64) {
        let Some(doubt) = self.doubts.all.get_mut(&key) else { return };
        doubt.is_reading = true;
        let (start, end) = (doubt.start, doubt.end);
        let wanted: Vec<(u64, u64, SlotSet)> = doubt
            .parts
            .iter()
            .map(|part| {
                let good = part.told.iter().map(|(slot, _)| *slot).collect::<SlotSet>();
                (part.start.max(start), part.end.min(end), good.without(part.bad))
            })
            .collect();
        let Some(request) = self.ops.get(key).and_then(|op| op.request) else { return };
        for (from, to, good) in wanted {
            let Some(slot) = self.least_busy(good) else {
                // It left just now: others are looked at.
                if let Some(op) = self.ops.get_mut(key) {
                    op.retry = true;
                }
                continue;
            };
            self.brick(slot).reads += 1;
            let (brick, offset, len) = (self.brick(slot).id, from, (to - from) as u32);
            let io = self.io(IoKind::Read, slot, key, offset, u64::from(len));
            self.expect(key, 1);
            let wants_digest = false;
            self.actions.push_back(Action::Read { io, brick, request, offset, len, wants_digest });
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.doubt_answered(key);
        }
    }

    fn fail_doubt(&mut self, key: u64, why: String) {
        let Some(doubt) = self.doubts.all.remove(&key) else { return };
        let volume = &self.descriptor.volume;
        let text = format!("volume {volume:?}, bytes {}..{}: {why}", doubt.start, doubt.end);
        self.finish(key, Err(Failure::Damaged(text.into())));
        let parts = doubt.parts.into_iter().filter(|part| !part.told.is_empty());
        self.mend_doubted(parts.collect());
    }

    /// Repairs replicas that a read found to be bad, and tells of them.
    fn mend_doubted(&mut self, parts: Vec<Part>) {
        for part in parts.into_iter().filter(|part| part.is_settled && !part.bad.is_empty()) {
            let (bad, verdict) = (part.bad, part.verdict);
            let good = part.told.iter().map(|(slot, _)| *slot).find(|slot| !bad.has(*slot));
            self.mend_range((part.start, part.end), verdict, bad, &part.told, good);
        }
    }

    /// Tells of bad replicas, and gives them what a good one has.
    fn mend_range(
        &mut self,
        (start, end): (u64, u64),
        verdict: Verdict,
        bad: SlotSet,
        told: &[(Slot, Digest)],
        good: Option<Slot>,
    ) {
        if self.is_mending(start, end) {
            return;
        }
        let judged = |(slot, digest): &(Slot, Digest)| {
            let brick = &self.bricks[slot.index()];
            let (digest, is_bad) = (*digest, bad.has(*slot));
            Judged { slot: *slot, brick: brick.id, node: brick.node, digest, is_bad }
        };
        let mut replicas: Vec<Judged> = told.iter().map(judged).collect();
        replicas.sort_by_key(|replica| replica.slot);
        let mending = if good.is_some() { Repaired::UnderWay } else { Repaired::Left };
        let finding = Finding { offset: start, len: end - start, verdict, mending, replicas };
        self.report(Notice::Damaged(Arc::new(finding.clone())));
        if let Some(source) = good {
            self.mend(finding, source, bad);
        }
    }

    /// A replica's disk does not give a range back, and the rest of it does: others are read, and it is written anew.
    /// False if there is no other.
    pub(super) fn range_damaged(&mut self, io: &Io) -> bool {
        let (start, end) = (io.offset, io.offset + io.len);
        let (ready, _) = self.replicas(start, end);
        let others = self.readable(ready.without(SlotSet::only(io.slot)), start, end);
        let Some(source) = others.first() else { return false };
        if let Some(op) = self.ops.get_mut(io.op) {
            op.retry = true;
        }
        self.doubts.unreadable.push((io.slot, start, end));
        let (none, unit) = (Digest::default(), self.digests.unit());
        let told = [(source, none), (io.slot, none)];
        let bad = SlotSet::only(io.slot);
        for number in start / unit..=(end - 1) / unit {
            let piece = (start.max(number * unit), end.min((number + 1) * unit));
            self.mend_range(piece, Verdict::Unreadable, bad, &told, Some(source));
        }
        true
    }
}
