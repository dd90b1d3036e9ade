// SPDX-License-Identifier: Apache-2.0
//! Splits and merges shards while the volume serves: the same bricks hold the same bytes, and another map says so.
//!
//! ```text
//!   asked: no shard is on its way --> stored: a map of the other size, beside the one that counts
//!     --> kept in all companions --> nothing is being freed --> recorded: one record names it, with litter in new numbers
//! ```
//! Shards that are to be one must have one replica set, so whoever merges moves them first. Both maps say the same of
//! every byte: whichever is believed after a crash is right, and what clients do meanwhile goes where it went. Regions
//! of the intent log and dirty maps are no shards and stay. A snapshot names the map of its moment, which has the size
//! of its moment.

use std::collections::BTreeSet;

use super::{
    Volume,
    state::{BarrierStage, Goal, Kind, Rest},
};
use crate::{Litter, ShardMap, Slot};

/// Shards that are to have another size.
#[derive(Debug)]
pub(super) struct Resharding {
    shard_size: u64,
    /// The map of that size; with it the shard map that is being stored is this one.
    map: Option<ShardMap>,
    /// Bytes of the volume that the map was made for. Of what comes after them it does not say what the one that counts
    /// says, even if it begins again there or its last shard reaches further.
    size: u64,
    /// Whoever asked for it still wants it.
    is_wanted: bool,
}

impl Volume {
    /// Has shards of this size soon. Until then none is moved or freed.
    pub(super) fn reshard(&mut self, shard_size: u64) {
        if self.resharding.is_none() {
            self.resharding = Some(Resharding { shard_size, map: None, size: 0, is_wanted: true });
            self.want_map = true;
        }
    }

    /// Whether a goal's shards are of a size that the volume's can get.
    pub(super) fn can_reshard(&self, map: &ShardMap) -> bool {
        self.map.can_have(map.shard_size(), self.descriptor.size)
    }

    /// Whoever asked for it is gone. What records may name already comes to its end.
    pub(super) fn end_resharding(&mut self) {
        match &mut self.resharding {
            Some(Resharding { map: None, .. }) => self.resharding = None,
            Some(resharding) => resharding.is_wanted = false,
            None => {}
        }
    }

    /// The map to be stored: `map` as it is, or in shards of the size that is asked for. `None` if it cannot have it:
    /// shards that are to be one came to differ.
    pub(super) fn map_in_new_size(&mut self, map: ShardMap) -> Option<ShardMap> {
        let Some(resharding) = &mut self.resharding else { return Some(map) };
        let resharded = map.in_shards_of(resharding.shard_size, self.descriptor.size);
        match &resharded {
            Some(map) => {
                resharding.map = Some(map.clone());
                resharding.size = self.descriptor.size;
            }
            None => {
                self.resharding = None;
                self.requeue();
            }
        }
        resharded
    }

    /// Whether a record may name the map that is stored: one of another shard size only while nothing under way counts
    /// in shards, and if it says of all of the volume where it is. Nor while bricks get another size: once they are larger,
    /// what those that are away may hold past the old end is counted by the map that counts then, and the record would put
    /// another in its place that was made for the smaller volume.
    pub(super) fn may_name_map(&self) -> bool {
        let Some(Resharding { map: Some(_), size, is_wanted, .. }) = &self.resharding else {
            return true;
        };
        let are_resized =
            self.barrier.as_ref().is_some_and(|barrier| barrier.stage == BarrierStage::Bricks);
        let in_shards =
            |kind| matches!(kind, Kind::Fill { .. } | Kind::Sweep { .. } | Kind::Digest);
        *is_wanted
            && !are_resized
            && self.descriptor.size <= *size
            && self.moves.is_empty()
            && !self.ops.iter().any(|(_, op)| in_shards(op.kind))
    }

    /// Forgets a map of another shard size that is of no use any more. Not while a record that came to nothing may name
    /// it: a state that is lost would be made anew from that.
    pub(super) fn drop_resharding(&mut self) {
        let Some(Resharding { map: Some(_), size, is_wanted, .. }) = &self.resharding else {
            return;
        };
        let is_stale = !is_wanted || *size < self.descriptor.size;
        let is_stored = self.map_write.as_ref().is_some_and(|write| write.is_stored);
        let is_settled = self.commit.is_none() && self.settled == self.descriptor.generation;
        if is_stale && is_stored && is_settled {
            self.map_write = None;
            self.resharding = None;
            self.forget_maps();
            self.requeue();
            // Nothing else may happen that would have it go on.
            self.pump_moves();
        }
    }

    /// The next record names the map of another shard size: it says so, and counts litter in these shards.
    pub(super) fn record_resharding(&mut self) {
        let Some(Resharding { map: Some(map), .. }) = &self.resharding else { return };
        self.descriptor.shard_size = map.shard_size();
        let known = self.descriptor.litter.iter().flat_map(Litter::shards);
        let litter = self.renumbered(known, self.map.shard_size(), map.shard_size());
        self.descriptor.litter = Vec::new();
        for (slot, shard) in litter {
            Litter::push(&mut self.descriptor.litter, slot, shard);
        }
    }

    /// The record that names the stored map is everywhere. False if that map is not one of another shard size.
    pub(super) fn resharded(&mut self) -> bool {
        self.settled_shard_size = self.descriptor.shard_size;
        let taken = self.resharding.take_if(|resharding| resharding.map.is_some());
        let Some(map) = taken.and_then(|resharding| resharding.map) else { return false };
        let known = std::mem::take(&mut self.litter).into_keys();
        let litter = self.renumbered(known, self.map.shard_size(), map.shard_size());
        self.litter = litter.into_iter().map(|of_shard| (of_shard, Rest::default())).collect();
        self.map = map;
        self.digests_resharded();
        self.requeue();
        true
    }

    /// Litter in shards of another size. Past the volume's end, where a shard that is merged may begin, is none.
    fn renumbered(
        &self,
        litter: impl Iterator<Item = (Slot, u64)>,
        had: u64,
        has: u64,
    ) -> BTreeSet<(Slot, u64)> {
        let end = self.descriptor.size;
        let within = litter.filter(|(_, shard)| shard.saturating_mul(had) < end);
        within
            .flat_map(|(slot, shard)| {
                let start = shard * had;
                let shards = start / has..start.saturating_add(had).min(end).div_ceil(has);
                shards.map(move |shard| (slot, shard))
            })
            .collect()
    }

    /// What is misplaced is looked for anew.
    fn requeue(&mut self) {
        if let Some(goal) = &mut self.goal {
            goal.is_queued = false;
        }
        self.try_moves = true;
        self.try_sweeps = true;
    }

    /// Has shards of the goal's size as soon as that can be. False if they have it, or have to be moved before.
    pub(super) fn reshard_for(&mut self, goal: &Goal, is_arranged: bool) -> bool {
        let (has, wants) = (self.map.shard_size(), goal.map.shard_size());
        if wants == has || (wants > has && !is_arranged) {
            return false;
        }
        if self.moves.is_empty() {
            self.reshard(wants);
        }
        true
    }
}
