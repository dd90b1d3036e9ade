// SPDX-License-Identifier: Apache-2.0
//! An attached volume.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::{
    Abilities, Capabilities, Error, Fencing, IoBuf, Op, OpContext, Result, Stats, Volume,
    WriteFlags, ext,
};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{
    counters::{Counter, Counters},
    disk::{Disk, ZEROED_AT_ONCE, inside},
    ending::to_the_end,
    error::invalid,
    holders::Holder,
    holes::Zeroing,
    layers::{
        stack::Stack,
        work::{Progress, Work},
    },
    mounts::{InUse, Mount},
    names::Files,
    share::Offers,
    standing::Standing,
    store::Store,
};

/// What a reader may do; of snapshots: list them.
const READER: Abilities = Abilities::from_bits(
    Abilities::SHARED_READ.bits()
        | Abilities::PERSISTENT.bits()
        | Abilities::SNAPSHOT.bits()
        | Abilities::CLONE.bits(),
);
const WRITER: Abilities = Abilities::from_bits(
    READER.bits()
        | Abilities::WRITE.bits()
        | Abilities::FUA.bits()
        | Abilities::WRITE_ZEROES.bits()
        | Abilities::GROW.bits()
        | Abilities::SHRINK.bits()
        | Abilities::ROLLBACK.bits(),
);

/// What a volume with extents cannot do: another file can lie on top of one, but not of many.
const NEEDS_ONE_FILE: Abilities = Abilities::from_bits(
    Abilities::SNAPSHOT.bits() | Abilities::ROLLBACK.bits() | Abilities::CLONE.bits(),
);

/// What can be done with ranges of a volume, and with all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Able {
    /// Ranges can be given back.
    pub discard: bool,
    /// Ranges of any length can be made to read zeros without writing them.
    pub fast_zero: bool,
    /// It is known which have data.
    pub map: bool,
    /// All of it can be frozen.
    pub freeze: bool,
}

impl Able {
    /// Of a volume in one file.
    pub fn whole(offers: Offers) -> Self {
        let Offers { punch, map } = offers;
        Self { discard: punch, fast_zero: punch, map, freeze: true }
    }

    /// Of a volume in extents.
    pub fn in_extents(offers: Offers) -> Self {
        Self { discard: true, fast_zero: offers.punch, map: true, freeze: false }
    }
}

/// What a volume can do.
pub(crate) fn capabilities(writer: bool, exclusive: bool, able: Able) -> Capabilities {
    let mut abilities = if writer { WRITER } else { READER };
    if !able.freeze {
        abilities = abilities.without(NEEDS_ONE_FILE);
    }
    if writer && able.discard {
        abilities = abilities | Abilities::DISCARD;
    }
    if writer && able.fast_zero {
        abilities = abilities | Abilities::FAST_ZERO;
    }
    if able.map {
        abilities = abilities | Abilities::ALLOCATION_MAP;
    }
    let fencing = if exclusive { Fencing::EXCLUSIVE_LOCK } else { Fencing::NONE };
    Capabilities { fencing, ..Capabilities::new(abilities) }
}

/// What can be done with ranges of the disk in an image, whatever its server can do.
pub(crate) const IMAGE_OFFERS: Offers = Offers { punch: true, map: true };

/// An attached volume.
#[derive(Clone)]
pub struct NetfsVolume(pub(crate) Arc<Attached>);

/// What all handles to an attached volume share.
pub(crate) struct Attached {
    pub name: String,
    pub store: Arc<Store>,
    pub files: Files,
    pub mount: Arc<Mount>,
    pub standing: Arc<Standing>,
    pub holder: Holder,
    pub size: AtomicU64,
    /// What can be done with ranges of it, however many layers it has.
    pub able: Able,
    /// The share keeps other writers away.
    pub exclusive: bool,
    /// The root's file, which is open for as long as the volume is attached.
    pub root: Arc<Disk>,
    /// What is read and written. Taken after `work`.
    pub stack: RwLock<Stack>,
    /// The layers, for whoever changes them. Taken after the store's turn of the volume.
    pub work: tokio::sync::Mutex<Work>,
    pub progress: Progress,
    pub counters: Counters,
    pub _in_use: InUse,
}

impl Attached {
    /// When an operation that begins now has to end.
    pub fn until(&self, cx: &OpContext) -> Instant {
        self.mount.until(cx.time_left())
    }

    /// What is read and written, for as long as an operation lasts.
    pub async fn enter(&self, until: Instant) -> Result<RwLockReadGuard<'_, Stack>> {
        match self.stack.try_read() {
            Ok(stack) => Ok(stack),
            Err(_) => {
                let waiting = tokio::time::timeout_at(until.into(), self.stack.read());
                waiting.await.map_err(|_| self.standing.stuck())
            }
        }
    }

    /// The same, alone.
    pub async fn alone(&self, until: Instant) -> Result<RwLockWriteGuard<'_, Stack>> {
        let waiting = tokio::time::timeout_at(until.into(), self.stack.write());
        waiting.await.map_err(|_| self.standing.stuck())
    }

    /// How large it is.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Refuses a range that is not the volume's.
    pub fn admit_range(&self, offset: u64, len: u64) -> Result<()> {
        inside(self.size(), offset, len)
    }

    /// Refuses a change through a reader, or beyond the end.
    pub fn admit_change(&self, offset: u64, len: u64) -> Result<()> {
        self.standing.admit_writer()?;
        self.admit_range(offset, len)
    }

    /// Ends the attachment for another one: afterwards nothing of it is sent any more.
    pub async fn fence(&self, until: Instant) -> Result<()> {
        // Others read what was acknowledged; what is not durable may be lost, as by a crash.
        if self.holder.writer
            && self.standing.is_open()
            && let Err(error) = self.write_back(until).await
        {
            tracing::warn!(volume = self.name, %error, "the image is taken over as it lies on the share");
        }
        self.standing.deny();
        let work = self.work(until).await?;
        let stack = self.alone(until).await?;
        stack.stop(until).await?;
        work.stop(until).await?;
        let disks: Vec<_> = work.disks(&stack);
        for disk in &disks {
            disk.fence(until).await?;
        }
        // The server itself may keep everybody else away for as long as they are open.
        if self.standing.close() {
            for disk in &disks {
                disk.leave(until).await;
            }
        }
        Ok(())
    }

    /// Brings the tables of the image onto the share, if there is one.
    async fn write_back(&self, until: Instant) -> Result<()> {
        match &self.enter(until).await?.image {
            None => Ok(()),
            Some(image) => image.write_back(until).await,
        }
    }

    async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        let stack = self.enter(until).await?;
        self.standing.admit()?;
        self.admit_range(offset, len.into())?;
        stack.read(offset, len, until).await
    }

    async fn write(&self, until: Instant, offset: u64, data: Bytes, durable: bool) -> Result<()> {
        let stack = self.enter(until).await?;
        if stack.image.is_none() && stack.extents.is_none() {
            return stack.disk.write(until, offset, data, durable).await;
        }
        self.admit_change(offset, data.len() as u64)?;
        if let Some(extents) = &stack.extents {
            return extents.write(until, offset, data, durable).await;
        }
        stack.write(offset, data, until).await?;
        if durable { stack.flush(until).await } else { Ok(()) }
    }

    /// Makes every write acknowledged before the call durable.
    pub async fn flush(&self, until: Instant) -> Result<()> {
        self.enter(until).await?.flush(until).await
    }
}

impl NetfsVolume {
    /// Counts a change, which goes on to its end.
    fn change<F>(
        &self,
        counter: fn(&Counters) -> &Counter,
        bytes: u64,
        work: impl FnOnce(Arc<Attached>) -> F,
    ) -> Op<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let attached = Arc::clone(&self.0);
        let begun = counter(&attached.counters).begun();
        let doing = work(Arc::clone(&attached));
        to_the_end(async move {
            let done = doing.await;
            counter(&attached.counters).ended(bytes, begun, done.is_ok());
            done
        })
    }
}

impl Volume for NetfsVolume {
    fn size(&self) -> u64 {
        self.0.size.load(Ordering::Acquire)
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.0.holder.writer, self.0.exclusive, self.0.able)
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let (attached, until) = (Arc::clone(&self.0), self.0.until(cx));
        let begun = attached.counters.reads.begun();
        Op::run(async move {
            let read = attached.read(offset, len, until).await;
            attached.counters.reads.ended(len.into(), begun, read.is_ok());
            read.map(IoBuf::from)
        })
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        if flags.bits() & !WriteFlags::FUA.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        let (until, durable) = (self.0.until(cx), flags.has(WriteFlags::FUA));
        let counter: fn(&Counters) -> &Counter = |counters| &counters.writes;
        self.change(counter, data.len() as u64, |attached| async move {
            attached.write(until, offset, data.into(), durable).await
        })
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        let until = self.0.until(cx);
        let counter: fn(&Counters) -> &Counter = |counters| &counters.flushes;
        self.change(counter, 0, |attached| async move { attached.flush(until).await })
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        if flags.bits() & !WriteFlags::ALL.bits() != 0 {
            return Op::err(unknown_flags(flags));
        }
        let free = self.0.able.discard && !flags.has(WriteFlags::NO_HOLE);
        if flags.has(WriteFlags::FAST_ONLY) && !(free && self.0.able.fast_zero) {
            return Op::err(ext::unsupported("fast zeroing"));
        }
        let zeroing = match (free, flags.has(WriteFlags::FAST_ONLY)) {
            (false, _) => Zeroing::Written,
            (true, fast_only) => Zeroing::Freed { or_written: !fast_only },
        };
        // Zeroing a large range takes as long as writing it: each part has the time of one operation.
        let parts = len.div_ceil(ZEROED_AT_ONCE).max(1);
        let patience = self.0.mount.patience.operation.saturating_mul(parts as u32);
        let left =
            cx.time_left().unwrap_or(patience).min(patience).min(Duration::from_secs(86_400));
        let (until, durable) = (Instant::now() + left, flags.has(WriteFlags::FUA));
        let counter: fn(&Counters) -> &Counter = |counters| &counters.zeroes;
        self.change(counter, len, |attached| async move {
            attached.clear(until, (offset, len), zeroing, durable).await
        })
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        if !self.0.able.discard {
            return Op::err(ext::unsupported("discard"));
        }
        let until = self.0.until(cx);
        let counter: fn(&Counters) -> &Counter = |counters| &counters.discards;
        self.change(counter, len, |attached| async move { attached.free(until, offset, len).await })
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        let (attached, until) = (Arc::clone(&self.0), self.0.until(cx));
        to_the_end(async move {
            let store = Arc::clone(&attached.store);
            store.detach(&attached, until).await.map_err(|error| error.during("detach"))
        })
    }

    fn stats(&self) -> Stats {
        let attached = &*self.0;
        let flag = |set: bool| if set { 1.0 } else { 0.0 };
        let standing = &attached.standing;
        let mut fenced = standing.is_fenced();
        let mut stats = attached.counters.stats();
        // While the layers change nobody waits for a figure.
        if let Ok(stack) = attached.stack.try_read() {
            fenced |= stack.disk.file.is_fenced();
            stats = stats.gauge("not_durable_bytes", stack.not_durable() as f64);
        }
        attached
            .progress
            .stats(stats)
            .gauge("writes_in_doubt", flag(standing.is_in_doubt()))
            .gauge("fenced", flag(fenced))
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        self.0.able.freeze.then(|| Arc::new(self.clone()) as Arc<dyn ext::Snapshots>)
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        self.0.able.map.then(|| Arc::new(self.clone()) as Arc<dyn ext::AllocationMap>)
    }
}

fn unknown_flags(flags: WriteFlags) -> Error {
    invalid(format!("the write has unknown flags: {:#x}", flags.bits()))
}
