// SPDX-License-Identifier: Apache-2.0
//! What is done with a follower, step by step: batches of the log, and the records that say where it is.

use super::{
    Volume,
    followers::FollowStage,
    log::{EntryState, What},
    state::{Io, IoKind, Phase},
};
use crate::{Action, Follow, JournalPart, JournalPiece, Notice, Record, Slot, extents::ExtentSet};

/// Mutations of one batch.
const MOST_IN_BATCH: usize = 512;

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
    /// How far the follower may be already.
    pub(super) fn reach(&self) -> u64 {
        if self.plan == Plan::Batch { self.to } else { 0 }
    }

    /// The ranges of the brick that it changes.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pieces.iter().map(|piece| (piece.offset, piece.offset + piece.len))
    }

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

impl Volume {
    pub(super) fn replay_journal(&mut self, slot: Slot) {
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

    /// Gives a follower the next of the log.
    pub(super) fn next_batch(&mut self, slot: Slot) {
        let in_order = self.protections.log_order;
        let most = u64::from(self.batch_bytes());
        let last = self.last_to_follow();
        let follower = &self.bricks[slot.index()].follower;
        let (done, is_following) = (follower.done, follower.is_following());
        let mut entries = Vec::new();
        let (mut bytes, mut is_broken) = (0, false);
        for entry in self.log.after(done).take_while(|entry| entry.sequence <= last) {
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
    pub(super) fn go_on(&mut self, slot: Slot) {
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
        // What the newest record says may be replayed yet; one that was to follow it may have come to nothing.
        let is_in_first = (base..base + half).contains(&follower.on_disk.journal_at);
        let offset = base + if is_in_first { half } else { 0 };
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
            // Only the record of the one that acknowledges says which digests count.
            digests: None,
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
                self.want_membership = true;
                let point = self.point(to);
                self.report(Notice::Following { brick: id, node, point });
                self.wake_short();
            }
            Plan::Settle | Plan::Mark | Plan::Seal => {}
        }
        match plan {
            Plan::Mark if self.phase == Phase::Leveling => self.begin_leveling(),
            Plan::Mark if !self.is_asynchronous() => self.receive(slot),
            Plan::Replay => self.inherited(),
            _ => {}
        }
    }

    /// Flushes a brick that has all up to a number, and records it: from then on it follows. A fresh brick is first
    /// recorded as one whose companion counts: nobody reads the companion of a fresh one.
    pub(super) fn settle_follower(&mut self, slot: Slot, to: u64) {
        let id = self.bricks[slot.index()].id;
        let is_fresh = |entry: &crate::BrickEntry| entry.brick != id || entry.fresh;
        if self.recorded.bricks.get(slot.index()).is_none_or(is_fresh) {
            if let Some(entry) = self.descriptor.bricks.get_mut(slot.index()) {
                self.want_membership |= std::mem::take(&mut entry.fresh);
            }
            return;
        }
        self.begin_work(slot, Plan::Settle, Step::Flush, to, Vec::new());
    }

    /// Records that a brick is at no point, before it gets copies in synchronous mode.
    pub(super) fn mark(&mut self, slot: Slot) {
        self.begin_work(slot, Plan::Mark, Step::Record, 0, Vec::new());
    }
}
