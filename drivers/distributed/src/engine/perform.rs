// SPDX-License-Identifier: Apache-2.0
//! Carries out the core's actions.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use distributed_core::{
    Action, BrickId, Digest, Generation, IoId, NodeId, Outcome, RequestId, Session, Slot, ZeroKind,
};
use driver_api::{Error, ErrorKind, IoBuf, Op, OpContext, Result};

use super::{Answer, Ended, Engine, Inner, Job};
use crate::{
    client::{self, Copied, NewBrick, OpenBrick, changed},
    digest,
    error::{asked, unread},
    readers::Reading,
};

/// A node may take so many times as long to clone a brick as to answer.
const CLONING: u32 = 120;

/// An action with all that it needs, so that it can begin without the core's lock.
pub(super) struct Task {
    io: IoId,
    /// The client's request, if this reads for one.
    pub reader: Option<RequestId>,
    work: Result<Work, Outcome>,
}

enum Work {
    Read { on: Arc<OpenBrick>, cx: OpContext, offset: u64, len: u32, wants_digest: bool },
    Write { on: Arc<OpenBrick>, cx: OpContext, offset: u64, data: IoBuf, fua: bool },
    Zero { on: Arc<OpenBrick>, offset: u64, len: u64, how: ZeroKind, fua: bool },
    Flush { on: Arc<OpenBrick> },
    Copy { from: Arc<OpenBrick>, must_be: Option<u64>, to: Arc<OpenBrick>, offset: u64, len: u32 },
    Compare { bricks: Vec<(Slot, Arc<OpenBrick>)>, offset: u64, len: u32 },
    WriteCompanion { on: Arc<OpenBrick>, offset: u64, bytes: Arc<[u8]> },
    ReadCompanion { on: Arc<OpenBrick> },
    Resize { on: Arc<OpenBrick>, size: u64 },
    Open { brick: BrickId, node: NodeId, session: Session, size: u64 },
    Create { brick: BrickId, node: NodeId, size: u64 },
    Delete { brick: BrickId, node: NodeId, session: Option<Arc<OpenBrick>> },
    SwapState { expected: Arc<[u8]>, bytes: Arc<[u8]> },
    Snapshot { on: Arc<OpenBrick>, brick: BrickId, number: u32 },
    DropSnapshot { on: Arc<OpenBrick>, number: u32 },
    StoreMap { version: Generation, bytes: Arc<[u8]> },
    Replay { from: (Reading, NodeId), to: Arc<OpenBrick>, offset: u64, len: u32 },
    Digest { on: Arc<OpenBrick>, offset: u64, len: u64, chunk: u32 },
    StoreDigests { version: Generation, bytes: Arc<[u8]> },
    WriteJournal { on: Arc<OpenBrick>, offset: u64, parts: Vec<IoBuf> },
    ReplayJournal { on: Arc<OpenBrick>, journal: u64, offset: u64, len: u32 },
}

/// An action that has begun.
pub(super) enum Started {
    Ready(Answer),
    Pending(Job),
}

impl Engine {
    /// Collects what an action needs.
    pub(super) fn prepare(&self, inner: &mut Inner, action: Action) -> Task {
        let session = |brick: BrickId| inner.sessions.get(&brick).cloned().ok_or(Outcome::Failed);
        let gone = Outcome::Failed;
        let mut reader = None;
        let (io, work) = match action {
            Action::Read { io, brick, request, offset, len, wants_digest } => {
                let on = session(brick);
                reader = Some(request);
                inner.requests.reads(request, io, offset);
                let cx = inner.requests.context(request).unwrap_or_default();
                let cx = cx.with_timeout(self.io_timeout);
                (io, on.map(|on| Work::Read { on, cx, offset, len, wants_digest }))
            }
            Action::Write { io, brick, request, offset, len, fua } => {
                let data = inner.requests.data(request, offset, len);
                let data = data.or_else(|| inner.kept.data(request, offset, len)).ok_or(gone);
                let cx = self.nodes.context();
                let work = session(brick)
                    .and_then(|on| Ok(Work::Write { on, cx, offset, data: data?, fua }));
                (io, work)
            }
            Action::Zero { io, brick, offset, len, how, fua } => {
                (io, session(brick).map(|on| Work::Zero { on, offset, len, how, fua }))
            }
            Action::Flush { io, brick } => (io, session(brick).map(|on| Work::Flush { on })),
            Action::Copy { io, from, source_incarnation: must_be, to, offset, len } => {
                let both = session(from).map_err(|_| Outcome::SourceFailed);
                let both = both.and_then(|from| Ok((from, session(to)?)));
                (io, both.map(|(from, to)| Work::Copy { from, must_be, to, offset, len }))
            }
            Action::Compare { io, bricks, offset, len } => {
                let bricks = bricks.into_iter().map(|(slot, brick)| Ok((slot, session(brick)?)));
                let bricks: Result<Vec<_>, Outcome> = bricks.collect();
                (io, bricks.map(|bricks| Work::Compare { bricks, offset, len }))
            }
            Action::WriteCompanion { io, brick, offset, bytes } => {
                (io, session(brick).map(|on| Work::WriteCompanion { on, offset, bytes }))
            }
            Action::ReadCompanion { io, brick } => {
                (io, session(brick).map(|on| Work::ReadCompanion { on }))
            }
            Action::ResizeBrick { io, brick, size } => {
                (io, session(brick).map(|on| Work::Resize { on, size }))
            }
            Action::Open { io, brick, node, session, size } => {
                (io, Ok(Work::Open { brick, node, session, size }))
            }
            Action::Create { io, brick, node, size } => {
                (io, Ok(Work::Create { brick, node, size }))
            }
            Action::Delete { io, brick, node } => {
                let session = inner.sessions.remove(&brick);
                (io, Ok(Work::Delete { brick, node, session }))
            }
            Action::SwapState { io, expected, bytes } => {
                (io, Ok(Work::SwapState { expected, bytes }))
            }
            Action::Snapshot { io, brick, number } => {
                (io, session(brick).map(|on| Work::Snapshot { on, brick, number }))
            }
            Action::DropSnapshot { io, brick, number } => {
                (io, session(brick).map(|on| Work::DropSnapshot { on, number }))
            }
            Action::CopySnapshot { io, from, from_node, number, to, offset, len } => {
                let from = (Reading { to, from, number }, from_node);
                (io, session(to).map(|to| Work::Replay { from, to, offset, len }))
            }
            Action::StoreMap { io, version, bytes } => (io, Ok(Work::StoreMap { version, bytes })),
            Action::Digest { io, brick, offset, len, chunk } => {
                (io, session(brick).map(|on| Work::Digest { on, offset, len, chunk }))
            }
            Action::StoreDigests { io, version, bytes } => {
                (io, Ok(Work::StoreDigests { version, bytes }))
            }
            Action::WriteJournal { io, brick, offset, parts } => {
                let parts = inner.kept.parts(&parts).ok_or(gone);
                let work = session(brick)
                    .and_then(|on| Ok(Work::WriteJournal { on, offset, parts: parts? }));
                (io, work)
            }
            Action::ReplayJournal { io, brick, journal, offset, len } => {
                (io, session(brick).map(|on| Work::ReplayJournal { on, journal, offset, len }))
            }
            // Taken care of where actions are taken from the core.
            Action::Reply { .. }
            | Action::Keep { .. }
            | Action::Release { .. }
            | Action::Report(_)
            | Action::ForgetMaps { .. }
            | Action::ForgetDigests { .. } => (IoId(0), Err(gone)),
        };
        Task { io, reader, work }
    }

    pub(super) fn member(&self, node: NodeId) -> Result<distributed_core::Node> {
        self.node(node).ok_or_else(|| {
            Error::new(ErrorKind::NOT_FOUND, "the node is not registered any more")
                .with("node", node)
                .remedy("register it again: novastor node add")
        })
    }
}

fn plain(io: IoId, outcome: Outcome) -> Answer {
    Answer { io, incarnation: 0, outcome, data: None, opened: None }
}

/// An answer of a brick, with its incarnation after it; without one nothing is believed.
fn of_brick(io: IoId, brick: &OpenBrick, outcome: Outcome, data: Option<IoBuf>) -> Answer {
    match brick.incarnation() {
        Ok(incarnation) => Answer { io, incarnation, outcome, data, opened: None },
        Err(error) => {
            tracing::warn!(%error, "a brick does not say its incarnation");
            let is_good = matches!(outcome, Outcome::Ok | Outcome::Digest(_));
            plain(io, if is_good { Outcome::Unknown } else { outcome })
        }
    }
}

fn read_ended(
    io: IoId,
    on: &OpenBrick,
    len: u32,
    wants_digest: bool,
    result: Result<IoBuf>,
) -> Answer {
    match result {
        Ok(data) if wants_digest && data.len() == len as usize => {
            of_brick(io, on, Outcome::Digest(digest::of(&data)), Some(data))
        }
        Ok(data) if data.len() == len as usize => of_brick(io, on, Outcome::Ok, Some(data)),
        Ok(_) => of_brick(io, on, Outcome::Failed, None),
        Err(error) => {
            on.meter.failed(&error);
            tracing::debug!(%error, "a brick cannot be read");
            of_brick(io, on, unread(&error), None)
        }
    }
}

fn change_ended(io: IoId, on: &OpenBrick, result: Result<()>) -> Answer {
    if let Err(error) = &result {
        on.meter.failed(error);
        tracing::debug!(error = format!("{error:#}"), "a brick cannot be changed");
    }
    of_brick(io, on, changed(result), None)
}

/// Waits for an operation, and says so when that takes too long.
fn wait<T: Send + 'static>(
    io: IoId,
    timeout: Duration,
    op: impl Future<Output = T> + Send + 'static,
    ended: impl FnOnce(T) -> Answer + Send + 'static,
) -> Job {
    await_op(io, timeout, Box::pin(op), ended)
}

fn await_op<T: Send + 'static>(
    io: IoId,
    timeout: Duration,
    mut op: impl Future<Output = T> + Send + Unpin + 'static,
    ended: impl FnOnce(T) -> Answer + Send + 'static,
) -> Job {
    Box::pin(async move {
        match tokio::time::timeout(timeout, &mut op).await {
            Ok(result) => Ended::Answered(ended(result)),
            Err(_) => {
                let rest = async move { Ended::Answered(ended(op.await)) };
                Ended::Late(io, Box::pin(rest))
            }
        }
    })
}

/// Goes on with an operation of a brick: at once if it is ready.
fn go_on<T: Send + 'static>(
    io: IoId,
    timeout: Duration,
    op: Op<T>,
    ended: impl FnOnce(Result<T>) -> Answer + Send + 'static,
) -> Started {
    match op {
        Op::Ready(result) => Started::Ready(ended(result.into())),
        Op::Pending(future) => Started::Pending(await_op(io, timeout, future, ended)),
    }
}

impl Task {
    /// Begins the action.
    pub(super) fn start(self, engine: &Arc<Engine>) -> Started {
        let (io, timeout) = (self.io, engine.io_timeout);
        let work = match self.work {
            Ok(work) => work,
            Err(outcome) => return Started::Ready(plain(io, outcome)),
        };
        let cx = engine.nodes.context();
        let begun = Instant::now();
        match work {
            Work::Read { on, cx, offset, len, wants_digest } => {
                let op = on.read(&cx, offset, len);
                go_on(io, timeout, op, move |result| {
                    on.meter.ended(begun);
                    read_ended(io, &on, len, wants_digest, result)
                })
            }
            Work::Write { on, cx, offset, data, fua } => {
                let op = on.write(&cx, offset, data, fua);
                go_on(io, timeout, op, move |result| {
                    on.meter.ended(begun);
                    change_ended(io, &on, result)
                })
            }
            Work::Zero { on, offset, len, how, fua } => {
                let op = on.zero(&cx, offset, len, how, fua);
                go_on(io, timeout, op, move |result| change_ended(io, &on, result))
            }
            Work::Flush { on } => {
                let op = on.flush(&cx);
                go_on(io, timeout, op, move |result| {
                    on.meter.ended(begun);
                    change_ended(io, &on, result)
                })
            }
            Work::Copy { from, must_be, to, offset, len } => {
                let target = Arc::clone(&to);
                let copy = async move { client::copy(&cx, &from, must_be, &to, offset, len).await };
                let engine = Arc::clone(engine);
                let ended = move |copied| {
                    let answer = copy_ended(io, &target, copied);
                    if answer.outcome == Outcome::Ok {
                        engine.copied.fetch_add(u64::from(len), Ordering::Relaxed);
                    }
                    answer
                };
                Started::Pending(wait(io, timeout, copy, ended))
            }
            Work::Compare { bricks, offset, len } => {
                let compare = async move { client::compare(&cx, &bricks, offset, len).await };
                let ended = move |result: Result<_>| {
                    plain(
                        io,
                        match result {
                            Ok(differ) if distributed_core::SlotSet::is_empty(differ) => {
                                Outcome::Ok
                            }
                            Ok(differ) => Outcome::Differs(differ),
                            Err(error) => asked(&error),
                        },
                    )
                };
                Started::Pending(wait(io, timeout, compare, ended))
            }
            Work::Digest { on, offset, len, chunk } => {
                let brick = Arc::clone(&on);
                let read = async move { digest::of_range(&cx, &brick, offset, len, chunk).await };
                let ended = move |result: Result<Digest>| match result {
                    Ok(digest) => of_brick(io, &on, Outcome::Digest(digest), None),
                    Err(error) => {
                        on.meter.failed(&error);
                        tracing::debug!(%error, "a brick cannot be read");
                        of_brick(io, &on, unread(&error), None)
                    }
                };
                Started::Pending(wait(io, timeout, read, ended))
            }
            Work::WriteCompanion { on, offset, bytes } => {
                let keeper = Arc::clone(&on);
                let write = async move {
                    keeper.write_companion(&cx, offset, IoBuf::copy_from(&bytes)).await
                };
                Started::Pending(wait(io, timeout, write, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            Work::ReadCompanion { on } => {
                let keeper = Arc::clone(&on);
                let read = async move { keeper.read_companion(&cx).await };
                let ended = move |result: Result<[Vec<u8>; 2]>| match result {
                    Ok(slots) => of_brick(io, &on, Outcome::Companion(slots), None),
                    Err(error) => of_brick(io, &on, asked(&error), None),
                };
                Started::Pending(wait(io, timeout, read, ended))
            }
            Work::Resize { on, size } => {
                let brick = Arc::clone(&on);
                let resize = async move { brick.give_size(&cx, size).await };
                Started::Pending(wait(io, timeout, resize, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            Work::Replay { from, to, offset, len } => {
                let (target, copied_by) = (Arc::clone(&to), Arc::clone(engine));
                let copy = async move { copied_by.replay(&cx, from, &target, (offset, len)).await };
                // The first has its source cloned, which may be a full copy; the others have their own deadline.
                let timeout = timeout.saturating_mul(CLONING);
                Started::Pending(wait(io, timeout, copy, move |ended| copy_ended(io, &to, ended)))
            }
            Work::Snapshot { on, brick: id, number } => {
                let (brick, engine) = (Arc::clone(&on), Arc::clone(engine));
                let take = async move {
                    // What it was filled from has no other use.
                    engine.readers.end(&engine.nodes, Some(id)).await;
                    brick.snapshot(&cx, number).await
                };
                Started::Pending(wait(io, timeout, take, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            Work::DropSnapshot { on, number } => {
                let brick = Arc::clone(&on);
                let dropping = async move { brick.drop_snapshot(&cx, number).await };
                Started::Pending(wait(io, timeout, dropping, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            Work::WriteJournal { on, offset, parts } => {
                let keeper = Arc::clone(&on);
                let write = async move { keeper.write_journal(&cx, offset, parts).await };
                Started::Pending(wait(io, timeout, write, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            Work::ReplayJournal { on, journal, offset, len } => {
                let brick = Arc::clone(&on);
                let replay = async move { brick.replay_journal(&cx, journal, offset, len).await };
                Started::Pending(wait(io, timeout, replay, move |result| {
                    change_ended(io, &on, result)
                }))
            }
            other => other.start_on_node(io, engine),
        }
    }
}

impl Work {
    /// Begins what is not done within a session.
    fn start_on_node(self, io: IoId, engine: &Arc<Engine>) -> Started {
        let timeout = engine.io_timeout;
        let engine = Arc::clone(engine);
        Started::Pending(match self {
            Self::Open { brick, node, session, size } => {
                let open = async move { engine.open(brick, node, session, size).await };
                wait(io, timeout, open, move |opened| open_ended(io, brick, opened))
            }
            Self::Create { brick, node, size } => {
                let create = async move {
                    let new = NewBrick {
                        base: &engine.base,
                        brick,
                        size,
                        map_bytes: engine.map_bytes,
                        shard_size: engine.shard_size()?,
                    };
                    engine.nodes.create(&engine.member(node)?, &new).await
                };
                wait(io, timeout, create, move |result| plain(io, changed(result)))
            }
            Self::Delete { brick, node, session } => {
                let delete = async move {
                    engine.readers.end(&engine.nodes, Some(brick)).await;
                    if let Some(session) = session
                        && let Err(error) = session.close(&engine.nodes.context()).await
                    {
                        // What matters is whether it can be deleted.
                        tracing::debug!(%error, %brick, "a brick to be deleted is not detached in order");
                    }
                    engine.nodes.delete(&engine.member(node)?, &engine.base, brick).await
                };
                wait(io, timeout, delete, move |result| plain(io, changed(result)))
            }
            Self::SwapState { expected, bytes } => {
                let swap =
                    async move { engine.catalog.swap(&engine.volume, &expected, &bytes).await };
                wait(io, timeout, swap, move |outcome| plain(io, outcome))
            }
            Self::StoreMap { version, bytes } => {
                let store =
                    async move { engine.catalog.put_map(&engine.volume, version, &bytes).await };
                wait(io, timeout, store, move |result| plain(io, changed(result)))
            }
            Self::StoreDigests { version, bytes } => {
                let store = async move {
                    engine.catalog.put_digests(&engine.volume, version, &bytes).await
                };
                wait(io, timeout, store, move |result| plain(io, changed(result)))
            }
            // The others are begun within their session.
            _ => wait(io, timeout, std::future::ready(()), move |()| plain(io, Outcome::Failed)),
        })
    }
}

impl Engine {
    async fn open(
        &self,
        brick: BrickId,
        node: NodeId,
        session: Session,
        size: u64,
    ) -> Result<OpenBrick> {
        let node = self.member(node)?;
        let open = self.nodes.open(&node, &self.base, brick, session, size).await;
        if let Err(error) = &open {
            self.nodes.meters().of(node.id).failed(error);
        }
        open.map_err(client::on_node(&node))
    }
}

fn open_ended(io: IoId, brick: BrickId, opened: Result<OpenBrick>) -> Answer {
    match opened.and_then(|open| Ok((open.incarnation()?, open))) {
        Ok((incarnation, open)) => {
            let outcome = Outcome::Opened { fenced: open.fenced };
            Answer { io, incarnation, outcome, data: None, opened: Some((brick, Arc::new(open))) }
        }
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), %brick, "a brick cannot be opened");
            plain(io, asked(&error))
        }
    }
}

fn copy_ended(io: IoId, target: &OpenBrick, copied: Copied) -> Answer {
    match copied {
        Copied::SourceFailed(error) => {
            tracing::debug!(%error, "the source of a copy cannot be read");
            plain(io, Outcome::SourceFailed)
        }
        Copied::Written(result) => change_ended(io, target, result),
    }
}
