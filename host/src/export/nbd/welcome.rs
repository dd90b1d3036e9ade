// SPDX-License-Identifier: Apache-2.0
//! One connection's negotiation, over its socket and against the clock.

use std::time::Instant;

use driver_api::Result;
use nbd_protocol::{
    negotiate::{Closing, MAX_OPTION_LEN, Negotiation, Offer, Opened, Step, Tls},
    terms::Terms,
    wire::OptionHeader,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

use super::{
    Export, ExportSource, NEGOTIATION_TIME,
    control::{Control, Wish},
    timespec,
};

/// Opens exports for the negotiation, and names each before, so that ending an export finds this connection.
struct Naming<'a> {
    control: &'a Control,
    source: &'a dyn ExportSource,
}

impl Offer for Naming<'_> {
    type Export = Export;

    fn list(&mut self) -> Vec<String> {
        self.source.list()
    }

    fn find(&mut self, name: &str) -> Result<()> {
        self.source.find(name)
    }

    fn open(&mut self, name: &str) -> Result<Opened<Export>> {
        self.control.set_export(name);
        let export = self.source.open(name)?;
        self.control.set_export(&export.name);
        let volume = &export.volume;
        let terms = Terms::of(&volume.capabilities()?, volume.size()?, export.read_only);
        let (name, description) = (export.name.clone(), export.description.clone());
        Ok(Opened { export, name, description, terms })
    }
}

/// Negotiates to the end. What the client sent beyond it comes along; `None` if the connection is over.
pub fn negotiate(control: &Control, source: &dyn ExportSource) -> Option<(Export, Terms, Vec<u8>)> {
    let deadline = Instant::now() + NEGOTIATION_TIME;
    let mut offer = Naming { control, source };
    let mut negotiation = Negotiation::new(Tls::Off);
    let mut input = Vec::new();
    let mut out = Negotiation::<Export>::greeting().to_vec();
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
            // Only a negotiation that offers TLS comes to it.
            Step::StartTls => return None,
            Step::Close(closing) => {
                match closing {
                    Closing::Aborted => {}
                    Closing::Nonsense(what) => {
                        tracing::warn!(connection = control.id, what, "a client was sent away");
                    }
                    Closing::NoExport(why) => {
                        tracing::warn!(connection = control.id, why, "a client was sent away");
                    }
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
