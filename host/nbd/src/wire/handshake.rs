// SPDX-License-Identifier: Apache-2.0
//! The handshake: greeting, options and their answers.

use super::{BadMagic, Fields, TransmissionFlags, codes, flags};

/// First words of the server.
const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Starts the greeting's second half and every option of the client.
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

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
        /// Go on encrypted.
        STARTTLS = 5,
        /// Describe an export.
        INFO = 6,
        /// Choose an export.
        GO = 7,
        /// Replies in chunks from now on.
        STRUCTURED_REPLY = 8,
        /// Name the metadata contexts of an export.
        LIST_META_CONTEXT = 9,
        /// Choose metadata contexts of an export.
        SET_META_CONTEXT = 10,
        /// Requests and replies with 64-bit lengths from now on.
        EXTENDED_HEADERS = 11,
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
        /// One metadata context.
        META_CONTEXT = 4,
        /// The option is not known.
        ERR_UNSUP = (1 << 31) + 1,
        /// The server's rules forbid it.
        ERR_POLICY = (1 << 31) + 2,
        /// The option's data is wrong.
        ERR_INVALID = (1 << 31) + 3,
        /// Not without encryption.
        ERR_TLS_REQD = (1 << 31) + 5,
        /// The export is not there.
        ERR_UNKNOWN = (1 << 31) + 6,
        /// The server ends.
        ERR_SHUTDOWN = (1 << 31) + 7,
        /// The client must ask for the block sizes first.
        ERR_BLOCK_SIZE_REQD = (1 << 31) + 8,
        /// The option's data is too long.
        ERR_TOO_BIG = (1 << 31) + 9,
        /// Not without extended headers.
        ERR_EXT_HEADER_REQD = (1 << 31) + 10,
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
        let name = fields.counted()?;
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

/// The data of [`ReplyType::META_CONTEXT`].
pub fn meta_context(id: u32, name: &str) -> Vec<u8> {
    let mut data = id.to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data
}

/// The data of [`OptionCode::LIST_META_CONTEXT`] and [`OptionCode::SET_META_CONTEXT`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContextRequest<'a> {
    /// The export's name as sent.
    pub name: &'a [u8],
    /// Which contexts the client asks for.
    pub queries: Vec<&'a [u8]>,
}

impl<'a> ContextRequest<'a> {
    /// Reads the data; `None` if it is malformed.
    pub fn decode(data: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let name = fields.counted()?;
        let count = fields.u32()? as usize;
        // Each query has a length at least: what a client claims beyond that is not reserved.
        if count > fields.0.len() / 4 {
            return None;
        }
        let queries = (0..count).map(|_| fields.counted()).collect::<Option<_>>()?;
        fields.0.is_empty().then_some(Self { name, queries })
    }
}
