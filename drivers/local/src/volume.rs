// SPDX-License-Identifier: Apache-2.0
//! An attached volume: the data path.
//!
//! Every operation holds the *gate* for reading from before its first look at the size until its last system call;
//! whoever needs a moment without operations (snapshot, rollback, resize) holds it for writing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{
    Abilities, Capabilities, Error, ErrorKind, Fencing, IoBuf, Op, OpContext, Result, Stats,
    Volume, WriteFlags, ext,
};
use tokio::sync::{Mutex, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, oneshot};

use crate::{
    config::Format,
    counters::{Counter, Counters},
    disk::Disk,
    error::{detached, internal, invalid},
    extents::{Holds, Run},
    fence,
    layout::VolumeDir,
    metadata::VolumeRecord,
    pool::Pool,
    qcow2::Image,
    qcow2_actor::Actor,
    slot::Slot,
    store::Store,
};

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
        | Abilities::ROLLBACK.bits(),
);

/// What a reader may do; of snapshots: list them.
const READER: Abilities = Abilities::from_bits(
    Abilities::CLONE.bits()
        | Abilities::SNAPSHOT.bits()
        | Abilities::ALLOCATION_MAP.bits()
        | Abilities::PREFETCH.bits()
        | Abilities::SHARED_READ.bits()
        | Abilities::PERSISTENT.bits(),
);

/// Capabilities of a volume whose file wants this alignment.
pub(crate) fn capabilities(writer: bool, align: usize) -> Capabilities {
    Capabilities {
        fencing: Fencing::EXCLUSIVE_LOCK,
        min_block: align as u32,
        ..Capabilities::new(if writer { WRITER } else { READER })
    }
}

/// An attached volume.
#[derive(Clone)]
pub struct LocalVolume(pub(crate) Arc<Attached>);

/// What all handles to an attached volume share.
pub(crate) struct Attached {
    pub dir: VolumeDir,
    pub record: VolumeRecord,
    pub store: Arc<Store>,
    pub slot: Arc<Slot>,
    pub disk: Arc<Disk>,
    pub image: Option<Actor>,
    pub writer: bool,
    pub size: AtomicU64,
    pub gate: Arc<RwLock<()>>,
    /// Held by snapshot, rollback and resize: one at a time.
    pub maintenance: Mutex<()>,
    pub closed: AtomicBool,
    pub counters: Counters,
}

impl Attached {
    /// Refuses what this volume cannot do now.
    pub fn admit(&self, offset: u64, len: u64) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(detached(&self.dir.name));
        }
        let size = self.size.load(Ordering::Acquire);
        if offset > size || len > size - offset {
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range ends beyond the volume")
                .with("offset", offset)
                .with("length", len)
                .with("size", size));
        }
        if !(offset | len).is_multiple_of(self.disk.align() as u64) {
            return Err(invalid("offset and length must be multiples of the block size")
                .with("block", self.disk.align()));
        }
        Ok(())
    }

    /// Refuses changes through a reader.
    pub fn admit_writer(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(detached(&self.dir.name));
        }
        if self.writer {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
            .with("volume", &self.dir.name)
            .remedy("attach it for writing"))
    }

    /// Refuses changes of the volume as a whole, through a reader or after it was given up.
    pub fn admit_maintenance(&self) -> Result<()> {
        self.admit_writer()?;
        self.disk.check()
    }

    /// Waits until no operation is under way, and keeps others out.
    pub async fn barrier(&self, cx: &OpContext) -> Result<OwnedRwLockWriteGuard<()>> {
        let closing = Arc::clone(&self.gate).write_owned();
        match cx.time_left() {
            None => Ok(closing.await),
            Some(left) => tokio::time::timeout(left, closing).await.map_err(|_| {
                Error::new(ErrorKind::TIMED_OUT, "operations under way did not end in time")
                    .with("volume", &self.dir.name)
                    .with_retry(driver_api::Retry::TEMPORARY)
                    .remedy("look whether the disk hangs, then try again")
            }),
        }
    }

    /// Runs `work` on the image's thread, if there is an image.
    pub async fn on_image(
        &self,
        work: impl FnOnce(&mut Image) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        match &self.image {
            Some(image) => image.run(|image| work(image?)).await.map_err(|_| gone())?,
            None => Ok(()),
        }
    }

    fn flush(&self, image: Option<&mut Image>) -> Result<()> {
        match image {
            Some(image) if self.writer => image.flush(),
            Some(_) => Ok(()),
            None if self.disk.is_flushed()? => Ok(()),
            None => self.disk.sync(),
        }
    }

    /// What a detach owes. A volume that was given up has every acknowledged change in its file, and its image must add
    /// nothing to it.
    fn flush_at_last(&self, image: Result<Option<&mut Image>>) -> Result<()> {
        match image {
            _ if self.disk.is_given_up() && self.writer => self.disk.sync(),
            _ if self.disk.is_given_up() => self.slot.check(),
            Ok(image) => self.flush(image),
            Err(fenced) => Err(fenced),
        }
    }
}

fn gone() -> Error {
    internal("the operation's thread panicked")
}

/// Runs what may block, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| gone())?
}

/// Runs `work` to its end, whether or not the operation is polled or dropped.
pub(crate) fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Op<T> {
    let task = tokio::spawn(work);
    Op::run(async move { task.await.map_err(|_| gone())? })
}

/// The moment at which an operation has to give up.
pub(crate) fn deadline(cx: &OpContext) -> Instant {
    Instant::now() + cx.time_left().unwrap_or(fence::PATIENCE).min(Duration::from_secs(86_400))
}

impl LocalVolume {
    /// Does `work` on a thread, as soon as the gate is open.
    fn later<T: Send + 'static>(
        &self,
        counter: fn(&Counters) -> &Counter,
        bytes: u64,
        work: impl FnOnce(&Attached, Option<&mut Image>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        self.later_on(|store| &store.pool, counter, bytes, work)
    }

    fn later_on<T: Send + 'static>(
        &self,
        pool: fn(&Store) -> &Pool,
        counter: fn(&Counters) -> &Counter,
        bytes: u64,
        work: impl FnOnce(&Attached, Option<&mut Image>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let attached = Arc::clone(&self.0);
        let begun = Instant::now();
        let start = move |gate: OwnedRwLockReadGuard<()>| -> oneshot::Receiver<Result<T>> {
            let task = Arc::clone(&attached);
            let job = move |image: Result<Option<&mut Image>>| {
                let done = image.and_then(|image| work(&task, image));
                drop(gate);
                counter(&task.counters).slow(bytes, begun, done.is_ok());
                done
            };
            match &attached.image {
                Some(image) => image.run(move |image| job(image.map(Some))),
                None => pool(&attached.store).run(move || job(Ok(None))),
            }
        };
        let gate = Arc::clone(&self.0.gate);
        match Arc::clone(&gate).try_read_owned() {
            Ok(gate) => {
                let answer = start(gate);
                Op::run(async move { answer.await.map_err(|_| gone())? })
            }
            Err(_) => {
                Op::run(async move { start(gate.read_owned().await).await.map_err(|_| gone())? })
            }
        }
    }

    fn zero(&self, offset: u64, len: u64, free: bool, durable: bool) -> Op<()> {
        self.later(
            |counters| &counters.zeroes,
            len,
            move |attached, image| {
                attached.admit_writer()?;
                attached.admit(offset, len)?;
                if len == 0 {
                    return Ok(());
                }
                match image {
                    Some(image) => {
                        image.zero(offset, len, free)?;
                        if durable { image.flush() } else { Ok(()) }
                    }
                    None => {
                        if free {
                            attached.disk.punch(offset, len)?;
                        } else {
                            attached.disk.zero(offset, len)?;
                        }
                        if durable { attached.disk.sync() } else { Ok(()) }
                    }
                }
            },
        )
    }
}

impl Volume for LocalVolume {
    fn size(&self) -> u64 {
        self.0.size.load(Ordering::Acquire)
    }

    fn capabilities(&self) -> Capabilities {
        let mut all = capabilities(self.0.writer, self.0.disk.align());
        if self.0.image.is_some() {
            all.abilities = all.abilities.without(Abilities::PREFETCH);
        }
        all
    }

    fn prefetch(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        Op::ready(self.0.disk.will_need(offset, len))
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let attached = &*self.0;
        let mut buffer = cx.buffer(len as usize);
        if attached.image.is_none()
            && let Ok(_gate) = attached.gate.try_read()
        {
            let read = attached.admit(offset, len.into());
            match read.and_then(|()| attached.disk.read_now(&mut buffer, offset)) {
                Ok(true) => {
                    attached.counters.reads.inline(len.into());
                    return Op::ok(buffer.freeze());
                }
                Ok(false) => {}
                Err(error) => return Op::err(error),
            }
        }
        self.later(
            |counters| &counters.reads,
            len.into(),
            move |attached, image| {
                attached.admit(offset, len.into())?;
                match image {
                    Some(image) => image.read(&mut buffer, offset)?,
                    None => attached.disk.read(&mut buffer, offset)?,
                }
                Ok(buffer.freeze())
            },
        )
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let attached = &*self.0;
        let durable = flags.has(WriteFlags::FUA);
        if flags.bits() & !WriteFlags::FUA.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        let len = data.len() as u64;
        if attached.image.is_none()
            && !durable
            && let Ok(_gate) = attached.gate.try_read()
        {
            let admitted = attached.admit_writer().and_then(|()| attached.admit(offset, len));
            match admitted.and_then(|()| attached.disk.write_now(&data, offset)) {
                Ok(true) => {
                    attached.counters.writes.inline(len);
                    return Op::ok(());
                }
                Ok(false) => {}
                Err(error) => return Op::err(error),
            }
        }
        self.later(
            |counters| &counters.writes,
            len,
            move |attached, image| {
                attached.admit_writer()?;
                attached.admit(offset, data.len() as u64)?;
                match image {
                    Some(image) => {
                        image.write(&data, offset)?;
                        if durable { image.flush() } else { Ok(()) }
                    }
                    None if durable => attached.disk.write_through(&data, offset),
                    None => attached.disk.write(&data, offset),
                }
            },
        )
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        let attached = &*self.0;
        if attached.closed.load(Ordering::Acquire) {
            return Op::err(detached(&attached.dir.name));
        }
        if attached.image.is_none() {
            match attached.disk.is_flushed() {
                Ok(true) => {
                    attached.counters.flushes.inline(0);
                    return Op::ok(());
                }
                Ok(false) if !attached.writer => return Op::ok(()),
                Ok(false) => {}
                Err(error) => return Op::err(error),
            }
        }
        self.later_on(
            |store| &store.flush_pool,
            |counters| &counters.flushes,
            0,
            |attached, image| attached.flush(image),
        )
    }

    fn discard(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.zero(offset, len, true, false)
    }

    fn write_zeroes(&self, _cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        let known = WriteFlags::FUA.and(WriteFlags::NO_HOLE).and(WriteFlags::FAST_ONLY);
        if flags.bits() & !known.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        let keep = flags.has(WriteFlags::NO_HOLE);
        if flags.has(WriteFlags::FAST_ONLY) && !self.0.disk.zeroes_fast(keep) {
            return Op::err(ext::unsupported("fast zeroing"));
        }
        self.zero(offset, len, !keep, flags.has(WriteFlags::FUA))
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        let (attached, cx) = (Arc::clone(&self.0), *cx);
        to_the_end(async move {
            let _alone = attached.maintenance.lock().await;
            let _barrier = attached.barrier(&cx).await?;
            if attached.closed.swap(true, Ordering::AcqRel) {
                return Ok(());
            }
            let task = Arc::clone(&attached);
            let flushed = match &attached.image {
                // What is left is released even if this panics.
                Some(image) => image
                    .run(move |image| task.flush_at_last(image.map(Some)))
                    .await
                    .unwrap_or_else(|_| Err(gone())),
                None if !attached.writer => Ok(()),
                None => blocking(move || task.flush_at_last(Ok(None))).await,
            };
            let task = Arc::clone(&attached);
            blocking(move || {
                if let Some(image) = &task.image {
                    image.stop();
                }
                task.store.forget(&task.dir.name, &task);
                let clean = task.writer && flushed.is_ok() && !task.disk.is_given_up();
                let released = fence::release(&task.dir, &task.slot, clean);
                flushed.and(released)
            })
            .await
        })
    }

    fn stats(&self) -> Stats {
        let attached = &*self.0;
        let healthy = !attached.disk.is_lost() && attached.disk.check().is_ok();
        attached
            .counters
            .stats()
            .gauge("size_bytes", self.size() as f64)
            .gauge("healthy", if healthy { 1.0 } else { 0.0 })
    }

    fn incarnation(&self) -> u64 {
        let doubtful = self.0.disk.is_lost() || self.0.disk.is_given_up();
        self.0.record.incarnation.wrapping_add(u64::from(doubtful))
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        Some(Arc::new(self.clone()))
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        self.0.writer.then(|| Arc::new(self.clone()) as Arc<dyn ext::Resize>)
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        Some(Arc::new(self.clone()))
    }
}

impl ext::AllocationMap for LocalVolume {
    fn extents(
        &self,
        _cx: &OpContext,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<driver_api::RVec<ext::Extent>> {
        self.later(
            |counters| &counters.reads,
            0,
            move |attached, image| {
                attached.admit(offset, len)?;
                let (end, limit) = (offset + len, limit.max(1) as usize);
                let extents = match image {
                    Some(image) => image.extents(offset, end, limit)?,
                    None => raw_extents(&attached.disk, offset, end, limit)?,
                };
                Ok(extents.into())
            },
        )
    }
}

fn raw_extents(disk: &Disk, offset: u64, end: u64, limit: usize) -> Result<Vec<ext::Extent>> {
    let runs = disk.extents(offset, end, limit)?;
    let extent = |run: Run| ext::Extent {
        offset: run.start,
        len: run.end - run.start,
        flags: match run.holds {
            Holds::Data => ext::ExtentFlags::DATA,
            Holds::Reserved => ext::ExtentFlags::ZERO,
            Holds::Nothing => ext::ExtentFlags::HOLE.and(ext::ExtentFlags::ZERO),
        },
    };
    Ok(runs.into_iter().map(extent).collect())
}

fn unknown_flags(flags: WriteFlags) -> Error {
    invalid("the write has flags that this driver does not know").with("flags", flags.bits())
}

impl Attached {
    /// Whether the volume is raw.
    pub fn is_raw(&self) -> bool {
        self.record.format == Format::Raw
    }
}
