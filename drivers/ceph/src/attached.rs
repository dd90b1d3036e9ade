// SPDX-License-Identifier: Apache-2.0
//! What all handles to an attached volume share: its image, who may still use it, and what it has come to.
//!
//! ```text
//!   serving <--> renewing   a write failed or timed out: a new client takes over from the old one (renewal.rs), and
//!       |           |       operations wait
//!       \-----------+-----> fenced     another attachment has it: everything fails
//!       \-----------+-----> closed     detached
//! ```

use std::{
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::Notify;

use crate::{
    answers::Answers,
    cluster::{Cluster, Connection},
    counters::Counters,
    doubt::{Doubt, Vouch},
    ending::on_a_thread,
    error::{
        detached, failed, fenced, in_doubt, interrupted, kind_of, left_in_doubt, no_client_yet,
        settled,
    },
    ffi,
    flatten::Flatten,
    heard::Heard,
    holders::Entry,
    image::Image,
    mirror::Mirrored,
    perf::Perf,
    renewal::{self, Next},
};

/// An attached volume.
pub(crate) struct Attached {
    pub name: String,
    pub writer: bool,
    pub size: AtomicU64,
    pub counters: Counters,
    /// How it is mirrored, as the cluster said last.
    pub mirrored: Heard<Vec<Mirrored>>,
    /// Where a new client is made, if this one has to be fenced.
    pub cluster: Arc<Cluster>,
    /// Serialises what changes the volume as a whole.
    pub maintenance: Mutex<()>,
    pub doubt: Doubt,
    image: AtomicPtr<std::ffi::c_void>,
    /// Operations that use the image.
    users: AtomicUsize,
    closed: AtomicBool,
    fenced: AtomicBool,
    renewing: AtomicBool,
    renewals: AtomicU64,
    /// Rung when the last use ends that somebody waits for, and at each change of state.
    changed: Notify,
    bell: Mutex<()>,
    rung: Condvar,
    held: Mutex<Option<Held>>,
    /// librbd's own counters, if they are wanted.
    perf: Mutex<Option<Arc<Perf>>>,
    pub flatten: Flatten,
}

/// librados looks at its operations' deadlines that often, so that they may take as much longer.
const LOOKS_AT_DEADLINES: Duration = Duration::from_secs(5);

/// A use of the image, which ends also where the work panics: a detach waits for it.
struct Using<'a>(&'a Attached);

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What an operation on data came to.
pub(crate) enum Verdict {
    Done,
    /// It met its own client's end: nobody knows whether it had its effect, and it is done again with the new client.
    Again,
    Failed(Error),
}

/// What closing gives back.
pub(crate) struct Held {
    pub connection: Connection,
    pub entry: Entry,
}

/// What the image needs until it is closed. The connection ends last.
pub(crate) struct Ending {
    image: Image,
    held: Held,
    /// Whether the entry in the register is left for the next attacher to fence.
    leave_entry: bool,
}

// SAFETY: librbd's handles may be used from any thread.
unsafe impl Send for Ending {}

impl Ending {
    /// Ends the client of before, which the cluster has fenced.
    pub fn end_fenced(self) {
        if let Err(error) = self.image.close(self.held.connection.answers()) {
            tracing::debug!(%error, "a fenced client's image did not close well");
        }
    }

    fn end(self) -> Result<()> {
        let closed = self.image.close(self.held.connection.answers());
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
        (name, writer): (&str, bool),
        size: u64,
        image: Image,
        held: Held,
        perf: Option<Perf>,
        cluster: &Arc<Cluster>,
    ) -> Self {
        let counters = Counters { totals: Arc::clone(&cluster.totals), ..Counters::default() };
        Self {
            name: name.to_owned(),
            writer,
            size: AtomicU64::new(size),
            counters,
            cluster: Arc::clone(cluster),
            mirrored: Heard::default(),
            maintenance: Mutex::new(()),
            doubt: Doubt::default(),
            image: AtomicPtr::new(image.0),
            users: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            renewing: AtomicBool::new(false),
            renewals: AtomicU64::new(0),
            changed: Notify::new(),
            bell: Mutex::new(()),
            rung: Condvar::new(),
            held: Mutex::new(Some(held)),
            perf: Mutex::new(perf.map(Arc::new)),
            flatten: Flatten::default(),
        }
    }

    /// Announces a use of the image, which lasts until [`Attached::leave`]: the image is not closed meanwhile. None while
    /// a new client is made.
    pub fn enter(&self) -> Result<Option<Image>> {
        self.users.fetch_add(1, Ordering::SeqCst);
        let refused = if self.closed.load(Ordering::SeqCst) {
            Err(detached(&self.name))
        } else if self.fenced.load(Ordering::SeqCst) {
            Err(fenced(&self.name))
        } else if self.renewing.load(Ordering::SeqCst) {
            Ok(None)
        } else {
            return Ok(Some(Image(self.image.load(Ordering::Acquire))));
        };
        self.leave();
        refused
    }

    /// Ends a use of the image.
    pub fn leave(&self) {
        let was_last = self.users.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last && (self.is_closed() || self.is_renewing()) {
            self.ring();
        }
    }

    fn ring(&self) {
        drop(lock(&self.bell));
        self.rung.notify_all();
        self.changed.notify_waiters();
    }

    /// Waits, on a thread that may, until `is` or the limit; whether it is.
    pub fn wait_until(&self, limit: Duration, is: impl Fn(&Self) -> bool) -> bool {
        let is_not = |_: &mut ()| !is(self);
        let waited = self.rung.wait_timeout_while(lock(&self.bell), limit, is_not);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        is(self)
    }

    async fn until(&self, is: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is(self) {
                return;
            }
            changed.await;
        }
    }

    /// How long an operation may take.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.cluster.config.osd_op_timeout_secs) + LOOKS_AT_DEADLINES
    }

    /// Waits until no new client is being made. An operation that was `tried` with the old one may have had its effect.
    pub async fn renewed(&self, until: Instant, tried: bool) -> Result<()> {
        let ready = self.until(|own| !own.is_renewing() || own.is_over());
        let waited = tokio::time::timeout_at(until.into(), ready).await;
        waited.map_err(|_| no_client_yet(&self.name, tried))
    }

    /// Does `work` with the image, on a thread that may wait.
    pub fn with<T>(&self, work: impl FnOnce(&Image) -> Result<T>) -> Result<T> {
        let until = Instant::now() + self.patience();
        let image = loop {
            if let Some(image) = self.enter()? {
                break image;
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.wait_until(left, |own| !own.is_renewing() || own.is_over()) {
                return Err(no_client_yet(&self.name, false));
            }
        };
        let using = Using(self);
        let done = work(&image).map_err(|error| match error.kind() {
            ErrorKind::FENCED if self.is_renewing() => interrupted(&self.name),
            ErrorKind::FENCED => {
                self.note_fenced();
                fenced(&self.name)
            }
            kind => {
                self.counters.totals.note(kind);
                error.with("volume", &self.name)
            }
        });
        drop(using);
        done
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
                let held = lock(&self.held);
                let Some(held) = &*held else { return Err(detached(&self.name)) };
                let image = Image::open_snapshot(&held.connection, &id, snapshot)?;
                Opened::new(image, &held.connection)
            };
            let done = work(&opened.image());
            let closed = opened.close();
            done.and_then(|done| closed.map(|()| done))
        })
    }

    /// Judges what an operation on data returned, before its use of the image ends; `changes` says whether it was to change
    /// anything.
    ///
    /// A refusal for lack of space, or of what makes no sense, has a known outcome. After any other failure of a write nobody knows
    /// what is there, or will be: it is remembered before anybody hears of it, and the client fenced that wrote.
    pub fn judge(self: &Arc<Self>, what: &str, code: i64, changes: bool) -> Verdict {
        if code >= 0 {
            return Verdict::Done;
        }
        let kind = kind_of(code);
        if kind == ErrorKind::FENCED {
            if self.is_renewing() {
                return Verdict::Again;
            }
            self.note_fenced();
            return Verdict::Failed(fenced(&self.name));
        }
        self.counters.totals.note(kind);
        if changes && !matches!(kind, ErrorKind::NO_SPACE | ErrorKind::INVALID_ARGUMENT) {
            self.doubt.note();
            renewal::begin(self);
        }
        Verdict::Failed(failed(what, code).with("volume", &self.name))
    }

    /// The counters of the client that there is now.
    pub fn perf(&self) -> Option<Arc<Perf>> {
        lock(&self.perf).clone()
    }

    /// Asks librbd for its counters, on a thread that may wait.
    pub fn ask_librbd(&self) {
        if let Some(perf) = self.perf()
            && let Err(error) = perf.ask()
            && !self.is_closed()
        {
            tracing::warn!(volume = self.name, %error, "the figures of librbd are not renewed");
        }
    }

    /// Another attachment has it.
    pub fn note_fenced(&self) {
        if !self.fenced.swap(true, Ordering::SeqCst) {
            self.counters.totals.blocklisted();
            self.ring();
        }
    }

    /// Refuses a flush that would have to vouch for a write in doubt: `heard` is what was told when it was asked for.
    pub fn vouch(self: &Arc<Self>, heard: u64) -> Result<()> {
        match self.doubt.vouch(heard) {
            Vouch::Yes => Ok(()),
            Vouch::Settled => Err(settled(&self.name)),
            Vouch::Open => {
                renewal::begin(self);
                Err(in_doubt(&self.name))
            }
        }
    }

    /// Refuses while something may still land that failed.
    pub fn refuse_open_doubt(&self) -> Result<()> {
        if self.doubt.is_open() { Err(in_doubt(&self.name)) } else { Ok(()) }
    }

    /// Begins a renewal, unless there is one or nothing to renew.
    pub fn begin_renewing(&self) -> bool {
        self.writer && !self.is_over() && !self.renewing.swap(true, Ordering::SeqCst)
    }

    /// Ends the renewal: whoever waits goes on.
    pub fn end_renewing(&self) {
        self.renewing.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// Whether a new client is being made.
    pub fn is_renewing(&self) -> bool {
        self.renewing.load(Ordering::SeqCst)
    }

    /// How many clients were replaced.
    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::SeqCst)
    }

    /// Whether nobody uses the image.
    pub fn is_unused(&self) -> bool {
        self.users.load(Ordering::SeqCst) == 0
    }

    /// Whether it is of no use any more.
    pub fn is_over(&self) -> bool {
        self.is_closed() || self.is_fenced()
    }

    /// Looks at what it holds, unless it is closed.
    pub fn look_at_held<T>(&self, look: impl FnOnce(&Held) -> T) -> Option<T> {
        lock(&self.held).as_ref().map(look)
    }

    /// Goes on with another client; gives what is left of the one before. Nobody uses the image, and the one before is fenced,
    /// so that what it left in doubt is settled. The new one comes back if the volume was closed meanwhile.
    pub fn replace(
        &self,
        next: Next,
        entry: Entry,
    ) -> std::result::Result<Ending, Box<(Next, Entry)>> {
        let mut slot = lock(&self.held);
        let Some(held) = slot.take() else { return Err(Box::new((next, entry))) };
        let Next { opened, connection, perf } = next;
        *slot = Some(Held { connection, entry });
        let image = Image(self.image.swap(opened.keep().0, Ordering::SeqCst));
        *lock(&self.perf) = perf.map(Arc::new);
        self.doubt.settle();
        self.renewals.fetch_add(1, Ordering::SeqCst);
        Ok(Ending { image, held, leave_entry: true })
    }

    /// Whether another attachment has the volume.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }

    /// Whether it was detached.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Keeps further operations out, and waits for those under way.
    pub async fn drain(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.flatten.end();
        self.ring();
        self.until(Self::is_unused).await;
    }

    fn take_ending(&self) -> Option<Ending> {
        let held = lock(&self.held).take()?;
        let image = Image(self.image.swap(ptr::null_mut(), Ordering::SeqCst));
        let leave_entry = self.doubt.is_open() || self.is_fenced();
        Some(Ending { image, held, leave_entry })
    }

    /// Closes the image and gives up the attachment. The volume is drained, and the caller may wait. A renewal under way ends by
    /// itself, and what it has with it.
    pub fn close(&self) -> Result<()> {
        let Some(ending) = self.take_ending() else { return Ok(()) };
        let fenced_before = self.is_fenced();
        let ended = ending.end();
        if fenced_before {
            return Err(fenced(&self.name));
        }
        if self.doubt.is_open() {
            return Err(left_in_doubt(&self.name));
        }
        if self.doubt.is_untold() {
            return Err(settled(&self.name));
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The image of an attachment that never came to be, closed when it is dropped.
pub(crate) struct Opened {
    image: Option<Image>,
    answers: Answers,
}

impl Opened {
    /// The connection ends after the image is closed, or somebody else's.
    pub fn new(image: Image, connection: &Connection) -> Self {
        Self { image: Some(image), answers: connection.answers() }
    }

    pub fn image(&self) -> Image {
        self.image.unwrap_or(Image(ptr::null_mut() as ffi::Image))
    }

    fn close(mut self) -> Result<()> {
        self.image.take().map_or(Ok(()), |image| image.close(self.answers))
    }

    /// It is somebody else's to close from now on.
    pub fn keep(mut self) -> Image {
        let image = self.image();
        self.image = None;
        image
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.image.take().map(|image| image.close(self.answers)) {
            tracing::warn!(%error, "an image did not close well");
        }
    }
}
