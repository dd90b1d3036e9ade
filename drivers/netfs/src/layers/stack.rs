// SPDX-License-Identifier: Apache-2.0
//! What an attached volume reads and writes: the files from the root up to the active layer.
//!
//! Every operation holds the stack shared while it lasts; whoever puts another one in its place has it alone, so that nobody
//! uses the old one any more. A volume without snapshots is a stack of one file.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::Result;

use crate::{
    disk::Disk,
    error::internal,
    extents::Extents,
    image::{Image, Link, Purpose},
    names::Format,
};

/// The files of an attached volume.
pub(crate) struct Stack {
    /// From the root up.
    pub links: Vec<Link>,
    /// The last one, which is written.
    pub disk: Arc<Disk>,
    /// The image in it, unless byte n of the volume is byte n of the file.
    pub image: Option<Image>,
    /// The files that the blocks are in, unless they are in that one.
    pub extents: Option<Extents>,
}

impl Stack {
    /// Opens files one above the other, and tells the size of the volume in them.
    pub async fn open(links: Vec<Link>, purpose: Purpose, until: Instant) -> Result<(Self, u64)> {
        let disk = match links.last() {
            Some(top) => Arc::clone(&top.disk),
            None => return Err(internal("a volume has no file")),
        };
        let is_raw = links.len() == 1 && links[0].format == Format::Raw;
        let (image, size) = if is_raw {
            (None, disk.len())
        } else {
            let (image, size) = Image::open(&links, purpose, until).await?;
            (Some(image), size)
        };
        Ok((Self { links, disk, image, extents: None }, size))
    }

    /// Reads what the caller was admitted to.
    pub async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        match (&self.image, &self.extents) {
            (Some(image), _) => image.read(offset, len, until).await,
            (None, Some(extents)) => extents.read(offset, len, until).await,
            (None, None) => self.disk.read(offset, len, until).await,
        }
    }

    /// Writes what the caller was admitted to; it is durable after a flush.
    pub async fn write(&self, offset: u64, data: Bytes, until: Instant) -> Result<()> {
        match (&self.image, &self.extents) {
            (Some(image), _) => image.write(offset, data, until).await,
            (None, Some(extents)) => extents.write(until, offset, data, false).await,
            (None, None) => self.disk.write(until, offset, data, false).await,
        }
    }

    /// Makes every write acknowledged before the call durable.
    pub async fn flush(&self, until: Instant) -> Result<()> {
        if let Some(image) = self.image.as_ref().filter(|_| self.disk.writer) {
            self.disk.admit_flush()?;
            image.write_back(until).await?;
        }
        match &self.extents {
            Some(extents) => extents.flush(&self.disk, until).await,
            None => self.disk.flush(until).await,
        }
    }

    /// Bytes that are written and not durable.
    pub fn not_durable(&self) -> u64 {
        match &self.extents {
            Some(extents) => extents.not_durable(),
            None => self.disk.ledger().bytes(),
        }
    }

    /// Ends the image's thread after everything that was asked before.
    pub async fn stop(&self, until: Instant) -> Result<()> {
        match &self.image {
            None => Ok(()),
            Some(image) => image.stop(until).await,
        }
    }
}
