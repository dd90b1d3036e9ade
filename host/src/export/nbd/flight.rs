// SPDX-License-Identifier: Apache-2.0
//! Operations in flight: each starts inline; one that is not ready gets a slot, and is polled when its slot is woken.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use driver_api::{Error, ErrorKind, IoBuf, OpContext, Result};

use super::{
    pool::allocate,
    terms::Terms,
    wakes::Wakes,
    wire::{Command, Request},
};
use crate::plugins::{Guarded, GuardedVolume, Started};

/// What an operation gave: data for a read, otherwise an empty buffer.
pub type Outcome = Result<IoBuf>;

/// Without deadline and request id: a client's requests are not repeated, and end when the driver ends them.
const CONTEXT: OpContext = OpContext::new().with_allocator(allocate);

/// The operations of one connection that wait for the driver.
pub struct Flight {
    volume: GuardedVolume,
    terms: Terms,
    wakes: Arc<Wakes>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    bytes: usize,
}

struct Slot {
    waker: Waker,
    operation: Option<(Request, Running)>,
}

enum Running {
    Read(Guarded<IoBuf>),
    /// A change of the volume, which must be polled to its end.
    Change(Guarded<()>),
    /// The same, with a flush to follow before the reply.
    ThenFlush(Guarded<()>),
}

impl Flight {
    /// Nothing in flight. `wakes` has a bit for every slot that will be used.
    pub fn new(volume: GuardedVolume, terms: Terms, wakes: Arc<Wakes>) -> Self {
        Self { volume, terms, wakes, slots: Vec::new(), free: Vec::new(), bytes: 0 }
    }

    /// Operations in flight.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of data that belong to the operations in flight.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request may go to the volume as it is now.
    pub fn check(&self, request: &Request) -> std::result::Result<(), crate::errors::NbdErrno> {
        match self.volume.size() {
            Ok(size) => self.terms.check(request, size),
            Err(error) => Err(crate::errors::nbd_errno(error.kind())),
        }
    }

    /// Starts a checked request. `None`: it is in flight now.
    pub fn start(&mut self, request: Request, data: IoBuf) -> Option<Outcome> {
        let cx = CONTEXT;
        let volume = &self.volume;
        let (flags, then_flush) = self.terms.write_flags(request.flags);
        let started = match request.command {
            Command::READ => match volume.read(&cx, request.offset, request.len) {
                Started::Ready(result) => return Some(whole(&request, result)),
                Started::Pending(future) => return self.keep(request, Running::Read(future)),
            },
            // A reader has nothing to make durable, and its volume may not know how.
            Command::FLUSH if self.terms.read_only() => return Some(Ok(IoBuf::empty())),
            Command::FLUSH => return self.flush(request),
            Command::WRITE => volume.write(&cx, request.offset, data, flags),
            Command::CACHE => volume.prefetch(&cx, request.offset, request.len.into()),
            Command::TRIM => volume.discard(&cx, request.offset, request.len.into()),
            Command::WRITE_ZEROES => {
                volume.write_zeroes(&cx, request.offset, request.len.into(), flags)
            }
            Command(number) => {
                let text = format!("command {number} passed the check unknown");
                return Some(Err(Error::new(ErrorKind::INTERNAL, text)));
            }
        };
        // A discard has no FUA of its own, so that it always needs the flush.
        let fua = request.flags.has(super::wire::CommandFlags::FUA);
        let then_flush = then_flush || (fua && request.command == Command::TRIM);
        match started {
            Started::Ready(Ok(())) if then_flush => self.flush(request),
            Started::Ready(result) => Some(result.map(|()| IoBuf::empty())),
            Started::Pending(future) if then_flush => {
                self.keep(request, Running::ThenFlush(future))
            }
            Started::Pending(future) => self.keep(request, Running::Change(future)),
        }
    }

    fn flush(&mut self, request: Request) -> Option<Outcome> {
        match self.volume.flush(&CONTEXT) {
            Started::Ready(result) => Some(result.map(|()| IoBuf::empty())),
            Started::Pending(future) => self.keep(request, Running::Change(future)),
        }
    }

    fn keep(&mut self, request: Request, running: Running) -> Option<Outcome> {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            self.slots.push(Slot { waker: self.wakes.waker(index), operation: None });
            index
        });
        self.bytes += data_len(&request);
        self.slots[index].operation = Some((request, running));
        // A future wakes nobody before its first poll.
        self.poll_slot(index).map(|(_, outcome)| outcome)
    }

    /// Polls every operation that was woken, once.
    pub fn poll_woken(&mut self, mut finished: impl FnMut(Request, Outcome)) {
        let wakes = Arc::clone(&self.wakes);
        wakes.take(|index| {
            if let Some((request, outcome)) = self.poll_slot(index) {
                finished(request, outcome);
            }
        });
    }

    fn poll_slot(&mut self, index: usize) -> Option<(Request, Outcome)> {
        // A late waker of an earlier operation may name a slot that is free again.
        let slot = self.slots.get_mut(index)?;
        let (request, running) = slot.operation.as_mut()?;
        let request = *request;
        let mut cx = Context::from_waker(&slot.waker);
        let outcome = loop {
            match running {
                Running::Read(future) => match Pin::new(future).poll(&mut cx) {
                    Poll::Pending => return None,
                    Poll::Ready(result) => break whole(&request, result),
                },
                Running::Change(future) => match Pin::new(future).poll(&mut cx) {
                    Poll::Pending => return None,
                    Poll::Ready(result) => break result.map(|()| IoBuf::empty()),
                },
                Running::ThenFlush(future) => match Pin::new(future).poll(&mut cx) {
                    Poll::Pending => return None,
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Ready(Ok(())) => match self.volume.flush(&CONTEXT) {
                        Started::Ready(result) => break result.map(|()| IoBuf::empty()),
                        Started::Pending(future) => *running = Running::Change(future),
                    },
                },
            }
        };
        self.release(index, &request);
        Some((request, outcome))
    }

    /// Drops the reads in flight: nobody waits for them. Changes of the volume stay.
    pub fn drop_reads(&mut self) {
        for index in 0..self.slots.len() {
            if let Some((request, Running::Read(_))) = &self.slots[index].operation {
                let request = *request;
                self.release(index, &request);
            }
        }
    }

    fn release(&mut self, index: usize, request: &Request) {
        self.slots[index].operation = None;
        self.free.push(index);
        self.bytes -= data_len(request);
    }
}

/// Bytes of data that a request moves, in either direction.
pub fn data_len(request: &Request) -> usize {
    match request.command {
        Command::READ | Command::WRITE => request.len as usize,
        _ => 0,
    }
}

/// A read of another length than asked for would shift everything after it.
fn whole(request: &Request, result: Result<IoBuf>) -> Outcome {
    let data = result?;
    if data.len() == request.len as usize {
        return Ok(data);
    }
    Err(Error::new(ErrorKind::INTERNAL, "the driver's read has another length than asked for")
        .with("asked", request.len)
        .with("got", data.len())
        .remedy("report this to the driver's author"))
}
