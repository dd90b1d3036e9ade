// SPDX-License-Identifier: Apache-2.0
//! Requests of the transmission phase, with compact and with extended headers.

use super::{BadMagic, Fields, codes, flags};

const COMPACT_MAGIC: u32 = 0x2560_9513;
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

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
        /// The DF flag is served.
        SEND_DF = 1 << 7,
        /// A flush on one connection covers all.
        CAN_MULTI_CONN = 1 << 8,
        /// `CACHE` is served.
        SEND_CACHE = 1 << 10,
        /// The FAST_ZERO flag is served.
        SEND_FAST_ZERO = 1 << 11,
        /// `BLOCK_STATUS` may choose among the contexts.
        BLOCK_STATUS_PAYLOAD = 1 << 12,
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
        /// Say what the chosen contexts know of a range.
        BLOCK_STATUS = 7,
    }
}
flags! {
    /// How a request is to be done.
    CommandFlags(u16) {
        /// Durable before the reply.
        FUA = 1,
        /// Zeros must be allocated.
        NO_HOLE = 1 << 1,
        /// The data in one chunk.
        DF = 1 << 2,
        /// One extent per context.
        REQ_ONE = 1 << 3,
        /// Fail where zeros would be slow.
        FAST_ZERO = 1 << 4,
        /// The length is that of the data after the head.
        PAYLOAD_LEN = 1 << 5,
    }
}

/// How heads of requests and replies look, as the client chose it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Headers {
    /// Each request has one reply.
    #[default]
    Simple,
    /// A reply may come in chunks.
    Structured,
    /// A reply may come in chunks, and lengths have 64 bits.
    Extended,
}

impl Headers {
    /// Bytes of a request's head.
    pub const fn request_len(self) -> usize {
        match self {
            Self::Simple | Self::Structured => 28,
            Self::Extended => 32,
        }
    }
}

/// The head of a request; [`Request::payload`] bytes of data follow.
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
    /// How many bytes it is about; for a `BLOCK_STATUS` with data they stand there.
    pub len: u64,
    /// Bytes of data that follow the head.
    pub payload: u64,
}

impl Request {
    /// Reads a head; `None` if it is not yet complete.
    pub fn decode(input: &[u8], headers: Headers) -> Option<Result<Self, BadMagic>> {
        let extended = headers == Headers::Extended;
        let mut fields = Fields(input);
        // Before the rest: a client that speaks of shorter heads sends no more, and would wait for an answer for ever.
        if fields.u32()? != if extended { EXTENDED_MAGIC } else { COMPACT_MAGIC } {
            return Some(Err(BadMagic));
        }
        input.get(..headers.request_len())?;
        let (flags, command) = (CommandFlags(fields.u16()?), Command(fields.u16()?));
        let (cookie, offset) = (fields.u64()?, fields.u64()?);
        let len = if extended { fields.u64()? } else { fields.u32()?.into() };
        // Data follows every write, whether or not an extended one says so; nothing follows a good-bye.
        let has_payload = match command {
            Command::WRITE => true,
            Command::DISC => false,
            _ => extended && flags.has(CommandFlags::PAYLOAD_LEN),
        };
        let payload = if has_payload { len } else { 0 };
        Some(Ok(Self { flags, command, cookie, offset, len, payload }))
    }
}

/// The data of a [`Command::BLOCK_STATUS`] that chooses among the contexts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatusPayload {
    /// How many bytes the request is about.
    pub len: u64,
    /// The chosen contexts' numbers.
    pub ids: Vec<u32>,
}

impl StatusPayload {
    /// Bytes that it may have: some more numbers than there are contexts.
    pub const MAX_LEN: u64 = 8 + 4 * 64;

    /// Reads the data; `None` if it is malformed.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let mut fields = Fields(data);
        let len = fields.u64()?;
        let mut ids = Vec::with_capacity(fields.0.len() / 4);
        while let Some(id) = fields.u32() {
            ids.push(id);
        }
        fields.0.is_empty().then_some(Self { len, ids })
    }
}
