// SPDX-License-Identifier: Apache-2.0
//! One connection, from greeting to end, on one thread. Nobody else touches the socket.
//!
//! ```text
//!   Open --DISC, end of input, nonsense, wish to drain--> Draining --nothing in flight, all sent--> end
//!     \--client gone, wish to abandon--> Gone <--client gone, LINGER passed--/
//!                                        Gone --no mutation in flight--> end
//! ```

use std::{
    io::IoSlice,
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{IoBuf, Result};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send,
        sendmsg,
    },
};

use super::{
    Export, ExportSource, NEGOTIATION_TIME, ServerSettings,
    control::{Control, Wish},
    flight::{Flight, Outcome, data_len},
    inbox::{Admission, Inbox, Next},
    negotiate::{Closing, MAX_OPTION_LEN, Negotiation, Offer, Step},
    outbox::Outbox,
    terms::Terms,
    wire::{Command, OptionHeader, Request, SIMPLE_REPLY_LEN, simple_reply},
};
use crate::errors::nbd_errno;

/// How long a client that has said good-bye may take to fetch its last replies.
const LINGER: Duration = Duration::from_secs(10);
/// Replies of this many bytes leave before the rest of the batch is started.
const SEND_AT: usize = 256 << 10;

/// Serves a connection to its end.
pub fn run(control: &Arc<Control>, source: &dyn ExportSource, settings: &ServerSettings) {
    let mut negotiation = Negotiation::default();
    let Some((export, terms, early)) = negotiate(control, source, &mut negotiation) else { return };
    control.set_export(&export.name);
    tracing::info!(connection = control.id, export = export.name, "a client is served");
    let mut connection = Connection {
        control,
        settings,
        inbox: Inbox::new(&early),
        outbox: Outbox::default(),
        flight: Flight::new(export.volume.clone(), terms, Arc::clone(&control.wakes)),
        phase: Phase::Open,
        waiting: false,
    };
    connection.serve();
    drop(connection);
    tracing::info!(connection = control.id, export = export.name, "a client left");
}

/// Opens exports for the negotiation, and names each before, so that ending an export finds this connection.
struct Naming<'a> {
    control: &'a Control,
    source: &'a dyn ExportSource,
}

impl Offer for Naming<'_> {
    fn list(&mut self) -> Vec<String> {
        self.source.list()
    }

    fn open(&mut self, name: &str) -> Result<Export> {
        self.control.set_export(name);
        let export = self.source.open(name)?;
        self.control.set_export(&export.name);
        Ok(export)
    }
}

fn negotiate(
    control: &Control,
    source: &dyn ExportSource,
    negotiation: &mut Negotiation,
) -> Option<(Export, Terms, Vec<u8>)> {
    let deadline = Instant::now() + NEGOTIATION_TIME;
    let mut offer = Naming { control, source };
    let mut input = Vec::new();
    let mut out = Negotiation::greeting().to_vec();
    loop {
        send_before(control, &out, deadline)?;
        out.clear();
        if control.wish() != Wish::Serve {
            return None;
        }
        let (taken, step) = negotiation.step(&input, &mut offer, &mut out);
        input.drain(..taken);
        match step {
            Step::Answered => {}
            Step::NeedInput => receive_before(control, &mut input, deadline)?,
            Step::Serve(export, terms) => {
                send_before(control, &out, deadline)?;
                return Some((export, terms, input));
            }
            Step::Close(closing) => {
                if let Closing::Nonsense(what) = closing {
                    tracing::warn!(connection = control.id, what, "a client was sent away");
                }
                // The client is sent away in any case; whether it hears the last word is its affair.
                let _ = send_before(control, &out, deadline);
                return None;
            }
        }
    }
}

fn send_before(control: &Control, mut bytes: &[u8], deadline: Instant) -> Option<()> {
    while !bytes.is_empty() {
        match send(&control.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::AGAIN) => wait_before(control, PollFlags::OUT, deadline)?,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn receive_before(control: &Control, input: &mut Vec<u8>, deadline: Instant) -> Option<()> {
    // One option fits, and little of what may follow the last one.
    let room =
        OptionHeader::LEN + MAX_OPTION_LEN as usize - input.len().min(MAX_OPTION_LEN as usize);
    let mut buffer = vec![0; room];
    loop {
        match recv(&control.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return None,
            Ok((count, _)) => {
                input.extend_from_slice(&buffer[..count]);
                return Some(());
            }
            Err(Errno::AGAIN) => wait_before(control, PollFlags::IN, deadline)?,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn wait_before(control: &Control, events: PollFlags, deadline: Instant) -> Option<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        tracing::warn!(connection = control.id, "a client took too long to choose an export");
        return None;
    }
    let mut fds =
        [PollFd::new(&control.socket, events), PollFd::new(&*control.wakes, PollFlags::IN)];
    match poll(&mut fds, Some(&timespec(left))) {
        Ok(_) if control.wish() == Wish::Serve => Some(()),
        Err(Errno::INTR) => Some(()),
        _ => None,
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// Nothing new is started. Once nothing is in flight, replies may take until then.
    Draining(Option<Instant>),
    /// Nobody reads replies.
    Gone,
}

struct Connection<'a> {
    control: &'a Control,
    settings: &'a ServerSettings,
    inbox: Inbox,
    outbox: Outbox,
    flight: Flight,
    phase: Phase,
    /// The next request has arrived and waits for room.
    waiting: bool,
}

impl Connection<'_> {
    fn serve(&mut self) {
        loop {
            self.heed_wish();
            self.poll_woken();
            self.start_requests();
            let unsent = self.outbox.len();
            self.send();
            if self.finished() {
                return;
            }
            // Sent replies may have made the room that a request waits for.
            if !self.waiting || self.outbox.len() == unsent {
                self.sleep_and_receive();
            }
        }
    }

    fn heed_wish(&mut self) {
        match self.control.wish() {
            Wish::Serve => {}
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
            self.outbox.clear();
            self.note_in_flight();
        }
    }

    fn finished(&mut self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Gone => self.flight.is_empty(),
            Phase::Draining(until) => {
                if self.flight.is_empty() && !self.outbox.is_empty() {
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
            let (flight, outbox, settings) = (&self.flight, &self.outbox, self.settings);
            let next = self.inbox.next(|request| admit(request, flight, outbox, settings));
            match next {
                Ok(Next::Incomplete) => return,
                Ok(Next::Waiting) => {
                    self.waiting = true;
                    return;
                }
                Ok(Next::Request(request, _)) if request.command == Command::DISC => self.drain(),
                Ok(Next::Request(request, data)) => match self.flight.start(request, data) {
                    Some(outcome) => {
                        reply(self.control, &mut self.outbox, &request, outcome);
                    }
                    None => self.note_in_flight(),
                },
                Ok(Next::Refused(request, error)) => {
                    self.control.figures.errors.add(1);
                    self.outbox.push(&simple_reply(request.cookie, Some(error)));
                }
                Err(_) => {
                    tracing::warn!(
                        connection = self.control.id,
                        "a request without its magic number: the connection ends"
                    );
                    self.drain();
                }
            }
            if self.outbox.len() >= SEND_AT {
                self.send();
            }
        }
    }

    fn poll_woken(&mut self) {
        let (control, outbox, gone) = (self.control, &mut self.outbox, self.phase == Phase::Gone);
        self.flight.poll_woken(|request, outcome| {
            reply(control, outbox, &request, outcome);
            if gone {
                outbox.clear();
            }
        });
        self.note_in_flight();
    }

    fn note_in_flight(&self) {
        self.control.figures.in_flight.set(self.flight.len() as u64);
    }

    fn send(&mut self) {
        while !self.outbox.is_empty() {
            let (slices, count) = self.outbox.slices();
            let slices: &[IoSlice<'_>] = &slices[..count];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let mut nothing = SendAncillaryBuffer::default();
            match sendmsg(&self.control.socket, slices, &mut nothing, flags) {
                Ok(count) => self.outbox.advance(count),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.abandon(),
            }
        }
    }

    /// Waits for something to do, and receives once if there is something to receive.
    fn sleep_and_receive(&mut self) {
        let receiving = self.phase == Phase::Open && !self.waiting;
        if receiving && self.flight.is_empty() && self.outbox.is_empty() {
            // Only the client can give work now, and a wish to end shuts the socket: one system call instead of two.
            return self.receive(RecvFlags::empty());
        }
        let mut events = PollFlags::empty();
        if receiving {
            events |= PollFlags::IN;
        }
        if !self.outbox.is_empty() {
            events |= PollFlags::OUT;
        }
        let wakes = &*self.control.wakes;
        let timeout = if wakes.may_sleep() { self.time_to_linger() } else { Some(Duration::ZERO) };
        let timeout = timeout.map(timespec);
        let mut fds =
            [PollFd::new(wakes, PollFlags::IN), PollFd::new(&self.control.socket, events)];
        // A client that is gone for good would end every sleep at once.
        let watched = if self.phase == Phase::Gone { 1 } else { 2 };
        let polled = poll(&mut fds[..watched], timeout.as_ref());
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
        let mut space = self.inbox.space();
        let mut nothing = RecvAncillaryBuffer::default();
        match recvmsg(&self.control.socket, &mut space, &mut nothing, flags) {
            Ok(received) if received.bytes == 0 => {
                if self.inbox.within_request() {
                    tracing::debug!(connection = self.control.id, "the input ends in a request");
                }
                self.drain();
            }
            Ok(received) => self.inbox.received(received.bytes),
            Err(Errno::AGAIN | Errno::INTR) => {}
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
        let bytes = flight.bytes() + outbox.len() + data_len(request) + SIMPLE_REPLY_LEN;
        if flight.len() >= settings.max_in_flight || bytes > settings.max_in_flight_bytes {
            return Admission::Wait;
        }
    }
    match flight.check(request) {
        Ok(()) => Admission::Take,
        Err(error) => Admission::Refuse(error),
    }
}

fn reply(control: &Control, outbox: &mut Outbox, request: &Request, outcome: Outcome) {
    let figures = &control.figures;
    match outcome {
        Ok(data) => {
            match request.command {
                Command::READ => {
                    figures.reads.add(1);
                    figures.bytes_read.add(data.len() as u64);
                }
                Command::FLUSH => figures.flushes.add(1),
                _ => {
                    figures.writes.add(1);
                    figures.bytes_written.add(data_len(request) as u64);
                }
            }
            push_data(outbox, request, data);
        }
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
            outbox.push(&simple_reply(request.cookie, Some(nbd_errno(error.kind()))));
        }
    }
}

fn push_data(outbox: &mut Outbox, request: &Request, data: IoBuf) {
    let head = simple_reply(request.cookie, None);
    if data.is_empty() { outbox.push(&head) } else { outbox.push_with(&head, data) }
}
