// SPDX-License-Identifier: Apache-2.0
//! Framing that every stored record shares: magic, version, features, length, checksum; little endian.
//!
//! ```text
//! 0      8      10     12          16            20      24         28
//! | magic | vers | 0    | compatible | incompatible | length | CRC-32C | body ...
//! ```
//! The checksum covers the frame up to itself, and the body.

use std::fmt;

const HEADER: usize = 28;
const CHECKSUM_AT: usize = 24;

/// Why stored bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// Nothing was ever written here.
    Empty,
    /// Something else was written here.
    Foreign,
    /// Torn or damaged.
    Checksum,
    /// Written by a newer version, with features that this one does not have.
    TooNew,
    /// The checksum holds but the content makes no sense.
    Malformed,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "nothing was written",
            Self::Foreign => "not a record of this kind",
            Self::Checksum => "torn or damaged",
            Self::TooNew => "written by a newer version with features that this one lacks",
            Self::Malformed => "its content contradicts itself",
        })
    }
}

impl std::error::Error for DecodeError {}

/// Features that this version writes; a reader without them may go on.
const COMPATIBLE: u32 = 0;
/// Features that a reader must know.
const KNOWN_INCOMPATIBLE: u32 = MOVES | SNAPSHOTS | FOLLOWERS | DIGESTS | SPLIT;
/// A volume whose shards moved, or whose slots were vacated: its descriptor says more.
pub(crate) const MOVES: u32 = 1;
/// A volume that has, or had, snapshots.
pub(crate) const SNAPSHOTS: u32 = 2;
/// A volume in asynchronous mode, or a brick that follows.
pub(crate) const FOLLOWERS: u32 = 4;
/// A volume with stored digests, which a writer must call void.
pub(crate) const DIGESTS: u32 = 8;
/// A volume whose shards got another size than that of its creation.
pub(crate) const SPLIT: u32 = 16;
const VERSION: u16 = 1;

/// Collects a record's body.
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(magic: [u8; 8]) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend(magic);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(COMPATIBLE.to_le_bytes());
        bytes.extend([0; HEADER - 16]);
        Self { bytes }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Refuses readers that do not know a feature.
    pub(crate) fn need(&mut self, feature: u32) {
        self.bytes[16] |= feature as u8;
    }

    /// A length that the callers keep below 2^32.
    pub(crate) fn len(&mut self, len: usize) {
        self.u32(len as u32);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.len(text.len());
        self.bytes.extend(text.as_bytes());
    }

    /// Fills in length and checksum.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let body = (self.bytes.len() - HEADER) as u32;
        self.bytes[20..24].copy_from_slice(&body.to_le_bytes());
        let checksum = checksum(&self.bytes);
        self.bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM_AT]), &bytes[HEADER..])
}

/// Walks through a record's body.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    features: u32,
}

impl<'a> Reader<'a> {
    /// Checks the frame; bytes after the record are ignored.
    pub(crate) fn new(magic: [u8; 8], bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.iter().take(magic.len()).all(|byte| *byte == 0) {
            return Err(DecodeError::Empty);
        }
        let header = bytes.get(..HEADER).ok_or(DecodeError::Checksum)?;
        if header[..8] != magic {
            return Err(DecodeError::Foreign);
        }
        let mut fields = Self { rest: &header[12..], features: 0 };
        let (_compatible, incompatible) = (fields.u32()?, fields.u32()?);
        let (body, stored) = (fields.len()?, fields.u32()?);
        let end = HEADER.checked_add(body).ok_or(DecodeError::Checksum)?;
        let record = bytes.get(..end).ok_or(DecodeError::Checksum)?;
        if checksum(record) != stored {
            return Err(DecodeError::Checksum);
        }
        if incompatible & !KNOWN_INCOMPATIBLE != 0 {
            return Err(DecodeError::TooNew);
        }
        Ok(Self { rest: &record[HEADER..], features: incompatible })
    }

    /// Whether the writer used a feature.
    pub(crate) fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// Bytes as they are.
    pub(crate) fn raw<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take()
    }

    /// A length in bytes.
    pub(crate) fn len(&mut self) -> Result<usize, DecodeError> {
        Ok(self.u32()? as usize)
    }

    /// A number of items of at least `item` bytes each; refused if the rest cannot hold them.
    pub(crate) fn count(&mut self, item: usize) -> Result<usize, DecodeError> {
        let count = self.len()?;
        let fits = count.checked_mul(item).is_some_and(|bytes| bytes <= self.rest.len());
        if fits { Ok(count) } else { Err(DecodeError::Malformed) }
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let len = self.len()?;
        let (text, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).map_err(|_| DecodeError::Malformed)
    }

    /// A list of `u32`, as many as a count in front says.
    pub(crate) fn numbers(&mut self) -> Result<Vec<u32>, DecodeError> {
        (0..self.count(4)?).map(|_| self.u32()).collect()
    }
}
