// SPDX-License-Identifier: Apache-2.0
//! New volumes with the content of others. A clone is a volume of its own: nothing of its source is needed any more.
//!
//! | step | what a crash after it leaves |
//! |---|---|
//! | the source's content is frozen, or a reader of it attached | at most a layer that is merged back |
//! | an empty file takes the new name, and a record says from what it is being made | a volume that cannot be attached; cloning again goes on, removing it removes it |
//! | the content is copied into a file of another name | the same |
//! | that file is renamed over the empty one | the same |
//! | the record says that it is whole | the clone |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{
    Attach, AttachMode, Error, ErrorKind, Op, OpContext, Result, VolumeInfo, VolumeSpec,
    ext::Clones,
};
use qcow2_image::blank::blank;

use crate::{
    companion::{self, Record},
    config::Config,
    copying::{self, Deadline},
    disk::Disk,
    driver::NetfsBackend,
    ending::to_the_end,
    error::{Fault, internal, invalid},
    file::{OpenFile, Opener},
    formatting,
    image::Link,
    layers::tree::{LayerId, ROOT},
    mounts::Mount,
    names::{FileName, Files, Format, Layout, copy_file},
    places::Place,
    resize::{check_image_size, check_size},
    standing::Standing,
    store::Store,
    verified,
    volume::Attached,
    wishes::Wishes,
};

/// As long as nobody says how long a clone may take.
const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Clones for NetfsBackend {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let store = Arc::clone(&self.0);
        let whole = Instant::now() + cx.time_left().unwrap_or(WEEK).min(WEEK);
        let deadline = Deadline { whole, call: store.patience.operation };
        let (source, snapshot) = (source.to_owned(), snapshot.to_owned());
        to_the_end(async move {
            let cloned = store.clone_volume(&source, &snapshot, &target, deadline).await;
            cloned.map_err(|error| error.during("clone"))
        })
    }
}

/// What is copied: frozen files, which stay while this lasts.
struct Source {
    attached: Arc<Attached>,
    /// It was attached for this.
    is_reader: bool,
    links: Vec<Link>,
    opened: Vec<Arc<Disk>>,
    size: u64,
    format: Format,
}

impl Store {
    async fn clone_volume(
        self: &Arc<Self>,
        source: &str,
        snapshot: &str,
        target: &VolumeSpec,
        deadline: Deadline,
    ) -> Result<VolumeInfo> {
        let wishes = Config::wishes(target)?;
        if wishes.layout == Some(Layout::Extents) || wishes.extent_size.is_some() {
            return Err(in_one_file("a clone cannot be made in extents"));
        }
        let files = Files::of(&target.name)?;
        let attached = self.source(source, deadline).await?;
        let done = async {
            self.refuse_clone(&attached.0, snapshot, target, &wishes, deadline).await?;
            let source = freeze(attached.0.clone(), snapshot, deadline).await?;
            let made = self.make_clone(&source, snapshot, target, &wishes, &files, deadline).await;
            thaw(source, deadline).await?;
            made
        };
        let done = done.await;
        if attached.1 {
            let until = Instant::now() + deadline.call;
            if let Err(error) = self.detach(&attached.0, until).await {
                tracing::warn!(volume = source, %error, "what read the source is not detached");
            }
        }
        done
    }

    /// The source as it is attached here for writing, or else for reading, for this alone.
    async fn source(
        self: &Arc<Self>,
        volume: &str,
        deadline: Deadline,
    ) -> Result<(Arc<Attached>, bool)> {
        let writer =
            self.attachments().into_iter().find(|one| one.name == volume && one.holder.writer);
        if let Some(attached) = writer {
            return Ok((attached, false));
        }
        let until = deadline.until()?;
        let place = self.found(volume, until).await?;
        let record = companion::read(&place.mount, &place.files, until).await?;
        let epoch = record.map_or(0, |record| record.epoch);
        let attach = Attach::new(AttachMode::READ_ONLY, epoch, "a clone being made");
        Ok((self.attach(volume, &attach, until).await?.0, true))
    }

    /// Refuses what cannot be made, before anything is changed.
    async fn refuse_clone(
        &self,
        attached: &Attached,
        snapshot: &str,
        target: &VolumeSpec,
        wishes: &Wishes,
        deadline: Deadline,
    ) -> Result<()> {
        let until = deadline.until()?;
        if !attached.able.freeze {
            let error = in_one_file("a volume in extents cannot be cloned");
            return Err(error.with("volume", &attached.name));
        }
        let (size, root_format) = {
            let work = attached.work(until).await?;
            let size = match snapshot {
                "" => attached.size.load(std::sync::atomic::Ordering::Acquire),
                name => crate::snapshots::find(&work, attached, name)?.size,
            };
            (size, work.shelf.root_format)
        };
        if target.size != 0 && target.size < size {
            return Err(invalid("a clone cannot be smaller than its source")
                .with("size", target.size)
                .with("source", size)
                .remedy("clone it whole, then shrink the clone"));
        }
        let size = target.size.max(size);
        let mount = self.place_of(attached, wishes)?;
        let mounted = mount.share(until).await;
        let (share, _) = mounted.map_err(|fault| {
            fault.told("the share cannot be mounted").with("share", mount.place.shown())
        })?;
        check_size(size, share.traits().max_file_size)?;
        if wishes.format.unwrap_or(root_format) == Format::Qcow2 {
            check_image_size(size)?;
        }
        match self.find(&target.name, until).await? {
            None => Ok(()),
            Some(place) => {
                let record = companion::read(&place.mount, &place.files, until).await?;
                if is_unfinished(&place, record.as_ref()) {
                    return Ok(());
                }
                Err(crate::store::taken(&target.name, &place))
            }
        }
    }

    /// The share that a clone is made on: the source's, where it need not be told.
    fn place_of(&self, attached: &Attached, wishes: &Wishes) -> Result<Arc<Mount>> {
        match &wishes.share {
            Some(share) => self.mount(share),
            None => Ok(Arc::clone(&attached.mount)),
        }
    }

    async fn make_clone(
        &self,
        source: &Source,
        snapshot: &str,
        target: &VolumeSpec,
        wishes: &Wishes,
        files: &Files,
        deadline: Deadline,
    ) -> Result<VolumeInfo> {
        let name = target.name.as_str();
        let _turn = self.turn(name).await;
        let format = wishes.format.unwrap_or(source.format);
        let mount = self.place_of(&source.attached, wishes)?;
        let origin = match snapshot {
            "" => source.attached.name.clone(),
            snapshot => format!("{}@{snapshot}", source.attached.name),
        };
        let size = target.size.max(source.size);
        let mut record = Record { copied_from: origin.clone(), ..Record::made(size) };
        self.reserve_clone(&mount, name, files.made(format), &record, files, deadline).await?;
        let (id, most) = (record.id.as_str(), self.unstable_bytes);
        let making = Making { mount: &mount, name, id, files, format, most };
        let made = making.fill(source, size, deadline).await;
        let made = match made {
            Ok(method) => {
                (record.origin, record.clone_method) = (origin, method.to_owned());
                record.copied_from.clear();
                companion::write(&mount, files, &record, deadline.until()?).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            making.discard().await;
            return Err(error);
        }
        let until = Instant::now() + deadline.call;
        Ok(self.found(name, until).await?.info(name))
    }

    /// Takes the name, and says what for.
    async fn reserve_clone(
        &self,
        mount: &Arc<Mount>,
        name: &str,
        file: &FileName,
        record: &Record,
        files: &Files,
        deadline: Deadline,
    ) -> Result<()> {
        let until = deadline.until()?;
        let told = |fault: Fault| fault.told("the new name cannot be taken").with("volume", name);
        // One that was not finished before is made anew, wherever it is.
        if let Some(place) = self.find(name, until).await? {
            let other = companion::read(&place.mount, &place.files, until).await?;
            if !is_unfinished(&place, other.as_ref()) {
                return Err(crate::store::taken(name, &place));
            }
            if let Some(other) = other {
                let copy = copy_file(name, &other.id, place.format)?;
                verified::remove_if_there(&place.mount, &copy, until).await.map_err(told)?;
            }
            verified::remove_if_there(&place.mount, &place.file, until).await.map_err(told)?;
        }
        match verified::create(mount, file, until).await {
            Ok(_) => companion::write(mount, files, record, until).await,
            Err(Fault::Exists) => Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                "another host made a volume of this name at the same time",
            )
            .with("volume", name)
            .remedy("choose another name")),
            Err(fault) => Err(told(fault)),
        }
    }
}

fn in_one_file(what: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, what)
        .remedy("copy it into a new volume through a client, or use volumes with `layout=whole`")
}

/// Whether a volume is what an attempt to clone left that did not end.
fn is_unfinished(place: &Place, record: Option<&Record>) -> bool {
    match record {
        None => place.is_empty(),
        Some(record) => !record.copied_from.is_empty(),
    }
}

/// A clone that is being made.
struct Making<'a> {
    mount: &'a Arc<Mount>,
    name: &'a str,
    /// What its record has.
    id: &'a str,
    files: &'a Files,
    format: Format,
    most: u64,
}

impl Making<'_> {
    /// Makes the file under another name, and gives it its own once it is whole; how it was copied.
    async fn fill(&self, source: &Source, size: u64, deadline: Deadline) -> Result<&'static str> {
        let file = copy_file(self.name, self.id, self.format)?;
        let told = |fault: Fault| {
            let file = self.mount.place.shown_file(&file);
            fault.told("the clone's file cannot be made").with("file", file)
        };
        let until = deadline.until()?;
        verified::remove_if_there(self.mount, &file, until).await.map_err(told)?;
        let found = match verified::create(self.mount, &file, until).await {
            // An earlier call made it, and its answer was lost: nobody else makes files of this name.
            Err(Fault::Exists) => verified::look(self.mount, &file, until)
                .await
                .and_then(|found| found.ok_or(Fault::NotFound)),
            made => made,
        };
        let found = found.map_err(told)?;
        if self.format == Format::Qcow2 {
            let image = blank(source.size, None)
                .map_err(|error| internal(format!("an empty image cannot be made: {error}")))?;
            let put = formatting::put(self.mount, &file, image.into(), until).await;
            put.map_err(told)?;
        }
        let standing = Arc::new(Standing::new(self.name, true));
        let opened = OpenFile::open(
            self.mount,
            self.name,
            &file,
            &Opener { write: true, ..Opener::default() },
            until,
        )
        .await;
        let (opened, facts) = opened.map_err(told)?;
        let grows = self.format == Format::Qcow2;
        let disk = Arc::new(Disk::new(&standing, opened, facts.size, grows, self.most));
        let link = Link { layer: ROOT, disk, format: self.format };
        let filled = async {
            let method = copying::fill(&source.links, &link, deadline).await?;
            copying::grow(&link, size, deadline).await?;
            standing.admit_flush().map(|()| method)
        };
        let filled = filled.await;
        standing.close();
        link.disk.leave(Instant::now() + deadline.call).await;
        let method = filled?;
        let (until, name) = (deadline.until()?, self.files.made(self.format));
        let now = companion::read(self.mount, self.files, until).await?;
        if now.is_none_or(|now| now.id != self.id) {
            return Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                "another host makes this volume now",
            )
            .with("volume", self.name)
            .remedy("look at that volume"));
        }
        verified::rename(self.mount, &found, &file, name, until).await.map_err(told)?;
        Ok(method)
    }

    /// Takes away what could not be made. What stays cannot be attached, and is made anew by the next attempt.
    async fn discard(&self) {
        let until = Instant::now() + Duration::from_secs(30);
        let Ok(copy) = copy_file(self.name, self.id, self.format) else { return };
        if let Err(fault) = verified::remove_if_there(self.mount, &copy, until).await {
            tracing::warn!(file = %self.mount.place.shown_file(&copy), %fault, "a half made clone stays");
        }
        let files = self.files;
        // Another host may have begun to make it.
        let record = companion::read(self.mount, files, until).await;
        if !record.is_ok_and(|record| record.is_some_and(|record| record.id == self.id)) {
            return;
        }
        for name in [files.made(self.format), &files.companion, &files.fresh_companion] {
            if let Err(fault) = verified::remove_if_there(self.mount, name, until).await {
                tracing::warn!(file = %self.mount.place.shown_file(name), %fault, "a half made clone stays");
                return;
            }
        }
    }
}

/// Sees to it that what is to be copied stays as it is.
async fn freeze(attached: Arc<Attached>, snapshot: &str, deadline: Deadline) -> Result<Source> {
    let until = deadline.until()?;
    let turn = attached.store.turn(&attached.name).await;
    let mut work = attached.work(until).await?;
    let (layer, size) = if snapshot.is_empty() {
        let (layer, size) =
            (work.tree.active, attached.size.load(std::sync::atomic::Ordering::Acquire));
        if attached.holder.writer {
            attached.freeze(&mut work, None, until).await?;
        }
        (layer, size)
    } else {
        let found = crate::snapshots::find(&work, &attached, snapshot)?;
        (found.layer, found.size)
    };
    drop(turn);
    let chain: Vec<LayerId> = work.tree.chain(layer);
    let open = attached.enter(until).await?.links.clone();
    let opened = attached.open_links(&work, &open, &chain, until).await;
    let (links, opened) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            attached.tidy(&mut work);
            return Err(error);
        }
    };
    work.pinned.extend(&chain);
    let format = work.shelf.root_format;
    drop(work);
    let is_reader = !attached.holder.writer;
    Ok(Source { attached, is_reader, links, opened, size, format })
}

/// Lets go of what was copied.
async fn thaw(source: Source, deadline: Deadline) -> Result<()> {
    let Source { attached, is_reader, links, opened, .. } = source;
    let until = Instant::now() + deadline.call;
    let mut work = attached.work(until).await?;
    for link in &links {
        if let Some(at) = work.pinned.iter().position(|pinned| *pinned == link.layer) {
            work.pinned.swap_remove(at);
        }
    }
    let stays: Vec<LayerId> =
        attached.enter(until).await?.links.iter().map(|link| link.layer).collect();
    for link in links.iter().filter(|link| !stays.contains(&link.layer)) {
        let is_ours = opened.iter().any(|disk| Arc::ptr_eq(disk, &link.disk));
        if is_ours || !work.pinned.contains(&link.layer) {
            link.disk.leave(until).await;
        }
    }
    if !is_reader {
        attached.tidy(&mut work);
    }
    Ok(())
}
