// SPDX-License-Identifier: Apache-2.0
//! Copies to a receiving brick what it lacks.

use super::{
    Volume,
    state::{Kind, Stage},
};
use crate::{Slot, Time};

impl Volume {
    pub(super) fn pump_resync(&mut self) {
        if self.barrier.is_some() || self.is_headless() {
            return;
        }
        for slot in self.slots() {
            while self.copies < self.settings.copies_in_flight {
                let Some((start, end)) = self.next_copy(slot) else { break };
                self.copies += 1;
                self.brick(slot).copies += 1;
                self.submit_own(Kind::Resync { slot }, start, end - start);
            }
        }
    }

    /// The next range that a brick lacks and that is not being copied.
    fn next_copy(&mut self, slot: Slot) -> Option<(u64, u64)> {
        let most = u64::from(self.settings.copy_bytes.max(4096));
        loop {
            let brick = &self.bricks[slot.index()];
            if !self.takes_copies(slot) || brick.join {
                return None;
            }
            let next = brick.dirty.next_from(brick.copy_cursor);
            let Some((start, end)) = next else {
                // Once more from the beginning when the copies of this turn have ended.
                if brick.copies == 0 && brick.copy_cursor != 0 {
                    self.brick(slot).copy_cursor = 0;
                    continue;
                }
                return None;
            };
            let (at, len, set) = self.map.pieces(start, end - start).next()?;
            if !set.has(slot) {
                self.brick(slot).dirty.remove(at, at + len);
                continue;
            }
            let end = at + len.min(most);
            self.brick(slot).copy_cursor = end;
            return Some((at, end));
        }
    }

    pub(super) fn issue_resync(&mut self, key: u64, slot: Slot) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Running;
        let (at, step) = (op.at, op.step);
        let brick = &self.bricks[slot.index()];
        let wanted = self.takes_copies(slot) && brick.dirty.touches(at, at + step);
        // Shards may have moved while the copy waited for its range.
        for (offset, len, set) in
            self.pieces(at, step).filter(|(_, _, set)| wanted && set.has(slot))
        {
            if let Some(source) = self.least_busy(set) {
                self.issue_copy(key, source, slot, offset, len);
            }
        }
        if self.ops.get(key).is_some_and(|op| op.outstanding == 0) {
            self.resync_ended(key);
        }
    }

    pub(super) fn resync_ended(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        let Kind::Resync { slot } = op.kind else { return };
        op.at += op.step;
        let (done, failed) = (op.at >= op.end(), op.retry || !op.missed.is_empty());
        if !done && !failed {
            return self.begin_step(key);
        }
        self.copies = self.copies.saturating_sub(1);
        let brick = self.brick(slot);
        brick.copies = brick.copies.saturating_sub(1);
        self.try_sweeps = true;
        self.finish(key, Ok(()));
    }

    /// When something may be tried again.
    pub(super) fn retry_time(&self) -> Time {
        self.now.after(self.settings.retry_ns)
    }
}
