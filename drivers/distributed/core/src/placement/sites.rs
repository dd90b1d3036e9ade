// SPDX-License-Identifier: Apache-2.0
//! The nodes that a plan works with, by slot, and weighted rendezvous hashing over them.

use super::{
    PlacementError,
    hash::{mix, negative_log2},
    plan::Wish,
};
use crate::{MAX_BRICKS, Node, NodeId, Slot, SlotSet};

/// A node in a slot.
pub(super) struct Site {
    pub id: NodeId,
    /// Zero for a node that keeps nothing.
    pub weight: u32,
    /// Empty: a zone of its own.
    zone: String,
    hashing: Hashing,
}

/// What a node's distances are made of.
#[derive(Clone, Copy, Default)]
struct Hashing {
    /// What its hashes begin with.
    key: u64,
    /// `2^63 / weight`.
    pace: u64,
}

/// The nodes of a plan. Those of the volume keep their slots; newcomers have the vacant ones.
pub(super) struct Sites {
    pub slots: Vec<Option<Site>>,
    /// For each slot.
    hashing: Vec<Hashing>,
    /// For each slot the slots of its zone, itself among them.
    peers: Vec<SlotSet>,
    /// Those that may get shards.
    pub gaining: SlotSet,
    /// Those that may only keep what they have.
    pub keeping: SlotSet,
    /// Whether nodes were left out for want of slots.
    crowded: bool,
    seed: u64,
}

impl Site {
    fn new(node: &Node, weight: u32) -> Self {
        Self {
            id: node.id,
            weight,
            zone: node.zone.clone(),
            hashing: Hashing {
                key: mix(u64::from(node.id.0) << 32 | 1),
                pace: (1 << 63) / u64::from(weight.max(1)),
            },
        }
    }

    /// One that is registered no more.
    fn gone(id: NodeId) -> Self {
        Self { id, weight: 0, zone: String::new(), hashing: Hashing::default() }
    }

    fn shares_zone(&self, other: &Self) -> bool {
        self.id == other.id || (!self.zone.is_empty() && self.zone == other.zone)
    }
}

impl Sites {
    /// The nodes of these slots, and as many others that may get shards as slots are left: first one of each zone that
    /// the volume has no node in, then the nearest by hash.
    pub fn gather(slots: &[Option<NodeId>], wish: &Wish<'_>) -> Self {
        let known = |id: NodeId| wish.nodes.iter().find(|node| node.id == id);
        let leaves = |node: &Node| node.weight == 0 || wish.leaving.contains(&node.id);
        let mut sites: Vec<Option<Site>> = Vec::with_capacity(MAX_BRICKS);
        let (mut gaining, mut keeping) = (SlotSet::EMPTY, SlotSet::EMPTY);
        for (slot, id) in (0..).map(Slot).zip(slots.iter().take(MAX_BRICKS)) {
            let site = id.map(|id| match known(id) {
                None => Site::gone(id),
                Some(node) if leaves(node) => Site::new(node, 0),
                Some(node) => {
                    if node.available { &mut gaining } else { &mut keeping }.insert(slot);
                    Site::new(node, node.weight)
                }
            });
            sites.push(site);
        }
        let mut others: Vec<(u64, Site)> = wish
            .nodes
            .iter()
            .filter(|node| node.available && !leaves(node) && !slots.contains(&Some(node.id)))
            .map(|node| Site::new(node, node.weight))
            .map(|site| (distance(group_key(wish.seed, u64::MAX), site.hashing), site))
            .collect();
        others.sort_unstable_by_key(|(distance, site)| (*distance, site.id));
        let room = MAX_BRICKS - sites.iter().flatten().count();
        let crowded = others.len() > room;
        let mut newcomers = Vec::new();
        for new_zones_only in [true, false] {
            let mut passed = Vec::new();
            for (distance, site) in others {
                let mut used = (0..).map(Slot).zip(&sites).filter(|(slot, _)| gaining.has(*slot));
                let shared = used
                    .any(|(_, used)| used.as_ref().is_some_and(|u| u.shares_zone(&site)))
                    || newcomers.iter().any(|used: &Site| used.shares_zone(&site));
                if newcomers.len() < room && !(new_zones_only && shared) {
                    newcomers.push(site);
                } else {
                    passed.push((distance, site));
                }
            }
            others = passed;
        }
        newcomers.sort_unstable_by_key(|site| site.id);
        for site in newcomers {
            let slot = sites.iter().position(Option::is_none).unwrap_or(sites.len());
            gaining.insert(Slot(slot as u8));
            if slot == sites.len() {
                sites.push(Some(site));
            } else {
                sites[slot] = Some(site);
            }
        }
        let peers = sites.iter().map(|site| peers(&sites, site.as_ref())).collect();
        let hashing = sites.iter().map(|s| s.as_ref().map(|s| s.hashing).unwrap_or_default());
        let hashing = hashing.collect();
        Self { slots: sites, hashing, peers, gaining, keeping, crowded, seed: wish.seed }
    }

    /// The nodes, with their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Site)> {
        (0..).map(Slot).zip(&self.slots).filter_map(|(slot, site)| Some((slot, site.as_ref()?)))
    }

    /// The slots of a slot's zone, itself among them.
    pub fn peers(&self, slot: Slot) -> SlotSet {
        self.peers[slot.index()]
    }

    /// How many zones a set spans.
    pub fn span(&self, set: SlotSet) -> u32 {
        let (mut rest, mut zones) = (set, 0);
        while let Some(slot) = rest.first() {
            rest = rest.without(self.peers(slot));
            zones += 1;
        }
        zones
    }

    /// Of `candidates` the `factor` that `missing` says is cheapest, then the nearest of `group`: first one in each
    /// zone, then anywhere else.
    pub fn choose(
        &self,
        candidates: SlotSet,
        factor: u32,
        group: u64,
        missing: impl Fn(Slot) -> u32,
    ) -> SlotSet {
        let key = group_key(self.seed, group);
        // What is missing above the distance, so that one comparison decides.
        let mut order = [u128::MAX; MAX_BRICKS];
        for slot in candidates.iter() {
            let distance = distance(key, self.hashing[slot.index()]);
            order[slot.index()] = u128::from(missing(slot)) << 64 | u128::from(distance);
        }
        let (mut set, mut covered) = (SlotSet::EMPTY, SlotSet::EMPTY);
        while set.len() < factor {
            let free = candidates.without(set);
            let fresh = free.without(covered);
            let from = if fresh.is_empty() { free } else { fresh };
            let Some(nearest) = from.iter().min_by_key(|slot| order[slot.index()]) else { break };
            set.insert(nearest);
            covered = covered.or(self.peers(nearest));
        }
        set
    }

    /// Why shards that only these nodes may hold cannot be placed.
    pub fn too_few(&self, factor: u32, candidates: SlotSet) -> PlacementError {
        if self.crowded {
            return PlacementError::NoSlots { factor, nodes: candidates.len() };
        }
        PlacementError::TooFewNodes { factor, nodes: candidates.len() }
    }
}

fn group_key(seed: u64, group: u64) -> u64 {
    mix(seed ^ 0x6e6f_7661_7374_6f72) ^ mix(group)
}

/// How far a node is from what a group stands for: `-log2(hash) / weight`, so that it is nearest as often as its weight
/// says.
fn distance(group: u64, node: Hashing) -> u64 {
    let far = u128::from(negative_log2(mix(group ^ node.key) | 1));
    ((far * u128::from(node.pace)) >> 64) as u64
}

fn peers(sites: &[Option<Site>], site: Option<&Site>) -> SlotSet {
    let same = |other: &Option<Site>| match (site, other) {
        (Some(site), Some(other)) => site.shares_zone(other),
        _ => false,
    };
    (0..).map(Slot).zip(sites).filter(|(_, other)| same(other)).map(|(slot, _)| slot).collect()
}
