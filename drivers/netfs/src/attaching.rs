// SPDX-License-Identifier: Apache-2.0
//! Attaching and detaching: who has a volume is written beside it, where other hosts look.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use driver_api::{Attach, AttachMode, ErrorKind, Result, ext};

use tokio::sync::RwLock;

use crate::{
    companion::{self, Record},
    counters::Counters,
    error::{Fault, fenced},
    file::OpenFile,
    holders::{self, Holder, Life},
    image::{Link, Purpose},
    layers::{
        files::Shelf,
        stack::Stack,
        tree::{ROOT, Tree},
        work::{Progress, Work},
    },
    mounts::Mount,
    names::{Files, Format},
    places::Place,
    share::Offers,
    standing::Standing,
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
        record.admit(volume)?;
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
        if place.format == Format::Qcow2 || record.tree.active != ROOT {
            record.image_size = place.size.unwrap_or(0);
        }
        record.holders.push(holder.clone());
        if let Err(error) = enter(volume, &place, &mut record, &holder, until).await {
            if let Err(fault) = opened.close(until).await {
                tracing::warn!(volume, %fault, "the file cannot be closed");
            }
            return Err(error);
        }
        let shelf = Shelf {
            mount: Arc::clone(mount),
            volume: volume.to_owned(),
            id: record.id.clone(),
            root: file.clone(),
            root_format: place.format,
            writer,
            most_unstable: self.unstable_bytes,
        };
        let standing = Arc::new(Standing::new(volume, holder.writer));
        let exclusive = opened.is_exclusive();
        let root = shelf.link(&standing, opened, facts, (ROOT, place.format));
        let mut links = vec![root];
        let stack = self.stack(&shelf, &standing, &record.tree, &mut links, until).await;
        let (stack, size) = match stack {
            Ok(opened) => opened,
            Err(error) => {
                self.give_back(&links, files, &holder, until).await;
                return Err(error.with("file", mount.place.shown_file(file)));
            }
        };
        let offers = match (place.format, &stack.image) {
            (Format::Raw, _) | (_, None) => links[0].disk.file.offers(),
            (Format::Qcow2, Some(image)) => Offers { punch: image.is_modern(), map: true },
        };
        let attached = Arc::new(Attached {
            name: volume.to_owned(),
            store: Arc::clone(self),
            files: files.clone(),
            mount: Arc::clone(mount),
            standing,
            holder,
            size: AtomicU64::new(size),
            offers,
            exclusive,
            stack: RwLock::new(stack),
            progress: Progress::default(),
            work: tokio::sync::Mutex::new(Work::new(shelf, record.tree)),
            counters: Counters::default(),
            _in_use: mount.hold(),
        });
        holders::enter(&attached.holder, &attached);
        self.remember(&attached);
        {
            let mut work = attached.work(until).await?;
            attached.progress.saw(&work.tree);
            attached.tidy(&mut work);
        }
        Ok(NetfsVolume(attached))
    }

    /// Opens what lies on the root, which is the only one of `links` yet, and all of it together.
    async fn stack(
        &self,
        shelf: &Shelf,
        standing: &Arc<Standing>,
        tree: &Tree,
        links: &mut Vec<Link>,
        until: Instant,
    ) -> Result<(Stack, u64)> {
        for layer in tree.chain(tree.active).into_iter().filter(|layer| *layer != ROOT) {
            let (file, format) = shelf.file_of(tree, layer)?;
            let link = shelf.open(standing, (layer, &file, format), until).await?;
            links.push(link.clone());
            // A crash, or another name of the volume, may have come in between.
            if standing.writer {
                shelf.set_base(&link, tree, until).await?;
            }
        }
        let purpose = if standing.writer { Purpose::Write } else { Purpose::Read };
        Stack::open(links.clone(), purpose, until).await
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
        let (standing, holder) = (&attached.standing, &attached.holder);
        let work = attached.work(until).await?;
        let stack = attached.alone(until).await?;
        work.stop(until).await?;
        let disks = work.disks(&stack);
        let flushed = match standing.admit_flush() {
            Ok(()) => stack.flush(until).await,
            doubt => doubt,
        };
        stack.stop(until).await?;
        let was_open = standing.is_open();
        if standing.close() && !was_open {
            for disk in &disks {
                disk.leave(until).await;
            }
        }
        holders::leave(holder);
        drop((stack, work));
        if !was_open {
            return if standing.is_fenced() { Err(fenced(&attached.name)) } else { Ok(()) };
        }
        flushed?;
        let _turn = self.turn(&attached.name).await;
        self.leave(&attached.mount, &attached.files, holder, until).await?;
        for disk in &disks {
            let closed = disk.file.close(until).await;
            closed.map_err(|fault| disk.told(fault, "the file cannot be closed", false))?;
        }
        Ok(())
    }

    /// Gives the files back of a volume that cannot be served.
    async fn give_back(&self, links: &[Link], files: &Files, holder: &Holder, until: Instant) {
        let Some(root) = links.first() else { return };
        root.disk.standing.close();
        if let Err(error) = self.leave(&root.disk.file.mount, files, holder, until).await {
            tracing::warn!(volume = root.disk.volume, %error, "the volume's record does not change");
        }
        for link in links {
            link.disk.leave(until).await;
        }
    }

    /// Takes an attachment out of its volume's record.
    async fn leave(
        &self,
        mount: &Arc<Mount>,
        files: &Files,
        holder: &Holder,
        until: Instant,
    ) -> Result<()> {
        let Some(mut record) = companion::read(mount, files, until).await? else { return Ok(()) };
        let before = record.holders.len();
        record.holders.retain(|other| other.token != holder.token);
        if record.holders.len() == before {
            return Ok(());
        }
        let written = companion::write(mount, files, &record, until).await;
        note(files.companion.as_str(), written, holder)
    }
}

/// Enters a holder into the record, if nobody came first while the file was being opened. What a writer before it left
/// there meanwhile stays.
async fn enter(
    volume: &str,
    place: &Place,
    record: &mut Record,
    holder: &Holder,
    until: Instant,
) -> Result<()> {
    let Place { mount, files, .. } = place;
    if holder.writer
        && let Some(now) = companion::read(mount, files, until).await?
    {
        if now.epoch > holder.epoch {
            return Err(fenced(volume).with("epoch", holder.epoch).with("latest_epoch", now.epoch));
        }
        now.admit(volume)?;
        record.tree = now.tree;
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
