// SPDX-License-Identifier: Apache-2.0
//! How an attachment stands: whether it may still do anything, and why not. All its files share it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use driver_api::{Error, ErrorKind, Result};

use crate::error::{detached, fenced, given_up, in_doubt};

/// How an attachment stands.
pub(crate) struct Standing {
    /// The volume.
    pub volume: String,
    /// Whether it may be written.
    pub writer: bool,
    closed: AtomicBool,
    fenced: AtomicBool,
    /// A write's outcome is unknown.
    doubt: AtomicBool,
    /// Why nothing is done with it any more.
    given_up: OnceLock<Error>,
}

impl Standing {
    /// An attachment that begins.
    pub fn new(volume: &str, writer: bool) -> Self {
        Self {
            volume: volume.to_owned(),
            writer,
            closed: AtomicBool::new(false),
            fenced: AtomicBool::new(false),
            doubt: AtomicBool::new(false),
            given_up: OnceLock::new(),
        }
    }

    /// Whether it may still do anything.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::SeqCst) && !self.is_fenced()
    }

    /// Whether another attachment took the volume over.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::SeqCst)
    }

    /// Whether a write's outcome is unknown.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.load(Ordering::SeqCst)
    }

    /// Refuses what this attachment cannot do now.
    pub fn admit(&self) -> Result<()> {
        if self.is_fenced() {
            return Err(fenced(&self.volume));
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(detached(&self.volume));
        }
        self.given_up.get().map_or(Ok(()), |why| Err(why.clone()))
    }

    /// Refuses changes through a reader.
    pub fn admit_writer(&self) -> Result<()> {
        self.admit()?;
        if self.writer {
            return Ok(());
        }
        Err(Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
            .with("volume", &self.volume)
            .remedy("attach it for writing"))
    }

    /// Refuses every flush from now on if a write's outcome is unknown.
    pub fn admit_flush(&self) -> Result<()> {
        self.admit()?;
        if self.is_in_doubt() { Err(in_doubt(&self.volume)) } else { Ok(()) }
    }

    /// Fails everything from now on: what is known of the volume here and what is on the share do not belong together.
    pub fn give_up(&self) -> Error {
        let why = self.given_up.get_or_init(|| {
            tracing::error!(
                volume = self.volume,
                "the volume is given up until it is attached anew"
            );
            given_up(&self.volume)
        });
        why.clone()
    }

    /// A change's outcome is unknown.
    pub fn doubt(&self) {
        self.doubt.store(true, Ordering::SeqCst);
    }

    /// What is under way did not end in time.
    pub fn stuck(&self) -> Error {
        Error::new(ErrorKind::TIMED_OUT, "operations under way did not end in time")
            .with("volume", &self.volume)
            .remedy("look whether the server answers, then try again")
    }

    /// Refuses everything that is not sent yet: another attachment has the volume now.
    pub fn deny(&self) {
        self.fenced.store(true, Ordering::SeqCst);
    }

    /// Ends the attachment in good order; whether it was open.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }
}
