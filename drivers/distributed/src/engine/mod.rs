// SPDX-License-Identifier: Apache-2.0
//! Runs the core of one attached volume: takes requests and answers, carries out what it decides.
//!
//! ```text
//!   client's thread                              pump, a task per attachment
//!   submit: Event::Request                       polls operations of bricks that are not ready at once,
//!     |                                          reports those that take too long, ticks
//!     v                                             |
//!   run: core under its lock -> actions          run: Event::Done, Event::Tick
//!        actions without the lock: start on bricks  |
//!        ready at once  -> their ends are the next events, in the same call
//!        pending read   -> to the future of its request
//!        other pending  -> to the pump
//! ```
//! A request whose bricks all answer at once is finished before `submit` returns, on the client's thread, without a task
//! or a wake-up. A read that is not ready is polled by whoever waits for it, so that its end wakes nobody else; if nobody
//! waits any more, by the pump. Mutations of bricks belong to the pump, whatever becomes of their client: each is polled
//! to its end.

mod following;
mod movement;
mod notices;
mod perform;
mod pump;
mod requests;
mod scrub;
mod snapshots;
mod waiting;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use distributed_core::{
    Action, BrickId, ClientOp, Event, Failure, Generation, HealingPace, IoId, Node, NodeId,
    Outcome, RequestId, SlotSet, Status, Time, Volume, VolumeState,
};
use driver_api::{Error, ErrorKind, IoBuf, Op, OpContext, Result};
use tokio::sync::{Notify, mpsc};

use crate::{
    catalog::Catalog,
    client::{Nodes, OpenBrick},
    error::of_failure,
    meters::Histogram,
    readers::Readers,
    session::Session,
};
use following::{Following, Kept};
use movement::Ordered;
pub(crate) use movement::{Progress, Purpose};
use requests::{Requests, Unfulfilled};
use waiting::{Reads, Waiting};

/// How an action ended.
struct Answer {
    io: IoId,
    incarnation: u64,
    outcome: Outcome,
    /// What a read brought.
    data: Option<IoBuf>,
    /// The session that an opening gave.
    opened: Option<(BrickId, Arc<OpenBrick>)>,
}

/// What the pump gets from one of its futures.
enum Ended {
    Answered(Answer),
    /// It takes too long; the rest of it is still polled.
    Late(IoId, Job),
}

type Job = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// An attached volume at work.
pub(crate) struct Engine {
    volume: String,
    /// What the names of its bricks begin with.
    base: String,
    nodes: Nodes,
    catalog: Catalog,
    /// Nodes by number, for sessions and texts.
    members: RwLock<BTreeMap<NodeId, Node>>,
    /// Bytes of the shard map, for companions to come.
    map_bytes: usize,
    /// Whether it is attached for writing.
    pub writable: bool,
    io_timeout: Duration,
    begun: Instant,
    inner: Mutex<Inner>,
    pump: mpsc::UnboundedSender<Job>,
    /// Bytes copied between bricks since the attachment began.
    copied: AtomicU64,
    /// When the pump ticks next, in the core's time.
    armed: AtomicU64,
    /// Tells the pump that it has to tick earlier, or to end.
    rearm: Notify,
    /// Tells whoever attaches or detaches that the state has changed.
    moved: Notify,
    /// Nothing more is asked for; the pump ends with its last operation.
    closed: AtomicBool,
    /// How long clients' reads and writes take, of this volume and of all.
    pub clients: Arc<Histogram>,
    everybody: Arc<Histogram>,
    healing_pace: Mutex<HealingPace>,
    /// Snapshots that are being replayed.
    pub readers: Readers,
    following: Following,
}

struct Inner {
    core: Volume,
    requests: Requests,
    kept: Kept,
    sessions: BTreeMap<BrickId, Arc<OpenBrick>>,
    state: VolumeState,
    ordered: Ordered,
    /// Taken over within this process.
    deposed: bool,
}

/// What an engine works on.
pub(crate) struct Work {
    pub volume: String,
    pub base: String,
    pub nodes: Nodes,
    pub catalog: Catalog,
    pub members: Vec<Node>,
    pub map_bytes: usize,
    pub writable: bool,
    pub io_timeout: Duration,
    /// How long reads and writes of all volumes' clients take.
    pub everybody: Arc<Histogram>,
    pub healing_pace: HealingPace,
}

impl Engine {
    /// Starts to work for a core that was just made.
    pub fn start(work: Work, core: Volume) -> Arc<Self> {
        let (pump, jobs) = mpsc::unbounded_channel();
        let engine = Arc::new(Self {
            volume: work.volume,
            base: work.base,
            nodes: work.nodes,
            catalog: work.catalog,
            members: RwLock::default(),
            copied: AtomicU64::new(0),
            map_bytes: work.map_bytes,
            writable: work.writable,
            io_timeout: work.io_timeout,
            begun: Instant::now(),
            inner: Mutex::new(Inner {
                core,
                requests: Requests::default(),
                kept: Kept::default(),
                sessions: BTreeMap::new(),
                state: VolumeState::Attaching,
                ordered: Ordered::default(),
                deposed: false,
            }),
            pump,
            armed: AtomicU64::new(u64::MAX),
            rearm: Notify::new(),
            moved: Notify::new(),
            closed: AtomicBool::new(false),
            clients: Arc::default(),
            everybody: work.everybody,
            healing_pace: Mutex::new(work.healing_pace),
            readers: Readers::default(),
            following: Following::default(),
        });
        engine.learn(work.members);
        tokio::spawn(pump::run(Arc::clone(&engine), jobs));
        engine.run(vec![Event::Tick], None);
        engine
    }

    /// The time, as the core counts it.
    fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    fn inner(&self) -> Result<MutexGuard<'_, Inner>> {
        self.inner.lock().map_err(|_| {
            Error::new(ErrorKind::PANIC, "the volume's state machine panicked")
                .with("volume", &self.volume)
                .remedy("attach the volume again")
        })
    }

    /// The volume's name.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// Size in bytes.
    pub fn size(&self) -> Result<u64> {
        Ok(self.inner()?.core.size())
    }

    /// Bytes of a shard, now.
    pub fn shard_size(&self) -> Result<u64> {
        Ok(self.inner()?.core.map().shard_size())
    }

    /// Compares the in-sync replicas of a range: those that differ from the first one.
    pub async fn compare(
        self: &Arc<Self>,
        cx: &OpContext,
        offset: u64,
        len: u32,
    ) -> Result<Option<SlotSet>> {
        let op = ClientOp::Verify { offset, len };
        let request = self.admit(cx, Some(op), IoBuf::empty(), None)?;
        self.run(vec![Event::Request { request, op }], None);
        let mut waiting = Waiting::new(self, Reads::of(request));
        let result = std::future::poll_fn(|task| waiting.poll_result(task)).await;
        match result {
            Ok(_) => Ok(None),
            Err(Unfulfilled::Failed(Failure::Differs(slots))) => Ok(Some(slots)),
            Err(other) => Err(other.into_error(&self.volume)),
        }
    }

    /// The volume as the core sees it.
    pub fn status(&self) -> Result<Status> {
        Ok(self.inner()?.core.status())
    }

    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<Node> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Gets to know nodes that were registered meanwhile.
    fn learn(&self, nodes: Vec<Node>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        members.extend(nodes.into_iter().map(|node| (node.id, node)));
    }

    /// The sessions with bricks that are open.
    pub fn sessions(&self) -> Result<Vec<Arc<OpenBrick>>> {
        Ok(self.inner()?.sessions.values().cloned().collect())
    }

    /// Tells the core what happened outside of it.
    pub fn tell(self: &Arc<Self>, events: Vec<Event>) {
        self.run(events, None);
    }

    /// Whether nothing more is asked for.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Answers everything with `Fenced` from now on: another attachment of this process has the volume.
    pub fn depose(&self) {
        let waiting = self.inner().map(|mut inner| {
            inner.deposed = true;
            inner.kept.clear();
            inner.requests.fail_all(&Failure::Fenced)
        });
        // Of a core that panicked nobody waits for an answer any more.
        waiting.into_iter().flatten().for_each(Waker::wake);
        self.close();
    }

    /// Lets the pump end once its last operation has.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.rearm.notify_one();
        self.moved.notify_waiters();
    }

    /// Waits until the volume serves.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn serving(&self) -> Result<()> {
        loop {
            let moved = self.moved.notified();
            match self.inner()?.state.clone() {
                VolumeState::Serving => return Ok(()),
                VolumeState::Attaching => {}
                VolumeState::Stopped(why) => {
                    return Err(of_failure(&self.volume, Failure::Stopped(why)));
                }
                VolumeState::Fenced | VolumeState::Detached => {
                    return Err(of_failure(&self.volume, Failure::Fenced));
                }
            }
            moved.await;
        }
    }

    /// Asks the core for something. `data` is what a write writes.
    pub fn submit(self: &Arc<Self>, cx: &OpContext, op: ClientOp, data: IoBuf) -> Op<IoBuf> {
        self.submit_in(cx, op, data, None)
    }

    /// The same, for a session if it is one's.
    pub fn submit_in(
        self: &Arc<Self>,
        cx: &OpContext,
        op: ClientOp,
        data: IoBuf,
        session: Option<&Arc<Session>>,
    ) -> Op<IoBuf> {
        // Others take as long as they are long.
        let is_counted = matches!(op, ClientOp::Read { .. } | ClientOp::Write { .. });
        let begun = is_counted.then(Instant::now);
        let request = match self.admit(cx, Some(op), data, session.cloned()) {
            Ok(request) => request,
            Err(error) => return Op::err(error),
        };
        let mut reads = Reads::of(request);
        self.run(vec![Event::Request { request, op }], Some(&mut reads));
        match self.take(request, None) {
            Poll::Ready(result) => {
                self.note_client(begun);
                Op::ready(result.map_err(|failure| failure.into_error(&self.volume)))
            }
            Poll::Pending => Op::run(Waiting::new(self, reads).counted(begun)),
        }
    }

    fn note_client(&self, begun: Option<Instant>) {
        if let Some(begun) = begun {
            let bucket = self.clients.ended(begun);
            self.everybody.count(bucket);
        }
    }

    fn admit(
        &self,
        cx: &OpContext,
        op: Option<ClientOp>,
        data: IoBuf,
        session: Option<Arc<Session>>,
    ) -> Result<RequestId> {
        let mut inner = self.inner()?;
        if inner.deposed {
            return Err(of_failure(&self.volume, Failure::Fenced));
        }
        Ok(inner.requests.add(*cx, op, data, session))
    }

    /// The request's result if it is finished; otherwise `waker` is woken when it is.
    fn take(&self, request: RequestId, waker: Option<&Waker>) -> Poll<Result<IoBuf, Unfulfilled>> {
        match self.inner() {
            Ok(mut inner) => inner.requests.take(request, waker),
            Err(error) => Poll::Ready(Err(Unfulfilled::Broken(error))),
        }
    }

    /// Hands events to the core and carries out what it decides, until it waits for something. Pending reads of `reads`'
    /// request are left there; everything else that is pending goes to the pump.
    fn run(self: &Arc<Self>, first: Vec<Event>, mut reads: Option<&mut Reads>) {
        let answers = self.step(first, Vec::new(), reads.as_deref_mut());
        self.answered(answers, reads);
    }

    /// The same with answers of bricks.
    fn answered(self: &Arc<Self>, mut answers: Vec<Answer>, mut reads: Option<&mut Reads>) {
        while !answers.is_empty() {
            answers = self.step(Vec::new(), answers, reads.as_deref_mut());
        }
    }

    /// What the end of an operation, or of its time, tells the core.
    fn answer_of(&self, ended: Ended) -> Answer {
        match ended {
            Ended::Answered(answer) => answer,
            Ended::Late(io, rest) => {
                self.leave_to_pump(rest);
                let (outcome, data, opened) = (Outcome::Unknown, None, None);
                Answer { io, incarnation: 0, outcome, data, opened }
            }
        }
    }

    fn leave_to_pump(&self, job: Job) {
        // The pump outlives every operation: its end is the end of the process.
        let _ = self.pump.send(job);
    }

    /// Deletes shard maps that count no more. What a crash leaves goes with the next ones.
    fn forget_maps(&self, before: Generation, but: Vec<Generation>) {
        let (catalog, volume) = (self.catalog.clone(), self.volume.clone());
        tokio::spawn(async move {
            if let Err(error) = catalog.forget_maps(&volume, before, &but).await {
                let error = format!("{error:#}");
                tracing::info!(volume, error, "old shard maps are left to the next change");
            }
        });
    }

    /// One round: the ends of actions that were ready at once are given back.
    fn step(
        self: &Arc<Self>,
        events: Vec<Event>,
        answers: Vec<Answer>,
        mut reads: Option<&mut Reads>,
    ) -> Vec<Answer> {
        let mut todo = Vec::new();
        let mut wake = Vec::new();
        // A core that panicked is asked nothing more; its requests are answered with that.
        let Ok(mut inner) = self.inner() else { return Vec::new() };
        if inner.deposed {
            // Another attachment decides now; what is under way only comes to its end.
            return Vec::new();
        }
        let now = self.now();
        for event in events {
            inner.core.handle(now, event);
        }
        for Answer { io, incarnation, outcome, data, opened } in answers {
            if let Some((brick, session)) = opened {
                inner.sessions.insert(brick, session);
            }
            match data {
                Some(data) => inner.requests.bring(io, data),
                None => inner.requests.brings_nothing(io),
            }
            inner.core.handle(now, Event::Done { io, incarnation, outcome });
        }
        while let Some(action) = inner.core.poll_action() {
            match action {
                Action::Reply { request, result, point } => {
                    wake.extend(inner.requests.finish(request, result, point));
                }
                Action::Keep { request } => {
                    if let Some((offset, data)) = inner.requests.written(request) {
                        inner.kept.keep(request, offset, data);
                    }
                }
                Action::Release { request } => inner.kept.release(request),
                Action::Report(notice) => {
                    self.following.note(&notice);
                    self.report(&notice);
                }
                Action::ForgetMaps { before, but } => self.forget_maps(before, but),
                Action::ForgetDigests { before } => self.forget_digests(before),
                action => todo.push(self.prepare(&mut inner, action)),
            }
        }
        let serves = inner.core.is_serving();
        let state = if serves { VolumeState::Serving } else { inner.core.status().state };
        let has_moved = state != inner.state;
        inner.state = state;
        let due = inner.core.next_tick().map_or(u64::MAX, |time| time.0);
        // Under the lock: a later round's time must not be replaced by this one's.
        let earlier = self.armed.swap(due, Ordering::AcqRel) > due;
        drop(inner);
        wake.into_iter().for_each(Waker::wake);
        if has_moved {
            self.moved.notify_waiters();
        }
        if earlier {
            self.rearm.notify_one();
        }
        let mut ready = Vec::new();
        for task in todo {
            let reader = task.reader;
            match task.start(self) {
                perform::Started::Ready(answer) => ready.push(answer),
                perform::Started::Pending(job) => match &mut reads {
                    Some(reads) if reader == Some(reads.request) => reads.jobs.push(job),
                    _ => self.leave_to_pump(job),
                },
            }
        }
        ready
    }
}
