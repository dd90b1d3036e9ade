// SPDX-License-Identifier: Apache-2.0
//! A volume's file: every access is fenced, every mutation copied before where a copy is under way, and no flush lies.

use std::{
    fs::File,
    io::{self, IoSlice},
    num::NonZero,
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use driver_api::{Error, IoBufMut, Result};
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::{Errno, ReadWriteFlags, pwritev2},
};

use crate::{
    client,
    copy_before_write::CopyBeforeWrite,
    error::{given_up, is_unsupported, lost, on_data, on_read},
    extents::{self, Run},
    ledger::Ledger,
    nowait::NoWait,
    slot::{InFlight, Slot},
};

/// What the file is now. It changes only while no operation is under way.
struct State {
    file: File,
    copy: Option<Arc<CopyBeforeWrite>>,
}

/// The file of an attached volume.
pub(crate) struct Disk {
    volume: String,
    state: RwLock<State>,
    slot: Option<Arc<Slot>>,
    /// Offsets, lengths and memory must be multiples of this.
    align: usize,
    nowait: NoWait,
    ledger: Ledger,
    /// Why nothing is done with the file any more.
    given_up: OnceLock<Error>,
    punch: AtomicBool,
    zero_range: AtomicBool,
    fiemap: AtomicBool,
}

impl Disk {
    /// The file of the volume `volume`, attached through `slot`; `align` above 1 for a file that bypasses the page cache.
    pub fn new(volume: &str, file: File, slot: Option<Arc<Slot>>, align: usize) -> Self {
        Self {
            volume: volume.into(),
            state: RwLock::new(State { file, copy: None }),
            slot,
            align,
            nowait: NoWait::new(align == 1),
            ledger: Ledger::new(),
            given_up: OnceLock::new(),
            punch: AtomicBool::new(true),
            zero_range: AtomicBool::new(true),
            fiemap: AtomicBool::new(true),
        }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume's name.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// Fails once the attachment was taken over, or the volume given up.
    pub fn check(&self) -> Result<()> {
        self.slot.as_ref().map_or(Ok(()), |slot| slot.check())?;
        self.given_up.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn enter(&self) -> Result<Option<InFlight<'_>>> {
        let in_flight = self.enter_to_sync()?;
        self.given_up.get().map_or(Ok(in_flight), |why| Err(why.clone()))
    }

    /// A volume that was given up takes no changes, but those it took before can still become durable.
    fn enter_to_sync(&self) -> Result<Option<InFlight<'_>>> {
        if self.ledger.is_lost() {
            return Err(lost(&self.volume));
        }
        self.slot.as_ref().map(|slot| slot.enter()).transpose()
    }

    /// Offsets, lengths and memory should be multiples of this.
    pub fn align(&self) -> usize {
        self.align
    }

    /// Fails every operation but [`Self::sync`] from now on: what is in memory and what is on disk do not belong together.
    /// Gives the error that they fail with; the first reason stands.
    pub fn give_up(&self, why: &Error) -> Error {
        let refusal = self.given_up.get_or_init(|| {
            tracing::error!(volume = self.volume, %why, "the volume is given up until it is attached anew");
            given_up(&self.volume).caused_by(why)
        });
        refusal.clone()
    }

    /// Whether the volume was given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up.get().is_some()
    }

    /// Bytes in the file.
    pub fn len(&self) -> Result<u64> {
        let metadata = self.state().file.metadata();
        metadata.map(|metadata| metadata.len()).map_err(|error| on_data("cannot size", &error))
    }

    /// Whether acknowledged writes were lost.
    pub fn is_lost(&self) -> bool {
        self.ledger.is_lost()
    }

    /// Tells the kernel that a range will be read; it reads ahead by itself.
    pub fn will_need(&self, offset: u64, len: u64) -> Result<()> {
        self.check()?;
        let state = self.state();
        let len = NonZero::new(len);
        rustix::fs::fadvise(&state.file, offset, len, rustix::fs::Advice::WillNeed)
            .map_err(|error| on_data("cannot prefetch", &error.into()))
    }

    /// Reads what needs no waiting; `false` if that is not all.
    pub fn read_now(&self, buffer: &mut [u8], offset: u64) -> Result<bool> {
        self.check()?;
        Ok(self.nowait.read(&self.state().file, buffer, offset))
    }

    /// Reads all; beyond the end of the file are zeros. May wait.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.check()?;
        let state = self.state();
        let read = if self.fits_direct(buffer, offset) {
            read_all(&state.file, buffer, offset)
        } else {
            let (start, len) = self.widened(offset, buffer.len());
            let mut bounce = IoBufMut::zeroed(len);
            read_all(&state.file, &mut bounce, start).map(|()| {
                let from = (offset - start) as usize;
                buffer.copy_from_slice(&bounce[from..from + buffer.len()]);
            })
        };
        read.map_err(|error| on_read(&error))
    }

    fn fits_direct(&self, buffer: &[u8], offset: u64) -> bool {
        let bits = buffer.as_ptr() as usize | buffer.len() | offset as usize;
        bits.is_multiple_of(self.align)
    }

    fn widened(&self, offset: u64, len: usize) -> (u64, usize) {
        let align = self.align as u64;
        let start = offset - offset % align;
        let end = (offset + len as u64).next_multiple_of(align);
        (start, (end - start) as usize)
    }

    /// Writes if that needs no waiting; `false` if not all of it was written, and all must be written again.
    pub fn write_now(&self, data: &[u8], offset: u64) -> Result<bool> {
        let Some(way) = self.nowait.way(data.len(), offset) else { return Ok(false) };
        let state = self.state();
        if state.copy.is_some() {
            return Ok(false);
        }
        let _in_flight = self.enter()?;
        let written = self.nowait.write(way, &state.file, data, offset);
        self.ledger.wrote();
        Ok(written)
    }

    /// Writes all. May wait.
    pub fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.mutate(offset, data.len() as u64, |file| {
            if self.fits_direct(data, offset) {
                file.write_all_at(data, offset)
            } else {
                self.write_bounced(file, data, offset)
            }
        })
    }

    fn write_bounced(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        if !(data.len() | offset as usize).is_multiple_of(self.align) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bounce = IoBufMut::zeroed(data.len());
        bounce.copy_from_slice(data);
        file.write_all_at(&bounce, offset)
    }

    /// Makes `[offset, offset + data)`, just written, durable.
    pub fn write_through(&self, data: &[u8], offset: u64) -> Result<()> {
        // The plain write first: if the file system is full it says so here, where nothing acknowledged is at stake.
        // What then fails while the data is forced to the disk means that the page cache lost it.
        self.write(data, offset)?;
        if self.align > 1 {
            return self.sync();
        }
        let _in_flight = self.enter()?;
        let state = self.state();
        let mut done = 0;
        while done < data.len() {
            let slice = [IoSlice::new(&data[done..])];
            match pwritev2(&state.file, &slice, offset + done as u64, ReadWriteFlags::DSYNC) {
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) if is_unsupported(errno) => {
                    drop(state);
                    return self.sync();
                }
                Err(errno) => return Err(self.lose(&errno.into())),
            }
        }
        Ok(())
    }

    /// Frees the range; it reads zeros.
    pub fn punch(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.zero_with(&self.punch, flags, offset, len)
    }

    /// Zeros the range and keeps it allocated.
    pub fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        self.zero_with(&self.zero_range, flags, offset, len)
    }

    /// As [`Self::punch`], making the file longer where the range ends beyond it.
    pub fn punch_growing(&self, offset: u64, len: u64) -> Result<()> {
        self.grow_to(offset + len)?;
        self.punch(offset, len)
    }

    /// As [`Self::zero`], making the file longer where the range ends beyond it.
    pub fn zero_growing(&self, offset: u64, len: u64) -> Result<()> {
        self.grow_to(offset + len)?;
        self.zero(offset, len)
    }

    fn grow_to(&self, end: u64) -> Result<()> {
        if self.len()? < end { self.set_len(end) } else { Ok(()) }
    }

    /// Whether zeroing is quicker than writing zeros, as far as is known.
    pub fn zeroes_fast(&self, keep_allocated: bool) -> bool {
        let able = if keep_allocated { &self.zero_range } else { &self.punch };
        able.load(Ordering::Relaxed)
    }

    fn zero_with(
        &self,
        able: &AtomicBool,
        flags: FallocateFlags,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        self.mutate(offset, len, |file| {
            if able.load(Ordering::Relaxed) {
                loop {
                    match fallocate(file, flags, offset, len) {
                        Ok(()) => return Ok(()),
                        Err(Errno::INTR) => {}
                        Err(errno) if is_unsupported(errno) => break,
                        Err(errno) => return Err(errno.into()),
                    }
                }
                able.store(false, Ordering::Relaxed);
            }
            client::write_zeros(file, offset, len)
        })
    }

    /// Makes the file `len` bytes long. New bytes read zeros.
    pub fn set_len(&self, len: u64) -> Result<()> {
        let now = self.len()?;
        self.mutate(len, now.saturating_sub(len), |file| file.set_len(len))
    }

    /// Reserves blocks.
    pub fn preallocate(
        &self,
        offset: u64,
        len: u64,
        how: crate::config::Preallocation,
    ) -> Result<()> {
        self.mutate(offset, len, |file| client::preallocate(file, offset, len, how))
    }

    fn mutate(
        &self,
        offset: u64,
        len: u64,
        change: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<()> {
        let state = self.state();
        let _in_flight = self.enter()?;
        if let Some(copy) = &state.copy {
            copy.before_mutation(offset, len);
        }
        let changed = change(&state.file);
        self.ledger.wrote();
        changed.map_err(|error| on_data("the write failed", &error))
    }

    /// Whether everything written is durable already.
    pub fn is_flushed(&self) -> Result<bool> {
        self.check()?;
        if self.is_lost() {
            return Err(lost(&self.volume));
        }
        Ok(self.ledger.is_flushed(self.ledger.written()))
    }

    /// Makes every write that returned before the call durable. After one failure every later one fails too: the
    /// kernel reports a lost page once, and then believes it clean.
    pub fn sync(&self) -> Result<()> {
        let wanted = self.ledger.written();
        let _alone = self.ledger.turn();
        let _in_flight = self.enter_to_sync()?;
        if self.ledger.is_flushed(wanted) {
            return Ok(());
        }
        let written = self.ledger.written();
        match rustix::fs::fdatasync(&self.state().file) {
            Ok(()) => {
                self.ledger.flushed(written);
                Ok(())
            }
            Err(errno) => Err(self.lose(&errno.into())),
        }
    }

    fn lose(&self, error: &io::Error) -> Error {
        self.ledger.lose();
        tracing::error!(volume = self.volume, %error, "a flush failed, acknowledged writes may be lost");
        lost(&self.volume).caused_by(error)
    }

    /// Runs of data, reserved blocks and holes in `[offset, end)`, at most `limit`.
    pub fn extents(&self, offset: u64, end: u64, limit: usize) -> Result<Vec<Run>> {
        self.check()?;
        extents::runs(&self.state().file, &self.fiemap, offset, end, limit)
            .map_err(|error| on_data("the allocation map cannot be read", &error))
    }

    /// Begins a copy of the file as it is, into the empty `target`: true if it is complete already, by shared blocks.
    /// No operation may be under way.
    pub fn begin_copy(&self, target: File) -> Result<Option<Arc<CopyBeforeWrite>>> {
        self.check()?;
        let _in_flight = match &self.slot {
            Some(slot) => Some(slot.enter()?),
            None => None,
        };
        let mut state = self.change();
        let begun = client::reflink(&state.file, &target).and_then(|shared| {
            if shared {
                return Ok(None);
            }
            CopyBeforeWrite::begin(self.reopen_cached(&state.file)?, target).map(Arc::new).map(Some)
        });
        let copy = begun.map_err(|error| on_data("the copy cannot begin", &error))?;
        state.copy.clone_from(&copy);
        Ok(copy)
    }

    /// A handle that copies any range: one that bypasses the page cache cannot read an odd tail.
    fn reopen_cached(&self, file: &File) -> io::Result<File> {
        if self.align == 1 {
            return file.try_clone();
        }
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Forgets a copy that is complete, or failed.
    pub fn end_copy(&self) {
        self.change().copy = None;
    }

    /// Puts another file in the place of this one. No operation may be under way.
    pub fn replace(&self, file: File) {
        self.change().file = file;
        self.ledger.wrote();
    }
}

fn read_all(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => {
                buffer.fill(0);
                return Ok(());
            }
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
