// SPDX-License-Identifier: Apache-2.0
//! Snapshots of disks in memory: taken some time after they were asked for, and answered some time after that.

use driver_api::{
    Error, ErrorKind, Op, OpContext, RVec, Result,
    ext::{AllocationMap, Extent, ExtentFlags, SnapshotInfo, Snapshots},
};

use super::disks::{Attached, lock};

/// Bytes that are compared at once.
const PIECE: usize = 4096;

/// Time for others to do something.
async fn moment() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn info(name: &str, size: usize, is_protected: bool) -> SnapshotInfo {
    SnapshotInfo {
        name: name.into(),
        size: size as u64,
        created_unix_secs: 0,
        method: "copy".into(),
        used: size as u64,
        reserved: [0; 4],
    }
    .protected(is_protected)
}

impl Attached {
    fn fault_here(&self, operation: &'static str, here: &str) -> Result<()> {
        if self.name == here { self.storage.fault(operation) } else { Ok(()) }
    }
}

impl Snapshots for Attached {
    /// "snapshot b" fails that of the disk `b` alone.
    fn create(&self, _cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        let (attached, name) = (self.clone(), name.to_owned());
        Op::run(async move {
            attached.fault_here("snapshot b", "b")?;
            moment().await;
            if let Some(permits) = attached.storage.snapshot_permits(&attached.name) {
                permits.acquire().await.expect("the semaphore is never closed").forget();
            }
            let bytes = lock(&attached.disk.bytes).clone();
            let taken = info(&name, bytes.len(), false);
            if lock(&attached.disk.snapshots).insert(name, bytes).is_some() {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is one of this name"));
            }
            moment().await;
            Ok(taken)
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        let snapshots = lock(&self.disk.snapshots);
        let protected = lock(&self.disk.protected);
        let info =
            |(name, bytes): (&String, &Vec<u8>)| info(name, bytes.len(), protected.contains(name));
        Op::ok(snapshots.iter().map(info).collect())
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let deleted = self.fault_here("delete snapshot a", "a").and_then(|()| {
            let gone = lock(&self.disk.snapshots).remove(name);
            gone.map(drop).ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such snapshot"))
        });
        deleted.into()
    }

    fn protect(&self, _cx: &OpContext, name: &str, on: bool) -> Op<SnapshotInfo> {
        let snapshots = lock(&self.disk.snapshots);
        let Some(bytes) = snapshots.get(name) else {
            return Op::err(Error::new(ErrorKind::NOT_FOUND, "no such snapshot"));
        };
        let mut protected = lock(&self.disk.protected);
        let _ = if on { protected.insert(name.to_owned()) } else { protected.remove(name) };
        Op::ok(info(name, bytes.len(), on))
    }

    fn rollback(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let snapshots = lock(&self.disk.snapshots);
        let found = snapshots.get(name).cloned();
        let found = found.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such snapshot"));
        found.map(|bytes| *lock(&self.disk.bytes) = bytes).into()
    }
}

impl AllocationMap for Attached {
    fn extents(&self, _cx: &OpContext, offset: u64, len: u64, _limit: u32) -> Op<RVec<Extent>> {
        Op::ok(vec![Extent { offset, len, flags: ExtentFlags::DATA }].into())
    }

    fn changes(
        &self,
        _cx: &OpContext,
        from: &str,
        to: &str,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<Extent>> {
        let snapshots = lock(&self.disk.snapshots);
        let now = lock(&self.disk.bytes);
        let before = if from.is_empty() { &Vec::new() } else { &snapshots[from] };
        let after = if to.is_empty() { &*now } else { &snapshots[to] };
        let mut list = Vec::new();
        for at in (offset as usize..(offset + len) as usize).step_by(PIECE) {
            let end = (at + PIECE).min((offset + len) as usize);
            let was = |at: usize| before.get(at).copied().unwrap_or(0);
            if (at..end).any(|at| was(at) != after[at]) {
                let zero = after[at..end].iter().all(|byte| *byte == 0);
                let flags = if zero { ExtentFlags::ZERO } else { ExtentFlags::DATA };
                list.push(Extent { offset: at as u64, len: (end - at) as u64, flags });
            }
        }
        list.truncate(limit as usize);
        Op::ok(list.into())
    }
}
