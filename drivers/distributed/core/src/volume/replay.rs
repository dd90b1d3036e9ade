// SPDX-License-Identifier: Apache-2.0
//! Replays the snapshots of a brick onto a fresh one, a keeper, oldest first.
//!
//! ```text
//!   unlisted -- recorded as condemned --> creating --> opening --> next <----------------------+
//!                                                                   | of its size     recorded |
//!                                                 fitting <---------+ of another size          |
//!                                                    +--> copying --> sealing: its own snapshot +
//!   done <-- recorded as a holder, and as a keeper <-- sealed, when none is left
//! ```
//! Until the last record the keeper counts as condemned, so that a crash leaves nothing but a brick to be deleted; and
//! what goes wrong on the way has it deleted, and begins anew with another one. No snapshot is ever in two halves.

use std::collections::VecDeque;

use super::{
    Volume,
    state::{Io, IoKind},
};
use crate::{Action, BrickId, NodeId, Outcome, Session, ShardMap, Slot};

/// A replay that is under way.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) old: BrickId,
    pub(super) new: BrickId,
    node: NodeId,
    stage: ReplayStage,
    /// What is not sealed, oldest first.
    left: VecDeque<u32>,
    sealed: Vec<u32>,
    /// Of the first that is left: its shard map, and the slot whose place is taken.
    map: Option<ShardMap>,
    slot: Slot,
    /// The new brick's size in bytes.
    size: u64,
    /// What lies before was copied, or is being copied.
    at: u64,
    outstanding: u32,
    incarnation: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReplayStage {
    Unlisted,
    /// The record under way names the new brick as condemned.
    Listing,
    Creating,
    Opening,
    Next,
    Fitting,
    Copying,
    Sealing,
    Sealed,
    /// The record under way names it as a holder.
    Recording,
}

impl Volume {
    pub(super) fn begin_replay(&mut self, old: BrickId, node: NodeId, numbers: Vec<u32>) {
        let new = BrickId(self.descriptor.next_brick);
        self.descriptor.next_brick += 1;
        self.descriptor.condemned.push((new, node));
        self.want_membership = true;
        self.keepers.replay = Some(Replay {
            old,
            new,
            node,
            stage: ReplayStage::Unlisted,
            left: numbers.into(),
            sealed: Vec::new(),
            map: None,
            slot: Slot(0),
            size: self.descriptor.size,
            at: 0,
            outstanding: 0,
            incarnation: None,
        });
    }

    /// Whether a replay reads a brick, or fills it.
    pub(super) fn is_replayed(&self, brick: BrickId) -> bool {
        self.keepers.replay.as_ref().is_some_and(|r| r.old == brick || r.new == brick)
    }

    fn replay_at(&mut self, brick: BrickId, stage: ReplayStage) -> Option<&mut Replay> {
        self.keepers.replay.as_mut().filter(|r| r.new == brick && r.stage == stage)
    }

    /// Writes into the descriptor what the next record says. One before may have come to nothing.
    pub(super) fn record_replay(&mut self) {
        let Some(replay) = &mut self.keepers.replay else { return };
        match replay.stage {
            ReplayStage::Unlisted => replay.stage = ReplayStage::Listing,
            ReplayStage::Sealed | ReplayStage::Recording => {
                replay.stage = ReplayStage::Recording;
                let (old, new, node) = (replay.old, replay.new, replay.node);
                let is_keeper = self.descriptor.keepers.iter().any(|(brick, _)| *brick == old);
                for entry in &mut self.descriptor.snapshots {
                    let is_sealed = replay.sealed.contains(&entry.number);
                    let place = entry.holders.iter().find(|(_, brick)| *brick == old).copied();
                    let is_listed = entry.holders.iter().any(|(_, brick)| *brick == new);
                    let Some((slot, _)) = place.filter(|_| is_sealed && !is_listed) else {
                        continue;
                    };
                    // A keeper has nothing else; a brick in a slot is a holder until it has left.
                    entry.holders.retain(|(_, brick)| *brick != old || !is_keeper);
                    entry.holders.push((slot, new));
                }
                self.descriptor.condemned.retain(|(brick, _)| *brick != new);
                if !self.descriptor.keepers.contains(&(new, node)) {
                    self.descriptor.keepers.push((new, node));
                }
            }
            _ => {}
        }
        self.forget_heirless();
    }

    /// Bricks that are gone are holders no more where another has their place.
    fn forget_heirless(&mut self) {
        let descriptor = &mut self.descriptor;
        let (bricks, keepers) = (&descriptor.bricks, &descriptor.keepers);
        let lives = |brick: BrickId| {
            bricks.iter().any(|entry| entry.brick == brick && !entry.vacant)
                || keepers.iter().any(|(keeper, _)| *keeper == brick)
        };
        for entry in descriptor.snapshots.iter_mut().filter(|entry| entry.is_taken) {
            let all = entry.holders.clone();
            let has_heir =
                |slot: Slot| all.iter().any(|(other, brick)| *other == slot && lives(*brick));
            entry.holders.retain(|(slot, brick)| lives(*brick) || !has_heir(*slot));
        }
    }

    /// The record is everywhere.
    pub(super) fn replay_recorded(&mut self) {
        self.keepers.look = true;
        let Some(replay) = &mut self.keepers.replay else { return };
        match replay.stage {
            ReplayStage::Listing => {
                replay.stage = ReplayStage::Creating;
                let (brick, node, size) = (replay.new, replay.node, replay.size);
                let io = self.io_beside(IoKind::Create, brick, None, 0);
                self.actions.push_back(Action::Create { io, brick, node, size });
            }
            ReplayStage::Recording => {
                let (old, new) = (replay.old, replay.new);
                self.keepers.replay = None;
                self.note_replayed(old, new);
            }
            _ => {}
        }
    }

    /// A brick that is in no slot was created, or not.
    pub(super) fn replay_created(&mut self, io: &Io, outcome: &Outcome) {
        let epoch = self.descriptor.epoch;
        let Some(replay) = self.replay_at(io.brick, ReplayStage::Creating) else { return };
        if *outcome != Outcome::Ok {
            return self.fail_replay();
        }
        replay.stage = ReplayStage::Opening;
        let (brick, node, size) = (replay.new, replay.node, replay.size);
        let session = Session { epoch, opening: 1 };
        let io = self.io_beside(IoKind::Open, brick, None, 0);
        self.actions.push_back(Action::Open { io, brick, node, session, size });
    }

    /// The same for its session; false if it is another brick's.
    pub(super) fn replay_opened(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) -> bool {
        let Some(replay) = self.replay_at(io.brick, ReplayStage::Opening) else { return false };
        if !matches!(outcome, Outcome::Opened { .. }) {
            self.fail_replay();
            return true;
        }
        replay.incarnation = Some(incarnation);
        replay.stage = ReplayStage::Next;
        true
    }

    /// The new brick is deleted, and another one is made after a while.
    pub(super) fn fail_replay(&mut self) {
        if let Some(replay) = self.keepers.replay.take() {
            self.note_failed_replay(replay.old);
            self.delete_condemned();
        }
    }

    pub(super) fn go_on_replaying(&mut self) {
        let Some(replay) = &self.keepers.replay else { return };
        match replay.stage {
            ReplayStage::Next => self.next_snapshot(),
            ReplayStage::Copying => self.copy_snapshot(),
            _ => {}
        }
    }

    fn next_snapshot(&mut self) {
        let Some(replay) = &mut self.keepers.replay else { return };
        let snapshots = &self.descriptor.snapshots;
        let taken = |number: u32| snapshots.iter().find(|s| s.number == number && s.is_taken);
        while replay.left.front().is_some_and(|number| taken(*number).is_none()) {
            replay.left.pop_front();
        }
        let Some(snapshot) = replay.left.front().and_then(|number| taken(*number)) else {
            // One that was deleted meanwhile would be left on the new brick.
            let whole = replay.sealed.iter().all(|number| taken(*number).is_some());
            if replay.sealed.is_empty() || !whole {
                return self.fail_replay();
            }
            replay.stage = ReplayStage::Sealed;
            self.want_membership = true;
            return;
        };
        let place = snapshot.holders.iter().find(|(_, brick)| *brick == replay.old);
        let (size, version, place) = (snapshot.size, snapshot.map, place.copied());
        let map = self.stored_map(version).and_then(|stored| {
            let number = self.keepers.replay.as_ref()?.left.front()?;
            self.descriptor.snapshots.iter().find(|s| s.number == *number)?.map_from(&stored)
        });
        let (Some(map), Some((slot, _))) = (map, place) else { return self.fail_replay() };
        let Some(replay) = &mut self.keepers.replay else { return };
        (replay.map, replay.slot, replay.at) = (Some(map), slot, 0);
        if replay.size == size {
            replay.stage = ReplayStage::Copying;
            return self.copy_snapshot();
        }
        replay.stage = ReplayStage::Fitting;
        replay.size = size;
        let (brick, incarnation) = (replay.new, replay.incarnation);
        let io = self.io_beside(IoKind::Replay, brick, incarnation, 0);
        self.actions.push_back(Action::ResizeBrick { io, brick, size });
    }

    /// Copies pieces of the snapshot's shards, then takes the brick's own snapshot.
    fn copy_snapshot(&mut self) {
        let most = u64::from(self.settings.copy_bytes.max(4096));
        while self.may_copy() {
            let Some(replay) = &mut self.keepers.replay else { return };
            let (Some(map), Some(number)) = (&replay.map, replay.left.front().copied()) else {
                return;
            };
            let shard_size = map.shard_size();
            let mut shard = replay.at / shard_size;
            while replay.at < replay.size && !map.set(shard).has(replay.slot) {
                shard += 1;
                replay.at = shard.saturating_mul(shard_size);
            }
            if replay.at >= replay.size {
                if replay.outstanding == 0 {
                    self.seal_snapshot(number);
                }
                return;
            }
            let end = (shard + 1).saturating_mul(shard_size).min(replay.size);
            let (offset, len) = (replay.at, most.min(end - replay.at));
            let (set, old, to, incarnation) =
                (map.set(shard), replay.old, replay.new, replay.incarnation);
            let set = if self.protections.snapshot_map { set } else { self.map.set(shard) };
            let sources = self.sources(number, set, old);
            let turn = self.tries_for(old) as usize % sources.len().max(1);
            let Some((from, from_node)) = sources.get(turn).copied() else {
                return self.fail_replay();
            };
            let Some(replay) = &mut self.keepers.replay else { return };
            replay.at += len;
            replay.outstanding += 1;
            self.copy_begins(len);
            let io = self.io_beside(IoKind::Replay, to, incarnation, len);
            let len = len as u32;
            self.actions.push_back(Action::CopySnapshot {
                io,
                from,
                from_node,
                number,
                to,
                offset,
                len,
            });
        }
    }

    fn seal_snapshot(&mut self, number: u32) {
        let Some(replay) = &mut self.keepers.replay else { return };
        replay.stage = ReplayStage::Sealing;
        let (brick, incarnation) = (replay.new, replay.incarnation);
        let io = self.io_beside(IoKind::Replay, brick, incarnation, 0);
        self.actions.push_back(Action::Snapshot { io, brick, number });
    }

    /// A step of a replay was done, or not.
    pub(super) fn replay_done(&mut self, io: &Io, incarnation: u64, outcome: &Outcome) {
        if io.len > 0 {
            self.copies = self.copies.saturating_sub(1);
            self.try_sweeps = true;
        }
        let check = self.protections.incarnation_check;
        let is_believed = !check || io.incarnation == Some(incarnation);
        let Some(replay) = self.keepers.replay.as_mut().filter(|r| r.new == io.brick) else {
            return;
        };
        if *outcome != Outcome::Ok || !is_believed {
            return self.fail_replay();
        }
        match replay.stage {
            ReplayStage::Fitting => replay.stage = ReplayStage::Copying,
            ReplayStage::Copying => replay.outstanding = replay.outstanding.saturating_sub(1),
            ReplayStage::Sealing => {
                replay.sealed.extend(replay.left.pop_front());
                replay.stage = ReplayStage::Next;
            }
            _ => {}
        }
    }
}
