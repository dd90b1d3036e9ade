// SPDX-License-Identifier: Apache-2.0
//! What all handles to an attached volume share: its image, who may still use it, and what it has come to.
//!
//! ```text
//!   serving --> in doubt   a write failed or timed out: flushes fail until the volume is attached again
//!       \-----> fenced     another attachment has it: everything fails
//!       \-----> closed     detached
//! ```

use std::{
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    },
};

use driver_api::{ErrorKind, Result};
use tokio::sync::Notify;

use crate::{
    cluster::Connection,
    counters::Counters,
    ending::on_a_thread,
    error::{detached, failed, fenced, in_doubt, kind_of},
    ffi,
    flatten::Flatten,
    heard::Heard,
    holders::Entry,
    image::Image,
    mirror::Mirrored,
    perf::Perf,
};

/// An attached volume.
pub(crate) struct Attached {
    pub name: String,
    pub writer: bool,
    pub size: AtomicU64,
    pub counters: Counters,
    /// librbd's own counters, if they are wanted.
    pub perf: Option<Perf>,
    /// How it is mirrored, as the cluster said last.
    pub mirrored: Heard<Vec<Mirrored>>,
    /// Serialises what changes the volume as a whole.
    pub maintenance: Mutex<()>,
    image: AtomicPtr<std::ffi::c_void>,
    /// Operations that use the image.
    users: AtomicUsize,
    closed: AtomicBool,
    fenced: AtomicBool,
    doubt: AtomicBool,
    idle: Notify,
    held: Mutex<Option<Held>>,
    pub flatten: Flatten,
}

/// A use of the image, which ends also where the work panics: a detach waits for it.
struct Using<'a>(&'a Attached);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What closing gives back.
struct Held {
    connection: Connection,
    entry: Entry,
}

/// What the image needs until it is closed. The connection ends last.
struct Ending {
    image: Image,
    held: Held,
    /// Whether the entry in the register is left for the next attacher to fence.
    leave_entry: bool,
}

// SAFETY: librbd's handles may be used from any thread.
unsafe impl Send for Ending {}

impl Ending {
    fn end(self) -> Result<()> {
        let closed = self.image.close();
        if self.leave_entry || closed.is_err() {
            tracing::warn!(
                "leaving the entry in the register: the next attacher fences this client"
            );
            return closed;
        }
        self.held.entry.remove(&self.held.connection)
    }
}

impl Attached {
    pub fn new(
        name: &str,
        writer: bool,
        size: u64,
        image: Image,
        connection: Connection,
        entry: Entry,
    ) -> Self {
        Self {
            name: name.to_owned(),
            writer,
            size: AtomicU64::new(size),
            counters: Counters::default(),
            perf: None,
            mirrored: Heard::default(),
            maintenance: Mutex::new(()),
            image: AtomicPtr::new(image.0),
            users: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            doubt: AtomicBool::new(false),
            idle: Notify::new(),
            held: Mutex::new(Some(Held { connection, entry })),
            flatten: Flatten::default(),
        }
    }

    /// Announces a use of the image, which lasts until [`Attached::leave`]: the image is not closed meanwhile.
    pub fn enter(&self) -> Result<Image> {
        self.users.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.leave();
            return Err(detached(&self.name));
        }
        if self.fenced.load(Ordering::Acquire) {
            self.leave();
            return Err(fenced(&self.name));
        }
        Ok(Image(self.image.load(Ordering::Acquire)))
    }

    /// Ends a use of the image.
    pub fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::SeqCst) == 1 && self.closed.load(Ordering::SeqCst) {
            self.idle.notify_waiters();
        }
    }

    /// Does `work` with the image, on a thread that may wait.
    pub fn with<T>(&self, work: impl FnOnce(&Image) -> Result<T>) -> Result<T> {
        let image = self.enter()?;
        let using = Using(self);
        let done = work(&image);
        drop(using);
        done.map_err(|error| match error.kind() {
            ErrorKind::FENCED => {
                self.note_fenced();
                fenced(&self.name)
            }
            kind => {
                self.counters.totals.note(kind);
                error.with("volume", &self.name)
            }
        })
    }

    /// The same with the image as it was in a snapshot.
    pub fn with_snapshot<T>(
        &self,
        snapshot: &str,
        work: impl FnOnce(&Image) -> Result<T>,
    ) -> Result<T> {
        self.with(|image| {
            let id = image.id()?;
            let opened = {
                let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(held) = &*held else { return Err(detached(&self.name)) };
                Opened::new(Image::open_snapshot(&held.connection, &id, snapshot)?)
            };
            let done = work(&opened.image());
            let closed = opened.keep().close();
            done.and_then(|done| closed.map(|()| done))
        })
    }

    /// Judges what an operation on data returned; `changes` says whether it was to change anything.
    ///
    /// A refusal for lack of space, or of what makes no sense, has a known outcome. After any other failure of a write nobody knows
    /// what is there, or will be: it is remembered before anybody hears of it.
    pub fn judge(&self, what: &str, code: i64, changes: bool) -> Result<()> {
        if code >= 0 {
            return Ok(());
        }
        let kind = kind_of(code);
        if kind == ErrorKind::FENCED {
            self.note_fenced();
            return Err(fenced(&self.name));
        }
        self.counters.totals.note(kind);
        if changes && !matches!(kind, ErrorKind::NO_SPACE | ErrorKind::INVALID_ARGUMENT) {
            self.doubt.store(true, Ordering::SeqCst);
        }
        Err(failed(what, code).with("volume", &self.name))
    }

    /// Asks librbd for its counters, on a thread that may wait.
    pub fn ask_librbd(&self) {
        if let Some(perf) = &self.perf
            && let Err(error) = perf.ask()
            && !self.is_closed()
        {
            tracing::warn!(volume = self.name, %error, "the figures of librbd are not renewed");
        }
    }

    fn note_fenced(&self) {
        if !self.fenced.swap(true, Ordering::AcqRel) {
            self.counters.totals.blocklisted();
        }
    }

    /// Refuses once a write failed, for flushes.
    pub fn check_doubt(&self) -> Result<()> {
        if self.doubt.load(Ordering::SeqCst) { Err(in_doubt(&self.name)) } else { Ok(()) }
    }

    /// Whether a write failed.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.load(Ordering::SeqCst)
    }

    /// Whether another attachment has the volume.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// Whether it was detached.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Keeps further operations out, and waits for those under way.
    pub async fn drain(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.flatten.end();
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.users.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    fn take_ending(&self) -> Option<Ending> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let image = Image(self.image.swap(ptr::null_mut(), Ordering::AcqRel));
        let leave_entry = self.is_in_doubt() || self.is_fenced();
        Some(Ending { image, held, leave_entry })
    }

    /// Closes the image and gives up the attachment. The volume is drained, and the caller may wait.
    pub fn close(&self) -> Result<()> {
        let Some(ending) = self.take_ending() else { return Ok(()) };
        let fenced_before = self.is_fenced();
        let ended = ending.end();
        if fenced_before {
            return Err(fenced(&self.name));
        }
        self.check_doubt()?;
        match ended {
            Err(error) if error.kind() == ErrorKind::FENCED => Err(fenced(&self.name)),
            other => other,
        }
    }
}

impl Drop for Attached {
    /// Closes what was not detached, on a thread of its own: the last reference may be dropped by one of librbd's.
    fn drop(&mut self) {
        if let Some(ending) = self.take_ending() {
            let name = std::mem::take(&mut self.name);
            on_a_thread(move || {
                if let Err(error) = ending.end() {
                    tracing::warn!(volume = name, %error, "a volume that was not detached did not close well");
                }
            });
        }
    }
}

/// The image of an attachment that never came to be, closed when it is dropped.
pub(crate) struct Opened(Option<Image>);

impl Opened {
    pub fn new(image: Image) -> Self {
        Self(Some(image))
    }

    pub fn image(&self) -> Image {
        self.0.unwrap_or(Image(ptr::null_mut() as ffi::Image))
    }

    /// It is somebody else's to close from now on.
    pub fn keep(mut self) -> Image {
        let image = self.image();
        self.0 = None;
        image
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(Image::close) {
            tracing::warn!(%error, "an image did not close well");
        }
    }
}
