// SPDX-License-Identifier: Apache-2.0
//! The data path: librbd's asynchronous calls as futures.
//!
//! An operation is a box that librbd holds until it calls back, with the buffer, a use of the image and the sender of the
//! answer. The callback takes the return value, releases the completion, gives up the image, and only then sends: whoever
//! hears the answer may close the image, which must not happen in a callback. A future that is dropped leaves the box
//! as it is.
//!
//! While the volume's client is replaced (renewal.rs) operations wait in their futures, and those that the old client's end
//! interrupts are done again with the new one: until `osd_op_timeout_secs` after they were asked for.

use std::{
    ffi::{c_int, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
    sync::Arc,
    time::Instant,
};

use driver_api::{Error, IoBuf, IoBufMut, Op, Result};
use tokio::sync::oneshot;

use crate::{
    attached::{Attached, Verdict},
    counters::{Counter, Counters},
    error::{failed, internal},
    ffi,
};

/// The memory that librbd reads or writes.
enum Buffer {
    None,
    /// Kept, not looked at: librbd reads it until it calls back.
    Source(IoBuf),
    Target(IoBufMut),
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Work {
    Read {
        offset: u64,
        len: usize,
    },
    Write {
        offset: u64,
        len: usize,
    },
    Zero {
        offset: u64,
        len: usize,
        thick: bool,
    },
    /// With what had been told of writes in doubt when it was asked for.
    Flush {
        heard: u64,
    },
}

impl Work {
    /// What failed, if it does.
    fn failure(self) -> &'static str {
        match self {
            Self::Read { .. } => "the read failed",
            Self::Write { .. } => "the write failed",
            Self::Zero { .. } => "the range cannot be zeroed",
            Self::Flush { .. } => "the flush failed",
        }
    }

    fn changes(self) -> bool {
        !matches!(self, Self::Read { .. })
    }

    fn counter(self, counters: &Counters) -> &Counter {
        match self {
            Self::Read { .. } => &counters.reads,
            Self::Write { .. } => &counters.writes,
            Self::Zero { .. } => &counters.zeroes,
            Self::Flush { .. } => &counters.flushes,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Read { len, .. } | Self::Write { len, .. } | Self::Zero { len, .. } => len as u64,
            Self::Flush { .. } => 0,
        }
    }

    /// Hands it to librbd.
    ///
    /// # Safety
    /// The image and the memory, of the length that is read or written, stay until librbd calls back.
    unsafe fn submit(
        self,
        image: ffi::Image,
        memory: *mut u8,
        completion: ffi::Completion,
    ) -> c_int {
        // SAFETY: the caller promises it.
        unsafe {
            match self {
                Self::Read { offset, len } => {
                    ffi::rbd_aio_read(image, offset, len, memory.cast(), completion)
                }
                Self::Write { offset, len } => {
                    let data = memory.cast_const().cast();
                    ffi::rbd_aio_write(image, offset, len, data, completion)
                }
                Self::Zero { offset, len, thick } => {
                    let flags = if thick { ffi::ZEROES_THICK } else { 0 };
                    ffi::rbd_aio_write_zeroes(image, offset, len, completion, flags, 0)
                }
                Self::Flush { .. } => ffi::rbd_aio_flush(image, completion),
            }
        }
    }
}

/// How an operation has ended, for the figures.
enum End {
    Failed,
    Succeeded,
    Refused,
}

/// An operation from when it is asked for to its end, which the figures hear of wherever that is.
struct Task {
    attached: Arc<Attached>,
    work: Work,
    asked: Instant,
    /// It was handed to librbd.
    tried: bool,
    end: End,
}

impl Task {
    fn new(attached: &Arc<Attached>, work: Work) -> Self {
        work.counter(&attached.counters).begun();
        let (attached, asked) = (Arc::clone(attached), Instant::now());
        Self { attached, work, asked, tried: false, end: End::Failed }
    }

    async fn renewed(&self) -> Result<()> {
        self.attached.renewed(self.asked + self.attached.patience(), self.tried).await
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let counter = self.work.counter(&self.attached.counters);
        match self.end {
            End::Refused => counter.refused(),
            End::Succeeded => counter.ended(self.work.bytes(), self.asked, true),
            End::Failed => counter.ended(self.work.bytes(), self.asked, false),
        }
    }
}

/// How an operation goes on.
enum Step {
    UnderWay(oneshot::Receiver<Step>),
    /// It waits for a new client.
    Waits(Buffer, Task),
    Ended(Result<Buffer>),
}

/// An operation that librbd has.
struct Call {
    task: Task,
    buffer: Buffer,
    answer: oneshot::Sender<Step>,
}

impl Call {
    /// The last thing that happens to it.
    fn end(self, code: i64) {
        let Self { mut task, buffer, answer } = self;
        let work = task.work;
        let judged = match task.attached.judge(work.failure(), code, work.changes()) {
            Verdict::Again => {
                task.attached.leave();
                // Nobody waits any more: whether it had its effect is settled with the old client.
                let _ = answer.send(Step::Waits(buffer, task));
                return;
            }
            Verdict::Failed(error) => Err(error),
            Verdict::Done => match (work, &buffer) {
                (Work::Flush { heard }, _) => task.attached.vouch(heard),
                (_, Buffer::Target(target)) if code as u64 != target.len() as u64 => {
                    let (what, len) = (work.failure(), target.len());
                    Err(internal(format!("{what}: {code} of {len} bytes came")))
                }
                _ => Ok(()),
            },
        };
        if judged.is_ok() {
            task.end = End::Succeeded;
        }
        task.attached.leave();
        drop(task);
        // Nobody waits any more: the operation's effect counts, not its answer.
        let _ = answer.send(Step::Ended(judged.map(|()| buffer)));
    }
}

extern "C" fn completed(completion: ffi::Completion, arg: *mut c_void) {
    // SAFETY: librbd calls back once per completion, with the completion alive; it is released here, once.
    let code = unsafe {
        let code = ffi::rbd_aio_get_return_value(completion);
        ffi::rbd_aio_release(completion);
        code
    };
    // SAFETY: arg is the box that the operation was begun with, and librbd has no use of it any more.
    let call = unsafe { Box::from_raw(arg.cast::<Call>()) };
    // The waiter of a call that panicked sees its channel close.
    if catch_unwind(AssertUnwindSafe(|| call.end(code as i64))).is_err() {
        tracing::error!("an answer of the cluster made the driver panic");
    }
}

/// Begins an operation, unless it has to wait.
fn begin(mut buffer: Buffer, mut task: Task) -> Step {
    let image = match task.attached.enter() {
        Ok(Some(image)) => image,
        Ok(None) => return Step::Waits(buffer, task),
        Err(error) => {
            task.end = End::Refused;
            return Step::Ended(Err(error));
        }
    };
    if let Work::Flush { heard } = task.work
        && let Err(error) = task.attached.vouch(heard)
    {
        task.attached.leave();
        task.end = End::Refused;
        return Step::Ended(Err(error));
    }
    task.tried = true;
    let work = task.work;
    let memory = match &mut buffer {
        Buffer::None => ptr::null_mut(),
        Buffer::Source(data) => data.as_ptr().cast_mut(),
        Buffer::Target(target) => target.as_mut_ptr(),
    };
    let (answer, receiver) = oneshot::channel();
    let arg: *mut Call = Box::into_raw(Box::new(Call { task, buffer, answer }));
    let mut completion = ptr::null_mut();
    // SAFETY: the callback has the type that librbd wants, the pointers are valid for the call.
    let made = unsafe { ffi::rbd_aio_create_completion(arg.cast(), completed, &mut completion) };
    let submitted = match made {
        // SAFETY: the image is in use until the callback, and so long the box keeps the memory.
        0.. => unsafe { work.submit(image.0, memory, completion) },
        failed => failed,
    };
    if submitted >= 0 {
        return Step::UnderWay(receiver);
    }
    if made >= 0 {
        // SAFETY: nothing was submitted, so librbd does not call back.
        unsafe { ffi::rbd_aio_release(completion) };
    }
    // SAFETY: as above: the box is nobody else's.
    let call = unsafe { Box::from_raw(arg) };
    call.end(submitted.into());
    Step::UnderWay(receiver)
}

async fn ended(mut step: Step) -> Result<Buffer> {
    loop {
        step = match step {
            Step::Ended(result) => return result,
            Step::UnderWay(receiver) => {
                receiver.await.map_err(|_| internal("an answer of the cluster was lost"))?
            }
            Step::Waits(buffer, task) => {
                task.renewed().await?;
                begin(buffer, task)
            }
        };
    }
}

fn until_done(step: Step) -> Op<()> {
    match step {
        Step::Ended(Err(error)) => Op::err(error),
        step => Op::run(async move { ended(step).await.map(drop) }),
    }
}

/// Reads into `target`.
pub(crate) fn read(attached: &Arc<Attached>, offset: u64, target: IoBufMut) -> Op<IoBuf> {
    let work = Work::Read { offset, len: target.len() };
    match begin(Buffer::Target(target), Task::new(attached, work)) {
        Step::Ended(Err(error)) => Op::err(error),
        step => Op::run(async move {
            match ended(step).await? {
                Buffer::Target(target) => Ok(target.freeze()),
                _ => Err(lost_buffer()),
            }
        }),
    }
}

fn lost_buffer() -> Error {
    internal("a read came back without its buffer")
}

/// Writes `data`: acknowledged once all replicas have it on disk, for there is no cache.
pub(crate) fn write(attached: &Arc<Attached>, offset: u64, data: IoBuf) -> Op<()> {
    let work = Work::Write { offset, len: data.len() };
    until_done(begin(Buffer::Source(data), Task::new(attached, work)))
}

/// Zeros at most this many bytes at once: each object of the range is a request of its own.
const ZERO_STEP: u64 = 1 << 30;

/// Zeros a range; what is zeroed stays allocated if `thick`.
///
/// librbd's discard leaves alone what is not aligned to its granularity, so that its zeros are asked for instead: whole
/// objects are removed, the rest is truncated or zeroed.
pub(crate) fn zero(attached: &Arc<Attached>, offset: u64, len: u64, thick: bool) -> Op<()> {
    let first = zero_part(attached, offset, len.min(ZERO_STEP), thick);
    if len <= ZERO_STEP {
        return until_done(first);
    }
    let attached = Arc::clone(attached);
    Op::run(async move {
        let (mut part, mut at) = (first, offset + ZERO_STEP);
        loop {
            ended(part).await?;
            if at >= offset + len {
                return Ok(());
            }
            let rest = (offset + len - at).min(ZERO_STEP);
            part = zero_part(&attached, at, rest, thick);
            at += rest;
        }
    })
}

fn zero_part(attached: &Arc<Attached>, offset: u64, len: u64, thick: bool) -> Step {
    let Ok(len) = usize::try_from(len) else {
        let failed = failed("the range cannot be zeroed", -i64::from(libc::EINVAL));
        return Step::Ended(Err(failed));
    };
    begin(Buffer::None, Task::new(attached, Work::Zero { offset, len, thick }))
}

/// Waits until every write acknowledged before is durable; fails to tell of one that failed.
pub(crate) fn flush(attached: &Arc<Attached>) -> Op<()> {
    let work = Work::Flush { heard: attached.doubt.heard() };
    until_done(begin(Buffer::None, Task::new(attached, work)))
}
