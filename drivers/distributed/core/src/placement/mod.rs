// SPDX-License-Identifier: Apache-2.0
//! Which nodes hold which shards.

mod spread;
mod zones;

use std::fmt;

use crate::{MAX_BRICKS, Node, NodeId, ShardMap, Slot, SlotSet};
use spread::{choose, distance, even_out};

/// How replicas are spread over nodes. Under every policy no node has two replicas of a shard, and no zone has two while
/// another has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Each node as much as its weight says, as evenly as shards allow.
    Balanced,
    /// By hash alone: as the weights say on average, and the least moves when nodes come or go.
    Random,
    /// As balanced, but neighbouring shards stay together: who reads a file meets few nodes.
    Locality,
    /// Each zone as much as the weights of its nodes say, then each node within its zone.
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
/// Most neighbouring shards that locality keeps together.
const NEIGHBOURS: u64 = 16;
/// How many groups of neighbours each node should at least have a replica of, so that they can be spread.
const GROUPS_PER_NODE: u64 = 4;

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
    let group_len = match policy {
        Policy::Locality => group_len.max(neighbours(shards, u64::from(count))),
        _ => group_len,
    };
    let groups = shards.div_ceil(group_len);
    let sets = match policy {
        Policy::Zone => zones::place(&usable, factor, seed, groups),
        Policy::Random => spread(&usable, factor, seed, groups),
        Policy::Balanced | Policy::Locality => balanced(&usable, factor, seed, groups),
    };
    Ok(compact(&usable, &sets, shards, group_len, shard_size))
}

/// How many neighbouring shards stay together.
fn neighbours(shards: u64, nodes: u64) -> u64 {
    (shards / (nodes * GROUPS_PER_NODE)).clamp(1, NEIGHBOURS)
}

fn spread(nodes: &[&Node], factor: u32, seed: u64, groups: u64) -> Vec<SlotSet> {
    (0..groups).map(|group| choose(nodes, factor, seed, group)).collect()
}

fn balanced(nodes: &[&Node], factor: u32, seed: u64, groups: u64) -> Vec<SlotSet> {
    let mut sets = spread(nodes, factor, seed, groups);
    even_out(nodes, &mut sets);
    sets
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

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
