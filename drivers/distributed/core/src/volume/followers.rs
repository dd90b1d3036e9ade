// SPDX-License-Identifier: Apache-2.0
//! Followers of asynchronous mode: each is at a point, and gets what comes after it in order.
//!
//! ```text
//!   lacking --marked: at no point--> copying --little is left--> catching up --flushed, recorded--> following
//!      ^                                ^  the log is kept from here on                                |
//!      |                                +---- the log would grow too long -----+                       |
//!      +--- too far behind, or a mutation came to nothing known: fell out ------------------------------+
//!
//!   a batch:  journal --> record (here it is at the new point) --> brick --> flush
//! ```
//! A batch is whole in the follower's companion before the first byte of its brick changes, so that the brick is at one
//! point after any crash: that of its record, once the journal was replayed. The journal has two halves that take turns,
//! because the record of the next batch is written when this one's is still the newest that surely holds.

use super::{
    Volume,
    batches::Work,
    state::{Link, Role},
};
use crate::{Follow, Mode, Notice, Point, Slot, SlotSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum FollowStage {
    /// It is closed, or what is under way there has to end.
    #[default]
    Lacking,
    /// It gets copies of what is dirty; new mutations make more of it dirty.
    Copying,
    /// The last copies, and then what the log has kept meanwhile: all up to `until`.
    Catching { until: Option<u64> },
    /// It has all up to a point; what comes after it is in the log.
    Following,
}

/// A brick as a follower.
#[derive(Debug, Default)]
pub(super) struct Follower {
    pub(super) stage: FollowStage,
    /// Its brick or its journal surely has all up to here.
    pub(super) done: u64,
    /// What was under way when it was given up may have brought it up to here, and may still until it is opened again.
    pub(super) reached: u64,
    /// Its brick has all up to here, and nothing after it but where a batch is being applied.
    pub(super) shown: u64,
    pub(super) work: Option<Work>,
    /// What its companion says.
    pub(super) on_disk: Follow,
    /// Where the two halves of its journal begin, and how long each is.
    pub(super) journal: Option<(u64, u64)>,
}

impl Follower {
    /// Whether the log is kept for it.
    pub(super) fn keeps_log(&self) -> bool {
        matches!(self.stage, FollowStage::Catching { .. } | FollowStage::Following)
    }

    /// Begins anew with what its companion says.
    pub(super) fn restart(&mut self) {
        *self = Self { on_disk: std::mem::take(&mut self.on_disk), ..Self::default() };
    }

    pub(super) fn is_resynced(&self) -> bool {
        matches!(self.stage, FollowStage::Copying | FollowStage::Catching { .. })
    }

    pub(super) fn is_following(&self) -> bool {
        self.stage == FollowStage::Following
    }

    /// How far it may be.
    pub(super) fn reach(&self) -> u64 {
        self.done.max(self.reached).max(self.work.as_ref().map_or(0, Work::reach))
    }

    /// What comes after this number is kept for it.
    pub(super) fn needs_after(&self) -> u64 {
        if self.is_following() { self.shown.min(self.done) } else { self.done }
    }
}

impl Volume {
    pub(super) fn is_asynchronous(&self) -> bool {
        self.descriptor.mode == Mode::Asynchronous
    }

    /// The place of a number in the order of this attachment.
    pub(super) fn point(&self, sequence: u64) -> Point {
        Point { epoch: self.descriptor.epoch, sequence }
    }

    /// Those that are at a point and in the log, also while they are away.
    pub(super) fn with_a_point(&self) -> SlotSet {
        let follows = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            brick.role == Role::Stale && brick.follower.is_following()
        };
        self.slots().filter(follows).collect()
    }

    /// Followers that get what comes.
    pub(super) fn following(&self) -> SlotSet {
        let follows = |slot: &Slot| {
            let brick = &self.bricks[slot.index()];
            brick.role == Role::Stale && brick.link == Link::Open && brick.follower.is_following()
        };
        self.slots().filter(follows).collect()
    }

    /// A brick is open that is outside the in-sync set.
    pub(super) fn follow(&mut self, slot: Slot) {
        let (epoch, size) = (self.descriptor.epoch, self.descriptor.size);
        let brick = self.brick(slot);
        brick.link = Link::Open;
        brick.receiving = false;
        brick.copy_cursor = (0, 0);
        brick.copied = 0;
        let follower = &mut brick.follower;
        if follower.is_following() {
            let at = follower.on_disk.point.filter(|point| point.epoch == epoch);
            match at {
                Some(point) if point.sequence >= follower.done => follower.done = point.sequence,
                _ => return self.replace(slot, crate::Cause::Companion),
            }
        }
        follower.reached = 0;
        let is_following = follower.is_following();
        if !is_following {
            // Not replayed: since then the volume may have got smaller, and larger again.
            let pieces = std::mem::take(&mut follower.on_disk.journal);
            let ends = pieces.iter().map(|piece| (piece.offset, piece.offset + piece.len));
            ends.for_each(|(start, end)| brick.dirty.insert(start, end.min(size).max(start)));
        } else if !follower.on_disk.journal.is_empty() {
            self.replay_journal(slot);
        } else {
            follower.shown = follower.done;
        }
        // Those count that follow.
        if is_following && self.is_serving() {
            self.wake_short();
        }
    }

    /// Lets every follower go on, and whoever waits for them.
    pub(super) fn pump_followers(&mut self) {
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            if brick.role == Role::Stale && brick.link == Link::Open && !brick.unrecorded {
                self.pump_follower(slot);
            }
        }
        self.trim_log();
        // While a snapshot is taken nothing is written.
        if self.barrier.is_none() || self.barrier_wants_followers() {
            self.wake_lagging();
        }
        self.wake_viewers();
        self.pump_promotion();
        // Who fell out only now begins anew: nothing else may happen that would have it go on.
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            let has_fallen_out =
                brick.follower.stage == FollowStage::Lacking && brick.follower.work.is_none();
            let is_open =
                brick.role == Role::Stale && brick.link == Link::Open && !brick.unrecorded;
            if has_fallen_out && is_open {
                self.pump_follower(slot);
            }
        }
    }

    fn pump_follower(&mut self, slot: Slot) {
        if self.bricks[slot.index()].follower.work.is_some() {
            return self.go_on(slot);
        }
        // What a barrier lets come to its end may wait for one that has nearly caught up.
        let stage = self.bricks[slot.index()].follower.stage;
        let is_near = matches!(stage, FollowStage::Catching { until: Some(_) });
        let waits = self.is_headless() || (self.barrier.is_some() && !is_near);
        let near = (self.settings.most_behind_bytes / 2).max(4096);
        let ahead = self.log.bytes() + self.admitted;
        let fits = ahead <= self.settings.most_behind_bytes;
        let is_promoted = self.is_promoted_at_once(slot);
        let (issued, brick) = (self.log.issued(), &mut self.bricks[slot.index()]);
        let (copies, reads, follower) = (brick.copies, brick.reads, &mut brick.follower);
        match follower.stage {
            FollowStage::Following if is_promoted => {}
            FollowStage::Following => self.next_batch(slot),
            _ if waits => {}
            // What one read sees is of one point.
            FollowStage::Lacking if reads > 0 => {}
            // Also if it lacks nothing yet: what comes meanwhile gets there without a journal.
            FollowStage::Lacking if follower.on_disk.point.is_some() => self.mark(slot),
            FollowStage::Lacking => {
                follower.stage = FollowStage::Copying;
                let (brick, bytes) = (brick.id, brick.dirty.bytes());
                self.report(Notice::ResyncStarted { brick, bytes });
                self.pump_follower(slot);
            }
            FollowStage::Copying if brick.dirty.bytes() <= near => {
                follower.done = issued;
                follower.stage = FollowStage::Catching { until: None };
                self.pump_follower(slot);
            }
            FollowStage::Catching { until: None } if brick.dirty.is_empty() && copies == 0 => {
                follower.stage = FollowStage::Catching { until: Some(issued) };
                self.pump_follower(slot);
            }
            // Something is to be copied after all: what that brings is newer than what it has caught up with.
            FollowStage::Catching { until: Some(_) } if !brick.dirty.is_empty() || copies > 0 => {
                follower.stage = FollowStage::Catching { until: None };
            }
            // From here on writes keep to the bound; those that were begun before have to fit, too.
            FollowStage::Catching { until: Some(until) } if follower.done >= until && fits => {
                let to = follower.done;
                self.settle_follower(slot, to);
            }
            FollowStage::Catching { until: Some(_) } => self.next_batch(slot),
            FollowStage::Copying | FollowStage::Catching { .. } => {}
        }
    }

    /// A follower cannot go on from its point. What it lacks is copied once it is recorded that it is at none.
    pub(super) fn fall_out(&mut self, slot: Slot) {
        let mut lacks = self.logged_for(slot);
        let brick = self.brick(slot);
        let was_following = brick.follower.is_following();
        brick.follower.stage = FollowStage::Lacking;
        brick.dirty.absorb(&mut lacks);
        if let Some(work) = &brick.follower.work {
            work.ranges().for_each(|(start, end)| brick.dirty.insert(start, end));
        }
        let (brick, node) = (brick.id, brick.node);
        if was_following {
            self.want_membership = true;
            self.report(Notice::FellOut { brick, node });
        }
    }

    /// A follower was given up: nothing that was asked of it is waited for.
    pub(super) fn follower_lost(&mut self, slot: Slot) {
        let follower = &mut self.brick(slot).follower;
        follower.reached = follower.reach();
        follower.work = None;
        match follower.stage {
            FollowStage::Lacking | FollowStage::Following => {}
            FollowStage::Copying => follower.stage = FollowStage::Lacking,
            FollowStage::Catching { .. } => self.fall_out(slot),
        }
    }

    /// Whether all followers that are to be left as they are have everything, and nothing to replay.
    pub(super) fn followers_are_ready(&mut self) -> bool {
        // Also in synchronous mode: a record of one that followed may be under way.
        let mut ready = self.bricks.iter().all(|brick| brick.follower.work.is_none());
        if !self.is_asynchronous() {
            return ready;
        }
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            let follower = &brick.follower;
            if brick.role != Role::Stale {
                continue;
            }
            if !follower.keeps_log() {
                continue;
            }
            if !follower.is_following() || brick.link != Link::Open {
                self.fall_out(slot);
                continue;
            }
            ready &= self.log.after(follower.done).next().is_none();
            ready &= follower.on_disk.journal.is_empty();
        }
        self.trim_log();
        ready
    }

    /// Bricks that get copies of what they lack.
    pub(super) fn takes_copies(&self, slot: Slot) -> bool {
        let brick = &self.bricks[slot.index()];
        let copies =
            matches!(brick.follower.stage, FollowStage::Copying | FollowStage::Catching { .. });
        brick.receiving
            || (self.is_asynchronous()
                && brick.role == Role::Stale
                && brick.link == Link::Open
                && copies
                && brick.follower.work.is_none())
    }
}
