// SPDX-License-Identifier: Apache-2.0
//! Which nodes hold which shards: weighted rendezvous hashing, then moves that even out the rest.

use std::fmt;

use crate::{MAX_BRICKS, Node, NodeId, ShardMap, Slot, SlotSet};

/// How replicas are spread over nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// As the weights say, as evenly as shards allow.
    Balanced,
    /// By hash alone.
    Random,
    /// Groups of neighbouring shards stay together.
    Locality,
    /// Zones first, then nodes.
    Zone,
}

/// Where a new volume goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The node of each slot; every one holds a shard.
    pub nodes: Vec<NodeId>,
    /// The slots of each shard.
    pub map: ShardMap,
}

/// Why a volume cannot be placed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PlacementError {
    /// The policy is for a later version.
    Policy(Policy),
    /// The replication factor is zero.
    NoReplicas,
    /// More replicas than nodes that can take them.
    TooFewNodes {
        /// The replication factor.
        factor: u32,
        /// Available nodes of a weight above zero.
        nodes: u32,
    },
    /// The shard size is zero.
    ShardSize,
    /// The size is zero, or makes more shards than a map can hold.
    Size,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(policy) => {
                write!(f, "placement {policy:?} is not built yet: choose balanced")
            }
            Self::NoReplicas => f.write_str("the replication factor is 0: choose 1 or more"),
            Self::TooFewNodes { factor, nodes } => write!(
                f,
                "replication factor {factor} needs {factor} nodes, but {nodes} are available with a weight above 0: \
                 add nodes or choose a smaller factor"
            ),
            Self::ShardSize => f.write_str("the shard size is 0: choose a size such as 64 MiB"),
            Self::Size => {
                f.write_str("the size is 0 or makes too many shards: choose larger shards")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

/// Most shards that a map can hold.
const MAX_SHARDS: u64 = 1 << 31;
/// Most different replica sets that a map can hold.
const MAX_SETS: u64 = 1 << 16;

/// Places a new volume of `size` bytes. `seed` is the volume's identity; the same arguments give the same map.
///
/// Never two replicas of a shard on one node, nor in one zone while a zone is free.
///
/// # Errors
/// When it cannot be placed; nothing is changed by asking.
pub fn place(
    policy: Policy,
    nodes: &[Node],
    factor: u32,
    size: u64,
    shard_size: u64,
    seed: u64,
) -> Result<Placement, PlacementError> {
    if policy != Policy::Balanced {
        return Err(PlacementError::Policy(policy));
    }
    if factor == 0 {
        return Err(PlacementError::NoReplicas);
    }
    if shard_size == 0 {
        return Err(PlacementError::ShardSize);
    }
    let shards = size.div_ceil(shard_size);
    if shards == 0 || shards > MAX_SHARDS {
        return Err(PlacementError::Size);
    }
    let usable = nodes.iter().filter(|node| node.available && node.weight > 0);
    let mut usable: Vec<&Node> = usable.collect();
    usable.sort_by_key(|node| (distance(seed, u64::MAX, node), node.id));
    usable.truncate(MAX_BRICKS);
    let count = usable.len() as u32;
    if count < factor {
        return Err(PlacementError::TooFewNodes { factor, nodes: count });
    }
    usable.sort_by_key(|node| node.id);
    // A volume whose sets would not fit the table places groups of neighbouring shards.
    let groups =
        if combinations(count, factor) <= MAX_SETS { shards } else { shards.min(MAX_SETS) };
    let group_len = shards.div_ceil(groups);
    let mut sets: Vec<SlotSet> =
        (0..shards.div_ceil(group_len)).map(|group| choose(&usable, factor, seed, group)).collect();
    even_out(&usable, &mut sets);
    Ok(compact(&usable, &sets, shards, group_len, shard_size))
}

/// Drops nodes that hold nothing, and numbers the rest as slots.
fn compact(
    nodes: &[&Node],
    sets: &[SlotSet],
    shards: u64,
    group_len: u64,
    shard_size: u64,
) -> Placement {
    let used = sets.iter().fold(SlotSet::EMPTY, |used, set| used.or(*set));
    let kept: Vec<Slot> = used.iter().collect();
    let renumber = |set: SlotSet| -> SlotSet {
        (0..).zip(&kept).filter(|(_, old)| set.has(**old)).map(|(new, _)| Slot(new)).collect()
    };
    let each = (0..shards).map(|shard| renumber(sets[(shard / group_len) as usize]));
    let all = renumber(used);
    let map = ShardMap::from_sets(shard_size, each)
        .unwrap_or_else(|| ShardMap::uniform(shard_size, shards, all));
    Placement { nodes: kept.iter().map(|slot| nodes[slot.index()].id).collect(), map }
}

fn combinations(nodes: u32, factor: u32) -> u64 {
    let factor = factor.min(nodes - factor);
    (0..factor).fold(1_u64, |product, step| {
        product.saturating_mul(u64::from(nodes - step)) / u64::from(step + 1)
    })
}

fn choose(nodes: &[&Node], factor: u32, seed: u64, group: u64) -> SlotSet {
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

fn same_zone(a: &Node, b: &Node) -> bool {
    a.id == b.id || (!a.zone.is_empty() && a.zone == b.zone)
}

/// How far a node is from a shard: `-log2(hash) / weight`, so that a node is nearest as often as its weight says.
fn distance(seed: u64, group: u64, node: &Node) -> u64 {
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
fn even_out(nodes: &[&Node], sets: &mut [SlotSet]) {
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
    use super::{PlacementError, Policy, negative_log2, place};
    use crate::{Node, NodeId, Slot};

    fn node(id: u32, zone: &str, weight: u32) -> Node {
        Node {
            id: NodeId(id),
            name: format!("n{id}"),
            role: "storage".into(),
            address: String::new(),
            port: 0,
            zone: zone.into(),
            weight,
            available: true,
        }
    }

    #[test]
    fn the_logarithm_is_right() {
        for value in [1, 2, 3, 1 << 32, 0x1234_5678_9abc_def0, u64::MAX] {
            let exact = 64.0 - (value as f64).log2();
            let ours = negative_log2(value) as f64 / 2_f64.powi(56);
            assert!((exact - ours).abs() < 1e-6, "{value}: {exact} {ours}");
        }
    }

    #[test]
    fn shards_follow_weights_and_zones() {
        let nodes: Vec<_> =
            (0..6).map(|id| node(id, ["a", "b", "c"][id as usize % 3], 1 + id / 3)).collect();
        let shards = 3000_u64;
        let placement = place(Policy::Balanced, &nodes, 3, shards * 4096, 4096, 7).unwrap();
        let mut held = [0_u64; 6];
        for shard in 0..shards {
            let set = placement.map.set(shard);
            assert_eq!(set.len(), 3);
            let mut zones: Vec<_> = set.iter().map(|slot| slot.0 % 3).collect();
            zones.sort_unstable();
            assert_eq!(zones, [0, 1, 2], "two replicas in one zone while one is free");
            set.iter().for_each(|slot| held[slot.index()] += 1);
        }
        for (slot, held) in held.iter().enumerate() {
            let wanted = if slot < 3 { shards / 3 } else { shards * 2 / 3 };
            assert!(held.abs_diff(wanted) <= 1, "slot {slot} has {held}, not {wanted}");
        }
        assert_eq!(placement, place(Policy::Balanced, &nodes, 3, shards * 4096, 4096, 7).unwrap());
    }

    #[test]
    fn as_many_replicas_as_nodes_need_no_table() {
        let nodes: Vec<_> = (0..3).map(|id| node(id, "", 1 + id)).collect();
        let placement = place(Policy::Balanced, &nodes, 3, 1 << 46, 64 << 20, 1).unwrap();
        assert!(placement.map.memory() < 200);
        assert_eq!(placement.map.set(1 << 19).iter().last(), Some(Slot(2)));
    }

    #[test]
    fn what_cannot_be_placed_is_refused_with_a_remedy() {
        let mut nodes: Vec<_> = (0..3).map(|id| node(id, "", 1)).collect();
        nodes[1].available = false;
        let refusal = |factor, size, shard| {
            place(Policy::Balanced, &nodes, factor, size, shard, 1).unwrap_err()
        };
        assert_eq!(
            refusal(3, 1 << 30, 1 << 20),
            PlacementError::TooFewNodes { factor: 3, nodes: 2 }
        );
        assert_eq!(refusal(0, 1 << 30, 1 << 20), PlacementError::NoReplicas);
        assert_eq!(refusal(2, 1 << 30, 0), PlacementError::ShardSize);
        assert_eq!(refusal(2, 0, 4096), PlacementError::Size);
        let text = refusal(3, 1 << 30, 1 << 20).to_string();
        assert!(text.contains("2 are available") && text.contains("add nodes"), "{text}");
        assert!(place(Policy::Zone, &nodes, 2, 1, 1, 1).is_err());
    }
}
