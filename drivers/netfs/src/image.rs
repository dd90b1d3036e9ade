// SPDX-License-Identifier: Apache-2.0
//! The disk inside a qcow2 image.
//!
//! imago's futures may not change threads, so a thread of its own drives those of one image; many are under way at once.
//! What only looks at tables or adds to them shares the image; what could free clusters has it alone, as has the writing
//! back of tables: between the counts and the tables that rely on them nothing is added.
//!
//! ```text
//!   volume --commands--> thread: imago --+-- blocks --> disk (kept until a commit)
//!                                        +-- tables --> disk (after a commit, durable at once)
//! ```
//!
//! Blocks that have their place already are read and written past imago, as they lie in memory.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use driver_api::{
    Error, ErrorKind, Result,
    ext::{Extent, ExtentFlags},
};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping, format::PreallocateMode,
    qcow2::Qcow2,
};
use qcow2_image::{
    check::{self, Trouble},
    header::Header,
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use crate::{
    disk::{Disk, ZEROS, steps},
    error::{from_io, internal},
    image_file::{ImageFile, Part, Waiting},
};

type Doing = Pin<Box<dyn Future<Output = ()>>>;
type Command = Box<dyn FnOnce(Rc<Opened>) -> Doing + Send>;

/// The image as its thread holds it.
struct Opened {
    access: tokio::sync::RwLock<FormatAccess<ImageFile>>,
    header: Header,
    disk: Arc<Disk>,
}

/// The disk inside an image.
pub(crate) struct Image {
    disk: Arc<Disk>,
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_modern: bool,
}

impl Image {
    /// Opens the image in `disk`, and tells its size. One that is to be written is checked first.
    pub async fn open(disk: &Arc<Disk>, until: Instant) -> Result<(Self, u64)> {
        let (commands, queue) = mpsc::unbounded_channel();
        let (opened, answer) = oneshot::channel();
        let (runtime, file) = (Handle::current(), Arc::clone(disk));
        let thread = std::thread::Builder::new()
            .name("nova-netfs-qcow2".into())
            .spawn(move || serve(&runtime, &file, opened, queue))
            .map_err(|error| Error::from_io("a thread does not start", &error))?;
        let header = match tokio::time::timeout_at(until.into(), answer).await {
            Ok(Ok(header)) => header?,
            Ok(Err(_)) => return Err(internal("the qcow2 code panicked")),
            Err(_) => return Err(disk.stuck()),
        };
        let (commands, thread) = (Mutex::new(Some(commands)), Mutex::new(Some(thread)));
        let is_modern = header.version >= 3;
        Ok((Self { disk: Arc::clone(disk), commands, thread, is_modern }, header.size))
    }

    /// Does `work` on the image, to its end, whether or not somebody still waits for it.
    async fn run<T, F>(
        &self,
        until: Instant,
        is_change: bool,
        work: impl FnOnce(Rc<Opened>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let command: Command = Box::new(move |image| {
            Box::pin(async move {
                // Nobody may wait any more: the effect counts, not the answer.
                let _ = answer.send(work(image).await);
            })
        });
        {
            let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(commands) = &*commands else {
                self.disk.admit()?;
                return Err(crate::error::detached(&self.disk.volume));
            };
            if commands.send(command).is_err() {
                return Err(self.disk.give_up());
            }
        }
        match tokio::time::timeout_at(until.into(), answered).await {
            Ok(Ok(done)) => done,
            // Its thread, or what it did, panicked: nobody knows what the image in memory is worth.
            Ok(Err(_)) => Err(self.disk.give_up()),
            Err(_) => {
                if is_change {
                    self.disk.doubt();
                }
                Err(self.disk.stuck())
            }
        }
    }

    /// Reads.
    pub async fn read(&self, offset: u64, len: u32, until: Instant) -> Result<Bytes> {
        self.run(until, false, move |image| async move { image.read(offset, len, until).await })
            .await
    }

    /// Writes.
    pub async fn write(&self, offset: u64, data: Bytes, until: Instant) -> Result<()> {
        self.run(until, true, move |image| async move { image.write(offset, data, until).await })
            .await
    }

    /// Makes a range read zeros.
    pub async fn zero(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        self.run(until, true, move |image| async move { image.zero(offset, len).await }).await
    }

    /// Writes zeros as data.
    pub async fn write_zeros(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        self.run(
            until,
            true,
            move |image| async move { image.write_zeros(offset, len, until).await },
        )
        .await
    }

    /// Gives the clusters of a range back; it reads zeros.
    pub async fn free(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        self.run(until, true, move |image| async move { image.free(offset, len, until).await })
            .await
    }

    /// Runs of data and holes, at most `limit`.
    pub async fn extents(
        &self,
        offset: u64,
        len: u64,
        limit: usize,
        until: Instant,
    ) -> Result<Vec<Extent>> {
        self.run(until, false, move |image| async move { image.extents(offset, len, limit).await })
            .await
    }

    /// Whether it can have clusters that read zeros.
    pub fn is_modern(&self) -> bool {
        self.is_modern
    }

    /// Brings the tables onto the share, durably.
    pub async fn write_back(&self, until: Instant) -> Result<()> {
        self.run(until, false, |image| async move { image.write_back().await }).await
    }

    /// Changes the size.
    pub async fn resize(&self, size: u64, until: Instant) -> Result<()> {
        self.run(until, true, move |image| async move { image.resize(size).await }).await
    }

    /// Ends the thread after everything that was asked before.
    pub async fn stop(&self, until: Instant) -> Result<()> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || thread.join().is_ok());
        match tokio::time::timeout_at(until.into(), joined).await {
            Ok(Ok(true)) => Ok(()),
            Ok(_) => Err(self.disk.give_up()),
            Err(_) => Err(self.disk.stuck()),
        }
    }
}

/// The life of an image's thread.
fn serve(
    runtime: &Handle,
    disk: &Arc<Disk>,
    opened: oneshot::Sender<Result<Header>>,
    mut queue: mpsc::UnboundedReceiver<Command>,
) {
    let header = judge(runtime, disk);
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let image = match header {
            Ok(header) => Opened::new(disk, header).await,
            Err(error) => Err(error),
        };
        // Who opens it waits for exactly this.
        let image = match image {
            Ok(image) => {
                let _ = opened.send(Ok(image.header.clone()));
                Rc::new(image)
            }
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        while let Some(command) = queue.recv().await {
            let doing = command(Rc::clone(&image));
            tokio::task::spawn_local(doing);
        }
    }));
    // What is still under way.
    runtime.block_on(tasks);
}

/// Judges an image before anything of it is believed, and counts what an earlier life of a writer left uncounted.
fn judge(runtime: &Handle, disk: &Disk) -> Result<Header> {
    let file = Waiting { disk, runtime };
    let told = |trouble| match trouble {
        Trouble::Refused(error) => error.with("volume", &disk.volume),
        Trouble::Failed(error) => from_io("the image cannot be read", error),
    };
    let header = check::read_header(&file).map_err(told)?;
    if let Some(backing) = &header.backing {
        return Err(Error::new(ErrorKind::UNSUPPORTED, "the image needs another file")
            .with("volume", &disk.volume)
            .with("backing", format!("{:?}", backing.name))
            .remedy("make it whole: qemu-img rebase -b '' IMAGE, or qemu-img convert -O qcow2 IMAGE NEW"));
    }
    if disk.writer {
        let clusters = check::recount(&file).map_err(told)?;
        if clusters > 0 {
            let volume = &disk.volume;
            tracing::warn!(
                volume,
                clusters,
                "counted clusters that an earlier life left uncounted"
            );
        }
    }
    Ok(header)
}

impl Opened {
    async fn new(disk: &Arc<Disk>, header: Header) -> Result<Self> {
        let opened = Qcow2::<ImageFile>::builder(ImageFile::new(disk, Part::Tables))
            .write(disk.writer)
            .backing(None)
            .data_file(Some(ImageFile::new(disk, Part::Blocks)))
            .open(DenyImplicitOpenGate::default())
            .await;
        let access = opened.map(FormatAccess::new).map_err(|error| {
            let error = from_io("the qcow2 image cannot be opened", error);
            match error.kind() {
                ErrorKind::INTERNAL => {
                    Error::new(ErrorKind::CORRUPTED, error.message()).caused_by(&error).remedy(
                        "run `qemu-img check -r all` on the image, then attach the volume again",
                    )
                }
                _ => error,
            }
        })?;
        let (access, disk) = (tokio::sync::RwLock::new(access), Arc::clone(disk));
        Ok(Self { access, header, disk })
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

    async fn read(&self, mut offset: u64, len: u32, until: Instant) -> Result<Bytes> {
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

    async fn write(&self, mut offset: u64, mut data: Bytes, until: Instant) -> Result<()> {
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

    async fn zero(&self, offset: u64, len: u64) -> Result<()> {
        let access = self.access.write().await;
        self.disk.admit_writer()?;
        let failed = |error| self.told("zeroing failed", error);
        access.write_zeroes(offset, len).await.map_err(failed)?;
        access.flush().await.map_err(failed)
    }

    async fn write_zeros(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
        for (at, step) in steps(offset, len, ZEROS.len() as u64) {
            self.write(at, Bytes::from_static(&ZEROS[..step as usize]), until).await?;
        }
        Ok(())
    }

    /// imago gives clusters back to the image, not to the server: those are freed first, which is safe wherever it stops,
    /// as they read zeros either way. A cluster that something else refers to is not writable.
    async fn free(&self, offset: u64, len: u64, until: Instant) -> Result<()> {
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

    async fn extents(&self, mut offset: u64, len: u64, limit: usize) -> Result<Vec<Extent>> {
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

    async fn write_back(&self) -> Result<()> {
        let access = self.access.write().await;
        let flushed = access.flush().await;
        flushed.map_err(|error| self.told("the image's tables cannot be written", error))
    }

    async fn resize(&self, size: u64) -> Result<()> {
        let mut access = self.access.write().await;
        self.disk.admit_writer()?;
        let failed = |error| self.told("the image cannot be resized", error);
        let now = access.size();
        if size < now && self.header.version >= 3 {
            // The rest of the last cluster stays; it must read zeros if the image grows again.
            let end = size.next_multiple_of(self.header.cluster() as u64).min(now);
            access.write_zeroes(size, end - size).await.map_err(failed)?;
        }
        access.resize(size, PreallocateMode::None).await.map_err(failed)?;
        access.flush().await.map_err(failed)
    }
}
