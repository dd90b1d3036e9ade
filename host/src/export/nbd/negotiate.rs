// SPDX-License-Identifier: Apache-2.0
//! The negotiation: bytes of the client in, bytes for the client and a decision out. No socket, no clock.
//!
//! ```text
//!   greeting sent -> client flags -> option* -> GO, EXPORT_NAME: Serve
//!                                            -> ABORT, or nonsense: Close
//! ```

use driver_api::{Error, ErrorKind, Result};

use super::{
    Export,
    terms::Terms,
    wire::{
        self, ClientFlags, HandshakeFlags, InfoRequest, InfoType, OptionCode, OptionHeader,
        ReplyType,
    },
};

/// Bytes of data that an option may have: a name of 4096 bytes and more facts than there are.
pub const MAX_OPTION_LEN: u32 = 16 << 10;
/// Bytes that a name may have, as the protocol says.
pub const MAX_NAME_LEN: usize = 4096;

/// What the server has to offer, as the negotiation asks for it.
pub trait Offer {
    /// The names of all exports.
    fn list(&mut self) -> Vec<String>;
    /// Opens an export.
    fn open(&mut self, name: &str) -> Result<Export>;
}

/// What comes after a step.
pub enum Step {
    /// The input ends in the middle of something: come again with more.
    NeedInput,
    /// An option was answered: send the output and come again.
    Answered,
    /// Transmission begins after the output was sent.
    Serve(Export, Terms),
    /// The connection ends after the output was sent, for this reason.
    Close(Closing),
}

/// Why a negotiation ended without an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Closing {
    /// The client said that it leaves.
    Aborted,
    /// The client speaks another protocol, or a broken one.
    Nonsense(&'static str),
    /// The client chose, in the way that knows no refusal, an export that cannot be had.
    NoExport,
}

/// One client's negotiation.
#[derive(Default)]
pub struct Negotiation {
    client: Option<ClientFlags>,
    /// What the last INFO opened: the GO that mostly follows takes it, so that a volume is attached once.
    described: Option<(String, Export, Terms)>,
}

impl Negotiation {
    /// What the server says first.
    pub fn greeting() -> [u8; wire::GREETING_LEN] {
        wire::greeting(HandshakeFlags::FIXED_NEWSTYLE.and(HandshakeFlags::NO_ZEROES))
    }

    /// Takes one message off the front of `input` and appends the answer to `out`. Returns the bytes taken.
    pub fn step(
        &mut self,
        input: &[u8],
        offer: &mut dyn Offer,
        out: &mut Vec<u8>,
    ) -> (usize, Step) {
        let Some(client) = self.client else { return self.client_flags(input) };
        let header = match OptionHeader::decode(input) {
            None => return (0, Step::NeedInput),
            Some(Err(wire::BadMagic)) => {
                return (0, Step::Close(Closing::Nonsense("an option without its magic number")));
            }
            Some(Ok(header)) => header,
        };
        if header.len > MAX_OPTION_LEN {
            wire::option_reply(out, header.code, ReplyType::ERR_TOO_BIG, b"the option is too long");
            return (0, Step::Close(Closing::Nonsense("an option of unreasonable length")));
        }
        let end = OptionHeader::LEN + header.len as usize;
        let Some(data) = input.get(OptionHeader::LEN..end) else { return (0, Step::NeedInput) };
        (end, self.option(header.code, data, client, offer, out))
    }

    fn client_flags(&mut self, input: &[u8]) -> (usize, Step) {
        let Some(flags) = ClientFlags::decode(input) else { return (0, Step::NeedInput) };
        if !flags.within(ClientFlags::FIXED_NEWSTYLE.and(ClientFlags::NO_ZEROES)) {
            return (0, Step::Close(Closing::Nonsense("client flags that were not offered")));
        }
        self.client = Some(flags);
        (wire::CLIENT_FLAGS_LEN, Step::Answered)
    }

    fn option(
        &mut self,
        code: OptionCode,
        data: &[u8],
        client: ClientFlags,
        offer: &mut dyn Offer,
        out: &mut Vec<u8>,
    ) -> Step {
        match code {
            OptionCode::EXPORT_NAME => self.export_name(data, client, offer, out),
            OptionCode::ABORT => {
                wire::option_reply(out, code, ReplyType::ACK, &[]);
                Step::Close(Closing::Aborted)
            }
            OptionCode::LIST if !data.is_empty() => {
                wire::option_reply(out, code, ReplyType::ERR_INVALID, b"LIST takes no data");
                Step::Answered
            }
            OptionCode::LIST => {
                for name in offer.list() {
                    let entry = wire::server_entry(&name);
                    wire::option_reply(out, code, ReplyType::SERVER, &entry);
                }
                wire::option_reply(out, code, ReplyType::ACK, &[]);
                Step::Answered
            }
            OptionCode::INFO | OptionCode::GO => self.describe(code, data, offer, out),
            _ => {
                wire::option_reply(out, code, ReplyType::ERR_UNSUP, &[]);
                Step::Answered
            }
        }
    }

    fn export_name(
        &mut self,
        data: &[u8],
        client: ClientFlags,
        offer: &mut dyn Offer,
        out: &mut Vec<u8>,
    ) -> Step {
        let opened = match name_of(data) {
            Ok(name) => self.open(name, offer),
            Err((_, text)) => Err(Error::new(ErrorKind::INVALID_ARGUMENT, text)),
        };
        match opened {
            Ok((_, export, terms)) => {
                wire::export_name_reply(out, terms.size, terms.flags, client);
                Step::Serve(export, terms)
            }
            Err(error) => {
                tracing::warn!(%error, "a client asked for an export that cannot be had");
                Step::Close(Closing::NoExport)
            }
        }
    }

    fn describe(
        &mut self,
        code: OptionCode,
        data: &[u8],
        offer: &mut dyn Offer,
        out: &mut Vec<u8>,
    ) -> Step {
        let mut refuse = |kind: ReplyType, text: &str| {
            wire::option_reply(out, code, kind, text.as_bytes());
            Step::Answered
        };
        let Some(request) = InfoRequest::decode(data) else {
            return refuse(ReplyType::ERR_INVALID, "the option's data is malformed");
        };
        let name = match name_of(request.name) {
            Ok(name) => name,
            Err((kind, text)) => return refuse(kind, text),
        };
        let (name, export, terms) = match self.open(name, offer) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, export = name, "an export was refused");
                return refuse(refusal_of(error.kind()), &format!("{error:#}"));
            }
        };
        // Clients that never heard of block sizes expect at most the old sector.
        if terms.min_block > 512 && !request.wanted.contains(&InfoType::BLOCK_SIZE) {
            return refuse(ReplyType::ERR_BLOCK_SIZE_REQD, "ask for the block sizes first");
        }
        let mut info = |data: Vec<u8>| wire::option_reply(out, code, ReplyType::INFO, &data);
        info(wire::info_export(terms.size, terms.flags));
        info(wire::info_block_size(terms.min_block, terms.preferred_block, terms.max_block));
        if request.wanted.contains(&InfoType::NAME) {
            info(wire::info_text(InfoType::NAME, &export.name));
        }
        if request.wanted.contains(&InfoType::DESCRIPTION) && !export.description.is_empty() {
            info(wire::info_text(InfoType::DESCRIPTION, &export.description));
        }
        wire::option_reply(out, code, ReplyType::ACK, &[]);
        if code == OptionCode::GO {
            return Step::Serve(export, terms);
        }
        self.described = Some((name, export, terms));
        Step::Answered
    }

    fn open(&mut self, name: &str, offer: &mut dyn Offer) -> Result<(String, Export, Terms)> {
        match self.described.take() {
            Some(described) if described.0 == name => Ok(described),
            other => {
                // Its lease ends before another export is opened: they may be the same volume.
                drop(other);
                let export = offer.open(name)?;
                let terms = Terms::of(&export)?;
                Ok((name.to_owned(), export, terms))
            }
        }
    }
}

fn name_of(data: &[u8]) -> std::result::Result<&str, (ReplyType, &'static str)> {
    if data.len() > MAX_NAME_LEN {
        return Err((ReplyType::ERR_TOO_BIG, "the export's name is longer than 4096 bytes"));
    }
    std::str::from_utf8(data)
        .map_err(|_| (ReplyType::ERR_INVALID, "the export's name is not UTF-8"))
}

fn refusal_of(kind: ErrorKind) -> ReplyType {
    match kind {
        ErrorKind::PERMISSION_DENIED | ErrorKind::UNAUTHENTICATED | ErrorKind::FENCED => {
            ReplyType::ERR_POLICY
        }
        ErrorKind::INVALID_ARGUMENT => ReplyType::ERR_INVALID,
        _ => ReplyType::ERR_UNKNOWN,
    }
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
