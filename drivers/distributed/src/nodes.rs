// SPDX-License-Identifier: Apache-2.0
//! The operator's nodes: registered, changed, taken out.

use distributed_core::{Descriptor, Node, NodeId};
use driver_api::{Error, ErrorKind, Result};

use crate::catalog::Catalog;

/// The weight of a node that was registered without one.
const WEIGHT: u32 = 100;

/// The turn of whoever takes a node out, or gives bricks to nodes that are registered. No volume has this name.
pub(crate) const NODES_TURN: &str = "/nodes";

/// A node that nothing is said of but its backend's name.
pub(crate) fn plain(name: &str) -> Node {
    Node {
        id: NodeId(0),
        name: name.to_owned(),
        role: "storage".to_owned(),
        address: String::new(),
        port: 0,
        zone: String::new(),
        weight: WEIGHT,
        available: true,
    }
}

/// Registers these backends where they are not yet, but for those that the operator took out.
pub(crate) async fn register(catalog: &Catalog, names: &[String]) -> Result<()> {
    if let Some(name) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "a backend is named twice as a node")
            .with("node", name.1)
            .remedy("remove it once from `nodes`: its replicas would fail together"));
    }
    let known = catalog.nodes().await?;
    for node in names.iter().filter(|name| known.was_removed(name)) {
        tracing::warn!(
            node,
            "a node that was removed is still named in `nodes`: it stays out until `novastor node add`"
        );
    }
    if names.iter().all(|name| known.named(name).is_some() || known.was_removed(name)) {
        return Ok(());
    }
    let missing = |nodes: &mut crate::catalog::Nodes| {
        for name in names {
            if nodes.named(name).is_none() && !nodes.was_removed(name) {
                nodes.add(plain(name));
            }
        }
        Ok(())
    };
    catalog.change_nodes(missing).await
}

/// There is no such node.
pub(crate) fn no_node(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "there is no node of this name")
        .with("node", name)
        .remedy("novastor node list shows which there are")
}

/// The volumes that have bricks on a node.
pub(crate) fn volumes_on(node: NodeId, volumes: &[Descriptor]) -> Vec<&str> {
    let has = |volume: &&Descriptor| {
        volume.bricks.iter().any(|entry| entry.node == node && !entry.vacant)
            || volume.condemned.iter().chain(&volume.keepers).any(|(_, other)| *other == node)
    };
    volumes.iter().filter(has).map(|volume| volume.volume.as_str()).collect()
}
