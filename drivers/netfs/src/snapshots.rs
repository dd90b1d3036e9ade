// SPDX-License-Identifier: Apache-2.0
//! Snapshots of a volume: names for layers that are not written any more.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use driver_api::{
    Error, ErrorKind, Op, OpContext, RVec, Result,
    ext::{SnapshotInfo, Snapshots},
};

use crate::{
    ending::to_the_end,
    error::invalid,
    layers::{
        tree::{ROOT, Snapshot},
        work::Work,
    },
    names::is_plain,
    verified,
    volume::{Attached, NetfsVolume},
};

/// What is written after it goes into a new file on top of it.
const OVERLAY: &str = "overlay";

impl Snapshots for NetfsVolume {
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        let (attached, until, name) = (Arc::clone(&self.0), self.0.until(cx), name.to_owned());
        to_the_end(async move {
            let created = create(&attached, &name, until).await;
            created.map_err(|error| error.during("create snapshot"))
        })
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        let (attached, until) = (Arc::clone(&self.0), self.0.until(cx));
        to_the_end(async move {
            attached.standing.admit()?;
            let work = attached.work(until).await?;
            let mut infos = RVec::new();
            for snapshot in &work.tree.snapshots {
                infos.push(info(&work, snapshot, until).await?);
            }
            Ok(infos)
        })
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, until, name) = (Arc::clone(&self.0), self.0.until(cx), name.to_owned());
        to_the_end(async move {
            delete(&attached, &name, until).await.map_err(|error| error.during("delete snapshot"))
        })
    }

    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, until, name) = (Arc::clone(&self.0), self.0.until(cx), name.to_owned());
        to_the_end(async move {
            rollback(&attached, &name, until).await.map_err(|error| error.during("roll back"))
        })
    }
}

async fn create(attached: &Arc<Attached>, name: &str, until: Instant) -> Result<SnapshotInfo> {
    attached.standing.admit_writer()?;
    if !is_plain(name) {
        let shown: String = name.chars().take(64).collect();
        return Err(invalid("this is no name for a snapshot")
            .with("name", format!("{shown:?}"))
            .remedy("use 1 to 128 of A-Z a-z 0-9 . _ - and do not begin with a dot or hyphen"));
    }
    let _turn = attached.store.turn(&attached.name).await;
    let mut work = attached.work(until).await?;
    if work.tree.snapshot(name).is_some() {
        return Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is a snapshot of this name")
            .with("volume", &attached.name)
            .with("snapshot", name));
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let snapshot = Snapshot {
        name: name.to_owned(),
        layer: work.tree.active,
        size: attached.size.load(std::sync::atomic::Ordering::Acquire),
        created_unix_nanos: since.map_or(0, |since| since.as_nanos() as u64),
        method: OVERLAY.to_owned(),
    };
    attached.freeze(&mut work, Some(snapshot.clone()), until).await?;
    info(&work, &snapshot, until).await
}

async fn delete(attached: &Arc<Attached>, name: &str, until: Instant) -> Result<()> {
    attached.standing.admit_writer()?;
    let _turn = attached.store.turn(&attached.name).await;
    let mut work = attached.work(until).await?;
    find(&work, attached, name)?;
    let to = work.tree.without_snapshot(name);
    let size = attached.size.load(std::sync::atomic::Ordering::Acquire);
    attached.exchange(&mut work, to, size, until).await?;
    attached.tidy(&mut work);
    Ok(())
}

async fn rollback(attached: &Arc<Attached>, name: &str, until: Instant) -> Result<()> {
    attached.standing.admit_writer()?;
    let _turn = attached.store.turn(&attached.name).await;
    let mut work = attached.work(until).await?;
    let Snapshot { layer, size, .. } = find(&work, attached, name)?;
    attached.go_back(&mut work, layer, size, until).await?;
    attached.tidy(&mut work);
    Ok(())
}

/// The snapshot of this name.
pub(crate) fn find(work: &Work, attached: &Attached, name: &str) -> Result<Snapshot> {
    work.tree.snapshot(name).cloned().ok_or_else(|| {
        Error::new(ErrorKind::NOT_FOUND, "there is no snapshot of this name")
            .with("volume", &attached.name)
            .with("snapshot", name)
    })
}

async fn info(work: &Work, snapshot: &Snapshot, until: Instant) -> Result<SnapshotInfo> {
    let used = if snapshot.layer == ROOT {
        // What all layers have in common belongs to none of them.
        0
    } else {
        let (file, _) = work.shelf.file_of(&work.tree, snapshot.layer)?;
        let looked = verified::look(&work.shelf.mount, &file, until).await;
        let looked = looked.map_err(|fault| fault.told("a layer's file cannot be looked at"))?;
        looked.map_or(0, |found| found.facts.used)
    };
    Ok(SnapshotInfo {
        name: snapshot.name.as_str().into(),
        size: snapshot.size,
        created_unix_secs: snapshot.created_unix_nanos / 1_000_000_000,
        method: snapshot.method.as_str().into(),
        used,
        reserved: [0; 4],
    })
}
