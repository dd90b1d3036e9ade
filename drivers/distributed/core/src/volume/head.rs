// SPDX-License-Identifier: Apache-2.0
//! The end of the acknowledging brick of asynchronous mode, and what comes after it.
//!
//! ```text
//!   serving --the acknowledging brick was given up--> headless --promote--> the follower gets what the host remembers
//!                                                        |                      | recorded everywhere
//!                                                        +--detach--> stopped   v
//!                                                                            serving
//! ```
//! Headless, followers get what the log still has, and serve reads that need not see the latest.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Volume,
    followers::FollowStage,
    log::EntryState,
    state::{IoKind, Kind, Link, Phase, Role, Stage},
};
use crate::{
    Cause, Failure, Loss, NodeId, Notice, RequestId, Shortage, Slot, SlotSet, extents::ExtentSet,
};

/// The acknowledging brick that is gone.
#[derive(Debug)]
pub(super) struct Headless {
    reason: Arc<str>,
    /// Where it may have something that nobody else has.
    differs: ExtentSet,
}

/// A follower that is to acknowledge.
#[derive(Debug)]
pub(super) struct Promotion {
    request: RequestId,
    slot: Slot,
    at_once: bool,
    /// What is lost; set once it is being recorded.
    loss: Option<Loss>,
}

impl Promotion {
    pub(super) fn request(&self) -> RequestId {
        self.request
    }
}

impl Volume {
    pub(super) fn is_headless(&self) -> bool {
        self.headless.is_some()
    }

    /// Whether somebody can still serve, and be promoted, without this brick.
    pub(super) fn has_heirs(&self) -> bool {
        let follows = |b: &super::Brick| b.role == Role::Stale && b.follower.is_following();
        self.is_asynchronous() && self.phase == Phase::Serving && self.bricks.iter().any(follows)
    }

    /// The acknowledging brick is being given up.
    pub(super) fn lose_head(&mut self, slot: Slot, cause: Cause) {
        let (brick, node) = (self.bricks[slot.index()].id, self.bricks[slot.index()].node);
        let name = self.node_name(node);
        let reason = format!(
            "volume {:?}: the acknowledging node {name} (brick {brick}) is gone: {cause}. Promote a follower, or bring \
             node {name} back, detach and attach again",
            self.descriptor.volume
        );
        let mut differs = ExtentSet::default();
        let unsure = self.log.after(0).filter(|entry| entry.state != EntryState::Done);
        unsure.for_each(|entry| differs.insert(entry.offset, entry.end()));
        for (_, op) in self.ops.iter().filter(|(_, op)| op.holds) {
            differs.insert(op.at, op.at + op.step);
        }
        self.headless = Some(Headless { reason: reason.into(), differs });
        // Before anybody asks what the brick may lack: past a smaller end that would be nothing.
        self.take_size_back();
        self.report(Notice::HeadLost { brick, node, cause });
    }

    /// Ends what only the acknowledging brick could have ended. It is given up, and answers nothing any more.
    pub(super) fn head_lost(&mut self) {
        // What the state was asked for is answered yet; other records come to nothing.
        if self.commit.as_ref().is_some_and(|commit| !commit.storing) {
            self.commit = None;
        }
        self.want_intent = false;
        if self.resize_outlives_head() {
            // What it waits for is answered yet, by others.
        } else if let Some(barrier) = self.barrier.take() {
            let snapping = self.snapping.take().map(|snapping| snapping.request);
            let request = barrier.request;
            self.reply(request, Err(self.headless_failure()));
            if let Some(other) = snapping.filter(|other| *other != request) {
                self.reply(other, Err(self.headless_failure()));
            }
        } else if let Some(snapping) = self.snapping.take() {
            self.reply(snapping.request, Err(self.headless_failure()));
        }
        self.pending_intent.clear();
        self.no_room.clear();
        self.settling.clear();
        let begun: Vec<u64> = self.ops.iter().map(|(key, _)| key).collect();
        for key in begun {
            let Some(op) = self.ops.get(key) else { continue };
            let is_read = op.kind == Kind::Read;
            // Copies come to their end: what they write must not land after others.
            let is_copy = matches!(op.kind, Kind::Resync { .. });
            // Also one that the end of another one has let wait just now.
            let mut waiting = self.short.iter().chain(&self.lagging).chain(&self.viewers);
            let waits = waiting.any(|other| *other == key);
            if is_copy || waits || (is_read && op.outstanding > 0) {
                continue;
            }
            let is_unbegun =
                op.at == op.offset && matches!(op.stage, Stage::Queued | Stage::Intent);
            if is_read || is_unbegun {
                self.waiting.retain(|other| *other != key);
                self.let_go(key);
                self.retry_headless(key);
            } else {
                self.finish(key, Err(self.headless_failure()));
            }
        }
        for key in self.short.drain(..).chain(self.lagging.drain(..)).collect::<Vec<_>>() {
            self.retry_headless(key);
        }
        if let Some(round) = self.round.take() {
            self.flush_requests.extend(round.requests);
        }
        self.refuse_flushes();
        self.log.cut(u64::MAX);
        for (request, op) in std::mem::take(&mut self.early) {
            self.request(request, op);
        }
        self.check_heirs();
    }

    /// An operation has its range no more, nor the regions that were to be committed for it.
    fn let_go(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        if std::mem::take(&mut op.holds) {
            let (at, step) = (op.at, op.step);
            self.intent.release(at, step, false);
        }
        self.held.retain(|held| held.op != key);
    }

    /// What was not begun waits for a new acknowledging brick, or fails.
    pub(super) fn retry_headless(&mut self, key: u64) {
        let Some(op) = self.ops.get_mut(key) else { return };
        self.admitted -= std::mem::take(&mut op.admitted);
        op.stage = Stage::Queued;
        op.retry = false;
        match op.kind {
            Kind::Read => self.issue_read(key),
            Kind::Write { .. } | Kind::Zero { .. } if self.settings.shortage == Shortage::Wait => {
                self.short.push_back(key);
            }
            _ => self.finish(key, Err(self.headless_failure())),
        }
    }

    pub(super) fn headless_failure(&self) -> Failure {
        let reason = self.headless.as_ref().map(|headless| Arc::clone(&headless.reason));
        Failure::Headless(reason.unwrap_or_else(|| "the acknowledging brick is gone".into()))
    }

    pub(super) fn refuse_flushes(&mut self) {
        if self.is_headless() && self.settings.shortage == Shortage::ReadOnly {
            for request in std::mem::take(&mut self.flush_requests) {
                self.reply(request, Err(self.headless_failure()));
            }
        }
    }

    /// A volume without an acknowledging brick and without followers has nothing to serve.
    pub(super) fn check_heirs(&mut self) {
        if self.is_headless() && !self.has_heirs() && !self.is_promoting() && !self.is_over() {
            self.stop_headless();
        }
    }

    pub(super) fn stop_headless(&mut self) {
        if let Some(headless) = &self.headless {
            let reason = Arc::clone(&headless.reason);
            self.stop(Phase::Stopped(reason));
        }
    }

    /// Takes a wish to have a follower acknowledge.
    pub(super) fn promote(&mut self, request: RequestId, node: NodeId, at_once: bool) {
        // Whoever makes the state anew must learn from the companion of the one that is gone who may have been promoted.
        let slot = self.recorded.following.and(self.with_a_point()).iter();
        let slot = slot.into_iter().find(|slot| self.bricks[slot.index()].node == node);
        let refusal = if !self.is_headless() {
            Some("the acknowledging brick is not gone: there is nothing to promote")
        } else if self.promotion.is_some() {
            Some("another follower is being promoted")
        } else if slot.is_none() {
            Some("the node has no follower at a consistent point: promote another one")
        } else {
            None
        };
        match (refusal, slot) {
            (None, Some(slot)) => {
                self.promotion = Some(Promotion { request, slot, at_once, loss: None });
            }
            (reason, _) => {
                let reason = reason.unwrap_or("the node has no follower");
                self.reply(request, Err(Failure::Refused(reason.into())));
            }
        }
    }

    /// Goes on with a promotion once the follower is where it is to be promoted.
    pub(super) fn pump_promotion(&mut self) {
        let Some(promotion) = &self.promotion else { return };
        let (slot, request, at_once) = (promotion.slot, promotion.request, promotion.at_once);
        if promotion.loss.is_some() {
            return;
        }
        let brick = &self.bricks[slot.index()];
        let is_able = brick.role == Role::Stale && brick.follower.is_following();
        if !is_able || brick.link == Link::Closed {
            self.promotion = None;
            let reason = "the follower was given up meanwhile: promote another one";
            return self.reply(request, Err(Failure::Refused(reason.into())));
        }
        let done = brick.follower.done;
        let lags = self.log.after(done).next().is_some();
        if brick.link != Link::Open
            || brick.follower.work.is_some()
            || (lags && !at_once)
            || !self.has_maps(slot)
            || self.copies > 0
            || self.commit.is_some()
        {
            return;
        }
        let loss = self.loss_at(done);
        if let Some(promotion) = &mut self.promotion {
            promotion.loss = Some(loss);
        }
        self.diverge(slot, done);
        self.drop_digests();
        self.brick(slot).role = Role::Joining;
        self.want_membership = true;
    }

    /// Whether a follower gets nothing more before it is promoted.
    pub(super) fn is_promoted_at_once(&self, slot: Slot) -> bool {
        self.promotion.as_ref().is_some_and(|promotion| promotion.slot == slot && promotion.at_once)
    }

    /// Followers get nothing that who is being promoted has not.
    pub(super) fn last_to_follow(&self) -> u64 {
        let promotion = self.promotion.as_ref().filter(|promotion| promotion.loss.is_some());
        let promoted = promotion.map(|promotion| &self.bricks[promotion.slot.index()]);
        promoted.map_or(u64::MAX, |brick| brick.follower.done)
    }

    /// What nobody has any more once who has all up to a number acknowledges.
    fn loss_at(&self, done: u64) -> Loss {
        let mut requests = BTreeSet::new();
        let (mut bytes, mut ranges, mut oldest, mut last) = (0, ExtentSet::default(), 0, done);
        for entry in self.log.after(done) {
            let Some(request) = entry.acknowledged else { continue };
            requests.insert(request);
            bytes += entry.bytes();
            ranges.insert(entry.offset, entry.end());
            oldest = oldest.max(self.now.0.saturating_sub(entry.done_at.0));
            last = entry.sequence;
        }
        Loss::Exact {
            writes: requests.len() as u64,
            bytes,
            ranges: ranges.iter().count() as u64,
            from: self.point(done),
            to: self.point(last),
            oldest_ns: oldest,
        }
    }

    /// Everybody who may have what is lost lacks what the promoted follower has there. Before the record, so that the
    /// record says so.
    fn diverge(&mut self, promoted: Slot, done: u64) {
        let mut lost = self.log.ranges_after(done);
        if let Some(headless) = &self.headless {
            headless.differs.iter().for_each(|(start, end)| lost.insert(start, end));
        }
        for slot in self.slots().filter(|slot| *slot != promoted) {
            let brick = &self.bricks[slot.index()];
            let follower = &brick.follower;
            let is_behind = follower.is_following() && follower.reach() <= done;
            if brick.role == Role::Vacant || is_behind {
                continue;
            }
            if follower.keeps_log() {
                self.fall_out(slot);
            }
            let brick = self.brick(slot);
            lost.iter().for_each(|(start, end)| brick.dirty.insert(start, end));
            if brick.follower.stage == FollowStage::Copying {
                brick.copy_cursor = (0, 0);
            }
        }
    }

    /// The record says everywhere who acknowledges now.
    pub(super) fn promoted(&mut self, joined: SlotSet) {
        let Some(promotion) = self.promotion.take_if(|promotion| joined.has(promotion.slot)) else {
            return;
        };
        let Promotion { request, slot, loss, .. } = promotion;
        self.headless = None;
        // What they see may be newer from now on than the point that the brick had.
        let reads = self.ios.iter().filter(|(_, io)| io.kind == IoKind::Read && io.slot == slot);
        for key in reads.map(|(_, io)| io.op).collect::<Vec<_>>() {
            if let Some(op) = self.ops.get_mut(key) {
                op.point = None;
            }
        }
        let brick = self.brick(slot);
        let done = brick.follower.done;
        brick.follower = super::Follower::default();
        let (brick, node) = (brick.id, brick.node);
        self.log.cut(done);
        if let Some(loss) = loss {
            self.report(Notice::Promoted { brick, node, loss });
        }
        self.reply(request, Ok(()));
        for key in std::mem::take(&mut self.viewers) {
            self.issue_read(key);
        }
        self.trim_log();
    }

    /// Whether a record may be written although there is nobody who acknowledges.
    pub(super) fn is_promoting(&self) -> bool {
        self.promotion.as_ref().is_some_and(|promotion| promotion.loss.is_some())
    }

    /// A brick was given up that was to acknowledge.
    pub(super) fn promotion_fails(&mut self, slot: Slot) {
        let Some(promotion) = self.promotion.take_if(|promotion| promotion.slot == slot) else {
            return;
        };
        let brick = &self.bricks[slot.index()];
        let failure = match promotion.loss {
            // Its companion may say so already, and whoever attaches the volume next believes it.
            Some(loss) if brick.may_be_listed => {
                let (volume, name) = (&self.descriptor.volume, self.node_name(brick.node));
                let lost = match loss {
                    Loss::Exact { writes, bytes, .. } => {
                        format!("{writes} acknowledged writes ({bytes} bytes)")
                    }
                    Loss::AtMost { bytes, .. } => format!("up to {bytes} bytes"),
                };
                let text = format!(
                    "volume {volume:?}: node {name} failed while it was recorded that it acknowledges now. Promote another \
                     follower, or attach the volume again: if node {name} acknowledges then, {lost} are lost"
                );
                Failure::Headless(text.into())
            }
            _ => {
                let reason = "the follower was given up meanwhile: promote another one";
                Failure::Refused(reason.into())
            }
        };
        self.reply(promotion.request, Err(failure));
    }
}
