// SPDX-License-Identifier: Apache-2.0
//! What a plan would do, in figures.

use super::{
    ideal::{FRACTION, shares},
    plan::{Present, Span, Wish},
    sites::Sites,
    units::Units,
};
use crate::{NodeId, SlotSet};

/// What a plan moves, and what it makes better.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Movement {
    /// Bytes that are copied.
    pub bytes: u64,
    /// Shards whose set of nodes changes; of some only copies are dropped.
    pub shards: u64,
    /// Each node of the volume, and each newcomer that gets something.
    pub nodes: Vec<Share>,
    /// The most bytes that a node has more or less than its ideal, now.
    pub worst_before: u64,
    /// The most bytes that a node has more or less than its ideal, then.
    pub worst_after: u64,
    /// How many shards have 0, 1, 2, … copies on nodes that do not leave, now; the last: the replication factor or more.
    pub copies: Vec<u64>,
    /// Shards with two replicas in a zone while another could have one, now.
    pub zone_violations_before: u64,
    /// Shards with two replicas in a zone while another could have one, then.
    pub zone_violations_after: u64,
}

/// What a node holds of a volume, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Which node.
    pub node: NodeId,
    /// Now.
    pub before: u64,
    /// After the plan.
    pub after: u64,
    /// By its weight, as far as zones and replicas let it; zero for a node that leaves.
    pub ideal: u64,
}

impl Movement {
    /// Whether everything stays as it is.
    pub fn is_empty(&self) -> bool {
        self.shards == 0
    }

    pub(super) fn of(
        present: &Present<'_>,
        wish: &Wish<'_>,
        sites: &Sites,
        units: &Units,
        spans: &[Span],
    ) -> Self {
        let leaving = sites.iter().filter(|(_, site)| wish.leaving.contains(&site.id));
        let mut count = Count {
            leaving: leaving.map(|(slot, _)| slot).collect(),
            before: vec![0; sites.slots.len()],
            after: vec![0; sites.slots.len()],
            moves: Self { copies: vec![0; wish.factor as usize + 1], ..Self::default() },
            bytes: 0,
        };
        let shard_size = present.map.shard_size();
        let shards = present.size.div_ceil(shard_size);
        let (mut seen, mut last) = (0, SlotSet::EMPTY);
        for span in spans {
            for (set, len) in &units.held[span.held as usize].0 {
                let part = u64::from(*len) * u64::from(span.units);
                count.add(sites, *set, span, part, part.saturating_mul(shard_size));
                seen += part;
            }
            last = span.set;
        }
        debug_assert_eq!(seen, shards);
        let had = present.map.set(shards - 1).iter();
        let had = had.filter(|slot| present.slots.get(slot.index()).is_some_and(Option::is_some));
        // What the last shard has less than others.
        count.cut(had.collect(), last, shards.saturating_mul(shard_size) - present.size);
        let ideal = shares(wish.policy, sites, units, wish.factor);
        let unit = u128::from(units.len) * u128::from(shard_size);
        let mut moves = count.moves;
        moves.bytes = count.bytes;
        for (slot, site) in sites.iter() {
            let (before, after) = (count.before[slot.index()], count.after[slot.index()]);
            let ideal = ((u128::from(ideal[slot.index()]) * unit) >> FRACTION) as u64;
            moves.worst_before = moves.worst_before.max(before.abs_diff(ideal));
            moves.worst_after = moves.worst_after.max(after.abs_diff(ideal));
            if after > 0 || present.slots.get(slot.index()).is_some_and(Option::is_some) {
                moves.nodes.push(Share { node: site.id, before, after, ideal });
            }
        }
        moves
    }
}

struct Count {
    leaving: SlotSet,
    before: Vec<u64>,
    after: Vec<u64>,
    moves: Movement,
    bytes: u64,
}

impl Count {
    fn add(&mut self, sites: &Sites, had: SlotSet, span: &Span, shards: u64, bytes: u64) {
        let has = span.set;
        had.iter().for_each(|slot| self.before[slot.index()] += bytes);
        has.iter().for_each(|slot| self.after[slot.index()] += bytes);
        self.bytes += u64::from(has.without(had).len()) * bytes;
        let moves = &mut self.moves;
        if had != has {
            moves.shards += shards;
        }
        let most = moves.copies.len() - 1;
        moves.copies[(had.without(self.leaving).len() as usize).min(most)] += shards;
        let before = violates(sites, had, had);
        let after = if had == has { before } else { violates(sites, has, had) };
        moves.zone_violations_before += u64::from(before) * shards;
        moves.zone_violations_after += u64::from(after) * shards;
    }

    fn cut(&mut self, had: SlotSet, has: SlotSet, bytes: u64) {
        had.iter().for_each(|slot| self.before[slot.index()] -= bytes);
        has.iter().for_each(|slot| self.after[slot.index()] -= bytes);
        self.bytes -= u64::from(has.without(had).len()) * bytes;
    }
}

/// Whether two replicas are in one zone while another zone could take one; `had` is where there is a copy already.
fn violates(sites: &Sites, set: SlotSet, had: SlotSet) -> bool {
    let span = sites.span(set);
    let could = sites.gaining.or(sites.keeping.and(had)).or(set);
    span < set.len() && span < sites.span(could)
}
