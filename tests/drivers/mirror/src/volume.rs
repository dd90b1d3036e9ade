// SPDX-License-Identifier: Apache-2.0
//! A volume with its replicas.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use driver_api::{
    Attach, Capabilities, Error, ErrorKind, IoBuf, IoBufMut, Op, OpContext, Result, Tenancy,
    Volume, VolumeInfo, VolumeSpec, WriteFlags, ext::ReplicaState,
};

use crate::{capabilities, lock};

/// The states by the number that the command `state` takes.
pub(crate) const STATES: [ReplicaState; 6] = [
    ReplicaState::IN_SYNC,
    ReplicaState::FAILING,
    ReplicaState::STALE,
    ReplicaState::RESYNCING,
    ReplicaState::JOINING,
    ReplicaState::CONDEMNED,
];

pub(crate) struct Mirrored {
    pub(crate) info: VolumeInfo,
    pub(crate) tenancy: Tenancy,
    /// The last attachment.
    pub(crate) holder: Mutex<Option<Attach>>,
    pub(crate) shard_size: u64,
    pub(crate) replicas: Vec<Replica>,
    factor: usize,
}

pub(crate) struct Replica {
    pub(crate) node: String,
    pub(crate) state: Mutex<ReplicaState>,
    pub(crate) bytes: Mutex<Vec<u8>>,
}

impl Replica {
    pub(crate) fn in_sync(&self) -> bool {
        *lock(&self.state) == ReplicaState::IN_SYNC
    }
}

impl Mirrored {
    pub(crate) fn new(
        spec: &VolumeSpec,
        shard_size: u64,
        factor: usize,
        nodes: Vec<String>,
    ) -> Self {
        let replica = |node| Replica {
            node,
            state: Mutex::new(ReplicaState::IN_SYNC),
            bytes: Mutex::new(vec![0; spec.size as usize]),
        };
        Self {
            info: VolumeInfo::new(&spec.name, spec.size, spec.size),
            tenancy: Tenancy::default(),
            holder: Mutex::default(),
            shard_size,
            replicas: nodes.into_iter().map(replica).collect(),
            factor,
        }
    }

    pub(crate) fn shards(&self) -> u64 {
        self.info.size.div_ceil(self.shard_size)
    }

    /// The bytes of a shard.
    pub(crate) fn range_of(&self, shard: u64) -> Result<Range<u64>> {
        if shard >= self.shards() {
            let why = format!("there are {} shards", self.shards());
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, why).with("shard", shard));
        }
        let start = shard * self.shard_size;
        Ok(start..self.info.size.min(start + self.shard_size))
    }

    /// The replicas that hold a shard: each shard begins with another node.
    pub(crate) fn holders(&self, shard: u64) -> impl Iterator<Item = &Replica> {
        let count = self.replicas.len();
        (0..self.factor).map(move |index| &self.replicas[(shard as usize + index) % count])
    }

    pub(crate) fn replica(&self, node: &str) -> Result<&Replica> {
        self.replicas
            .iter()
            .find(|replica| replica.node == node)
            .ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no replica there").with("node", node))
    }

    /// The replicas in sync that hold a range, which must lie in one shard.
    pub(crate) fn in_sync(&self, offset: u64, len: u64) -> Result<Vec<&Replica>> {
        let shard = offset / self.shard_size;
        if offset + len > self.range_of(shard)?.end {
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range is not in one shard"));
        }
        let in_sync: Vec<&Replica> = self.holders(shard).filter(|one| one.in_sync()).collect();
        if in_sync.is_empty() {
            return Err(Error::new(ErrorKind::UNAVAILABLE, "no replica is in sync"));
        }
        Ok(in_sync)
    }

    fn parts(&self, offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
        let (end, size) = (offset + len as u64, self.shard_size);
        (offset / size..end.div_ceil(size)).map(move |shard| {
            let from = offset.max(shard * size);
            let to = end.min((shard + 1) * size);
            (from, (from - offset) as usize, (to - from) as usize)
        })
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        for (from, at, len) in self.parts(offset, buffer.len()) {
            let source = self.in_sync(from, len as u64)?[0];
            let range = from as usize..from as usize + len;
            buffer[at..at + len].copy_from_slice(&lock(&source.bytes)[range]);
        }
        Ok(())
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        for (from, at, len) in self.parts(offset, data.len()) {
            for replica in self.in_sync(from, len as u64)? {
                let range = from as usize..from as usize + len;
                lock(&replica.bytes)[range].copy_from_slice(&data[at..at + len]);
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct Attached(pub(crate) Arc<Mirrored>, pub(crate) Attach);

impl Volume for Attached {
    fn size(&self) -> u64 {
        self.0.info.size
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn read(&self, _cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let read = || {
            let _held = self.0.tenancy.enter(&self.1)?;
            let mut buffer = IoBufMut::zeroed(len as usize);
            self.0.read(offset, &mut buffer)?;
            Ok(buffer.freeze())
        };
        read().into()
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, _flags: WriteFlags) -> Op<()> {
        let held = self.0.tenancy.enter(&self.1);
        held.and_then(|_held| self.0.write(offset, &data)).into()
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        self.0.tenancy.enter(&self.1).map(drop).into()
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        *lock(&self.0.holder) = None;
        self.0.tenancy.release(&self.1).into()
    }
}
