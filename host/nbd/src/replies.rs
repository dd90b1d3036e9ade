// SPDX-License-Identifier: Apache-2.0
//! Answers on their way into the outbox, in the form that the client chose.

use driver_api::IoBuf;

use crate::{
    Errno,
    contexts::Context,
    outbox::Outbox,
    sparse::Run,
    status::Status,
    wire::{ChunkHead, ChunkType, Headers, Request, simple},
};

/// The longest text of an error, in bytes.
const MAX_TEXT: usize = 1024;

/// Writes replies into an outbox.
pub struct Replies {
    headers: Headers,
    /// What waits to be sent.
    pub outbox: Outbox,
}

impl Replies {
    /// Replies to a client with such headers.
    pub fn new(headers: Headers) -> Self {
        Self { headers, outbox: Outbox::default() }
    }

    /// The request is done, and has no data.
    pub fn done(&mut self, request: &Request) {
        match self.headers {
            Headers::Simple => self.outbox.push(&simple(request.cookie, None)),
            _ => self.chunk(request, ChunkType::NONE, true, 0, &[]),
        }
    }

    /// The request failed; `text` tells people why, where the client takes a text.
    pub fn failed(&mut self, request: &Request, error: Errno, text: &str) {
        if self.headers == Headers::Simple {
            return self.outbox.push(&simple(request.cookie, Some(error)));
        }
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        let mut front = [0; 6];
        front[..4].copy_from_slice(&(error as u32).to_be_bytes());
        front[4..].copy_from_slice(&(text.len() as u16).to_be_bytes());
        let len = (front.len() + text.len()) as u64;
        self.chunk(request, ChunkType::ERROR, true, len, &front);
        self.outbox.push(text.as_bytes());
    }

    /// The data of a whole read.
    pub fn data(&mut self, request: &Request, data: IoBuf) {
        match self.headers {
            Headers::Simple => {
                let head = simple(request.cookie, None);
                self.outbox.push_with(&head, data);
            }
            _ => self.data_chunk(request, request.offset, data, true),
        }
    }

    /// The data of a read of which some is known to be zero. `data` begins at `data_offset` and reaches over all
    /// `runs` that are not zero; the runs cover the request.
    pub fn sparse(&mut self, request: &Request, runs: &[Run], data_offset: u64, data: &IoBuf) {
        let mut at = request.offset;
        for (index, run) in runs.iter().enumerate() {
            let last = index + 1 == runs.len();
            let len = run.until - at;
            if run.zero {
                let mut front = [0; 12];
                front[..8].copy_from_slice(&at.to_be_bytes());
                // No read is longer than MAX_PAYLOAD.
                front[8..].copy_from_slice(&(len as u32).to_be_bytes());
                self.chunk(request, ChunkType::OFFSET_HOLE, last, 12, &front);
            } else {
                let part = data.slice((at - data_offset) as usize, len as usize);
                self.data_chunk(request, at, part, last);
            }
            at = run.until;
        }
    }

    /// What the chosen contexts know of the request's range, in order.
    pub fn status(&mut self, request: &Request, known: &[(Context, Vec<Status>)]) {
        for (index, (context, statuses)) in known.iter().enumerate() {
            let last = index + 1 == known.len();
            let mut payload = context.id().to_be_bytes().to_vec();
            let extended = self.headers == Headers::Extended;
            if extended {
                payload.extend_from_slice(&(statuses.len() as u32).to_be_bytes());
            }
            for status in statuses {
                if extended {
                    payload.extend_from_slice(&status.len.to_be_bytes());
                    payload.extend_from_slice(&status.flags.to_be_bytes());
                } else {
                    // The request's own length has 32 bits, and so have the flags of contexts that fit here.
                    payload.extend_from_slice(&(status.len as u32).to_be_bytes());
                    payload.extend_from_slice(&(status.flags as u32).to_be_bytes());
                }
            }
            let kind = if extended { ChunkType::BLOCK_STATUS_EXT } else { ChunkType::BLOCK_STATUS };
            self.chunk(request, kind, last, payload.len() as u64, &[]);
            self.outbox.push(&payload);
        }
    }

    fn data_chunk(&mut self, request: &Request, offset: u64, data: IoBuf, last: bool) {
        let (len, front) = (data.len() as u64 + 8, offset.to_be_bytes());
        let head = ChunkHead::new(self.headers, request, ChunkType::OFFSET_DATA, last, len, &front);
        self.outbox.push_with(head.bytes(), data);
    }

    fn chunk(&mut self, request: &Request, kind: ChunkType, last: bool, len: u64, front: &[u8]) {
        let head = ChunkHead::new(self.headers, request, kind, last, len, front);
        self.outbox.push(head.bytes());
    }
}

#[cfg(test)]
#[path = "replies_tests.rs"]
mod tests;
