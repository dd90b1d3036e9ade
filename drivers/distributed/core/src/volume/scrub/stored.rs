// SPDX-License-Identifier: Apache-2.0
//! Digests that outlive an attachment: checkpoints of them in the state, and records of what became void since.

use std::sync::Arc;

use super::super::{
    Volume,
    state::{IoKind, Kind},
};
use super::WORTH_STORING;
use crate::{Action, Digest, Generation, Outcome, ScrubStatus, Slot, digest::Digests};

impl Volume {
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
    pub(in crate::volume) fn restore_digests(
        &mut self,
        named: Option<(Generation, Vec<crate::Run>)>,
    ) {
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
    pub(in crate::volume) fn digests_resharded(&mut self) {
        let (size, region) = (self.descriptor.size, self.descriptor.region_size);
        let digests = Digests::new(size, region, self.map.shard_size());
        if digests.unit() == self.digests.unit() {
            return;
        }
        self.begin_digests(digests);
    }

    /// Another brick acknowledges that may lack what digests are of. The record that says so names none.
    pub(in crate::volume) fn drop_digests(&mut self) {
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
    pub(in crate::volume) fn void(&mut self, start: u64, end: u64) {
        self.spoil(start, end);
        if self.protections.digest_invalidation {
            self.digests.void(start, end);
        }
    }

    /// Examinations of this range tell nothing.
    pub(in crate::volume) fn spoil(&mut self, start: u64, end: u64) {
        for exam in self.scrub.exams.values_mut() {
            let (from, to) = self.digests.range(exam.unit);
            exam.is_spoiled |= from < end && start < to;
        }
    }

    /// Whether an operation outside of the intent log has to wait until records say what became void.
    pub(in crate::volume) fn void_first(&mut self, key: u64) -> bool {
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
    pub(in crate::volume) fn digests_recorded(&mut self, voided: u64, named: Option<Generation>) {
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

    pub(super) fn pump_checkpoint(&mut self) {
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

    pub(super) fn store_digests(&mut self) {
        let Some(version) = self.digests.next().map(|next| next.version) else { return };
        let Some((bytes, retry_at)) = &mut self.scrub.storing else { return };
        *retry_at = None;
        let bytes = Arc::clone(bytes);
        let io = self.io(IoKind::DigestState, Slot(0), 0, 0, 0);
        self.actions.push_back(Action::StoreDigests { io, version, bytes });
    }

    pub(in crate::volume) fn digests_stored(&mut self, outcome: &Outcome) {
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
}
