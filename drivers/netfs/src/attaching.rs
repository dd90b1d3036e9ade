// SPDX-License-Identifier: Apache-2.0
//! Attaching and detaching: who has a volume is written beside it, where other hosts look.

use std::{sync::Arc, time::Instant};

use driver_api::{Attach, AttachMode, ErrorKind, Result, ext};

use crate::{
    companion::{self, Record},
    disk::Disk,
    error::{Fault, fenced},
    file::OpenFile,
    holders::{self, Holder, Life},
    image::Image,
    names::{Files, Format},
    places::Place,
    store::Store,
    volume::{Attached, NetfsVolume},
};

impl Store {
    /// Attaches a volume.
    pub async fn attach(
        self: &Arc<Self>,
        volume: &str,
        attach: &Attach,
        until: Instant,
    ) -> Result<NetfsVolume> {
        if ![AttachMode::READ_ONLY, AttachMode::EXCLUSIVE].contains(&attach.mode) {
            return Err(ext::unsupported("this attach mode"));
        }
        let _turn = self.turn(volume).await;
        let place = self.found(volume, until).await?;
        let Place { mount, files, file, .. } = &place;
        let mut record =
            companion::read(mount, files, until).await?.unwrap_or_else(Record::adopted);
        if attach.epoch < record.epoch {
            return Err(fenced(volume)
                .with("epoch", attach.epoch)
                .with("latest_epoch", record.epoch));
        }
        let holder = Holder::this(attach);
        self.take(volume, &mut record, &holder, attach.force, until).await?;
        let told = |fault: Fault| {
            fault.told("the volume cannot be opened").with("file", mount.place.shown_file(file))
        };
        let writer = holder.writer.then_some(attach.epoch);
        let opened = OpenFile::open(mount, volume, file, writer, until).await;
        let (opened, facts) = opened.map_err(told)?;
        record.epoch = attach.epoch;
        if place.format == Format::Qcow2 {
            record.image_size = place.size.unwrap_or(0);
        }
        record.holders.push(holder.clone());
        if let Err(error) = enter(volume, &place, &opened, &record, &holder, until).await {
            if let Err(fault) = opened.close(until).await {
                tracing::warn!(volume, %fault, "the file cannot be closed");
            }
            return Err(error);
        }
        let grows = place.format == Format::Qcow2;
        let most = self.unstable_bytes;
        let disk = Disk::new(volume, opened, holder.writer, facts.size, grows, most);
        let disk = Arc::new(disk);
        let image = match place.format {
            Format::Raw => Ok((None, facts.size)),
            Format::Qcow2 => {
                Image::open(&disk, until).await.map(|(image, size)| (Some(image), size))
            }
        };
        let (image, size) = match image {
            Ok(opened) => opened,
            Err(error) => {
                self.give_back(&disk, files, &holder, until).await;
                return Err(error.with("file", mount.place.shown_file(file)));
            }
        };
        let (store, files) = (Arc::clone(self), files.clone());
        let attached = Arc::new(Attached::new(store, files, disk, image, holder, size));
        holders::enter(&attached.holder, &attached);
        self.remember(&attached);
        Ok(NetfsVolume(attached))
    }

    /// Who has a volume: those in its record, and attachments of this backend that could not be entered there.
    pub fn holders_of(&self, volume: &str, mut noted: Vec<Holder>) -> Vec<Holder> {
        for attached in self.attachments().iter().filter(|attached| attached.name == volume) {
            if !noted.iter().any(|holder| holder.token == attached.holder.token) {
                noted.push(attached.holder.clone());
            }
        }
        noted
    }

    /// Takes those out of the record who hold the volume no more; by force also those who do.
    async fn take(
        &self,
        volume: &str,
        record: &mut Record,
        holder: &Holder,
        force: bool,
        until: Instant,
    ) -> Result<()> {
        let mut staying = Vec::new();
        for other in self.holders_of(volume, std::mem::take(&mut record.holders)) {
            let conflicts = holder.writer || other.writer;
            match other.life() {
                Life::Over => {}
                _ if !conflicts => staying.push(other),
                _ if !force => return Err(other.in_use(volume)),
                Life::Here(attached) => {
                    tracing::warn!(volume, holder = %other, "taking the volume over");
                    attached.fence(until).await?;
                }
                Life::Elsewhere => {
                    tracing::warn!(
                        volume, holder = %other,
                        "taking the volume over; nothing keeps the old holder from writing"
                    );
                }
            }
        }
        record.holders = staying;
        Ok(())
    }

    /// Ends an attachment: everything acknowledged is durable, or the answer says why not.
    pub async fn detach(&self, attached: &Arc<Attached>, until: Instant) -> Result<()> {
        let (disk, holder) = (&attached.disk, &attached.holder);
        let written_back = match &attached.image {
            Some(image) => {
                let written_back = match disk.admit_flush() {
                    Ok(()) if holder.writer => image.write_back(until).await,
                    _ => Ok(()),
                };
                image.stop(until).await?;
                written_back
            }
            None => Ok(()),
        };
        let turn = disk.flush_turn(until).await?;
        let gate = disk.barrier(until).await?;
        if !disk.is_open() {
            holders::leave(holder);
            if disk.close()
                && let Err(fault) = disk.file.close(until).await
            {
                tracing::warn!(volume = attached.name, %fault, "the file cannot be closed");
            }
            return if disk.is_fenced() { Err(fenced(&attached.name)) } else { Ok(()) };
        }
        let flushed = match disk.admit_flush() {
            Ok(()) => {
                let all = disk.ledger().mark();
                disk.make_durable_in(&turn, all, until, Some(&gate)).await
            }
            doubt => doubt,
        };
        disk.close();
        holders::leave(holder);
        drop((gate, turn));
        flushed?;
        written_back?;
        let _turn = self.turn(&attached.name).await;
        self.leave(disk, &attached.files, holder, until).await?;
        let closed = disk.file.close(until).await;
        closed.map_err(|fault| disk.told(fault, "the file cannot be closed", false))
    }

    /// Enters the size of the disk in an image into the volume's record.
    pub async fn enter_size(&self, attached: &Attached, size: u64, until: Instant) -> Result<()> {
        let _turn = self.turn(&attached.name).await;
        let (mount, files) = (&attached.disk.file.mount, &attached.files);
        let record = companion::read(mount, files, until).await?;
        let record = Record { image_size: size, ..record.unwrap_or_else(Record::adopted) };
        companion::write(mount, files, &record, until).await
    }

    /// Gives a file back whose image cannot be served.
    async fn give_back(&self, disk: &Disk, files: &Files, holder: &Holder, until: Instant) {
        disk.close();
        if let Err(error) = self.leave(disk, files, holder, until).await {
            tracing::warn!(volume = disk.volume, %error, "the volume's record does not change");
        }
        if let Err(fault) = disk.file.close(until).await {
            tracing::warn!(volume = disk.volume, %fault, "the file cannot be closed");
        }
    }

    /// Takes an attachment out of its volume's record.
    async fn leave(
        &self,
        disk: &Disk,
        files: &Files,
        holder: &Holder,
        until: Instant,
    ) -> Result<()> {
        let mount = &disk.file.mount;
        let Some(mut record) = companion::read(mount, files, until).await? else { return Ok(()) };
        let before = record.holders.len();
        record.holders.retain(|other| other.token != holder.token);
        if record.holders.len() == before {
            return Ok(());
        }
        let written = companion::write(mount, files, &record, until).await;
        note(&disk.volume, written, holder)
    }
}

/// Enters a holder into the record, if nobody came first while the file was being opened.
async fn enter(
    volume: &str,
    place: &Place,
    opened: &OpenFile,
    record: &Record,
    holder: &Holder,
    until: Instant,
) -> Result<()> {
    let Place { mount, files, .. } = place;
    if holder.writer && opened.is_exclusive() {
        let latest = companion::latest_epoch(mount, files, until).await;
        let latest = latest.map_err(|fault| fault.told("the volume's record cannot be read"))?;
        if latest > holder.epoch {
            return Err(fenced(volume).with("epoch", holder.epoch).with("latest_epoch", latest));
        }
    }
    note(volume, companion::write(mount, files, record, until).await, holder)
}

/// Judges a failure to enter or strike out a holder.
fn note(volume: &str, written: Result<()>, holder: &Holder) -> Result<()> {
    match written {
        // A reader of a share that is exported for reading only cannot say so there.
        Err(error) if !holder.writer && error.kind() == ErrorKind::PERMISSION_DENIED => {
            tracing::info!(volume, %error, "a reader is not entered in the volume's record");
            Ok(())
        }
        // A full server must not keep anybody from the data that is on it. The list of holders is advice here, and
        // this machine knows of its own attachments without it.
        Err(error) if error.kind() == ErrorKind::NO_SPACE => {
            tracing::warn!(volume, %holder, %error, "the server is full, the volume's record does not change");
            Ok(())
        }
        written => written,
    }
}
