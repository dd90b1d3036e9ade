// SPDX-License-Identifier: Apache-2.0
//! The mode that was chosen for a volume, and the way to it: a change is in force once everything under way is done, and
//! an asynchronous volume has all of its shards on each of its nodes first. While they are moved it replicates synchronously.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use distributed_core::{
    Arrangement, Configuration, Mode, Node, NodeId, ShardMap, Slot, SlotSet, Snapshot,
};
use driver_api::{Error, ErrorKind, OpContext, Result};

use crate::{
    arrange::Layout,
    config::Chosen,
    driver::DistributedBackend,
    engine::{Engine, Purpose},
};

/// Between two attempts to have a volume in the mode that was chosen.
const SETTLING: Duration = Duration::from_secs(1);

impl DistributedBackend {
    /// Has an attached volume behave as was chosen, now or as soon as it can: its shards may first have to be moved.
    pub(crate) async fn settle(&self, engine: &Arc<Engine>) -> Result<()> {
        let chosen = self.0.catalog.chosen(engine.volume()).await?;
        engine.set_readers(chosen.consistency.into());
        if !engine.writable {
            return Ok(());
        }
        let wanted = chosen.configuration(&self.0.config);
        let Err(refused) = behave(engine, &chosen, wanted).await else { return Ok(()) };
        if refused.kind() != ErrorKind::INVALID_ARGUMENT {
            return Err(refused);
        }
        let (volume, why) = (engine.volume(), refused.to_string());
        tracing::info!(volume, why, "the volume is to behave otherwise, and cannot yet");
        // What does not depend on the mode need not wait for it.
        let mode = engine.mode()?;
        if let Err(error) = engine.configure(Configuration { mode, ..wanted }).await {
            tracing::debug!(volume, %error, "nor with its bounds alone");
        }
        self.settle_in_time(engine);
        Ok(())
    }

    /// Has a volume behave as was chosen once it can.
    fn settle_in_time(&self, engine: &Arc<Engine>) {
        if engine.begin_settling() {
            tokio::spawn(settle_later(self.clone(), Arc::downgrade(engine)));
        }
    }

    /// Has an asynchronous volume replicate synchronously for a while; whether it did not before. The caller has the mode's
    /// turn, and whatever becomes of it, the volume behaves as was chosen again once it can.
    async fn switch_for_a_while(&self, engine: &Arc<Engine>, chosen: &Chosen) -> Result<bool> {
        if engine.mode()? == Mode::Synchronous {
            return Ok(false);
        }
        self.settle_in_time(engine);
        let wanted = chosen.configuration(&self.0.config);
        engine.configure(Configuration { mode: Mode::Synchronous, ..wanted }).await?;
        Ok(true)
    }

    /// Takes a snapshot that every replica has which can be had in sync: an asynchronous volume replicates synchronously for
    /// that moment.
    pub(crate) async fn snapshot(
        &self,
        cx: &OpContext,
        engine: &Arc<Engine>,
        name: &str,
    ) -> Result<Snapshot> {
        let chosen = self.0.catalog.chosen(engine.volume()).await?;
        let turn = engine.mode_turn().await;
        let is_switched = self.switch_for_a_while(engine, &chosen).await?;
        let taken = engine.snapshot(cx, name).await;
        drop(turn);
        // At once, and otherwise in time.
        if is_switched && let Err(error) = self.settle(engine).await {
            let volume = engine.volume();
            tracing::warn!(volume, %error, "the volume stays synchronous after a snapshot for a while");
        }
        taken
    }

    /// Begins to move a volume's shards. An asynchronous one replicates synchronously until they are where they are to be.
    pub(crate) async fn arrange(
        &self,
        engine: &Arc<Engine>,
        chosen: &Chosen,
        arrangement: Arrangement,
        nodes: Vec<Node>,
        purpose: Purpose,
    ) -> Result<()> {
        let _turn = engine.mode_turn().await;
        if self.switch_for_a_while(engine, chosen).await? {
            let volume = engine.volume();
            tracing::info!(volume, "the volume replicates synchronously while its shards move");
        }
        engine.arrange(&self.0.nodes.context(), arrangement, nodes, purpose)
    }
}

/// Has a volume behave so. In asynchronous mode it gains no replicas: one that was just put back to a snapshot, or cloned,
/// has to get them first.
async fn behave(engine: &Arc<Engine>, chosen: &Chosen, wanted: Configuration) -> Result<()> {
    let _turn = engine.mode_turn().await;
    let status = engine.status()?;
    let switches = wanted.mode == Mode::Asynchronous && status.mode == Mode::Synchronous;
    if switches && status.bricks.len() < chosen.replication_factor as usize {
        return Err(Error::new(
            ErrorKind::INVALID_ARGUMENT,
            "the volume has fewer replicas than are chosen for it",
        )
        .with("volume", engine.volume())
        .remedy("rebalance it: novastor volume rebalance"));
    }
    engine.configure(wanted).await
}

/// Tries until the volume behaves as is chosen, or is attached no more.
async fn settle_later(backend: DistributedBackend, engine: Weak<Engine>) {
    loop {
        tokio::time::sleep(SETTLING).await;
        let Some(engine) = engine.upgrade().filter(|engine| !engine.is_closed()) else { return };
        let volume = engine.volume();
        let chosen = match backend.0.catalog.chosen(volume).await {
            Ok(chosen) => chosen,
            Err(error) => {
                tracing::warn!(volume, %error, "the volume's options cannot be read, and are tried again");
                continue;
            }
        };
        let wanted = chosen.configuration(&backend.0.config);
        match behave(&engine, &chosen, wanted).await {
            Err(error) if error.kind() == ErrorKind::INVALID_ARGUMENT => continue,
            Err(error) => tracing::warn!(volume, %error, "the volume does not behave as is chosen"),
            Ok(()) => {
                tracing::info!(volume, mode = ?wanted.mode, "the volume behaves as is chosen")
            }
        }
        engine.end_settling();
        // Whoever chose otherwise meanwhile may have left the rest to this task.
        let again = backend.0.catalog.chosen(volume).await;
        let is_chosen = again.is_ok_and(|now| now.configuration(&backend.0.config) == wanted);
        if is_chosen || !engine.begin_settling() {
            return;
        }
    }
}

/// The nodes that an asynchronous volume is to have, each of which holds all of it: no more than replicas, in different
/// zones while there are some, and those that hold most of it now. Less than that if there are not enough.
pub(crate) fn whole_nodes(
    layout: &Layout,
    chosen: &Chosen,
    nodes: &[Node],
    leaving: &[NodeId],
) -> Vec<Node> {
    let held = |node: &Node| {
        let slot = layout.slots.iter().position(|slot| *slot == Some(node.id));
        let has =
            |slot: Slot| (0..layout.map.len()).filter(|n| layout.map.set(*n).has(slot)).count();
        slot.map_or(0, |slot| has(Slot(slot as u8)))
    };
    // One that does not answer keeps what it has until it is lost.
    let usable = |(held, node): &(usize, &Node)| {
        let may_stay = node.available || *held > 0;
        node.weight > 0 && may_stay && !leaving.contains(&node.id)
    };
    let mut left: Vec<(usize, &Node)> =
        nodes.iter().map(|node| (held(node), node)).filter(usable).collect();
    left.sort_by_key(|(held, node)| (std::cmp::Reverse(*held), node.id));
    let mut whole: Vec<Node> = Vec::new();
    while whole.len() < chosen.replication_factor as usize && !left.is_empty() {
        let is_apart =
            |node: &Node| node.zone.is_empty() || whole.iter().all(|other| other.zone != node.zone);
        let next = left.iter().position(|(_, node)| is_apart(node)).unwrap_or(0);
        whole.push(left.remove(next).1.clone());
    }
    whole
}

/// A map with every shard in every slot.
pub(crate) fn uniform(shard_size: u64, size: u64, slots: usize) -> ShardMap {
    let all: SlotSet = (0..slots).map(|slot| Slot(slot as u8)).collect();
    ShardMap::uniform(shard_size, size.div_ceil(shard_size), all)
}

/// Whether a volume of these choices has all of its shards on each of its nodes.
pub(crate) fn is_whole(chosen: &Chosen) -> bool {
    chosen.mode() == Mode::Asynchronous
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, zone: &str) -> Node {
        Node { id: NodeId(id), zone: zone.to_owned(), ..crate::nodes::plain(&format!("n{id}")) }
    }

    fn chosen(factor: u32) -> Chosen {
        let stored = serde_json::json!({
            "replication_factor": factor, "shard_size": 1 << 20, "consistency": "causal",
            "synchronous": false, "nodes": [],
        });
        serde_json::from_value(stored).unwrap()
    }

    #[test]
    fn a_whole_volume_stays_where_most_of_it_is_and_in_zones_apart() {
        let set = |slots: &[u8]| slots.iter().map(|slot| Slot(*slot)).collect::<SlotSet>();
        let map = ShardMap::from_sets(1 << 20, [set(&[0, 1]), set(&[1, 2]), set(&[1, 2])]).unwrap();
        let slots = vec![Some(NodeId(1)), Some(NodeId(2)), Some(NodeId(3))];
        let layout = Layout { slots, map, size: 3 << 20, identity: 1 };
        let ids = |nodes: &[Node], factor, leaving: &[NodeId]| -> Vec<u32> {
            let whole = whole_nodes(&layout, &chosen(factor), nodes, leaving);
            whole.iter().map(|node| node.id.0).collect()
        };
        let apart = [node(1, ""), node(2, ""), node(3, ""), node(4, "")];
        assert_eq!(ids(&apart, 2, &[]), [2, 3]);
        assert_eq!(ids(&apart, 2, &[NodeId(2)]), [3, 1]);
        assert_eq!(ids(&apart, 5, &[]), [2, 3, 1, 4], "as many as there are");
        let away = |id| Node { available: false, ..node(id, "") };
        let some_away = [node(1, ""), node(2, ""), away(3), away(4), node(5, "")];
        assert_eq!(ids(&some_away, 5, &[]), [2, 3, 1, 5], "who has something stays");
        assert_eq!(ids(&some_away, 3, &[NodeId(3)]), [2, 1, 5], "unless it is lost");
        let zones = [node(1, "b"), node(2, "a"), node(3, "a"), node(4, "b")];
        assert_eq!(ids(&zones, 2, &[]), [2, 1]);
        assert_eq!(ids(&zones, 3, &[]), [2, 1, 3], "a zone twice once all have one");
    }

    #[test]
    fn a_uniform_map_has_every_shard_in_every_slot() {
        let map = uniform(1 << 20, (3 << 20) + 1, 2);
        assert_eq!((map.len(), map.set(3).len()), (4, 2));
    }
}
