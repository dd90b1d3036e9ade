// SPDX-License-Identifier: Apache-2.0
//! Gives bad replicas what a good one has, and reads them again once that is on the disks.

use std::sync::Arc;

use super::super::{
    Volume,
    state::{Kind, Role, Stage},
};
use crate::{Finding, Notice, Repaired, Slot, SlotSet};

impl Volume {
    /// Whether something of a range is being mended.
    pub(in crate::volume) fn is_mending(&self, start: u64, end: u64) -> bool {
        let here =
            |finding: &&Finding| finding.offset < end && start < finding.offset + finding.len;
        let copied = self.scrub.to_flush.iter().chain(&self.scrub.flushing);
        self.scrub.mends.values().chain(copied).any(|finding| here(&finding))
    }

    /// Gives bad replicas what a good one has.
    pub(in crate::volume) fn mend(&mut self, finding: Finding, source: Slot, bad: SlotSet) {
        let (offset, len) = (finding.offset, finding.len);
        self.scrub.mends.insert(offset, finding);
        self.submit_own(Kind::Mend { source, bad }, offset, len);
    }

    /// Copies to the bad ones only: who is good stays so whatever the source turns into.
    pub(in crate::volume) fn issue_mend(&mut self, key: u64, source: Slot, bad: SlotSet) {
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

    pub(in crate::volume) fn mended(&mut self, key: u64) {
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

    pub(super) fn end_mend(&mut self, finding: Finding, mending: Repaired) {
        self.doubts.is_mended(finding.offset, finding.offset + finding.len);
        let finding = self.scrub.end(finding, mending);
        self.report(Notice::Mended(Arc::new(finding)));
    }

    pub(in crate::volume) fn flush_of_mends_begins(&mut self) {
        self.scrub.wants_rest = false;
        self.scrub.flushing = std::mem::take(&mut self.scrub.to_flush);
    }

    /// What was mended is on the disks: it is read back.
    pub(in crate::volume) fn flush_of_mends_ended(&mut self) {
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
