// SPDX-License-Identifier: Apache-2.0
//! Attaching and detaching: who has a volume is written beside it, where other hosts look.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

use driver_api::{Attach, AttachMode, Error, ErrorKind, Result, Retry, ext};

use tokio::sync::RwLock;

use crate::{
    companion::{self, Record},
    config::Protocol,
    counters::Counters,
    disk::Disk,
    error::{Fault, fenced},
    extents::Extents,
    file::{OpenFile, Opener},
    holders::{self, Holder, Life},
    image::{Link, Purpose},
    layers::{
        files::Shelf,
        stack::Stack,
        tree::ROOT,
        work::{Progress, Work},
    },
    names::{Files, Format},
    places::Place,
    share::{Facts, Offers},
    standing::Standing,
    store::Store,
    volume::{Able, Attached, NetfsVolume},
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
        record.admit(volume)?;
        if place.is_reserved(&record) {
            return Err(reserved(volume, &record));
        }
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
        let entered = enter(volume, &place, &opened, &mut record, &holder, &gone, until).await;
        if let Err(error) = entered {
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
            opener: Opener::of(&holder),
            most_unstable: self.unstable_bytes,
        };
        let standing = Arc::new(Standing::new(volume, holder.writer));
        let exclusive = opened.is_exclusive();
        let link = shelf.link(&standing, opened, facts, (ROOT, place.format));
        let root = Arc::clone(&link.disk);
        let mut links = vec![link];
        let stack = self.stack(&shelf, &standing, &record, &mut links, until).await;
        let (stack, size) = match stack {
            Ok(opened) => opened,
            Err(error) => {
                self.give_back(&links, files, &holder, until).await;
                return Err(error.with("file", mount.place.shown_file(file)));
            }
        };
        let able = match (place.format, &stack.image) {
            _ if stack.extents.is_some() => Able::in_extents(root.file.offers()),
            (Format::Raw, _) | (_, None) => Able::whole(root.file.offers()),
            (Format::Qcow2, Some(image)) => {
                Able::whole(Offers { punch: image.is_modern(), map: true })
            }
        };
        let attached = Arc::new(Attached {
            name: volume.to_owned(),
            store: Arc::clone(self),
            files: files.clone(),
            mount: Arc::clone(mount),
            standing,
            holder,
            size: AtomicU64::new(size),
            able,
            exclusive,
            root,
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
        Record { tree, extent_size, .. }: &Record,
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
        let (mut stack, size) = Stack::open(links.clone(), purpose, until).await?;
        if *extent_size > 0 {
            stack.extents = Some(Extents::find(shelf, standing, *extent_size, until).await?);
        }
        Ok((stack, size))
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
        self.leave(&attached.root, &attached.files, holder, until).await?;
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
        if let Err(error) = self.leave(&root.disk, files, holder, until).await {
            tracing::warn!(volume = root.disk.volume, %error, "the volume's record does not change");
        }
        for link in links {
            link.disk.leave(until).await;
        }
    }

    /// Takes an attachment out of its volume's record.
    async fn leave(
        &self,
        root: &Disk,
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
        let written = companion::change(&root.file, files, without, until).await;
        note(&root.volume, written, holder)
    }
}

fn reserved(volume: &str, record: &Record) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "another volume is about to have this name")
        .with_retry(Retry::PERMANENT)
        .with("volume", volume)
        .with("from", &record.renamed_from)
        .remedy("rename that volume again, which goes on where it ended, or delete this name")
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
        let refused = match OpenFile::open(mount, volume, file, &Opener::of(holder), until).await {
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
/// before that, without those who are gone; it gets the layers that the volume has now.
async fn enter(
    volume: &str,
    place: &Place,
    opened: &OpenFile,
    seen: &mut Record,
    holder: &Holder,
    gone: &Gone,
    until: Instant,
) -> Result<()> {
    let tree = Mutex::new(None);
    let before = &*seen;
    let entered = |latest: Option<Record>, session| {
        let mut record = latest.unwrap_or_else(|| before.clone());
        record.admit(volume)?;
        if record.epoch > holder.epoch {
            return Err(overtaken(volume, holder, record.epoch));
        }
        let is_seen = |other: &Holder| before.holders.iter().any(|one| one.token == other.token);
        record.holders.retain(|other| {
            other.token != holder.token && !is_seen(other) && !gone.tokens.contains(&other.token)
        });
        if let Some(first) = record.holders.iter().find(|other| holder.conflicts_with(other)) {
            return Err(first.in_use(volume));
        }
        record.holders.extend(before.holders.iter().cloned());
        record.holders.push(Holder { session, ..holder.clone() });
        record.epoch = holder.epoch;
        // Who was taken over may have resized the disk meanwhile, and said so.
        let is_image = place.format == Format::Qcow2 || record.tree.active != ROOT;
        if is_image && gone.living.is_empty() {
            record.image_size = place.size.unwrap_or(0);
        }
        *tree.lock().unwrap_or_else(PoisonError::into_inner) = Some(record.tree.clone());
        Ok(Some(record))
    };
    let written = companion::change(opened, &place.files, entered, until).await;
    // What a writer before it left there meanwhile.
    if let Some(tree) = tree.into_inner().unwrap_or_else(PoisonError::into_inner) {
        seen.tree = tree;
    }
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
