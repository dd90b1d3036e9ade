// SPDX-License-Identifier: Apache-2.0
//! One connection, from greeting to end, on one thread. Nobody else touches the socket.
//!
//! ```text
//!   Open --DISC, end of input, nonsense, wish to drain--> Draining --nothing in flight, all sent--> end
//!     \--client gone, wish to abandon--> Gone <--client gone, LINGER passed--/
//!                                        Gone --no mutation in flight--> end
//! ```

use std::{
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nbd_protocol::{
    Errno,
    inbox::{Admission, Inbox, Next},
    outbox::Outbox,
    pool,
    replies::Replies,
    terms::{Refused, Terms},
    wire::{Command, Request},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno as SystemErrno,
    net::{
        RecvFlags,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{
    Export, ExportSource, ServerSettings,
    budget::{self, Account, Amount, PATIENCE, Patience, RETRY},
    busy::Busy,
    complaints::complain,
    control::{Control, Wish},
    flight::{Flight, data_len},
    operation::{self, Outcome},
    server::Seat,
    timespec,
    transport::Transport,
    welcome::negotiate,
};
use crate::{errors::nbd_errno, memory};

/// How long a client that has said good-bye may take to fetch its last replies.
const LINGER: Duration = Duration::from_secs(10);
/// Replies of this many bytes leave before the rest of the batch is started.
const SEND_AT: usize = 256 << 10;
/// While so many bytes of replies are not sent no further read is started: its data would leave the cache, and memory
/// would be taken for nothing.
const UNSENT: usize = 1 << 20;

/// A connection that had nothing to do for so long gives back the memory that it has for its next requests.
const REST_AFTER: Duration = Duration::from_secs(2);
/// Who has moved so many bytes has left freed memory behind, in drivers' libraries as well.
const MUCH: u64 = 64 << 20;
/// What an answer without data is counted as: its head, and a text.
const ANSWER_LEN: usize = 256;

const ENDING: Refused = Refused { errno: Errno::Shutdown, why: "the server, or this export, ends" };

/// Serves a connection to its end.
pub fn run(control: &Arc<Control>, source: &dyn ExportSource, seat: &Seat) {
    let mut transport = Transport::new(control.socket.as_fd());
    if let Some((export, terms, early)) = negotiate(control, &mut transport, source, seat) {
        let name = export.name.clone();
        let (peer, tls) = (control.peer(), transport.is_tls());
        tracing::info!(connection = control.id, export = name, %peer, tls, "a client is served");
        transmit(control, &mut transport, seat, export, terms, &early);
        tracing::info!(connection = control.id, export = name, "a client left");
    }
    transport.finish();
}

/// Serves an export until one side has enough; then nothing of it is in use any more.
fn transmit(
    control: &Control,
    transport: &mut Transport<'_>,
    seat: &Seat,
    export: Export,
    terms: Terms,
    early: &[u8],
) {
    let settings = seat.settings();
    if let Err(errno) = set_socket_timeout(&control.socket, Timeout::Recv, Some(REST_AFTER)) {
        tracing::warn!(connection = control.id, %errno, "a connection keeps its memory at rest");
    }
    let mut connection = Connection {
        control,
        transport,
        settings,
        inbox: Inbox::new(terms.headers, early),
        replies: Replies::new(terms.headers),
        flight: Flight::new(export.volume.clone(), terms, Arc::clone(&control.wakes)),
        account: seat.budgets().account(&export.name, &export.backend),
        patience: Patience::default(),
        moved: 0,
        moved_at_rest: 0,
        phase: Phase::Open,
        waiting: Waiting::No,
        resting: false,
        telling: false,
        busy: Busy::new(settings.busy_poll),
    };
    pool::keep_buffers(true);
    connection.serve();
    connection.give_back();
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Nothing new is started. Once nothing is in flight, replies may take until then.
    Draining(Option<Instant>),
    /// Nobody reads replies.
    Gone,
}

struct Connection<'a, 's> {
    control: &'a Control,
    transport: &'a mut Transport<'s>,
    settings: &'a ServerSettings,
    inbox: Inbox,
    replies: Replies,
    flight: Flight,
    account: Account,
    patience: Patience,
    /// Bytes that the client has sent and fetched.
    moved: u64,
    /// How many they were when it rested last.
    moved_at_rest: u64,
    phase: Phase,
    waiting: Waiting,
    /// It has been idle for [`REST_AFTER`].
    resting: bool,
    /// Whatever is asked is refused, because this ends.
    telling: bool,
    busy: Busy,
}

/// What the next request waits for, which has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waiting {
    No,
    /// An operation of this connection, or a reply that the client must fetch.
    Own,
    /// Other connections.
    Others,
}

impl Connection<'_, '_> {
    fn serve(&mut self) {
        loop {
            self.heed_wish();
            self.poll_woken();
            self.start_requests();
            let unsent = self.replies.outbox.len();
            self.send();
            if self.finished() {
                return;
            }
            // Sent replies may have made the room that a request waits for.
            if self.waiting != Waiting::Own || self.replies.outbox.len() == unsent {
                self.account.settle(self.used());
                self.lose_patience();
                self.sleep_and_receive();
            }
        }
    }

    /// What counts in the budgets: what is being received, is in the driver, or is not sent yet.
    fn used(&self) -> Amount {
        let body = self.inbox.body_len();
        let operations = self.flight.len() + usize::from(body > 0);
        Amount { operations, bytes: self.flight.bytes() + self.replies.outbox.len() + body }
    }

    /// Ends a connection whose client keeps others waiting.
    fn lose_patience(&mut self) {
        if self.account.leased() == Amount::NONE && self.patience.is_calm() {
            return;
        }
        let owes = self.inbox.body_len() > 0 || !self.replies.outbox.is_empty();
        let held = if owes { self.account.leased().bytes } else { 0 };
        if self.patience.ends(held, self.moved, self.account.refusals(), Instant::now()) {
            complain!(
                connection = self.control.id,
                held,
                "a client neither sends the data it announced nor fetches its replies, and others wait: it is cut off"
            );
            self.abandon();
        }
    }

    /// Gives back the memory that a busy connection has.
    fn rest(&mut self) {
        self.resting = true;
        self.inbox.shrink();
        self.replies.outbox.clear();
        pool::keep_buffers(false);
        self.give_back();
    }

    /// Has the system get back what lies freed after much was moved.
    fn give_back(&mut self) {
        if self.moved - self.moved_at_rest >= MUCH {
            memory::trim();
        }
        self.moved_at_rest = self.moved;
    }

    fn heed_wish(&mut self) {
        match self.control.wish() {
            Wish::Serve => {}
            Wish::Tell => self.telling = true,
            Wish::Drain => self.drain(),
            Wish::Abandon => self.abandon(),
        }
    }

    fn drain(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Draining(None);
        }
    }

    fn abandon(&mut self) {
        if self.phase != Phase::Gone {
            self.phase = Phase::Gone;
            self.flight.drop_reads();
            self.replies.outbox.clear();
            self.note_in_flight();
        }
    }

    fn finished(&mut self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Gone => self.flight.is_empty(),
            Phase::Draining(until) => {
                if self.flight.is_empty() && !self.replies.outbox.is_empty() {
                    let until = until.unwrap_or_else(|| Instant::now() + LINGER);
                    self.phase = Phase::Draining(Some(until));
                    return Instant::now() >= until;
                }
                self.flight.is_empty()
            }
        }
    }

    /// Starts every request that has arrived complete and for which there is room.
    fn start_requests(&mut self) {
        self.waiting = Waiting::No;
        while self.phase == Phase::Open {
            let (flight, outbox, settings) = (&self.flight, &self.replies.outbox, self.settings);
            let (account, waiting, telling) = (&mut self.account, &mut self.waiting, self.telling);
            let next = self.inbox.next(|request| {
                let (admission, waits) = admit(request, flight, outbox, settings, account);
                *waiting = waits;
                match admission {
                    Admission::Take if telling && request.command != Command::DISC => {
                        Admission::Refuse(ENDING)
                    }
                    admission => admission,
                }
            });
            match next {
                Ok(Next::Incomplete | Next::Waiting) => return,
                Ok(Next::Request(request, _)) if request.command == Command::DISC => self.drain(),
                Ok(Next::Request(request, data)) if self.is_armed() => {
                    match self.flight.start(request, data) {
                        Some(outcome) => {
                            reply(self.control, &mut self.replies, &request, outcome);
                        }
                        None => self.note_in_flight(),
                    }
                }
                Ok(Next::Request(..)) => self.drain(),
                Ok(Next::Refused(request, Refused { errno, why })) => {
                    self.control.figures.errors.add(1);
                    self.replies.failed(&request, errno, why);
                }
                Err(_) => {
                    complain!(
                        connection = self.control.id,
                        "a request without its magic number: the connection ends"
                    );
                    self.drain();
                }
            }
            if self.replies.outbox.len() >= SEND_AT {
                self.send();
            }
        }
    }

    /// Whether operations can wake this connection. What it needs for that is made for its first request.
    fn is_armed(&mut self) -> bool {
        match self.control.wakes.arm() {
            Ok(first) => {
                if first {
                    self.heed_wish();
                }
                self.phase == Phase::Open
            }
            Err(error) => {
                complain!(connection = self.control.id, %error, "a client was sent away");
                false
            }
        }
    }

    fn poll_woken(&mut self) {
        let (control, replies, gone) = (self.control, &mut self.replies, self.phase == Phase::Gone);
        self.flight.poll_woken(|request, outcome| {
            reply(control, replies, &request, outcome);
            if gone {
                replies.outbox.clear();
            }
        });
        self.note_in_flight();
    }

    fn note_in_flight(&self) {
        self.control.figures.in_flight.set(self.flight.len() as u64);
    }

    fn send(&mut self) {
        while !self.replies.outbox.is_empty() {
            let (slices, count) = self.replies.outbox.slices();
            match self.transport.send(&slices[..count]) {
                Ok(count) => {
                    self.moved += count as u64;
                    self.replies.outbox.advance(count);
                }
                Err(SystemErrno::AGAIN) => return,
                Err(SystemErrno::INTR) => {}
                Err(_) => return self.abandon(),
            }
        }
    }

    /// Waits for something to do, and receives once if there is something to receive.
    fn sleep_and_receive(&mut self) {
        let receiving = self.phase == Phase::Open && self.waiting == Waiting::No;
        if receiving && self.transport.has_buffered() {
            return self.receive(RecvFlags::DONTWAIT);
        }
        if receiving && self.replies.outbox.is_empty() {
            if self.poll_and_receive() {
                return;
            }
            if self.flight.is_empty() && !self.resting {
                // Only the client can give work now, and a wish to end shuts the socket: one system call, not two.
                let (transport, inbox) = (&mut *self.transport, &mut self.inbox);
                let received =
                    self.busy.sleep(|| transport.receive(&mut inbox.space(), RecvFlags::empty()));
                if received == Err(SystemErrno::AGAIN) && !self.inbox.within_request() {
                    self.rest();
                }
                return self.take_note(received);
            }
        }
        let mut events = PollFlags::empty();
        if receiving {
            events |= PollFlags::IN;
        }
        if !self.replies.outbox.is_empty() {
            events |= PollFlags::OUT;
        }
        let wakes = &*self.control.wakes;
        let timeout = if wakes.may_sleep() { self.time_to_sleep() } else { Some(Duration::ZERO) };
        let timeout = timeout.map(timespec);
        let (socket, event) = (self.control.socket.as_fd(), wakes.event());
        let mut fds = [
            PollFd::from_borrowed_fd(socket, events),
            PollFd::from_borrowed_fd(event.unwrap_or(socket), PollFlags::IN),
        ];
        // A client that is gone for good would end every sleep at once.
        let first = usize::from(self.phase == Phase::Gone);
        let watched = &mut fds[first..1 + usize::from(event.is_some())];
        let polled = self.busy.sleep(|| poll(watched, timeout.as_ref()));
        let [socket, event] = fds.map(|fd| fd.revents());
        wakes.awake(event.contains(PollFlags::IN));
        if polled.is_err() {
            return;
        }
        if receiving && socket.contains(PollFlags::IN) {
            self.receive(RecvFlags::DONTWAIT);
        } else if socket.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            self.abandon();
        }
    }

    fn time_to_sleep(&self) -> Option<Duration> {
        let lingers = match self.phase {
            Phase::Draining(Some(until)) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        };
        let retries = (self.waiting == Waiting::Others).then_some(RETRY);
        let watches = (!self.patience.is_calm()).then_some(PATIENCE);
        [lingers, retries, watches].into_iter().flatten().min()
    }

    fn receive(&mut self, flags: RecvFlags) {
        let received = self.transport.receive(&mut self.inbox.space(), flags);
        self.take_note(received);
    }

    /// Waits awake, as long as that is worth its while. False if there is nothing to do.
    fn poll_and_receive(&mut self) -> bool {
        let Some(until) = self.busy.until() else { return false };
        loop {
            let received = self.transport.receive(&mut self.inbox.space(), RecvFlags::DONTWAIT);
            let nothing = received == Err(SystemErrno::AGAIN);
            if !nothing || (!self.flight.is_empty() && self.control.wakes.any()) {
                self.busy.paid();
                self.take_note(received);
                return true;
            }
            if !self.busy.goes_on(until) {
                return false;
            }
        }
    }

    fn take_note(&mut self, received: rustix::io::Result<usize>) {
        match received {
            Ok(0) => {
                if self.inbox.within_request() {
                    tracing::debug!(connection = self.control.id, "the input ends in a request");
                }
                self.drain();
            }
            Ok(count) => {
                self.inbox.received(count);
                self.moved += count as u64;
                if self.resting {
                    self.resting = false;
                    pool::keep_buffers(true);
                }
            }
            Err(SystemErrno::AGAIN | SystemErrno::INTR) => {}
            Err(_) => self.abandon(),
        }
    }
}

/// Checks a request, and whether the connection's bounds and the budgets leave room for it.
fn admit(
    request: &Request,
    flight: &Flight,
    outbox: &Outbox,
    settings: &ServerSettings,
    account: &mut Account,
) -> (Admission, Waiting) {
    if request.command == Command::DISC {
        return (Admission::Take, Waiting::No);
    }
    let checked = flight.check(request);
    // A refusal is an answer as well: who asks for many and fetches none must wait.
    let more = match checked {
        Ok(()) => Amount { operations: 1, bytes: data_len(request) + ANSWER_LEN },
        Err(_) => Amount { operations: 0, bytes: ANSWER_LEN },
    };
    let used = Amount { operations: flight.len(), bytes: flight.bytes() + outbox.len() };
    if used != Amount::NONE {
        let bounds =
            Amount { operations: settings.max_in_flight, bytes: settings.max_in_flight_bytes };
        let unfetched = request.command == Command::READ && outbox.len() >= UNSENT;
        if unfetched || !used.plus(more).within(bounds) {
            return (Admission::Wait, Waiting::Own);
        }
    }
    match (account.cover(used, more), checked) {
        (budget::Answer::Later, _) => (Admission::Wait, Waiting::Own),
        (budget::Answer::Wait, _) => (Admission::Wait, Waiting::Others),
        (budget::Answer::Yes, Ok(())) => (Admission::Take, Waiting::No),
        (budget::Answer::Yes, Err(refused)) => (Admission::Refuse(refused), Waiting::No),
    }
}

fn reply(control: &Control, replies: &mut Replies, request: &Request, outcome: Outcome) {
    let figures = &control.figures;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            // A backend that fails fails often: the first failure is for the operator, the others are counted.
            if figures.errors.get() == 0 {
                tracing::warn!(
                    connection = control.id,
                    export = control.export(),
                    ?request,
                    error = format!("{error:#}"),
                    "an operation failed"
                );
            } else {
                tracing::debug!(connection = control.id, ?request, %error, "an operation failed");
            }
            figures.errors.add(1);
            return replies.failed(request, nbd_errno(error.kind()), &error.to_string());
        }
    };
    match request.command {
        Command::READ => {
            figures.reads.add(1);
            figures.bytes_read.add(request.len);
        }
        Command::FLUSH => figures.flushes.add(1),
        Command::BLOCK_STATUS | Command::CACHE => {}
        _ => {
            figures.writes.add(1);
            figures.bytes_written.add(data_len(request) as u64);
        }
    }
    match answer {
        operation::Answer::Done => replies.done(request),
        operation::Answer::Data(data) => replies.data(request, data),
        operation::Answer::Sparse(sparse) => {
            replies.sparse(request, &sparse.runs, sparse.offset, &sparse.data);
        }
        operation::Answer::Status(known) => replies.status(request, &known),
    }
}
