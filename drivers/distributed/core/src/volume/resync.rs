// SPDX-License-Identifier: Apache-2.0
//! Copies to a receiving brick what it lacks.

use super::{
    Volume,
    state::{Kind, Role, Stage},
};
use crate::{Slot, SlotSet, Time};

/// What is to be copied to a brick next.
enum Next {
    Copy(u64, u64),
    /// Nothing that has as few copies as what came before.
    LessUrgent,
    Nothing,
}

impl Volume {
    /// Copies what is in the greatest danger first: shards with the fewest copies in sync, whichever brick lacks
    /// them, and whether they are to be there again or for the first time.
    pub(super) fn pump_resync(&mut self) {
        if self.barrier.is_some() || self.is_headless() {
            return;
        }
        let mut waiting: SlotSet = self.slots().collect();
        let mut most_urgent_fill = self.most_urgent_fill();
        while self.may_copy() {
            let receiving = |slot: &Slot| {
                let brick = &self.bricks[slot.index()];
                waiting.has(*slot) && self.takes_copies(*slot) && !brick.join
            };
            let urgency = |slot: &Slot| self.bricks[slot.index()].copy_cursor.0;
            let Some(slot) = self.slots().filter(receiving).min_by_key(urgency) else { break };
            if most_urgent_fill.is_some_and(|copies| copies < urgency(&slot)) {
                most_urgent_fill = None;
                self.pump_fills();
                continue;
            }
            match self.next_copy(slot) {
                Next::Copy(start, end) => {
                    self.copy_begins(end - start);
                    self.brick(slot).copies += 1;
                    self.submit_own(Kind::Resync { slot }, start, end - start);
                }
                // Another brick may lack something more urgent than what comes next here.
                Next::LessUrgent => {}
                Next::Nothing => waiting.remove(slot),
            }
        }
    }

    /// The next range that a brick lacks and that is not being copied. It goes through what is lacking once for each number
    /// of copies that shards have left.
    fn next_copy(&mut self, slot: Slot) -> Next {
        let most = u64::from(self.settings.copy_bytes.max(4096));
        let in_sync = self.with_role(Role::InSync);
        loop {
            let brick = &self.bricks[slot.index()];
            let (level, cursor) = brick.copy_cursor;
            let Some((start, end)) = brick.dirty.next_from(cursor) else {
                let last = self.map.sets().map(|set| set.and(in_sync).len()).max();
                if !brick.dirty.is_empty() && Some(level) < last {
                    self.brick(slot).copy_cursor = (level + 1, 0);
                    return Next::LessUrgent;
                }
                // Once more from the beginning when the copies of this turn have ended.
                if brick.copies == 0 && brick.copy_cursor != (0, 0) {
                    self.brick(slot).copy_cursor = (0, 0);
                    continue;
                }
                return Next::Nothing;
            };
            let Some((at, len, set)) = self.map.pieces(start, end - start).next() else {
                return Next::Nothing;
            };
            let is_next = set.and(in_sync).len() == level;
            let end = at + if is_next { len.min(most) } else { len };
            self.brick(slot).copy_cursor = (level, end);
            if !set.has(slot) {
                self.brick(slot).dirty.remove(at, end);
            } else if is_next {
                return Next::Copy(at, end);
            }
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
