// SPDX-License-Identifier: Apache-2.0
//! Another node of an asynchronous volume acknowledges, and what that loses.

use distributed_core::{Behind, Configuration, Descriptor, Loss, Mode, NodeId, Point, Status};
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Lag, Promote, Promotion},
};

use crate::{catalog::Nodes, driver::DistributedBackend, engine::Engine, session::token};

impl DistributedBackend {
    /// Tells what a promotion would lose, or does it.
    pub(crate) async fn promote_node(&self, volume: &str, how: &Promote) -> Result<Promotion> {
        let _turn = self.0.turns.take(volume).await;
        let nodes = self.0.catalog.nodes().await?;
        match self.engine(volume) {
            Some(engine) => promote_attached(&engine, &nodes, how).await,
            None => self.promote_at_attach(volume, &nodes, how).await,
        }
    }

    /// Of a volume that is not attached only its record is known.
    async fn promote_at_attach(
        &self,
        volume: &str,
        nodes: &Nodes,
        how: &Promote,
    ) -> Result<Promotion> {
        let (descriptor, _) = self.look_up(volume).await?;
        if descriptor.mode == Mode::Synchronous {
            return Err(synchronous(volume));
        }
        let head = head_of(&descriptor);
        let holds = |node: NodeId| {
            let mut bricks = descriptor.bricks.iter().filter(|entry| !entry.vacant);
            bricks.any(|entry| entry.node == node)
        };
        if how.node.is_empty() {
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "the volume is not attached: which of its nodes lacks least is not known",
            )
            .with("volume", volume)
            .remedy("name the node: novastor volume replicas shows them, --node NODE"));
        }
        let node = named(nodes, &how.node, volume)?;
        if !holds(node) || Some(node) == head {
            return Err(no_follower(volume, &how.node));
        }
        let Configuration { most_behind_bytes, most_behind_ns, .. } =
            self.0.catalog.chosen(volume).await?.configuration(&self.0.config);
        if !how.dry_run {
            self.wish_promotion(volume, node);
        }
        Ok(Promotion {
            node: how.node.clone(),
            before: head.map(|head| nodes.name_of(head)).unwrap_or_default().into(),
            lost: Lag { writes: 0, bytes: most_behind_bytes, age_ns: most_behind_ns },
            note: "the host that acknowledged last is not asked: what it alone knew is lost".into(),
            ..Promotion::default()
        })
    }
}

async fn promote_attached(
    engine: &std::sync::Arc<Engine>,
    nodes: &Nodes,
    how: &Promote,
) -> Result<Promotion> {
    let volume = engine.volume();
    let status = engine.status()?;
    if status.mode == Mode::Synchronous {
        return Err(synchronous(volume));
    }
    if !status.is_headless {
        let head = status.acknowledging.map(|node| nodes.name_of(node)).unwrap_or_default();
        return Err(Error::new(
            ErrorKind::INVALID_ARGUMENT,
            "the acknowledging node answers: there is nothing to promote, and nothing to lose",
        )
        .with("volume", volume)
        .with("node", head)
        .remedy(format!(
            "to have another acknowledge: novastor volume set {volume} synchronous_replication=true, and false once all are in sync"
        )));
    }
    let (node, behind) = chosen_follower(&status, nodes, how, volume)?;
    let mut promotion = Promotion {
        node: nodes.name_of(node).into(),
        before: engine.lost_head().map(|node| nodes.name_of(node)).unwrap_or_default().into(),
        exact: true,
        ..Promotion::default()
    };
    if how.at_once {
        promotion.point = token(behind.point).into();
        promotion.lost =
            Lag { writes: behind.writes, bytes: behind.bytes, age_ns: behind.nanoseconds };
    } else {
        promotion.point = token(status.point).into();
    }
    if how.dry_run {
        return Ok(promotion);
    }
    let loss = engine.promote(node, how.at_once).await?;
    let (exact, point, lost) = told(loss);
    Ok(Promotion { exact, lost, point: token(point).into(), done: true, ..promotion })
}

fn chosen_follower(
    status: &Status,
    nodes: &Nodes,
    how: &Promote,
    volume: &str,
) -> Result<(NodeId, Behind)> {
    let mut followers = status.bricks.iter().filter_map(|one| Some((one.node, one.behind?)));
    if how.node.is_empty() {
        let found = followers.max_by_key(|(_, behind)| behind.point);
        return found.ok_or_else(|| {
            Error::new(ErrorKind::UNAVAILABLE, "no node follows: there is none to promote")
                .with("volume", volume)
                .remedy("bring nodes back, and look at them: novastor volume replicas")
        });
    }
    let node = named(nodes, &how.node, volume)?;
    let found = followers.find(|(follower, _)| *follower == node);
    found.ok_or_else(|| no_follower(volume, &how.node))
}

/// The brick that acknowledges, of a volume that is not attached.
pub(crate) fn head_of(descriptor: &Descriptor) -> Option<NodeId> {
    let slot = descriptor.in_sync.iter().next()?;
    descriptor.bricks.get(slot.index()).map(|entry| entry.node)
}

fn told(loss: Loss) -> (bool, Point, Lag) {
    match loss {
        Loss::Exact { writes, bytes, from, oldest_ns, .. } => {
            (true, from, Lag { writes, bytes, age_ns: oldest_ns })
        }
        Loss::AtMost { bytes, nanoseconds } => {
            (false, Point::default(), Lag { writes: 0, bytes, age_ns: nanoseconds })
        }
    }
}

fn named(nodes: &Nodes, name: &str, volume: &str) -> Result<NodeId> {
    let node = nodes.named(name).ok_or_else(|| crate::nodes::no_node(name));
    node.map(|node| node.id).map_err(|error| error.with("volume", volume))
}

fn synchronous(volume: &str) -> Error {
    Error::new(
        ErrorKind::INVALID_ARGUMENT,
        "the volume replicates synchronously: every replica in sync has every acknowledged write",
    )
    .with("volume", volume)
    .remedy("nothing has to be promoted: novastor volume replicas shows who is in sync")
}

fn no_follower(volume: &str, node: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, "the node has no replica that follows without gaps")
        .with("volume", volume)
        .with("node", node)
        .remedy(format!("choose one that does: novastor volume replicas {volume}"))
}
