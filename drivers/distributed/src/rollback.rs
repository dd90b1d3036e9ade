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

use distributed_core::{
    BrickEntry, BrickId, ClientOp, Descriptor, Generation, Mode, Node, Outcome, Record, Session,
    ShardMap, Slot, SlotSet,
};
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
        let listed = reserved(&before, &target.descriptor).encode();
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
        let mut descriptor = rolled_back(before, &template.descriptor);
        // No map that a host has written since it attached the volume has this name.
        descriptor.map = Generation { epoch: before.epoch, change: u32::MAX };
        // Shards may have been split or merged since.
        descriptor.shard_size = template.map.shard_size();
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
            let begun = open.begin(&cx, &encoded, &record).await;
            begun.and(open.close(&cx).await).map_err(on_node(node))?;
        }
        Ok(())
    }
}

/// The descriptor with the bricks to be, as condemned: whoever attaches the volume before they count deletes them.
fn reserved(before: &Descriptor, target: &Descriptor) -> Descriptor {
    let mut descriptor = before.clone();
    descriptor.next_brick = target.next_brick;
    descriptor.condemned.extend(target.bricks.iter().map(|entry| (entry.brick, entry.node)));
    descriptor
}

/// The descriptor with these bricks, of which each has the snapshot, in the place of those that it has.
fn rolled_back(before: &Descriptor, template: &Descriptor) -> Descriptor {
    let mut descriptor = before.clone();
    let is_holder = |brick: BrickId| {
        let mut taken = before.snapshots.iter().filter(|snapshot| snapshot.is_taken);
        taken.any(|snapshot| snapshot.holders.iter().any(|(_, holder)| *holder == brick))
    };
    for entry in before.bricks.iter().filter(|entry| !entry.vacant) {
        let place = match is_holder(entry.brick) {
            true => &mut descriptor.keepers,
            false => &mut descriptor.condemned,
        };
        place.push((entry.brick, entry.node));
    }
    let first = before.next_brick;
    let fresh = (first..).map(BrickId).zip(&template.bricks);
    descriptor.bricks = fresh
        .map(|(brick, entry)| BrickEntry { brick, left: Generation::default(), ..*entry })
        .collect();
    descriptor.next_brick = first + descriptor.bricks.len() as u32;
    descriptor.in_sync = (0..descriptor.bricks.len() as u8).map(Slot).collect::<SlotSet>();
    descriptor.size = template.size;
    descriptor.region_size = template.region_size;
    descriptor.generation =
        Generation { change: before.generation.change + 1, ..before.generation };
    // The companions of all these bricks have it before the state does.
    descriptor.settled = descriptor.generation;
    // All that is fresh is equal. It is asynchronous again once it has as many replicas as are chosen.
    descriptor.mode = Mode::Synchronous;
    descriptor.following = SlotSet::EMPTY;
    descriptor.moved = Vec::new();
    descriptor.litter = Vec::new();
    descriptor.clean = true;
    descriptor
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

#[cfg(test)]
mod tests {
    use distributed_core::NodeId;

    use super::*;

    #[test]
    fn old_bricks_are_kept_for_their_snapshots_and_the_others_condemned() {
        let nodes = [NodeId(3), NodeId(4), NodeId(5)];
        let mut before = Descriptor::new("v", 7, 8 << 20, &nodes);
        before.generation = Generation { epoch: 2, change: 9 };
        let holders = vec![(Slot(0), BrickId(0)), (Slot(1), BrickId(1))];
        before.snapshots.push(distributed_core::Snapshot {
            number: 0,
            name: "s".into(),
            is_taken: true,
            created_unix_secs: 0,
            size: 4 << 20,
            map: Generation::default(),
            moved: Vec::new(),
            holders,
        });
        let template = Descriptor::new("v", 7, 4 << 20, &nodes[..2]);
        let after = rolled_back(&before, &template);
        let bricks: Vec<u32> = after.bricks.iter().map(|entry| entry.brick.0).collect();
        assert_eq!((bricks, after.next_brick, after.size), (vec![3, 4], 5, 4 << 20));
        assert_eq!(after.keepers, [(BrickId(0), NodeId(3)), (BrickId(1), NodeId(4))]);
        assert_eq!(after.condemned, [(BrickId(2), NodeId(5))]);
        assert_eq!(after.snapshots, before.snapshots);
        assert!(after.generation > before.generation && after.clean);
        assert_eq!(after.in_sync.len(), 2);
        let between = reserved(&before, &after);
        assert_eq!(between.condemned, [(BrickId(3), NodeId(3)), (BrickId(4), NodeId(4))]);
        assert_eq!((between.bricks, between.next_brick), (before.bricks, 5));
    }
}
