// SPDX-License-Identifier: Apache-2.0
//! Nodes, as operators see and change them.

use distributed_core::{BrickId, Descriptor, Node, NodeId, Phase, ShardMap, Slot, SlotSet};
use driver_api::{
    Error, ErrorKind, ROption, RVec, Result,
    ext::{NodeChange, NodeInfo, NodeSpec},
};

use crate::{
    catalog::Nodes,
    driver::DistributedBackend,
    names::base,
    nodes::{NODES_TURN, no_node, volumes_on},
};

/// What nodes carry, and which are drained.
struct Load {
    volumes: Vec<(Descriptor, ShardMap)>,
    draining: Vec<NodeId>,
}

impl Load {
    async fn of(backend: &DistributedBackend) -> Result<Self> {
        let catalog = &backend.0.catalog;
        let mut volumes = Vec::new();
        for descriptor in catalog.volumes().await? {
            // One that is being made or deleted may have no map.
            if descriptor.phase == Phase::Ready {
                volumes.extend(catalog.located(&descriptor.volume).await?);
            }
        }
        Ok(Self { volumes, draining: catalog.nodes().await?.draining() })
    }

    /// Bytes of the shards that a node has.
    fn on(&self, node: NodeId) -> u64 {
        let of_volume = |(descriptor, map): &(Descriptor, ShardMap)| -> u64 {
            let slots = (0..).map(Slot).zip(&descriptor.bricks);
            let here = slots
                .filter(|(_, entry)| entry.node == node && !entry.vacant)
                .map(|(slot, _)| slot);
            let here: SlotSet = here.collect();
            let pieces = map.pieces(0, descriptor.size);
            pieces.filter(|(_, _, set)| !set.and(here).is_empty()).map(|(_, len, _)| len).sum()
        };
        self.volumes.iter().map(of_volume).sum()
    }
}

impl DistributedBackend {
    /// All nodes, by name.
    pub(super) async fn list_nodes(&self) -> Result<RVec<NodeInfo>> {
        let mut nodes = self.0.catalog.nodes().await?.all();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        let load = Load::of(self).await?;
        let mut infos = RVec::new();
        for node in &nodes {
            infos.push(self.describe_node(node, &load).await);
        }
        Ok(infos)
    }

    /// Registers a backend as a node.
    pub(super) async fn add(&self, spec: &NodeSpec) -> Result<NodeInfo> {
        let new = node_of(spec);
        // A backend that is not configured, not open, or this one, cannot be a node.
        self.0.nodes.driver_of(&new)?;
        self.0.nodes.backend(&new).await?;
        let added = self.0.catalog.change_nodes(|nodes| match nodes.named(&new.name) {
            None => Ok(nodes.add(new.clone())),
            Some(known) if (Node { id: known.id, ..new.clone() }) == known => Ok(known),
            Some(_) => Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                "the backend is a node already, of which other things are said",
            )
            .with("node", &new.name)
            .remedy("change them with: novastor node set")),
        });
        let added = added.await?;
        Ok(self.describe_node(&added, &Load::of(self).await?).await)
    }

    /// Changes a node with `change`, and gives what it is then.
    async fn change(&self, name: &str, change: impl Fn(&mut Nodes, &mut Node)) -> Result<NodeInfo> {
        let changed = self.0.catalog.change_nodes(|nodes| {
            let mut node = nodes.named(name).ok_or_else(|| no_node(name))?;
            change(nodes, &mut node);
            nodes.replace(&node);
            Ok(node)
        });
        let changed = changed.await?;
        Ok(self.describe_node(&changed, &Load::of(self).await?).await)
    }

    /// Changes what is said of a node.
    pub(super) async fn set(&self, name: &str, change: &NodeChange) -> Result<NodeInfo> {
        self.change(name, |_, node| apply(change, node)).await
    }

    /// Marks a node as one to be emptied, or takes the mark away.
    pub(super) async fn set_draining(&self, name: &str, on: bool) -> Result<NodeInfo> {
        self.change(name, |nodes, node| nodes.set_draining(node.id, on)).await
    }

    /// Takes out a node that holds nothing, nor is about to.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        // No volume is given bricks there meanwhile.
        let _turn = self.0.turns.take(NODES_TURN).await;
        let catalog = &self.0.catalog;
        let node = catalog.nodes().await?.named(name).ok_or_else(|| no_node(name))?;
        // Volumes that are made meanwhile find the node unavailable.
        let retire = |nodes: &mut Nodes| {
            nodes.replace(&Node { available: false, ..node.clone() });
            Ok(())
        };
        catalog.change_nodes(retire).await?;
        let volumes = catalog.volumes().await?;
        let mut holding = volumes_on(node.id, &volumes);
        let engines = self.attached();
        let wanting = engines.iter().filter(|engine| engine.is_moving_to(node.id));
        holding.extend(wanting.map(|engine| engine.volume()));
        holding.sort_unstable();
        holding.dedup();
        if holding.is_empty() {
            let forget = |nodes: &mut Nodes| {
                nodes.remove(node.id);
                Ok(())
            };
            return catalog.change_nodes(forget).await;
        }
        let restore = |nodes: &mut Nodes| {
            nodes.replace(&node);
            Ok(())
        };
        catalog.change_nodes(restore).await?;
        let each = if holding.len() == 1 { holding[0] } else { "VOLUME for each of them" };
        Err(Error::new(ErrorKind::IN_USE, "volumes have bricks on the node")
            .with("node", name)
            .with("volumes", holding.join(", "))
            .remedy(format!(
                "novastor node drain {name}, then novastor volume rebalance {each}, then remove it"
            )))
    }

    async fn describe_node(&self, node: &Node, load: &Load) -> NodeInfo {
        let draining = if load.draining.contains(&node.id) { NodeInfo::DRAINING } else { 0 };
        let provisioned = load.on(node.id);
        // A node that does not answer has bricks of which nothing is known.
        let used = self.used_on(node, load).await.unwrap_or_default();
        NodeInfo {
            id: node.id.0,
            spec: spec_of(node),
            health: self.0.checks.health(node.id),
            used,
            provisioned,
            reserved: [draining, 0, 0, 0],
        }
    }

    async fn used_on(&self, node: &Node, load: &Load) -> Result<u64> {
        let lent = self.0.nodes.backend(node).await?;
        let bases = load.volumes.iter().map(|(volume, _)| base(&volume.volume, volume.identity));
        let bases: Vec<String> = bases.collect();
        let volumes = lent.list(&self.0.nodes.context()).await?;
        let ours = volumes.iter().filter(|volume| {
            bases.iter().any(|base| BrickId::from_name(base, &volume.name).is_some())
        });
        Ok(ours.map(|volume| volume.used).sum())
    }
}

/// The node that a spec describes, without a number yet.
pub(super) fn node_of(spec: &NodeSpec) -> Node {
    Node {
        id: NodeId(0),
        name: spec.name.to_string(),
        role: spec.role.to_string(),
        address: spec.address.to_string(),
        port: spec.port,
        zone: spec.zone.to_string(),
        weight: spec.weight,
        available: spec.available,
    }
}

fn spec_of(node: &Node) -> NodeSpec {
    NodeSpec {
        role: node.role.as_str().into(),
        address: node.address.as_str().into(),
        port: node.port,
        zone: node.zone.as_str().into(),
        weight: node.weight,
        available: node.available,
        ..NodeSpec::new(&node.name)
    }
}

fn apply(change: &NodeChange, node: &mut Node) {
    fn set<T: Clone, U: From<T>>(to: &ROption<T>, field: &mut U) {
        if let ROption::RSome(value) = to {
            *field = value.clone().into();
        }
    }
    set(&change.role, &mut node.role);
    set(&change.address, &mut node.address);
    set(&change.port, &mut node.port);
    set(&change.zone, &mut node.zone);
    set(&change.weight, &mut node.weight);
    set(&change.available, &mut node.available);
}
