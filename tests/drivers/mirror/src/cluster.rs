// SPDX-License-Identifier: Apache-2.0
//! The cluster ability over volumes in memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use driver_api::{
    AttachMode, Error, ErrorKind, Health, IoBuf, IoBufMut, Op, OpContext, RString, RVec, Result,
    WriteFlags,
    ext::{
        Cluster, Comparison, NodeChange, NodeInfo, NodeSpec, ReplicaInfo, ReplicationInfo,
        ReplicationState, ShardInfo,
    },
};

use crate::{Room, lock, volume::Mirrored};

fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> RVec<RString> {
    names.into_iter().map(RString::from).collect()
}

impl Room {
    fn info(&self, id: u32, spec: NodeSpec) -> NodeInfo {
        let mut provisioned = 0;
        for volume in lock(&self.0.volumes).values() {
            for shard in 0..volume.shards() {
                let here = volume.holders(shard).any(|replica| spec.name.as_str() == replica.node);
                let range = volume.range_of(shard).unwrap_or_default();
                provisioned += if here { range.end - range.start } else { 0 };
            }
        }
        let health = Health::healthy();
        NodeInfo { id, spec, health, used: provisioned, provisioned, reserved: [0; 4] }
    }

    fn node(&self, name: &str) -> Result<(u32, NodeSpec)> {
        let node = lock(&self.0.nodes).get(name).cloned();
        node.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such node").with("node", name))
    }

    /// An attached volume; for a change, one attached for writing.
    fn attached(&self, name: &str, change: bool) -> Result<Arc<Mirrored>> {
        let volume = self.find(name)?;
        let holder = lock(&volume.holder).clone();
        let Some(holder) = holder else {
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "it is not attached"));
        };
        drop(volume.tenancy.enter(&holder)?);
        if change && holder.mode == AttachMode::READ_ONLY {
            return Err(Error::new(ErrorKind::PERMISSION_DENIED, "it is attached read-only"));
        }
        Ok(volume)
    }

    /// Where a range of a shard begins in the volume.
    fn place(volume: &Mirrored, shard: u64, offset: u64, len: u64) -> Result<u64> {
        let range = volume.range_of(shard)?;
        if offset + len > range.end - range.start {
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, "it is not inside the shard"));
        }
        Ok(range.start + offset)
    }
}

fn compare(volume: &Mirrored, offset: u64, len: u32) -> Result<Comparison> {
    let in_sync = volume.in_sync(offset, len.into())?;
    let range = offset as usize..offset as usize + len as usize;
    let first = lock(&in_sync[0].bytes)[range.clone()].to_vec();
    let differs = in_sync.iter().filter(|one| lock(&one.bytes)[range.clone()] != first[..]);
    Ok(Comparison {
        compared: names(in_sync.iter().map(|one| one.node.as_str())),
        differing: names(differs.map(|one| one.node.as_str())),
        ..Comparison::default()
    })
}

impl Cluster for Room {
    fn nodes(&self, _cx: &OpContext) -> Op<RVec<NodeInfo>> {
        let nodes: Vec<_> = lock(&self.0.nodes).values().cloned().collect();
        Op::ok(nodes.into_iter().map(|(id, spec)| self.info(id, spec)).collect())
    }

    fn add_node(&self, _cx: &OpContext, node: NodeSpec) -> Op<NodeInfo> {
        let name = node.name.clone();
        match self.node(&name) {
            Ok((_, known)) if known != node => {
                return Error::new(ErrorKind::ALREADY_EXISTS, "it is a node already").into();
            }
            Ok(_) => {}
            Err(_) => self.insert(node),
        }
        self.node(&name).map(|(id, spec)| self.info(id, spec)).into()
    }

    fn set_node(&self, _cx: &OpContext, name: &str, change: NodeChange) -> Op<NodeInfo> {
        let set = || {
            let (id, mut node) = self.node(name)?;
            node.role = change.role.unwrap_or(node.role);
            node.address = change.address.unwrap_or(node.address);
            node.port = change.port.unwrap_or(node.port);
            node.zone = change.zone.unwrap_or(node.zone);
            node.weight = change.weight.unwrap_or(node.weight);
            node.available = change.available.unwrap_or(node.available);
            lock(&self.0.nodes).insert(name.to_owned(), (id, node.clone()));
            Ok(self.info(id, node))
        };
        set().into()
    }

    fn remove_node(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let remove = || {
            self.node(name)?;
            let volumes = lock(&self.0.volumes);
            let users: Vec<&str> = volumes
                .iter()
                .filter(|(_, volume)| volume.replica(name).is_ok())
                .map(|(volume, _)| volume.as_str())
                .collect();
            if !users.is_empty() {
                return Err(Error::new(ErrorKind::IN_USE, "bricks are on the node")
                    .with("volumes", users.join(", "))
                    .remedy("delete these volumes first"));
            }
            lock(&self.0.nodes).remove(name);
            Ok(())
        };
        remove().into()
    }

    fn replication(&self, _cx: &OpContext, volume: &str) -> Op<ReplicationInfo> {
        let info = self.find(volume).map(|volume| {
            let replica = |one: &crate::volume::Replica| {
                let in_sync = one.in_sync();
                ReplicaInfo {
                    node: one.node.as_str().into(),
                    brick: format!("{}.{}", volume.info.name, one.node).into(),
                    state: *lock(&one.state),
                    dirty: 0,
                    copied: 0,
                    cause: if in_sync { "" } else { "it was told to be" }.into(),
                    reserved: [0; 4],
                }
            };
            let attached = lock(&volume.holder).is_some();
            ReplicationInfo {
                state: match attached {
                    true => ReplicationState::SERVING,
                    false => ReplicationState::DETACHED,
                },
                reason: RString::new(),
                generation: "1.1".into(),
                size: volume.info.size,
                shard_size: volume.shard_size,
                shards: volume.shards(),
                replicas: volume.replicas.iter().map(replica).collect(),
                reserved: [0; 4],
            }
        });
        info.into()
    }

    fn shards(&self, _cx: &OpContext, volume: &str, first: u64, limit: u32) -> Op<RVec<ShardInfo>> {
        let list: Result<RVec<ShardInfo>> = self.find(volume).and_then(|volume| {
            let end = volume.shards().min(first.saturating_add(limit.into()));
            let shard = |index| {
                let range = volume.range_of(index)?;
                Ok(ShardInfo {
                    index,
                    offset: range.start,
                    len: range.end - range.start,
                    nodes: names(volume.holders(index).map(|one| one.node.as_str())),
                    reserved: [0; 4],
                })
            };
            (first..end).map(shard).collect()
        });
        list.into()
    }

    fn read_shard(
        &self,
        _cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        let read = self.attached(volume, false).and_then(|volume| {
            let place = Self::place(&volume, shard, offset, len.into())?;
            let mut buffer = IoBufMut::zeroed(len as usize);
            volume.read(place, &mut buffer)?;
            Ok(buffer.freeze())
        });
        read.into()
    }

    fn write_shard(
        &self,
        _cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        data: IoBuf,
        _flags: WriteFlags,
    ) -> Op<()> {
        let written = self.attached(volume, true).and_then(|volume| {
            let place = Self::place(&volume, shard, offset, data.len() as u64)?;
            volume.write(place, &data)
        });
        written.into()
    }

    fn verify(&self, _cx: &OpContext, volume: &str, offset: u64, len: u32) -> Op<Comparison> {
        let pause = Duration::from_millis(self.0.options.verify_ms);
        let volume = match self.attached(volume, false) {
            Ok(volume) => volume,
            Err(error) => return error.into(),
        };
        if pause.is_zero() {
            return compare(&volume, offset, len).into();
        }
        Op::run(async move {
            tokio::time::sleep(pause).await;
            compare(&volume, offset, len)
        })
    }

    fn repair(&self, _cx: &OpContext, volume: &str, offset: u64, len: u32, source: &str) -> Op<()> {
        let repaired = self.attached(volume, true).and_then(|volume| {
            let in_sync = volume.in_sync(offset, len.into())?;
            let Some(source) = in_sync.iter().find(|one| one.node == source) else {
                return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the source is not in sync"));
            };
            let range = offset as usize..offset as usize + len as usize;
            let right = lock(&source.bytes)[range.clone()].to_vec();
            for one in &in_sync {
                lock(&one.bytes)[range.clone()].copy_from_slice(&right);
            }
            self.0.repaired.fetch_add(len.into(), Ordering::Relaxed);
            Ok(())
        });
        repaired.into()
    }
}
