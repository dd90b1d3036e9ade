// SPDX-License-Identifier: Apache-2.0
//! The registered nodes, as the state keeps them.

use distributed_core::{Node, NodeId};
use serde::{Deserialize, Serialize};

/// The registered nodes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Nodes {
    next: u32,
    nodes: Vec<NodeRecord>,
    /// Names that the operator took out: a configuration that still has them does not bring them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct NodeRecord {
    id: u32,
    name: String,
    role: String,
    address: String,
    port: u16,
    zone: String,
    weight: u32,
    available: bool,
    /// It is to be emptied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
    /// It is away for good, as far as is known: its shards are replicated elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    lost: bool,
}

impl From<&NodeRecord> for Node {
    fn from(record: &NodeRecord) -> Self {
        Self {
            id: NodeId(record.id),
            name: record.name.clone(),
            role: record.role.clone(),
            address: record.address.clone(),
            port: record.port,
            zone: record.zone.clone(),
            weight: record.weight,
            available: record.available,
        }
    }
}

impl From<&Node> for NodeRecord {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.0,
            name: node.name.clone(),
            role: node.role.clone(),
            address: node.address.clone(),
            port: node.port,
            zone: node.zone.clone(),
            weight: node.weight,
            available: node.available,
            draining: false,
            lost: false,
        }
    }
}

impl Nodes {
    /// All of them, in the order of their registration.
    pub fn all(&self) -> Vec<Node> {
        self.nodes.iter().map(Node::from).collect()
    }

    /// All of them, with those that are to be emptied as not available: what new volumes are placed on.
    pub fn placeable(&self) -> Vec<Node> {
        let node = |record: &NodeRecord| Node {
            available: record.available && !record.draining,
            ..record.into()
        };
        self.nodes.iter().map(node).collect()
    }

    /// Those that are to be emptied.
    pub fn draining(&self) -> Vec<NodeId> {
        let draining = self.nodes.iter().filter(|node| node.draining);
        draining.map(|node| NodeId(node.id)).collect()
    }

    /// Marks a node as one to be emptied, or takes the mark away.
    pub fn set_draining(&mut self, id: NodeId, on: bool) {
        let marked = self.nodes.iter_mut().filter(|node| node.id == id.0);
        marked.for_each(|node| node.draining = on);
    }

    /// Those that were lost when that was looked at last.
    pub fn lost(&self) -> Vec<NodeId> {
        let lost = self.nodes.iter().filter(|node| node.lost);
        lost.map(|node| NodeId(node.id)).collect()
    }

    /// Marks these nodes as lost, and no others.
    pub fn set_lost(&mut self, ids: &[NodeId]) {
        self.nodes.iter_mut().for_each(|node| node.lost = ids.contains(&NodeId(node.id)));
    }

    /// Whether the operator took a node of this name out.
    pub fn was_removed(&self, name: &str) -> bool {
        self.removed.iter().any(|removed| removed == name)
    }

    /// The one with this name.
    pub fn named(&self, name: &str) -> Option<Node> {
        self.nodes.iter().find(|node| node.name == name).map(Node::from)
    }

    /// The name of the node with this number; the number if it is not registered any more.
    pub fn name_of(&self, id: NodeId) -> String {
        let node = self.nodes.iter().map(Node::from).find(|node| node.id == id);
        node.map_or_else(|| id.to_string(), |node| node.name)
    }

    /// Adds a node under the next number, which it gives.
    pub fn add(&mut self, mut node: Node) -> Node {
        node.id = NodeId(self.next);
        self.next += 1;
        self.removed.retain(|removed| *removed != node.name);
        self.nodes.push((&node).into());
        node
    }

    /// Puts this in the place of the node with its number.
    pub fn replace(&mut self, node: &Node) {
        if let Some(place) = self.nodes.iter_mut().find(|other| other.id == node.id.0) {
            *place = NodeRecord { draining: place.draining, lost: place.lost, ..node.into() };
        }
    }

    /// Forgets a node.
    pub fn remove(&mut self, id: NodeId) {
        let named = self.nodes.iter().filter(|node| node.id == id.0);
        self.removed.extend(named.map(|node| node.name.clone()));
        self.nodes.retain(|node| node.id != id.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::plain;

    #[test]
    fn what_was_taken_out_is_known_until_it_is_added_again() {
        let mut nodes = Nodes::default();
        let node = nodes.add(plain("n1"));
        nodes.set_lost(&[node.id]);
        nodes.replace(&Node { weight: 7, ..node.clone() });
        assert_eq!(nodes.lost(), [node.id]);
        nodes.remove(node.id);
        let stored = serde_json::to_vec(&nodes).unwrap();
        let mut nodes: Nodes = serde_json::from_slice(&stored).unwrap();
        assert!(nodes.was_removed("n1") && !nodes.was_removed("n2") && nodes.lost().is_empty());
        nodes.add(plain("n1"));
        assert!(!nodes.was_removed("n1"));
    }

    #[test]
    fn a_drained_node_stays_so_whatever_else_is_said_of_it() {
        let mut nodes = Nodes::default();
        let node = nodes.add(plain("n1"));
        nodes.set_draining(node.id, true);
        nodes.replace(&Node { weight: 7, ..node.clone() });
        let stored = serde_json::to_vec(&nodes).unwrap();
        let mut nodes: Nodes = serde_json::from_slice(&stored).unwrap();
        assert_eq!(nodes.draining(), [node.id]);
        assert_eq!((nodes.all()[0].available, nodes.placeable()[0].available), (true, false));
        nodes.set_draining(node.id, false);
        assert!(nodes.draining().is_empty() && nodes.placeable()[0].available);
        assert!(!String::from_utf8(serde_json::to_vec(&nodes).unwrap()).unwrap().contains("drain"));
    }
}
