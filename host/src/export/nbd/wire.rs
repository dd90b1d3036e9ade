// SPDX-License-Identifier: Apache-2.0
//! The NBD protocol's types and their bytes. No I/O, no state: everything here can be fuzzed.
//!
//! Numbers are big-endian. Names follow the protocol document (NetworkBlockDevice/nbd, `doc/proto.md`).

use crate::errors::NbdErrno;

/// First words of the server.
const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Starts the greeting's second half and every option of the client.
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// A word that had to be a magic number is not. The stream cannot be followed any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMagic;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$code_doc:meta])* $code:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$code_doc])* pub const $code: Self = Self($value);)*
        }
    };
}

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident($int:ty) { $($(#[$code_doc:meta])* $code:ident = $value:expr,)* }) => {
        codes! { $(#[$doc])* $name($int) { $($(#[$code_doc])* $code = $value,)* } }

        impl $name {
            /// No flag.
            pub const NONE: Self = Self(0);

            /// Whether all of `other` is set.
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both together.
            pub const fn and(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether nothing but flags of `allowed` is set.
            pub const fn within(self, allowed: Self) -> bool {
                self.0 & !allowed.0 == 0
            }
        }
    };
}

flags! {
    /// What the server says first of itself.
    HandshakeFlags(u16) {
        /// Options are answered, and unknown ones refused without ending the connection.
        FIXED_NEWSTYLE = 1,
        /// The zeros after an export's data may be left out.
        NO_ZEROES = 2,
    }
}
flags! {
    /// What the client answers to [`HandshakeFlags`].
    ClientFlags(u32) {
        /// The client knows fixed newstyle.
        FIXED_NEWSTYLE = 1,
        /// The client does without the zeros.
        NO_ZEROES = 2,
    }
}
codes! {
    /// What a client asks for in the negotiation.
    OptionCode(u32) {
        /// Choose an export; no refusal is possible but closing.
        EXPORT_NAME = 1,
        /// End.
        ABORT = 2,
        /// Name the exports.
        LIST = 3,
        /// Describe an export.
        INFO = 6,
        /// Choose an export.
        GO = 7,
    }
}
codes! {
    /// The kind of an answer to an option.
    ReplyType(u32) {
        /// Done.
        ACK = 1,
        /// One export of a list.
        SERVER = 2,
        /// One fact about an export.
        INFO = 3,
        /// The option is not known.
        ERR_UNSUP = (1 << 31) + 1,
        /// The server's rules forbid it.
        ERR_POLICY = (1 << 31) + 2,
        /// The option's data is wrong.
        ERR_INVALID = (1 << 31) + 3,
        /// The export is not there.
        ERR_UNKNOWN = (1 << 31) + 6,
        /// The server ends.
        ERR_SHUTDOWN = (1 << 31) + 7,
        /// The client must ask for the block sizes first.
        ERR_BLOCK_SIZE_REQD = (1 << 31) + 8,
        /// The option's data is too long.
        ERR_TOO_BIG = (1 << 31) + 9,
    }
}
codes! {
    /// A fact about an export.
    InfoType(u16) {
        /// Size and transmission flags.
        EXPORT = 0,
        /// Its name.
        NAME = 1,
        /// A text for people.
        DESCRIPTION = 2,
        /// Smallest, preferred and largest block.
        BLOCK_SIZE = 3,
    }
}
flags! {
    /// What an export can do.
    TransmissionFlags(u16) {
        /// Set in every answer.
        HAS_FLAGS = 1,
        /// Writes are refused.
        READ_ONLY = 1 << 1,
        /// `FLUSH` is served.
        SEND_FLUSH = 1 << 2,
        /// The FUA flag is served.
        SEND_FUA = 1 << 3,
        /// `TRIM` is served.
        SEND_TRIM = 1 << 5,
        /// `WRITE_ZEROES` is served.
        SEND_WRITE_ZEROES = 1 << 6,
        /// A flush on one connection covers all.
        CAN_MULTI_CONN = 1 << 8,
        /// `CACHE` is served.
        SEND_CACHE = 1 << 10,
        /// The FAST_ZERO flag is served.
        SEND_FAST_ZERO = 1 << 11,
    }
}
codes! {
    /// What a request asks for.
    Command(u16) {
        /// Data, please.
        READ = 0,
        /// Data follows.
        WRITE = 1,
        /// The client leaves.
        DISC = 2,
        /// Make acknowledged writes durable.
        FLUSH = 3,
        /// Free a range.
        TRIM = 4,
        /// Have a range at hand soon.
        CACHE = 5,
        /// Write zeros.
        WRITE_ZEROES = 6,
    }
}
flags! {
    /// How a request is to be done.
    CommandFlags(u16) {
        /// Durable before the reply.
        FUA = 1,
        /// Zeros must be allocated.
        NO_HOLE = 1 << 1,
        /// Fail where zeros would be slow.
        FAST_ZERO = 1 << 4,
    }
}

/// Bytes of the greeting.
pub const GREETING_LEN: usize = 18;

/// What a server sends first.
pub fn greeting(flags: HandshakeFlags) -> [u8; GREETING_LEN] {
    let mut bytes = [0; GREETING_LEN];
    bytes[..8].copy_from_slice(&GREETING_MAGIC.to_be_bytes());
    bytes[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    bytes[16..].copy_from_slice(&flags.0.to_be_bytes());
    bytes
}

/// Bytes of the client's answer to the greeting.
pub const CLIENT_FLAGS_LEN: usize = 4;

impl ClientFlags {
    /// Reads the client's answer to the greeting; `None` if it is not yet complete.
    pub fn decode(input: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(*input.first_chunk()?)))
    }
}

/// The head of an option; `len` bytes of data follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// What is asked.
    pub code: OptionCode,
    /// Bytes of data after the head.
    pub len: u32,
}

impl OptionHeader {
    /// Bytes of the head.
    pub const LEN: usize = 16;

    /// Reads a head; `None` if it is not yet complete.
    pub fn decode(input: &[u8]) -> Option<Result<Self, BadMagic>> {
        let mut fields = Fields(input.get(..Self::LEN)?);
        if fields.u64()? != OPTION_MAGIC {
            return Some(Err(BadMagic));
        }
        Some(Ok(Self { code: OptionCode(fields.u32()?), len: fields.u32()? }))
    }
}

/// Appends an answer to an option.
pub fn option_reply(out: &mut Vec<u8>, option: OptionCode, kind: ReplyType, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.0.to_be_bytes());
    out.extend_from_slice(&kind.0.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// The data of [`ReplyType::SERVER`].
pub fn server_entry(name: &str) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data
}

/// The data of [`ReplyType::INFO`] about size and flags.
pub fn info_export(size: u64, flags: TransmissionFlags) -> Vec<u8> {
    let mut data = InfoType::EXPORT.0.to_be_bytes().to_vec();
    data.extend_from_slice(&size.to_be_bytes());
    data.extend_from_slice(&flags.0.to_be_bytes());
    data
}

/// The data of [`ReplyType::INFO`] about block sizes.
pub fn info_block_size(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
    let mut data = InfoType::BLOCK_SIZE.0.to_be_bytes().to_vec();
    for size in [minimum, preferred, maximum] {
        data.extend_from_slice(&size.to_be_bytes());
    }
    data
}

/// The data of [`ReplyType::INFO`] that is a text.
pub fn info_text(kind: InfoType, text: &str) -> Vec<u8> {
    let mut data = kind.0.to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    data
}

/// The answer to [`OptionCode::EXPORT_NAME`], with the zeros that old clients wait for.
pub fn export_name_reply(
    out: &mut Vec<u8>,
    size: u64,
    flags: TransmissionFlags,
    client: ClientFlags,
) {
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&flags.0.to_be_bytes());
    if !client.has(ClientFlags::NO_ZEROES) {
        out.extend_from_slice(&[0; 124]);
    }
}

/// The data of [`OptionCode::INFO`] and [`OptionCode::GO`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoRequest<'a> {
    /// The export's name as sent.
    pub name: &'a [u8],
    /// The facts that the client wants besides size and flags.
    pub wanted: Vec<InfoType>,
}

impl<'a> InfoRequest<'a> {
    /// Reads the data; `None` if it is malformed.
    pub fn decode(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name_len = fields.u32()? as usize;
        let name = fields.take(name_len)?;
        let count = fields.u16()?;
        if fields.0.len() != usize::from(count) * 2 {
            return None;
        }
        let mut wanted = Vec::with_capacity(usize::from(count));
        while let Some(kind) = fields.u16() {
            wanted.push(InfoType(kind));
        }
        Some(Self { name, wanted })
    }
}

/// The head of a request; [`Request::payload_len`] bytes of data follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// How it is to be done.
    pub flags: CommandFlags,
    /// What is asked.
    pub command: Command,
    /// The client's name for it, repeated in the reply.
    pub cookie: u64,
    /// Where it starts, in bytes.
    pub offset: u64,
    /// How many bytes it is about.
    pub len: u32,
}

impl Request {
    /// Bytes of the head.
    pub const LEN: usize = 28;

    /// Reads a head; `None` if it is not yet complete.
    pub fn decode(input: &[u8]) -> Option<Result<Self, BadMagic>> {
        let mut fields = Fields(input.get(..Self::LEN)?);
        if fields.u32()? != REQUEST_MAGIC {
            return Some(Err(BadMagic));
        }
        Some(Ok(Self {
            flags: CommandFlags(fields.u16()?),
            command: Command(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        }))
    }

    /// Bytes of data that follow the head.
    pub fn payload_len(&self) -> usize {
        if self.command == Command::WRITE { self.len as usize } else { 0 }
    }
}

/// Bytes of the head of a simple reply.
pub const SIMPLE_REPLY_LEN: usize = 16;

/// The head of a reply; the data of a successful read follows.
pub fn simple_reply(cookie: u64, error: Option<NbdErrno>) -> [u8; SIMPLE_REPLY_LEN] {
    let mut bytes = [0; SIMPLE_REPLY_LEN];
    bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, |error| error as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// Takes numbers off the front of some bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
