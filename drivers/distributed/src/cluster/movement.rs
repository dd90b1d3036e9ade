// SPDX-License-Identifier: Apache-2.0
//! What would move, what moves, and options that say where to.

use std::collections::BTreeMap;

use distributed_core::{Capacity, Event, NodeId, Phase, Plan};
use driver_api::{
    Error, ErrorKind, RVec, Result,
    ext::{Movement, MovementPlan, NodeShare, NodeStep, NodeStepKind, Rebalancing},
};

use super::nodes::node_of;
use crate::{
    arrange::{Layout, Registry},
    catalog::Nodes,
    config::Chosen,
    driver::DistributedBackend,
    engine::Progress,
    error::no_volume,
    nodes::no_node,
};

impl DistributedBackend {
    /// What would move if these steps were taken.
    pub(super) async fn plan_movement(
        &self,
        volume: &str,
        steps: &[NodeStep],
    ) -> Result<MovementPlan> {
        let mut nodes = self.0.catalog.nodes().await?;
        let mut names: Names = names_of(&nodes);
        let mut leaving = Vec::new();
        for step in steps {
            self.take(step, &mut nodes, &mut leaving)?;
            names.extend(names_of(&nodes));
        }
        let mut registry = Registry::new(self, &nodes);
        registry.leaving.extend(leaving);
        let mut plan = MovementPlan::default();
        for name in self.planned(volume).await? {
            let (layout, chosen) = (self.layout(&name).await?, self.0.catalog.chosen(&name).await?);
            let movement = match self.movement(&name, layout, &chosen, &registry, &names).await {
                Ok(movement) => movement,
                Err(error) if error.kind() == ErrorKind::INVALID_ARGUMENT => {
                    let refused = error.to_string().into();
                    Movement { volume: name.as_str().into(), refused, ..Movement::default() }
                }
                Err(error) => return Err(error),
            };
            plan.volumes.push(movement);
        }
        plan.total = total(&plan.volumes);
        Ok(plan)
    }

    /// The volumes that are planned: the one named, or all that are there.
    async fn planned(&self, volume: &str) -> Result<Vec<String>> {
        let volumes = self.0.catalog.volumes().await?;
        let ready = volumes.into_iter().filter(|volume| volume.phase == Phase::Ready);
        let mut names: Vec<String> = ready.map(|ready| ready.volume).collect();
        if !volume.is_empty() {
            names.retain(|name| name == volume);
            if names.is_empty() {
                return Err(no_volume(volume));
            }
        }
        Ok(names)
    }

    /// Takes a step, in thought.
    fn take(&self, step: &NodeStep, nodes: &mut Nodes, leaving: &mut Vec<NodeId>) -> Result<()> {
        let name = step.node.name.as_str();
        if step.kind == NodeStepKind::ADD {
            let new = node_of(&step.node);
            self.0.nodes.driver_of(&new)?;
            if nodes.named(name).is_some() {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "the backend is a node already")
                    .with("node", name)
                    .remedy("leave it out, or ask for another --weight of it"));
            }
            nodes.add(new);
            return Ok(());
        }
        let mut node = nodes.named(name).ok_or_else(|| no_node(name))?;
        match step.kind {
            NodeStepKind::REMOVE => {
                leaving.push(node.id);
                nodes.remove(node.id);
            }
            NodeStepKind::DRAIN => nodes.set_draining(node.id, true),
            NodeStepKind::WEIGHT => {
                node.weight = step.node.weight;
                nodes.replace(&node);
            }
            _ => return Err(driver_api::ext::unsupported("this change of a node")),
        }
        Ok(())
    }

    async fn movement(
        &self,
        volume: &str,
        layout: Layout,
        chosen: &Chosen,
        registry: &Registry,
        names: &Names,
    ) -> Result<Movement> {
        // What is split or merged is counted in the smaller ones.
        let (shard_size, size) = (layout.map.shard_size().min(chosen.shard_size), layout.size);
        let plan = self.plan_volume(volume, layout, chosen, registry).await?;
        Ok(figures(volume, plan, size, shard_size, names))
    }

    /// How far an attached volume's movement is.
    pub(super) fn movement_of(&self, volume: &str) -> Result<Rebalancing> {
        let Progress { running, reason, status, copied, .. } =
            self.attached_engine(volume)?.progress()?;
        let answers = |node: NodeId| self.0.checks.answers(node);
        let leaving = status.condemned.iter().filter(|(_, node)| answers(*node)).count() as u64;
        Ok(Rebalancing {
            running,
            shards_left: status.misplaced,
            litter: status.litter,
            leaving,
            copied,
            shard_size: self.attached_engine(volume)?.shard_size()?,
            reason: reason.into(),
            ..Rebalancing::default()
        })
    }

    /// What would move if a volume's options were changed so.
    pub(super) async fn plan_options(
        &self,
        volume: &str,
        options: &[(String, String)],
    ) -> Result<Movement> {
        Ok(self.planned_with(volume, options).await?.movement)
    }

    /// Changes a volume's options, if it could be placed with them.
    pub(super) async fn change_options(
        &self,
        volume: &str,
        options: &[(String, String)],
    ) -> Result<()> {
        let _turn = self.0.turns.take(volume).await;
        let WithOptions { before, after, size, .. } = self.planned_with(volume, options).await?;
        let (had, has) = (before.replication_factor, after.replication_factor);
        let account = |provisioned| {
            let mut capacity = Capacity { limit: self.0.config.max_capacity, provisioned };
            capacity.release(size, had.saturating_sub(has));
            capacity.provision(size, has.saturating_sub(had)).map_err(|why| {
                Error::new(ErrorKind::NO_SPACE, why.to_string()).with("volume", volume)
            })?;
            Ok(capacity.provisioned)
        };
        self.0.catalog.choose(volume, &before, &after, account).await?;
        match self.engine(volume) {
            // What is chosen for one that is not attached counts when it is.
            None => Ok(()),
            Some(engine) => {
                engine.heal_at(after.pace(&self.0.config));
                engine.tell(vec![Event::VerifyReads(after.verify_reads)]);
                self.settle(&engine).await
            }
        }
    }

    /// A volume with other options, if it could be placed with them.
    async fn planned_with(
        &self,
        volume: &str,
        options: &[(String, String)],
    ) -> Result<WithOptions> {
        let layout = self.layout(volume).await?;
        let before = self.0.catalog.chosen(volume).await?;
        let after = before.changed(&self.0.config, layout.size, options);
        let after = after.map_err(|error| error.with("volume", volume))?;
        let nodes = self.0.catalog.nodes().await?;
        if let Some(name) = after.nodes.iter().find(|name| nodes.named(name).is_none()) {
            return Err(no_node(name).with("volume", volume));
        }
        let size = layout.size;
        let (registry, names) = (Registry::new(self, &nodes), names_of(&nodes));
        let movement = self.movement(volume, layout, &after, &registry, &names).await?;
        Ok(WithOptions { movement, before, after, size })
    }
}

/// What comes of other options.
struct WithOptions {
    before: Chosen,
    after: Chosen,
    movement: Movement,
    /// The volume's size in bytes.
    size: u64,
}

/// Nodes by number, also those that were taken out in thought.
type Names = BTreeMap<NodeId, String>;

fn names_of(nodes: &Nodes) -> Names {
    nodes.all().into_iter().map(|node| (node.id, node.name)).collect()
}

fn figures(volume: &str, plan: Plan, size: u64, shard_size: u64, names: &Names) -> Movement {
    let moves = plan.moves;
    let nodes = moves.nodes.iter().map(|share| NodeShare {
        node: names.get(&share.node).cloned().unwrap_or_else(|| share.node.to_string()).into(),
        before: share.before,
        after: share.after,
        ideal: share.ideal,
        reserved: [0; 2],
    });
    Movement {
        volume: volume.into(),
        bytes: moves.bytes,
        shards: moves.shards,
        shards_in_all: size.div_ceil(shard_size),
        shard_size,
        nodes: nodes.collect(),
        worst_before: moves.worst_before,
        worst_after: moves.worst_after,
        copies: moves.copies.into(),
        zone_violations_before: moves.zone_violations_before,
        zone_violations_after: moves.zone_violations_after,
        ..Movement::default()
    }
}

/// Volumes together.
fn total(volumes: &[Movement]) -> Movement {
    let mut total = Movement::default();
    let mut shares: BTreeMap<&str, NodeShare> = BTreeMap::new();
    for one in volumes.iter().filter(|one| one.refused.is_empty()) {
        total.bytes += one.bytes;
        total.shards += one.shards;
        total.shards_in_all += one.shards_in_all;
        total.shard_size = total.shard_size.max(one.shard_size);
        total.zone_violations_before += one.zone_violations_before;
        total.zone_violations_after += one.zone_violations_after;
        for (copies, shards) in one.copies.iter().enumerate() {
            if total.copies.len() <= copies {
                total.copies.push(0);
            }
            total.copies[copies] += shards;
        }
        for share in &one.nodes {
            let sum = shares
                .entry(share.node.as_str())
                .or_insert_with(|| NodeShare { node: share.node.clone(), ..NodeShare::default() });
            sum.before += share.before;
            sum.after += share.after;
            sum.ideal += share.ideal;
        }
    }
    for share in shares.values() {
        total.worst_before = total.worst_before.max(share.before.abs_diff(share.ideal));
        total.worst_after = total.worst_after.max(share.after.abs_diff(share.ideal));
    }
    total.nodes = shares.into_values().collect::<RVec<_>>();
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(node: &str, before: u64, after: u64, ideal: u64) -> NodeShare {
        NodeShare { node: node.into(), before, after, ideal, reserved: [0; 2] }
    }

    #[test]
    fn the_figures_of_volumes_are_added_but_for_those_that_cannot_be_placed() {
        let one = Movement {
            bytes: 4,
            shards: 2,
            copies: vec![0, 1].into(),
            nodes: vec![share("a", 8, 4, 4), share("b", 0, 4, 4)].into(),
            ..Movement::default()
        };
        let two = Movement {
            bytes: 1,
            shards: 1,
            copies: vec![0, 0, 3].into(),
            nodes: vec![share("a", 0, 1, 2)].into(),
            ..Movement::default()
        };
        let refused = Movement { refused: "no".into(), bytes: 100, ..Movement::default() };
        let sum = total(&[one, refused, two]);
        assert_eq!((sum.bytes, sum.shards, &sum.copies[..]), (5, 3, &[0, 1, 3][..]));
        assert_eq!(&sum.nodes[..], [share("a", 8, 5, 6), share("b", 0, 4, 4)]);
        assert_eq!((sum.worst_before, sum.worst_after), (4, 1));
    }
}
