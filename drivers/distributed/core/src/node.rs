// SPDX-License-Identifier: Apache-2.0
//! Nodes: backends seen as failure units, and what volumes provision on them.

use crate::NodeId;

/// A node as an operator registered it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its number, never reused.
    pub id: NodeId,
    /// The backend's name.
    pub name: String,
    /// What it is for, such as `storage`; free text.
    pub role: String,
    /// Where it is, for the operator; the backend knows how to reach it.
    pub address: String,
    /// Its port, for the operator; zero for none.
    pub port: u16,
    /// The failure zone; empty: a zone of its own.
    pub zone: String,
    /// Its share of new shards relative to others; zero: none.
    pub weight: u32,
    /// Whether new shards may be placed on it.
    pub available: bool,
}

/// Why a list of nodes or a capacity is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeError {
    /// Two nodes are the same backend.
    SameBackend(String),
    /// Provisioning would exceed the limit.
    Capacity {
        /// Replica bytes that volumes have already.
        provisioned: u64,
        /// Replica bytes that are wanted in addition.
        wanted: u64,
        /// The limit.
        limit: u64,
    },
}

impl std::fmt::Display for NodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SameBackend(name) => {
                write!(
                    f,
                    "backend {name:?} is two nodes: their replicas would fail together; remove one"
                )
            }
            Self::Capacity { provisioned, wanted, limit } => write!(
                f,
                "{wanted} replica bytes do not fit: {provisioned} of max_capacity {limit} are provisioned; \
                 delete volumes, choose a smaller size or factor, or raise max_capacity"
            ),
        }
    }
}

impl std::error::Error for NodeError {}

/// Refuses a list in which a backend or number occurs twice.
///
/// # Errors
/// [`NodeError::SameBackend`].
pub fn check_nodes(nodes: &[Node]) -> Result<(), NodeError> {
    for (index, node) in nodes.iter().enumerate() {
        if nodes[..index].iter().any(|other| other.name == node.name || other.id == node.id) {
            return Err(NodeError::SameBackend(node.name.clone()));
        }
    }
    Ok(())
}

/// Bytes that volumes may occupy, counted as provisioned: size times replicas, whatever is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capacity {
    /// Most replica bytes; zero: unlimited.
    pub limit: u64,
    /// Replica bytes provisioned.
    pub provisioned: u64,
}

impl Capacity {
    /// Counts a volume, or the growth of one.
    ///
    /// # Errors
    /// [`NodeError::Capacity`] if it does not fit; nothing is counted then.
    pub fn provision(&mut self, size: u64, replicas: u32) -> Result<(), NodeError> {
        let wanted = size.saturating_mul(u64::from(replicas));
        let total = self.provisioned.saturating_add(wanted);
        if self.limit != 0 && total > self.limit {
            return Err(NodeError::Capacity {
                provisioned: self.provisioned,
                wanted,
                limit: self.limit,
            });
        }
        self.provisioned = total;
        Ok(())
    }

    /// Takes back what [`Capacity::provision`] counted.
    pub fn release(&mut self, size: u64, replicas: u32) {
        let bytes = size.saturating_mul(u64::from(replicas));
        self.provisioned = self.provisioned.saturating_sub(bytes);
    }
}
