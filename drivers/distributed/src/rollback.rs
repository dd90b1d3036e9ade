// SPDX-License-Identifier: Apache-2.0
//! Puts a volume back to a snapshot: fresh bricks, each a clone of a brick's own snapshot, and one swap that makes them count.
//!
//! ```text
//!   detached within --> fresh bricks listed as condemned --> clones of the snapshot's bricks --> their first records
//!     --> state swapped --> attached within
//!              |
//!              +--> old bricks: keepers if a snapshot is on them, else condemned
//! ```
//! Until the swap the fresh bricks are condemned, after it they are the volume: a crash, or whatever goes wrong, leaves it as
//! it was or as it is to be, and the next attachment deletes what is too much. All snapshots stay, later ones, too.

use std::sync::Arc;

use distributed_core::{ClientOp, Descriptor, Node, Outcome, Record, Session, ShardMap, Slot};
use driver_api::{Abilities, Error, ErrorKind, IoBuf, OpContext, Result};

use crate::{
    client::{NewBrick, on_node, snapshot_name},
    clones::Sources,
    create::members,
    driver::DistributedBackend,
    engine::Engine,
    error::{damaged, no_volume},
    names::base,
    snapshots::{find, is_own, no_snapshot},
    volume::Attached,
};

/// The volume as it is to be.
struct Target {
    descriptor: Descriptor,
    map: ShardMap,
    sources: Sources,
    members: Vec<Node>,
}

impl Attached {
    /// Puts the volume back to a snapshot.
    pub(crate) async fn roll_back(self: Arc<Self>, cx: OpContext, name: String) -> Result<()> {
        let before = self.engine();
        let volume = before.volume().to_owned();
        let _turn = self.backend.0.turns.take(&volume).await;
        if is_own(&name) {
            return Err(no_snapshot(&volume, &name));
        }
        let snapshot = find(&before, &name)?;
        let size = before.size()?;
        self.backend.account_resize(&volume, size, snapshot.size).await?;
        before.submit(&cx, ClientOp::Detach, IoBuf::empty()).await?;
        before.end().await;
        let rolled = self.backend.switch_to(&volume, snapshot.number).await;
        // Also after a failure it is attached as before.
        let attached = self.backend.start(&volume, before.writable, None).await;
        let engine = attached.map_err(|error| {
            error.remedy("attach the volume again: it is as it was, or as the snapshot, whole")
        })?;
        self.renew(engine)?;
        let now = self.engine().size()?;
        if now != snapshot.size {
            self.backend.account_resize(&volume, snapshot.size, now).await?;
        }
        rolled
    }
}

impl DistributedBackend {
    /// Whether every node that a volume has a brick on can clone it; of one that does not answer nothing is known.
    pub(crate) async fn nodes_clone(&self, engine: &Engine) -> Result<bool> {
        for brick in engine.status()?.bricks {
            let Some(node) = engine.node(brick.node) else { continue };
            if let Ok(backend) = self.0.nodes.backend(&node).await
                && !backend.capabilities()?.has(Abilities::CLONE)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has a volume that this process holds, and that is detached within, consist of a snapshot's content.
    async fn switch_to(&self, volume: &str, number: u32) -> Result<()> {
        let catalog = &self.0.catalog;
        let stored = catalog.stored(volume).await?.ok_or_else(|| no_volume(volume))?;
        let before = Descriptor::decode(&stored).map_err(|why| {
            damaged(format!("the volume's descriptor cannot be read: {why}")).with("volume", volume)
        })?;
        let target = self.target(&before, number).await?;
        let listed = before.reserving(&target.descriptor).encode();
        self.swap(volume, &stored, &listed).await?;
        self.make_bricks(&target).await?;
        self.swap(volume, &listed, &target.descriptor.encode()).await
    }

    async fn swap(&self, volume: &str, before: &[u8], after: &[u8]) -> Result<()> {
        match self.0.catalog.swap(volume, before, after).await {
            Outcome::Ok => Ok(()),
            Outcome::Conflict => {
                Err(Error::new(ErrorKind::FENCED, "another host has attached the volume meanwhile")
                    .with("volume", volume))
            }
            _ => Err(Error::new(ErrorKind::UNAVAILABLE, "the host's state cannot be written")
                .with("volume", volume)
                .remedy("look at the host's log, then look which content the volume has")),
        }
    }

    async fn target(&self, before: &Descriptor, number: u32) -> Result<Target> {
        let volume = before.volume.as_str();
        let maps = self.0.catalog.maps(volume).await?;
        let lost = || {
            Error::new(
                ErrorKind::UNAVAILABLE,
                "of some of the snapshot's shards no node has a copy",
            )
            .with("volume", volume)
            .remedy("bring the nodes back that had them")
        };
        let origin = before.origin(Some(number), &maps).ok_or_else(lost)?;
        let template = origin.template(volume, before.identity, origin.size).ok_or_else(lost)?;
        let descriptor = before.rolled_back(&template);
        let registered = self.0.catalog.nodes().await?.all();
        let members = members(&descriptor, &registered)?;
        let sources = Sources {
            base: base(volume, before.identity),
            bricks: template.sources,
            snapshot: snapshot_name(number),
        };
        Ok(Target { descriptor, map: template.map, sources, members })
    }

    async fn make_bricks(&self, target: &Target) -> Result<()> {
        let Target { descriptor, map, sources, members } = target;
        let (nodes, encoded) = (&self.0.nodes, map.encode());
        let volume = descriptor.volume.as_str();
        let shard_size = map.shard_size();
        self.0.catalog.put_map(volume, descriptor.map, &encoded).await?;
        for (index, node) in members.iter().enumerate() {
            let new = NewBrick {
                base: &sources.base,
                brick: descriptor.bricks[index].brick,
                size: descriptor.size,
                map_bytes: encoded.len(),
                shard_size,
            };
            nodes.clone_brick(node, &new, sources, index).await?;
        }
        for (index, node) in members.iter().enumerate() {
            let record = Record::initial(descriptor, Slot(index as u8), encoded.len() as u32);
            let record = record.ok_or_else(|| damaged("a slot has no brick"))?;
            let session = Session { epoch: descriptor.epoch, opening: 1 };
            let open =
                nodes.open(node, &sources.base, record.brick, session, descriptor.size).await;
            let open = open.map_err(on_node(node))?;
            let cx = nodes.context();
            let slot = Slot(index as u8);
            open.free_beside(&cx, map, slot, descriptor.size).await.map_err(on_node(node))?;
            let begun = open.begin(&cx, &encoded, &record).await;
            begun.and(open.close(&cx).await).map_err(on_node(node))?;
        }
        Ok(())
    }
}

impl Engine {
    /// Ends the work on a volume that the core has detached.
    pub(crate) async fn end(&self) {
        self.end_readers().await;
        for session in self.sessions().unwrap_or_default() {
            if let Err(error) = session.close(&OpContext::new()).await {
                // The core has flushed it, or knows that it is not in sync.
                tracing::debug!(%error, "a brick is not detached in order");
            }
        }
        self.close();
    }
}
