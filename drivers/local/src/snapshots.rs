// SPDX-License-Identifier: Apache-2.0
//! Snapshots and rollback.
//!
//! A snapshot is a file of its own. Where the file system shares blocks (reflink) it is complete at once; elsewhere
//! the volume is held for a moment only, and the copy is made while writing goes on ([`crate::copy_before_write`]).
//! It exists once its record does, and the record is written last, so a crash leaves a whole snapshot or none.

use std::{
    fs::{self, File},
    io,
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use driver_api::{
    Error, ErrorKind, Op, OpContext, RVec, Result,
    ext::{SnapshotInfo, Snapshots},
};

use crate::{
    client,
    error::{internal, not_found, on_path},
    fence::{Door, PATIENCE},
    layout::{HALF_MADE, VolumeDir, check_name},
    metadata::{self, SnapshotRecord},
    volume::{Attached, LocalVolume, blocking, deadline, to_the_end},
};

/// Blocks are shared with the volume.
pub(crate) const REFLINK: &str = "reflink";
/// Blocks were copied.
pub(crate) const COPY: &str = "copy";

impl Snapshots for LocalVolume {
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        let (attached, cx, name) = (Arc::clone(&self.0), *cx, name.to_owned());
        to_the_end(async move {
            let created = create(attached, cx, name).await;
            created.map_err(|error| error.during("create snapshot"))
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        let attached = Arc::clone(&self.0);
        to_the_end(blocking(move || {
            attached.disk.check()?;
            let records = list(&attached.dir)?;
            Ok(records.iter().map(|record| info(&attached.dir, record)).collect())
        }))
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, deadline, name) = (Arc::clone(&self.0), deadline(cx), name.to_owned());
        to_the_end(async move {
            let _alone = attached.maintenance.lock().await;
            let task = Arc::clone(&attached);
            blocking(move || {
                task.admit_maintenance()?;
                let _door = Door::open(&task.dir, deadline)?;
                task.slot.check()?;
                let record = find(&task.dir, &name)?;
                client::remove(&task.dir.snapshot_record(&name))?;
                client::sync_dir(&task.dir.snapshots())?;
                client::remove(&task.dir.snapshot_disk(&name, record.format))
            })
            .await
            .map_err(|error| error.during("delete snapshot"))
        })
    }

    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (attached, cx, name) = (Arc::clone(&self.0), *cx, name.to_owned());
        to_the_end(async move {
            rollback(attached, cx, name).await.map_err(|error| error.during("roll back"))
        })
    }
}

async fn create(attached: Arc<Attached>, cx: OpContext, name: String) -> Result<SnapshotInfo> {
    let _alone = attached.maintenance.lock().await;
    let (task, snapshot) = (Arc::clone(&attached), name.clone());
    let target = blocking(move || {
        task.admit_maintenance()?;
        check_name("snapshot", &snapshot)?;
        if task.dir.snapshot_record(&snapshot).exists() {
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is a snapshot of this name")
                .with("volume", &task.dir.name)
                .with("snapshot", &snapshot));
        }
        task.store.refuse_if_full(0)?;
        let path = task.dir.next_snapshot(&snapshot);
        client::remove(&path)?;
        client::create_new(&path)
    })
    .await?;
    let copied = copy_out(&attached, &cx, target).await;
    let task = Arc::clone(&attached);
    blocking(move || {
        let path = task.dir.next_snapshot(&name);
        let published = copied.and_then(|(method, size)| publish(&task, &name, method, size));
        if published.is_err() {
            client::remove(&path)?;
        }
        published
    })
    .await
}

fn publish(attached: &Attached, name: &str, method: &str, size: u64) -> Result<SnapshotInfo> {
    let dir = &attached.dir;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let record = SnapshotRecord {
        name: name.into(),
        format: attached.record.format,
        size,
        created_unix_nanos: since.map_or(0, |since| since.as_nanos() as u64),
        method: method.into(),
    };
    let _door = Door::open(dir, Instant::now() + PATIENCE)?;
    attached.slot.check()?;
    client::rename(&dir.next_snapshot(name), &dir.snapshot_disk(name, record.format))?;
    metadata::write(&dir.snapshot_record(name), &record)?;
    Ok(info(dir, &record))
}

/// Copies the volume as it is at one moment during the call into the empty `target`, durably. Gives method and size.
pub(crate) async fn copy_out(
    attached: &Arc<Attached>,
    cx: &OpContext,
    target: File,
) -> Result<(&'static str, u64)> {
    let handle = target
        .try_clone()
        .map_err(|error| Error::from_io("the copy's file cannot be opened twice", &error))?;
    let barrier = attached.barrier(cx).await?;
    if attached.writer {
        attached.on_image(|image| image.write_back()).await?;
    }
    let size = attached.size.load(Ordering::Acquire);
    let task = Arc::clone(attached);
    let copy = blocking(move || task.disk.begin_copy(handle)).await?;
    drop(barrier);
    let Some(copy) = copy else {
        blocking(move || {
            target.sync_all().map_err(|error| Error::from_io("the copy is not durable", &error))
        })
        .await?;
        return Ok((REFLINK, size));
    };
    let finished = blocking(move || {
        copy.finish().map_err(|error| crate::error::on_data("the copy failed", &error))
    })
    .await;
    let barrier = Arc::clone(&attached.gate).write_owned().await;
    attached.disk.end_copy();
    drop(barrier);
    finished.map(|()| (COPY, size))
}

async fn rollback(attached: Arc<Attached>, cx: OpContext, name: String) -> Result<()> {
    let _alone = attached.maintenance.lock().await;
    let task = Arc::clone(&attached);
    let (record, next) = blocking(move || {
        task.admit_maintenance()?;
        let record = find(&task.dir, &name)?;
        let next = prepare_rollback(&task, &record)?;
        Ok((record, next))
    })
    .await?;
    let _barrier = attached.barrier(&cx).await?;
    let task = Arc::clone(&attached);
    blocking(move || {
        let dir = &task.dir;
        task.disk.check()?;
        let _door = Door::open(dir, Instant::now() + PATIENCE)?;
        let _in_flight = task.slot.enter()?;
        let path = dir.disk(record.format);
        fs::rename(dir.next_disk(record.format), &path)
            .map_err(|error| on_path("cannot replace the volume's file", &path, &error))?;
        task.disk.replace(next);
        task.size.store(record.size, Ordering::Release);
        client::sync_dir(&dir.path).inspect_err(|error| {
            task.disk.give_up(error);
        })
    })
    .await?;
    let reopened = attached.on_image(|image| image.reopen()).await;
    // The image in memory is that of the replaced file: nothing of it may be written into the new one.
    reopened.inspect_err(|error| {
        attached.disk.give_up(error);
    })
}

/// Makes the file that is to become the volume's, durably.
fn prepare_rollback(attached: &Attached, record: &SnapshotRecord) -> Result<File> {
    let dir = &attached.dir;
    let (from, to) = (dir.snapshot_disk(&record.name, record.format), dir.next_disk(record.format));
    if record.format != attached.record.format {
        return Err(internal("the snapshot has another format than the volume"));
    }
    client::remove(&to)?;
    let made = copy_file(&client::open(&from, false, false)?, &client::create_new(&to)?);
    if let Err(error) = made {
        client::remove(&to)?;
        return Err(on_path("cannot copy the snapshot", &to, &error));
    }
    client::open(&to, true, attached.disk.align() > 1)
}

/// Copies a file that nobody changes, durably. Gives the method.
pub(crate) fn copy_file(source: &File, target: &File) -> io::Result<&'static str> {
    let method = if client::reflink(source, target)? {
        REFLINK
    } else {
        let len = source.metadata()?.len();
        target.set_len(len)?;
        client::copy_data(source, target, 0, len, || Ok(()))?;
        COPY
    };
    target.sync_all()?;
    Ok(method)
}

/// The snapshot `name` of a volume.
pub(crate) fn find(dir: &VolumeDir, name: &str) -> Result<SnapshotRecord> {
    check_name("snapshot", name)?;
    let path = dir.snapshot_record(name);
    if !path.exists() {
        return Err(not_found("snapshot", name).with("volume", &dir.name));
    }
    metadata::read(&path)
}

/// All snapshots of a volume, oldest first.
pub(crate) fn list(dir: &VolumeDir) -> Result<Vec<SnapshotRecord>> {
    let path = dir.snapshots();
    let listed = fs::read_dir(&path).map_err(|error| on_path("cannot list", &path, &error))?;
    let mut records: Vec<SnapshotRecord> = Vec::new();
    for entry in listed {
        let entry = entry.map_err(|error| on_path("cannot list", &path, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(HALF_MADE) && name.ends_with(".json") {
            records.push(metadata::read(&entry.path())?);
        }
    }
    records.sort_by(|a, b| (a.created_unix_nanos, &a.name).cmp(&(b.created_unix_nanos, &b.name)));
    Ok(records)
}

fn info(dir: &VolumeDir, record: &SnapshotRecord) -> SnapshotInfo {
    let file = fs::metadata(dir.snapshot_disk(&record.name, record.format));
    SnapshotInfo {
        name: record.name.as_str().into(),
        size: record.size,
        created_unix_secs: record.created_unix_nanos / 1_000_000_000,
        method: record.method.as_str().into(),
        used: file.map_or(0, |file| client::occupied(&file)),
        reserved: [0; 4],
    }
}
