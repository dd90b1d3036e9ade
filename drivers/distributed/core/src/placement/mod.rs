// SPDX-License-Identifier: Apache-2.0
//! Which nodes hold which shards: of a new volume, and of one whose nodes, weights, zones, factor or policy changed.
//!
//! ```text
//!  present, wish --> sites   the nodes by slot: who may gain, who only keeps; zones, hashes
//!                    units   what each shard has, or each group of neighbouring shards
//!                    ideal   what each node should hold
//!                    flow    the fewest copies that get there
//!                    plan -> the map then, and the movement in figures
//! ```
//! A new volume is a plan from nothing. `mend` replaces what lost nodes had, and moves nothing else.

mod flow;
mod hash;
mod ideal;
mod mend;
mod movement;
mod plan;
mod sites;
mod units;

use std::fmt;

use crate::{MAX_BRICKS, Node, NodeId, ShardMap, SlotSet, shard_map::MAX_SHARDS};
pub use mend::{Mending, mend};
pub use movement::{Movement, Share};
pub use plan::{Plan, Present, Wish, plan, plan_with_shards_of};

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
    /// Each zone as much as the weights of its nodes say, then each node within its zone. It differs from balanced where a
    /// node is too heavy for its weight to count in full: what it cannot take stays in its zone.
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
    /// Nodes that could take replicas are left out, for those that the volume has are as many as it can.
    NoSlots {
        /// The replication factor.
        factor: u32,
        /// Nodes of the volume that can take replicas.
        nodes: u32,
    },
    /// The shard size is zero.
    ShardSize,
    /// Shards cannot be split or merged into ones of that size.
    OtherShards {
        /// Bytes of a shard now.
        has: u64,
        /// Bytes that it is to have.
        wanted: u64,
    },
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
            Self::NoSlots { factor, nodes } => write!(
                f,
                "replication factor {factor} needs {factor} nodes, but of the {MAX_BRICKS} that the volume has already only \
                 {nodes} can take shards: let fewer nodes leave at a time"
            ),
            Self::OtherShards { has, wanted } => write!(
                f,
                "shards of {has} bytes cannot be split or merged into ones of {wanted}: one size must divide the other, \
                 and a volume has at most {MAX_SHARDS} shards"
            ),
            Self::ShardSize => f.write_str("the shard size is 0: choose a size such as 64 MiB"),
            Self::Size => {
                f.write_str("the size is 0 or makes too many shards: choose larger shards")
            }
        }
    }
}

impl std::error::Error for PlacementError {}

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
    if shard_size == 0 {
        return Err(PlacementError::ShardSize);
    }
    let map = ShardMap::uniform(shard_size, size.div_ceil(shard_size), SlotSet::EMPTY);
    let wish = Wish { policy, factor, nodes, leaving: &[], seed };
    let plan = plan(&Present { slots: &[], map: &map, size }, &wish)?;
    Ok(Placement { nodes: plan.slots.into_iter().flatten().collect(), map: plan.map })
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;

#[cfg(test)]
mod exact_tests;

#[cfg(test)]
mod plan_tests;
