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

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result, ext::Extent};
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
    disk::Disk,
    error::{from_io, internal},
    image_file::Waiting,
    layers::tree::{LayerId, ROOT},
    names::Format,
    opened::{Opened, Piece},
};

type Doing = Pin<Box<dyn Future<Output = ()>>>;
type Command = Box<dyn FnOnce(Rc<Opened>) -> Doing + Send>;

/// One of the files that a volume consists of.
#[derive(Clone)]
pub(crate) struct Link {
    /// Which layer it is.
    pub layer: LayerId,
    /// Its file.
    pub disk: Arc<Disk>,
    /// How the blocks are kept in it.
    pub format: Format,
}

/// What was found out about an image before it was opened.
#[derive(Clone)]
struct Judged {
    /// The header of the last file.
    header: Header,
    /// All its files can have clusters that read zeros.
    is_modern: bool,
}

/// What an image is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To be read.
    Read,
    /// To be written, after its counts were compared with its references.
    Write,
    /// To be written, right after its tables were written back.
    WriteOn,
}

/// The disk inside an image.
pub(crate) struct Image {
    disk: Arc<Disk>,
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    is_modern: bool,
}

impl Image {
    /// Opens the image in the last of `links`, each of which lies on the one before it, and tells its size.
    pub async fn open(links: &[Link], purpose: Purpose, until: Instant) -> Result<(Self, u64)> {
        let Some(disk) = links.last().map(|link| &link.disk) else {
            return Err(internal("an image has no file"));
        };
        let (commands, queue) = mpsc::unbounded_channel();
        let (opened, answer) = oneshot::channel();
        let (runtime, links) = (Handle::current(), links.to_vec());
        let thread = std::thread::Builder::new()
            .name("nova-netfs-qcow2".into())
            .spawn(move || serve(&runtime, &links, purpose, opened, queue))
            .map_err(|error| Error::from_io("a thread does not start", &error))?;
        let Judged { header, is_modern } = match tokio::time::timeout_at(until.into(), answer).await
        {
            Ok(Ok(judged)) => judged?,
            Ok(Err(_)) => return Err(internal("the qcow2 code panicked")),
            Err(_) => return Err(disk.stuck()),
        };
        let (commands, thread) = (Mutex::new(Some(commands)), Mutex::new(Some(thread)));
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

    /// What the last file has of its own, from `offset` on: at most `limit` pieces.
    pub async fn pieces(&self, offset: u64, limit: usize, until: Instant) -> Result<Vec<Piece>> {
        self.run(until, false, move |image| async move { image.pieces(offset, limit).await }).await
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

    /// Whether all its files can have clusters that read zeros.
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
    links: &[Link],
    purpose: Purpose,
    opened: oneshot::Sender<Result<Judged>>,
    mut queue: mpsc::UnboundedReceiver<Command>,
) {
    let judged = judge(runtime, links, purpose);
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let image = match &judged {
            Ok(judged) => Opened::new(links, purpose, judged.header.clone()).await,
            Err(error) => Err(error.clone()),
        };
        // Who opens it waits for exactly this.
        let image = match image {
            Ok(image) => {
                let _ = opened.send(judged);
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
fn judge(runtime: &Handle, links: &[Link], purpose: Purpose) -> Result<Judged> {
    let (mut top, mut is_modern) = (None, true);
    for (at, link) in links.iter().enumerate() {
        if link.format == Format::Qcow2 {
            let counts = at + 1 == links.len() && purpose == Purpose::Write;
            let header = judge_link(runtime, link, counts)?;
            is_modern &= header.version >= 3;
            top = Some(header);
        }
    }
    let header = top.ok_or_else(|| internal("an image has no file"))?;
    Ok(Judged { header, is_modern })
}

fn judge_link(runtime: &Handle, link: &Link, counts: bool) -> Result<Header> {
    let disk = &*link.disk;
    let file = Waiting { disk, runtime };
    let told = |trouble| match trouble {
        Trouble::Refused(error) => error.with("volume", &disk.volume),
        Trouble::Failed(error) => from_io("the image cannot be read", error),
    };
    let header = check::read_header(&file).map_err(told)?;
    // What a layer lies on is told by the volume's record.
    if let Some(backing) = header.backing.as_ref().filter(|_| link.layer == ROOT) {
        return Err(Error::new(ErrorKind::UNSUPPORTED, "the image needs another file")
            .with("volume", &disk.volume)
            .with("backing", format!("{:?}", backing.name))
            .remedy("make it whole: qemu-img rebase -b '' IMAGE, or qemu-img convert -O qcow2 IMAGE NEW"));
    }
    if counts {
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
