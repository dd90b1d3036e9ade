// SPDX-License-Identifier: Apache-2.0
//! What is open and locked on the server.
//!
//! A writer opens with the right to write for itself alone, and locks the whole file. Its reads and writes name that lock: once
//! the server has let it go (the lease ran out, the server was started again), it refuses them.
//!
//! One open-owner does all: a file that is opened twice is one open, which ends with the last one who closes it. Opening,
//! locking and closing go one after the other, and to their end even if nobody waits for them any more: their numbers
//! count. One whose end is not known ends the session.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;

use super::{
    attrs::{self, Attributes},
    compound::{Compound, Reply, StateId, op},
    session::Session,
    status::{Failed, Status},
    xdr::{Answer, Words},
};
use crate::{
    error::{Fault, broken_server},
    names::FileName,
};

const ACCESS_READ: u32 = 1;
const ACCESS_BOTH: u32 = 3;
const WANT_NO_DELEGATION: u32 = 0x0400;
const DENY_NONE: u32 = 0;
const DENY_WRITE: u32 = 2;
const MUST_CONFIRM: u32 = 2;
const WRITE_LOCK: u32 = 2;
/// Until wherever the file ends.
const WHOLE: u64 = u64::MAX;
/// The state of what needs none: setting a file's mode.
const NO_STATE: StateId = [0; 16];

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Read,
    Write,
    /// It is made; what was made with this token before is found.
    Create(u64),
}

/// A file that was opened.
pub(super) struct Opened {
    pub handle: Bytes,
    pub attributes: Attributes,
}

#[derive(Clone)]
struct Held {
    open: StateId,
    lock: Option<Lock>,
    users: u32,
}

#[derive(Clone, Copy)]
struct Lock {
    state: StateId,
    sequence: u32,
}

/// All that this client has open.
pub(super) struct Opens {
    pub session: Arc<Session>,
    files: Mutex<HashMap<Bytes, Held>>,
    turn: tokio::sync::Mutex<Turn>,
}

/// Whose turn it is to change what is open.
#[derive(Default)]
struct Turn {
    /// The open-owner's next number.
    sequence: u32,
    /// Names for lock-owners.
    locks: u64,
}

impl Opens {
    pub fn new(session: Arc<Session>) -> Arc<Self> {
        Arc::new(Self { session, files: Mutex::default(), turn: tokio::sync::Mutex::default() })
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Bytes, Held>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that a read or a write names.
    pub fn state(&self, handle: &[u8], write: bool) -> Result<StateId, Fault> {
        let files = self.files();
        match files.get(handle) {
            Some(Held { lock: Some(lock), .. }) => Ok(lock.state),
            Some(held) if !write => Ok(held.open),
            _ => Err(Fault::Stale),
        }
    }

    /// Opens a file in a directory.
    pub async fn open(
        self: &Arc<Self>,
        directory: &Bytes,
        name: &FileName,
        how: How,
        until: Instant,
    ) -> Result<Opened, Failed> {
        let (all, directory, name) = (Arc::clone(self), directory.clone(), name.clone());
        self.finish(until, async move {
            let mut turn = all.turn.lock().await;
            all.open_in(&mut turn, &directory, &name, how, until).await
        })
        .await
    }

    /// Closes a file once.
    pub async fn close(self: &Arc<Self>, handle: &Bytes, until: Instant) -> Result<(), Failed> {
        let (all, handle) = (Arc::clone(self), handle.clone());
        self.finish(until, async move {
            let mut turn = all.turn.lock().await;
            all.close_in(&mut turn, &handle, until).await
        })
        .await
    }

    /// Closes everything.
    pub async fn close_all(self: &Arc<Self>, until: Instant) -> Result<(), Failed> {
        let handles: Vec<Bytes> = self.files().keys().cloned().collect();
        for handle in handles {
            if let Some(held) = self.files().get_mut(&handle) {
                held.users = 1;
            }
            self.close(&handle, until).await?;
        }
        Ok(())
    }

    /// Does something to its end, whoever waits for it. What a dropped caller has opened stays open until the mount ends.
    async fn finish<T: Send + 'static>(
        &self,
        until: Instant,
        work: impl Future<Output = Result<T, Failed>> + Send + 'static,
    ) -> Result<T, Failed> {
        let doing = tokio::spawn(work);
        match tokio::time::timeout_at(until.into(), doing).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => {
                self.session.end("opening or closing a file failed here");
                Err(Fault::Lost { sent: true, why: "the call's task has ended".into() }.into())
            }
            Err(_) => {
                let why = "the server did not open or close the file before the deadline";
                Err(Fault::TimedOut { sent: true, why: why.into() }.into())
            }
        }
    }

    async fn open_in(
        &self,
        turn: &mut Turn,
        directory: &Bytes,
        name: &FileName,
        how: How,
        until: Instant,
    ) -> Result<Opened, Failed> {
        let mut reply = self.ask_open(turn, directory, name, how, until).await?;
        let (mut state, flags, delegation) = {
            let given = self.counted(turn, reply.next(op::OPEN))?;
            opened(given)?
        };
        let (handle, attributes) = (reply.handle()?, reply.attributes()?);
        if flags & MUST_CONFIRM != 0 {
            let mut confirming = Compound::on(&handle);
            confirming.op(op::OPEN_CONFIRM).fixed(&state).u32(turn.sequence);
            let mut reply = self.ask(confirming, until).await?;
            reply.next(op::PUTFH)?;
            let confirmed = self.counted(turn, reply.next(op::OPEN_CONFIRM))?;
            state = confirmed.fixed()?;
        }
        {
            let mut files = self.files();
            let held =
                files.entry(handle.clone()).or_insert(Held { open: state, lock: None, users: 0 });
            (held.open, held.users) = (state, held.users + 1);
        }
        if let Some(delegation) = delegation {
            let mut giving_back = Compound::on(&handle);
            giving_back.op(op::DELEGRETURN).fixed(&delegation);
            let mut reply = self.ask(giving_back, until).await?;
            reply.next(op::PUTFH)?;
            reply.next(op::DELEGRETURN)?;
        }
        let opened = Opened { handle, attributes };
        match how {
            How::Read => Ok(opened),
            How::Write => match self.lock_in(turn, &opened.handle, until).await {
                Ok(()) => Ok(opened),
                Err(failed) => {
                    self.close_in(turn, &opened.handle, until).await?;
                    Err(failed)
                }
            },
            How::Create(_) => {
                let handle = opened.handle.clone();
                let attributes = self.dress(&handle, until).await;
                self.close_in(turn, &handle, until).await?;
                Ok(Opened { handle, attributes: attributes? })
            }
        }
    }

    async fn ask_open(
        &self,
        turn: &Turn,
        directory: &Bytes,
        name: &FileName,
        how: How,
        until: Instant,
    ) -> Result<Reply, Failed> {
        let minor = self.session.wire.minor;
        let mut asking = Compound::on(directory);
        let words = asking.op(op::OPEN).u32(turn.sequence);
        let (access, deny) = match how {
            How::Read => (ACCESS_READ, DENY_NONE),
            How::Write => (ACCESS_BOTH, DENY_WRITE),
            How::Create(_) => (ACCESS_BOTH, DENY_NONE),
        };
        words.u32(access | if minor > 0 { WANT_NO_DELEGATION } else { 0 }).u32(deny);
        words.u64(self.session.client).opaque(b"novastor");
        match how {
            How::Create(token) if minor > 0 => {
                words.u32(1).u32(3).u64(token).bits(&[]).opaque(&[]);
            }
            How::Create(token) => {
                words.u32(1).u32(2).u64(token);
            }
            _ => {
                words.u32(0);
            }
        }
        words.u32(0).opaque(name.as_str().as_bytes());
        asking.op(op::GETFH);
        asking.getattr(attrs::OF_FILE);
        let mut reply = self.ask(asking, until).await?;
        reply.next(op::PUTFH)?;
        Ok(reply)
    }

    /// Gives a file that was made its mode. Its token may stand where the times do: they are set, too.
    async fn dress(&self, handle: &Bytes, until: Instant) -> Result<Attributes, Failed> {
        let mut dressing = Compound::on(handle);
        let mut values = Words::default();
        values.u32(0o600).u32(0).u32(0);
        let words = dressing.op(op::SETATTR).fixed(&NO_STATE);
        words.bits(&[attrs::MODE, attrs::TIME_ACCESS_SET, attrs::TIME_MODIFY_SET]);
        words.opaque(&values.0);
        dressing.getattr(attrs::OF_FILE);
        let mut reply = self.ask(dressing, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::SETATTR)?.bits()?;
        reply.attributes()
    }

    async fn lock_in(&self, turn: &mut Turn, handle: &Bytes, until: Instant) -> Result<(), Failed> {
        let open = match self.files().get(handle) {
            Some(Held { lock: Some(_), .. }) => return Ok(()),
            Some(held) => held.open,
            None => return Err(broken_server("a file to lock is not open").into_failed()),
        };
        turn.locks += 1;
        let mut locking = Compound::on(handle);
        let words = locking.op(op::LOCK).u32(WRITE_LOCK).u32(0).u64(0).u64(WHOLE);
        words.u32(1).u32(turn.sequence).fixed(&open).u32(0);
        words.u64(self.session.client).opaque(&turn.locks.to_be_bytes());
        let mut reply = self.ask(locking, until).await?;
        reply.next(op::PUTFH)?;
        let state = self.counted(turn, reply.next(op::LOCK))?.fixed()?;
        if let Some(held) = self.files().get_mut(handle) {
            held.lock = Some(Lock { state, sequence: 1 });
        }
        Ok(())
    }

    async fn close_in(
        &self,
        turn: &mut Turn,
        handle: &Bytes,
        until: Instant,
    ) -> Result<(), Failed> {
        let held = {
            let mut files = self.files();
            let Some(held) = files.get_mut(handle) else { return Ok(()) };
            held.users = held.users.saturating_sub(1);
            if held.users > 0 {
                return Ok(());
            }
            let held = held.clone();
            files.remove(handle);
            held
        };
        let mut closing = Compound::on(handle);
        if let Some(lock) = held.lock {
            let words = closing.op(op::LOCKU).u32(WRITE_LOCK).u32(lock.sequence);
            words.fixed(&lock.state).u64(0).u64(WHOLE);
        }
        closing.op(op::CLOSE).u32(turn.sequence).fixed(&held.open);
        let mut reply = self.ask(closing, until).await?;
        match reply.next(op::PUTFH) {
            // Somebody has removed the file on the server, and its state with it.
            Err(Failed::Status(Status::STALE)) => return Ok(()),
            put => drop(put?),
        }
        if held.lock.is_some() {
            reply.next(op::LOCKU)?.fixed::<16>()?;
        }
        self.counted(turn, reply.next(op::CLOSE)).map(drop)
    }

    /// Sends a call whose end must be known.
    async fn ask(&self, all: Compound, until: Instant) -> Result<Reply, Failed> {
        let asked = self.session.call(all, until).await;
        if let Err(Failed::Call(fault)) = &asked {
            self.session.end(&format!("it is not known what is open: {fault}"));
        }
        asked
    }

    /// Counts the open-owner's number on, where the server has.
    fn counted<T>(&self, turn: &mut Turn, done: Result<T, Failed>) -> Result<T, Failed> {
        if done.as_ref().err().and_then(Failed::status).is_none_or(Status::consumes_seqid) {
            turn.sequence = turn.sequence.wrapping_add(1);
        }
        done
    }
}

trait IntoFailed {
    fn into_failed(self) -> Failed;
}

impl IntoFailed for driver_api::Error {
    fn into_failed(self) -> Failed {
        Failed::Call(Fault::Refused(self))
    }
}

/// State, flags, and a delegation that nobody has asked for.
fn opened(given: &mut Answer) -> Result<(StateId, u32, Option<StateId>), Fault> {
    let state = given.fixed()?;
    // How the directory changed.
    given.fixed::<20>()?;
    let flags = given.u32()?;
    given.bits()?;
    let delegation = match given.u32()? {
        0 => None,
        kind @ (1 | 2) => {
            let delegation = given.fixed()?;
            given.u32()?;
            if kind == 2 {
                given.fixed::<12>()?;
            }
            given.fixed::<12>()?;
            given.opaque()?;
            Some(delegation)
        }
        3 => {
            // Why there is none; two reasons have one word more.
            if matches!(given.u32()?, 1 | 2) {
                given.u32()?;
            }
            None
        }
        other => {
            return Err(
                broken_server(format!("the server gave a delegation of kind {other}")).into()
            );
        }
    };
    Ok((state, flags, delegation))
}
