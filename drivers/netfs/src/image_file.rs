// SPDX-License-Identifier: Apache-2.0
//! A volume's file as imago sees it, and the order in which what it writes becomes durable.
//!
//! An image is whole after a crash only if its tables never refer to what is not on the disk yet: blocks before the table
//! that leads to them, counts before the table that relies on them. imago writes in that order. A server that keeps
//! writes in memory does not, and may lose any of them. So a write of tables waits until everything acknowledged before
//! is durable (a commit whose verifier was compared), and is on the disk itself before it is acknowledged.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use imago::{
    Storage,
    io_buffers::{IoVector, IoVectorMut},
    storage::{PreallocateMode, drivers::CommonStorageHelper},
};
use qcow2_image::{ReadAt, WriteAt};

use crate::{disk::Disk, error::into_io};

/// What is written through a handle.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The header, tables and counts.
    Tables,
    /// The blocks of the disk in the image.
    Blocks,
}

/// A volume's file as imago sees it.
pub(crate) struct ImageFile {
    /// The file.
    pub disk: Arc<Disk>,
    part: Part,
    helper: CommonStorageHelper,
}

impl ImageFile {
    /// A handle for one part of the image.
    pub fn new(disk: &Arc<Disk>, part: Part) -> Self {
        Self { disk: Arc::clone(disk), part, helper: CommonStorageHelper::default() }
    }

    async fn write(&self, data: Bytes, offset: u64) -> io::Result<()> {
        let (disk, until) = (&self.disk, until(&self.disk));
        let written = match self.part {
            Part::Blocks => disk.write(until, offset, data, false).await,
            Part::Tables => {
                disk.flush(until).await.map_err(into_io)?;
                disk.write(until, offset, data, true).await
            }
        };
        written.map_err(into_io)
    }
}

/// When one call of imago has to end.
fn until(disk: &Disk) -> Instant {
    Instant::now() + disk.file.mount.patience.operation.min(Duration::from_secs(86_400))
}

impl fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ImageFile")
    }
}

impl fmt::Display for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("volume file")
    }
}

impl Storage for ImageFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.len())
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut slice in bufv.into_inner() {
            let read = self.disk.read(offset, slice.len() as u32, until(&self.disk)).await;
            slice.copy_from_slice(&read.map_err(into_io)?);
            offset += slice.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        for slice in bufv.into_inner() {
            self.write(Bytes::copy_from_slice(&slice), offset).await?;
            offset += slice.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.zero_growing(until(&self.disk), offset, length).await.map_err(into_io)
    }

    async unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.zero_growing(until(&self.disk), offset, length).await.map_err(into_io)
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.disk.flush(until(&self.disk)).await.map_err(into_io)
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    /// imago sizes what it takes for a data file of its own; the blocks are in the image, which grows by being written.
    async fn resize(&self, _new_size: u64, _mode: PreallocateMode) -> io::Result<()> {
        match self.part {
            Part::Blocks => Ok(()),
            Part::Tables => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A file that is waited for: for a thread that may.
pub(crate) struct Waiting<'a> {
    /// The file.
    pub disk: &'a Disk,
    /// The driver's runtime.
    pub runtime: &'a tokio::runtime::Handle,
}

impl ReadAt for Waiting<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = buffer.len().min(1 << 20).min(self.disk.len().saturating_sub(offset) as usize);
        let reading = self.disk.read(offset, len as u32, until(self.disk));
        let read = self.runtime.block_on(reading).map_err(into_io)?;
        buffer[..read.len()].copy_from_slice(&read);
        Ok(read.len())
    }
}

impl WriteAt for Waiting<'_> {
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let writing = self.disk.write(until(self.disk), offset, Bytes::copy_from_slice(data), true);
        self.runtime.block_on(writing).map_err(into_io)
    }

    fn sync(&self) -> io::Result<()> {
        self.runtime.block_on(self.disk.flush(until(self.disk))).map_err(into_io)
    }
}
