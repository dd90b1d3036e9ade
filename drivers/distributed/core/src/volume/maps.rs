// SPDX-License-Identifier: Apache-2.0
//! Stores the shard map anew, so that records need not say what changed since; has every companion keep it.
//!
//! A map is written beside the one that counts, into the state and into the companions of all bricks that count. Then
//! one record names it. Its name has the epoch: a host that lost the volume never writes over another's map.

use std::sync::Arc;

use super::{
    Volume,
    state::{BarrierStage, Io, IoKind, Kept, Link, MapWrite, MoveStage, Phase, Role},
};
use crate::{Action, Generation, MAP_OFFSET, Outcome, RECORD_ALIGNMENT, Slot};

/// Changes that records carry before the map is stored anew.
const MOST_MOVED: usize = 64;

impl Volume {
    pub(super) fn pump_maps(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        self.want_map |= self.settled_moved.len() > MOST_MOVED;
        let recording = |m: &super::Move| m.stage == MoveStage::Recording;
        let quiet = self.commit.is_none() && !self.moves.iter().any(recording);
        if self.want_map && quiet && self.map_write.is_none() {
            self.begin_map();
        }
        for slot in self.slots() {
            self.keep_map(slot);
        }
        if self.commit.is_none() && self.map_is_kept() {
            self.want_membership = true;
        }
    }

    fn begin_map(&mut self) {
        self.want_map = false;
        let mut map = self.map.clone();
        let shards = self.shards().max(self.map_room);
        map.extend(shards);
        self.map_writes += 1;
        let version = Generation { epoch: self.descriptor.epoch, change: self.map_writes };
        let bytes: Arc<[u8]> = map.encode().into();
        let (is_stored, retry_at) = (false, None);
        self.map_write = Some(MapWrite { version, bytes, shards, is_stored, retry_at });
        self.store_map();
    }

    fn store_map(&mut self) {
        let Some(write) = &mut self.map_write else { return };
        write.retry_at = None;
        let (version, bytes) = (write.version, Arc::clone(&write.bytes));
        let io = self.io(IoKind::MapState, Slot(0), 0, 0, 0);
        self.actions.push_back(Action::StoreMap { io, version, bytes });
    }

    pub(super) fn map_stored(&mut self, outcome: &Outcome) {
        let retry_at = self.retry_time();
        let Some(write) = &mut self.map_write else { return };
        if *outcome == Outcome::Ok {
            write.is_stored = true;
        } else if !write.is_stored {
            write.retry_at = Some(retry_at);
        }
    }

    pub(super) fn retry_map(&mut self) {
        let due = self.map_write.as_ref().and_then(|write| write.retry_at);
        if due.is_some_and(|at| at <= self.now || at > self.retry_time()) {
            self.store_map();
        }
    }

    /// The map that a brick is to have next, if it has not.
    fn map_for(&self, slot: Slot) -> Option<(Generation, &Arc<[u8]>)> {
        let brick = &self.bricks[slot.index()];
        let has = |version: Generation| {
            [brick.kept, brick.kept_next].iter().flatten().any(|kept| kept.version == version)
        };
        if !has(self.base.0) {
            return Some((self.base.0, &self.base.1));
        }
        let write = self.map_write.as_ref()?;
        (!has(write.version)).then_some((write.version, &write.bytes))
    }

    fn keep_map(&mut self, slot: Slot) {
        let brick = &self.bricks[slot.index()];
        let gets = brick.counts() || (brick.role == Role::Stale && brick.receiving);
        if !gets || brick.link != Link::Open || brick.keeping.is_some() {
            return;
        }
        let Some((version, bytes)) = self.map_for(slot) else { return };
        let bytes = Arc::clone(bytes);
        let room = (bytes.len() as u64).next_multiple_of(RECORD_ALIGNMENT as u64);
        // Beside the one that it may have to keep until the next record.
        let at = match brick.kept {
            Some(kept) if kept.at < MAP_OFFSET + room => {
                (kept.at + u64::from(kept.bytes)).next_multiple_of(RECORD_ALIGNMENT as u64)
            }
            _ => MAP_OFFSET,
        };
        let brick = self.brick(slot);
        brick.keeping = Some(Kept { version, at, bytes: bytes.len() as u32 });
        let brick = brick.id;
        let io = self.io(IoKind::Map, slot, 0, at, room);
        let mut padded = bytes.to_vec();
        padded.resize(room as usize, 0);
        self.actions.push_back(Action::WriteCompanion {
            io,
            brick,
            offset: at,
            bytes: padded.into(),
        });
    }

    pub(super) fn map_kept(&mut self, io: &Io) {
        let base = self.base.0;
        let brick = self.brick(io.slot);
        let Some(kept) = brick.keeping.take() else { return };
        if kept.version == base {
            brick.kept = Some(kept);
            // Until a record says where, nobody finds it.
            self.want_intent = true;
        } else {
            brick.kept_next = Some(kept);
        }
    }

    /// Whether a brick has the map that counts.
    pub(super) fn has_map(&self, slot: Slot) -> bool {
        self.bricks[slot.index()].kept.is_some_and(|kept| kept.version == self.base.0)
    }

    /// Whether the new map is everywhere, and only a record is missing that names it.
    pub(super) fn map_is_kept(&self) -> bool {
        let Some(write) = &self.map_write else { return false };
        let has = |slot: Slot| {
            let kept = self.bricks[slot.index()].kept_next;
            kept.is_some_and(|kept| kept.version == write.version)
        };
        write.is_stored && self.counting().iter().all(has)
    }

    /// Writes into the descriptor which map counts; after [`Volume::record_moves`].
    pub(super) fn record_map(&mut self) {
        self.descriptor.map = self.base.0;
        if self.map_is_kept()
            && let Some(write) = &self.map_write
        {
            self.descriptor.map = write.version;
            self.descriptor.moved.clear();
        }
    }

    pub(super) fn map_recorded(&mut self) {
        if self.descriptor.map == self.base.0 {
            return;
        }
        let Some(write) = self.map_write.take() else { return };
        self.base = (write.version, write.bytes);
        self.map.extend(write.shards);
        for brick in &mut self.bricks {
            brick.kept = brick.kept_next.take().or(brick.kept);
        }
        self.actions
            .push_back(Action::ForgetMaps { before: write.version, but: self.frozen_maps() });
        self.try_moves = true;
        if self.barrier.as_ref().is_some_and(|barrier| barrier.stage == BarrierStage::Mapping) {
            self.grow_bricks();
        }
    }
}
