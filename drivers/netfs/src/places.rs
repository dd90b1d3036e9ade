// SPDX-License-Identifier: Apache-2.0
//! Where volumes are: looking for one on a share, and listing all of them.

use std::{sync::Arc, time::Instant};

use driver_api::{ErrorKind, Result, VolumeInfo};

use crate::{
    companion::{self, Record},
    error::{Fault, invalid},
    formatting,
    layers::tree::Tree,
    mounts::Mount,
    names::{FileName, Files, Format, Layout, extent_of, is_layer, short_id, volume_of},
    share::{Facts, Kind, Listed},
    verified,
};

/// A volume that was found.
pub(crate) struct Place {
    /// The share that it is on.
    pub mount: Arc<Mount>,
    /// All its files.
    pub files: Files,
    /// Which of them has the blocks.
    pub file: FileName,
    /// How they are kept there.
    pub format: Format,
    /// What the server knows of that one.
    pub facts: Facts,
    /// The volume's size; `None` of an image that is half made.
    pub size: Option<u64>,
    /// Its layers and snapshots.
    pub tree: Tree,
    /// Of what it was made, and how; empty if it was not.
    pub origin: (String, String),
    /// Bytes that its other files occupy.
    pub above: u64,
    /// How long its extents are; zero: it has none.
    pub extent_size: u64,
}

impl Place {
    /// A file that was found, with nothing above it as far as is known.
    pub fn new(
        mount: Arc<Mount>,
        files: Files,
        file: FileName,
        format: Format,
        facts: Facts,
    ) -> Self {
        Self {
            mount,
            files,
            file,
            format,
            facts,
            size: None,
            tree: Tree::default(),
            origin: Default::default(),
            above: 0,
            extent_size: 0,
        }
    }

    /// What is told of the volume.
    pub fn info(&self, volume: &str) -> VolumeInfo {
        let place = &self.mount.place;
        let used = self.facts.used + self.above;
        let mut info = VolumeInfo::new(volume, self.size.unwrap_or(0), used)
            .label("format", self.format.name())
            .label("share", &place.name)
            .label("file", &place.shown_file(&self.file));
        if self.extent_size > 0 {
            info = info
                .label("layout", Layout::Extents.name())
                .label("extent_size", &self.extent_size.to_string());
        }
        if !self.origin.0.is_empty() {
            info = info.label("origin", &self.origin.0).label("clone_method", &self.origin.1);
        }
        if self.tree.is_plain() {
            return info;
        }
        info.label("snapshots", &self.tree.snapshots.len().to_string())
            .label("layers", &(1 + self.tree.overlays.len()).to_string())
    }

    /// The files that the volume has besides its own and its record.
    pub fn layer_files(&self) -> Result<Vec<FileName>> {
        let overlays = self.tree.overlays.iter().rev().map(|overlay| &overlay.file);
        overlays.chain(&self.tree.gone).map(|name| FileName::new(name)).collect()
    }

    /// Finds out which layers or extents it has, and the volume's size. `listed`: what the directory is known to have.
    async fn survey(&mut self, listed: Option<&[Listed]>, until: Instant) -> Result<()> {
        let Some(record) = companion::read(&self.mount, &self.files, until).await? else {
            return self.measure(until).await;
        };
        self.origin = (record.origin, record.clone_method);
        self.extent_size = record.extent_size;
        if self.extent_size > 0 {
            self.above = used_by_extents(&self.mount, &record.id, listed, until).await?;
        }
        if record.tree.is_plain() {
            return self.measure(until).await;
        }
        self.tree = record.tree;
        for file in self.layer_files()? {
            let looked = verified::look(&self.mount, &file, until).await;
            let looked = looked.map_err(|fault| {
                let file = self.mount.place.shown_file(&file);
                fault.told("a layer's file cannot be looked at").with("file", file)
            })?;
            self.above += looked.map_or(0, |found| found.facts.used);
        }
        let Some(active) = self.tree.overlay(self.tree.active) else {
            return self.measure(until).await;
        };
        let file = FileName::new(&active.file)?;
        self.size = match formatting::size_of(&self.mount, &file, until).await {
            // Where the server keeps everybody away from what is attached, or the file went with the first of those of
            // a volume that is being removed, the record tells.
            Err(Fault::Refused(error)) if error.kind() == ErrorKind::IN_USE => {
                Some(record.image_size)
            }
            Err(Fault::NotFound) if record.removing => Some(record.image_size),
            measured => measured.map_err(|fault| {
                let file = self.mount.place.shown_file(&file);
                fault.told("a layer's file cannot be read").with("file", file)
            })?,
        };
        Ok(())
    }

    /// Finds out the volume's size.
    async fn measure(&mut self, until: Instant) -> Result<()> {
        self.size = match self.format {
            Format::Raw => Some(self.facts.size),
            Format::Qcow2 => {
                match formatting::size_of(&self.mount, &self.file, until).await {
                    // Where the server keeps everybody away from what is attached, the record tells.
                    Err(Fault::Refused(error)) if error.kind() == ErrorKind::IN_USE => {
                        let record = companion::read(&self.mount, &self.files, until).await?;
                        let size = record.map_or(0, |record| record.image_size);
                        Some(size).filter(|size| *size > 0).ok_or(error).map(Some)?
                    }
                    measured => measured.map_err(|fault| {
                        let file = self.mount.place.shown_file(&self.file);
                        fault.told("the image cannot be read").with("file", file)
                    })?,
                }
            }
        };
        Ok(())
    }

    /// Whether it is nothing but a name that another volume is to have, whose record that is.
    pub fn is_reserved(&self, record: &Record) -> bool {
        !record.renamed_from.is_empty() && self.facts.size == 0
    }

    /// Whether there is nothing in it yet: somebody began to make it.
    pub fn is_empty(&self) -> bool {
        let made_here = self.file == *self.files.made(self.format);
        made_here && (self.facts.size == 0 || self.size.is_none())
    }
}

/// Looks for a volume on one share.
pub(crate) async fn find_on(
    mount: &Arc<Mount>,
    volume: &str,
    files: &Files,
    until: Instant,
) -> Result<Option<Place>> {
    let made = [(&files.raw, Format::Raw), (&files.qcow2, Format::Qcow2)];
    let looking = made.map(|(file, format)| look_at(mount, volume, files, file, format, until));
    let [raw, image] = looking;
    let found = match futures_util::future::try_join(raw, image).await? {
        (Some(raw), Some(image)) => {
            return Err(invalid("the share has two files for this volume")
                .with("volume", volume)
                .with("file", mount.place.shown_file(&raw.file))
                .with("other_file", mount.place.shown_file(&image.file))
                .remedy("rename one of the two files on the server"));
        }
        (Some(one), None) | (None, Some(one)) => Some(one),
        // Whatever else has the volume's very name is none of its business where it has a file of its own.
        (None, None) => match &files.adopted {
            Some(file) => look_at(mount, volume, files, file, Format::Raw, until).await?,
            None => None,
        },
    };
    let Some(mut place) = found else { return Ok(None) };
    place.survey(None, until).await?;
    Ok(Some(place))
}

async fn look_at(
    mount: &Arc<Mount>,
    volume: &str,
    files: &Files,
    file: &FileName,
    format: Format,
    until: Instant,
) -> Result<Option<Place>> {
    let looked = verified::look(mount, file, until).await.map_err(|fault| {
        let file = mount.place.shown_file(file);
        fault.told("the volume cannot be looked for").with("file", file)
    })?;
    let Some(looked) = looked else { return Ok(None) };
    if looked.facts.kind != Kind::Regular {
        return Err(invalid(
            "what has the volume's name is no regular file; symbolic links are not followed",
        )
        .with("volume", volume)
        .with("file", mount.place.shown_file(file))
        .remedy("put the image itself there, or choose another name"));
    }
    let (mount, files, file) = (Arc::clone(mount), files.clone(), file.clone());
    Ok(Some(Place::new(mount, files, file, format, looked.facts)))
}

/// Bytes that the extents of a volume occupy.
async fn used_by_extents(
    mount: &Arc<Mount>,
    id: &str,
    listed: Option<&[Listed]>,
    until: Instant,
) -> Result<u64> {
    let told =
        |fault: Fault| fault.told("the share cannot be listed").with("share", mount.place.shown());
    let fresh;
    let listed = match listed {
        Some(listed) => listed,
        None => {
            fresh = verified::list(mount, until).await.map_err(told)?;
            &fresh
        }
    };
    let mut used = 0;
    for entry in listed {
        if extent_of(&entry.name).is_none_or(|(of, _)| of != short_id(id)) {
            continue;
        }
        used += match entry.facts {
            Some(facts) => facts.used,
            None => {
                let looked = verified::look(mount, &FileName::new(&entry.name)?, until).await;
                looked.map_err(told)?.map_or(0, |found| found.facts.used)
            }
        };
    }
    Ok(used)
}

/// All volumes of one share.
pub(crate) async fn list_on(mount: &Arc<Mount>, until: Instant) -> Result<Vec<VolumeInfo>> {
    let told =
        |fault: Fault| fault.told("the share cannot be listed").with("share", mount.place.shown());
    let mut infos = Vec::new();
    let entries = verified::list(mount, until).await.map_err(told)?;
    // Whose they are is known by the records alone, which need not be read where there are none.
    let has_more =
        entries.iter().any(|entry| is_layer(&entry.name) || extent_of(&entry.name).is_some());
    for entry in &entries {
        let (Some((volume, format)), Ok(file)) =
            (volume_of(&entry.name), FileName::new(&entry.name))
        else {
            continue;
        };
        let facts = match entry.facts {
            Some(facts) => Some(facts),
            // What has gone meanwhile is not listed.
            None => {
                verified::look(mount, &file, until).await.map_err(told)?.map(|found| found.facts)
            }
        };
        let Some(facts) = facts.filter(|facts| facts.kind == Kind::Regular) else { continue };
        let (mount, files) = (Arc::clone(mount), Files::of(volume)?);
        let mut place = Place::new(mount, files, file, format, facts);
        let measured = if has_more {
            place.survey(Some(&entries), until).await
        } else {
            place.measure(until).await
        };
        // An image that cannot be served keeps nobody from seeing the others.
        match measured {
            Ok(()) => infos.push(place.info(volume)),
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
            Err(error) => infos.push(place.info(volume).label("problem", &format!("{error:#}"))),
        }
    }
    Ok(infos)
}
