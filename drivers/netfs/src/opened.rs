// SPDX-License-Identifier: Apache-2.0
//! An image as its thread holds it: the disk inside it, through imago and past it.

use std::{sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Extent, ExtentFlags},
};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, ShallowMapping,
    format::PreallocateMode, qcow2::Qcow2, raw::Raw,
};
use qcow2_image::header::Header;

use crate::{
    disk::{Disk, ZEROS, steps},
    error::{from_io, internal},
    image::{Link, Purpose},
    image_file::{ImageFile, Part},
    names::Format,
};

/// Bytes of the longest piece that is told at once.
const LONGEST_PIECE: u64 = 1 << 30;

/// What an image has of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// Data, from this byte of its file on.
    Data {
        /// The first byte.
        at: u64,
    },
    /// Zeros.
    Zeros,
    /// Nothing: what lies below is seen.
    Nothing,
}

/// A range of the disk in an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// What the image has of it.
    pub own: Own,
}

/// The image as its thread holds it.
pub(crate) struct Opened {
    access: tokio::sync::RwLock<FormatAccess<ImageFile>>,
    /// What it says of itself.
    pub header: Header,
    disk: Arc<Disk>,
    /// Where what lies below ends.
    below_size: u64,
}

impl Opened {
    /// Opens the files one above the other.
    pub async fn new(links: &[Link], purpose: Purpose, header: Header) -> Result<Self> {
        let Some((top, lower)) = links.split_last() else {
            return Err(internal("an image has no file"));
        };
        let (mut below, mut below_size) = (None, 0);
        for link in lower {
            let access = open_link(link, false, below.take()).await?;
            below_size = access.size();
            below = Some(access);
        }
        let access = open_link(top, purpose != Purpose::Read, below).await?;
        let (access, disk) = (tokio::sync::RwLock::new(access), Arc::clone(&top.disk));
        Ok(Self { access, header, disk, below_size })
    }

    /// imago wraps errors in texts of its own; where the file has an answer of its own, that is the better one.
    fn told(&self, what: &str, error: std::io::Error) -> Error {
        let error = from_io(what, error).with("volume", &self.disk.volume);
        let better = self
            .disk
            .admit()
            .and_then(|()| self.disk.file.check().map_err(|fault| fault.told(what)));
        match better {
            Err(better) => better.caused_by(&error),
            Ok(()) => error,
        }
    }

    /// Reads.
    pub async fn read(&self, mut offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        let access = self.access.read().await;
        let failed = |error| self.told("the read failed", error);
        let end = offset + u64::from(len);
        let mut data: Option<BytesMut> = None;
        while offset < end {
            let (mapping, found) =
                access.get_mapping(offset, end - offset).await.map_err(failed)?;
            let found = if matches!(mapping, Mapping::Eof { .. }) { end - offset } else { found };
            let part = match mapping {
                Mapping::Raw { storage, offset: at, .. } => {
                    let part = storage.disk.read(at, found as u32, until).await?;
                    if part.len() == len as usize {
                        return Ok(part);
                    }
                    part
                }
                Mapping::Zero { .. } | Mapping::Eof { .. } => {
                    let data = data.get_or_insert_with(|| BytesMut::with_capacity(len as usize));
                    data.resize(data.len() + found as usize, 0);
                    offset += found;
                    continue;
                }
                // Compressed clusters are imago's.
                _ => {
                    let mut part = BytesMut::zeroed(found as usize);
                    access.read(&mut part[..], offset).await.map_err(failed)?;
                    part.freeze()
                }
            };
            let data = data.get_or_insert_with(|| BytesMut::with_capacity(len as usize));
            data.extend_from_slice(&part);
            offset += found;
        }
        Ok(data.unwrap_or_default().freeze())
    }

    /// Writes.
    pub async fn write(&self, mut offset: u64, mut data: Bytes, until: Instant) -> Result<()> {
        while !data.is_empty() {
            let access = self.access.read().await;
            self.disk.admit_writer()?;
            let failed = |error| self.told("the write failed", error);
            let (mapping, found) =
                access.get_mapping(offset, data.len() as u64).await.map_err(failed)?;
            match mapping {
                Mapping::Raw { storage, offset: at, writable: true, .. } => {
                    let part = data.split_to(found as usize);
                    storage.disk.write(until, at, part, false).await?;
                }
                // Writing frees what was compressed: its place must not be used again while a table on the share leads there.
                Mapping::Special { .. } => {
                    drop(access);
                    let access = self.access.write().await;
                    let rest = self.header.cluster() as u64 - offset % self.header.cluster() as u64;
                    let part = data.split_to(rest.min(data.len() as u64) as usize);
                    let len = part.len() as u64;
                    access.write(&part[..], offset).await.map_err(failed)?;
                    access.flush().await.map_err(failed)?;
                    offset += len;
                    continue;
                }
                _ => {
                    let part = data.split_to((found as usize).min(data.len()));
                    access.write(&part[..], offset).await.map_err(failed)?;
                }
            }
            offset += found;
        }
        Ok(())
    }

    /// Makes a range read zeros.
    pub async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let access = self.access.write().await;
        self.disk.admit_writer()?;
        let failed = |error| self.told("zeroing failed", error);
        access.write_zeroes(offset, len).await.map_err(failed)?;
        access.flush().await.map_err(failed)
    }

    /// Writes zeros as data.
    pub async fn write_zeros(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        for (at, step) in steps(offset, len, ZEROS.len() as u64) {
            self.write(at, Bytes::from_static(&ZEROS[..step as usize]), until).await?;
        }
        Ok(())
    }

    /// imago gives clusters back to the image, not to the server: those are freed first, which is safe wherever it stops,
    /// as they read zeros either way. A cluster that something else refers to is not writable.
    pub async fn free(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        let mut access = self.access.write().await;
        self.disk.admit_writer()?;
        let failed = |error| self.told("the discard failed", error);
        let (mut at, end) = (offset, offset + len);
        while at < end && self.disk.file.offers().punch {
            match access.get_mapping(at, end - at).await.map_err(failed)? {
                (Mapping::Eof { .. }, _) => break,
                (Mapping::Raw { offset: from, writable: true, .. }, found) => {
                    self.disk.free(until, from, found).await?;
                    at += found;
                }
                (_, found) => at += found,
            }
        }
        access.discard_to_zero(offset, len).await.map_err(failed)?;
        // Before anybody is given one of these clusters.
        access.flush().await.map_err(failed)
    }

    /// Runs of data and holes, at most `limit`.
    pub async fn extents(&self, mut offset: u64, len: u64, limit: usize) -> Result<Vec<Extent>> {
        let access = self.access.read().await;
        let end = offset + len;
        let mut extents: Vec<Extent> = Vec::new();
        while offset < end {
            let found = access.get_mapping(offset, end - offset).await;
            let (mapping, len) =
                found.map_err(|error| self.told("the allocation map failed", error))?;
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

    /// Brings the tables onto the share, durably.
    pub async fn write_back(&self) -> Result<()> {
        let access = self.access.write().await;
        let flushed = access.flush().await;
        flushed.map_err(|error| self.told("the image's tables cannot be written", error))
    }

    /// Changes the size.
    pub async fn resize(&self, size: u64) -> Result<()> {
        let mut access = self.access.write().await;
        self.disk.admit_writer()?;
        let failed = |error| self.told("the image cannot be resized", error);
        let now = access.size();
        if size < now && self.header.version >= 3 {
            // The rest of the last cluster stays; it must read zeros if the image grows again.
            let end = size.next_multiple_of(self.header.cluster() as u64).min(now);
            access.write_zeroes(size, end - size).await.map_err(failed)?;
        }
        // What lies below would appear where the image was shorter.
        let hidden = self.below_size.min(size);
        if now < hidden {
            access.resize(hidden, PreallocateMode::Zero).await.map_err(failed)?;
        }
        access.resize(size, PreallocateMode::None).await.map_err(failed)?;
        access.flush().await.map_err(failed)
    }

    /// What the image has of its own, not of what lies below.
    pub async fn pieces(&self, mut offset: u64, limit: usize) -> Result<Vec<Piece>> {
        let access = self.access.read().await;
        let mut pieces = Vec::new();
        while pieces.len() < limit {
            let left = access.size().saturating_sub(offset);
            let found = access.get_shallow_mapping(offset, left.min(LONGEST_PIECE)).await;
            let failed = |error| self.told("the image's tables cannot be read", error);
            let (mapping, len) = found.map_err(failed)?;
            let kind = match mapping {
                ShallowMapping::Eof { .. } => break,
                ShallowMapping::Raw { offset: at, .. } => Own::Data { at },
                ShallowMapping::Zero { explicit: true, .. } => Own::Zeros,
                ShallowMapping::Zero { explicit: false, .. } | ShallowMapping::Indirect { .. } => {
                    Own::Nothing
                }
                _ => return Err(internal("a layer has compressed clusters").with("offset", offset)),
            };
            pieces.push(Piece { offset, len, own: kind });
            offset += len;
        }
        Ok(pieces)
    }
}

/// Opens one file of an image, on top of what lies below.
async fn open_link(
    link: &Link,
    write: bool,
    below: Option<FormatAccess<ImageFile>>,
) -> Result<FormatAccess<ImageFile>> {
    let disk = &link.disk;
    let blocks = ImageFile::new(disk, Part::Blocks);
    let opened = match link.format {
        Format::Raw => Raw::open_image(blocks, write).await.map(FormatAccess::new),
        Format::Qcow2 => Qcow2::<ImageFile>::builder(ImageFile::new(disk, Part::Tables))
            .write(write)
            .backing(below)
            .data_file(Some(blocks))
            .open(DenyImplicitOpenGate::default())
            .await
            .map(FormatAccess::new),
    };
    opened.map_err(|error| {
        let error = from_io("the qcow2 image cannot be opened", error);
        match error.kind() {
            ErrorKind::INTERNAL => Error::new(ErrorKind::CORRUPTED, error.message())
                .caused_by(&error)
                .remedy("run `qemu-img check -r all` on the image, then attach the volume again"),
            _ => error,
        }
    })
}
