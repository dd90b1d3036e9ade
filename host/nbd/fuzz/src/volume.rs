// SPDX-License-Identifier: Apache-2.0
//! A volume in memory behind the protocol, which answers in each of the ways that the server knows.

use driver_api::{
    IoBuf,
    ext::{Extent, ExtentFlags},
};
use nbd_protocol::{
    Errno,
    contexts::Context,
    replies::Replies,
    sparse, status,
    terms::Terms,
    wire::{Command, CommandFlags, Request, StatusPayload},
};

const BLOCK: usize = 4096;

/// The volume, and on which terms it is served.
pub struct Volume {
    pub terms: Terms,
    pub bytes: Vec<u8>,
}

/// What a request gave.
pub enum Outcome {
    Done,
    Failed(Errno),
    Data(Vec<u8>),
    /// What is zero, from the map.
    Sparse(Vec<u8>),
    Status(Vec<(Context, Vec<status::Status>)>),
}

impl Volume {
    /// Does a request that was checked.
    pub fn serve(&mut self, request: &Request, payload: &[u8], sparsely: bool) -> Outcome {
        let bytes = &mut self.bytes;
        // The range of a status with data stands there, and is checked later.
        let range = || request.offset as usize..(request.offset + request.len) as usize;
        match request.command {
            Command::READ => {
                let data = bytes[range()].to_vec();
                if sparsely { Outcome::Sparse(data) } else { Outcome::Data(data) }
            }
            Command::WRITE => {
                bytes[range()].copy_from_slice(payload);
                Outcome::Done
            }
            Command::TRIM | Command::WRITE_ZEROES => {
                bytes[range()].fill(0);
                Outcome::Done
            }
            Command::BLOCK_STATUS => self.status(request, payload),
            Command::FLUSH | Command::CACHE => Outcome::Done,
            _ => panic!("an unknown command passed the check: {request:?}"),
        }
    }

    fn extents(&self, offset: u64, len: u64) -> Vec<Extent> {
        let first = offset as usize / BLOCK;
        let last = (offset + len).div_ceil(BLOCK as u64) as usize;
        (first..last)
            .map(|block| {
                let end = self.bytes.len().min((block + 1) * BLOCK);
                let bytes = &self.bytes[block * BLOCK..end];
                let zero = bytes.iter().all(|byte| *byte == 0);
                let flags = if zero { ExtentFlags::ZERO } else { ExtentFlags::DATA };
                Extent { offset: (block * BLOCK) as u64, len: bytes.len() as u64, flags }
            })
            .collect()
    }

    fn status(&self, request: &Request, payload: &[u8]) -> Outcome {
        let (mut contexts, mut len) = (self.terms.contexts, request.len);
        if request.flags.has(CommandFlags::PAYLOAD_LEN) {
            let Some(choice) = StatusPayload::decode(payload) else {
                return Outcome::Failed(Errno::Inval);
            };
            match contexts.chosen(&choice.ids) {
                Some(chosen) if !chosen.is_empty() => (contexts, len) = (chosen, choice.len),
                _ => return Outcome::Failed(Errno::Inval),
            }
            if let Err(refused) = self.terms.check_range(request, len, self.bytes.len() as u64) {
                return Outcome::Failed(refused.errno);
            }
        }
        let extents = self.extents(request.offset, len);
        let known = contexts.iter().map(|context| {
            let statuses = match context {
                Context::Size => vec![status::Status { len, flags: self.bytes.len() as u64 }],
                Context::Allocation => {
                    let statuses = status::allocation(&extents, request.offset, len);
                    statuses.expect("the extents cover the range")
                }
            };
            assert!(statuses.iter().map(|status| status.len).sum::<u64>() <= len);
            (context, statuses)
        });
        Outcome::Status(known.collect())
    }

    /// Writes the reply.
    pub fn reply(&self, replies: &mut Replies, request: &Request, outcome: Outcome) {
        match outcome {
            Outcome::Done => replies.done(request),
            Outcome::Failed(errno) => replies.failed(request, errno, "why, häufig"),
            Outcome::Data(data) => replies.data(request, IoBuf::copy_from(&data)),
            Outcome::Status(known) => replies.status(request, &known),
            Outcome::Sparse(data) => {
                // The map of what was read, not of what is there by now.
                let then = Self { terms: self.terms, bytes: data };
                let end = request.offset + request.len;
                let moved =
                    |extent: Extent| Extent { offset: extent.offset + request.offset, ..extent };
                let extents: Vec<_> = then.extents(0, request.len).into_iter().map(moved).collect();
                let runs = sparse::runs(&extents, request.offset, end);
                let (from, until) = sparse::to_read(&runs, request.offset)
                    .unwrap_or((request.offset, request.offset));
                let place = |at: u64| (at - request.offset) as usize;
                let data = IoBuf::copy_from(&then.bytes[place(from)..place(until)]);
                replies.sparse(request, &runs, from, &data);
            }
        }
    }
}
