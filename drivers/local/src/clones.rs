// SPDX-License-Identifier: Apache-2.0
//! New volumes with the content of others.

use std::{fs::File, path::Path, sync::Arc, time::Instant};

use driver_api::{
    AttachMode, Error, ErrorKind, Op, OpContext, Result, VolumeInfo, VolumeSpec, ext::Clones,
};

use crate::{
    client,
    config::{Config, Format},
    driver::LocalBackend,
    error::{invalid, on_path},
    fence::{self, Wish},
    layout::VolumeDir,
    metadata::{self, VolumeRecord},
    qcow2, snapshots,
    store::{Plan, Store, measure},
    volume::{Attached, blocking, deadline, to_the_end},
};

impl Clones for LocalBackend {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let (store, cx) = (Arc::clone(&self.0), *cx);
        let (source, snapshot) = (source.to_owned(), snapshot.to_owned());
        to_the_end(async move {
            let cloned = clone(store, cx, source, snapshot, target).await;
            cloned.map_err(|error| error.during("clone"))
        })
    }
}

async fn clone(
    store: Arc<Store>,
    cx: OpContext,
    source: String,
    snapshot: String,
    target: VolumeSpec,
) -> Result<VolumeInfo> {
    let deadline = deadline(&cx);
    let runtime = tokio::runtime::Handle::current();
    blocking(move || {
        let dir = store.volume(&source)?;
        let plan = plan(&store, &dir, &snapshot, &target)?;
        if let Some(existing) = store.existing(&plan)? {
            return Ok(existing);
        }
        // A clone of its source's size has a size that was found good before.
        match plan.size {
            0 => store.refuse_if_full(0)?,
            _ => store.admit(&plan)?,
        }
        store.make(&plan, |path| {
            let file = client::create_new(path)?;
            let method = if snapshot.is_empty() {
                match store.attachment(&source) {
                    Some(attached) => runtime.block_on(from_attached(&attached, &cx, &file))?,
                    None => from_resting(&dir, &file, deadline)?,
                }
            } else {
                let record = snapshots::find(&dir, &snapshot)?;
                from_file(&dir.snapshot_disk(&snapshot, record.format), &file)?
            };
            grow(path, &plan, file)?;
            Ok(Some(method))
        })
    })
    .await
}

fn plan(store: &Store, dir: &VolumeDir, snapshot: &str, target: &VolumeSpec) -> Result<Plan> {
    let from: VolumeRecord = metadata::read(&dir.record())?;
    let (format, preallocation) = Config::wishes(target)?;
    if format.is_some_and(|format| format != from.format) {
        return Err(invalid("a clone has its source's format")
            .with("format", from.format.name())
            .remedy("leave `format` away, or import a converted image"));
    }
    let (origin, size) = if snapshot.is_empty() {
        (dir.name.clone(), store.show(&dir.name)?.size)
    } else {
        (format!("{}@{snapshot}", dir.name), snapshots::find(dir, snapshot)?.size)
    };
    if target.size != 0 && target.size < size {
        return Err(invalid("a clone cannot be smaller than its source")
            .with("size", target.size)
            .with("source", size)
            .remedy("clone it whole, then shrink the clone"));
    }
    let record = VolumeRecord {
        name: target.name.to_string(),
        format: from.format,
        preallocation: preallocation.unwrap_or_default(),
        origin,
        method: String::new(),
        epoch: 0,
        incarnation: 1,
        clean: true,
    };
    Ok(Plan { record, size: target.size })
}

async fn from_attached(
    attached: &Arc<Attached>,
    cx: &OpContext,
    target: &File,
) -> Result<&'static str> {
    let _alone = attached.maintenance.lock().await;
    if attached.closed.load(std::sync::atomic::Ordering::Acquire) {
        return Err(Error::new(ErrorKind::IN_USE, "the source is being detached")
            .with("volume", &attached.dir.name)
            .remedy("try again"));
    }
    let target = target.try_clone();
    let target = target.map_err(|error| Error::from_io("the clone cannot be opened", &error))?;
    snapshots::copy_out(attached, cx, target).await.map(|(method, _)| method)
}

/// Copies a volume that nobody writes to, and keeps writers away meanwhile.
fn from_resting(dir: &VolumeDir, target: &File, deadline: Instant) -> Result<&'static str> {
    let wish = Wish {
        mode: AttachMode::READ_ONLY,
        force: false,
        epoch: None,
        owner: "a clone being made",
        deadline,
    };
    let acquired = fence::acquire(dir, &wish)?;
    let copied = from_file(&dir.disk(acquired.record.format), target);
    // A writer that took the volume over meanwhile has changed what was copied.
    let unchanged = fence::release(dir, &acquired.slot, false);
    copied.and_then(|method| unchanged.map(|()| method))
}

fn from_file(path: &Path, target: &File) -> Result<&'static str> {
    let source = client::open(path, false, false)?;
    let copied = snapshots::copy_file(&source, target);
    copied.map_err(|error| on_path("cannot copy the volume", path, &error))
}

fn grow(path: &Path, plan: &Plan, file: File) -> Result<()> {
    let failed = |error: std::io::Error| on_path("cannot grow the clone", path, &error);
    let (size, _) = measure(&file, plan.record.format).map_err(failed)?;
    if plan.size <= size {
        return Ok(());
    }
    let preallocation = plan.record.preallocation;
    match plan.record.format {
        Format::Qcow2 => qcow2::grow(&plan.record.name, file, plan.size, preallocation),
        Format::Raw => file
            .set_len(plan.size)
            .and_then(|()| client::preallocate(&file, size, plan.size - size, preallocation))
            .and_then(|()| file.sync_all())
            .map_err(failed),
    }
}
