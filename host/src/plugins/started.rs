// SPDX-License-Identifier: Apache-2.0
//! Operations of drivers as the host uses them: every call into a driver is watched.
//!
//! A call is marked for the watchdog while it starts, is polled and is dropped; a panic marks the driver degraded; the
//! calls of an isolated driver run on its own thread. A mutation whose caller goes away is finished all the same, and one
//! that a [`gate`](super::gate) admitted counts there until then.

use std::{
    future::{Future, IntoFuture, poll_fn},
    mem::ManuallyDrop,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use abi_stable::std_types::RResult;
use driver_api::{Error, ErrorKind, IoBufMut, Op, OpContext, OpFuture, Result};
use tokio::task::JoinHandle;

use super::{call::Call, gate::Admitted, lane::Lane, meter::DriverMeter, watchdog::Mark};

/// A driver's object, dropped under watch when the last user lets go.
#[derive(Debug)]
pub(super) struct Held<H: Send + 'static> {
    handle: ManuallyDrop<H>,
    meter: Option<Arc<DriverMeter>>,
    /// What must outlive the object: the backend of a volume.
    _keeps: Option<Arc<dyn Keep>>,
}

/// Anything that is kept for its drop alone.
pub(super) trait Keep: std::fmt::Debug + Send + Sync {}

impl<T: std::fmt::Debug + Send + Sync> Keep for T {}

impl<H: Send + 'static> Held<H> {
    pub(super) fn new(
        handle: H,
        meter: Option<Arc<DriverMeter>>,
        keeps: Option<Arc<dyn Keep>>,
    ) -> Arc<Self> {
        Arc::new(Self { handle: ManuallyDrop::new(handle), meter, _keeps: keeps })
    }

    pub(super) fn handle(&self) -> &H {
        &self.handle
    }

    pub(super) fn meter(&self) -> Option<&Arc<DriverMeter>> {
        self.meter.as_ref()
    }
}

impl<H: Send + 'static> Drop for Held<H> {
    fn drop(&mut self) {
        // SAFETY: the handle is taken here, in drop, and never touched again.
        let handle = unsafe { ManuallyDrop::take(&mut self.handle) };
        let Some(meter) = self.meter.take() else { return drop(handle) };
        drop_watched(handle, &meter);
    }
}

/// Drops an object of the driver, on the driver's own thread if it has one.
fn drop_watched<T: Send + 'static>(object: T, meter: &Arc<DriverMeter>) {
    let Some(lane) = meter.lane() else {
        let _mark = Mark::new(meter, Call::Drop);
        return drop(object);
    };
    let meter = meter.clone();
    lane.spawn(async move {
        let _mark = Mark::new(&meter, Call::Drop);
        drop(object);
    });
}

/// An operation that a driver has started.
#[must_use]
#[derive(Debug)]
pub enum Started<T> {
    /// It is finished.
    Ready(Result<T>),
    /// It goes on while polled. A mutation that is dropped before its end is finished in the background.
    Pending(Guarded<T>),
}

/// A driver's future, watched while it is polled.
#[must_use]
pub struct Guarded<T> {
    work: Work<T>,
    meter: Option<Arc<DriverMeter>>,
    call: Call,
    /// Kept while the driver is at it.
    admitted: Option<Admitted>,
    /// How the driver's future goes on elsewhere; made where `T` is known to be sendable.
    hand_over: HandOver<T>,
}

type HandOver<T> = fn(
    OpFuture<T>,
    Option<Arc<DriverMeter>>,
    Call,
    Option<Admitted>,
    &Lane,
) -> JoinHandle<Result<T>>;

enum Work<T> {
    Here(OpFuture<T>),
    Elsewhere(JoinHandle<Result<T>>),
    Finished,
}

impl<T> std::fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guarded({})", self.call.name())
    }
}

impl<T: Send + 'static> Guarded<T> {
    fn here(
        future: OpFuture<T>,
        meter: Option<Arc<DriverMeter>>,
        call: Call,
        admitted: Option<Admitted>,
    ) -> Self {
        Self { work: Work::Here(future), meter, call, admitted, hand_over }
    }

    /// An operation that the host does itself, to its end.
    pub(super) fn own(future: OpFuture<T>, call: Call) -> Self {
        Self::here(future, None, call, None)
    }

    fn elsewhere(task: JoinHandle<Result<T>>, call: Call) -> Self {
        Self { work: Work::Elsewhere(task), meter: None, call, admitted: None, hand_over }
    }
}

impl<T> Future for Guarded<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if let Some(lane) = this.meter.as_ref().and_then(|meter| meter.lane())
            && matches!(this.work, Work::Here(_))
            && let Work::Here(future) = std::mem::replace(&mut this.work, Work::Finished)
        {
            let admitted = this.admitted.take();
            let task = (this.hand_over)(future, this.meter.clone(), this.call, admitted, lane);
            this.work = Work::Elsewhere(task);
        }
        let result = match &mut this.work {
            Work::Here(future) => {
                let _mark = this.meter.as_ref().map(|meter| Mark::new(meter, this.call));
                std::task::ready!(Pin::new(future).poll(cx))
            }
            Work::Elsewhere(task) => {
                return Pin::new(task).poll(cx).map(|joined| {
                    joined.unwrap_or_else(|error| {
                        Err(Error::new(ErrorKind::INTERNAL, "the driver's thread ended early")
                            .during(this.call.name())
                            .caused_by(&error))
                    })
                });
            }
            Work::Finished => return Poll::Pending,
        };
        if let Some(meter) = &this.meter {
            let _mark = Mark::new(meter, Call::Drop);
            this.work = Work::Finished;
            note(meter, this.call, &result);
        } else {
            this.work = Work::Finished;
        }
        this.admitted = None;
        Poll::Ready(result)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let Work::Here(future) = std::mem::replace(&mut self.work, Work::Finished) else { return };
        let own: Option<&Lane> = self.meter.as_ref().and_then(|meter| meter.lane());
        if !self.call.mutates() && own.is_none() {
            let _mark = self.meter.as_ref().map(|meter| Mark::new(meter, Call::Drop));
            return drop(future);
        }
        let lane = match own {
            Some(lane) => Some(lane),
            None => Lane::of_orphans(),
        };
        let admitted = self.admitted.take();
        match lane {
            // The task goes on without its handle.
            Some(lane) => {
                drop((self.hand_over)(future, self.meter.clone(), self.call, admitted, lane));
            }
            // Leaking is the only way left that neither drops the mutation nor blocks this thread.
            None => std::mem::forget((future, admitted)),
        }
    }
}

fn hand_over<T: Send + 'static>(
    future: OpFuture<T>,
    meter: Option<Arc<DriverMeter>>,
    call: Call,
    admitted: Option<Admitted>,
    lane: &Lane,
) -> JoinHandle<Result<T>> {
    lane.spawn(async move {
        let _admitted = admitted;
        finish(future, meter, call).await
    })
}

/// Polls and drops the driver's future under watch, on whichever thread this runs.
async fn finish<T>(
    mut future: OpFuture<T>,
    meter: Option<Arc<DriverMeter>>,
    call: Call,
) -> Result<T> {
    let result = poll_fn(|cx| {
        let _mark = meter.as_ref().map(|meter| Mark::new(meter, call));
        Pin::new(&mut future).poll(cx)
    })
    .await;
    if let Some(meter) = &meter {
        let _mark = Mark::new(meter, Call::Drop);
        drop(future);
        note(meter, call, &result);
    }
    result
}

#[inline]
fn note<T>(meter: &DriverMeter, call: Call, result: &Result<T>) {
    if let Err(error) = result {
        meter.note(call, error);
    }
}

impl<T: Send + 'static> IntoFuture for Started<T> {
    type Output = Result<T>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            match self {
                Started::Ready(result) => result,
                Started::Pending(future) => future.await,
            }
        })
    }
}

/// Makes a call that starts an operation on a driver's object, under watch.
#[inline]
pub(super) fn start<H, T>(
    held: &Arc<Held<H>>,
    call: Call,
    cx: &OpContext,
    begin: impl FnOnce(&H, &OpContext) -> Op<T> + Send + 'static,
) -> Started<T>
where
    H: Send + Sync + 'static,
    T: Send + 'static,
{
    start_admitted(held, call, cx, begin, None)
}

/// As [`start`], for a change that counts as `admitted` until the driver has answered.
#[inline]
pub(super) fn start_admitted<H, T>(
    held: &Arc<Held<H>>,
    call: Call,
    cx: &OpContext,
    begin: impl FnOnce(&H, &OpContext) -> Op<T> + Send + 'static,
    admitted: Option<Admitted>,
) -> Started<T>
where
    H: Send + Sync + 'static,
    T: Send + 'static,
{
    let Some(meter) = &held.meter else {
        return match begin(&held.handle, cx) {
            Op::Ready(result) => Started::Ready(result.into()),
            Op::Pending(future) => Started::Pending(Guarded::here(future, None, call, admitted)),
        };
    };
    if let Some(lane) = meter.lane() {
        return start_elsewhere(held.clone(), meter.clone(), call, cx, begin, admitted, lane);
    }
    let mark = Mark::new(meter, call);
    let op = begin(&held.handle, cx);
    drop(mark);
    watched(meter, call, op, admitted)
}

/// What a call of the meter's driver gave.
#[inline]
fn watched<T: Send + 'static>(
    meter: &Arc<DriverMeter>,
    call: Call,
    op: Op<T>,
    admitted: Option<Admitted>,
) -> Started<T> {
    match op {
        Op::Ready(result) => {
            let result = result.into();
            note(meter, call, &result);
            Started::Ready(result)
        }
        Op::Pending(future) => {
            Started::Pending(Guarded::here(future, Some(meter.clone()), call, admitted))
        }
    }
}

/// As [`start`], for a caller that passes the answer on: one that is ready and good is returned where it lies, and
/// `settle` gets all others.
#[inline]
pub(super) fn pass<H, T>(
    held: &Arc<Held<H>>,
    call: Call,
    cx: &OpContext,
    begin: impl FnOnce(&H, &OpContext) -> Op<T> + Send + 'static,
    settle: impl FnOnce(Started<T>) -> Op<T>,
) -> Op<T>
where
    H: Send + Sync + 'static,
    T: Send + 'static,
{
    let Some(meter) = held.meter.as_ref().filter(|meter| meter.lane().is_none()) else {
        return settle(start(held, call, cx, begin));
    };
    let mark = Mark::new(meter, call);
    let op = begin(&held.handle, cx);
    drop(mark);
    if matches!(op, Op::Ready(RResult::ROk(_))) {
        return op;
    }
    settle(watched(meter, call, op, None))
}

#[cold]
fn start_elsewhere<H, T>(
    held: Arc<Held<H>>,
    meter: Arc<DriverMeter>,
    call: Call,
    cx: &OpContext,
    begin: impl FnOnce(&H, &OpContext) -> Op<T> + Send + 'static,
    admitted: Option<Admitted>,
    lane: &Lane,
) -> Started<T>
where
    H: Send + Sync + 'static,
    T: Send + 'static,
{
    // The caller's allocator belongs to the caller's thread.
    let cx = cx.with_allocator(plain_buffer);
    let task = lane.spawn(async move {
        let _admitted = admitted;
        let mark = Mark::new(&meter, call);
        let op = begin(&held.handle, &cx);
        drop(mark);
        match op {
            Op::Ready(result) => {
                let result = result.into();
                note(&meter, call, &result);
                result
            }
            Op::Pending(future) => finish(future, Some(meter), call).await,
        }
    });
    Started::Pending(Guarded::elsewhere(task, call))
}

/// For a context that goes to another thread than its allocator's.
pub(super) extern "C" fn plain_buffer(len: usize) -> IoBufMut {
    IoBufMut::zeroed(len)
}

/// Makes a call that answers at once, under watch. It stays on the caller's thread: the ABI says it must not block.
pub(super) fn ask<H, T>(
    held: &Held<H>,
    call: Call,
    question: impl FnOnce(&H) -> Result<T>,
) -> Result<T>
where
    H: Send + 'static,
{
    let Some(meter) = &held.meter else { return question(&held.handle) };
    let mark = Mark::new(meter, call);
    let result = question(&held.handle);
    drop(mark);
    note(meter, call, &result);
    result
}
