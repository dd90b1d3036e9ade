// SPDX-License-Identifier: Apache-2.0
//! Takes answers: whether they are believed, and to whom they matter.

use super::{
    Volume,
    state::{Io, IoKind, Kind, Link, Phase, Role},
};
use crate::{Cause, IoId, Outcome, Slot};

impl Volume {
    pub(super) fn done(&mut self, id: IoId, incarnation: u64, outcome: Outcome) {
        let Some(io) = self.ios.get(id.0).copied() else { return };
        if self.is_over() {
            return;
        }
        if io.abandoned {
            if outcome != Outcome::Unknown {
                self.ios.remove(id.0);
                self.ended_late(&io);
            }
            return;
        }
        if outcome == Outcome::Unknown {
            if let Some(io) = self.ios.get_mut(id.0) {
                io.abandoned = true;
            }
            if io.mutates() {
                self.brick(io.slot).unknown += 1;
            }
        } else {
            self.ios.remove(id.0);
        }
        match io.kind {
            IoKind::State => return self.stored(outcome),
            IoKind::MapState => return self.map_stored(&outcome),
            IoKind::DigestState => return self.digests_stored(&outcome),
            _ => {}
        }
        if outcome == Outcome::Fenced {
            return self.stop(Phase::Fenced);
        }
        match io.kind {
            IoKind::State | IoKind::MapState | IoKind::DigestState => {}
            IoKind::Delete => self.deleted(io.brick, &outcome),
            IoKind::Create => self.created(&io, &outcome),
            IoKind::Replay => self.replay_done(&io, incarnation, &outcome),
            IoKind::Snapshot { .. } if !self.is_believed(&io, incarnation, &outcome) => {
                self.snapshot_not_believed(&io);
            }
            IoKind::Snapshot { number } => self.snapshot_done(&io, number, &outcome),
            IoKind::DropSnapshot { number } => self.snapshot_dropped(&io, number, &outcome),
            IoKind::Open => self.opened(&io, incarnation, &outcome),
            IoKind::Check => self.checked(&io, incarnation, outcome),
            IoKind::Compare => self.compare_done(&io, &outcome),
            IoKind::Digest => self.digest_done(&io, incarnation, &outcome),
            IoKind::Read
            | IoKind::Mutate
            | IoKind::Copy { .. }
            | IoKind::Flush
            | IoKind::Companion
            | IoKind::Follow
            | IoKind::FollowFlush
            | IoKind::Map
            | IoKind::Resize => self.brick_done(&io, incarnation, &outcome),
        }
    }

    /// An operation that was given up has ended: it can no longer land.
    fn ended_late(&mut self, io: &Io) {
        match io.kind {
            IoKind::Create => return self.created_late(io.brick),
            IoKind::Snapshot { number } => return self.snapshot_ended_late(io.brick, number),
            _ => {}
        }
        let brick = self.brick(io.slot);
        if io.mutates() && brick.id == io.brick && io.opening >= brick.fenced_before {
            brick.unknown = brick.unknown.saturating_sub(1);
        }
    }

    /// Whether an answer came from the storage that the session began with.
    pub(super) fn is_believed(&self, io: &Io, incarnation: u64, outcome: &Outcome) -> bool {
        let answered = matches!(outcome, Outcome::Ok | Outcome::NoSpace | Outcome::Digest(_));
        !self.protections.incarnation_check || !answered || io.incarnation == Some(incarnation)
    }

    /// Answers of in-sync and receiving bricks.
    fn brick_done(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) {
        if io.kind == IoKind::Read {
            let brick = self.brick(io.slot);
            brick.reads = brick.reads.saturating_sub(1);
        }
        if let IoKind::Copy { from } = io.kind
            && *outcome == Outcome::SourceFailed
        {
            self.give_up(from, Cause::Failed);
            return self.source_failed(io);
        }
        // A follower that cannot read is resynced as a whole: nothing is written to it beside the log.
        let is_in_sync = self.bricks[io.slot.index()].role == Role::InSync;
        if io.kind == IoKind::Read && *outcome == Outcome::Damaged && is_in_sync {
            return self.read_damaged(io);
        }
        let cause = match outcome {
            _ if !self.is_believed(io, incarnation, outcome) => Some(Cause::Restarted),
            Outcome::Ok | Outcome::Digest(_) => None,
            Outcome::NoSpace if self.is_beside(io) => return self.spare_is_full(io),
            Outcome::NoSpace if io.kind == IoKind::Mutate && self.full_counts(io.slot) => {
                return self.full(io);
            }
            Outcome::NoSpace if io.kind == IoKind::Resize => {
                return self.resize_answered(io, true);
            }
            Outcome::NoSpace => Some(Cause::NoSpace),
            Outcome::NotFound => Some(Cause::NotFound),
            Outcome::Unknown => Some(Cause::Unknown),
            _ => Some(Cause::Failed),
        };
        match cause {
            None => {
                if let Outcome::Digest(digest) = outcome {
                    self.read_told(io, *digest);
                }
                self.succeeded(io);
            }
            Some(cause) => {
                if io.kind == IoKind::Read && cause == Cause::Failed {
                    // What could not be read is written again when the brick is resynced.
                    self.brick(io.slot).dirty.insert(io.offset, io.offset + io.len);
                }
                self.failed(io);
                self.give_up(io.slot, cause);
                self.answered_or_not(io);
            }
        }
    }

    /// A disk does not give a range back. That is no reason to give the brick up: the range is written anew.
    fn read_damaged(&mut self, io: &Io) {
        if self.range_damaged(io) {
            return self.answered(io.op);
        }
        let node = self.node_name(self.bricks[io.slot.index()].node);
        let text = format!(
            "volume {:?}, bytes {}..{}: node {node} has the only replica that is in sync, and cannot read it",
            self.descriptor.volume,
            io.offset,
            io.offset + io.len
        );
        self.finish(io.op, Err(crate::Failure::Damaged(text.into())));
    }

    /// Whether an operation concerns only shards that its brick is no replica of.
    fn is_beside(&self, io: &Io) -> bool {
        let data = matches!(io.kind, IoKind::Mutate | IoKind::Copy { .. });
        data && self.map.pieces(io.offset, io.len).all(|(_, _, set)| !set.has(io.slot))
    }

    /// A brick that is to gain a shard, or to lose one, has no room.
    fn spare_is_full(&mut self, io: &Io) {
        let Some(op) = self.ops.get_mut(io.op) else { return };
        match op.kind {
            Kind::Sweep { .. } => op.full.insert(io.slot),
            Kind::Fill { .. } => {
                op.retry = true;
                self.gain_is_full(io.slot, io.offset);
            }
            _ => self.gain_is_full(io.slot, io.offset),
        }
        self.answered(io.op);
    }

    /// Whether a full brick makes its client's write fail, rather than fall out itself.
    fn full_counts(&self, slot: Slot) -> bool {
        self.bricks[slot.index()].counts()
    }

    fn full(&mut self, io: &Io) {
        if self.protections.volatile_joining {
            self.note_volatile(io);
        }
        if let Some(op) = self.ops.get_mut(io.op) {
            op.full.insert(io.slot);
        }
        self.answered(io.op);
    }

    /// A brick got something that it may lose until it is flushed; those in sync share the intent log's memory, which
    /// does not know of repairs and of shards that it gains.
    fn note_volatile(&mut self, io: &Io) {
        let unlogged =
            |kind| matches!(kind, Kind::Repair { .. } | Kind::Mend { .. } | Kind::Fill { .. });
        let unlogged = self.ops.get(io.op).is_some_and(|op| unlogged(op.kind));
        let brick = self.brick(io.slot);
        if brick.role != Role::InSync || unlogged {
            brick.volatile.insert(io.offset, io.offset + io.len);
        }
    }

    fn succeeded(&mut self, io: &Io) {
        match io.kind {
            IoKind::Flush => self.flushed(io.slot),
            IoKind::Companion => self.companion_written(io.slot),
            IoKind::Map => self.map_kept(io),
            IoKind::Follow | IoKind::FollowFlush => self.follow_done(io),
            IoKind::Resize => self.resize_answered(io, false),
            IoKind::Mutate => {
                self.note_volatile(io);
                self.answered(io.op);
            }
            IoKind::Copy { .. } => {
                let end = io.offset + io.len;
                let brick = &mut self.bricks[io.slot.index()];
                match self.ops.get(io.op).map(|op| op.kind) {
                    Some(Kind::Resync { .. }) => {
                        brick.dirty.remove(io.offset, end);
                        brick.copied += io.len;
                    }
                    Some(Kind::Fill { slot, shard }) => {
                        brick.copied += io.len;
                        self.filled(slot, shard, io.offset, end);
                    }
                    _ => {}
                }
                self.note_volatile(io);
                self.answered(io.op);
            }
            _ => self.answered(io.op),
        }
    }

    /// Notes what a brick missed, before it is given up.
    pub(super) fn failed(&mut self, io: &Io) {
        match io.kind {
            IoKind::Mutate | IoKind::Copy { .. } => {
                self.brick(io.slot).dirty.insert(io.offset, io.offset + io.len);
                self.miss(io.op, io.slot);
            }
            IoKind::Read => {
                if let Some(op) = self.ops.get_mut(io.op) {
                    op.retry = true;
                }
            }
            IoKind::Digest => self.digest_failed(io.op),
            IoKind::Flush => self.flush_missed(io.slot),
            IoKind::Companion => self.companion_missed(io.slot),
            IoKind::DropSnapshot { .. } => self.snapshots_abandoned(io.brick),
            _ => {}
        }
    }

    /// Lets the operation of a failed answer go on.
    pub(super) fn answered_or_not(&mut self, io: &Io) {
        match io.kind {
            IoKind::Flush => self.flush_answered(),
            IoKind::Companion => self.companions_answered(),
            IoKind::Resize => self.resize_answered(io, false),
            IoKind::Snapshot { .. } => self.snapshot_fails("a replica left meanwhile".into()),
            IoKind::DropSnapshot { .. } => {}
            _ => self.answered(io.op),
        }
    }

    fn source_failed(&mut self, io: &Io) {
        let Some(op) = self.ops.get_mut(io.op) else { return };
        op.retry = true;
        self.answered(io.op);
    }

    fn compare_done(&mut self, io: &Io, outcome: &Outcome) {
        let in_sync = self.with_role(Role::InSync);
        if let Some(op) = self.ops.get_mut(io.op) {
            match outcome {
                Outcome::Ok => {}
                // What a replica holds that was given up meanwhile accuses nobody.
                Outcome::Differs(slots)
                    if in_sync.has(io.slot) && slots.without(in_sync).is_empty() =>
                {
                    op.differs = op.differs.or(*slots);
                }
                _ => op.retry = true,
            }
        }
        self.answered(io.op);
    }

    /// Nobody waits any more for what is under way on a brick; what may yet land is counted.
    pub(super) fn abandon(&mut self, slot: Slot) {
        let brick = self.bricks[slot.index()].id;
        let under_way = self.ios.iter().filter(|(_, io)| {
            io.brick == brick
                && io.slot == slot
                && !io.abandoned
                && !matches!(
                    io.kind,
                    IoKind::Delete
                        | IoKind::State
                        | IoKind::MapState
                        | IoKind::DigestState
                        | IoKind::Compare
                )
        });
        let under_way: Vec<(u64, Io)> = under_way.map(|(key, io)| (key, *io)).collect();
        for (key, io) in &under_way {
            if let Some(io) = self.ios.get_mut(*key) {
                io.abandoned = true;
            }
            if io.mutates() {
                self.brick(slot).unknown += 1;
            }
            match io.kind {
                IoKind::Create => *self.creating.entry(io.brick).or_default() += 1,
                IoKind::Snapshot { number } => {
                    *self.unknown_snapshots.entry((io.brick, number)).or_default() += 1;
                }
                _ => {}
            }
            self.failed(io);
        }
        let brick = self.brick(slot);
        brick.reads = 0;
        brick.link = Link::Closed;
        // Only now, when all of them are marked: going on may issue more.
        for (_, io) in &under_way {
            if !matches!(io.kind, IoKind::Open | IoKind::Check | IoKind::Create) {
                self.answered_or_not(io);
            }
        }
    }
}
