// SPDX-License-Identifier: Apache-2.0
//! The files of layers: making, opening and removing them, and what their headers say they lie on.
//!
//! What a layer lies on is told by the volume's record. Its header says the same, for whoever opens the files with qemu-img
//! while nobody has the volume attached; where a crash came between the two, the header is set right at the next attaching.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::Result;
use qcow2_image::{
    blank::{Base, blank},
    header::{self, WANTED},
};

use super::tree::{LayerId, ROOT, Tree};
use crate::{
    disk::Disk,
    error::{Fault, internal},
    file::{OpenFile, Opener},
    formatting,
    image::Link,
    mounts::Mount,
    names::{FileName, Format, layer_file},
    share::Facts,
    standing::Standing,
    verified,
};

/// Where the files of one volume's layers are.
#[derive(Clone)]
pub(crate) struct Shelf {
    /// The share.
    pub mount: Arc<Mount>,
    /// The volume.
    pub volume: String,
    /// Tells the volume from others that had its name.
    pub id: String,
    /// The root's file.
    pub root: FileName,
    /// How the blocks are kept there.
    pub root_format: Format,
    /// For whom the files are opened.
    pub opener: Opener,
    /// Most bytes of a file that are written but not durable.
    pub most_unstable: u64,
}

impl Shelf {
    /// The file of a layer, and how the blocks are kept in it.
    pub fn file_of(&self, tree: &Tree, id: LayerId) -> Result<(FileName, Format)> {
        if id == ROOT {
            return Ok((self.root.clone(), self.root_format));
        }
        let overlay = tree.overlay(id).ok_or_else(|| internal("a layer is not in the record"))?;
        Ok((FileName::new(&overlay.file)?, Format::Qcow2))
    }

    /// Opens a file.
    pub async fn open(
        &self,
        standing: &Arc<Standing>,
        (layer, file, format): (LayerId, &FileName, Format),
        until: Instant,
    ) -> Result<Link> {
        let opened = OpenFile::open(&self.mount, &self.volume, file, &self.opener, until).await;
        let (opened, facts) = opened.map_err(|fault| {
            let file = self.mount.place.shown_file(file);
            fault.told("a file of the volume cannot be opened").with("file", file)
        })?;
        Ok(self.link(standing, opened, facts, (layer, format)))
    }

    /// An open file as one of the volume's.
    pub fn link(
        &self,
        standing: &Arc<Standing>,
        opened: OpenFile,
        facts: Facts,
        (layer, format): (LayerId, Format),
    ) -> Link {
        let grows = format == Format::Qcow2;
        let disk = Disk::new(standing, opened, facts.size, grows, self.most_unstable);
        Link { layer, disk: Arc::new(disk), format }
    }

    /// The file of the next layer.
    pub fn next_file(&self, tree: &Tree) -> Result<FileName> {
        // Whoever lost the volume to another must not meet the other's files.
        if !self.opener.write {
            return Err(internal("a reader makes a layer"));
        }
        layer_file(&self.volume, &self.id, self.opener.epoch, tree.last + 1)
    }

    /// Makes the file of the next layer, empty, durably, on top of `below`, and opens it.
    pub async fn make(
        &self,
        standing: &Arc<Standing>,
        tree: &Tree,
        below: LayerId,
        size: u64,
        until: Instant,
    ) -> Result<(FileName, Link)> {
        let file = self.next_file(tree)?;
        let (base, format) = self.file_of(tree, below)?;
        let made = self.make_file(&file, size, (&base, format), until).await;
        made.map_err(|fault| {
            let file = self.mount.place.shown_file(&file);
            fault.told("the file of a new layer cannot be made").with("file", file)
        })?;
        let layer = tree.last + 1;
        match self.open(standing, (layer, &file, Format::Qcow2), until).await {
            Ok(link) => Ok((file, link)),
            Err(error) => {
                self.forget(&file, until).await;
                Err(error)
            }
        }
    }

    async fn make_file(
        &self,
        file: &FileName,
        size: u64,
        (base, format): (&FileName, Format),
        until: Instant,
    ) -> Result<(), Fault> {
        let name = self.name_there(base, until).await?;
        let base = Base { name: &name, format: format.name() };
        let image = blank(size, Some(base))
            .map_err(|error| internal(format!("an empty image cannot be made: {error}")))?;
        // What an attempt left that ended before the record named it.
        verified::remove_if_there(&self.mount, file, until).await?;
        match verified::create(&self.mount, file, until).await {
            // An earlier call made it, and its answer was lost: nobody else makes files of this name.
            Ok(_) | Err(Fault::Exists) => {}
            Err(fault) => return Err(fault),
        }
        formatting::put(&self.mount, file, Bytes::from(image), until).await
    }

    /// A file's name as somebody sees it who looks at the server's disk.
    async fn name_there(&self, file: &FileName, until: Instant) -> Result<String, Fault> {
        let (share, _) = self.mount.share(until).await?;
        Ok(share.name_there(file))
    }

    /// Removes a file that belongs to nothing any more.
    pub async fn remove(&self, file: &FileName, until: Instant) -> Result<()> {
        verified::remove_if_there(&self.mount, file, until).await.map_err(|fault| {
            let file = self.mount.place.shown_file(file);
            fault.told("a file that nothing needs cannot be removed").with("file", file)
        })
    }

    /// The same of the file of a layer that did not come to be: if it stays, the next layer replaces it.
    pub async fn forget(&self, file: &FileName, until: Instant) {
        if let Err(error) = self.remove(file, until).await {
            tracing::warn!(volume = self.volume, %error, "a file that nothing needs stays");
        }
    }

    /// Makes a layer's header say what the layer lies on.
    pub async fn set_base(&self, link: &Link, tree: &Tree, until: Instant) -> Result<()> {
        let Some(overlay) = tree.overlay(link.layer) else { return Ok(()) };
        let (base, format) = self.file_of(tree, overlay.parent)?;
        let told = |fault: Fault| fault.told("a layer's header cannot be written");
        let name = self.name_there(&base, until).await.map_err(told)?;
        let disk = &link.disk;
        let len = disk.len().min(WANTED as u64) as u32;
        let beginning = disk.read(0, len, until).await?;
        let base = Base { name: &name, format: format.name() };
        for (offset, bytes) in header::rebased(&beginning, base)? {
            disk.write(until, offset, bytes.into(), true).await?;
        }
        Ok(())
    }

    /// The same, of a layer whose file is not open here.
    pub async fn set_base_of(&self, tree: &Tree, layer: LayerId, until: Instant) -> Result<()> {
        let Some(overlay) = tree.overlay(layer) else { return Ok(()) };
        let file = FileName::new(&overlay.file)?;
        let (base, format) = self.file_of(tree, overlay.parent)?;
        let setting = async {
            let name = self.name_there(&base, until).await?;
            let base = Base { name: &name, format: format.name() };
            let read = verified::read_beginning(&self.mount, &file, WANTED as u32, until).await?;
            for (offset, bytes) in header::rebased(&read, base)? {
                verified::write(&self.mount, &file, offset, &bytes.into(), until).await?;
            }
            Ok(())
        };
        setting.await.map_err(|fault: Fault| {
            let file = self.mount.place.shown_file(&file);
            fault.told("a layer's header cannot be written").with("file", file)
        })
    }
}
