// SPDX-License-Identifier: Apache-2.0
//! The negotiation: bytes of the client in, bytes for the client and a decision out. No socket, no clock.
//!
//! ```text
//!   greeting sent -> client flags -> option* -> GO, EXPORT_NAME: Serve
//!                                            -> STARTTLS: StartTls, then options anew
//!                                            -> ABORT, or nonsense: Close
//! ```

use driver_api::{Error, ErrorKind, Result};

use crate::{
    contexts::{Context, Contexts},
    terms::Terms,
    wire::{
        self, ClientFlags, ContextRequest, HandshakeFlags, Headers, InfoRequest, InfoType,
        OptionCode, OptionHeader, ReplyType, TransmissionFlags,
    },
};

/// Bytes of data that an option may have: a name of 4096 bytes and more facts than there are.
pub const MAX_OPTION_LEN: u32 = 16 << 10;
/// Bytes that a name may have, as the protocol says.
pub const MAX_NAME_LEN: usize = 4096;

const ENDING: &str = "the server, or this export, ends";

/// What the server has to offer, as the negotiation asks for it.
pub trait Offer {
    /// What a connection serves.
    type Export;

    /// The names of all exports.
    fn list(&mut self) -> Vec<String>;

    /// Whether there is such an export for this client, without opening it.
    fn find(&mut self, name: &str) -> Result<()>;

    /// Opens an export.
    fn open(&mut self, name: &str) -> Result<Opened<Self::Export>>;

    /// What an open export offers as it is now, before the client's choices.
    fn terms(&mut self, export: &Self::Export) -> Result<Terms>;
}

/// An export that was opened for a client.
#[derive(Debug)]
pub struct Opened<E> {
    /// What is served.
    pub export: E,
    /// Its name.
    pub name: String,
    /// A text for people; may be empty.
    pub description: String,
}

/// What comes after a step.
#[derive(Debug)]
pub enum Step<E> {
    /// The input ends in the middle of something: come again with more.
    NeedInput,
    /// An option was answered: send the output and come again.
    Answered,
    /// After the output was sent, the client begins its TLS handshake. Input that came in plain text behind this
    /// option must not be believed.
    StartTls,
    /// Transmission begins after the output was sent.
    Serve(E, Terms),
    /// The connection ends after the output was sent, for this reason.
    Close(Closing),
}

/// Why a negotiation ended without an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Closing {
    /// The client said that it leaves.
    Aborted,
    /// The client speaks another protocol, or a broken one.
    Nonsense(&'static str),
    /// The client chose, in the way that knows no refusal, an export that cannot be had.
    NoExport(String),
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tls {
    /// It cannot be.
    #[default]
    Off,
    /// It may be.
    Offer,
    /// It must be.
    Require,
    /// It is.
    On,
}

/// One client's negotiation.
pub struct Negotiation<E> {
    tls: Tls,
    /// The server ends, and serves no further option.
    ending: bool,
    client: Option<ClientFlags>,
    headers: Headers,
    /// The contexts that were chosen, and for which export.
    contexts: Option<(String, Contexts)>,
    /// What the last INFO opened: the GO that mostly follows takes it, so that a volume is attached once.
    described: Option<(String, Opened<E>)>,
}

/// A refusal of an option, and its text for people.
type Refusal = (ReplyType, String);

fn refusal(kind: ReplyType, text: &str) -> Refusal {
    (kind, text.to_owned())
}

impl<E> Negotiation<E> {
    /// A negotiation that begins with the greeting.
    pub fn new(tls: Tls) -> Self {
        Self {
            tls,
            ending: false,
            client: None,
            headers: Headers::Simple,
            contexts: None,
            described: None,
        }
    }

    /// The server ends: from here on every option but ABORT is answered so, and nothing is held.
    pub fn shut_down(&mut self) {
        self.ending = true;
        self.described = None;
    }

    /// The negotiation after the TLS handshake: what was chosen in plain text is forgotten.
    pub fn encrypted(self) -> Self {
        Self { client: self.client, ending: self.ending, ..Self::new(Tls::On) }
    }

    /// What the server says first.
    pub fn greeting() -> [u8; wire::GREETING_LEN] {
        wire::greeting(HandshakeFlags::FIXED_NEWSTYLE.and(HandshakeFlags::NO_ZEROES))
    }

    /// Takes one message off the front of `input` and appends the answer to `out`. Returns the bytes taken.
    pub fn step(
        &mut self,
        input: &[u8],
        offer: &mut dyn Offer<Export = E>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<E>) {
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

    fn client_flags(&mut self, input: &[u8]) -> (usize, Step<E>) {
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
        offer: &mut dyn Offer<Export = E>,
        out: &mut Vec<u8>,
    ) -> Step<E> {
        if !matches!(code, OptionCode::INFO | OptionCode::GO | OptionCode::EXPORT_NAME) {
            // The volume is not held for a client that turns to other things.
            self.described = None;
        }
        if code == OptionCode::EXPORT_NAME {
            return self.export_name(data, client, offer, out);
        }
        let answer = match code {
            OptionCode::ABORT => {
                wire::option_reply(out, code, ReplyType::ACK, &[]);
                return Step::Close(Closing::Aborted);
            }
            _ if self.ending => Err(refusal(ReplyType::ERR_SHUTDOWN, ENDING)),
            OptionCode::STARTTLS => self.start_tls(data),
            _ if self.tls == Tls::Require => {
                Err(refusal(ReplyType::ERR_TLS_REQD, "this server wants TLS first"))
            }
            OptionCode::LIST => list(data, offer, out),
            OptionCode::STRUCTURED_REPLY => self.choose_headers(Headers::Structured, data),
            OptionCode::EXTENDED_HEADERS => self.choose_headers(Headers::Extended, data),
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.meta_contexts(code, data, offer, out)
            }
            OptionCode::INFO | OptionCode::GO => match self.describe(code, data, offer, out) {
                Ok(Some((export, terms))) => return Step::Serve(export, terms),
                Ok(None) => return Step::Answered,
                Err(refusal) => Err(refusal),
            },
            _ => Err(refusal(ReplyType::ERR_UNSUP, "")),
        };
        match answer {
            Err((kind, text)) => wire::option_reply(out, code, kind, text.as_bytes()),
            Ok(()) => {
                wire::option_reply(out, code, ReplyType::ACK, &[]);
                if code == OptionCode::STARTTLS {
                    return Step::StartTls;
                }
            }
        }
        Step::Answered
    }

    fn start_tls(&self, data: &[u8]) -> std::result::Result<(), Refusal> {
        no_data(data)?;
        match self.tls {
            Tls::Off => Err(refusal(ReplyType::ERR_POLICY, "this server has no TLS")),
            Tls::On => Err(refusal(ReplyType::ERR_INVALID, "TLS is on already")),
            Tls::Offer | Tls::Require => Ok(()),
        }
    }

    fn choose_headers(
        &mut self,
        headers: Headers,
        data: &[u8],
    ) -> std::result::Result<(), Refusal> {
        no_data(data)?;
        if self.headers == headers {
            return Err(refusal(ReplyType::ERR_INVALID, "that was negotiated already"));
        }
        if self.headers > headers {
            let text = "extended headers are negotiated, which include structured replies";
            return Err(refusal(ReplyType::ERR_EXT_HEADER_REQD, text));
        }
        self.headers = headers;
        Ok(())
    }

    fn meta_contexts(
        &mut self,
        code: OptionCode,
        data: &[u8],
        offer: &mut dyn Offer<Export = E>,
        out: &mut Vec<u8>,
    ) -> std::result::Result<(), Refusal> {
        let setting = code == OptionCode::SET_META_CONTEXT;
        if setting {
            // A failed choice leaves none, whatever was chosen before.
            self.contexts = None;
        }
        if self.headers == Headers::Simple {
            let text = "negotiate structured replies or extended headers first";
            return Err(refusal(ReplyType::ERR_INVALID, text));
        }
        let Some(request) = ContextRequest::decode(data) else { return Err(malformed()) };
        let name = name_of(request.name)?;
        offer.find(name).map_err(|error| refusal_of(&error))?;
        let mut chosen = Contexts::NONE;
        let mut unfit = false;
        for context in Context::ALL {
            let asked = if setting {
                request.queries.contains(&context.name().as_bytes())
            } else {
                request.queries.is_empty()
                    || request.queries.iter().any(|query| context.is_listed_by(query))
            };
            if !asked {
                continue;
            }
            if !context.fits(self.headers) {
                unfit = true;
                continue;
            }
            chosen.insert(context);
            // In a list the number means nothing.
            let id = if setting { context.id() } else { 0 };
            let data = wire::meta_context(id, context.name());
            wire::option_reply(out, code, ReplyType::META_CONTEXT, &data);
        }
        if setting {
            if unfit && chosen.is_empty() {
                let text = "that context needs extended headers";
                return Err(refusal(ReplyType::ERR_EXT_HEADER_REQD, text));
            }
            self.contexts = Some((name.to_owned(), chosen));
        }
        Ok(())
    }

    fn export_name(
        &mut self,
        data: &[u8],
        client: ClientFlags,
        offer: &mut dyn Offer<Export = E>,
        out: &mut Vec<u8>,
    ) -> Step<E> {
        let opened = if self.ending {
            Err(refusal(ReplyType::ERR_SHUTDOWN, ENDING))
        } else if self.tls == Tls::Require {
            Err(refusal(ReplyType::ERR_TLS_REQD, "this server wants TLS first"))
        } else if self.headers == Headers::Extended {
            let text = "EXPORT_NAME does not go with extended headers";
            Err(refusal(ReplyType::ERR_INVALID, text))
        } else {
            name_of(data).and_then(|name| self.open(name, offer))
        };
        match opened {
            Ok((_, Opened { export, .. }, terms)) => {
                wire::export_name_reply(out, terms.size, terms.flags, client);
                Step::Serve(export, terms)
            }
            Err((_, text)) => Step::Close(Closing::NoExport(text)),
        }
    }

    fn describe(
        &mut self,
        code: OptionCode,
        data: &[u8],
        offer: &mut dyn Offer<Export = E>,
        out: &mut Vec<u8>,
    ) -> std::result::Result<Option<(E, Terms)>, Refusal> {
        let Some(request) = InfoRequest::decode(data) else { return Err(malformed()) };
        let (name, opened, terms) =
            name_of(request.name).and_then(|name| self.open(name, offer))?;
        // Clients that never heard of block sizes expect at most the old sector.
        if terms.min_block > 512 && !request.wanted.contains(&InfoType::BLOCK_SIZE) {
            let text = "ask for the block sizes first";
            return Err(refusal(ReplyType::ERR_BLOCK_SIZE_REQD, text));
        }
        let mut flags = terms.flags;
        if code == OptionCode::INFO && self.headers == Headers::Extended {
            // Contexts may still be chosen before GO.
            flags = flags.and(TransmissionFlags::BLOCK_STATUS_PAYLOAD);
        }
        let mut info = |data: Vec<u8>| wire::option_reply(out, code, ReplyType::INFO, &data);
        info(wire::info_export(terms.size, flags));
        info(wire::info_block_size(terms.min_block, terms.preferred_block, terms.max_block));
        if request.wanted.contains(&InfoType::NAME) {
            info(wire::info_text(InfoType::NAME, &opened.name));
        }
        if request.wanted.contains(&InfoType::DESCRIPTION) && !opened.description.is_empty() {
            info(wire::info_text(InfoType::DESCRIPTION, &opened.description));
        }
        wire::option_reply(out, code, ReplyType::ACK, &[]);
        if code == OptionCode::GO {
            return Ok(Some((opened.export, terms)));
        }
        self.described = Some((name, opened));
        Ok(None)
    }

    /// Opens an export, or takes what the last INFO opened, under the terms that were negotiated so far.
    fn open(
        &mut self,
        name: &str,
        offer: &mut dyn Offer<Export = E>,
    ) -> std::result::Result<(String, Opened<E>, Terms), Refusal> {
        let opened = match self.described.take() {
            Some((described, opened)) if described == name => opened,
            other => {
                // Its lease ends before another export is opened: they may be the same volume.
                drop(other);
                offer.open(name).map_err(|error| refusal_of(&error))?
            }
        };
        let contexts = match &self.contexts {
            Some((chosen_for, contexts)) if chosen_for == name => *contexts,
            _ => Contexts::NONE,
        };
        // Asked each time: the volume may have been resized between INFO and GO.
        let mut terms = offer.terms(&opened.export).map_err(|error| refusal_of(&error))?;
        terms.negotiated(self.headers, contexts);
        Ok((name.to_owned(), opened, terms))
    }
}

fn list<E>(
    data: &[u8],
    offer: &mut dyn Offer<Export = E>,
    out: &mut Vec<u8>,
) -> std::result::Result<(), Refusal> {
    no_data(data)?;
    for name in offer.list() {
        wire::option_reply(out, OptionCode::LIST, ReplyType::SERVER, &wire::server_entry(&name));
    }
    Ok(())
}

fn no_data(data: &[u8]) -> std::result::Result<(), Refusal> {
    if data.is_empty() {
        return Ok(());
    }
    Err(refusal(ReplyType::ERR_INVALID, "the option takes no data"))
}

fn malformed() -> Refusal {
    refusal(ReplyType::ERR_INVALID, "the option's data is malformed")
}

fn name_of(data: &[u8]) -> std::result::Result<&str, Refusal> {
    if data.len() > MAX_NAME_LEN {
        let text = "the export's name is longer than 4096 bytes";
        return Err(refusal(ReplyType::ERR_TOO_BIG, text));
    }
    std::str::from_utf8(data)
        .map_err(|_| refusal(ReplyType::ERR_INVALID, "the export's name is not UTF-8"))
}

fn refusal_of(error: &Error) -> Refusal {
    let kind = match error.kind() {
        ErrorKind::PERMISSION_DENIED | ErrorKind::UNAUTHENTICATED | ErrorKind::FENCED => {
            ReplyType::ERR_POLICY
        }
        ErrorKind::INVALID_ARGUMENT => ReplyType::ERR_INVALID,
        _ => ReplyType::ERR_UNKNOWN,
    };
    (kind, format!("{error:#}"))
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
