// SPDX-License-Identifier: Apache-2.0
//! Giving a volume another name.
//!
//! | step | what a crash after it leaves |
//! |---|---|
//! | an empty file takes the new name, so that nobody else does | an empty file; the volume has its old name |
//! | the record is written under the new name, with the old one in it | the same; making a volume of the new name is refused |
//! | the file is renamed over the empty one | the volume has its new name; its old record is left |
//! | the old record is removed, then the old name from the new record | all is done |
//!
//! Repeating it goes on wherever it ended.

use std::{sync::Arc, time::Instant};

use driver_api::{Error, ErrorKind, Result, VolumeInfo};

use crate::{
    companion::{self, Record},
    error::{Fault, not_found},
    file::Opener,
    holders::Life,
    layers::{files::Shelf, tree::ROOT},
    names::Files,
    places::Place,
    store::Store,
    verified,
};

impl Store {
    /// Gives a volume that nobody holds the name `to`.
    pub async fn rename(&self, volume: &str, to: &str, until: Instant) -> Result<VolumeInfo> {
        // In one order, so that two who exchange names do not wait for each other.
        let (one, other) = if volume < to { (volume, to) } else { (to, volume) };
        let _one = self.turn(one).await;
        let _other = if one == other { None } else { Some(self.turn(other).await) };
        let Some(place) = self.find(volume, until).await? else {
            return self.finish_rename(volume, to, until).await;
        };
        if volume == to {
            return Ok(place.info(volume));
        }
        let record = companion::read(&place.mount, &place.files, until).await?;
        let mut record = record.unwrap_or_else(Record::adopted);
        let holders = self.holders_of(volume, std::mem::take(&mut record.holders));
        if let Some(holder) = holders.iter().find(|holder| !matches!(holder.life(), Life::Over)) {
            return Err(holder.in_use(volume));
        }
        let files = Files::of(to)?;
        self.reserve(&place, volume, to, &files, until).await?;
        record.renamed_from = volume.to_owned();
        let (mount, target) = (&place.mount, files.made(place.format));
        companion::write(mount, &files, &record, until).await?;
        let told = |fault: Fault| {
            fault
                .told("the file cannot be renamed")
                .with("file", mount.place.shown_file(&place.file))
        };
        let found = verified::look(mount, &place.file, until).await.map_err(told)?;
        let Some(found) = found.filter(|found| found.facts.identity == place.facts.identity) else {
            return Err(not_found(volume));
        };
        verified::rename(mount, &found, &place.file, target, until).await.map_err(told)?;
        self.finish_rename(volume, to, until).await
    }

    /// Takes the new name, if nothing has it; an empty file that an earlier attempt left counts as nothing.
    async fn reserve(
        &self,
        place: &Place,
        volume: &str,
        to: &str,
        files: &Files,
        until: Instant,
    ) -> Result<()> {
        let mount = &place.mount;
        if let Some(other) = self.find(to, until).await? {
            let record = companion::read(&other.mount, files, until).await?;
            // Without a record it is what an attempt left that ended at once, of renaming or of making a volume.
            let ours = record.is_none_or(|record| record.renamed_from == volume);
            let ours = ours && other.file == *files.made(place.format);
            if ours && other.facts.size == 0 && other.mount.place.name == mount.place.name {
                return Ok(());
            }
            return Err(taken(to, &other));
        }
        match verified::create(mount, files.made(place.format), until).await {
            Ok(_) => Ok(()),
            Err(Fault::Exists) => Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                "another host made a volume of this name at the same time",
            )
            .with("volume", to)
            .remedy("choose another name")),
            Err(fault) => Err(fault.told("the new name cannot be taken").with("volume", to)),
        }
    }

    /// Tidies up after a volume that has its new name.
    async fn finish_rename(&self, volume: &str, to: &str, until: Instant) -> Result<VolumeInfo> {
        let Some(place) = self.find(to, until).await? else { return Err(not_found(volume)) };
        let Place { mount, files, .. } = &place;
        let record = companion::read(mount, files, until).await?;
        let moved = place.facts.size > 0;
        let Some(mut record) = record.filter(|record| moved && record.renamed_from == volume)
        else {
            return Err(not_found(volume));
        };
        let old = Files::of(volume)?;
        for name in [&old.companion, &old.fresh_companion] {
            verified::remove_if_there(mount, name, until).await.map_err(|fault| {
                fault
                    .told("the volume's old record cannot be removed")
                    .with("file", mount.place.shown_file(name))
            })?;
        }
        record.renamed_from.clear();
        companion::write(mount, files, &record, until).await?;
        // Those of layers keep their files, whose headers have the old name in them.
        let shelf = Shelf {
            mount: Arc::clone(mount),
            volume: to.to_owned(),
            id: record.id.clone(),
            root: place.file.clone(),
            root_format: place.format,
            opener: Opener::default(),
            most_unstable: 0,
        };
        for overlay in record.tree.children(ROOT) {
            shelf.set_base_of(&record.tree, overlay.id, until).await?;
        }
        Ok(place.info(to))
    }
}

fn taken(to: &str, other: &Place) -> Error {
    Error::new(ErrorKind::ALREADY_EXISTS, "another volume has this name")
        .with("volume", to)
        .with("file", other.mount.place.shown_file(&other.file))
        .remedy("choose another name, or delete that volume")
}
