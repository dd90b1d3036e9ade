// SPDX-License-Identifier: Apache-2.0
//! An open file of a volume, on whichever share its mount has at the moment.
//!
//! The file is known by [`Identity`], not by its name alone: when the share is made anew, or the server does not know the handle
//! any more, the name is looked up once. Another file there is an error for ever, and never a target.
//!
//! Where a share keeps other writers away, a writer that opens its file anew compares its epoch with the recorded one
//! before anything is written: the lock may have been another's meanwhile.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::MutexGuard;

use crate::{
    companion::{self, Record},
    error::{Fault, detached, fenced, replaced},
    holders::Holder,
    mounts::{Attempt, Mount},
    names::{FileName, Files},
    share::{Facts, Found, Handle, Identity, Offers},
};

/// Between two attempts to open a file that another client has.
const TAKEN: Duration = Duration::from_millis(500);

/// For whom a file is opened; by default for somebody who reads it.
#[derive(Clone, Default)]
pub(crate) struct Opener {
    /// Whether it is written.
    pub write: bool,
    /// The attach epoch of who writes.
    pub epoch: u64,
    /// What tells its attachment from every other one.
    pub token: String,
}

impl Opener {
    /// For this holder of the volume.
    pub fn of(holder: &Holder) -> Self {
        Self { write: holder.writer, epoch: holder.epoch, token: holder.token.clone() }
    }
}

/// A volume's file.
pub(crate) struct OpenFile {
    /// The mount that it is on.
    pub mount: Arc<Mount>,
    /// Its name there.
    pub name: FileName,
    identity: Identity,
    volume: String,
    write: bool,
    held: Mutex<Held>,
    /// Held by whoever opens the file anew: opens may exclude each other, also two of this driver.
    opening: tokio::sync::Mutex<()>,
    /// It was given back, and is not opened anew.
    ended: AtomicBool,
    /// The attach epoch of who writes here.
    epoch: u64,
    /// What tells its attachment from every other one.
    token: String,
    /// The share keeps other writers away.
    exclusive: bool,
    /// What the server was seen to do with ranges of it.
    offers: Offers,
    /// Why it is not the volume's file any more.
    broken: OnceLock<Error>,
}

/// A handle and where it comes from.
#[derive(Clone)]
struct Held {
    handle: Handle,
    /// The share that it belongs to.
    generation: u64,
    /// How many there were before it.
    number: u64,
}

impl OpenFile {
    /// Opens a file for an attachment.
    pub async fn open(
        mount: &Arc<Mount>,
        volume: &str,
        name: &FileName,
        opener: &Opener,
        until: Instant,
    ) -> Result<(Self, Facts), Fault> {
        let write = opener.write;
        let (generation, exclusive, offers, found) = mount
            .perform(until, |attempt| async move {
                let share = &attempt.share;
                let found = share.open(name, write, until).await?;
                let tried = share.try_out(&found.handle, found.facts.size, write, until).await;
                let offers = match tried {
                    Ok(offers) => offers,
                    Err(fault) => {
                        give_back(&attempt, &found.handle, until).await;
                        return Err(fault);
                    }
                };
                Ok((attempt.generation, share.traits().exclusive, offers, found))
            })
            .await?;
        mount.saw(offers, write);
        let file = Self {
            mount: Arc::clone(mount),
            name: name.clone(),
            identity: found.facts.identity,
            volume: volume.to_owned(),
            write,
            held: Mutex::new(Held { handle: found.handle, generation, number: 0 }),
            opening: tokio::sync::Mutex::new(()),
            ended: AtomicBool::new(false),
            epoch: opener.epoch,
            token: opener.token.clone(),
            exclusive,
            offers,
            broken: OnceLock::new(),
        };
        Ok((file, found.facts))
    }

    /// Does something with the file, as [`Mount::perform`] does it.
    pub async fn perform<T, F>(
        &self,
        until: Instant,
        work: impl Fn(Attempt, Handle) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let work = &work;
        self.mount
            .perform(until, |attempt| async move {
                self.check()?;
                let held = match self.held_from(attempt.generation, 0) {
                    Some(held) => held,
                    None => self.resolve(&attempt, 0, until).await?,
                };
                match work(attempt.clone(), held.handle).await {
                    Err(Fault::Stale) => {
                        let held = self.resolve(&attempt, held.number + 1, until).await?;
                        match work(attempt, held.handle).await {
                            Err(Fault::Stale) => {
                                Err(self.breaks("the server knows its name, but not the file"))
                            }
                            done => done,
                        }
                    }
                    done => done,
                }
            })
            .await
    }

    /// The file's handle on the share of an attempt that began with another file.
    pub async fn handle_on(&self, attempt: &Attempt, until: Instant) -> Result<Handle, Fault> {
        self.check()?;
        match self.held_from(attempt.generation, 0) {
            Some(held) => Ok(held.handle),
            None => self.resolve(attempt, 0, until).await.map(|held| held.handle),
        }
    }

    /// Fails once the file is not the volume's any more.
    pub fn check(&self) -> Result<(), Fault> {
        match self.broken.get() {
            None => Ok(()),
            Some(error) => Err(Fault::Refused(error.clone())),
        }
    }

    /// Ends its use: another attachment has the volume now.
    pub fn retire(&self) {
        self.fenced();
    }

    /// Judges what the server said of the file in passing.
    pub fn judge(&self, facts: Option<Facts>) -> Result<(), Fault> {
        match facts {
            Some(facts) if facts.links == 0 => Err(self.breaks("it was removed on the server")),
            Some(facts) if facts.identity != self.identity => {
                Err(self.breaks("the server gave another file for its handle"))
            }
            _ => self.check(),
        }
    }

    /// Looks whether the file still has its name.
    pub async fn verify(&self, until: Instant) -> Result<(), Fault> {
        let looked = self
            .mount
            .perform(until, |attempt| async move { attempt.share.look(&self.name, until).await });
        match looked.await {
            Ok(found) => self.compare(found.facts),
            Err(Fault::NotFound) => Err(self.breaks("nothing has its name any more")),
            Err(fault) => Err(fault),
        }
    }

    /// Gives the file back to the server, for good.
    pub async fn close(&self, until: Instant) -> Result<(), Fault> {
        self.ended.store(true, Ordering::SeqCst);
        let _turn = self.opening_turn(until).await?;
        // A share that has ended took its handles with it.
        let Some((share, present)) = self.mount.present() else { return Ok(()) };
        match self.held_from(present, 0) {
            Some(held) => share.close(&held.handle, until).await,
            None => Ok(()),
        }
    }

    /// Whether the share keeps other writers away.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Whether it keeps them away for the sake of this attachment, which writes.
    pub fn is_guarded(&self) -> bool {
        self.write && self.exclusive
    }

    /// What the server was seen to do with ranges of it.
    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// The handle, if it is of this share and not older than that.
    fn held_from(&self, generation: u64, number: u64) -> Option<Held> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (held.generation == generation && held.number >= number).then(|| held.clone())
    }

    async fn opening_turn(&self, until: Instant) -> Result<MutexGuard<'_, ()>, Fault> {
        match tokio::time::timeout_at(until.into(), self.opening.lock()).await {
            Ok(turn) => Ok(turn),
            Err(_) => {
                let why = "the file was not opened anew in time".into();
                Err(Fault::TimedOut { sent: false, why })
            }
        }
    }

    /// Opens the file anew: on a new share, or where handles before `number` are not known any more.
    async fn resolve(&self, attempt: &Attempt, number: u64, until: Instant) -> Result<Held, Fault> {
        let _turn = self.opening_turn(until).await?;
        self.check()?;
        if self.ended.load(Ordering::SeqCst) {
            return Err(detached(&self.volume).into());
        }
        // What another one has done meanwhile.
        if let Some(held) = self.held_from(attempt.generation, number) {
            return Ok(held);
        }
        let guarded = self.write && attempt.share.traits().exclusive;
        let found = self.open_anew(attempt, guarded, until).await?;
        let judged = match self.compare(found.facts) {
            Ok(()) if guarded => self.enter_again(attempt, until).await,
            judged => judged,
        };
        if let Err(fault) = judged {
            give_back(attempt, &found.handle, until).await;
            return Err(fault);
        }
        let (held, before) = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let (generation, number) = (attempt.generation, held.number + 1);
            let anew = Held { handle: found.handle, generation, number };
            (anew.clone(), std::mem::replace(&mut *held, anew))
        };
        if before.generation == attempt.generation {
            give_back(attempt, &before.handle, until).await;
        }
        Ok(held)
    }

    /// Waits while somebody else has the file who may only be looking at it: whoever attached it leaves its epoch behind.
    async fn open_anew(
        &self,
        attempt: &Attempt,
        guarded: bool,
        until: Instant,
    ) -> Result<Found, Fault> {
        loop {
            if guarded {
                self.compare_epoch(until).await?;
            }
            match attempt.share.open(&self.name, self.write, until).await {
                Err(Fault::NotFound) => return Err(self.breaks("nothing has its name any more")),
                Err(Fault::Refused(error))
                    if guarded
                        && error.kind() == ErrorKind::IN_USE
                        && Instant::now() + TAKEN < until =>
                {
                    tracing::warn!(volume = self.volume, %error, "another client has the file");
                    tokio::time::sleep(TAKEN).await;
                }
                opened => return opened,
            }
        }
    }

    /// Compares the epoch now that nobody else can take the file: whoever had it between two locks of ours has left its own
    /// behind. Where another host takes a volume over by ending this one's login, the record has the present login.
    async fn enter_again(&self, attempt: &Attempt, until: Instant) -> Result<(), Fault> {
        let (share, files) = (&*attempt.share, Files::of(&self.volume)?);
        let record = companion::read_on(share, &self.mount, &files, until).await?;
        self.compare_with(record.as_ref())?;
        let Some(mut record) = record else { return Ok(()) };
        let session = share.session();
        let own = record.holders.iter_mut().find(|holder| holder.token == self.token);
        match own {
            Some(own) if own.session != session => own.session = session,
            _ => return Ok(()),
        }
        match companion::write_on(share, &files, &record, until).await {
            Err(Fault::Refused(error)) => {
                tracing::warn!(
                    volume = self.volume,
                    %error,
                    "the volume's record does not change: no other host can take the volume over while this one lives"
                );
                Ok(())
            }
            written => written,
        }
    }

    /// Of a file that is opened while the volume is attached: fails if somebody else has attached it since, and could not
    /// be kept away from this file.
    pub async fn admit_epoch(&self, until: Instant) -> Result<(), Fault> {
        if self.is_guarded() { self.compare_epoch(until).await } else { Ok(()) }
    }

    /// Fails for ever if somebody else has attached the volume since.
    async fn compare_epoch(&self, until: Instant) -> Result<(), Fault> {
        let files = Files::of(&self.volume)?;
        let record = companion::look(&self.mount, &files, until).await?;
        self.compare_with(record.as_ref())
    }

    fn compare_with(&self, record: Option<&Record>) -> Result<(), Fault> {
        let latest = record.map_or(0, |record| record.epoch);
        if latest <= self.epoch {
            return Ok(());
        }
        tracing::warn!(
            volume = self.volume,
            epoch = self.epoch,
            latest,
            "the volume was taken over"
        );
        Err(self.fenced())
    }

    /// Whether another attachment has the volume, as far as is known here.
    pub fn is_fenced(&self) -> bool {
        self.broken.get().is_some_and(|error| error.kind() == ErrorKind::FENCED)
    }

    fn fenced(&self) -> Fault {
        // The first reason stays.
        Fault::Refused(self.broken.get_or_init(|| fenced(&self.volume)).clone())
    }

    fn compare(&self, facts: Facts) -> Result<(), Fault> {
        if facts.identity == self.identity {
            return self.check();
        }
        Err(self.breaks("another file has its name now"))
    }

    fn breaks(&self, why: &str) -> Fault {
        let file = self.mount.place.shown_file(&self.name);
        let error = self.broken.get_or_init(|| {
            tracing::error!(volume = self.volume, file, why, "the volume's file is gone");
            replaced(&self.volume, &file, why)
        });
        Fault::Refused(error.clone())
    }
}

/// Closes what is not used. What stays open ends with the mount.
async fn give_back(attempt: &Attempt, handle: &Handle, until: Instant) {
    if let Err(fault) = attempt.share.close(handle, until).await {
        tracing::debug!(%fault, "a file stays open until the share is unmounted");
    }
}
