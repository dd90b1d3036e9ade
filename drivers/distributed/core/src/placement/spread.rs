// SPDX-License-Identifier: Apache-2.0
//! Weighted rendezvous hashing, and moves that even out the rest.

use crate::{Node, Slot, SlotSet};

pub(super) fn choose(nodes: &[&Node], factor: u32, seed: u64, group: u64) -> SlotSet {
    if nodes.len() as u32 == factor {
        return (0..nodes.len()).map(|index| Slot(index as u8)).collect();
    }
    let mut order: Vec<(u64, usize)> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| (distance(seed, group, node), index))
        .collect();
    order.sort_unstable();
    let mut set = SlotSet::EMPTY;
    // First a replica in each zone, then anywhere else.
    for fresh_zones_only in [true, false] {
        for (_, index) in &order {
            let slot = Slot(*index as u8);
            let taken = set.iter().any(|other| same_zone(nodes[other.index()], nodes[*index]));
            if set.len() < factor && !set.has(slot) && !(fresh_zones_only && taken) {
                set.insert(slot);
            }
        }
    }
    set
}

pub(super) fn same_zone(a: &Node, b: &Node) -> bool {
    a.id == b.id || (!a.zone.is_empty() && a.zone == b.zone)
}

/// How far a node is from a shard: `-log2(hash) / weight`, so that a node is nearest as often as its weight says.
pub(super) fn distance(seed: u64, group: u64, node: &Node) -> u64 {
    let hash =
        mix(mix(seed ^ 0x6e6f_7661_7374_6f72) ^ mix(group) ^ mix(u64::from(node.id.0) << 32 | 1));
    negative_log2(hash | 1) / u64::from(node.weight.max(1))
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// `-log2(value / 2^64)` in units of 2^-56; in integers, so that it is the same on every machine.
fn negative_log2(value: u64) -> u64 {
    const FRACTION: u32 = 24;
    let zeros = value.leading_zeros();
    let mut mantissa = u128::from(value << zeros);
    let mut log = 0_u64;
    for _ in 0..FRACTION {
        mantissa = (mantissa * mantissa) >> 63;
        let carry = (mantissa >> 64) as u64;
        log = log << 1 | carry;
        mantissa >>= carry;
    }
    ((u64::from(zeros) + 1) << FRACTION).saturating_sub(log) << (56 - FRACTION)
}

/// Moves replicas from nodes above their share to nodes below it, where zones allow.
pub(super) fn even_out(nodes: &[&Node], sets: &mut [SlotSet]) {
    let shares = shares(nodes, sets);
    let mut held = vec![0_u64; nodes.len()];
    for set in sets.iter() {
        set.iter().for_each(|slot| held[slot.index()] += 1);
    }
    for set in sets.iter_mut() {
        for from in set.iter() {
            if held[from.index()] <= shares[from.index()] {
                continue;
            }
            let rest = set.without(SlotSet::only(from));
            let to = (0..nodes.len())
                .filter(|to| held[*to] < shares[*to] && !set.has(Slot(*to as u8)))
                .filter(|to| zones(nodes, rest, Some(*to)) >= zones(nodes, *set, None))
                .max_by_key(|to| (shares[*to] - held[*to], std::cmp::Reverse(*to)));
            if let Some(to) = to {
                *set = rest.or(SlotSet::only(Slot(to as u8)));
                held[from.index()] -= 1;
                held[to] += 1;
            }
        }
    }
}

/// How many zones a set with one more node spans.
fn zones(nodes: &[&Node], set: SlotSet, extra: Option<usize>) -> usize {
    let members: Vec<&Node> =
        set.iter().map(Slot::index).chain(extra).map(|index| nodes[index]).collect();
    let is_first =
        |(at, node): &(usize, &&Node)| !members[..*at].iter().any(|other| same_zone(other, node));
    members.iter().enumerate().filter(is_first).count()
}

/// How many replicas each node should hold: by weight, none more than there are shards, rounded up.
fn shares(nodes: &[&Node], sets: &[SlotSet]) -> Vec<u64> {
    let most = sets.len() as u64;
    let mut rest = sets.iter().map(|set| u64::from(set.len())).sum::<u64>();
    let mut shares = vec![0; nodes.len()];
    let mut open: Vec<usize> = (0..nodes.len()).collect();
    loop {
        let weight: u64 = open.iter().map(|index| u64::from(nodes[*index].weight)).sum();
        let share = |index: usize| {
            (u128::from(rest) * u128::from(nodes[index].weight)).div_ceil(u128::from(weight.max(1)))
        };
        let (full, fitting): (Vec<_>, Vec<_>) =
            open.iter().partition(|index| share(**index) >= u128::from(most));
        if full.is_empty() {
            fitting.iter().for_each(|index| shares[*index] = share(*index) as u64);
            return shares;
        }
        full.iter().for_each(|index| shares[*index] = most);
        rest = rest.saturating_sub(most * full.len() as u64);
        open = fitting;
    }
}

#[cfg(test)]
mod tests {
    use super::negative_log2;

    #[test]
    fn the_logarithm_is_right() {
        for value in [1, 2, 3, 1 << 32, 0x1234_5678_9abc_def0, u64::MAX] {
            let exact = 64.0 - (value as f64).log2();
            let ours = negative_log2(value) as f64 / 2_f64.powi(56);
            assert!((exact - ours).abs() < 1e-6, "{value}: {exact} {ours}");
        }
    }
}
