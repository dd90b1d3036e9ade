// SPDX-License-Identifier: Apache-2.0
//! The qcow2 format: imago over a volume's [`Disk`].
//!
//! imago's futures may not change threads, and its metadata must not be discarded from while data is written. So one
//! thread owns the image and does one operation after the other ([`crate::qcow2_actor`]). What reaches the file goes through [`Disk`], and is
//! fenced, copied before and counted as everything else.

use std::{fmt, fs::File, io, sync::Arc};

use driver_api::{Error, ErrorKind, Result, ext::Extent, ext::ExtentFlags};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping, Storage,
    format::PreallocateMode,
    io_buffers::{IoVector, IoVectorMut},
    qcow2::Qcow2,
    storage::{self, drivers::CommonStorageHelper},
};
use tokio::runtime::Runtime;

use crate::{
    config::Preallocation,
    disk::Disk,
    error::{from_io, internal, into_io},
};

/// A volume's file as imago sees it.
struct Store {
    disk: Arc<Disk>,
    align: usize,
    helper: CommonStorageHelper,
}

impl Store {
    fn new(disk: Arc<Disk>) -> Self {
        Self { align: disk.align(), disk, helper: CommonStorageHelper::default() }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("volume file")
    }
}

impl Storage for Store {
    fn mem_align(&self) -> usize {
        self.align
    }

    fn req_align(&self) -> usize {
        self.align
    }

    fn size(&self) -> io::Result<u64> {
        self.disk.len().map_err(into_io)
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        for mut slice in bufv.into_inner() {
            self.disk.read(&mut slice, offset).map_err(into_io)?;
            offset += slice.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, mut offset: u64) -> io::Result<()> {
        for slice in bufv.into_inner() {
            self.disk.write(&slice, offset).map_err(into_io)?;
            offset += slice.len() as u64;
        }
        Ok(())
    }

    async unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.punch_growing(offset, length).map_err(into_io)
    }

    async unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.zero_growing(offset, length).map_err(into_io)
    }

    async unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let end = self.size()?;
        let length = length.min(end.saturating_sub(offset));
        if length == 0 { Ok(()) } else { self.disk.punch(offset, length).map_err(into_io) }
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        self.disk.sync().map_err(into_io)
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    async fn resize(&self, new_size: u64, mode: storage::PreallocateMode) -> io::Result<()> {
        let old_size = self.size()?;
        self.disk.set_len(new_size).map_err(into_io)?;
        let how = match mode {
            storage::PreallocateMode::Allocate => Preallocation::Falloc,
            storage::PreallocateMode::WriteData => Preallocation::Full,
            _ => Preallocation::Off,
        };
        let grown = new_size.saturating_sub(old_size);
        self.disk.preallocate(old_size, grown, how).map_err(into_io)
    }
}

/// An open image.
pub(crate) struct Image {
    runtime: Runtime,
    access: FormatAccess<Store>,
    disk: Arc<Disk>,
    writable: bool,
}

impl Image {
    /// Opens the image in `disk`. One that refers to other files is refused: it could name any file of this machine.
    pub fn open(disk: Arc<Disk>, writable: bool) -> Result<Self> {
        let runtime = runtime()?;
        let access = runtime.block_on(access(&disk, writable))?;
        Ok(Self { runtime, access, disk, writable })
    }

    /// Forgets everything and reads the file anew.
    pub fn reopen(&mut self) -> Result<()> {
        self.access = self.runtime.block_on(access(&self.disk, self.writable))?;
        Ok(())
    }

    /// imago wraps errors in texts of its own; what matters to the host is asked from the disk again.
    fn failed(&self, what: &str, error: io::Error) -> Error {
        let error = from_io(what, error);
        match self.disk.is_flushed() {
            Err(refused) => refused.caused_by(&error),
            Ok(_) => error,
        }
    }

    /// The volume's size in bytes.
    pub fn size(&self) -> u64 {
        self.access.size()
    }

    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let read = self.runtime.block_on(self.access.read(buffer, offset));
        read.map_err(|error| self.failed("the read failed", error))
    }

    pub fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        let written = self.runtime.block_on(self.access.write(data, offset));
        written.map_err(|error| self.failed("the write failed", error))?;
        self.write_back()
    }

    /// Zeros the range; `free` gives its clusters back, otherwise it stays or becomes allocated.
    pub fn zero(&mut self, offset: u64, len: u64, free: bool) -> Result<()> {
        if !free {
            return self.zero_allocated(offset, len);
        }
        self.free_blocks(offset, len)?;
        let zeroed = self.runtime.block_on(self.access.discard_to_zero(offset, len));
        zeroed.map_err(|error| self.failed("zeroing failed", error))?;
        self.write_back()
    }

    /// imago's own zeroing keeps clusters that are there, but gives none to a range without: so they are allocated as
    /// for data, with their old content until the zeros are in the file.
    fn zero_allocated(&self, mut offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        while offset < end {
            let mapping = self.access.ensure_data_mapping(offset, end - offset, false);
            let mapped = self.runtime.block_on(mapping);
            let (_, at, len) = mapped.map_err(|error| self.failed("zeroing failed", error))?;
            self.disk.zero_growing(at, len)?;
            offset += len;
        }
        self.write_back()
    }

    /// imago gives discarded clusters back to the image but not to the file system. Punching them before the discard is
    /// safe wherever it stops: they read zeros either way. A cluster that something else refers to is not writable.
    fn free_blocks(&self, mut offset: u64, len: u64) -> Result<()> {
        let end = offset + len;
        while offset < end {
            let found = self.runtime.block_on(self.access.get_mapping(offset, end - offset));
            let (mapping, len) = found.map_err(|error| self.failed("the discard failed", error))?;
            match mapping {
                Mapping::Raw { offset: at, writable: true, .. } => self.disk.punch(at, len)?,
                Mapping::Eof { .. } => break,
                _ => {}
            }
            offset += len;
        }
        Ok(())
    }

    /// Brings the image's metadata into the file: after each change, so that whoever takes the volume over, or
    /// attaches it after this process was killed, reads what was acknowledged. It costs nothing where nothing was allocated.
    pub fn write_back(&self) -> Result<()> {
        let flushed = self.runtime.block_on(self.access.flush());
        flushed.map_err(|error| self.failed("the image's metadata cannot be written", error))
    }

    /// Makes everything durable.
    pub fn flush(&self) -> Result<()> {
        self.write_back()?;
        self.disk.sync()
    }

    /// Changes the size. What is cut off is freed first, and reads zeros after growing again.
    pub fn resize(&mut self, size: u64, preallocation: Preallocation) -> Result<()> {
        let now = self.size();
        if size < now {
            self.zero(size, now - size, true)?;
        }
        let how = prealloc_mode(preallocation);
        let resized = self.runtime.block_on(self.access.resize(size, how));
        resized.map_err(|error| self.failed("the image cannot be resized", error))?;
        self.flush()
    }

    /// Runs of data and holes in `[offset, end)`, at most `limit`.
    pub fn extents(&self, mut offset: u64, end: u64, limit: usize) -> Result<Vec<Extent>> {
        let mut extents: Vec<Extent> = Vec::new();
        while offset < end {
            let found = self.runtime.block_on(self.access.get_mapping(offset, end - offset));
            let (mapping, len) =
                found.map_err(|error| self.failed("the allocation map cannot be read", error))?;
            let flags = match mapping {
                Mapping::Zero { .. } => ExtentFlags::HOLE.and(ExtentFlags::ZERO),
                Mapping::Eof { .. } => break,
                _ => ExtentFlags::DATA,
            };
            let count = extents.len();
            match extents.last_mut() {
                Some(last) if last.flags == flags => last.len += len,
                _ if count == limit => break,
                _ => extents.push(Extent { offset, len, flags }),
            }
            offset += len;
        }
        Ok(extents)
    }
}

async fn access(disk: &Arc<Disk>, writable: bool) -> Result<FormatAccess<Store>> {
    let opened = Qcow2::<Store>::builder(Store::new(Arc::clone(disk)))
        .write(writable)
        .open(DenyImplicitOpenGate::default())
        .await;
    opened.map(FormatAccess::new).map_err(|error| {
        let remedy = "look with `qemu-img check`; images with a backing or data file must be converted first";
        let error = from_io("the qcow2 image cannot be opened", error);
        match error.kind() {
            ErrorKind::INTERNAL => Error::new(ErrorKind::CORRUPTED, error.message())
                .caused_by(&error)
                .remedy(remedy),
            ErrorKind::UNSUPPORTED => error.remedy(remedy),
            _ => error,
        }
    })
}

fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(|error| Error::from_io("a qcow2 volume's runtime does not start", &error))
}

fn prealloc_mode(preallocation: Preallocation) -> PreallocateMode {
    match preallocation {
        Preallocation::Off => PreallocateMode::None,
        Preallocation::Falloc => PreallocateMode::FullAllocate,
        Preallocation::Full => PreallocateMode::WriteData,
    }
}

/// Writes an empty image into `file`. May block for long.
pub(crate) fn format(
    name: &str,
    file: File,
    size: u64,
    preallocation: Preallocation,
) -> Result<()> {
    let disk = Arc::new(Disk::new(name, file, None, 1));
    on_a_thread(move || {
        let created = runtime()?.block_on(
            Qcow2::<Store>::create_builder(Store::new(Arc::clone(&disk)))
                .size(size)
                .preallocate(prealloc_mode(preallocation))
                .create(),
        );
        created.map_err(|error| from_io("the image cannot be created", error))?;
        disk.sync()
    })
}

/// Grows the image in `file`, which nobody else has open. May block for long.
pub(crate) fn grow(name: &str, file: File, size: u64, preallocation: Preallocation) -> Result<()> {
    let disk = Arc::new(Disk::new(name, file, None, 1));
    on_a_thread(move || Image::open(disk, true)?.resize(size, preallocation))
}

/// A runtime may not be started on a thread that belongs to another one.
fn on_a_thread(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let worker = std::thread::Builder::new().name("nova-local-qcow2".into()).spawn(work);
    let worker = worker.map_err(|error| Error::from_io("a thread does not start", &error))?;
    worker.join().unwrap_or_else(|_| Err(internal("the qcow2 code panicked")))
}

/// The size in the header of a qcow2 file.
pub(crate) fn size_of(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut header = [0; 32];
    file.read_exact_at(&mut header, 0)?;
    if header[..4] != *b"QFI\xfb" {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no qcow2 image"));
    }
    let (_, size) = header.split_at(24);
    size.try_into().map(u64::from_be_bytes).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod tests;
