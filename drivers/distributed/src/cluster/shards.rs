// SPDX-License-Identifier: Apache-2.0
//! Shards and pieces of attached volumes.

use std::sync::Arc;

use distributed_core::{BrickState, ClientOp, Descriptor, Node, ShardMap, Slot, SlotSet, Status};
use driver_api::{
    Error, ErrorKind, IoBuf, OpContext, RString, RVec, Result,
    ext::{Comparison, PIECE, ShardInfo},
};

use crate::{driver::DistributedBackend, engine::Engine, nodes::no_node};

impl DistributedBackend {
    /// A volume's shards from the one numbered `first` on, at most `limit`.
    pub(super) async fn list_shards(
        &self,
        volume: &str,
        first: u64,
        limit: u32,
    ) -> Result<RVec<ShardInfo>> {
        let (descriptor, map) = self.look_up(volume).await?;
        let registered = self.0.catalog.nodes().await?.all();
        let size = map.shard_size();
        let count = descriptor.size.div_ceil(size);
        let until = count.min(first.saturating_add(u64::from(limit)));
        let shards = (first..until).map(|index| ShardInfo {
            index,
            offset: index * size,
            len: size.min(descriptor.size - index * size),
            nodes: node_names(&descriptor, &registered, map.set(index)),
            reserved: [0; 4],
        });
        Ok(shards.collect())
    }

    /// Compares the in-sync replicas of a piece.
    pub(super) async fn verify_piece(
        &self,
        cx: &OpContext,
        volume: &str,
        offset: u64,
        len: u32,
    ) -> Result<Comparison> {
        let engine = self.attached_engine(volume)?;
        let (descriptor, map) = self.look_up(volume).await?;
        check_piece(&map, offset, len)?;
        let registered = self.0.catalog.nodes().await?.all();
        let set = map.set(offset / map.shard_size());
        let in_sync = in_sync(&engine.status()?).and(set);
        let compared = node_names(&descriptor, &registered, in_sync);
        let differing = match engine.compare(cx, offset, len).await? {
            None => RVec::new(),
            Some(differing) => node_names(&descriptor, &registered, differing),
        };
        Ok(Comparison { compared, differing, reserved: [0; 4] })
    }

    /// Makes the in-sync replicas of a piece equal to the one on the node `source`, durably.
    pub(super) async fn repair_piece(
        &self,
        cx: &OpContext,
        volume: &str,
        offset: u64,
        len: u32,
        source: &str,
    ) -> Result<()> {
        let engine = writable(self.attached_engine(volume)?)?;
        let (_, map) = self.look_up(volume).await?;
        check_piece(&map, offset, len)?;
        let node = self.0.catalog.nodes().await?.named(source);
        let node = node.ok_or_else(|| no_node(source))?;
        let status = engine.status()?;
        let brick = status.bricks.iter().find(|brick| brick.node == node.id);
        let slot = brick.filter(|brick| brick.state == BrickState::InSync).map(|brick| brick.slot);
        let source = slot.ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "the node has no replica that is in sync")
                .with("node", source)
                .with("volume", volume)
                .remedy(format!("choose another one: novastor volume replicas {volume}"))
        })?;
        engine.submit(cx, ClientOp::Repair { offset, len, source }, IoBuf::empty()).await?;
        engine.submit(cx, ClientOp::Flush, IoBuf::empty()).await.map(drop)
    }

    /// The engine of a volume that is attached here.
    pub(crate) fn attached_engine(&self, volume: &str) -> Result<Arc<Engine>> {
        self.engine(volume).ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "the volume is not attached here")
                .with("volume", volume)
                .remedy("attach it first")
        })
    }

    /// The engine of an attached volume, and where a range of one of its shards lies in the volume.
    pub(super) fn within(
        &self,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u64,
    ) -> Result<(Arc<Engine>, u64)> {
        let engine = self.attached_engine(volume)?;
        let (shard_size, size) = (engine.shard_size()?, engine.size()?);
        let first = shard.checked_mul(shard_size).filter(|first| *first < size);
        let room = first.map(|first| shard_size.min(size - first));
        match (first, room, offset.checked_add(len)) {
            (Some(first), Some(room), Some(end)) if end <= room => Ok((engine, first + offset)),
            _ => Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range is not within the shard")
                .with("volume", volume)
                .with("shard", shard)
                .with("offset", offset)
                .with("length", len)),
        }
    }
}

/// Refuses an engine that is attached read-only.
pub(crate) fn writable(engine: Arc<Engine>) -> Result<Arc<Engine>> {
    if engine.writable {
        return Ok(engine);
    }
    Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
        .with("volume", engine.volume())
        .remedy("attach it for writing"))
}

fn check_piece(map: &ShardMap, offset: u64, len: u32) -> Result<()> {
    let size = map.shard_size();
    let end = offset.checked_add(u64::from(len));
    let within = end.is_some_and(|end| len > 0 && (end - 1) / size == offset / size);
    if within && len <= PIECE {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::INVALID_ARGUMENT,
        "a piece is not empty, at most 1 MiB, and in one shard",
    )
    .with("offset", offset)
    .with("length", len))
}

fn node_names(descriptor: &Descriptor, registered: &[Node], set: SlotSet) -> RVec<RString> {
    let name = |slot: Slot| {
        let id = descriptor.bricks.get(slot.index())?.node;
        let node = registered.iter().find(|node| node.id == id);
        Some(node.map_or_else(|| id.to_string(), |node| node.name.clone()).into())
    };
    set.iter().filter_map(name).collect()
}

fn in_sync(status: &Status) -> SlotSet {
    let in_sync = status.bricks.iter().filter(|brick| brick.state == BrickState::InSync);
    in_sync.map(|brick| brick.slot).collect()
}
