// SPDX-License-Identifier: Apache-2.0
//! An attached volume of the reference. Operations at every other sector end at once, the others after a yield.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use driver_api::{
    Abilities, AttachMode, Capabilities, ErrorKind, IoBuf, IoBufMut, Op, OpContext, Result, Stats,
    Volume, WriteFlags, ext,
};

use super::{
    backend::Opening,
    content::PAGE,
    defect::Defect,
    session::Session,
    store::{Disk, Store},
};

#[derive(Clone)]
pub struct Attachment {
    opening: Opening,
    pub name: Arc<str>,
    token: u64,
    poisoned: Arc<AtomicBool>,
    session: Option<Arc<Session>>,
}

/// Notices a future that is dropped before its end.
struct Abandoned(Option<Arc<AtomicBool>>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(poisoned) = &self.0 {
            poisoned.store(true, Ordering::SeqCst);
        }
    }
}

impl Attachment {
    pub fn new(opening: Opening, name: &str, token: u64) -> Self {
        Self { opening, name: name.into(), token, poisoned: Arc::default(), session: None }
    }

    /// The attachment itself, which no session keeps from ending.
    pub fn without_session(&self) -> Self {
        Self { session: None, ..self.clone() }
    }

    pub fn with_session(&self, session: Session) -> Self {
        Self { session: Some(Arc::new(session)), ..self.clone() }
    }

    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    pub fn store(&self) -> &Arc<Store> {
        self.opening.store()
    }

    fn is(&self, defect: Defect) -> bool {
        self.store().is(defect)
    }

    /// Whether this attachment still stands, and for what.
    fn standing(&self, disk: &Disk) -> Result<AttachMode> {
        let store = self.store();
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(store.error(ErrorKind::INTERNAL, "an earlier read was left behind"));
        }
        if let Some(holder) = disk.holders.iter().find(|holder| holder.token == self.token) {
            return Ok(holder.mode);
        }
        if store.fenced.lock().expect("no panic").contains(&self.token) {
            if self.is(Defect::ZombieWrites) {
                return Ok(AttachMode::EXCLUSIVE);
            }
            let misnamed = self.is(Defect::ZombieMisnamed);
            let kind = if misnamed { ErrorKind::UNAVAILABLE } else { ErrorKind::FENCED };
            return Err(store.error(kind, "another attachment took over"));
        }
        if self.is(Defect::DetachedStillWrites) {
            return Ok(AttachMode::EXCLUSIVE);
        }
        Err(store.error(ErrorKind::INVALID_ARGUMENT, "the attachment has ended"))
    }

    /// Works on the disk, if the attachment stands.
    pub fn reading<R>(&self, work: impl FnOnce(&mut Disk) -> Result<R>) -> Result<R> {
        self.store().on(&self.name, |disk| {
            self.standing(disk)?;
            self.session().inspect(|session| session.saw(disk));
            work(disk)
        })
    }

    /// Works on the disk, if the attachment stands and may write.
    pub fn writing<R>(&self, work: impl FnOnce(&mut Disk) -> Result<R>) -> Result<R> {
        self.store().on(&self.name, |disk| match self.standing(disk)? {
            AttachMode::EXCLUSIVE if self.store().has(Abilities::WRITE) => {
                disk.changes += 1;
                self.session().inspect(|session| {
                    session.wrote();
                    session.saw(disk);
                });
                work(disk)
            }
            _ => {
                let message = "the volume is attached for reading";
                Err(self.store().error(ErrorKind::PERMISSION_DENIED, message))
            }
        })
    }

    fn inside(&self, disk: &Disk, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= disk.size => Ok(()),
            _ => {
                let error = self.store().error(ErrorKind::OUT_OF_RANGE, "the range is not inside");
                Err(error.with("volume", &self.name))
            }
        }
    }

    fn place(&self, offset: u64) -> u64 {
        if self.is(Defect::LargeOffsetsWrap) { offset & 0xffff_ffff } else { offset }
    }

    fn later<T: Send + 'static>(
        &self,
        offset: u64,
        act: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Op<T> {
        if (offset >> 9) & 1 == 0 {
            return Op::ready(act());
        }
        Op::run(async move {
            tokio::task::yield_now().await;
            act()
        })
    }

    fn get(&self, offset: u64, mut buffer: IoBufMut) -> Result<IoBuf> {
        self.store().count();
        let stale = self.is(Defect::StaleRead) && self.store().count().is_multiple_of(16);
        self.reading(|disk| {
            let len = buffer.len() as u64;
            assert!(!self.is(Defect::ReadPanics), "an invariant does not hold");
            if let Err(error) = self.inside(disk, offset, len) {
                let accepted = self.is(Defect::PastEndAccepted);
                return if accepted {
                    Ok(IoBufMut::zeroed(buffer.len()).freeze())
                } else {
                    Err(error)
                };
            }
            let stale = stale || self.session().is_some_and(Session::is_behind);
            let content = if stale { &disk.stable } else { &disk.live };
            let bytes = content.read(self.place(offset), len);
            if self.is(Defect::ShortRead) && len > PAGE {
                return Ok(IoBuf::copy_from(&bytes[1..]));
            }
            if self.is(Defect::ReadSharesMemory) {
                return Ok(self.lend(offset, bytes));
            }
            let empty = bytes.iter().all(|byte| *byte == 0);
            if !(empty && self.is(Defect::LentBufferUnfilled)) {
                buffer.copy_from_slice(&bytes);
            }
            Ok(buffer.freeze())
        })
    }

    fn lend(&self, offset: u64, bytes: Vec<u8>) -> IoBuf {
        let bytes: &'static mut [u8] = bytes.leak();
        let (address, len) = (bytes.as_mut_ptr() as usize, bytes.len());
        let mut lent = self.store().lent.lock().expect("no panic");
        lent.push((self.name.to_string(), offset, address, len));
        IoBuf::from_static(bytes)
    }

    fn scribble_lent(&self, offset: u64, data: &[u8]) {
        let lent = self.store().lent.lock().expect("no panic");
        for (name, at, address, len) in lent.iter() {
            if **name == *self.name && *at == offset && *len <= data.len() {
                // SAFETY: the block was leaked with this length; that readers see it change is the defect asked for.
                unsafe { std::ptr::copy(data.as_ptr(), *address as *mut u8, *len) };
            }
        }
    }

    fn put(&self, disk: &mut Disk, offset: u64, data: &[u8], flags: WriteFlags) {
        let (mut offset, mut data) = (self.place(offset), data);
        if self.is(Defect::HeadLost) && !offset.is_multiple_of(PAGE) && data.len() > 512 {
            (offset, data) = (offset + 512, &data[512..]);
        }
        if self.is(Defect::LargeIoTruncated) {
            data = &data[..data.len().min(512 << 10)];
        }
        if !(flags.has(WriteFlags::FUA) && self.is(Defect::FuaDropped)) {
            disk.live.write(offset, data);
        }
        if flags.has(WriteFlags::FUA) && !self.is(Defect::FuaForgotten) {
            disk.stable.write(offset, data);
        }
    }

    /// Writes that reach other volumes.
    fn spread(&self, offset: u64, data: &[u8]) {
        let shared = self.is(Defect::VolumesShareStorage) && offset.is_multiple_of(512 << 10);
        if !shared && !self.is(Defect::CloneShares) {
            return;
        }
        for disk in self.store().disks().values_mut() {
            if shared || disk.clone_of.as_deref() == Some(&*self.name) {
                disk.live.write(offset, data);
            }
        }
    }

    fn write_now(&self, offset: u64, data: &IoBuf, flags: WriteFlags) -> Result<()> {
        self.store().count();
        assert!(!(self.is(Defect::ZeroLengthPanics) && data.is_empty()), "an empty buffer");
        if flags.without_fua() {
            return Err(self.store().error(ErrorKind::INVALID_ARGUMENT, "a flag is unknown"));
        }
        self.writing(|disk| match self.inside(disk, offset, data.len() as u64) {
            Err(_) if self.is(Defect::PastEndAccepted) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                self.put(disk, offset, data, flags);
                Ok(())
            }
        })?;
        self.spread(offset, data);
        if self.is(Defect::ReadSharesMemory) {
            self.scribble_lent(offset, data);
        }
        if self.is(Defect::WriteBufferKept) {
            std::mem::forget(data.clone());
        }
        if self.is(Defect::WriteBufferScribbled) && !data.is_empty() {
            // SAFETY: the byte is on the heap and nobody reads it now; that its owner sees the change is the defect.
            unsafe { *data.as_ptr().cast_mut() ^= 1 };
        }
        Ok(())
    }

    /// Writes in the wrong order, with others in between.
    async fn write_badly(self, offset: u64, data: IoBuf, flags: WriteFlags) -> Result<()> {
        let pause = async |times| {
            for _ in 0..times {
                tokio::task::yield_now().await;
            }
        };
        if self.is(Defect::LostUpdate) {
            let first = offset - offset % PAGE;
            let last = (offset + data.len() as u64).next_multiple_of(PAGE);
            let mut pages = self.reading(|disk| Ok(disk.live.read(first, last - first)))?;
            pause(3).await;
            pages[(offset - first) as usize..][..data.len()].copy_from_slice(&data);
            return self.writing(|disk| {
                disk.live.write(first, &pages);
                Ok(())
            });
        }
        if self.is(Defect::ZombieLate) || self.is(Defect::DetachLeavesWrites) {
            self.writing(|_| Ok(()))?;
            pause(32).await;
            return self.store().on(&self.name, |disk| {
                self.put(disk, offset, &data, flags);
                Ok(())
            });
        }
        let half = |from: usize| {
            self.writing(|disk| {
                for at in (from..data.len()).step_by(512) {
                    disk.live.write(offset + at as u64, &data[at..at + 256]);
                }
                Ok(())
            })
        };
        half(0)?;
        pause(2).await;
        half(256)
    }

    fn clear(&self, offset: u64, len: u64, keep: bool, past_end: Defect) -> Result<()> {
        self.store().count();
        self.writing(|disk| {
            let mut len = len;
            if self.is(past_end) && offset < disk.size {
                len = len.min(disk.size - offset);
            }
            self.inside(disk, offset, len)?;
            disk.live.zero(offset, len, keep);
            Ok(())
        })
    }
}

trait KnownFlags {
    fn without_fua(self) -> bool;
}

impl KnownFlags for WriteFlags {
    fn without_fua(self) -> bool {
        self.bits() & !WriteFlags::FUA.bits() != 0
    }
}

impl Volume for Attachment {
    fn size(&self) -> u64 {
        // Ranges are refused by what this says, before the driver is asked.
        let past_end = matches!(
            self.store().defect,
            Some(Defect::PastEndAccepted | Defect::DiscardPastEnd | Defect::ZeroesPastEnd)
        );
        let more = if past_end { 64 << 10 } else { 0 };
        self.store().on(&self.name, |disk| Ok(disk.size + more)).unwrap_or(0)
    }

    fn capabilities(&self) -> Capabilities {
        self.store().capabilities()
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let (this, buffer) = (self.clone(), cx.buffer(len as usize));
        if !self.is(Defect::DroppedReadPoisons) {
            return self.later(offset, move || this.get(offset, buffer));
        }
        Op::run(async move {
            let mut guard = Abandoned(Some(Arc::clone(&this.poisoned)));
            tokio::task::yield_now().await;
            guard.0 = None;
            this.get(offset, buffer)
        })
    }

    fn write(&self, _cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let this = self.clone();
        match self.store().defect {
            Some(Defect::LostUpdate | Defect::DroppedWriteTears) => {
                Op::run(this.write_badly(offset, data, flags))
            }
            Some(Defect::ZombieLate | Defect::DetachLeavesWrites) if (offset >> 9) & 1 == 1 => {
                Op::run(this.write_badly(offset, data, flags))
            }
            _ => self.later(offset, move || this.write_now(offset, &data, flags)),
        }
    }

    fn flush(&self, _cx: &OpContext) -> Op<()> {
        if self.is(Defect::FlushHangs) {
            return Op::run(std::future::pending());
        }
        Op::ready(self.reading(|disk| {
            if self.is(Defect::FlushPartial) {
                let kept = disk.live.0.iter().filter(|(page, _)| *page % 4 == 0);
                disk.stable.0 = kept.map(|(page, held)| (*page, held.clone())).collect();
            } else if !self.is(Defect::FlushForgotten) {
                disk.stable = disk.live.clone();
            }
            Ok(())
        }))
    }

    fn prefetch(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        if self.is(Defect::PrefetchClears) {
            let this = self.clone();
            return self
                .later(offset, move || this.clear(offset, len, true, Defect::ZeroesPastEnd));
        }
        Op::ready(self.reading(|disk| self.inside(disk, offset, len)))
    }

    fn discard(&self, _cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        if !self.store().has(Abilities::DISCARD) {
            // A reader's discard and a driver's missing one are both no.
            return Op::err(ext::unsupported("discard"));
        }
        let (mut offset, mut len) = (offset, len);
        if self.is(Defect::DiscardKeepsData) {
            return Op::ready(self.writing(|_| Ok(())));
        }
        if self.is(Defect::DiscardTouchesNeighbour) && len < 1 << 30 {
            let end = (offset + len).next_multiple_of(PAGE);
            offset -= offset % PAGE;
            len = end - offset;
        }
        let this = self.clone();
        self.later(offset, move || this.clear(offset, len, false, Defect::DiscardPastEnd))
    }

    fn write_zeroes(&self, _cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        let store = self.store();
        if !store.has(Abilities::WRITE_ZEROES) {
            return Op::err(ext::unsupported("write_zeroes"));
        }
        let known = WriteFlags::FUA.and(WriteFlags::NO_HOLE).and(WriteFlags::FAST_ONLY);
        if flags.bits() & !known.bits() != 0 {
            return Op::err(store.error(ErrorKind::INVALID_ARGUMENT, "a flag is unknown"));
        }
        let keep = flags.has(WriteFlags::NO_HOLE);
        if keep && self.is(Defect::ZeroesKeepData) {
            return Op::ok(());
        }
        if flags.has(WriteFlags::FAST_ONLY) {
            let half = self.is(Defect::FastOnlyHalf);
            let slow = half || self.is(Defect::FastZeroRefused) || !store.has(Abilities::FAST_ZERO);
            if half && let Err(error) = self.clear(offset, len / 2, keep, Defect::ZeroesPastEnd) {
                return Op::err(error);
            }
            if slow {
                return Op::err(store.error(ErrorKind::UNSUPPORTED, "it would be slow"));
            }
        }
        let this = self.clone();
        let keep = keep && !self.is(Defect::NoHoleIgnored);
        self.later(offset, move || this.clear(offset, len, keep, Defect::ZeroesPastEnd))
    }

    fn detach(&self, _cx: &OpContext) -> Op<()> {
        Op::ready(self.reading(|disk| {
            if self.is(Defect::DetachForgets) {
                disk.live = disk.stable.clone();
            }
            disk.stable = disk.live.clone();
            if self.is(Defect::DetachForgetsTokens) {
                disk.changes = 0;
            }
            // The suite's probe writes nothing, and must get by.
            if !self.is(Defect::DetachKeepsLock) || disk.live.used() == 0 {
                disk.holders.retain(|holder| holder.token != self.token);
            }
            Ok(())
        }))
    }

    fn stats(&self) -> Stats {
        Stats::new().counter("volume_operations_total", self.store().count())
    }

    fn incarnation(&self) -> u64 {
        if self.is(Defect::IncarnationWobbles) { self.store().count() } else { 1 }
    }

    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        let has = self.store().has(Abilities::SNAPSHOT) || self.is(Defect::AbilityWithoutClaim);
        has.then(|| Arc::new(self.clone()) as Arc<dyn ext::Snapshots>)
    }

    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        let has = self.store().has(Abilities::GROW) || self.store().has(Abilities::SHRINK);
        let has = has && !self.is(Defect::ClaimWithoutAbility);
        has.then(|| Arc::new(self.clone()) as Arc<dyn ext::Resize>)
    }

    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        let has = self.store().has(Abilities::ALLOCATION_MAP);
        has.then(|| Arc::new(self.clone()) as Arc<dyn ext::AllocationMap>)
    }

    fn sessions(&self) -> Option<Arc<dyn ext::Sessions<Self>>> {
        let has = self.store().has(Abilities::SESSIONS);
        has.then(|| Arc::new(self.without_session()) as Arc<dyn ext::Sessions<Self>>)
    }
}
