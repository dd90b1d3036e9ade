// SPDX-License-Identifier: Apache-2.0
//! An attached volume: the data path of a raw file.
//!
//! - A change holds the *gate* for reading; whoever needs a moment without changes (replay, resize, take-over, detach) holds it
//!   for writing. Changes that overlap go one after the other.
//! - What is written and not durable is in the [ledger](crate::unstable), which reads look through: after a server has
//!   lost it, and before it is written again, nobody sees the old content.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use driver_api::{
    Abilities, Capabilities, Error, ErrorKind, Fencing, IoBuf, Op, OpContext, Result, Stats,
    Volume, WriteFlags, ext,
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::{
    counters::{Counter, Counters},
    ending::to_the_end,
    error::{Fault, broken_server, detached, fenced, in_doubt, invalid},
    file::OpenFile,
    holders::Holder,
    holes::Zeroing,
    mounts::InUse,
    ranges::Ranges,
    share::Offers,
    store::Store,
    unstable::{Ledger, Patch},
};

/// Calls of one operation that are under way at once.
const AT_ONCE: usize = 8;
/// Bytes that are zeroed in one go, before what is not durable is looked at.
const ZEROED_AT_ONCE: u64 = 32 << 20;
/// A block of zeros to write.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

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

/// How something is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The server may keep it in memory.
    Unstable,
    /// It is on the server's disk before the answer.
    Durable,
    /// It is in the ledger already, and the server may have lost it.
    Again,
}

/// An attached volume.
#[derive(Clone)]
pub struct NetfsVolume(pub(crate) Arc<Attached>);

/// What all handles to an attached volume share.
pub(crate) struct Attached {
    pub name: String,
    pub store: Arc<Store>,
    pub file: OpenFile,
    pub holder: Holder,
    pub size: AtomicU64,
    pub gate: Arc<RwLock<()>>,
    pub ranges: Ranges,
    ledger: Mutex<Ledger>,
    /// One flush at a time.
    pub flushing: tokio::sync::Mutex<()>,
    closed: AtomicBool,
    fenced: AtomicBool,
    /// A write's outcome is unknown.
    doubt: AtomicBool,
    counters: Counters,
    _in_use: InUse,
}

impl Attached {
    /// An attachment that begins.
    pub fn new(store: Arc<Store>, name: &str, file: OpenFile, holder: Holder, size: u64) -> Self {
        let in_use = file.mount.hold();
        Self {
            name: name.to_owned(),
            store,
            file,
            holder,
            size: AtomicU64::new(size),
            gate: Arc::default(),
            ranges: Ranges::default(),
            ledger: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            doubt: AtomicBool::new(false),
            counters: Counters::default(),
            _in_use: in_use,
        }
    }

    /// Whether it may still do anything.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst) && !self.fenced.load(Ordering::SeqCst)
    }

    /// Refuses what this attachment cannot do now.
    pub fn admit(&self) -> Result<()> {
        if self.fenced.load(Ordering::SeqCst) {
            return Err(fenced(&self.name));
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(detached(&self.name));
        }
        Ok(())
    }

    /// Refuses changes through a reader.
    pub fn admit_writer(&self) -> Result<()> {
        self.admit()?;
        if self.holder.writer {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
            .with("volume", &self.name)
            .remedy("attach it for writing"))
    }

    pub fn admit_range(&self, offset: u64, len: u64) -> Result<()> {
        let size = self.size.load(Ordering::Acquire);
        if offset > size || len > size - offset {
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range ends beyond the volume")
                .with("offset", offset)
                .with("length", len)
                .with("size", size));
        }
        Ok(())
    }

    /// Refuses every flush from now on if a write's outcome is unknown.
    pub fn admit_flush(&self) -> Result<()> {
        self.admit()?;
        if self.doubt.load(Ordering::SeqCst) { Err(in_doubt(&self.name)) } else { Ok(()) }
    }

    /// What is written and not durable.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When an operation that begins now has to end.
    pub fn until(&self, cx: &OpContext) -> Instant {
        self.file.mount.until(cx.time_left())
    }

    /// The error of a fault, with the volume's name. A change of unknown outcome leaves a doubt behind.
    pub fn told(&self, fault: Fault, what: &str, is_change: bool) -> Error {
        if is_change && fault.is_unknown() {
            self.doubt.store(true, Ordering::SeqCst);
        }
        fault.told(what).with("volume", &self.name)
    }

    /// Waits until a change may begin.
    pub async fn enter(&self, until: Instant) -> Result<OwnedRwLockReadGuard<()>> {
        match Arc::clone(&self.gate).try_read_owned() {
            Ok(entered) => Ok(entered),
            Err(_) => {
                let waiting = Arc::clone(&self.gate).read_owned();
                tokio::time::timeout_at(until.into(), waiting).await.map_err(|_| self.stuck())
            }
        }
    }

    /// Waits until no change is under way, and keeps others out.
    pub async fn barrier(&self, until: Instant) -> Result<OwnedRwLockWriteGuard<()>> {
        let closing = Arc::clone(&self.gate).write_owned();
        tokio::time::timeout_at(until.into(), closing).await.map_err(|_| self.stuck())
    }

    fn stuck(&self) -> Error {
        Error::new(ErrorKind::TIMED_OUT, "operations under way did not end in time")
            .with("volume", &self.name)
            .remedy("look whether the server answers, then try again")
    }

    /// Ends the attachment for another one: afterwards nothing of it is sent any more.
    pub async fn fence(&self, until: Instant) -> Result<()> {
        self.fenced.store(true, Ordering::SeqCst);
        let _alone = self.barrier(until).await?;
        self.file.retire();
        // The server itself may keep everybody else away for as long as it is open.
        if self.close()
            && let Err(fault) = self.file.close(until).await
        {
            tracing::warn!(volume = self.name, %fault, "the file cannot be closed");
        }
        Ok(())
    }

    /// Ends the attachment in good order; whether it was open.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }

    async fn read(&self, cx: OpContext, offset: u64, len: u32) -> Result<Bytes> {
        self.admit()?;
        self.admit_range(offset, len.into())?;
        let until = self.until(&cx);
        let overlay = self.ledger().overlay(offset, len.into());
        let read = self.read_file(offset, len, until).await;
        let data = read.map_err(|fault| self.told(fault, "the read failed", false))?;
        self.admit()?;
        if overlay.is_empty() {
            return Ok(data);
        }
        let mut data = data.try_into_mut().unwrap_or_else(|data| BytesMut::from(&data[..]));
        for Patch { offset: at, data: newer } in overlay {
            let at = (at - offset) as usize;
            data[at..at + newer.len()].copy_from_slice(&newer);
        }
        Ok(data.freeze())
    }

    async fn read_file(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes, Fault> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let (first, most) = self.read_part(offset, len, until).await?;
        if first.len() == len as usize {
            return Ok(first);
        }
        let begun = first.len() as u64;
        let parts: Vec<Bytes> = stream::iter(steps(offset + begun, u64::from(len) - begun, most))
            .map(|(at, step)| self.read_whole(at, step as u32, until))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut data = BytesMut::with_capacity(len as usize);
        data.extend_from_slice(&first);
        parts.iter().for_each(|part| data.extend_from_slice(part));
        Ok(data.freeze())
    }

    async fn read_whole(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes, Fault> {
        let (first, _) = self.read_part(offset, len, until).await?;
        if first.len() == len as usize {
            return Ok(first);
        }
        let mut data = BytesMut::from(&first[..]);
        while data.len() < len as usize {
            let at = offset + data.len() as u64;
            let (part, _) = self.read_part(at, len - data.len() as u32, until).await?;
            data.extend_from_slice(&part);
        }
        Ok(data.freeze())
    }

    /// One read of the server, which gives something, and the most that it could.
    async fn read_part(
        &self,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Result<(Bytes, u64), Fault> {
        let done = self.file.perform(until, |attempt, handle| async move {
            let most = attempt.share.traits().max_read;
            let read = attempt.share.read(&handle, offset, len.min(most), until).await?;
            Ok((read, u64::from(most)))
        });
        let (read, most) = done.await?;
        self.file.judge(read.facts)?;
        if !read.data.is_empty() {
            return Ok((read.data, most));
        }
        let what = if read.at_end {
            "the volume's file is shorter than the volume: it was cut off on the server"
        } else {
            "the server gave nothing for a read inside the file"
        };
        Err(broken_server(what).with("offset", offset).into())
    }

    async fn write(&self, until: Instant, offset: u64, data: Bytes, durable: bool) -> Result<()> {
        {
            let _entered = self.enter(until).await?;
            self.admit_writer()?;
            self.admit_range(offset, data.len() as u64)?;
            let _held = self.ranges.hold(offset, data.len() as u64).await;
            let how = if durable { How::Durable } else { How::Unstable };
            let written = self.write_file(offset, data, how, until).await;
            written.map_err(|fault| self.told(fault, "the write failed", true))?;
        }
        self.commit_if_full(until).await
    }

    /// Writes, and enters what is not durable into the ledger.
    pub async fn write_file(
        &self,
        offset: u64,
        data: Bytes,
        how: How,
        until: Instant,
    ) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        let most = self.file.mount.share(until).await?.0.traits().max_write;
        if data.len() <= most as usize {
            return self.write_whole(offset, data, how, until).await;
        }
        stream::iter(steps(offset, data.len() as u64, most.into()))
            .map(|(at, step)| {
                let from = (at - offset) as usize;
                self.write_whole(at, data.slice(from..from + step as usize), how, until)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    async fn write_whole(
        &self,
        mut offset: u64,
        mut data: Bytes,
        how: How,
        until: Instant,
    ) -> Result<(), Fault> {
        while !data.is_empty() {
            let sending = &data;
            let done = self.file.perform(until, |attempt, handle| {
                let (mut part, durable) = (sending.clone(), how == How::Durable);
                async move {
                    // Another share may take less at once.
                    part.truncate(attempt.share.traits().max_write as usize);
                    attempt.share.write(&handle, offset, part, durable, until).await
                }
            });
            let written = done.await?;
            self.file.judge(written.facts)?;
            let taken = data.split_to((written.count as usize).min(data.len()));
            let len = taken.len() as u64;
            let mut ledger = self.ledger();
            match how {
                _ if written.durable => ledger.durable(offset, len),
                How::Again => ledger.rewritten(offset, len, written.verifier),
                _ => ledger.unstable(offset, taken, written.verifier),
            }
            offset += len;
        }
        Ok(())
    }

    pub async fn zero(&self, until: Instant, offset: u64, len: u64, durable: bool) -> Result<()> {
        self.admit_writer()?;
        self.admit_range(offset, len)?;
        let how = if durable { How::Durable } else { How::Unstable };
        for (at, step) in steps(offset, len, ZEROED_AT_ONCE) {
            {
                let _entered = self.enter(until).await?;
                self.admit_writer()?;
                self.admit_range(at, step)?;
                let _held = self.ranges.hold(at, step).await;
                let zeroed = stream::iter(steps(at, step, ZEROS.len() as u64))
                    .map(|(at, step)| {
                        let zeros = Bytes::from_static(&ZEROS[..step as usize]);
                        self.write_file(at, zeros, how, until)
                    })
                    .buffer_unordered(AT_ONCE)
                    .try_collect::<()>();
                zeroed.await.map_err(|fault| self.told(fault, "zeroing failed", true))?;
            }
            self.commit_if_full(until).await?;
        }
        Ok(())
    }

    /// Keeps what is not durable within its bound.
    async fn commit_if_full(&self, until: Instant) -> Result<()> {
        if self.ledger().bytes() <= self.store.unstable_bytes {
            return Ok(());
        }
        self.make_durable(until).await
    }
}

/// A range in steps of at most `most` bytes.
pub(crate) fn steps(offset: u64, len: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let most = most.max(1);
    (0..len.div_ceil(most)).map(move |index| {
        let begin = index * most;
        (offset + begin, most.min(len - begin))
    })
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
        capabilities(self.0.holder.writer, self.0.file.is_exclusive(), self.0.file.offers())
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let (attached, cx) = (Arc::clone(&self.0), *cx);
        let begun = attached.counters.reads.begun();
        Op::run(async move {
            let read = attached.read(cx, offset, len).await;
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
        let free = self.0.file.offers().punch && !flags.has(WriteFlags::NO_HOLE);
        if flags.has(WriteFlags::FAST_ONLY) && !free {
            return Op::err(ext::unsupported("fast zeroing"));
        }
        let zeroing = match (free, flags.has(WriteFlags::FAST_ONLY)) {
            (false, _) => Zeroing::Written,
            (true, fast_only) => Zeroing::Freed { or_written: !fast_only },
        };
        // Zeroing a large range takes as long as writing it: each part has the time of one operation.
        let parts = len.div_ceil(ZEROED_AT_ONCE).max(1);
        let patience = self.0.file.mount.patience.operation.saturating_mul(parts as u32);
        let left =
            cx.time_left().unwrap_or(patience).min(patience).min(Duration::from_secs(86_400));
        let (until, durable) = (Instant::now() + left, flags.has(WriteFlags::FUA));
        let counter: fn(&Counters) -> &Counter = |counters| &counters.zeroes;
        self.change(counter, len, |attached| async move {
            attached.clear(until, (offset, len), zeroing, durable).await
        })
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        if !self.0.file.offers().punch {
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
        let flag = |set: &AtomicBool| if set.load(Ordering::Relaxed) { 1.0 } else { 0.0 };
        attached
            .counters
            .stats()
            .gauge("not_durable_bytes", attached.ledger().bytes() as f64)
            .gauge("writes_in_doubt", flag(&attached.doubt))
            .gauge("fenced", flag(&attached.fenced))
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        Some(Arc::new(self.clone()))
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        self.0.file.offers().map.then(|| Arc::new(self.clone()) as Arc<dyn ext::AllocationMap>)
    }
}

fn unknown_flags(flags: WriteFlags) -> Error {
    invalid(format!("the write has unknown flags: {:#x}", flags.bits()))
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn steps_cover_a_range_once() {
        assert_eq!(steps(5, 10, 4).collect::<Vec<_>>(), [(5, 4), (9, 4), (13, 2)]);
        assert_eq!(steps(5, 8, 4).collect::<Vec<_>>(), [(5, 4), (9, 4)]);
        assert_eq!(steps(5, 0, 4).count(), 0);
    }
}
