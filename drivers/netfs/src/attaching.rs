// SPDX-License-Identifier: Apache-2.0
//! Attaching and detaching: who has a volume is written beside it, where other hosts look.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{Attach, AttachMode, Error, ErrorKind, Result, ext};

use crate::{
    companion::{self, Record},
    config::Protocol,
    disk::Disk,
    error::{Fault, fenced},
    file::OpenFile,
    holders::{self, Holder, Life},
    image::Image,
    names::{Files, Format},
    places::Place,
    share::Facts,
    store::Store,
    volume::{Attached, NetfsVolume},
};

/// How often a file is asked for whose holder goes on logging in.
const ATTEMPTS: u32 = 6;
/// Between two questions as what it has logged in.
const AGAIN: Duration = Duration::from_millis(200);

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
        let holder = Holder::this(attach);
        if holder.epoch < record.epoch {
            return Err(overtaken(volume, &holder, record.epoch));
        }
        let gone = self.take(volume, &mut record, &holder, attach.force, until).await?;
        let told = |fault: Fault| {
            fault.told("the volume cannot be opened").with("file", mount.place.shown_file(file))
        };
        let opened = open(volume, &place, &holder, &gone, until).await;
        let (opened, facts) = opened.map_err(told)?;
        if let Err(error) = enter(volume, &place, &opened, &record, &holder, &gone, until).await {
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

    /// Takes those out of the record who hold the volume no more; by force also those who do. Gives all of them.
    async fn take(
        &self,
        volume: &str,
        record: &mut Record,
        holder: &Holder,
        force: bool,
        until: Instant,
    ) -> Result<Gone> {
        let (mut staying, mut gone) = (Vec::new(), Gone::default());
        for other in self.holders_of(volume, std::mem::take(&mut record.holders)) {
            match other.life() {
                Life::Over => {}
                _ if !holder.conflicts_with(&other) => {
                    staying.push(other);
                    continue;
                }
                _ if !force => return Err(other.in_use(volume)),
                Life::Here(attached) => {
                    tracing::warn!(volume, holder = %other, "taking the volume over");
                    attached.fence(until).await?;
                }
                // It learns from a larger epoch that it was taken over.
                Life::Elsewhere if holder.epoch <= record.epoch => {
                    return Err(overtaken(volume, holder, record.epoch));
                }
                Life::Elsewhere => {
                    tracing::warn!(volume, holder = %other, "taking the volume over");
                    gone.living.push(other.token.clone());
                }
            }
            gone.tokens.push(other.token);
        }
        record.holders = staying;
        Ok(gone)
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
        let resized = |record: Option<Record>, _| {
            let record = record.unwrap_or_else(Record::adopted);
            Ok(Some(Record { image_size: size, ..record }))
        };
        companion::change(&attached.disk.file, &attached.files, resized, until).await
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
        let without = |record: Option<Record>, _| {
            let Some(mut record) = record else { return Ok(None) };
            let before = record.holders.len();
            record.holders.retain(|other| other.token != holder.token);
            Ok((record.holders.len() < before).then_some(record))
        };
        let written = companion::change(&disk.file, files, without, until).await;
        note(&disk.volume, written, holder)
    }
}

/// Those who have a volume no more once it is attached.
#[derive(Default)]
struct Gone {
    /// All of them.
    tokens: Vec<String>,
    /// Those who may live, in other processes.
    living: Vec<String>,
}

fn overtaken(volume: &str, holder: &Holder, latest: u64) -> Error {
    fenced(volume).with("epoch", holder.epoch).with("latest_epoch", latest)
}

/// Opens a volume's file. From a host that is taken over the server takes it as soon as it is told to end that one's login.
async fn open(
    volume: &str,
    place: &Place,
    holder: &Holder,
    gone: &Gone,
    until: Instant,
) -> Result<(OpenFile, Facts), Fault> {
    let Place { mount, files, file, .. } = place;
    let (mut ended, mut attempts) = (Vec::new(), ATTEMPTS);
    loop {
        let refused = match OpenFile::open(mount, volume, file, holder, until).await {
            Err(Fault::Refused(error))
                if error.kind() == ErrorKind::IN_USE && !gone.living.is_empty() =>
            {
                error
            }
            opened => return opened,
        };
        let record = companion::look(mount, files, until).await?;
        let holders = record.map_or_else(Vec::new, |record| record.holders);
        let mut logins = holders.iter().filter(|other| {
            gone.living.contains(&other.token)
                && other.session != 0
                && !ended.contains(&other.session)
        });
        attempts -= 1;
        match logins.next() {
            Some(other) if mount.place.protocol == Protocol::Smb && attempts > 0 => {
                tracing::warn!(volume, holder = %other, "the server is told to end its login");
                mount.end_session(other.session, until).await?;
                ended.push(other.session);
            }
            // It lives, logged in anew, and was faster; soon it will have said as what.
            None if !ended.is_empty() && attempts > 0 => tokio::time::sleep(AGAIN).await,
            _ => return Err(refused.into()),
        }
    }
}

/// Enters a holder into the record, if nobody came first while the file was being opened. `seen` is the record as it was
/// before that, without those who are gone.
async fn enter(
    volume: &str,
    place: &Place,
    opened: &OpenFile,
    seen: &Record,
    holder: &Holder,
    gone: &Gone,
    until: Instant,
) -> Result<()> {
    let entered = |latest: Option<Record>, session| {
        let mut record = latest.unwrap_or_else(|| seen.clone());
        if record.epoch > holder.epoch {
            return Err(overtaken(volume, holder, record.epoch));
        }
        let is_seen = |other: &Holder| seen.holders.iter().any(|one| one.token == other.token);
        record.holders.retain(|other| {
            other.token != holder.token && !is_seen(other) && !gone.tokens.contains(&other.token)
        });
        if let Some(first) = record.holders.iter().find(|other| holder.conflicts_with(other)) {
            return Err(first.in_use(volume));
        }
        record.holders.extend(seen.holders.iter().cloned());
        record.holders.push(Holder { session, ..holder.clone() });
        record.epoch = holder.epoch;
        // Who was taken over may have resized the disk meanwhile, and said so.
        if place.format == Format::Qcow2 && gone.living.is_empty() {
            record.image_size = place.size.unwrap_or(0);
        }
        Ok(Some(record))
    };
    let written = companion::change(opened, &place.files, entered, until).await;
    if gone.living.is_empty() {
        return note(volume, written, holder);
    }
    if opened.is_exclusive() {
        // Nothing else would tell a host that still lives that it was taken over.
        return written;
    }
    tracing::warn!(volume, "nothing keeps those who had the volume from writing");
    note(volume, written, holder)
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
