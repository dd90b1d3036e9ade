// SPDX-License-Identifier: Apache-2.0
//! Heads of replies: simple ones, and chunks of structured ones.

use super::{Headers, Request, codes};
use crate::Errno;

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

codes! {
    /// What a chunk holds.
    ChunkType(u16) {
        /// Nothing: the end.
        NONE = 0,
        /// Data and its offset.
        OFFSET_DATA = 1,
        /// A run of zeros.
        OFFSET_HOLE = 2,
        /// What a context knows, with 32-bit lengths.
        BLOCK_STATUS = 5,
        /// What a context knows, with 64-bit lengths.
        BLOCK_STATUS_EXT = 6,
        /// The request failed.
        ERROR = (1 << 15) + 1,
    }
}

/// Bytes of the head of a simple reply.
pub const SIMPLE_LEN: usize = 16;

/// The head of a simple reply; the data of a successful read follows.
pub fn simple(cookie: u64, error: Option<Errno>) -> [u8; SIMPLE_LEN] {
    let mut bytes = [0; SIMPLE_LEN];
    bytes[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.map_or(0, |error| error as u32).to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

/// The head of a chunk, with room for the fixed fields at the front of its payload.
#[derive(Clone, Copy, Debug)]
pub struct ChunkHead {
    bytes: [u8; Self::ROOM],
    len: usize,
}

impl ChunkHead {
    const ROOM: usize = 48;

    /// A chunk with `payload` bytes after its head, the `last` one of its reply or not. Its payload begins with
    /// `front`, at most 16 bytes, which are counted in `payload`.
    pub fn new(
        headers: Headers,
        request: &Request,
        kind: ChunkType,
        last: bool,
        payload: u64,
        front: &[u8],
    ) -> Self {
        let mut head = Self { bytes: [0; Self::ROOM], len: 0 };
        let extended = headers == Headers::Extended;
        head.put(&if extended { EXTENDED_MAGIC } else { STRUCTURED_MAGIC }.to_be_bytes());
        head.put(&u16::from(last).to_be_bytes());
        head.put(&kind.0.to_be_bytes());
        head.put(&request.cookie.to_be_bytes());
        if extended {
            head.put(&request.offset.to_be_bytes());
            head.put(&payload.to_be_bytes());
        } else {
            // No reply has more than MAX_PAYLOAD bytes and their offset.
            head.put(&(payload as u32).to_be_bytes());
        }
        head.put(front);
        head
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
