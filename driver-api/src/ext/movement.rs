// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use super::NodeSpec;
use crate::{Error, ErrorKind};

/// How a node would be changed. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeStepKind(u32);

impl NodeStepKind {
    /// It would be added as its spec says.
    pub const ADD: Self = Self(0);
    /// It would be taken out, with everything on it moved away first.
    pub const REMOVE: Self = Self(1);
    /// It would be drained.
    pub const DRAIN: Self = Self(2);
    /// It would get the weight of its spec.
    pub const WEIGHT: Self = Self(3);
}

/// A change of a node that is thought of, not made. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct NodeStep {
    /// What would change.
    pub kind: NodeStepKind,
    /// The node. Only [`NodeStepKind::ADD`] reads more than its name, and [`NodeStepKind::WEIGHT`] its weight.
    pub node: NodeSpec,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

impl NodeStep {
    /// A step with this node.
    pub fn new(kind: NodeStepKind, node: NodeSpec) -> Self {
        Self { kind, node, reserved: [0; 2] }
    }
}

/// What a node holds, in bytes. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeShare {
    /// The node's name; `node 2`, with its number, if the name is lost.
    pub node: RString,
    /// Now.
    pub before: u64,
    /// Once everything is where it should be.
    pub after: u64,
    /// By its weight, as far as zones and replicas let it.
    pub ideal: u64,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

/// What would move, of one volume or of several together. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// The volume; empty: several together.
    pub volume: RString,
    /// Why it cannot be placed so, and what to do; empty if it can. Then nothing else is told of it.
    pub refused: RString,
    /// Bytes that would be copied: the fewest that reach the end.
    pub bytes: u64,
    /// Shards that would get other nodes.
    pub shards: u64,
    /// Shards in all.
    pub shards_in_all: u64,
    /// Bytes of a shard, the largest of several volumes.
    pub shard_size: u64,
    /// Each node that holds something now or then.
    pub nodes: RVec<NodeShare>,
    /// The most bytes that a node has more or less than its ideal, now.
    pub worst_before: u64,
    /// The most bytes that a node has more or less than its ideal, then.
    pub worst_after: u64,
    /// Shards that have 0, 1, 2, … replicas now on nodes that do not leave; the last count: that many or more.
    pub copies: RVec<u64>,
    /// Shards with two replicas in one zone while another could take one, now.
    pub zone_violations_before: u64,
    /// Shards with two replicas in one zone while another could take one, then.
    pub zone_violations_after: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What would move. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct MovementPlan {
    /// Each volume, by name.
    pub volumes: RVec<Movement>,
    /// Those that can be placed, together.
    pub total: Movement,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// How far a volume's rebalancing is. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebalancing {
    /// Whether shards are still to get other nodes.
    pub running: bool,
    /// Shards that are not where they are to be.
    pub shards_left: u64,
    /// Shards that bricks are no replicas of any more, and still have to be freed of.
    pub litter: u64,
    /// Bricks that hold nothing any more and are still to be deleted, on nodes that answer.
    pub leaving: u64,
    /// Bytes copied between bricks since the volume was attached, for this and to make replicas equal.
    pub copied: u64,
    /// Why the last rebalancing ended before its end; empty if it did not.
    pub reason: RString,
    /// Bytes of a shard, now: while shards are split or merged it changes.
    pub shard_size: u64,
    /// Zero in this version.
    pub reserved: [u64; 3],
}

/// What a driver from before 1.3 answers, and one that cannot move shards.
pub(crate) fn no_movement(operation: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot move shards")
        .during(operation)
        .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}
