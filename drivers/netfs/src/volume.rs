// SPDX-License-Identifier: Apache-2.0
//! An attached volume: a raw file, or the disk inside an image.

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

use crate::{
    counters::{Counter, Counters},
    disk::{Disk, ZEROED_AT_ONCE, inside},
    ending::to_the_end,
    error::invalid,
    holders::Holder,
    holes::Zeroing,
    image::Image,
    mounts::InUse,
    names::Files,
    share::Offers,
    store::Store,
};

const READER: Abilities =
    Abilities::from_bits(Abilities::SHARED_READ.bits() | Abilities::PERSISTENT.bits());
const WRITER: Abilities = Abilities::from_bits(
    READER.bits()
        | Abilities::WRITE.bits()
        | Abilities::FUA.bits()
        | Abilities::WRITE_ZEROES.bits()
        | Abilities::GROW.bits()
        | Abilities::SHRINK.bits(),
);

/// What a volume can do.
pub(crate) fn capabilities(writer: bool, exclusive: bool, offers: Offers) -> Capabilities {
    let mut abilities = if writer { WRITER } else { READER };
    if writer && offers.punch {
        abilities = abilities | Abilities::DISCARD | Abilities::FAST_ZERO;
    }
    if offers.map {
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
    pub disk: Arc<Disk>,
    /// The image in the file, unless byte n of the volume is byte n of the file.
    pub image: Option<Image>,
    pub holder: Holder,
    pub size: AtomicU64,
    counters: Counters,
    _in_use: InUse,
}

impl Attached {
    /// An attachment that begins.
    pub fn new(
        store: Arc<Store>,
        files: Files,
        disk: Arc<Disk>,
        image: Option<Image>,
        holder: Holder,
        size: u64,
    ) -> Self {
        Self {
            name: disk.volume.clone(),
            store,
            files,
            image,
            holder,
            size: AtomicU64::new(size),
            counters: Counters::default(),
            _in_use: disk.file.mount.hold(),
            disk,
        }
    }

    /// When an operation that begins now has to end.
    pub fn until(&self, cx: &OpContext) -> Instant {
        self.disk.file.mount.until(cx.time_left())
    }

    /// What can be done with ranges of it.
    pub fn offers(&self) -> Offers {
        match &self.image {
            Some(image) => Offers { punch: image.is_modern(), map: true },
            None => self.disk.file.offers(),
        }
    }

    /// Refuses a range that is not the volume's.
    pub fn admit_range(&self, offset: u64, len: u64) -> Result<()> {
        inside(self.size.load(Ordering::Acquire), offset, len)
    }

    /// Refuses a change through a reader, or beyond the end.
    pub fn admit_change(&self, offset: u64, len: u64) -> Result<()> {
        self.disk.admit_writer()?;
        self.admit_range(offset, len)
    }

    /// Ends the attachment for another one: afterwards nothing of it is sent any more.
    pub async fn fence(&self, until: Instant) -> Result<()> {
        if let Some(image) = &self.image {
            // Others read what was acknowledged; what is not durable may be lost, as by a crash.
            if self.holder.writer
                && self.disk.is_open()
                && let Err(error) = image.write_back(until).await
            {
                tracing::warn!(volume = self.name, %error, "the image is taken over as it lies on the share");
            }
            self.disk.deny();
            image.stop(until).await?;
        }
        self.disk.fence(until).await
    }

    async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        match &self.image {
            None => self.disk.read(offset, len, until).await,
            Some(image) => {
                self.disk.admit()?;
                self.admit_range(offset, len.into())?;
                image.read(offset, len, until).await
            }
        }
    }

    async fn write(&self, until: Instant, offset: u64, data: Bytes, durable: bool) -> Result<()> {
        let Some(image) = &self.image else {
            return self.disk.write(until, offset, data, durable).await;
        };
        self.admit_change(offset, data.len() as u64)?;
        image.write(offset, data, until).await?;
        if durable { self.flush(until).await } else { Ok(()) }
    }

    /// Writes zeros.
    pub async fn zero(&self, until: Instant, offset: u64, len: u64, durable: bool) -> Result<()> {
        let Some(image) = &self.image else {
            return self.disk.zero(until, offset, len, durable).await;
        };
        self.admit_change(offset, len)?;
        image.write_zeros(offset, len, until).await?;
        if durable { self.flush(until).await } else { Ok(()) }
    }

    /// Makes every write acknowledged before the call durable.
    pub async fn flush(&self, until: Instant) -> Result<()> {
        if let Some(image) = self.image.as_ref().filter(|_| self.holder.writer) {
            self.disk.admit_flush()?;
            image.write_back(until).await?;
        }
        self.disk.flush(until).await
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
        capabilities(self.0.holder.writer, self.0.disk.file.is_exclusive(), self.0.offers())
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
        let free = self.0.offers().punch && !flags.has(WriteFlags::NO_HOLE);
        if flags.has(WriteFlags::FAST_ONLY) && !free {
            return Op::err(ext::unsupported("fast zeroing"));
        }
        let zeroing = match (free, flags.has(WriteFlags::FAST_ONLY)) {
            (false, _) => Zeroing::Written,
            (true, fast_only) => Zeroing::Freed { or_written: !fast_only },
        };
        // Zeroing a large range takes as long as writing it: each part has the time of one operation.
        let parts = len.div_ceil(ZEROED_AT_ONCE).max(1);
        let patience = self.0.disk.file.mount.patience.operation.saturating_mul(parts as u32);
        let left =
            cx.time_left().unwrap_or(patience).min(patience).min(Duration::from_secs(86_400));
        let (until, durable) = (Instant::now() + left, flags.has(WriteFlags::FUA));
        let counter: fn(&Counters) -> &Counter = |counters| &counters.zeroes;
        self.change(counter, len, |attached| async move {
            attached.clear(until, (offset, len), zeroing, durable).await
        })
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        if !self.0.offers().punch {
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
        let fenced = attached.disk.is_fenced() || attached.disk.file.is_fenced();
        attached
            .counters
            .stats()
            .gauge("not_durable_bytes", attached.disk.ledger().bytes() as f64)
            .gauge("writes_in_doubt", flag(attached.disk.is_in_doubt()))
            .gauge("fenced", flag(fenced))
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        self.0.offers().map.then(|| Arc::new(self.clone()) as Arc<dyn ext::AllocationMap>)
    }
}

fn unknown_flags(flags: WriteFlags) -> Error {
    invalid(format!("the write has unknown flags: {:#x}", flags.bits()))
}
