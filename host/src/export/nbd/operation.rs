// SPDX-License-Identifier: Apache-2.0
//! What a request asks of the volume, and how its parts follow each other: a flush behind a write with FUA, a map
//! before a large read, a map for each context that wants one.

use std::{
    pin::Pin,
    task::{Context as Task, Poll},
};

use driver_api::{Error, ErrorKind, IoBuf, OpContext, RVec, Result, ext::Extent};
use nbd_protocol::{
    contexts::{Context, Contexts},
    pool::allocate,
    sparse::{self, Run},
    status::{self, Status},
    terms::{Refused, Terms},
    wire::{Command, CommandFlags, Headers, Request, StatusPayload},
};

use crate::plugins::{Guarded, GuardedVolume, Started};

/// What an operation gave.
pub type Outcome = Result<Answer>;

/// What a client is answered.
pub enum Answer {
    /// It is done.
    Done,
    /// The data of a read.
    Data(IoBuf),
    /// The data of a read of which some is zero.
    Sparse(Box<Sparse>),
    /// What contexts know of a range.
    Status(Vec<(Context, Vec<Status>)>),
}

/// A read that leaves out zeros.
pub struct Sparse {
    /// The whole read.
    pub runs: Vec<Run>,
    /// Where the data begins, in bytes.
    pub offset: u64,
    /// From the first run that is not zero to the last.
    pub data: IoBuf,
}

/// An operation that waits for the driver.
pub enum Running {
    Read(Guarded<IoBuf>),
    /// Where the holes of a read are.
    Map(Guarded<RVec<Extent>>),
    SparseRead(Guarded<IoBuf>, Box<Sparse>),
    /// A change of the volume, which must be polled to its end.
    Change(Guarded<()>),
    /// The same, with a flush to follow before the reply.
    ThenFlush(Guarded<()>),
    Status(Guarded<RVec<Extent>>, Asked),
}

/// What a `BLOCK_STATUS` is about.
#[derive(Clone, Copy)]
pub struct Asked {
    contexts: Contexts,
    len: u64,
}

/// How far an operation is after a step.
pub enum Begun {
    Done(Outcome),
    Waits(Running),
}

impl Begun {
    fn of<T>(
        started: Started<T>,
        wait: impl FnOnce(Guarded<T>) -> Running,
        then: impl FnOnce(Result<T>) -> Self,
    ) -> Self {
        match started {
            Started::Ready(result) => then(result),
            Started::Pending(future) => Self::Waits(wait(future)),
        }
    }

    fn failed(kind: ErrorKind, text: &str) -> Self {
        Self::Done(Err(Error::new(kind, text)))
    }
}

/// Without deadline and request id: a client's requests are not repeated, and end when the driver ends them.
const CONTEXT: OpContext = OpContext::new().with_allocator(allocate);
/// Reads from this length on ask for holes first: shorter ones cost less than the question.
const MAPPED_FROM: u64 = 128 << 10;
/// Extents asked for at once.
pub const EXTENTS: u32 = 1024;
/// After so many maps without zeros, only one read in [`RARELY`] asks for holes.
const FRUITLESS: u32 = 8;
const RARELY: u32 = 32;

/// Starts one connection's operations.
pub struct Operations {
    volume: GuardedVolume,
    terms: Terms,
    /// Large reads since zeros were last found.
    fruitless: u32,
}

impl Operations {
    /// Operations on `volume`.
    pub fn new(volume: GuardedVolume, terms: Terms) -> Self {
        Self { volume, terms, fruitless: 0 }
    }

    /// Whether a request may go to the volume as it is now.
    pub fn check(&self, request: &Request) -> std::result::Result<(), Refused> {
        match self.volume.size() {
            Ok(size) => self.terms.check(request, size),
            Err(error) => Err(Refused {
                errno: crate::errors::nbd_errno(error.kind()),
                why: "the driver does not tell the volume's size",
            }),
        }
    }

    /// Starts a checked request.
    pub fn begin(&mut self, request: &Request, data: IoBuf) -> Begun {
        let cx = CONTEXT;
        let volume = &self.volume;
        let (offset, len) = (request.offset, request.len);
        let (flags, then_flush) = self.terms.write_flags(request.flags);
        let started = match request.command {
            Command::READ => return self.read(request),
            Command::BLOCK_STATUS => return self.block_status(request, &data),
            // A reader has nothing to make durable, and its volume may not know how.
            Command::FLUSH if self.terms.read_only() => return Begun::Done(Ok(Answer::Done)),
            Command::FLUSH => return self.flush(),
            Command::WRITE => volume.write(&cx, offset, data, flags),
            Command::CACHE => volume.prefetch(&cx, offset, len),
            Command::TRIM => volume.discard(&cx, offset, len),
            Command::WRITE_ZEROES => volume.write_zeroes(&cx, offset, len, flags),
            Command(number) => {
                let text = format!("command {number} passed the check unknown");
                return Begun::failed(ErrorKind::INTERNAL, &text);
            }
        };
        // A discard has no FUA of its own, so that it always needs the flush.
        let fua = request.flags.has(CommandFlags::FUA);
        if then_flush || (fua && request.command == Command::TRIM) {
            Begun::of(started, Running::ThenFlush, |result| self.then_flush(result))
        } else {
            Begun::of(started, Running::Change, done)
        }
    }

    /// Polls an operation, through all of its parts that need no waiting.
    pub fn poll(
        &mut self,
        request: &Request,
        running: &mut Running,
        task: &mut Task<'_>,
    ) -> Poll<Outcome> {
        loop {
            let begun = match running {
                Running::Read(future) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => data(request.len, result),
                },
                Running::Map(future) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(extents) => self.mapped(request, extents),
                },
                Running::SparseRead(future, sparse) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => {
                        let sparse = Box::new(Sparse {
                            runs: std::mem::take(&mut sparse.runs),
                            offset: sparse.offset,
                            data: IoBuf::empty(),
                        });
                        sparse_data(sparse, result)
                    }
                },
                Running::Change(future) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => done(result),
                },
                Running::ThenFlush(future) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => self.then_flush(result),
                },
                Running::Status(future, asked) => match Pin::new(future).poll(task) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(extents) => self.told(request, *asked, extents),
                },
            };
            match begun {
                Begun::Done(outcome) => return Poll::Ready(outcome),
                Begun::Waits(next) => *running = next,
            }
        }
    }

    fn flush(&self) -> Begun {
        Begun::of(self.volume.flush(&CONTEXT), Running::Change, done)
    }

    fn then_flush(&self, changed: Result<()>) -> Begun {
        match changed {
            Ok(()) => self.flush(),
            Err(error) => Begun::Done(Err(error)),
        }
    }

    fn read(&mut self, request: &Request) -> Begun {
        if self.asks_for_holes(request) {
            let extents = self.volume.extents(&CONTEXT, request.offset, request.len, EXTENTS);
            return match extents {
                Started::Ready(extents) => self.mapped(request, extents),
                Started::Pending(future) => Begun::Waits(Running::Map(future)),
            };
        }
        self.read_all(request)
    }

    fn read_all(&self, request: &Request) -> Begun {
        // The check has kept it within the largest block.
        let started = self.volume.read(&CONTEXT, request.offset, request.len as u32);
        Begun::of(started, Running::Read, |result| data(request.len, result))
    }

    fn asks_for_holes(&mut self, request: &Request) -> bool {
        if !self.terms.maps
            || self.terms.headers == Headers::Simple
            || request.len < MAPPED_FROM
            || request.flags.has(CommandFlags::DF)
        {
            return false;
        }
        self.fruitless = self.fruitless.saturating_add(1);
        self.fruitless <= FRUITLESS || self.fruitless.is_multiple_of(RARELY)
    }

    /// Goes on with a read once it is known where its holes are. Without a map the read is as good, if slower.
    fn mapped(&mut self, request: &Request, extents: Result<RVec<Extent>>) -> Begun {
        let extents = match extents {
            Ok(extents) => extents,
            Err(error) => {
                tracing::debug!(%error, "a read is not sparse: the volume does not tell its holes");
                return self.read_all(request);
            }
        };
        let (start, end) = (request.offset, request.offset + request.len);
        let runs = sparse::runs(&extents, start, end);
        if runs.iter().all(|run| !run.zero) {
            return self.read_all(request);
        }
        self.fruitless = 0;
        let Some((from, until)) = sparse::to_read(&runs, start) else {
            let sparse = Sparse { runs, offset: start, data: IoBuf::empty() };
            return Begun::Done(Ok(Answer::Sparse(Box::new(sparse))));
        };
        let sparse = Box::new(Sparse { runs, offset: from, data: IoBuf::empty() });
        match self.volume.read(&CONTEXT, from, (until - from) as u32) {
            Started::Ready(result) => sparse_data(sparse, result),
            Started::Pending(future) => Begun::Waits(Running::SparseRead(future, sparse)),
        }
    }

    fn block_status(&mut self, request: &Request, payload: &[u8]) -> Begun {
        let mut asked = Asked { contexts: self.terms.contexts, len: request.len };
        if request.flags.has(CommandFlags::PAYLOAD_LEN) {
            let Some(payload) = StatusPayload::decode(payload) else {
                return Begun::failed(ErrorKind::INVALID_ARGUMENT, "the choice is malformed");
            };
            let Some(contexts) = self.terms.contexts.chosen(&payload.ids) else {
                let text = "a context that was not negotiated, or one twice";
                return Begun::failed(ErrorKind::INVALID_ARGUMENT, text);
            };
            if contexts.is_empty() {
                return Begun::failed(ErrorKind::INVALID_ARGUMENT, "no context was chosen");
            }
            asked = Asked { contexts, len: payload.len };
            let checked =
                self.volume.size().map(|size| self.terms.check_range(request, payload.len, size));
            match checked {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => {
                    return Begun::failed(ErrorKind::INVALID_ARGUMENT, refused.why);
                }
                Err(error) => return Begun::Done(Err(error)),
            }
        }
        if !asked.contexts.has(Context::Allocation) || !self.terms.maps {
            // Without a map everything is data, which is always true.
            let extent =
                Extent { offset: request.offset, len: asked.len, flags: Default::default() };
            return self.told(request, asked, Ok([extent].into_iter().collect()));
        }
        let started = self.volume.extents(&CONTEXT, request.offset, asked.len, EXTENTS);
        match started {
            Started::Ready(extents) => self.told(request, asked, extents),
            Started::Pending(future) => Begun::Waits(Running::Status(future, asked)),
        }
    }

    fn told(&self, request: &Request, asked: Asked, extents: Result<RVec<Extent>>) -> Begun {
        let known = extents.and_then(|extents| {
            let mut known = Vec::with_capacity(2);
            for context in asked.contexts.iter() {
                known.push((context, self.statuses(context, request, asked.len, &extents)?));
            }
            Ok(Answer::Status(known))
        });
        Begun::Done(known)
    }

    fn statuses(
        &self,
        context: Context,
        request: &Request,
        len: u64,
        extents: &[Extent],
    ) -> Result<Vec<Status>> {
        match context {
            Context::Size => Ok(vec![Status { len, flags: self.volume.size()? }]),
            Context::Allocation => {
                let mut statuses =
                    status::allocation(extents, request.offset, len).ok_or_else(|| {
                        let text = "the driver's extents do not begin where they were asked for";
                        Error::new(ErrorKind::INTERNAL, text)
                            .with("offset", request.offset)
                            .remedy("report this to the driver's author")
                    })?;
                if request.flags.has(CommandFlags::REQ_ONE) {
                    statuses.truncate(1);
                }
                Ok(statuses)
            }
        }
    }
}

fn done(result: Result<()>) -> Begun {
    Begun::Done(result.map(|()| Answer::Done))
}

fn data(len: u64, result: Result<IoBuf>) -> Begun {
    Begun::Done(whole(len, result).map(Answer::Data))
}

fn sparse_data(mut sparse: Box<Sparse>, result: Result<IoBuf>) -> Begun {
    let until =
        sparse.runs.iter().rev().find(|run| !run.zero).map_or(sparse.offset, |run| run.until);
    Begun::Done(whole(until - sparse.offset, result).map(|data| {
        sparse.data = data;
        Answer::Sparse(sparse)
    }))
}

/// A read of another length than asked for would shift everything after it.
fn whole(len: u64, result: Result<IoBuf>) -> Result<IoBuf> {
    let data = result?;
    if data.len() as u64 == len {
        return Ok(data);
    }
    Err(Error::new(ErrorKind::INTERNAL, "the driver's read has another length than asked for")
        .with("asked", len)
        .with("got", data.len())
        .remedy("report this to the driver's author"))
}
