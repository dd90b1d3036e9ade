// SPDX-License-Identifier: Apache-2.0
//! Many calls on one connection that is logged in, each payload copied once at most.
//!
//! ```text
//! call -> credits -> outbox -> writer task: number, sign or encrypt in place -> socket
//! who waits for the number <- reader task: decrypt or verify in place <- socket
//! ```
//!
//! - Messages are numbered where they are sent, so that none is left out: a call that is given up before that is not sent.
//! - Every message needs credits from the server, as many as it moves blocks of 64 KiB; answers bring new ones.
//! - An answer that is not signed, or not encrypted where it should be, or not to a message that waits for one, ends the
//!   connection; and with it every call, which learns whether it had been sent. Nothing is sent twice here.
//! - While a call waits and nothing is heard, the server is asked for a sign of life; after `silence` it is given up.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use smb2::{
    msg::header::Header,
    pack::{ReadCursor, Unpack as _},
    types::{Command, MessageId, TreeId},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    frames::{self, HEADER, Raw, end_of, is_interim},
    outgoing::Outgoing,
    seal::{ENCRYPTED, ENVELOPE, Seal},
};
use crate::{
    counters::Figures,
    error::{Fault, internal},
    share::nfs3::memory::Memory,
};

/// Bytes that are read ahead of a frame: more of a long one is read to where it stays.
const PEEK: usize = 4 << 10;
/// Messages that are taken from the outbox at once, at most.
const BATCH: usize = 32;
/// Bytes that are collected before they are written, at most, and one message more.
const COLLECTED: usize = 256 << 10;
/// Credits that the server is asked for in all: 64 MiB on their way.
const CREDITS: i64 = 1024;

/// One message, ready to be sent but for its header.
pub(super) struct Message {
    /// What it asks for.
    pub command: Command,
    /// The share, if it is about one.
    pub tree: Option<TreeId>,
    /// Credits that it costs.
    pub charge: u16,
    /// Everything before the payload.
    pub body: Vec<u8>,
    /// Bytes to be written.
    pub payload: Bytes,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Frame {
    /// Its header.
    pub header: Header,
    /// What stands behind the header, without a copy.
    pub body: Bytes,
}

type Answer = oneshot::Sender<Result<Frame, Fault>>;
type Reply = oneshot::Receiver<Result<Frame, Fault>>;

/// Messages that leave together, in one frame.
struct Job {
    messages: Vec<(Message, Answer)>,
    paid: OwnedSemaphorePermit,
    /// Whether they may have left. Changed under the lock of the book.
    sent: Arc<AtomicBool>,
}

/// A connection that any number of calls share. Dropping it ends it.
pub(super) struct Mux {
    line: Arc<Line>,
    outbox: mpsc::UnboundedSender<Job>,
    silence: Duration,
    /// The question for a sign of life that has no answer yet.
    asked: Mutex<Option<Reply>>,
}

/// What the tasks of a connection share.
struct Line {
    seal: Seal,
    book: Mutex<Book>,
    credits: Arc<Semaphore>,
    tasks: OnceLock<[AbortHandle; 2]>,
    /// When bytes last came, in milliseconds since `born`.
    heard: AtomicU64,
    born: Instant,
    figures: Arc<Figures>,
}

struct Book {
    waiting: HashMap<u64, Waiting>,
    /// The number of the next message.
    next: u64,
    /// Credits that are there or came with messages on their way.
    owned: i64,
    /// Credits that the server was asked for and has not spoken of.
    asked: i64,
    /// Why the connection has ended.
    ended: Option<Arc<str>>,
}

struct Waiting {
    answer: Answer,
    command: Command,
    /// Credits that it asked for.
    asked: i64,
}

/// Where a connection is when its login is done.
pub(super) struct Start {
    /// The number of the next message.
    pub next: u64,
    /// Credits that are not spent.
    pub credits: u16,
    /// How long a call may wait while nothing at all is heard.
    pub silence: Duration,
}

impl Line {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection: every call learns why, and later ones fail at once.
    fn end(&self, why: &str) {
        let mut book = self.book();
        if book.ended.is_some() {
            return;
        }
        let why: Arc<str> = why.into();
        book.ended = Some(Arc::clone(&why));
        for (_, call) in book.waiting.drain() {
            // Who has gone meanwhile needs no answer.
            let _ = call.answer.send(Err(Fault::Lost { sent: true, why: Arc::clone(&why) }));
        }
        drop(book);
        self.credits.close();
        // What has not left yet goes with the task that would have sent it.
        self.tasks.get().into_iter().flatten().for_each(AbortHandle::abort);
    }

    /// Something came.
    fn hear(&self) {
        let now = self.born.elapsed().as_millis() as u64;
        self.heard.store(now.max(1), Relaxed);
    }

    fn lost(&self, sent: bool) -> Fault {
        let why = self.book().ended.clone();
        Fault::Lost { sent, why: why.unwrap_or_else(|| "the connection has ended".into()) }
    }

    /// Appends the frame of some messages. Those that nobody waits for any more are not sent.
    fn append(&self, job: Job, out: &mut Outgoing) -> Result<(), String> {
        match self.number(job) {
            Some(messages) => out.append(messages, &self.seal),
            None => Ok(()),
        }
    }

    /// Gives messages their numbers, and notes who waits for their answers.
    fn number(&self, job: Job) -> Option<Vec<(Message, Header)>> {
        let mut book = self.book();
        if book.ended.is_some() || job.messages.iter().all(|(_, answer)| answer.is_closed()) {
            return None;
        }
        job.sent.store(true, Relaxed);
        job.paid.forget();
        let mut numbered = Vec::with_capacity(job.messages.len());
        for (message, answer) in job.messages {
            let mut header = Header::new_request(message.command);
            let charge = message.charge.max(1);
            header.credit_charge.0 = charge;
            header.message_id = MessageId(book.next);
            header.session_id.0 = self.seal.session();
            header.tree_id = message.tree;
            book.next += u64::from(charge);
            book.owned -= i64::from(charge);
            let asked = (CREDITS - book.owned - book.asked).clamp(1, i64::from(u16::MAX));
            book.asked += asked;
            header.credits = asked as u16;
            let waiting = Waiting { answer, command: message.command, asked };
            book.waiting.insert(header.message_id.0, waiting);
            numbered.push((message, header));
        }
        Some(numbered)
    }

    /// Looks at a frame and gives its answers to those who wait for them.
    fn take(&self, mut frame: Raw) -> Result<(), String> {
        let data = frame.bytes();
        let begin = match (data.starts_with(&ENCRYPTED), self.seal.encrypts()) {
            (true, true) => {
                let opened = self.seal.decrypt(data);
                opened.ok_or("the server sent a message that is not encrypted with our key")?;
                ENVELOPE
            }
            (false, false) => 0,
            (true, false) => return Err("the server encrypts what should be signed".into()),
            (false, true) => return Err("the server sent a message without encryption".into()),
        };
        let mut answers = Vec::with_capacity(1);
        let mut at = begin;
        loop {
            let header = Header::unpack(&mut ReadCursor::new(&data[at..]));
            let header = header.map_err(|error| error.to_string())?;
            let end = end_of(&header, at, data.len()).ok_or("the server's answers are cut off")?;
            // Servers do not sign these: nothing of them is used but the credits that they bring.
            let is_bare = header.message_id == MessageId::UNSOLICITED || is_interim(&header);
            if begin == 0 && !is_bare && !self.seal.is_signed(&mut data[at..end]) {
                return Err("the server sent an answer without its signature".into());
            }
            let is_last = header.next_command == 0;
            answers.push((header, at + HEADER..end));
            if is_last {
                break;
            }
            at = end;
        }
        let frame = frame.frozen();
        answers.into_iter().try_for_each(|(header, place)| self.route(header, &frame, place))
    }

    fn route(&self, header: Header, frame: &Bytes, place: Range<usize>) -> Result<(), String> {
        if header.message_id == MessageId::UNSOLICITED {
            self.figures.stray();
            return Ok(());
        }
        let id = header.message_id.0;
        let mut book = self.book();
        let Some(waiting) = book.waiting.get_mut(&id) else {
            return Err(format!("the server answered message {id}, which waits for no answer"));
        };
        if waiting.command != header.command || !header.is_response() {
            return Err(format!("the server answered message {id} with another kind of message"));
        }
        let asked = std::mem::take(&mut waiting.asked);
        book.asked -= asked;
        book.owned += i64::from(header.credits);
        let call = if is_interim(&header) { None } else { book.waiting.remove(&id) };
        drop(book);
        self.credits.add_permits(header.credits.into());
        if let Some(call) = call {
            let answer = Frame { header, body: frame.slice(place) };
            if call.answer.send(Ok(answer)).is_err() {
                self.figures.stray();
            }
        }
        Ok(())
    }
}

impl Mux {
    /// Takes over a connection that is logged in, with nothing on its way.
    pub fn new<R, W>(
        (read, write): (R, W),
        seal: Seal,
        start: &Start,
        figures: &Arc<Figures>,
    ) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let book = Book {
            waiting: HashMap::new(),
            next: start.next,
            owned: start.credits.into(),
            asked: 0,
            ended: None,
        };
        let line = Arc::new(Line {
            seal,
            book: Mutex::new(book),
            credits: Arc::new(Semaphore::new(start.credits.into())),
            tasks: OnceLock::new(),
            heard: AtomicU64::new(0),
            born: Instant::now(),
            figures: Arc::clone(figures),
        });
        let (outbox, inbox) = mpsc::unbounded_channel();
        let tasks = [
            tokio::spawn(write_all(Arc::clone(&line), write, inbox)).abort_handle(),
            tokio::spawn(read_all(Arc::clone(&line), read)).abort_handle(),
        ];
        let tasks = line.tasks.get_or_init(|| tasks);
        if line.book().ended.is_some() {
            // It ended before anybody knew its tasks.
            tasks.iter().for_each(AbortHandle::abort);
        }
        Self { line, outbox, silence: start.silence, asked: Mutex::new(None) }
    }

    /// Sends messages in one frame and waits for the answers of all.
    pub async fn call(&self, messages: Vec<Message>, until: Instant) -> Result<Vec<Frame>, Fault> {
        let begun = Instant::now();
        let answered = self.answered(messages, begun, until).await;
        self.line.figures.called(begun, answered.is_ok());
        answered
    }

    /// Ends it: every call learns why, and later ones fail at once.
    pub fn end(&self, why: &str) {
        self.line.end(why);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.line.book().ended.is_some()
    }

    async fn answered(
        &self,
        messages: Vec<Message>,
        begun: Instant,
        until: Instant,
    ) -> Result<Vec<Frame>, Fault> {
        if messages.is_empty() {
            return Err(internal("nothing was to be sent").into());
        }
        let charge = messages.iter().map(|message| u32::from(message.charge.max(1))).sum();
        let paid = self.pay(charge, until).await?;
        let (messages, replies): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .map(|message| {
                let (answer, reply) = oneshot::channel();
                ((message, answer), reply)
            })
            .unzip();
        let sent = Arc::new(AtomicBool::new(false));
        if self.outbox.send(Job { messages, paid, sent: Arc::clone(&sent) }).is_err() {
            return Err(self.line.lost(false));
        }
        let mut replies = Replies { replies, line: &self.line, sent };
        let mut answers = Vec::with_capacity(replies.replies.len());
        for index in 0..replies.replies.len() {
            answers.push(self.answer(&mut replies, index, begun, until).await?);
        }
        Ok(answers)
    }

    /// Waits for credits.
    async fn pay(&self, charge: u32, until: Instant) -> Result<OwnedSemaphorePermit, Fault> {
        let mut paying = std::pin::pin!(Arc::clone(&self.line.credits).acquire_many_owned(charge));
        loop {
            let moment = until.min(Instant::now() + self.silence);
            match tokio::time::timeout_at(moment.into(), &mut paying).await {
                Ok(Ok(paid)) => return Ok(paid),
                Ok(Err(_)) => return Err(self.line.lost(false)),
                Err(_) if Instant::now() >= until => {
                    let why = "the server gave no room for another call before the deadline";
                    return Err(Fault::TimedOut { sent: false, why: why.into() });
                }
                Err(_) => {
                    // Credits come with answers alone.
                    if self.line.book().waiting.is_empty() {
                        self.line.end("the server gives no room for another call");
                    }
                }
            }
        }
    }

    async fn answer(
        &self,
        replies: &mut Replies<'_>,
        index: usize,
        begun: Instant,
        until: Instant,
    ) -> Result<Frame, Fault> {
        let line = &self.line;
        loop {
            let began = begun.saturating_duration_since(line.born).as_millis() as u64;
            let heard = line.heard.load(Relaxed).max(began);
            let last = line.born + Duration::from_millis(heard);
            let (ask_at, deaf_at) = (last + self.silence / 4, last + self.silence);
            let now = Instant::now();
            if (ask_at..deaf_at).contains(&now) {
                self.ask();
            }
            let next = if now < ask_at { ask_at } else { deaf_at.min(now + self.silence / 4) };
            let reply = &mut replies.replies[index];
            match tokio::time::timeout_at(until.min(next).into(), reply).await {
                Ok(Ok(answer)) => return answer,
                // Nobody is left who knows.
                Ok(Err(_)) => return Err(line.lost(replies.was_sent())),
                Err(_) if Instant::now() >= until => {
                    let why = "the server did not answer before the deadline".into();
                    return Err(Fault::TimedOut { sent: replies.given_up(), why });
                }
                Err(_) if line.heard.load(Relaxed) > heard => {}
                Err(_) if Instant::now() < deaf_at => {}
                Err(_) => {
                    line.end(&format!("nothing came from the server for {:?}", self.silence));
                }
            }
        }
    }

    /// Asks for a sign of life, unless that is done already or there is no room for it.
    fn ask(&self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = |reply: &mut Reply| {
            matches!(reply.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        if asked.as_mut().is_some_and(is_open) {
            return;
        }
        let Ok(paid) = Arc::clone(&self.line.credits).try_acquire_owned() else { return };
        let (answer, reply) = oneshot::channel();
        let message = Message {
            command: Command::Echo,
            tree: None,
            charge: 1,
            body: vec![4, 0, 0, 0],
            payload: Bytes::new(),
        };
        let sent = Arc::new(AtomicBool::new(false));
        let job = Job { messages: vec![(message, answer)], paid, sent };
        *asked = self.outbox.send(job).is_ok().then_some(reply);
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.line.end("it was given up here");
    }
}

/// The answers that one call waits for.
struct Replies<'a> {
    replies: Vec<Reply>,
    line: &'a Line,
    sent: Arc<AtomicBool>,
}

impl Replies<'_> {
    fn was_sent(&self) -> bool {
        let _book = self.line.book();
        self.sent.load(Relaxed)
    }

    /// Waits no longer. Whether the call had left; if not, it never will.
    fn given_up(&mut self) -> bool {
        let _book = self.line.book();
        self.replies.iter_mut().for_each(oneshot::Receiver::close);
        self.sent.load(Relaxed)
    }
}

async fn write_all(
    line: Arc<Line>,
    mut socket: impl AsyncWrite + Unpin,
    mut inbox: mpsc::UnboundedReceiver<Job>,
) {
    let (mut jobs, mut out) = (Vec::new(), Outgoing::default());
    while inbox.recv_many(&mut jobs, BATCH).await > 0 {
        let mut jobs = jobs.drain(..).peekable();
        while let Some(job) = jobs.next() {
            if let Err(why) = line.append(job, &mut out) {
                line.end(&why);
                return;
            }
            if out.len() < COLLECTED && jobs.peek().is_some() {
                continue;
            }
            line.figures.sent(out.len());
            if let Err(error) = socket.write_all_buf(out.all()).await {
                line.end(&error.to_string());
                return;
            }
        }
    }
}

async fn read_all(line: Arc<Line>, socket: impl AsyncRead + Unpin) {
    let mut socket = BufReader::with_capacity(PEEK, socket);
    let memory = Memory::default();
    let why = loop {
        match frames::next(&mut socket, &memory, || line.hear()).await {
            Ok(frame) => {
                line.figures.received(frame.len());
                if let Err(why) = line.take(frame) {
                    break why;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    line.end(&why);
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
