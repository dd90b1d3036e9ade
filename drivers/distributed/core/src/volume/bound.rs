// SPDX-License-Identifier: Apache-2.0
//! What of the order followers lack, and how much that may be.

use super::{
    Volume,
    followers::FollowStage,
    log::{EntryState, What},
    state::{Kind, Link, Role},
};
use crate::{Action, Mode, RECORD_ALIGNMENT, Slot, Time, extents::ExtentSet};

impl Volume {
    /// What the log has for a brick that follows. Of what its journal has the brick may have nothing yet, and who has it
    /// resynced forgets the journal.
    pub(super) fn logged_for(&self, slot: Slot) -> ExtentSet {
        let follower = &self.bricks[slot.index()].follower;
        if follower.keeps_log() {
            self.log.ranges_after(follower.needs_after())
        } else {
            ExtentSet::default()
        }
    }

    /// A mutation is issued that a follower gets later, or lacks from now on.
    pub(super) fn note_for_follower(&mut self, slot: Slot, offset: u64, len: u64) {
        let brick = self.brick(slot);
        if !brick.follower.keeps_log() {
            brick.dirty.insert(offset, offset + len);
        }
    }

    /// Forgets what every follower has.
    pub(super) fn trim_log(&mut self) {
        if !self.log.is_empty() {
            // Also for one whose promotion came to nothing and whose failure is not recorded yet.
            let keepers = self.bricks.iter().filter(|brick| brick.role != Role::Vacant);
            let keepers = keepers.filter(|brick| brick.follower.keeps_log());
            let up_to = keepers.map(|brick| brick.follower.needs_after()).min();
            if self.promotion.is_none() {
                self.log.trim(up_to);
            }
        }
        for request in self.log.take_released() {
            self.actions.push_back(Action::Release { request });
        }
    }

    /// Whether a write has to wait because followers would be too far behind. Those that are away, or are not yet at a
    /// point, fall out instead.
    pub(super) fn is_too_far(&mut self, len: u64) -> bool {
        loop {
            let bytes = self.log.bytes() + self.admitted;
            let is_over = bytes > 0 && bytes + len > self.settings.most_behind_bytes;
            // Who fell out might be promoted by another host until it is recorded that it did; also if the record that says
            // that it follows is only under way.
            let listed = self.recorded.following.or(self.descriptor.following);
            let mut waits = !listed.without(self.with_a_point()).is_empty();
            let mut out = None;
            for slot in self.slots() {
                let brick = &self.bricks[slot.index()];
                let follower = &brick.follower;
                if brick.role != Role::Stale || !follower.keeps_log() {
                    continue;
                }
                let is_late = follower.is_following() && !self.is_fresh(follower.shown);
                let lacks = self.log.after(follower.needs_after()).next().is_some();
                let holds = is_over && (lacks || self.admitted > 0);
                if !is_late && !holds {
                    continue;
                }
                let copies = matches!(follower.stage, FollowStage::Catching { until: None });
                if brick.link == Link::Open && !copies {
                    waits = true;
                } else {
                    out = Some(slot);
                }
            }
            match out {
                Some(slot) => {
                    self.fall_out(slot);
                    self.trim_log();
                }
                None => return waits,
            }
        }
    }

    /// Whether who has all up to a number is not behind for too long.
    pub(super) fn is_fresh(&self, sequence: u64) -> bool {
        let bound = self.settings.most_behind_ns;
        let oldest = self.log.after(sequence).find(|entry| entry.state != EntryState::Open);
        // Zero: not known, because the clock jumped.
        oldest.is_none_or(|entry| {
            entry.issued_at != Time(0) && entry.issued_at.after(bound) >= self.now
        })
    }

    /// Lets writes begin that waited for followers.
    pub(super) fn wake_lagging(&mut self) {
        for _ in 0..self.lagging.len() {
            let Some(key) = self.lagging.front().copied() else { return };
            let len = self.ops.get(key).map_or(0, |op| op.len);
            if self.is_too_far(len) {
                return;
            }
            self.lagging.pop_front();
            self.waiting.push_back(key);
            self.wake_waiting();
        }
    }

    /// Bytes of the largest batch, and of the largest piece of it.
    pub(super) fn batch_bytes(&self) -> u32 {
        let aligned = self.settings.batch_bytes as usize / RECORD_ALIGNMENT * RECORD_ALIGNMENT;
        aligned.max(RECORD_ALIGNMENT) as u32
    }

    /// Puts a step of a client's mutation into the order.
    pub(super) fn log_step(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let what = match (op.kind, op.request) {
            (Kind::Write { .. }, Some(request)) => What::Data(request),
            (Kind::Zero { how, .. }, _) => What::Zero(how),
            _ => return,
        };
        let (at, step) = (op.at, op.step);
        let admitted = op.admitted.min(step);
        op.admitted -= admitted;
        self.admitted -= admitted;
        let first = self.log.issued() + 1;
        // In both modes a mutation takes as many numbers, so that a point says the same in both.
        let most = match what {
            What::Data(_) => u64::from(self.batch_bytes()),
            What::Zero(_) => step,
        };
        let mut done = 0;
        while done < step {
            let len = most.min(step - done);
            if self.descriptor.mode == Mode::Synchronous {
                self.log.pass();
            } else if self.log.push(self.now, key, at + done, len, what)
                && let What::Data(request) = what
            {
                self.actions.push_back(Action::Keep { request });
            }
            done += len;
        }
        let last = self.log.issued();
        if let Some(op) = self.ops.get_mut(key) {
            op.first_entry = if op.first_entry == 0 { first } else { op.first_entry };
            (op.step_entry, op.last_entry) = (first, last);
        }
    }

    /// Since when who has all up to a number lacks something; `None`: it lacks nothing.
    pub(super) fn lags_since(&self, sequence: u64) -> Option<Time> {
        let oldest = self.log.after(sequence).find(|entry| entry.state != EntryState::Open);
        oldest.map(|entry| entry.issued_at)
    }
}
