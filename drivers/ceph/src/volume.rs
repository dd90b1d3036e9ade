// SPDX-License-Identifier: Apache-2.0
//! An attached volume, as the host sees it.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{
    Abilities, Capabilities, Error, ErrorKind, Fencing, IoBuf, Op, OpContext, RVec, Result, Stats,
    Volume, WriteFlags,
    ext::{self, AllocationMap, Extent, ExtentFlags, Resize, SnapshotInfo, Snapshots},
};

use crate::{
    aio,
    attached::Attached,
    blocking::{blocking, to_the_end},
    changes::Question,
    error::{internal, invalid, not_found},
    image::{Image, Run},
    mirrored,
};

/// What a reader may do; of snapshots: list them.
const READER: Abilities = Abilities::from_bits(
    Abilities::CLONE.bits()
        | Abilities::SNAPSHOT.bits()
        | Abilities::ALLOCATION_MAP.bits()
        | Abilities::CHANGES.bits()
        | Abilities::COMMANDS.bits()
        | Abilities::SHARED_READ.bits()
        | Abilities::PERSISTENT.bits(),
);

/// What a writer may do.
const WRITER: Abilities = Abilities::from_bits(
    READER.bits()
        | Abilities::WRITE.bits()
        | Abilities::FUA.bits()
        | Abilities::DISCARD.bits()
        | Abilities::WRITE_ZEROES.bits()
        | Abilities::FAST_ZERO.bits()
        | Abilities::GROW.bits()
        | Abilities::SHRINK.bits()
        | Abilities::ROLLBACK.bits()
        | Abilities::PROTECT.bits()
        | Abilities::FLATTEN.bits()
        | Abilities::RENAME.bits(),
);

/// Bytes of the volume that one question about its data covers: the answer is held in memory.
const MAP_STEP: u64 = 1 << 30;

/// Capabilities of writers or readers, of volumes up to this size.
pub(crate) fn capabilities(writer: bool, max_volume_size: u64) -> Capabilities {
    Capabilities {
        fencing: Fencing::EXCLUSIVE_LOCK,
        max_volume_size,
        ..Capabilities::new(if writer { WRITER } else { READER })
    }
}

/// An attached volume.
#[derive(Clone)]
pub struct CephVolume {
    pub(crate) attached: Arc<Attached>,
    pub(crate) max_volume_size: u64,
}

impl CephVolume {
    fn admit_writer(&self) -> Result<()> {
        if self.attached.writer {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
            .with("volume", &self.attached.name)
            .remedy("attach it for writing"))
    }

    /// Refuses a range outside the volume: it may have become smaller since the host asked.
    fn admit(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.size();
        if offset <= size && len <= size - offset {
            return Ok(());
        }
        Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range ends beyond the volume")
            .with("offset", offset)
            .with("length", len)
            .with("size", size))
    }

    fn zero(&self, offset: u64, len: u64, thick: bool) -> Op<()> {
        match self.admit_writer().and_then(|()| self.admit(offset, len)) {
            Err(error) => Op::err(error),
            Ok(()) if len == 0 => Op::ok(()),
            Ok(()) => aio::zero(&self.attached, offset, len, thick),
        }
    }

    /// Does what changes or asks about the volume as a whole, one at a time.
    fn maintain<T: Send + 'static>(
        &self,
        cx: &OpContext,
        what: &'static str,
        work: impl FnOnce(&Attached, &Image) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let attached = Arc::clone(&self.attached);
        blocking(cx, what, move || {
            let _alone = attached.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
            attached.with(|image| work(&attached, image))
        })
    }
}

impl Volume for CephVolume {
    fn size(&self) -> u64 {
        self.attached.size.load(Ordering::Acquire)
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.attached.writer, self.max_volume_size)
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        if let Err(error) = self.admit(offset, len.into()) {
            return Op::err(error);
        }
        match len {
            0 => Op::ok(IoBuf::empty()),
            _ => aio::read(&self.attached, offset, cx.buffer(len as usize)),
        }
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        if flags.bits() & !WriteFlags::FUA.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        match self.admit_writer().and_then(|()| self.admit(offset, data.len() as u64)) {
            Err(error) => Op::err(error),
            Ok(()) if data.is_empty() => Op::ok(()),
            Ok(()) => aio::write(&self.attached, offset, data),
        }
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        aio::flush(&self.attached)
    }

    fn discard(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.zero(offset, len, false)
    }

    fn write_zeroes(&self, _cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        let known = WriteFlags::FUA.and(WriteFlags::NO_HOLE).and(WriteFlags::FAST_ONLY);
        if flags.bits() & !known.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        let thick = flags.has(WriteFlags::NO_HOLE);
        if thick && flags.has(WriteFlags::FAST_ONLY) {
            return Op::err(ext::unsupported("fast zeroing without holes"));
        }
        self.zero(offset, len, thick)
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        let (attached, cx) = (Arc::clone(&self.attached), *cx);
        let limit = cx.time_left().unwrap_or(std::time::Duration::from_secs(3600));
        let task = tokio::spawn(async move {
            attached.drain().await;
            blocking(&OpContext::new(), "detach", move || attached.close()).await
        });
        to_the_end("detach", limit, async move {
            task.await.map_err(|_| internal("the detach panicked"))?
        })
    }

    fn stats(&self) -> Stats {
        let figure = |is: bool| if is { 1.0 } else { 0.0 };
        let stats = self.attached.counters.stats();
        let stats = match self.attached.perf() {
            Some(perf) => perf.stats(stats),
            None => stats,
        };
        let stats = match self.attached.mirrored.get() {
            Some((_, told)) => mirrored::add_figures(&told, stats),
            None => stats,
        };
        stats
            .gauge("writes_in_doubt", figure(self.attached.doubt.is_untold()))
            .gauge("renewing", figure(self.attached.is_renewing()))
            .counter("renewals_total", self.attached.renewals())
            .gauge("fenced", figure(self.attached.is_fenced()))
    }

    fn snapshots(&self) -> Option<Arc<dyn Snapshots>> {
        Some(Arc::new(self.clone()))
    }

    fn resize(&self) -> Option<Arc<dyn Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn allocation_map(&self) -> Option<Arc<dyn AllocationMap>> {
        Some(Arc::new(self.clone()))
    }
}

fn unknown_flags(flags: WriteFlags) -> Error {
    invalid("the write has flags that this driver does not know").with("flags", flags.bits())
}

/// Takes over the size that the image has now.
fn note_size(size: &AtomicU64, image: &Image) -> Result<()> {
    size.store(image.size()?, Ordering::Release);
    Ok(())
}

impl Resize for CephVolume {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        let most = self.max_volume_size;
        if let Err(error) = self.admit_writer() {
            return Op::err(error);
        }
        self.maintain(cx, "resize", move |attached, image| {
            let now = attached.size.load(Ordering::Acquire);
            if size == 0 || size > most {
                return Err(invalid("a volume cannot have this size")
                    .with("size", size)
                    .remedy(format!("use 1 to {most} bytes")));
            }
            if size < now && !shrink {
                return Err(invalid("the new size is smaller, which cuts data off")
                    .with("size", now)
                    .with("wanted", size)
                    .remedy("allow shrinking explicitly"));
            }
            if size < now {
                // Nothing new is let past the end while it is cut off.
                attached.size.store(size, Ordering::Release);
            }
            let resized = if size == now { Ok(()) } else { image.resize(size, shrink) };
            let noted = note_size(&attached.size, image);
            resized.and(noted)
        })
    }
}

fn info(image: &Image, snapshot: &crate::image::Snapshot) -> Result<SnapshotInfo> {
    Ok(SnapshotInfo {
        name: snapshot.name.as_str().into(),
        size: snapshot.size,
        created_unix_secs: image.snapshot_time(snapshot.id)?,
        method: "rbd".into(),
        used: 0,
        reserved: [0; 4],
    }
    .protected(image.is_protected(&snapshot.name)?))
}

fn find(image: &Image, name: &str) -> Result<crate::image::Snapshot> {
    let found = image.snapshots()?.into_iter().find(|snapshot| snapshot.name == name);
    found.ok_or_else(|| not_found("snapshot", name))
}

/// Refuses names that the pool's own tools take for something else, and those of the driver itself.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 128 || !name.chars().all(fits) || name.starts_with('.') {
        return Err(invalid("a snapshot cannot have this name")
            .with("snapshot", name)
            .remedy("use 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with a dot"));
    }
    Ok(())
}

impl Snapshots for CephVolume {
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        if let Err(error) = self.admit_writer().and_then(|()| check_name(name)) {
            return Op::err(error.during("create snapshot"));
        }
        let name = name.to_owned();
        self.maintain(cx, "create snapshot", move |attached, image| {
            attached.refuse_open_doubt()?;
            if image.snapshots()?.iter().any(|snapshot| snapshot.name == name) {
                return Err(Error::new(
                    ErrorKind::ALREADY_EXISTS,
                    "there is a snapshot of this name",
                )
                .with("snapshot", &name));
            }
            let _still = attached.flatten.pause();
            image.create_snapshot(&name)?;
            info(image, &find(image, &name)?)
        })
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        self.maintain(cx, "list snapshots", |_, image| {
            image.snapshots()?.iter().map(|snapshot| info(image, snapshot)).collect()
        })
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        if let Err(error) = self.admit_writer() {
            return Op::err(error.during("delete snapshot"));
        }
        let name = name.to_owned();
        self.maintain(cx, "delete snapshot", move |_, image| {
            find(image, &name)?;
            image.remove_snapshot(&name).map_err(|error| error.with("snapshot", &name))
        })
    }

    fn protect(&self, cx: &OpContext, name: &str, on: bool) -> Op<SnapshotInfo> {
        if let Err(error) = self.admit_writer() {
            return Op::err(error.during("protect"));
        }
        let name = name.to_owned();
        self.maintain(cx, "protect", move |_, image| {
            let snapshot = find(image, &name)?;
            image.protect(&name, on)?;
            info(image, &snapshot)
        })
    }

    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()> {
        if let Err(error) = self.admit_writer() {
            return Op::err(error.during("roll back"));
        }
        let name = name.to_owned();
        self.maintain(cx, "roll back", move |attached, image| {
            find(image, &name)?;
            let _still = attached.flatten.pause();
            let done = image.roll_back(&name);
            let noted = note_size(&attached.size, image);
            done.and(noted)
        })
    }
}

impl AllocationMap for CephVolume {
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>> {
        if let Err(error) = self.admit(offset, len) {
            return Op::err(error.during("allocation map"));
        }
        let attached = Arc::clone(&self.attached);
        blocking(cx, "allocation map", move || {
            attached.with(|image| {
                let (mut list, limit, end) = (Vec::new(), limit.max(1) as usize, offset + len);
                let mut at = offset;
                while at < end && list.len() <= limit {
                    let step = (end - at).min(MAP_STEP);
                    add_extents(&mut list, at, at + step, &image.data(at, step, false)?);
                    at += step;
                }
                list.truncate(limit);
                Ok(list.into())
            })
        })
    }

    fn changes(
        &self,
        cx: &OpContext,
        from: &str,
        to: &str,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<Extent>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let question = Question { from, to, offset, len, limit: limit.max(1) as usize };
        let attached = Arc::clone(&self.attached);
        blocking(cx, "changes", move || question.ask(&attached).map(Into::into))
    }
}

/// Adds the runs of `[at, end)`, and what is between them.
fn add_extents(list: &mut Vec<Extent>, mut at: u64, end: u64, runs: &[Run]) {
    let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
    for run in runs {
        let (start, stop) = (run.start.clamp(at, end), run.end.clamp(at, end));
        add_extent(list, at, start, hole);
        add_extent(list, start, stop, ExtentFlags::DATA);
        at = stop;
    }
    add_extent(list, at, end, hole);
}

fn add_extent(list: &mut Vec<Extent>, start: u64, end: u64, flags: ExtentFlags) {
    if start >= end {
        return;
    }
    match list.last_mut() {
        Some(last) if last.flags == flags && last.offset + last.len == start => {
            last.len += end - start;
        }
        _ => list.push(Extent { offset: start, len: end - start, flags }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_follow_each_other_without_gaps() {
        let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
        let mut list = Vec::new();
        let runs =
            [Run { start: 5, end: 10 }, Run { start: 10, end: 12 }, Run { start: 30, end: 99 }];
        add_extents(&mut list, 0, 40, &runs);
        add_extents(&mut list, 40, 50, &[]);
        add_extents(&mut list, 50, 60, &[]);
        let found: Vec<_> = list.iter().map(|one| (one.offset, one.len, one.flags)).collect();
        let data = ExtentFlags::DATA;
        assert_eq!(
            found,
            [(0, 5, hole), (5, 7, data), (12, 18, hole), (30, 10, data), (40, 20, hole)]
        );
    }
}
