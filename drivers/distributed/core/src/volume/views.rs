// SPDX-License-Identifier: Apache-2.0
//! Reads that need not see the latest: followers serve them where they are at a point that is new enough.

use super::{
    Volume,
    state::{Kind, Op, Stage},
};
use crate::{Failure, Point, Shortage, Slot, View};

impl Volume {
    /// All that a follower shows: what is behind it in the log only if there is something.
    pub(super) fn shown(&self, slot: Slot) -> u64 {
        let shown = self.bricks[slot.index()].follower.shown;
        if self.log.after(shown).next().is_some() { shown } else { self.log.issued().max(shown) }
    }

    /// Where a read that ends now stands; one of a follower carries its own.
    pub(super) fn point_of(&self, op: &Op) -> Point {
        match (op.kind, op.view) {
            _ if op.point.is_some() => op.point.unwrap_or_default(),
            (Kind::Write { .. } | Kind::Zero { .. }, _) => self.point(op.last_entry),
            // No more than what it saw, so that followers can go on serving the session.
            (Kind::Read, View::AtLeast(token)) if self.is_asynchronous() => {
                self.point(self.log.last_in(op.offset, op.end())).max(token)
            }
            _ => self.point(self.log.issued()),
        }
    }

    /// Sends a read to a follower, if one may serve it; whether it did.
    pub(super) fn read_follower(&mut self, key: u64) -> bool {
        let Some(op) = self.ops.get(key) else { return false };
        if op.view == View::Latest || !self.is_asynchronous() {
            return false;
        }
        let op_range = (op.offset, op.end());
        let view = op.view;
        self.turn = self.turn.wrapping_add(1);
        let candidates = self.following().iter().filter(|slot| self.shows(*slot, view, op_range));
        let count = self.bricks.len() as u64;
        let load = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            let is_shunned = self.shunned.contains(&brick.node);
            (is_shunned, brick.reads, (u64::from(slot.0) + self.turn) % count)
        };
        let Some(slot) = candidates.min_by_key(load) else { return false };
        let point = self.point(self.shown(slot));
        let Some(op) = self.ops.get_mut(key) else { return false };
        op.stage = Stage::Running;
        op.retry = false;
        op.point = Some(point);
        self.issue_read_at(key, slot);
        true
    }

    fn shows(&self, slot: Slot, view: View, (start, end): (u64, u64)) -> bool {
        let follower = &self.bricks[slot.index()].follower;
        if follower.work.as_ref().is_some_and(|work| work.touches(start, end)) {
            return false;
        }
        match view {
            View::Latest => false,
            View::AtLeast(token) => {
                !self.protections.token_check || self.point(self.shown(slot)) >= token
            }
            View::Consistent => self.is_fresh(follower.shown),
        }
    }

    /// A read comes when there is nobody who has the latest.
    pub(super) fn read_headless(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        op.stage = Stage::Queued;
        op.retry = false;
        let head = self.log.head();
        let may_come = match op.view {
            View::Latest => false,
            View::AtLeast(token) => token <= self.point(head),
            View::Consistent => true,
        };
        if may_come || self.settings.shortage == Shortage::Wait {
            self.viewers.push_back(key);
        } else {
            let failure: Failure = self.headless_failure();
            self.finish(key, Err(failure));
        }
    }

    /// Followers may have got further.
    pub(super) fn wake_viewers(&mut self) {
        for _ in 0..self.viewers.len() {
            let Some(key) = self.viewers.pop_front() else { return };
            if !self.is_headless() {
                self.waiting.push_back(key);
                self.wake_waiting();
            } else if !self.read_follower(key) {
                self.viewers.push_back(key);
            }
        }
    }
}
