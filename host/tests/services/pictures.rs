// SPDX-License-Identifier: Apache-2.0
//! Snapshots of disks in memory: taken some time after they were asked for, and answered some time after that.

use driver_api::{
    Error, ErrorKind, Op, OpContext, RVec, Result,
    ext::{SnapshotInfo, Snapshots},
};

use super::disks::{Attached, lock};

/// Time for others to do something.
async fn moment() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn info(name: &str, size: usize) -> SnapshotInfo {
    SnapshotInfo {
        name: name.into(),
        size: size as u64,
        created_unix_secs: 0,
        method: "copy".into(),
        used: size as u64,
        reserved: [0; 4],
    }
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
            let taken = info(&name, bytes.len());
            if lock(&attached.disk.snapshots).insert(name, bytes).is_some() {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is one of this name"));
            }
            moment().await;
            Ok(taken)
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        let snapshots = lock(&self.disk.snapshots);
        Op::ok(snapshots.iter().map(|(name, bytes)| info(name, bytes.len())).collect())
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let deleted = self.fault_here("delete snapshot a", "a").and_then(|()| {
            let gone = lock(&self.disk.snapshots).remove(name);
            gone.map(drop).ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such snapshot"))
        });
        deleted.into()
    }

    fn rollback(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let snapshots = lock(&self.disk.snapshots);
        let found = snapshots.get(name).cloned();
        let found = found.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such snapshot"));
        found.map(|bytes| *lock(&self.disk.bytes) = bytes).into()
    }
}
