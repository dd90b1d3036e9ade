// SPDX-License-Identifier: Apache-2.0
//! A file of an attached volume: every byte of it goes through here.
//!
//! - A change holds the *gate* for reading; whoever needs a moment without changes (replay, resize, take-over, detach) holds it
//!   for writing. Changes that overlap go one after the other.
//! - What is written and not durable is in the [ledger](crate::unstable), which reads look through: after a server has
//!   lost it, and before it is written again, nobody sees the old content.

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use driver_api::{Error, ErrorKind, Result};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::{
    error::{Fault, broken_server},
    file::OpenFile,
    ranges::Ranges,
    standing::Standing,
    unstable::{Ledger, Patch},
};

/// Calls of one operation that are under way at once.
const AT_ONCE: usize = 8;
/// Bytes that are zeroed in one go, before what is not durable is looked at.
pub(crate) const ZEROED_AT_ONCE: u64 = 32 << 20;
/// A block of zeros to write.
pub(crate) static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

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

/// A file of an attached volume.
pub(crate) struct Disk {
    /// How the attachment stands that it belongs to.
    pub standing: Arc<Standing>,
    /// The file.
    pub file: OpenFile,
    /// Whether writing beyond its end makes it longer.
    grows: bool,
    /// Where it ends; of a file that grows: where it may end, once everything that was sent is there.
    len: AtomicU64,
    /// It is at least so long on the server's disk.
    sure: AtomicU64,
    most_unstable: u64,
    gate: Arc<RwLock<()>>,
    pub ranges: Ranges,
    ledger: Mutex<Ledger>,
    /// One flush at a time.
    pub flushing: tokio::sync::Mutex<()>,
}

impl Deref for Disk {
    type Target = Standing;

    fn deref(&self) -> &Standing {
        &self.standing
    }
}

impl Disk {
    /// A file that is `len` bytes long; `most_unstable`: most bytes that are written but not durable.
    pub fn new(
        standing: &Arc<Standing>,
        file: OpenFile,
        len: u64,
        grows: bool,
        most_unstable: u64,
    ) -> Self {
        Self {
            standing: Arc::clone(standing),
            file,
            grows,
            len: AtomicU64::new(len),
            sure: AtomicU64::new(len),
            most_unstable,
            gate: Arc::default(),
            ranges: Ranges::default(),
            ledger: Mutex::default(),
            flushing: tokio::sync::Mutex::default(),
        }
    }

    /// Where the file ends.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    /// Notes that the file was made this long, durably.
    pub fn has_len(&self, len: u64) {
        self.len.store(len, Ordering::Release);
        self.sure.store(len, Ordering::Release);
    }

    /// Refuses a range that is not the file's.
    pub fn admit_range(&self, offset: u64, len: u64) -> Result<()> {
        if self.grows {
            return Ok(());
        }
        inside(self.len(), offset, len)
    }

    /// What is written and not durable.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a fault, with the volume's name. A change of unknown outcome leaves a doubt behind.
    pub fn told(&self, fault: Fault, what: &str, is_change: bool) -> Error {
        if is_change && fault.is_unknown() {
            self.doubt();
        }
        fault.told(what).with("volume", &self.volume)
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

    /// Gives the file up: whatever is under way has ended, and nothing of it is sent any more.
    pub async fn fence(&self, until: Instant) -> Result<()> {
        let _alone = self.barrier(until).await?;
        self.file.retire();
        Ok(())
    }

    /// Gives the file back to the server, for good. What stays open ends with the mount.
    pub async fn leave(&self, until: Instant) {
        if let Err(fault) = self.file.close(until).await {
            tracing::warn!(volume = self.volume, file = %self.file.name, %fault, "the file cannot be closed");
        }
    }

    /// Reads; beyond the end of a file that grows are zeros.
    pub async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        self.admit()?;
        self.admit_range(offset, len.into())?;
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
        if self.grows && offset >= self.len() {
            let zeros = (len as usize).min(ZEROS.len());
            return Ok((Bytes::from_static(&ZEROS[..zeros]), zeros as u64));
        }
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
        if read.at_end && self.grows && offset >= self.sure.load(Ordering::Acquire) {
            return Ok((Bytes::from_static(&ZEROS[..(len as usize).min(ZEROS.len())]), most));
        }
        let what = if read.at_end {
            "the volume's file is shorter than the volume: it was cut off on the server"
        } else {
            "the server gave nothing for a read inside the file"
        };
        Err(broken_server(what).with("offset", offset).into())
    }

    /// Writes.
    pub async fn write(
        &self,
        until: Instant,
        offset: u64,
        data: Bytes,
        durable: bool,
    ) -> Result<()> {
        if self.grows {
            self.len.fetch_max(offset + data.len() as u64, Ordering::AcqRel);
        }
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

    /// Writes zeros; where a file that grows was never written, there are zeros already.
    pub async fn zero_growing(&self, until: Instant, offset: u64, len: u64) -> Result<()> {
        match self.len().checked_sub(offset) {
            None | Some(0) => Ok(()),
            Some(there) => self.zero(until, offset, len.min(there), false).await,
        }
    }

    /// Writes zeros.
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
        if self.ledger().bytes() <= self.most_unstable {
            return Ok(());
        }
        self.make_durable(until).await
    }
}

/// Refuses a range that is not inside `size` bytes.
pub(crate) fn inside(size: u64, offset: u64, len: u64) -> Result<()> {
    if offset > size || len > size - offset {
        return Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range ends beyond the volume")
            .with("offset", offset)
            .with("length", len)
            .with("size", size));
    }
    Ok(())
}

/// A range in steps of at most `most` bytes.
pub(crate) fn steps(offset: u64, len: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let most = most.max(1);
    (0..len.div_ceil(most)).map(move |index| {
        let begin = index * most;
        (offset + begin, most.min(len - begin))
    })
}

/// The same, where every step but the first begins at a multiple of `most`.
pub(crate) fn aligned_steps(offset: u64, len: u64, most: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = (most - offset % most).min(len);
    steps(offset, first, most).chain(steps(offset + first, len - first, most))
}

#[cfg(test)]
mod tests {
    use super::{aligned_steps, steps};

    #[test]
    fn aligned_steps_end_at_multiples() {
        let told = |offset, len| aligned_steps(offset, len, 10).collect::<Vec<_>>();
        assert_eq!(told(5, 20), [(5, 5), (10, 10), (20, 5)]);
        assert_eq!(told(10, 10), [(10, 10)]);
        assert_eq!(told(12, 3), [(12, 3)]);
        assert_eq!(told(7, 0), []);
    }

    #[test]
    fn steps_cover_a_range_once() {
        assert_eq!(steps(5, 10, 4).collect::<Vec<_>>(), [(5, 4), (9, 4), (13, 2)]);
        assert_eq!(steps(5, 8, 4).collect::<Vec<_>>(), [(5, 4), (9, 4)]);
        assert_eq!(steps(5, 0, 4).count(), 0);
    }
}
