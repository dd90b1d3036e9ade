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
    log::{EntryState, What},
    state::{Io, IoKind, Kind, Link, Role},
};
use crate::{
    Action, Follow, JournalPart, JournalPiece, Mode, Notice, Point, RECORD_ALIGNMENT, Record, Slot,
    SlotSet, Time, extents::ExtentSet,
};

/// Mutations of one batch.
const MOST_IN_BATCH: usize = 512;

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

/// What is done with a follower, and how far it is.
#[derive(Debug)]
pub(super) struct Work {
    plan: Plan,
    step: Step,
    /// Where the follower is afterwards.
    to: u64,
    pieces: Vec<Piece>,
    /// The step was issued.
    issued: bool,
    outstanding: u32,
}

impl Work {
    /// Whether a range of the brick is about to change, or is changing.
    pub(super) fn touches(&self, offset: u64, end: u64) -> bool {
        self.pieces.iter().any(|piece| piece.offset < end && offset < piece.offset + piece.len)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plan {
    /// Journal, record, apply, flush.
    Batch,
    /// Apply, flush: it is at no point yet.
    Catch,
    /// Flush, record: it follows from then on.
    Settle,
    /// Apply what the journal has, flush.
    Replay,
    /// Record that it is at no point.
    Mark,
    /// Record that nothing is left in the journal.
    Seal,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Journal,
    Record,
    Apply,
    Flush,
}

/// A range of a batch; no two overlap.
#[derive(Clone, Copy, Debug)]
struct Piece {
    offset: u64,
    len: u64,
    /// `None`: the journal has it, from this byte of the companion on.
    what: Option<What>,
    journal: u64,
}

/// A brick as a follower.
#[derive(Debug, Default)]
pub(super) struct Follower {
    pub(super) stage: FollowStage,
    /// Its brick or its journal surely has all up to here.
    pub(super) done: u64,
    /// Its brick has all up to here, and nothing after it but where a batch is being applied.
    pub(super) shown: u64,
    pub(super) work: Option<Work>,
    /// What its companion says.
    pub(super) on_disk: Follow,
    /// Where the two halves of its journal begin, and how long each is.
    pub(super) journal: Option<(u64, u64)>,
    second_half: bool,
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
        let under_way = self.work.as_ref().filter(|work| work.plan == Plan::Batch);
        self.done.max(under_way.map_or(0, |work| work.to))
    }

    fn needs_after(&self) -> u64 {
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
        let epoch = self.descriptor.epoch;
        let brick = self.brick(slot);
        brick.link = Link::Open;
        brick.receiving = false;
        brick.copy_cursor = 0;
        brick.copied = 0;
        let follower = &mut brick.follower;
        if follower.is_following() {
            let at = follower.on_disk.point.filter(|point| point.epoch == epoch);
            match at {
                Some(point) if point.sequence >= follower.done => follower.done = point.sequence,
                _ => return self.replace(slot, crate::Cause::Companion),
            }
        }
        if follower.on_disk.point.is_some() && !follower.on_disk.journal.is_empty() {
            return self.begin_replay(slot);
        }
        follower.shown = follower.done;
    }

    pub(super) fn begin_replay(&mut self, slot: Slot) {
        let size = self.descriptor.size;
        let follower = &self.bricks[slot.index()].follower;
        let (mut journal, to) = (follower.on_disk.journal_at, follower.done);
        let mut pieces = Vec::new();
        for piece in &follower.on_disk.journal {
            let JournalPiece { offset, len, zero } = *piece;
            let what = zero.map(What::Zero);
            // The volume may be smaller than it was.
            let fits = len.min(size.saturating_sub(offset));
            if fits > 0 {
                pieces.push(Piece { offset, len: fits, what, journal });
            }
            journal += if zero.is_none() { len } else { 0 };
        }
        self.begin_work(slot, Plan::Replay, Step::Apply, to, pieces);
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
        self.wake_lagging();
        self.wake_viewers();
        self.pump_promotion();
    }

    fn pump_follower(&mut self, slot: Slot) {
        if self.bricks[slot.index()].follower.work.is_some() {
            return self.go_on(slot);
        }
        let waits = self.barrier.is_some() || self.is_headless();
        let near = (self.settings.most_behind_bytes / 2).max(4096);
        let (issued, brick) = (self.log.issued(), &mut self.bricks[slot.index()]);
        let (copies, follower) = (brick.copies, &mut brick.follower);
        match follower.stage {
            FollowStage::Following => self.next_batch(slot),
            _ if waits => {}
            FollowStage::Lacking if follower.on_disk.point.is_some() && !brick.dirty.is_empty() => {
                self.begin_work(slot, Plan::Mark, Step::Record, 0, Vec::new());
            }
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
            FollowStage::Catching { until: Some(until) } if follower.done >= until => {
                let to = follower.done;
                self.begin_work(slot, Plan::Settle, Step::Flush, to, Vec::new());
            }
            FollowStage::Catching { until: Some(_) } => self.next_batch(slot),
            FollowStage::Copying | FollowStage::Catching { .. } => {}
        }
    }

    /// Gives a follower the next of the log.
    fn next_batch(&mut self, slot: Slot) {
        let in_order = self.protections.log_order;
        let most = u64::from(self.batch_bytes());
        let follower = &self.bricks[slot.index()].follower;
        let (done, is_following) = (follower.done, follower.is_following());
        let mut entries = Vec::new();
        let (mut bytes, mut is_broken) = (0, false);
        for entry in self.log.after(done) {
            match entry.state {
                EntryState::Open if in_order => break,
                EntryState::Open => continue,
                EntryState::Broken => {
                    is_broken = entries.is_empty();
                    break;
                }
                EntryState::Done => {}
            }
            bytes += entry.bytes();
            if entries.len() == MOST_IN_BATCH || (bytes > most && !entries.is_empty()) {
                break;
            }
            entries.push(*entry);
        }
        if is_broken {
            return self.fall_out(slot);
        }
        let Some(last) = entries.last() else { return self.nothing_to_apply(slot) };
        let to = last.sequence;
        // Of what overlaps, the last one counts.
        let mut covered = ExtentSet::default();
        let mut pieces = Vec::new();
        for entry in entries.iter().rev() {
            let mut at = entry.offset;
            while at < entry.end() {
                let (from, until) = covered.next_from(at).unwrap_or((u64::MAX, u64::MAX));
                let end = from.min(entry.end());
                if at < end {
                    let (offset, len) = (at, end - at);
                    pieces.push(Piece { offset, len, what: Some(entry.what), journal: 0 });
                }
                at = until.min(entry.end()).max(end);
            }
            covered.insert(entry.offset, entry.end());
        }
        if is_following {
            self.begin_work(slot, Plan::Batch, Step::Journal, to, pieces);
        } else {
            self.begin_work(slot, Plan::Catch, Step::Apply, to, pieces);
        }
    }

    /// A follower has everything; whoever changes what it is finds no journal to replay.
    fn nothing_to_apply(&mut self, slot: Slot) {
        let follower = &self.bricks[slot.index()].follower;
        let (done, is_sealed) = (follower.done, follower.on_disk.journal.is_empty());
        if follower.is_following() && !is_sealed && self.barrier_wants_followers() {
            self.begin_work(slot, Plan::Seal, Step::Record, done, Vec::new());
        }
    }

    fn begin_work(&mut self, slot: Slot, plan: Plan, step: Step, to: u64, pieces: Vec<Piece>) {
        let (issued, outstanding) = (false, 0);
        let work = Work { plan, step, to, pieces, issued, outstanding };
        self.brick(slot).follower.work = Some(work);
        self.go_on(slot);
    }

    /// Issues the step that is due, if it may be issued.
    fn go_on(&mut self, slot: Slot) {
        let Some(work) = &self.bricks[slot.index()].follower.work else { return };
        if work.issued {
            return;
        }
        match work.step {
            Step::Journal => self.issue_journal(slot),
            Step::Record => self.issue_follow_record(slot),
            Step::Apply if self.is_being_read(slot) => return,
            Step::Apply => self.issue_apply(slot),
            Step::Flush => self.issue_follow_flush(slot),
        }
        let Some(work) = &mut self.brick(slot).follower.work else { return };
        work.issued = true;
        if work.outstanding == 0 {
            self.step_done(slot);
        }
    }

    /// Whether somebody reads what is about to change: what one read sees is of one point.
    fn is_being_read(&self, slot: Slot) -> bool {
        let Some(work) = &self.bricks[slot.index()].follower.work else { return false };
        self.ios.iter().any(|(_, io)| {
            io.kind == IoKind::Read
                && io.slot == slot
                && !io.abandoned
                && work.touches(io.offset, io.offset + io.len)
        })
    }

    fn expect_of(&mut self, slot: Slot, more: u32) {
        if let Some(work) = &mut self.brick(slot).follower.work {
            work.outstanding += more;
        }
    }

    fn issue_journal(&mut self, slot: Slot) {
        let half = u64::from(self.batch_bytes());
        let (base, half) = match self.bricks[slot.index()].follower.journal {
            Some(journal) => journal,
            None => (self.room_for_journal(slot, 2 * half), half),
        };
        let brick = self.brick(slot);
        let follower = &mut brick.follower;
        follower.journal = Some((base, half));
        follower.second_half = !follower.second_half;
        let offset = base + if follower.second_half { half } else { 0 };
        let Some(work) = &mut follower.work else { return };
        let mut at = offset;
        let mut parts = Vec::new();
        for piece in &mut work.pieces {
            piece.journal = at;
            if let Some(What::Data(request)) = piece.what {
                parts.push(JournalPart { request, offset: piece.offset, len: piece.len as u32 });
                at += piece.len;
            }
        }
        let (len, brick) = (at - offset, brick.id);
        if parts.is_empty() {
            return;
        }
        self.expect_of(slot, 1);
        let io = self.io(IoKind::Follow, slot, 0, offset, len);
        self.actions.push_back(Action::WriteJournal { io, brick, offset, parts });
    }

    fn issue_follow_record(&mut self, slot: Slot) {
        let follow = self.follow_to_record(slot);
        let descriptor = self.recorded.clone();
        let mut record = Record {
            brick: self.bricks[slot.index()].id,
            sequence: self.bricks[slot.index()].sequence,
            descriptor,
            intent: Vec::new(),
            dirty: Vec::new(),
            map_at: 0,
            map_bytes: 0,
            snapshot_maps: Vec::new(),
            follow,
        };
        self.place_maps(slot, &mut record);
        self.brick(slot).sequence += 1;
        let (brick, offset, bytes) = (record.brick, record.offset(), record.encode());
        self.expect_of(slot, 1);
        let io = self.io(IoKind::Follow, slot, 0, offset, bytes.len() as u64);
        self.actions.push_back(Action::WriteCompanion { io, brick, offset, bytes: bytes.into() });
    }

    /// What the record under way says.
    fn follow_to_record(&self, slot: Slot) -> Follow {
        let Some(work) = &self.bricks[slot.index()].follower.work else { return Follow::default() };
        let point = (work.plan != Plan::Mark).then(|| self.point(work.to));
        let piece = |piece: &Piece| {
            let zero = match piece.what {
                Some(What::Zero(how)) => Some(how),
                _ => None,
            };
            JournalPiece { offset: piece.offset, len: piece.len, zero }
        };
        let journal_at = work.pieces.first().map_or(0, |first| first.journal);
        Follow { point, journal_at, journal: work.pieces.iter().map(piece).collect() }
    }

    fn issue_apply(&mut self, slot: Slot) {
        let Some(work) = &self.bricks[slot.index()].follower.work else { return };
        let (pieces, brick) = (work.pieces.clone(), self.bricks[slot.index()].id);
        let most = u64::from(self.settings.copy_bytes.max(4096));
        for Piece { offset, len, what, journal } in pieces {
            let step = if what.is_none() { most } else { len };
            for at in (0..len).step_by(step as usize) {
                let (part, offset, journal) = (step.min(len - at), offset + at, journal + at);
                self.expect_of(slot, 1);
                let io = self.io(IoKind::Follow, slot, 0, offset, part);
                let len = part as u32;
                self.actions.push_back(match what {
                    Some(What::Data(request)) => {
                        Action::Write { io, brick, request, offset, len, fua: false }
                    }
                    Some(What::Zero(how)) => {
                        Action::Zero { io, brick, offset, len: part, how, fua: false }
                    }
                    None => Action::ReplayJournal { io, brick, journal, offset, len },
                });
            }
        }
    }

    fn issue_follow_flush(&mut self, slot: Slot) {
        let brick = self.brick(slot);
        let mut volatile = std::mem::take(&mut brick.volatile);
        brick.flushing.absorb(&mut volatile);
        let brick = brick.id;
        self.expect_of(slot, 1);
        let io = self.io(IoKind::FollowFlush, slot, 0, 0, 0);
        self.actions.push_back(Action::Flush { io, brick });
    }

    /// An answer of a follower is in, as it should be.
    pub(super) fn follow_done(&mut self, io: &Io) {
        let slot = io.slot;
        if self.brick(slot).id != io.brick {
            return;
        }
        let Some(work) = &mut self.brick(slot).follower.work else { return };
        work.outstanding = work.outstanding.saturating_sub(1);
        if work.outstanding == 0 && work.issued {
            self.step_done(slot);
        }
    }

    fn step_done(&mut self, slot: Slot) {
        let follow = self.follow_to_record(slot);
        let brick = self.brick(slot);
        let Some(work) = &mut brick.follower.work else { return };
        work.issued = false;
        let next = match (work.plan, work.step) {
            (_, Step::Journal) => Some(Step::Record),
            (_, Step::Apply) => Some(Step::Flush),
            (Plan::Batch, Step::Record) => Some(Step::Apply),
            (Plan::Settle, Step::Flush) => Some(Step::Record),
            (_, Step::Record | Step::Flush) => None,
        };
        let (plan, to) = (work.plan, work.to);
        match work.step {
            Step::Record => {
                brick.follower.on_disk = follow;
                if plan == Plan::Batch {
                    brick.follower.done = to;
                }
            }
            Step::Flush => brick.flushing.clear(),
            Step::Journal | Step::Apply => {}
        }
        match next {
            Some(next) => {
                if let Some(work) = &mut brick.follower.work {
                    work.step = next;
                }
                self.go_on(slot);
            }
            None => self.work_done(slot, plan, to),
        }
    }

    fn work_done(&mut self, slot: Slot, plan: Plan, to: u64) {
        let brick = self.brick(slot);
        brick.follower.work = None;
        let (id, node) = (brick.id, brick.node);
        let follower = &mut brick.follower;
        match plan {
            Plan::Batch => follower.shown = to,
            Plan::Catch => follower.done = to,
            Plan::Replay => {
                follower.on_disk.journal.clear();
                follower.shown = follower.done;
            }
            Plan::Settle if follower.keeps_log() => {
                follower.stage = FollowStage::Following;
                (follower.done, follower.shown) = (to, to);
                self.descriptor.bricks[slot.index()].fresh = false;
                self.want_membership = true;
                let point = self.point(to);
                self.report(Notice::Following { brick: id, node, point });
                self.wake_short();
            }
            Plan::Settle | Plan::Mark | Plan::Seal => {}
        }
        match plan {
            Plan::Mark if !self.is_asynchronous() => self.receive(slot),
            Plan::Replay => self.inherited(),
            _ => {}
        }
    }

    /// Records that a brick is at no point, before it gets copies in synchronous mode.
    pub(super) fn mark(&mut self, slot: Slot) {
        self.begin_work(slot, Plan::Mark, Step::Record, 0, Vec::new());
    }

    /// A follower cannot go on from its point. What it lacks is copied once it is recorded that it is at none.
    pub(super) fn fall_out(&mut self, slot: Slot) {
        let mut lacks = self.log.ranges_after(self.bricks[slot.index()].follower.done);
        let brick = self.brick(slot);
        let was_following = brick.follower.is_following();
        brick.follower.stage = FollowStage::Lacking;
        brick.dirty.absorb(&mut lacks);
        if let Some(work) = &brick.follower.work {
            for piece in &work.pieces {
                brick.dirty.insert(piece.offset, piece.offset + piece.len);
            }
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
        follower.work = None;
        if follower.keeps_log() && !follower.is_following() {
            self.fall_out(slot);
        }
    }

    /// What the log has for a brick that follows.
    pub(super) fn logged_for(&self, slot: Slot) -> ExtentSet {
        let follower = &self.bricks[slot.index()].follower;
        if follower.keeps_log() {
            self.log.ranges_after(follower.done)
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
            let keepers = self.bricks.iter().filter(|b| b.role == Role::Stale || b.join);
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
            // Who fell out might be promoted by another host until it is recorded that it did.
            let mut waits = !self.recorded.following.without(self.with_a_point()).is_empty();
            let mut out = None;
            for slot in self.slots() {
                let brick = &self.bricks[slot.index()];
                let follower = &brick.follower;
                if brick.role != Role::Stale || !follower.keeps_log() {
                    continue;
                }
                let is_late = follower.is_following() && !self.is_fresh(follower.shown);
                let holds = is_over && self.log.after(follower.needs_after()).next().is_some();
                if !is_late && !holds {
                    continue;
                }
                if follower.is_following() && brick.link == Link::Open {
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
            entry.done_at != Time(0) && entry.done_at.after(bound) >= self.now
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

    fn batch_bytes(&self) -> u32 {
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
        if self.descriptor.mode == Mode::Synchronous {
            self.log.pass();
        } else {
            let most = match what {
                What::Data(_) => u64::from(self.batch_bytes()),
                What::Zero(_) => step,
            };
            let mut done = 0;
            while done < step {
                let len = most.min(step - done);
                if self.log.push(at + done, len, what)
                    && let What::Data(request) = what
                {
                    self.actions.push_back(Action::Keep { request });
                }
                done += len;
            }
        }
        let last = self.log.issued();
        if let Some(op) = self.ops.get_mut(key) {
            op.first_entry = if op.first_entry == 0 { first } else { op.first_entry };
            (op.step_entry, op.last_entry) = (first, last);
        }
    }

    /// Whether all followers that are to be left as they are have everything, and nothing to replay.
    pub(super) fn followers_are_ready(&mut self) -> bool {
        if !self.is_asynchronous() {
            return true;
        }
        let mut ready = true;
        for slot in self.slots() {
            let brick = &self.bricks[slot.index()];
            let follower = &brick.follower;
            if brick.role != Role::Stale {
                continue;
            }
            ready &= follower.work.is_none();
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

    pub(super) fn lags_since(&self, sequence: u64) -> Option<Time> {
        let oldest = self.log.after(sequence).find(|entry| entry.state != EntryState::Open);
        oldest.map(|entry| entry.done_at)
    }
}
