// SPDX-License-Identifier: Apache-2.0
//! Replies on their way out: heads and small data lie side by side in one buffer, large data stays where the driver
//! put it.

use std::{collections::VecDeque, io::IoSlice};

use driver_api::IoBuf;

/// From this length on data is sent from the driver's buffer; below it a copy is cheaper than a further slice. A block of
/// 4 KiB is worth one: it may have left the cache since it was written, and a copy would fetch it for nothing.
const BY_REFERENCE: usize = 4 << 10;
/// Slices handed to the kernel at once: two for each block of 4 KiB in 256 KiB.
pub const MAX_SLICES: usize = 128;
/// Sent bytes at the front of the buffer are dropped once there are this many.
const COMPACT_AT: usize = 1 << 20;

/// Replies not yet sent.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    /// Bytes of `bytes` that are sent.
    sent: usize,
    chunks: VecDeque<Chunk>,
    len: usize,
}

enum Chunk {
    /// The next so many of the shared bytes.
    Bytes(usize),
    Buffer(IoBuf),
}

impl Outbox {
    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is sent.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a head.
    pub fn push(&mut self, head: &[u8]) {
        self.bytes.extend_from_slice(head);
        self.len += head.len();
        match self.chunks.back_mut() {
            Some(Chunk::Bytes(len)) => *len += head.len(),
            _ => self.chunks.push_back(Chunk::Bytes(head.len())),
        }
    }

    /// Appends a head with its data.
    pub fn push_with(&mut self, head: &[u8], data: IoBuf) {
        self.push(head);
        if data.len() < BY_REFERENCE {
            self.push(&data);
        } else {
            self.len += data.len();
            self.chunks.push_back(Chunk::Buffer(data));
        }
    }

    /// The next bytes to send, in order; empty slices stand at the end.
    pub fn slices(&self) -> ([IoSlice<'_>; MAX_SLICES], usize) {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut rest = &self.bytes[self.sent..];
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = match chunk {
                Chunk::Bytes(len) => {
                    let (front, back) = rest.split_at(*len);
                    rest = back;
                    IoSlice::new(front)
                }
                Chunk::Buffer(buffer) => IoSlice::new(buffer),
            };
            count += 1;
        }
        (slices, count)
    }

    /// Takes note that `count` bytes were sent.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while left > 0 {
            match self.chunks.front_mut() {
                Some(Chunk::Bytes(len)) => {
                    let part = left.min(*len);
                    *len -= part;
                    self.sent += part;
                    left -= part;
                    if *len == 0 {
                        self.chunks.pop_front();
                    }
                }
                Some(Chunk::Buffer(buffer)) => {
                    let part = left.min(buffer.len());
                    left -= part;
                    if part == buffer.len() {
                        self.chunks.pop_front();
                    } else {
                        *buffer = buffer.slice(part, buffer.len() - part);
                    }
                }
                None => break,
            }
        }
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        } else if self.sent >= COMPACT_AT {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Forgets everything: nobody will read it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
