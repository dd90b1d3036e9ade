// SPDX-License-Identifier: Apache-2.0
//! Stores the shard map anew, so that records need not say what changed since; has every companion keep it.
//!
//! A map is written beside the one that counts, into the state and into the companions of all bricks that count. Then
//! one record names it. Its name has the epoch: a host that lost the volume never writes over another's map.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Volume,
    followers::FollowStage,
    state::{BarrierStage, Brick, Io, IoKind, Link, MapWrite, MoveStage, Phase, Role},
};
use crate::{Action, Generation, MAP_OFFSET, MapPlace, Outcome, RECORD_ALIGNMENT, Record, Slot};

/// Changes that records carry before the map is stored anew.
const MOST_MOVED: usize = 64;

impl Volume {
    pub(super) fn pump_maps(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        self.want_map |= self.settled_moved.len() > MOST_MOVED;
        let recording = |m: &super::Move| m.stage == MoveStage::Recording;
        self.drop_resharding();
        let quiet = self.commit.is_none() && !self.moves.iter().any(recording);
        if self.want_map && quiet && self.map_write.is_none() {
            self.begin_map();
        }
        self.keep_maps();
        if self.commit.is_none() && self.map_is_kept() {
            self.want_membership = true;
        }
    }

    fn keep_maps(&mut self) {
        for slot in self.slots() {
            self.keep_map(slot);
        }
    }

    /// Whether the first record of an attachment may be written: it names maps, and a host that was not yet shut out may
    /// have had a companion forget them.
    pub(super) fn maps_are_kept(&mut self) -> bool {
        self.keep_maps();
        self.counting().iter().all(|slot| self.has_maps(slot))
    }

    fn begin_map(&mut self) {
        self.want_map = false;
        let mut map = self.map.clone();
        let shards = self.descriptor.size.max(self.map_room).div_ceil(map.shard_size());
        map.extend(shards);
        let Some(map) = self.map_in_new_size(map) else { return self.pump_moves() };
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

    /// The stored maps that companions keep: the one that counts, those of snapshots, and the one to come.
    fn maps_to_keep(&self) -> impl Iterator<Item = (Generation, &Arc<[u8]>)> {
        let base = std::iter::once((self.base.0, &self.base.1));
        let snapshots = self.descriptor.snapshots.iter().filter(|snapshot| self.counts(snapshot));
        // One that was lost with the state cannot be kept.
        let frozen = snapshots.filter_map(|snapshot| self.old_maps.get_key_value(&snapshot.map));
        let next = self.map_write.as_ref().map(|write| (write.version, &write.bytes));
        base.chain(frozen.map(|(version, bytes)| (*version, bytes))).chain(next)
    }

    fn keep_map(&mut self, slot: Slot) {
        let brick = &self.bricks[slot.index()];
        let follows = brick.follower.stage != FollowStage::Lacking;
        let gets = brick.counts() || (brick.role == Role::Stale && (brick.receiving || follows));
        if !gets || brick.link != Link::Open || brick.keeping.is_some() {
            return;
        }
        let has = |version| brick.kept.iter().any(|kept| kept.version == version);
        let missing = self.maps_to_keep().find(|(version, _)| !has(*version));
        let Some((version, bytes)) = missing.map(|(version, bytes)| (version, Arc::clone(bytes)))
        else {
            return;
        };
        let at = room_for(brick, bytes.len() as u64);
        let brick = self.brick(slot);
        brick.keeping = Some(MapPlace { version, at, bytes: bytes.len() as u32 });
        let brick = brick.id;
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(RECORD_ALIGNMENT), 0);
        let io = self.io(IoKind::Map, slot, 0, at, padded.len() as u64);
        let bytes = padded.into();
        self.actions.push_back(Action::WriteCompanion { io, brick, offset: at, bytes });
    }

    /// Where a follower's journal can be.
    pub(super) fn room_for_journal(&self, slot: Slot, bytes: u64) -> u64 {
        room_for(&self.bricks[slot.index()], bytes)
    }

    pub(super) fn map_kept(&mut self, io: &Io) {
        let is_next = |version| self.map_write.as_ref().is_some_and(|w| w.version == version);
        let Some(kept) = self.bricks[io.slot.index()].keeping else { return };
        // Until a record says where, nobody finds it.
        self.want_intent |= !is_next(kept.version);
        let brick = self.brick(io.slot);
        brick.keeping = None;
        brick.kept.push(kept);
    }

    /// Whether a brick has every map that a record of it would name.
    pub(super) fn has_maps(&self, slot: Slot) -> bool {
        let next = self.map_write.as_ref().map(|write| write.version);
        let named = self.maps_to_keep().filter(|(version, _)| Some(*version) != next);
        let kept = &self.bricks[slot.index()].kept;
        named.map(|(version, _)| version).all(|v| kept.iter().any(|kept| kept.version == v))
    }

    /// Whether the new map is everywhere, and only a record is missing that names it.
    pub(super) fn map_is_kept(&self) -> bool {
        let Some(write) = &self.map_write else { return false };
        let has = |slot: Slot| {
            self.bricks[slot.index()].kept.iter().any(|kept| kept.version == write.version)
        };
        write.is_stored && self.counting().iter().all(has) && self.may_name_map()
    }

    /// Where a brick's companion has what a record names.
    pub(super) fn place_maps(&self, slot: Slot, record: &mut Record) {
        let kept = &self.bricks[slot.index()].kept;
        let base = kept.iter().find(|kept| kept.version == record.descriptor.map);
        (record.map_at, record.map_bytes) = base.map_or((0, 0), |kept| (kept.at, kept.bytes));
        // Also the one that counted until now.
        let snapshots = self.descriptor.snapshots.iter().filter(|snapshot| self.counts(snapshot));
        let named: BTreeSet<Generation> = snapshots.map(|snapshot| snapshot.map).collect();
        let of_snapshots = kept.iter().filter(|kept| named.contains(&kept.version));
        record.snapshot_maps = of_snapshots.copied().collect();
    }

    /// Forgets maps that nothing names any more.
    pub(super) fn forget_maps(&mut self) {
        let snapshots = self.descriptor.snapshots.iter().filter(|snapshot| self.counts(snapshot));
        let named: BTreeSet<Generation> = snapshots.map(|snapshot| snapshot.map).collect();
        self.old_maps.retain(|version, _| named.contains(version));
        let next = self.map_write.as_ref().map(|write| write.version);
        let base = self.base.0;
        for brick in &mut self.bricks {
            brick.kept.retain(|kept| {
                let version = kept.version;
                version == base || Some(version) == next || named.contains(&version)
            });
        }
    }

    /// Writes into the descriptor which map counts; after [`Volume::record_moves`].
    pub(super) fn record_map(&mut self) {
        self.descriptor.map = self.base.0;
        self.descriptor.shard_size = self.settled_shard_size;
        if self.map_is_kept()
            && let Some(write) = &self.map_write
        {
            self.descriptor.map = write.version;
            self.descriptor.moved.clear();
            self.record_resharding();
        }
    }

    pub(super) fn map_recorded(&mut self) {
        if self.descriptor.map == self.base.0 {
            return;
        }
        let Some(write) = self.map_write.take() else { return };
        let (version, bytes) = std::mem::replace(&mut self.base, (write.version, write.bytes));
        self.old_maps.insert(version, bytes);
        if !self.resharded() {
            self.map.extend(write.shards);
        }
        self.forget_maps();
        self.actions
            .push_back(Action::ForgetMaps { before: write.version, but: self.frozen_maps() });
        self.try_moves = true;
        if let Some(barrier) = &mut self.barrier
            && barrier.stage == BarrierStage::Mapping
        {
            if self.map.covers(self.map_room.div_ceil(self.map.shard_size())) {
                return self.grow_bricks();
            }
            // It was another map that was stored, begun earlier.
            self.want_map = true;
        }
    }
}

/// The first gap for so many bytes.
fn room_for(brick: &Brick, bytes: u64) -> u64 {
    let blocks = |bytes: u64| bytes.next_multiple_of(RECORD_ALIGNMENT as u64);
    let kept = brick.kept.iter().chain(&brick.keeping);
    let mut taken: Vec<(u64, u64)> =
        kept.map(|kept| (kept.at, kept.at + blocks(u64::from(kept.bytes)))).collect();
    let follower = &brick.follower;
    taken.extend(follower.journal.map(|(at, half)| (at, at + 2 * half)));
    // It may be replayed yet.
    let data = follower.on_disk.journal.iter().filter(|piece| piece.zero.is_none());
    let at = follower.on_disk.journal_at;
    taken.push((at, at + blocks(data.map(|piece| piece.len).sum())));
    taken.sort_unstable();
    taken.into_iter().fold(
        MAP_OFFSET,
        |at, (start, end)| {
            if at + blocks(bytes) <= start { at } else { at.max(end) }
        },
    )
}
