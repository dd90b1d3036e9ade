// SPDX-License-Identifier: Apache-2.0
//! Where the shards of a volume should be, by its choices and the nodes of now, and the way there.
//!
//! ```text
//!   registered nodes, those that drain or do not answer --> Registry --+
//!   the volume's choices ---------------------------------> Chosen ----+--> Plan --> Arrangement --> the core
//!   where shards are: the core's map, else the state's ---> Layout ----+      \--> figures, for the operator
//! ```
//! A plan is made anew from where shards are, so that one which was interrupted goes on with what is left.

use distributed_core::{Arrangement, Node, NodeId, Plan, Present, ShardMap, Slot, Wish, plan};
use driver_api::{Capabilities, Error, ErrorKind, Result};

use crate::{
    catalog::Nodes, cluster::writable, config::Chosen, driver::DistributedBackend, engine::Engine,
    mode, nodes::NODES_TURN, volume::capabilities,
};

/// Where a volume's shards are.
pub(crate) struct Layout {
    /// The node of each slot.
    pub slots: Vec<Option<NodeId>>,
    /// The slots of each shard.
    pub map: ShardMap,
    /// Bytes.
    pub size: u64,
    /// The volume's identity.
    pub identity: u64,
}

/// The nodes that plans are made for.
#[derive(Clone)]
pub(crate) struct Registry {
    /// All of them. Those that do not answer get nothing.
    pub nodes: Vec<Node>,
    /// Those that are emptied.
    pub leaving: Vec<NodeId>,
}

impl Registry {
    /// These nodes, as the last health checks found them.
    pub fn new(backend: &DistributedBackend, registered: &Nodes) -> Self {
        let mut nodes = registered.all();
        for node in &mut nodes {
            node.available &= backend.0.checks.answers(node.id);
        }
        Self { nodes, leaving: registered.draining() }
    }

    /// Those that a volume may have bricks on.
    fn of_volume(&self, backend: &DistributedBackend, chosen: &Chosen) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for node in &self.nodes {
            let is_named = chosen.nodes.is_empty() || chosen.nodes.contains(&node.name);
            let fits = chosen.drivers.is_empty()
                || is_named && chosen.drivers.contains(&backend.0.nodes.driver_of(node)?);
            if is_named && fits {
                nodes.push(node.clone());
            }
        }
        Ok(nodes)
    }
}

impl DistributedBackend {
    /// Where a volume's shards are: what its engine knows, else what was stored.
    pub(crate) async fn layout(&self, volume: &str) -> Result<Layout> {
        let (descriptor, map) = self.look_up(volume).await?;
        let identity = descriptor.identity;
        if let Some(engine) = self.engine(volume) {
            let (slots, map, size) = engine.layout()?;
            return Ok(Layout { slots, map, size, identity });
        }
        let slots = descriptor.bricks.iter().map(|entry| (!entry.vacant).then_some(entry.node));
        Ok(Layout { slots: slots.collect(), map, size: descriptor.size, identity })
    }

    /// Plans what a volume should have.
    ///
    /// # Errors
    /// `InvalidArgument` if it cannot be placed so.
    pub(crate) async fn plan_volume(
        &self,
        volume: &str,
        layout: Layout,
        chosen: &Chosen,
        registry: &Registry,
    ) -> Result<Plan> {
        let mut nodes = registry.of_volume(self, chosen)?;
        if mode::is_whole(chosen) {
            nodes = mode::whole_nodes(&layout, chosen, &nodes, &registry.leaving);
        }
        let (leaving, chosen) = (registry.leaving.clone(), chosen.clone());
        // A plan of a million shards holds a thread for a while.
        let planning = tokio::task::spawn_blocking(move || {
            let slots = each_node_once(&layout);
            let present = Present { slots: &slots, map: &layout.map, size: layout.size };
            let wish = Wish {
                policy: chosen.placement.into(),
                factor: chosen.replication_factor,
                nodes: &nodes,
                leaving: &leaving,
                seed: layout.identity,
            };
            plan(&present, &wish)
        });
        let planned = planning.await.map_err(|why| {
            Error::new(ErrorKind::PANIC, format!("the plan was not made: {why}"))
                .with("volume", volume)
        })?;
        planned.map_err(|why| {
            Error::new(ErrorKind::INVALID_ARGUMENT, why.to_string()).with("volume", volume)
        })
    }

    /// Begins to move an attached volume's shards to where they should be.
    pub(crate) async fn rearrange(&self, volume: &str) -> Result<()> {
        // No node is taken out between the plan and the order.
        let _turn = self.0.turns.take(NODES_TURN).await;
        let engine = writable(self.attached_engine(volume)?)?;
        let registry = Registry::new(self, &self.0.catalog.nodes().await?);
        let chosen = self.0.catalog.chosen(volume).await?;
        let layout = self.layout(volume).await?;
        let (present, size) = (layout.slots.clone(), layout.size);
        let plan = self.plan_volume(volume, layout, &chosen, &registry).await?;
        let arrangement = arrangement(&plan);
        let known = |id: &NodeId| registry.nodes.iter().find(|node| node.id == *id);
        let nodes: Vec<Node> = arrangement.nodes.iter().filter_map(known).cloned().collect();
        for node in nodes.iter().filter(|node| !present.contains(&Some(node.id))) {
            self.maker().check_node(node, size, &chosen).await?;
            self.check_joining(&engine, node).await?;
        }
        let (bytes, shards) = (plan.moves.bytes, plan.moves.shards);
        engine.arrange(&self.0.nodes.context(), arrangement, nodes)?;
        tracing::info!(volume, bytes, shards, "shards are moved to where they should be");
        Ok(())
    }

    /// Ends the movement of an attached volume's shards where it is.
    pub(crate) async fn stop_moving(&self, volume: &str) -> Result<()> {
        let _turn = self.0.turns.take(NODES_TURN).await;
        let engine = writable(self.attached_engine(volume)?)?;
        if !engine.progress()?.running {
            return Ok(());
        }
        let (slots, map, _) = engine.layout()?;
        let arrangement = renumbered(&slots, &map);
        let nodes = arrangement.nodes.iter().filter_map(|id| engine.node(*id)).collect();
        engine.arrange(&self.0.nodes.context(), arrangement, nodes)
    }

    /// Refuses a node whose backend cannot take what clients of an attached volume may send.
    async fn check_joining(&self, engine: &Engine, node: &Node) -> Result<()> {
        let sessions = engine.sessions()?;
        let promised: Capabilities =
            capabilities(sessions.iter().map(|session| &session.capabilities));
        let own = self.0.nodes.backend(node).await?.capabilities()?;
        if own.min_block <= promised.min_block && own.max_io >= promised.max_io {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::INVALID_ARGUMENT,
            "the node's backend has larger blocks, or shorter operations, than the volume promised its clients",
        )
        .with("node", &node.name)
        .with("volume", engine.volume())
        .remedy(format!(
            "leave the node out, by the names of the others: novastor volume set {} nodes=NAME,NAME",
            engine.volume()
        )))
    }
}

/// The slots with each node in one of them: a node whose brick is being deleted has two while it gets another.
fn each_node_once(layout: &Layout) -> Vec<Option<NodeId>> {
    let holding = holding(&layout.map);
    let mut slots = layout.slots.clone();
    for index in 0..slots.len() {
        let twice = (0..slots.len()).any(|other| other != index && slots[other] == slots[index]);
        if twice && !holding.has(Slot(index as u8)) {
            slots[index] = None;
        }
    }
    slots
}

/// The slots that hold a shard.
fn holding(map: &ShardMap) -> distributed_core::SlotSet {
    map.sets().fold(distributed_core::SlotSet::EMPTY, distributed_core::SlotSet::or)
}

/// What the core is told for this plan.
fn arrangement(plan: &Plan) -> Arrangement {
    renumbered(&plan.slots, &plan.map)
}

/// A map over the nodes that hold something.
fn renumbered(slots: &[Option<NodeId>], map: &ShardMap) -> Arrangement {
    let used: Vec<Slot> = holding(map).iter().collect();
    let nodes = used.iter().filter_map(|slot| slots.get(slot.index()).copied().flatten());
    let nodes: Vec<NodeId> = nodes.collect();
    let place = |slot: Slot| used.iter().position(|other| *other == slot);
    let map = map.renumbered(|slot| place(slot).map(|place| Slot(place as u8)));
    Arrangement { nodes, map }
}

#[cfg(test)]
mod tests {
    use distributed_core::SlotSet;

    use super::*;

    fn set(slots: &[u8]) -> SlotSet {
        slots.iter().map(|slot| Slot(*slot)).collect()
    }

    #[test]
    fn an_arrangement_names_the_nodes_that_hold_something() {
        let slots = [Some(NodeId(7)), None, Some(NodeId(4)), Some(NodeId(9))];
        let map = ShardMap::from_sets(1 << 20, [set(&[0, 3]), set(&[3])]).unwrap();
        let told = renumbered(&slots, &map);
        assert_eq!(told.nodes, [NodeId(7), NodeId(9)]);
        assert_eq!((told.map.set(0), told.map.set(1)), (set(&[0, 1]), set(&[1])));
        assert_eq!(told.map.shard_size(), 1 << 20);
    }

    #[test]
    fn a_node_with_two_bricks_counts_with_the_one_that_holds_something() {
        let map = ShardMap::uniform(1 << 20, 4, set(&[1, 2]));
        let slots = vec![Some(NodeId(1)), Some(NodeId(1)), Some(NodeId(2))];
        let layout = Layout { slots, map, size: 4 << 20, identity: 1 };
        assert_eq!(each_node_once(&layout), [None, Some(NodeId(1)), Some(NodeId(2))]);
    }
}
