// SPDX-License-Identifier: Apache-2.0
//! What a volume tells of itself.

use std::sync::Arc;

use super::{
    Volume,
    state::{Brick, Phase, Role},
};
use crate::{
    Behind, BrickId, Cause, Generation, Mode, NodeId, Point, ShardMap, Slot, Snapshot, Time,
};

/// Where a volume is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VolumeState {
    /// It is being attached; requests wait.
    Attaching,
    /// It serves.
    Serving,
    /// It was detached in order.
    Detached,
    /// It answers everything with this reason; attach again.
    Stopped(Arc<str>),
    /// Another host has it.
    Fenced,
}

/// Where a brick is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BrickState {
    /// It has every acknowledged write.
    InSync,
    /// It is being recorded as stale.
    Failing,
    /// It lacks something and is not being resynced.
    Stale,
    /// It lacks something, which is being copied.
    Resyncing,
    /// It lacks nothing and is being recorded as in sync.
    Joining,
    /// It is at a consistent point, and gets what comes after it in order.
    Following,
}

/// A brick, for an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrickStatus {
    /// Its slot.
    pub slot: Slot,
    /// The brick.
    pub brick: BrickId,
    /// Its node.
    pub node: NodeId,
    /// Where it is.
    pub state: BrickState,
    /// Bytes that it lacks, as far as known.
    pub dirty_bytes: u64,
    /// Bytes copied to it since its resync began.
    pub copied_bytes: u64,
    /// Why and when it was given up last.
    pub cause: Option<(Cause, Time)>,
    /// How far a follower is behind that is at a consistent point.
    pub behind: Option<Behind>,
}

/// A volume, for an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Where it is.
    pub state: VolumeState,
    /// Its membership's generation.
    pub generation: Generation,
    /// Size in bytes.
    pub size: u64,
    /// Its bricks, by slot.
    pub bricks: Vec<BrickStatus>,
    /// Replaced bricks that still exist.
    pub condemned: Vec<(BrickId, NodeId)>,
    /// Bricks that hold only snapshots.
    pub keepers: Vec<(BrickId, NodeId)>,
    /// Its snapshots, oldest first; without those that are being taken or deleted.
    pub snapshots: Vec<Snapshot>,
    /// Shards that are still to be given other replicas.
    pub misplaced: u64,
    /// Shards that bricks still have to be freed of.
    pub litter: u64,
    /// When writes are acknowledged.
    pub mode: Mode,
    /// The last mutation that has ended, with all before it.
    pub point: Point,
    /// The node that acknowledges in asynchronous mode; `None` there: it is gone.
    pub acknowledging: Option<NodeId>,
    /// The acknowledging brick is gone: a follower is to be promoted.
    pub is_headless: bool,
}

impl Volume {
    /// The volume for an operator.
    pub fn status(&self) -> Status {
        let bricks = (0..).zip(&self.bricks).filter(|(_, brick)| brick.role != Role::Vacant);
        let bricks = bricks.map(|(index, brick)| BrickStatus {
            slot: Slot(index),
            brick: brick.id,
            node: brick.node,
            state: state_of(brick),
            dirty_bytes: brick.dirty.bytes(),
            copied_bytes: brick.copied,
            cause: brick.cause,
            behind: self.behind(brick),
        });
        Status {
            state: self.state(),
            generation: self.descriptor.generation,
            size: self.descriptor.size,
            bricks: bricks.collect(),
            condemned: self.descriptor.condemned.clone(),
            keepers: self.descriptor.keepers.clone(),
            snapshots: self.shown_snapshots().cloned().collect(),
            misplaced: (self.moves.len() + self.goal.as_ref().map_or(0, |goal| goal.queue.len()))
                as u64,
            litter: self.litter.len() as u64,
            mode: self.descriptor.mode,
            point: self.point(self.log.head()),
            acknowledging: self.acknowledging(),
            is_headless: self.is_headless(),
        }
    }

    fn acknowledging(&self) -> Option<NodeId> {
        let mut in_sync = self.bricks.iter().filter(|brick| brick.role == Role::InSync);
        in_sync.next().filter(|_| self.is_asynchronous()).map(|brick| brick.node)
    }

    fn behind(&self, brick: &Brick) -> Option<Behind> {
        let follower = &brick.follower;
        if brick.role != Role::Stale || !follower.is_following() {
            return None;
        }
        let (mut writes, mut bytes) = (0, 0);
        for entry in self.log.after(follower.shown) {
            writes += 1;
            bytes += entry.bytes();
        }
        let since = self.lags_since(follower.shown).unwrap_or(self.now);
        let nanoseconds = self.now.0.saturating_sub(since.0);
        let point = self.point(follower.shown);
        Some(Behind { point, writes, bytes, nanoseconds })
    }

    /// Where the volume is.
    pub fn state(&self) -> VolumeState {
        match &self.phase {
            Phase::Serving => VolumeState::Serving,
            Phase::Detached => VolumeState::Detached,
            Phase::Stopped(reason) => VolumeState::Stopped(Arc::clone(reason)),
            Phase::Fenced => VolumeState::Fenced,
            _ => VolumeState::Attaching,
        }
    }

    /// Whether clients are served.
    pub fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Where a brick is; `None` if the volume has no such brick now.
    pub fn brick_state(&self, brick: BrickId) -> Option<BrickState> {
        let here = |other: &&Brick| other.id == brick && other.role != Role::Vacant;
        self.bricks.iter().find(here).map(state_of)
    }

    /// Whether every brick is in sync, every shard where it is wanted, and nothing is left to be deleted. A brick or
    /// snapshot whose creation has an unknown outcome is deleted by the next attachment, lest the creation comes after the
    /// deletion.
    pub fn is_whole(&self) -> bool {
        self.phase == Phase::Serving
            && !self.is_headless()
            && self.bricks.iter().all(|brick| self.is_well(brick))
            && self.goal.is_none()
            && self.resharding.is_none()
            && self.moves.is_empty()
            && self.litter.is_empty()
            && self
                .descriptor
                .condemned
                .iter()
                .all(|(brick, _)| self.creating.contains_key(brick) || self.is_needed(*brick))
            && self.snapping.is_none()
            && self.descriptor.snapshots.iter().all(|snapshot| {
                snapshot.is_taken
                    || snapshot.holders.iter().all(|held| self.may_come(held.1, snapshot.number))
            })
            && self.keepers.replay.is_none()
            && !self.has_lost_holders()
            && self.commit.is_none()
    }

    /// Whether a brick has everything, and is to stay as it is.
    fn is_well(&self, brick: &Brick) -> bool {
        let follower = &brick.follower;
        let follows = || {
            brick.role == Role::Stale
                && brick.link == super::Link::Open
                && follower.is_following()
                && follower.work.is_none()
                && self.log.after(follower.shown).next().is_none()
        };
        matches!(brick.role, Role::InSync | Role::Vacant) || (self.is_asynchronous() && follows())
    }

    /// A brick that is on its way into or out of the in-sync set.
    pub fn brick_in_transition(&self) -> Option<(NodeId, BrickState)> {
        let passing = |brick: &&Brick| matches!(brick.role, Role::Failing | Role::Joining);
        self.bricks.iter().find(passing).map(|brick| (brick.node, state_of(brick)))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.descriptor.size
    }

    /// The name of a snapshot, also of one that is being taken.
    pub fn snapshot_name(&self, number: u32) -> Option<&str> {
        let snapshots = &self.descriptor.snapshots;
        snapshots.iter().find(|s| s.number == number).map(|s| s.name.as_str())
    }

    /// The shard map.
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// The node of a brick that lacks nothing any more and will be listed as in sync by the next commit.
    pub fn brick_about_to_join(&self) -> Option<NodeId> {
        self.bricks.iter().find(|brick| brick.join).map(|brick| brick.node)
    }
}

fn state_of(brick: &Brick) -> BrickState {
    match brick.role {
        Role::InSync => BrickState::InSync,
        Role::Joining => BrickState::Joining,
        Role::Failing => BrickState::Failing,
        Role::Stale if brick.follower.is_following() => BrickState::Following,
        Role::Stale if brick.receiving || brick.follower.is_resynced() => BrickState::Resyncing,
        Role::Stale | Role::Vacant => BrickState::Stale,
    }
}
