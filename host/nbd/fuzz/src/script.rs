// SPDX-License-Identifier: Apache-2.0
//! A client's bytes, and in what pieces they arrive.

use arbitrary::{Result, Unstructured};

/// The most bytes that one input says: what comes after them says nothing new.
const LONGEST: usize = 1 << 20;

/// Bytes on their way, in pieces that the fuzzer chooses.
pub struct Stream {
    bytes: Vec<u8>,
    at: usize,
    pieces: Vec<u16>,
    next: usize,
}

impl Stream {
    /// These bytes. `pieces` is repeated; a piece of length zero is all that is left.
    pub fn new(mut bytes: Vec<u8>, pieces: Vec<u16>) -> Self {
        bytes.truncate(LONGEST);
        Self { bytes, at: 0, pieces, next: 0 }
    }

    /// The next piece, no longer than `room`; empty at the end.
    pub fn receive(&mut self, room: usize) -> &[u8] {
        let wish = match self.pieces.get(self.next % self.pieces.len().max(1)) {
            None | Some(0) => usize::MAX,
            Some(piece) => usize::from(*piece),
        };
        self.next += 1;
        let rest = &self.bytes[self.at..];
        let len = wish.min(room).min(rest.len());
        self.at += len;
        &rest[..len]
    }
}

/// A few lengths of pieces.
pub fn pieces(input: &mut Unstructured<'_>) -> Result<Vec<u16>> {
    (0..input.int_in_range(0..=3)?).map(|_| input.arbitrary()).collect()
}
