// SPDX-License-Identifier: Apache-2.0
//! A client on a server: its connection, its name there, and how long the server keeps its state.
//!
//! | | NFSv4.0 | NFSv4.1 and 4.2 |
//! |---|---|---|
//! | who calls | a client id | a session; each call has a slot and its number in it |
//! | what keeps the state | RENEW | any call of the session |
//!
//! Every mount names the client alike and gives a new verifier: the server then drops, before anything new is opened,
//! what the mount before had opened and locked, and with it whatever of that mount still lies in its queues.
//!
//! Nothing is sent twice here. An answer which says that state is gone ends the session with all that it had.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use nfs3_types::rpc::opaque_auth;
use tokio::sync::{Semaphore, oneshot};

use super::{
    compound::{Compound, Reply, op},
    status::{Failed, Status},
};
use crate::{
    error::{Fault, broken_server},
    share::nfs3::{
        mux::{Mux, Record},
        rpc,
    },
};

const PROCEDURE: u32 = 1;
const VERSION: u32 = 4;
/// Slots that are asked for: calls that are under way at once.
const SLOTS: u32 = 128;
/// How much longer than its caller a call waits for its answer, so that its slot can be used again.
const LINGER: Duration = Duration::from_secs(300);
/// In the answer to SEQUENCE: something of this client's state was taken away.
const STATE_REVOKED: u32 = 0x8 | 0x10 | 0x20 | 0x100;

/// A connection as one user.
#[derive(Clone)]
pub(super) struct Wire {
    pub mux: Arc<Mux>,
    pub credential: opaque_auth<'static>,
    pub minor: u32,
}

impl Wire {
    fn record(&self, compound: &Compound, first: &[u8]) -> Result<Record, Fault> {
        let mut head = rpc::call_head(&self.credential, VERSION, PROCEDURE)?;
        let count = compound.count + u32::from(!first.is_empty());
        for word in [0, self.minor, count] {
            head.extend_from_slice(&word.to_be_bytes());
        }
        head.extend_from_slice(first);
        head.extend_from_slice(&compound.words.0);
        Ok(Record { head, payload: compound.payload.clone() })
    }

    /// Sends a compound that belongs to no session.
    pub async fn call(&self, compound: &Compound, until: Instant) -> Result<Reply, Failed> {
        let answer = self.mux.call(self.record(compound, &[])?, until).await?;
        Reply::new(results(answer)?)
    }
}

/// Takes the head of an answer off.
fn results(answer: Bytes) -> Result<Bytes, Fault> {
    let mut rest = &answer[..];
    rpc::accepted(&mut rest)?;
    let at = answer.len() - rest.len();
    Ok(answer.slice(at..))
}

/// A client that the server knows.
pub(super) struct Session {
    pub wire: Wire,
    /// The server's name for this client.
    pub client: u64,
    lease: OnceLock<Duration>,
    slots: Option<Slots>,
}

struct Slots {
    id: [u8; 16],
    free: Mutex<Vec<Slot>>,
    permits: Semaphore,
    highest: u32,
    /// The longest call and the longest answer.
    longest: (u32, u32),
}

#[derive(Clone, Copy)]
struct Slot {
    number: u32,
    /// The last call's number.
    sequence: u32,
}

impl Slots {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Slot>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// A client of NFSv4.0, by SETCLIENTID. `owner` is its name for itself.
    pub async fn of_client(wire: Wire, owner: &[u8], until: Instant) -> Result<Self, Failed> {
        let mut asking = Compound::default();
        // Without an address for callbacks no delegation is given.
        let verifier = fastrand::u64(..);
        let words = asking.op(op::SETCLIENTID).u64(verifier).opaque(owner);
        words.u32(0).opaque(b"tcp").opaque(b"0.0.0.0.0.0").u32(0);
        let mut reply = wire.call(&asking, until).await?;
        let given = reply.next(op::SETCLIENTID)?;
        let (client, confirm) = (given.u64()?, given.fixed::<8>()?);
        let mut confirming = Compound::default();
        confirming.op(op::SETCLIENTID_CONFIRM).u64(client).fixed(&confirm);
        wire.call(&confirming, until).await?.next(op::SETCLIENTID_CONFIRM)?;
        Ok(Self { wire, client, lease: OnceLock::new(), slots: None })
    }

    /// A session of NFSv4.1 or 4.2.
    pub async fn of_session(wire: Wire, owner: &[u8], until: Instant) -> Result<Self, Failed> {
        let (client, sequence) = exchange_id(&wire, owner, until).await?;
        let mut creating = Compound::default();
        let words = creating.op(op::CREATE_SESSION).u64(client).u32(sequence).u32(0);
        // Padding, longest call, longest answer, longest answer that is kept, operations, calls at once, RDMA.
        for word in [0, (1 << 20) + (64 << 10), (1 << 20) + (64 << 10), 4096, 16, SLOTS, 0] {
            words.u32(word);
        }
        for word in [0, 4096, 4096, 0, 2, 1, 0] {
            words.u32(word);
        }
        // A program for callbacks that never come, without a user.
        words.u32(0x4000_0000).u32(1).u32(0);
        let mut reply = wire.call(&creating, until).await?;
        let given = reply.next(op::CREATE_SESSION)?;
        let id = given.fixed()?;
        let (_sequence, _flags) = (given.u32()?, given.u32()?);
        let mut limits = [0; 6];
        for limit in &mut limits {
            *limit = given.u32()?;
        }
        let (count, longest) = (limits[5].clamp(1, SLOTS), (limits[1], limits[2]));
        let free = (0..count).rev().map(|number| Slot { number, sequence: 0 }).collect();
        let permits = Semaphore::new(count as usize);
        let slots = Slots { id, free: Mutex::new(free), permits, highest: count - 1, longest };
        let session = Self { wire, client, lease: OnceLock::new(), slots: Some(slots) };
        Ok(session)
    }

    /// Says that nothing of an earlier life will be claimed (NFSv4.1 and 4.2); without it nothing can be opened.
    pub async fn begin(self: &Arc<Self>, until: Instant) -> Result<(), Failed> {
        if self.slots.is_some() {
            let mut complete = Compound::default();
            complete.op(op::RECLAIM_COMPLETE).u32(0);
            self.call(complete, until).await?.next(op::RECLAIM_COMPLETE)?;
        }
        Ok(())
    }

    /// Sends a compound.
    pub async fn call(self: &Arc<Self>, all: Compound, until: Instant) -> Result<Reply, Failed> {
        let Some(slots) = &self.slots else {
            let answer = self.wire.mux.call(self.wire.record(&all, &[])?, until).await?;
            return self.judged(results(answer)?);
        };
        let permit = tokio::time::timeout_at(until.into(), slots.permits.acquire()).await;
        let Ok(Ok(permit)) = permit else {
            let why = "no slot of the session became free before the deadline";
            return Err(Fault::TimedOut { sent: false, why: why.into() }.into());
        };
        let Some(slot) = slots.free().pop() else {
            return Err(Fault::Lost { sent: false, why: "the session has no slot".into() }.into());
        };
        // The slot comes back with the answer, whoever still waits for that.
        permit.forget();
        let (answer, answered) = oneshot::channel();
        let session = Arc::clone(self);
        tokio::spawn(async move {
            // Who has gone meanwhile needs no answer.
            drop(answer.send(session.call_in(slot, all, until + LINGER).await));
        });
        match tokio::time::timeout_at(until.into(), answered).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                Err(Fault::Lost { sent: true, why: "the call's task has ended".into() }.into())
            }
            Err(_) => {
                let why = "the server did not answer before the deadline";
                Err(Fault::TimedOut { sent: true, why: why.into() }.into())
            }
        }
    }

    async fn call_in(
        &self,
        mut slot: Slot,
        all: Compound,
        until: Instant,
    ) -> Result<Reply, Failed> {
        let Some(slots) = &self.slots else {
            return Err(Failed::Call(broken_server("a slot without a session").into()));
        };
        slot.sequence = slot.sequence.wrapping_add(1);
        let mut first = super::xdr::Words::default();
        first.u32(op::SEQUENCE).fixed(&slots.id).u32(slot.sequence).u32(slot.number);
        first.u32(slots.highest).u32(0);
        let answer = match self.wire.mux.call(self.wire.record(&all, &first.0)?, until).await {
            Ok(answer) => answer,
            // Whether the number is used up is not known: the slot is not used again.
            Err(fault) => {
                self.end(&format!("a call of the session was not answered: {fault}"));
                return Err(fault.into());
            }
        };
        let mut reply = self.judged(results(answer)?)?;
        let told = reply.next(op::SEQUENCE);
        if let Err(Failed::Status(Status::DELAY)) = &told {
            slot.sequence = slot.sequence.wrapping_sub(1);
        }
        slots.free().push(slot);
        slots.permits.add_permits(1);
        let told = told?;
        let (id, sequence, number) = (told.fixed::<16>()?, told.u32()?, told.u32()?);
        let (_highest, _target, flags) = (told.u32()?, told.u32()?, told.u32()?);
        if (id, sequence, number) != (slots.id, slot.sequence, slot.number) {
            self.end("the server answered another call of the session");
            return Err(Failed::Call(broken_server("the answer is of another slot").into()));
        }
        if flags & STATE_REVOKED != 0 {
            self.end(&format!("the server took state of this client away (flags {flags:#x})"));
        }
        Ok(reply)
    }

    /// Looks whether an answer says that the state is gone.
    fn judged(&self, results: Bytes) -> Result<Reply, Failed> {
        if let Some(status) = results.first_chunk() {
            let status = Status(u32::from_be_bytes(*status));
            if status.ends_session() {
                self.end(&format!("the server answered {status}"));
            }
        }
        Reply::new(results)
    }

    /// Ends it: calls under way and later ones answer that it is lost.
    pub fn end(&self, why: &str) {
        self.wire.mux.end(why);
    }

    /// How long the server keeps its state without hearing of it.
    pub fn lease(&self) -> Duration {
        self.lease.get().copied().unwrap_or(Duration::from_secs(90))
    }

    /// The most that a read and a write may carry.
    pub fn most(&self) -> (u32, u32) {
        // What stands around the data in a call and in an answer.
        const AROUND: u32 = 1024;
        let (call, answer) =
            self.slots.as_ref().map_or((u32::MAX, u32::MAX), |slots| slots.longest);
        (answer.saturating_sub(AROUND), call.saturating_sub(AROUND))
    }

    /// Keeps the server's state alive for as long as the session is used.
    pub fn keep(self: &Arc<Self>, lease: Duration) {
        let lease = *self.lease.get_or_init(|| lease);
        tokio::spawn(renew(Arc::downgrade(self), (lease / 3).max(Duration::from_millis(500))));
    }

    /// Tells the server that this client has ended (NFSv4.1 and 4.2; 4.0 has no word for it).
    pub async fn destroy(&self, until: Instant) -> Result<(), Failed> {
        let Some(slots) = &self.slots else { return Ok(()) };
        let mut destroying = Compound::default();
        destroying.op(op::DESTROY_SESSION).fixed(&slots.id);
        self.wire.call(&destroying, until).await?.next(op::DESTROY_SESSION)?;
        let mut destroying = Compound::default();
        destroying.op(op::DESTROY_CLIENTID).u64(self.client);
        self.wire.call(&destroying, until).await?.next(op::DESTROY_CLIENTID).map(drop)
    }

    /// A call that keeps the state alive, and says whether it is.
    pub async fn renew(self: &Arc<Self>, until: Instant) -> Result<(), Failed> {
        let mut renewing = Compound::default();
        if self.slots.is_some() {
            return self.call(renewing, until).await.map(drop);
        }
        renewing.op(op::RENEW).u64(self.client);
        self.call(renewing, until).await?.next(op::RENEW).map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end("it was given up here");
    }
}

async fn exchange_id(wire: &Wire, owner: &[u8], until: Instant) -> Result<(u64, u32), Failed> {
    const NO_LAYOUTS: u32 = 0x0001_0000;
    let mut asking = Compound::default();
    let words = asking.op(op::EXCHANGE_ID).u64(fastrand::u64(..)).opaque(owner);
    // No protection of the state, no name of this program.
    words.u32(NO_LAYOUTS).u32(0).u32(0);
    let mut reply = wire.call(&asking, until).await?;
    let given = reply.next(op::EXCHANGE_ID)?;
    Ok((given.u64()?, given.u32()?))
}

async fn renew(session: Weak<Session>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(session) = session.upgrade() else { return };
        if session.wire.mux.ended().is_some() {
            return;
        }
        let until = Instant::now() + session.lease().max(pause);
        match session.renew(until).await {
            Ok(()) => {}
            // What ends the session has ended it; the rest is a matter of the next time.
            Err(failed) => tracing::debug!(?failed, "the lease was not renewed"),
        }
    }
}
