// SPDX-License-Identifier: Apache-2.0
//! One connection's negotiation, over its socket and against the clock.

use std::{
    borrow::Cow,
    io::{IoSlice, IoSliceMut},
    sync::Arc,
    time::Instant,
};

use driver_api::Result;
use nbd_protocol::{
    negotiate::{Closing, MAX_OPTION_LEN, Negotiation, Offer, Opened, Step},
    terms::Terms,
    wire::OptionHeader,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::RecvFlags,
};

use super::{
    Export, ExportSource, NEGOTIATION_TIME, TlsSettings,
    complaints::complain,
    control::{Control, Wish},
    server::Seat,
    timespec, tls,
    transport::{Handshake, Transport},
};
use crate::access::Address;

/// Bytes that are received at once.
const RECEIVED_AT_ONCE: usize = 1 << 10;

/// Opens exports for the negotiation, and names each before, so that ending an export finds this connection.
struct Naming<'a> {
    control: &'a Control,
    seat: &'a Seat,
    source: &'a dyn ExportSource,
}

impl Offer for Naming<'_> {
    type Export = Export;

    fn list(&mut self) -> Vec<String> {
        self.source.list(&self.control.peer())
    }

    fn find(&mut self, name: &str) -> Result<()> {
        self.source.find(&self.named(name)?, &self.control.peer())
    }

    fn open(&mut self, name: &str) -> Result<Opened<Export>> {
        // By its own name: who ends an export must find those, too, that open it as the default.
        let name = self.named(name)?;
        self.seat.check_free()?;
        self.control.set_export(&name);
        let export = self.source.open(&name, &self.control.peer())?;
        let (name, description) = (export.name.clone(), export.description.clone());
        Ok(Opened { export, name, description })
    }

    fn terms(&mut self, export: &Export) -> Result<Terms> {
        let volume = &export.volume;
        let terms = Terms::of(&volume.capabilities()?, volume.size()?, export.read_only);
        Ok(if export.coherent { terms } else { terms.for_one_connection() })
    }
}

impl Naming<'_> {
    fn named<'n>(&self, name: &'n str) -> Result<Cow<'n, str>> {
        if name.is_empty() { self.source.default_name().map(Cow::Owned) } else { Ok(name.into()) }
    }
}

/// Negotiates to the end. What the client sent beyond it comes along; `None` if the connection is over.
pub fn negotiate(
    control: &Control,
    transport: &mut Transport<'_>,
    source: &dyn ExportSource,
    seat: &Seat,
) -> Option<(Export, Terms, Vec<u8>)> {
    let mut talk = Talk { control, transport, deadline: Instant::now() + NEGOTIATION_TIME };
    let mut offer = Naming { control, seat, source };
    let tls = &seat.settings().tls;
    let mut negotiation = Negotiation::new(match control.peer().address {
        Address::Unix { .. } => tls.unix,
        Address::Tcp(_) => tls.tcp,
    });
    let mut input = Vec::new();
    let mut out = Negotiation::<Export>::greeting().to_vec();
    loop {
        talk.send(&out)?;
        out.clear();
        match control.wish() {
            Wish::Serve => {}
            Wish::Tell => negotiation.shut_down(),
            Wish::Drain | Wish::Abandon => return None,
        }
        let (taken, step) = negotiation.step(&input, &mut offer, &mut out);
        input.drain(..taken);
        match step {
            Step::Answered => {}
            Step::NeedInput => talk.receive(&mut input)?,
            Step::Serve(export, terms) => {
                if let Err(error) = seat.take() {
                    complain!(connection = control.id, %error, "a client was sent away");
                    return None;
                }
                talk.send(&out)?;
                return Some((export, terms, input));
            }
            Step::StartTls => {
                if !input.is_empty() {
                    // Whoever wrote it between the two ends must not be taken for the one behind the encryption.
                    complain!(connection = control.id, "plain text after STARTTLS");
                    return None;
                }
                talk.send(&out)?;
                out.clear();
                talk.start_tls(tls)?;
                negotiation = negotiation.encrypted();
            }
            Step::Close(closing) => {
                match closing {
                    Closing::Aborted => {}
                    Closing::Nonsense(what) => {
                        complain!(connection = control.id, what, "a client was sent away");
                    }
                    Closing::NoExport(why) => {
                        complain!(connection = control.id, why, "a client was sent away");
                    }
                }
                // The client is sent away in any case; whether it hears the last word is its affair.
                let _ = talk.send(&out);
                return None;
            }
        }
    }
}

/// Both directions, until the time for them is over.
struct Talk<'a, 's> {
    control: &'a Control,
    transport: &'a mut Transport<'s>,
    deadline: Instant,
}

impl Talk<'_, '_> {
    fn send(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            match self.transport.send(&[IoSlice::new(bytes)]) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(())
    }

    fn receive(&mut self, input: &mut Vec<u8>) -> Option<()> {
        // The longest option fits, and little of what may follow the last one; who says nothing costs no memory for it.
        let most = OptionHeader::LEN + MAX_OPTION_LEN as usize;
        let room = most.saturating_sub(input.len()).clamp(OptionHeader::LEN, RECEIVED_AT_ONCE);
        let mut buffer = [0; RECEIVED_AT_ONCE];
        loop {
            let mut space = [IoSliceMut::new(&mut buffer[..room])];
            match self.transport.receive(&mut space, RecvFlags::DONTWAIT) {
                Ok(0) => return None,
                Ok(count) => {
                    input.extend_from_slice(&buffer[..count]);
                    return Some(());
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::IN)?,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn start_tls(&mut self, tls: &TlsSettings) -> Option<()> {
        let id = self.control.id;
        let shaken = tls.keys.as_ref().map(|keys| self.shake_hands(keys.config()));
        match shaken {
            Some(Ok(true)) => {}
            Some(Ok(false)) | None => return None,
            Some(Err(error)) => {
                let (peer, error) = (self.control.peer(), format!("{error:#}"));
                complain!(connection = id, %peer, error, "a client was sent away");
                return None;
            }
        }
        if let Some(certificate) = self.transport.client_certificate() {
            self.control.set_certificate(tls::identity(certificate));
        }
        Some(())
    }

    /// False if the time is over.
    fn shake_hands(&mut self, config: Arc<rustls::ServerConfig>) -> Result<bool> {
        self.transport.start_tls(config)?;
        loop {
            let events = match self.transport.handshake()? {
                Handshake::Done => return Ok(true),
                Handshake::Readable => PollFlags::IN,
                Handshake::Writable => PollFlags::OUT,
            };
            if self.wait(events).is_none() {
                return Ok(false);
            }
        }
    }

    fn wait(&self, events: PollFlags) -> Option<()> {
        let control = self.control;
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            complain!(connection = control.id, "a client took too long to choose an export");
            return None;
        }
        // A wish to end shuts the socket, which ends this too.
        match poll(&mut [PollFd::new(&control.socket, events)], Some(&timespec(left))) {
            Ok(_) if control.wish() >= Wish::Drain => None,
            Ok(_) | Err(Errno::INTR) => Some(()),
            Err(_) => None,
        }
    }
}
