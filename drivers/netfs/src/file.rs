// SPDX-License-Identifier: Apache-2.0
//! An open file of a volume, on whichever share its mount has at the moment.
//!
//! The file is known by [`Identity`], not by its name alone: when the share is made anew, or the server does not know the handle
//! any more, the name is looked up once. Another file there is an error for ever, and never a target.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use driver_api::{Error, Result};
use tokio::sync::MutexGuard;

use crate::{
    error::{Fault, detached, replaced},
    mounts::{Attempt, Mount},
    names::FileName,
    share::{Facts, Handle, Identity},
};

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
    /// Opens a file.
    pub async fn open(
        mount: &Arc<Mount>,
        volume: &str,
        name: &FileName,
        write: bool,
        until: Instant,
    ) -> Result<(Self, Facts), Fault> {
        let (generation, found) = mount
            .perform(until, |attempt| async move {
                let found = attempt.share.open(name, write, until).await?;
                Ok((attempt.generation, found))
            })
            .await?;
        let file = Self {
            mount: Arc::clone(mount),
            name: name.clone(),
            identity: found.facts.identity,
            volume: volume.to_owned(),
            write,
            held: Mutex::new(Held { handle: found.handle, generation, number: 0 }),
            opening: tokio::sync::Mutex::new(()),
            ended: AtomicBool::new(false),
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

    /// Fails once the file is not the volume's any more.
    pub fn check(&self) -> Result<(), Fault> {
        match self.broken.get() {
            None => Ok(()),
            Some(error) => Err(Fault::Refused(error.clone())),
        }
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
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (share, present) = self.mount.share(until).await?;
        // A share that has ended took its handles with it.
        if present == held.generation { share.close(&held.handle, until).await } else { Ok(()) }
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

    async fn resolve(&self, attempt: &Attempt, number: u64, until: Instant) -> Result<Held, Fault> {
        let _turn = self.opening_turn(until).await?;
        if self.ended.load(Ordering::SeqCst) {
            return Err(detached(&self.volume).into());
        }
        // What another one has done meanwhile.
        if let Some(held) = self.held_from(attempt.generation, number) {
            return Ok(held);
        }
        let found = match attempt.share.open(&self.name, self.write, until).await {
            Ok(found) => found,
            Err(Fault::NotFound) => return Err(self.breaks("nothing has its name any more")),
            Err(fault) => return Err(fault),
        };
        self.compare(found.facts)?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held =
            Held { handle: found.handle, generation: attempt.generation, number: held.number + 1 };
        Ok(held.clone())
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
