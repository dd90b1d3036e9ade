// SPDX-License-Identifier: Apache-2.0
//! Where the shards of a volume should be, by its choices and the nodes of now, and the way there.
//!
//! ```text
//!   registered nodes, those that drain or do not answer --> Registry --+
//!   the volume's choices ---------------------------------> Chosen ----+--> Plan --> Arrangement --> the core
//!   where shards are: the core's map, else the state's ---> Layout ----+      \--> figures, for the operator
//! ```
//! A plan is made anew from where shards are, so that one which was interrupted goes on with what is left.

use distributed_core::{
    Arrangement, Mending, Mode, Node, NodeId, PlacementError, Plan, Present, ShardMap, Slot, Wish,
    mend, plan_with_shards_of,
};
use driver_api::{Abilities, Capabilities, Error, ErrorKind, Result};

use crate::{
    catalog::Nodes,
    cluster::writable,
    config::Chosen,
    driver::DistributedBackend,
    engine::{Engine, Purpose},
    mode,
    nodes::NODES_TURN,
    volume::capabilities,
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
    /// Those that are lost: nothing is read from them, and what they have is to be elsewhere.
    pub lost: Vec<NodeId>,
}

/// What an attached volume is to have.
struct Wanted {
    arrangement: Arrangement,
    bytes: u64,
    shards: u64,
}

impl Registry {
    /// These nodes, as the last health checks found them.
    pub fn new(backend: &DistributedBackend, registered: &Nodes) -> Self {
        let mut nodes = registered.all();
        for node in &mut nodes {
            node.available &= backend.0.checks.answers(node.id);
        }
        let lost = backend.0.checks.lost_nodes();
        Self { nodes, leaving: registered.draining(), lost }
    }

    /// Has a node get nothing.
    fn leave_out(&mut self, node: NodeId) {
        let nodes = self.nodes.iter_mut().filter(|other| other.id == node);
        nodes.for_each(|node| node.available = false);
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

    /// Plans what a volume should have, in shards of the size that is chosen for it.
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
        let whole = mode::is_whole(chosen);
        if whole {
            let gone: Vec<NodeId> =
                registry.lost.iter().chain(&registry.leaving).copied().collect();
            nodes = mode::whole_nodes(&layout, chosen, &nodes, &gone);
        }
        let (leaving, lost) = (registry.leaving.clone(), registry.lost.clone());
        let shard_size = chosen.shard_size;
        let planned = self.computed(layout, nodes, chosen, move |present, wish| {
            let plan = |leaving: &[NodeId]| {
                plan_with_shards_of(shard_size, present, &Wish { leaving, ..*wish })
            };
            let all: Vec<NodeId> = lost.iter().chain(&leaving).copied().collect();
            // Too few may be left: then lost nodes are listed until others come.
            plan(&all).or_else(|_| plan(&leaving))
        });
        planned.await.map_err(|error| error.with("volume", volume))
    }

    /// Plans where the replicas go that a volume had on lost nodes. Nodes that are emptied get nothing.
    ///
    /// # Errors
    /// `InvalidArgument` if the volume's map is not what it must be.
    pub(crate) async fn mend_volume(
        &self,
        volume: &str,
        layout: Layout,
        chosen: &Chosen,
        registry: &Registry,
    ) -> Result<Mending> {
        if mode::is_whole(chosen) {
            return self.mend_whole(volume, layout, chosen, registry).await;
        }
        let mut nodes = registry.of_volume(self, chosen)?;
        let drains = |node: &Node| registry.leaving.contains(&node.id);
        nodes.iter_mut().filter(|node| drains(node)).for_each(|node| node.available = false);
        // Those that the volume may not have bricks on are not lost for that.
        let others = registry.nodes.iter().filter(|node| !nodes.iter().any(|n| n.id == node.id));
        let others: Vec<Node> =
            others.map(|node| Node { available: false, ..node.clone() }).collect();
        nodes.extend(others);
        let lost = registry.lost.clone();
        let planned = self.computed(layout, nodes, chosen, move |present, wish| {
            mend(present, &Wish { leaving: &lost, ..*wish })
        });
        planned.await.map_err(|error| error.with("volume", volume))
    }

    /// The same for a volume with all of its shards on each of its nodes: another node takes the place of a lost one.
    async fn mend_whole(
        &self,
        volume: &str,
        layout: Layout,
        chosen: &Chosen,
        registry: &Registry,
    ) -> Result<Mending> {
        let holding = holding(&layout.map);
        let is_left = |slot: &Slot| {
            let node = layout.slots.get(slot.index()).copied().flatten();
            node.is_some_and(|node| !registry.lost.contains(&node))
        };
        let fewest = holding.iter().filter(is_left).count() as u32;
        let (slots, map) = (layout.slots.clone(), layout.map.clone());
        match self.plan_volume(volume, layout, chosen, registry).await {
            Ok(Plan { slots, map, moves }) => {
                let (bytes, shards) = (moves.bytes, moves.shards);
                Ok(Mending { slots, map, bytes, shards, fewest })
            }
            // Too few nodes are left: the lost one stays listed until another one comes.
            Err(error) if error.kind() == ErrorKind::INVALID_ARGUMENT => {
                Ok(Mending { slots, map, bytes: 0, shards: 0, fewest })
            }
            Err(error) => Err(error),
        }
    }

    /// Plans something for these nodes; of a million shards that holds a thread for a while.
    async fn computed<T: Send + 'static>(
        &self,
        layout: Layout,
        nodes: Vec<Node>,
        chosen: &Chosen,
        by: impl FnOnce(&Present<'_>, &Wish<'_>) -> Result<T, PlacementError> + Send + 'static,
    ) -> Result<T> {
        let (policy, factor) = (chosen.placement.into(), chosen.replication_factor);
        let planning = tokio::task::spawn_blocking(move || {
            let slots = each_node_once(&layout);
            let present = Present { slots: &slots, map: &layout.map, size: layout.size };
            let seed = layout.identity;
            by(&present, &Wish { policy, factor, nodes: &nodes, leaving: &[], seed })
        });
        let planned = planning
            .await
            .map_err(|why| Error::new(ErrorKind::PANIC, format!("the plan was not made: {why}")))?;
        planned.map_err(|why| Error::new(ErrorKind::INVALID_ARGUMENT, why.to_string()))
    }

    /// Begins to move an attached volume's shards to where they should be, and to split or merge them if they are to have
    /// another size.
    pub(crate) async fn rearrange(&self, volume: &str) -> Result<()> {
        self.order(volume, Purpose::Rebalance).await
    }

    /// Begins to move an attached volume's shards for this purpose, in the place of what was ordered before.
    pub(crate) async fn order(&self, volume: &str, purpose: Purpose) -> Result<()> {
        // No node is taken out between the plan and the order.
        let _turn = self.0.turns.take(NODES_TURN).await;
        let engine = writable(self.attached_engine(volume)?)?;
        let mut registry = Registry::new(self, &self.0.catalog.nodes().await?);
        let chosen = self.0.catalog.chosen(volume).await?;
        loop {
            let layout = self.layout(volume).await?;
            let (present, size) = (layout.slots.clone(), layout.size);
            let shard_size = layout.map.shard_size();
            let wanted = self.wanted(volume, layout, &chosen, &registry, purpose).await?;
            let stays = wanted.shards == 0 && wanted.arrangement.map.shard_size() == shard_size;
            if stays && engine.mode()? == Mode::Asynchronous {
                return engine.order_nothing();
            }
            let known = |id: &NodeId| registry.nodes.iter().find(|node| node.id == *id);
            let nodes = wanted.arrangement.nodes.iter().filter_map(known);
            let nodes: Vec<Node> = nodes.cloned().collect();
            let mut unfit = None;
            for node in nodes.iter().filter(|node| !present.contains(&Some(node.id))) {
                let checked = self.maker().check_node(node, size, &chosen).await;
                let checked = match checked {
                    Ok(()) => self.check_joining(&engine, node).await,
                    error => error,
                };
                unfit = checked.err().map(|error| (node.id, error));
                if unfit.is_some() {
                    break;
                }
            }
            match unfit {
                // Nobody chose the nodes that take the place of lost ones: another one will do.
                Some((node, error)) if purpose == Purpose::Mend => {
                    let why = format!("{error:#}");
                    tracing::info!(volume, why, "a node cannot replace a lost one for the volume");
                    registry.leave_out(node);
                }
                Some((_, error)) => return Err(error),
                None => {
                    let Wanted { arrangement, bytes, shards } = wanted;
                    self.arrange(&engine, &chosen, arrangement, nodes, purpose).await?;
                    tracing::info!(volume, bytes, shards, ?purpose, "shards are moved");
                    return Ok(());
                }
            }
        }
    }

    /// Where a volume's shards go for this purpose.
    async fn wanted(
        &self,
        volume: &str,
        layout: Layout,
        chosen: &Chosen,
        registry: &Registry,
        purpose: Purpose,
    ) -> Result<Wanted> {
        match purpose {
            Purpose::Rebalance => {
                let plan = self.plan_volume(volume, layout, chosen, registry).await?;
                let arrangement = renumbered(&plan.slots, &plan.map);
                Ok(Wanted { arrangement, bytes: plan.moves.bytes, shards: plan.moves.shards })
            }
            Purpose::Mend => {
                let mending = self.mend_volume(volume, layout, chosen, registry).await?;
                let arrangement = renumbered(&mending.slots, &mending.map);
                Ok(Wanted { arrangement, bytes: mending.bytes, shards: mending.shards })
            }
            Purpose::Stop => {
                let arrangement = renumbered(&layout.slots, &layout.map);
                Ok(Wanted { arrangement, bytes: 0, shards: 0 })
            }
        }
    }

    /// Ends the movement of an attached volume's shards where it is; those that are nearly there go on.
    pub(crate) async fn stop_moving(&self, volume: &str) -> Result<()> {
        if !writable(self.attached_engine(volume)?)?.progress()?.running {
            return Ok(());
        }
        self.order(volume, Purpose::Stop).await
    }

    /// Refuses a node whose backend cannot take what clients of an attached volume may send.
    async fn check_joining(&self, engine: &Engine, node: &Node) -> Result<()> {
        let sessions = engine.sessions()?;
        let promised: Capabilities =
            capabilities(sessions.iter().map(|session| &session.capabilities));
        let own = self.0.nodes.backend(node).await?.capabilities()?;
        let lacks = !own.abilities.has(Abilities::SNAPSHOT);
        if lacks && promised.has(Abilities::SNAPSHOT) && !engine.snapshots()?.is_empty() {
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "the node's backend has no snapshots, and the volume has some",
            )
            .with("node", &node.name)
            .with("volume", engine.volume())
            .remedy("leave the node out, or delete the volume's snapshots"));
        }
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
