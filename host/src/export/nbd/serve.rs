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
    replies::Replies,
    terms::{Refused, Terms},
    wire::{Command, Request, SIMPLE_LEN},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno as SystemErrno,
    net::RecvFlags,
};

use super::{
    Export, ExportSource, ServerSettings,
    busy::Busy,
    control::{Control, Wish},
    flight::{Flight, data_len},
    operation::{Answer, Outcome},
    timespec,
    transport::Transport,
    welcome::negotiate,
};
use crate::errors::nbd_errno;

/// How long a client that has said good-bye may take to fetch its last replies.
const LINGER: Duration = Duration::from_secs(10);
/// Replies of this many bytes leave before the rest of the batch is started.
const SEND_AT: usize = 256 << 10;

const ENDING: Refused = Refused { errno: Errno::Shutdown, why: "the server, or this export, ends" };

/// Serves a connection to its end.
pub fn run(control: &Arc<Control>, source: &dyn ExportSource, settings: &ServerSettings) {
    let mut transport = Transport::new(control.socket.as_fd());
    if let Some((export, terms, early)) = negotiate(control, &mut transport, source, &settings.tls)
    {
        let name = export.name.clone();
        let (peer, tls) = (control.peer(), transport.is_tls());
        tracing::info!(connection = control.id, export = name, %peer, tls, "a client is served");
        transmit(control, &mut transport, settings, export, terms, &early);
        tracing::info!(connection = control.id, export = name, "a client left");
    }
    transport.finish();
}

/// Serves an export until one side has enough; then nothing of it is in use any more.
fn transmit(
    control: &Control,
    transport: &mut Transport<'_>,
    settings: &ServerSettings,
    export: Export,
    terms: Terms,
    early: &[u8],
) {
    let mut connection = Connection {
        control,
        transport,
        settings,
        inbox: Inbox::new(terms.headers, early),
        replies: Replies::new(terms.headers),
        flight: Flight::new(export.volume.clone(), terms, Arc::clone(&control.wakes)),
        phase: Phase::Open,
        waiting: false,
        telling: false,
        busy: Busy::new(settings.busy_poll),
    };
    connection.serve();
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
    phase: Phase,
    /// The next request has arrived and waits for room.
    waiting: bool,
    /// Whatever is asked is refused, because this ends.
    telling: bool,
    busy: Busy,
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
            if !self.waiting || self.replies.outbox.len() == unsent {
                self.sleep_and_receive();
            }
        }
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
        self.waiting = false;
        while self.phase == Phase::Open {
            let (flight, outbox, settings) = (&self.flight, &self.replies.outbox, self.settings);
            let telling = self.telling;
            let next = self.inbox.next(|request| match admit(request, flight, outbox, settings) {
                Admission::Take if telling && request.command != Command::DISC => {
                    Admission::Refuse(ENDING)
                }
                admission => admission,
            });
            match next {
                Ok(Next::Incomplete) => return,
                Ok(Next::Waiting) => {
                    self.waiting = true;
                    return;
                }
                Ok(Next::Request(request, _)) if request.command == Command::DISC => self.drain(),
                Ok(Next::Request(request, data)) => match self.flight.start(request, data) {
                    Some(outcome) => {
                        reply(self.control, &mut self.replies, &request, outcome);
                    }
                    None => self.note_in_flight(),
                },
                Ok(Next::Refused(request, Refused { errno, why })) => {
                    self.control.figures.errors.add(1);
                    self.replies.failed(&request, errno, why);
                }
                Err(_) => {
                    tracing::warn!(
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
                Ok(count) => self.replies.outbox.advance(count),
                Err(SystemErrno::AGAIN) => return,
                Err(SystemErrno::INTR) => {}
                Err(_) => return self.abandon(),
            }
        }
    }

    /// Waits for something to do, and receives once if there is something to receive.
    fn sleep_and_receive(&mut self) {
        let receiving = self.phase == Phase::Open && !self.waiting;
        if receiving && self.transport.has_buffered() {
            return self.receive(RecvFlags::DONTWAIT);
        }
        if receiving && self.replies.outbox.is_empty() {
            if self.poll_and_receive() {
                return;
            }
            if self.flight.is_empty() {
                // Only the client can give work now, and a wish to end shuts the socket: one system call, not two.
                let (transport, inbox) = (&mut *self.transport, &mut self.inbox);
                let received =
                    self.busy.sleep(|| transport.receive(&mut inbox.space(), RecvFlags::empty()));
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
        let timeout = if wakes.may_sleep() { self.time_to_linger() } else { Some(Duration::ZERO) };
        let timeout = timeout.map(timespec);
        let mut fds =
            [PollFd::new(wakes, PollFlags::IN), PollFd::new(&self.control.socket, events)];
        // A client that is gone for good would end every sleep at once.
        let watched = if self.phase == Phase::Gone { 1 } else { 2 };
        let polled = self.busy.sleep(|| poll(&mut fds[..watched], timeout.as_ref()));
        let (event, socket) = (fds[0].revents(), fds[1].revents());
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

    fn time_to_linger(&self) -> Option<Duration> {
        match self.phase {
            Phase::Draining(Some(until)) => Some(until.saturating_duration_since(Instant::now())),
            _ => None,
        }
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
            Ok(count) => self.inbox.received(count),
            Err(SystemErrno::AGAIN | SystemErrno::INTR) => {}
            Err(_) => self.abandon(),
        }
    }
}

/// Checks a request, and whether the connection's bounds leave room for it.
fn admit(
    request: &Request,
    flight: &Flight,
    outbox: &Outbox,
    settings: &ServerSettings,
) -> Admission {
    if request.command == Command::DISC {
        return Admission::Take;
    }
    if !flight.is_empty() || !outbox.is_empty() {
        let bytes = flight.bytes() + outbox.len() + data_len(request) + SIMPLE_LEN;
        if flight.len() >= settings.max_in_flight || bytes > settings.max_in_flight_bytes {
            return Admission::Wait;
        }
    }
    match flight.check(request) {
        Ok(()) => Admission::Take,
        Err(error) => Admission::Refuse(error),
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
        Answer::Done => replies.done(request),
        Answer::Data(data) => replies.data(request, data),
        Answer::Sparse(sparse) => {
            replies.sparse(request, &sparse.runs, sparse.offset, &sparse.data);
        }
        Answer::Status(known) => replies.status(request, &known),
    }
}
