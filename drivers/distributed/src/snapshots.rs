// SPDX-License-Identifier: Apache-2.0
//! Snapshots of a volume: the bricks' own, all of one moment.

use std::sync::Arc;

use distributed_core::Snapshot;
use driver_api::{
    Error, ErrorKind, Op, OpContext, RVec, Result,
    ext::{SnapshotInfo, Snapshots},
};

use crate::{engine::Engine, volume::DistributedVolume};

/// How a snapshot is made: each brick's backend knows more.
const METHOD: &str = "bricks";

/// There is no such snapshot.
pub(crate) fn no_snapshot(volume: &str, name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "the volume has no snapshot of this name")
        .with("volume", volume)
        .with("snapshot", name)
}

fn info(snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo {
        name: snapshot.name.as_str().into(),
        size: snapshot.size,
        created_unix_secs: snapshot.created_unix_secs,
        method: METHOD.into(),
        // Backends do not say what one snapshot of a brick occupies.
        used: 0,
        reserved: [0; 4],
    }
}

/// The snapshot of this name of a volume that is attached.
pub(crate) fn find(engine: &Engine, name: &str) -> Result<Snapshot> {
    engine.snapshot_named(name)?.ok_or_else(|| no_snapshot(engine.volume(), name))
}

impl Snapshots for DistributedVolume {
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        let (attached, cx, name) = (Arc::clone(&self.attached), *cx, name.to_owned());
        self.attached.backend.on(async move |backend| {
            let engine = attached.engine();
            if engine.snapshot_named(&name)?.is_some() {
                return Err(Error::new(
                    ErrorKind::ALREADY_EXISTS,
                    "there is a snapshot of this name",
                )
                .with("volume", engine.volume())
                .with("snapshot", &name));
            }
            Ok(info(&backend.snapshot(&cx, &engine, &name).await?))
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        match self.attached.engine().snapshots() {
            Ok(all) => Op::ok(all.iter().filter(|one| !is_own(&one.name)).map(info).collect()),
            Err(error) => Op::err(error),
        }
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, cx, name) = (Arc::clone(&self.attached), *cx, name.to_owned());
        self.attached.backend.on(async move |_| {
            let engine = attached.engine();
            let snapshot = find(&engine, &name)?;
            engine.delete_snapshot(&cx, snapshot.number).await
        })
    }

    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, cx, name) = (Arc::clone(&self.attached), *cx, name.to_owned());
        self.attached.backend.on(async move |_| {
            let rolled = attached.roll_back(cx, name).await;
            rolled.map_err(|error| error.during("roll back"))
        })
    }
}

/// What the driver's own snapshots are called: nobody else's name has a slash.
const OWN: &str = "/clone-";

/// The name of the snapshot that a clone of this name is made of.
pub(crate) fn own_name(target: &str) -> String {
    format!("{OWN}{target}")
}

/// Whether the driver took a snapshot for itself.
pub(crate) fn is_own(name: &str) -> bool {
    name.starts_with(OWN)
}
