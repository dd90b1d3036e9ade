// SPDX-License-Identifier: Apache-2.0
//! Where the replicas go that were on nodes which are lost. Everything else stays where it is.
//!
//! A [`plan`](super::plan) brings a volume to where its nodes and choices say, which may move much that is well. Healing
//! moves what is in danger and nothing else: each lost replica is copied once, so no plan that replaces all of them copies
//! less. They go to whoever has the least by its weight.

use super::{
    MAX_SHARDS, PlacementError, Policy,
    hash::mix,
    plan::{Places, Present, Span, Wish, neighbours, plan, push},
    sites::Sites,
};
use crate::{NodeId, ShardMap, Slot, SlotSet};

/// How a volume gets back the replicas that it lost.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mending {
    /// The node of each slot, as in a [`Plan`](super::Plan).
    pub slots: Vec<Option<NodeId>>,
    /// The slots that each shard is to have.
    pub map: ShardMap,
    /// Bytes that are copied.
    pub bytes: u64,
    /// Shards that get replicas, or need the lost ones no more.
    pub shards: u64,
    /// Of those, the fewest copies that one has left: the volume is as urgent as that.
    pub fewest: u32,
}

impl Mending {
    /// Whether everything stays as it is: nothing is lost, or nobody is there to replace it.
    pub fn is_empty(&self) -> bool {
        self.shards == 0
    }
}

/// Replaces the replicas on [`Wish::leaving`], which are lost, and on nodes that are registered no more.
///
/// A shard keeps all its other replicas, also those on nodes that are not available, and ends with as many as it had, at
/// most [`Wish::factor`]. Where too few nodes can take one, the lost replica stays listed: its node may come back, or
/// another one be added. So does a shard without any other replica. No two replicas come to one node, nor a new one into a
/// zone that has one while a zone is free. Under [`Policy::Locality`] neighbours with the same replicas stay together.
///
/// # Errors
/// When the volume's size does not fit its map; nothing is changed by asking.
pub fn mend(present: &Present<'_>, wish: &Wish<'_>) -> Result<Mending, PlacementError> {
    let shard_size = present.map.shard_size();
    let shards = present.size.div_ceil(shard_size);
    if shards == 0 || shards > MAX_SHARDS {
        return Err(PlacementError::Size);
    }
    let sites = Sites::gather(present.slots, wish);
    let is_known = |id: NodeId| wish.nodes.iter().any(|node| node.id == id);
    let is_lost = |id: NodeId| wish.leaving.contains(&id) || !is_known(id);
    let lost = (0..).map(Slot).zip(present.slots);
    let lost: SlotSet =
        lost.filter(|(_, id)| id.is_none_or(is_lost)).map(|(slot, _)| slot).collect();
    let mut choice = Choice::new(&sites, lost, wish, present, shards);
    let group = match wish.policy {
        Policy::Locality => u64::from(neighbours(shards)),
        Policy::Balanced | Policy::Random | Policy::Zone => 1,
    };
    let (mut spans, mut mending) = (Vec::new(), Figures { fewest: u32::MAX, ..Figures::default() });
    let mut first = 0;
    for (offset, bytes, set) in present.map.pieces(0, present.size) {
        let end = (offset + bytes).div_ceil(shard_size).min(shards);
        while first < end {
            let next = match set.and(lost).is_empty() {
                true => end,
                false => end.min((first / group + 1) * group),
            };
            let new = choice.of(set, next - first);
            if new != set {
                let bytes = (next * shard_size).min(present.size) - first * shard_size;
                mending.bytes += bytes * u64::from(new.without(set).len());
                mending.shards += next - first;
                mending.fewest = mending.fewest.min(set.without(lost).len());
            }
            push(&mut spans, Span { held: 0, set: new, units: (next - first) as u32 });
            first = next;
        }
    }
    let places = Places::of(present, &sites, &spans);
    let Some(map) = places.map(&spans, 1, shards, shard_size) else {
        // As many different sets as a map can hold: a plan makes coarser ones.
        let plan = plan(present, wish)?;
        let (bytes, shards) = (plan.moves.bytes, plan.moves.shards);
        let fewest = mending.fewest;
        return Ok(Mending { slots: plan.slots, map: plan.map, bytes, shards, fewest });
    };
    let Figures { bytes, shards, fewest } = mending;
    Ok(Mending { slots: places.slots, map, bytes, shards, fewest })
}

#[derive(Default)]
struct Figures {
    bytes: u64,
    shards: u64,
    fewest: u32,
}

/// Chooses who replaces what is lost.
struct Choice<'a> {
    sites: &'a Sites,
    lost: SlotSet,
    factor: u32,
    seed: u64,
    /// Shards and weights by slot.
    load: Vec<(u64, u64)>,
}

impl<'a> Choice<'a> {
    fn new(
        sites: &'a Sites,
        lost: SlotSet,
        wish: &Wish<'_>,
        present: &Present<'_>,
        shards: u64,
    ) -> Self {
        let weight = |site: Option<&super::sites::Site>| site.map_or(0, |site| site.weight);
        let load = sites.slots.iter().map(|site| (0, u64::from(weight(site.as_ref())))).collect();
        let mut choice = Self { sites, lost, factor: wish.factor, seed: wish.seed, load };
        let shard_size = present.map.shard_size();
        let mut first = 0;
        for (offset, bytes, set) in present.map.pieces(0, present.size) {
            let end = (offset + bytes).div_ceil(shard_size).min(shards);
            choice.count(set.without(lost), end - first);
            first = end;
        }
        choice
    }

    fn count(&mut self, set: SlotSet, shards: u64) {
        for slot in set.iter() {
            if let Some((load, _)) = self.load.get_mut(slot.index()) {
                *load += shards;
            }
        }
    }

    /// What so many shards that have `set` are to have.
    fn of(&mut self, set: SlotSet, shards: u64) -> SlotSet {
        let kept = set.without(self.lost);
        if kept == set || kept.is_empty() {
            return set;
        }
        let wanted = set.len().min(self.factor).max(kept.len());
        let mut new = kept;
        while new.len() < wanted {
            let Some(slot) = self.next(new) else { break };
            new.insert(slot);
        }
        self.count(new.without(kept), shards);
        // Nobody else is there: what is lost may come back.
        let missing = (wanted - new.len()) as usize;
        set.and(self.lost).iter().take(missing).for_each(|slot| new.insert(slot));
        new
    }

    /// Who is to join these: in a zone of its own if there is one, then whoever has the least by its weight.
    fn next(&self, set: SlotSet) -> Option<Slot> {
        let free = self.sites.gaining.without(set);
        let covered = set.iter().fold(SlotSet::EMPTY, |all, slot| all.or(self.sites.peers(slot)));
        let fresh = free.without(covered);
        let from = if fresh.is_empty() { free } else { fresh };
        from.iter().min_by_key(|slot| {
            let (load, weight) = self.load[slot.index()];
            // A node of weight 0 gains nothing, so it is none of these.
            let share = (u128::from(load + 1) << 32) / u128::from(weight.max(1));
            (share, mix(self.seed ^ u64::from(slot.0)))
        })
    }
}

#[cfg(test)]
#[path = "mend_tests.rs"]
mod tests;
