// SPDX-License-Identifier: Apache-2.0
//! Requests of clients that are under way: their buffers, what reads brought so far, and who waits.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Poll, Waker},
};

use distributed_core::{ClientOp, Failure, IoId, Point, RequestId};
use driver_api::{Error, ErrorKind, IoBuf, OpContext};

use super::following;
use crate::{error::of_failure, session::Session};

/// Requests, by number.
#[derive(Default)]
pub(super) struct Requests {
    last: u64,
    all: HashMap<RequestId, Request>,
    /// Which read of which request an action is.
    reads: HashMap<IoId, (RequestId, u64)>,
}

struct Request {
    cx: OpContext,
    /// What a client asked for; `None`: an operator asked for something without data.
    op: Option<ClientOp>,
    data: IoBuf,
    /// Whose token rises with it.
    session: Option<Arc<Session>>,
    /// By offset: the newest read from there, and what it brought.
    pieces: Vec<Piece>,
    result: Option<Result<(), Failure>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    abandoned: bool,
}

struct Piece {
    offset: u64,
    io: IoId,
    data: Option<IoBuf>,
}

/// Why a request has no result to give.
pub(super) enum Unfulfilled {
    /// The core said so.
    Failed(Failure),
    /// The core is not there any more.
    Broken(Error),
    /// What was read does not cover what was asked for.
    Incomplete,
}

impl Unfulfilled {
    /// What the client is told.
    pub fn into_error(self, volume: &str) -> Error {
        match self {
            Self::Failed(failure) => of_failure(volume, failure),
            Self::Broken(error) => error,
            Self::Incomplete => {
                Error::new(ErrorKind::INTERNAL, "a read was answered without all of its data")
                    .with("volume", volume)
                    .remedy("report this defect")
            }
        }
    }
}

impl Requests {
    /// Takes in a request.
    pub fn add(
        &mut self,
        cx: OpContext,
        op: Option<ClientOp>,
        data: IoBuf,
        session: Option<Arc<Session>>,
    ) -> RequestId {
        self.last += 1;
        let request = RequestId(self.last);
        let entry = Request {
            cx,
            op,
            data,
            session,
            pieces: Vec::new(),
            result: None,
            waker: None,
            abandoned: false,
        };
        self.all.insert(request, entry);
        request
    }

    /// The context of a request that is under way.
    pub fn context(&self, request: RequestId) -> Option<OpContext> {
        self.all.get(&request).map(|entry| entry.cx)
    }

    /// The part of a write's data that belongs at `offset` of the volume.
    pub fn data(&self, request: RequestId, offset: u64, len: u32) -> Option<IoBuf> {
        let entry = self.all.get(&request)?;
        let Some(ClientOp::Write { offset: first, .. }) = entry.op else { return None };
        following::part(first, &entry.data, offset, len)
    }

    /// A write's offset and data.
    pub fn written(&self, request: RequestId) -> Option<(u64, IoBuf)> {
        let entry = self.all.get(&request)?;
        let Some(ClientOp::Write { offset, .. }) = entry.op else { return None };
        Some((offset, entry.data.clone()))
    }

    /// A read was issued for a request.
    pub fn reads(&mut self, request: RequestId, io: IoId, offset: u64) {
        let Some(entry) = self.all.get_mut(&request) else { return };
        self.reads.insert(io, (request, offset));
        if matches!(entry.op, Some(ClientOp::Read { offset: first, .. }) if first == offset) {
            // It is read anew, perhaps in other pieces.
            entry.pieces.clear();
        }
        match entry.pieces.iter_mut().find(|piece| piece.offset == offset) {
            Some(piece) => *piece = Piece { offset, io, data: None },
            None => entry.pieces.push(Piece { offset, io, data: None }),
        }
    }

    /// A read has ended with this data.
    pub fn bring(&mut self, io: IoId, data: IoBuf) {
        let Some((request, offset)) = self.reads.remove(&io) else { return };
        let Some(entry) = self.all.get_mut(&request) else { return };
        // What an older read brings is dropped.
        let piece = entry.pieces.iter_mut().find(|piece| piece.offset == offset && piece.io == io);
        if let Some(piece) = piece {
            piece.data = Some(data);
        }
    }

    /// A read has ended without data.
    pub fn brings_nothing(&mut self, io: IoId) {
        self.reads.remove(&io);
    }

    /// The core answered a request, which wrote or saw what is up to `point`: who is to be woken.
    pub fn finish(
        &mut self,
        request: RequestId,
        result: Result<(), Failure>,
        point: Point,
    ) -> Option<Waker> {
        let entry = self.all.get_mut(&request)?;
        if let Some(session) = entry.session.take().filter(|_| result.is_ok()) {
            match entry.op {
                Some(ClientOp::Read { .. }) => session.saw(point),
                _ => session.wrote(point),
            }
        }
        if entry.abandoned {
            self.all.remove(&request);
            return None;
        }
        entry.result = Some(result);
        entry.waker.take()
    }

    /// Answers every request that has no answer: who is to be woken.
    pub fn fail_all(&mut self, failure: &Failure) -> Vec<Waker> {
        let open = self.all.values_mut().filter(|entry| entry.result.is_none());
        open.filter_map(|entry| {
            entry.result = Some(Err(failure.clone()));
            entry.waker.take()
        })
        .collect()
    }

    /// A request's result; the request is forgotten then.
    pub fn take(
        &mut self,
        request: RequestId,
        waker: Option<&Waker>,
    ) -> Poll<Result<IoBuf, Unfulfilled>> {
        let Some(entry) = self.all.get_mut(&request) else {
            return Poll::Ready(Err(Unfulfilled::Incomplete));
        };
        if entry.result.is_none() {
            entry.waker = waker.cloned();
            return Poll::Pending;
        }
        let Some(mut entry) = self.all.remove(&request) else {
            return Poll::Ready(Err(Unfulfilled::Incomplete));
        };
        Poll::Ready(match entry.result.take() {
            Some(Ok(())) => entry.into_data().ok_or(Unfulfilled::Incomplete),
            Some(Err(failure)) => Err(Unfulfilled::Failed(failure)),
            None => Err(Unfulfilled::Incomplete),
        })
    }

    /// Nobody waits for a request any more; it goes on.
    pub fn abandon(&mut self, request: RequestId) {
        if let Some(entry) = self.all.get_mut(&request) {
            entry.abandoned = true;
            if entry.result.is_some() {
                self.all.remove(&request);
            }
        }
    }
}

impl Request {
    /// What a read gives; nothing for everything else.
    fn into_data(mut self) -> Option<IoBuf> {
        let Some(ClientOp::Read { offset, len, .. }) = self.op else { return Some(IoBuf::empty()) };
        if let [piece] = &mut self.pieces[..] {
            let data = piece.data.take()?;
            return (piece.offset == offset && data.len() == len as usize).then_some(data);
        }
        self.pieces.sort_by_key(|piece| piece.offset);
        let mut whole = self.cx.buffer(len as usize);
        let mut filled = 0;
        for piece in &self.pieces {
            let data = piece.data.as_ref()?;
            if piece.offset != offset + filled as u64 {
                return None;
            }
            whole.get_mut(filled..filled + data.len())?.copy_from_slice(data);
            filled += data.len();
        }
        (filled == len as usize).then(|| whole.freeze())
    }
}

#[cfg(test)]
mod tests {
    use distributed_core::View;
    use driver_api::ext::Consistency;

    use super::*;

    const WRITE: ClientOp = ClientOp::Write { offset: 0, len: 4096, fua: false };
    const READ: ClientOp = ClientOp::Read { offset: 0, len: 4096, view: View::Consistent };

    fn at(sequence: u64) -> Point {
        Point { epoch: 1, sequence }
    }

    /// What a session sees after operations that ended so, at the points 1, 2 and so on.
    fn view_after(level: Consistency, ended: &[(ClientOp, Result<(), Failure>)]) -> View {
        let session = Arc::new(Session::new(level, Point::default()));
        let mut requests = Requests::default();
        for ((op, result), sequence) in ended.iter().zip(1..) {
            let of = Some(Arc::clone(&session));
            let request = requests.add(OpContext::new(), Some(*op), IoBuf::empty(), of);
            requests.finish(request, result.clone(), at(sequence));
        }
        session.view()
    }

    #[test]
    fn what_a_session_wrote_binds_it_whatever_it_may_miss_of_others() {
        let (read, wrote) = ((READ, Ok(())), (WRITE, Ok(())));
        let failed = (WRITE, Err(Failure::ReadOnly));
        for level in [Consistency::CAUSAL, Consistency::EVENTUAL] {
            let view = view_after(level, &[wrote.clone(), failed.clone()]);
            assert_eq!(view, View::AtLeast(at(1)));
        }
        let view = view_after(Consistency::EVENTUAL, &[wrote.clone(), read.clone()]);
        assert_eq!(view, View::AtLeast(at(1)), "a read is not a write");
        let view = view_after(Consistency::CAUSAL, &[wrote, read]);
        assert_eq!(view, View::AtLeast(at(2)));
    }
}
