// SPDX-License-Identifier: Apache-2.0
//! Many calls on one connection: each has a transaction id of its own, and answers may come in any order.
//!
//! ```text
//! call -> [waiting: xid -> who] -> outbox -> writer task -> socket -> reader task -> who waits for the xid
//! ```
//!
//! - A call that is given up (deadline, dropped) leaves `waiting`; its answer is counted and thrown away when it comes.
//! - Whatever is wrong with the stream (end, reset, a record that is too long) ends the connection, and with it every
//!   call: each learns whether it had been sent. Nothing is sent twice here.
//! - A server from which nothing at all comes while a call waits is given up after `silence`.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, IoSlice},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::memory::Memory;
use crate::{counters::Figures, error::Fault};

/// The longest answer that is taken: the largest read, and the words around it.
pub(crate) const LONGEST_REPLY: usize = (1 << 20) + (64 << 10);
/// Bytes that are read from the socket at once, at least.
const READ_AHEAD: usize = 64 << 10;
/// The same after a long answer, since another one follows most probably, which has memory of its own.
const PEEK: usize = 4 << 10;
/// From this length on, an answer is read into memory of its own.
const LONG: usize = 32 << 10;
/// Records that are written at once, at most.
const BATCH: usize = 32;
/// In a record mark: the last fragment.
const LAST: u32 = 0x8000_0000;

/// One call, ready to be sent but for its transaction id.
pub(crate) struct Record {
    /// Record mark, transaction id and everything before the payload.
    pub head: Vec<u8>,
    /// The bytes that are sent as they lie in memory, without a copy.
    pub payload: Bytes,
}

impl Record {
    /// Puts the record mark and `xid` in. The payload is padded to a multiple of four.
    fn sealed(mut self, xid: u32) -> [Bytes; 3] {
        const ZEROS: &[u8] = &[0; 3];
        let padding = self.payload.len().wrapping_neg() % 4;
        let len = self.head.len() - 4 + self.payload.len() + padding;
        let mark = LAST | u32::try_from(len).unwrap_or(LAST - 1);
        self.head[..4].copy_from_slice(&mark.to_be_bytes());
        self.head[4..8].copy_from_slice(&xid.to_be_bytes());
        [self.head.into(), self.payload, Bytes::from_static(&ZEROS[..padding])]
    }
}

/// A connection that any number of calls share. Dropping it ends it.
pub(crate) struct Mux {
    line: Arc<Line>,
    outbox: mpsc::UnboundedSender<(u32, Record)>,
    silence: Duration,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks of a connection share.
struct Line {
    calls: Mutex<Calls>,
    /// When bytes last came, in milliseconds since `born`.
    heard: AtomicU64,
    born: Instant,
    figures: Arc<Figures>,
}

struct Calls {
    waiting: HashMap<u32, Waiting>,
    next: u32,
    /// Why the connection has ended.
    ended: Option<Arc<str>>,
}

struct Waiting {
    answer: oneshot::Sender<Result<Bytes, Fault>>,
    /// Whether its bytes may have left.
    sent: bool,
}

impl Line {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection: every call learns why, and later ones fail at once.
    fn end(&self, why: &str) {
        let mut calls = self.calls();
        if calls.ended.is_some() {
            return;
        }
        let why: Arc<str> = why.into();
        calls.ended = Some(Arc::clone(&why));
        for (_, call) in calls.waiting.drain() {
            // Who has gone meanwhile needs no answer.
            let _ = call.answer.send(Err(Fault::Lost { sent: call.sent, why: Arc::clone(&why) }));
        }
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }
}

/// Takes a call off the list when it is given up.
struct Place<'a> {
    line: &'a Line,
    xid: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.calls().waiting.remove(&self.xid);
    }
}

impl Mux {
    /// Takes a connection over. `silence`: how long a call may wait while nothing at all is heard.
    pub fn new<S>(stream: S, silence: Duration, figures: Arc<Figures>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let calls = Calls { waiting: HashMap::new(), next: fastrand::u32(..), ended: None };
        let line = Arc::new(Line {
            calls: Mutex::new(calls),
            heard: AtomicU64::new(0),
            born: Instant::now(),
            figures,
        });
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (read, write) = tokio::io::split(stream);
        let tasks = [
            tokio::spawn(write_all(Arc::clone(&line), write, inbox)),
            tokio::spawn(read_all(Arc::clone(&line), read)),
        ];
        Self { line, outbox, silence, tasks }
    }

    /// Sends a call and waits for its answer: what stands behind the record mark, transaction id included.
    pub async fn call(&self, record: Record, until: Instant) -> Result<Bytes, Fault> {
        let begun = Instant::now();
        let (answer, mut reply) = oneshot::channel();
        let xid = self.enlist(answer)?;
        let place = Place { line: &self.line, xid };
        if self.outbox.send((xid, record)).is_err() {
            self.line.end("its writer has ended");
        }
        let answered = loop {
            let heard = self
                .line
                .heard
                .load(Relaxed)
                .max(begun.saturating_duration_since(self.line.born).as_millis() as u64);
            let deaf_at = self.line.born + Duration::from_millis(heard) + self.silence;
            let moment = until.min(deaf_at);
            match tokio::time::timeout_at(moment.into(), &mut reply).await {
                Ok(Ok(answered)) => break answered,
                // Nobody is left who knows.
                Ok(Err(_)) => break Err(self.lost()),
                Err(_) if Instant::now() >= until => break Err(self.timed_out(xid)),
                Err(_) if self.line.heard.load(Relaxed) > heard => {}
                Err(_) => {
                    let why = format!("nothing came from the server for {:?}", self.silence);
                    self.line.end(&why);
                }
            }
        };
        drop(place);
        self.line.figures.called(begun, answered.is_ok());
        answered
    }

    /// Ends it: every call learns why, and later ones fail at once.
    pub fn end(&self, why: &str) {
        self.line.end(why);
    }

    /// Whether it has ended, and why.
    pub fn ended(&self) -> Option<Arc<str>> {
        self.line.calls().ended.clone()
    }

    fn enlist(&self, answer: oneshot::Sender<Result<Bytes, Fault>>) -> Result<u32, Fault> {
        let mut calls = self.line.calls();
        if let Some(why) = &calls.ended {
            return Err(Fault::Lost { sent: false, why: Arc::clone(why) });
        }
        let xid = loop {
            calls.next = calls.next.wrapping_add(1);
            if !calls.waiting.contains_key(&calls.next) {
                break calls.next;
            }
        };
        calls.waiting.insert(xid, Waiting { answer, sent: false });
        Ok(xid)
    }

    fn lost(&self) -> Fault {
        let why = self.ended().unwrap_or_else(|| "its reader has ended".into());
        Fault::Lost { sent: true, why }
    }

    fn timed_out(&self, xid: u32) -> Fault {
        let sent = self.line.calls().waiting.get(&xid).is_none_or(|call| call.sent);
        Fault::TimedOut { sent, why: "the server did not answer before the deadline".into() }
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.line.end("it was given up here");
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Records on their way into the socket.
#[derive(Default)]
struct Batch(VecDeque<Bytes>);

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |part| &part[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.0.iter().zip(slices);
        parts.map(|(part, slice)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.0.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.0.pop_front();
        }
    }
}

async fn write_all(
    line: Arc<Line>,
    mut socket: impl AsyncWrite + Unpin,
    mut inbox: mpsc::UnboundedReceiver<(u32, Record)>,
) {
    let mut records = Vec::new();
    while inbox.recv_many(&mut records, BATCH).await > 0 {
        let mut batch = Batch::default();
        {
            let mut calls = line.calls();
            for (xid, record) in records.drain(..) {
                // A call that was given up before it left is not sent at all.
                if let Some(call) = calls.waiting.get_mut(&xid) {
                    call.sent = true;
                    batch.0.extend(record.sealed(xid).into_iter().filter(|part| !part.is_empty()));
                }
            }
        }
        line.figures.sent(batch.remaining());
        if let Err(error) = socket.write_all_buf(&mut batch).await {
            line.end(&error.to_string());
            return;
        }
    }
}

async fn read_all(line: Arc<Line>, socket: impl AsyncRead + Unpin) {
    let mut records = Records {
        socket,
        buffer: BytesMut::new(),
        ahead: READ_AHEAD,
        memory: Memory::default(),
        line: &line,
    };
    let error = loop {
        let reply = match records.next().await {
            Ok(reply) => reply,
            Err(error) => break error,
        };
        line.figures.received(reply.len());
        let xid = (&reply[..4]).get_u32();
        match line.calls().waiting.remove(&xid) {
            // Who has gone meanwhile needs no answer.
            Some(call) => drop(call.answer.send(Ok(reply))),
            None => line.figures.stray(),
        }
    };
    line.end(&error.to_string());
}

const CUT_OFF: &str = "the server closed the connection inside an answer";

/// The records of a stream.
struct Records<'a, S> {
    socket: S,
    buffer: BytesMut,
    /// Bytes that are read at once, at least.
    ahead: usize,
    memory: Memory,
    line: &'a Line,
}

impl<S: AsyncRead + Unpin> Records<'_, S> {
    /// The next record, its fragments joined. It has a transaction id at least.
    async fn next(&mut self) -> io::Result<Bytes> {
        let (mut len, last) = self.mark(0).await?;
        self.ahead = if len >= LONG { PEEK } else { READ_AHEAD };
        if last && len >= LONG {
            return self.long(len).await;
        }
        if last {
            self.fill(len).await?;
            return whole(self.buffer.split_to(len).freeze());
        }
        let mut joined = BytesMut::new();
        loop {
            self.fill(len).await?;
            joined.extend_from_slice(&self.buffer.split_to(len));
            let (next, last) = self.mark(joined.len()).await?;
            len = next;
            if last {
                self.fill(len).await?;
                joined.extend_from_slice(&self.buffer.split_to(len));
                return whole(joined.freeze());
            }
        }
    }

    /// The next record, which is a long one: what of it is not here yet goes from the socket to where it stays.
    async fn long(&mut self, len: usize) -> io::Result<Bytes> {
        let mut record = self.memory.lend(len);
        let mut filled = len.min(self.buffer.len());
        record.bytes()[..filled].copy_from_slice(&self.buffer.split_to(filled));
        while filled < len {
            match self.socket.read(&mut record.bytes()[filled..]).await? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, CUT_OFF)),
                count => filled += count,
            }
            self.line.heard.store(self.line.now().max(1), Relaxed);
        }
        Ok(record.frozen())
    }

    /// The length of a fragment, and whether it is the record's last.
    async fn mark(&mut self, so_far: usize) -> io::Result<(usize, bool)> {
        self.fill(4).await?;
        let mark = self.buffer.get_u32();
        let (len, last) = ((mark & !LAST) as usize, mark & LAST != 0);
        if len > LONGEST_REPLY - so_far.min(LONGEST_REPLY) {
            return Err(bad(format!(
                "the server sent an answer of {} bytes or more",
                so_far + len
            )));
        }
        if len == 0 && !last {
            return Err(bad("the server sent an empty fragment".to_owned()));
        }
        Ok((len, last))
    }

    /// Reads until the buffer has `len` bytes.
    async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buffer.len() < len {
            let more = (len - self.buffer.len()).max(self.ahead);
            self.buffer.reserve(more);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                let why = if self.buffer.is_empty() {
                    "the server closed the connection"
                } else {
                    CUT_OFF
                };
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            self.line.heard.store(self.line.now().max(1), Relaxed);
        }
        Ok(())
    }
}

fn whole(record: Bytes) -> io::Result<Bytes> {
    if record.len() < 4 {
        return Err(bad(format!("the server sent an answer of {} bytes", record.len())));
    }
    Ok(record)
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
