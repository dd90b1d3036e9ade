// SPDX-License-Identifier: Apache-2.0
//! Frames on their way to the socket. What is signed needs no copy of its payload; what is encrypted is copied and then
//! encrypted where it lies, because whoever wrote it keeps it until it is durable.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use smb2::msg::header::Header;

use super::{
    frames::{HEADER, RELATED, SIGNED, write_header},
    mux::Message,
    seal::{ENVELOPE, Seal},
};

/// From this length on, a payload stays where it is.
const APART: usize = 16 << 10;

/// What is to be written to the socket.
#[derive(Default)]
pub(super) struct Outgoing {
    /// The end of it, which was made here.
    made: BytesMut,
    /// What comes before that; none of it is empty.
    parts: VecDeque<Bytes>,
    /// Bytes of these parts.
    before: usize,
}

impl Outgoing {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.before + self.made.len()
    }

    /// Appends messages as one frame, each about the file of the one before it.
    pub fn append(&mut self, messages: Vec<(Message, Header)>, seal: &Seal) -> Result<(), String> {
        let encrypts = seal.encrypts();
        let start = self.made.len();
        self.made.resize(start + 4 + if encrypts { ENVELOPE } else { 0 }, 0);
        let last = messages.len().saturating_sub(1);
        let mut apart = Bytes::new();
        for (index, (message, mut header)) in messages.into_iter().enumerate() {
            let at = self.made.len();
            let len = HEADER + message.body.len() + message.payload.len();
            if index != last {
                header.next_command = len.next_multiple_of(8) as u32;
            }
            let related = if index > 0 { RELATED } else { 0 };
            let signed = if encrypts { 0 } else { SIGNED };
            write_header(&mut self.made, &header, related | signed);
            self.made.extend_from_slice(&message.body);
            if index == last && !encrypts && message.payload.len() >= APART {
                apart = message.payload;
            } else {
                self.made.extend_from_slice(&message.payload);
            }
            if index != last {
                self.made.resize(at + len.next_multiple_of(8), 0);
            }
            if !encrypts {
                let signed = seal.sign(&mut self.made[at..], &apart);
                signed.ok_or("a message cannot be signed")?;
            }
        }
        if encrypts {
            let encrypted = seal.encrypt(&mut self.made[start + 4..]);
            encrypted.ok_or("a message cannot be encrypted")?;
        }
        let length = (self.made.len() - start - 4 + apart.len()) as u32;
        self.made[start..start + 4].copy_from_slice(&length.to_be_bytes());
        if !apart.is_empty() {
            self.push_made();
            self.before += apart.len();
            self.parts.push_back(apart);
        }
        Ok(())
    }

    /// All of it, which is then to be written.
    pub fn all(&mut self) -> &mut impl Buf {
        self.push_made();
        self
    }

    fn push_made(&mut self) {
        if !self.made.is_empty() {
            self.before += self.made.len();
            self.parts.push_back(self.made.split().freeze());
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.before
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.parts);
        filled.map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut().filter(|_| count > 0) {
            let step = count.min(part.len());
            part.advance(step);
            count -= step;
            self.before -= step;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
    }
}
