// SPDX-License-Identifier: Apache-2.0
//! The data path: librbd's asynchronous calls as futures.
//!
//! An operation is a box that librbd holds until it calls back, with the buffer, a use of the image and the sender of the
//! answer. The callback takes the return value, releases the completion, gives up the image, and only then sends: whoever
//! hears the answer may close the image, which must not happen in a callback. A future that is dropped leaves the box
//! as it is.

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
    attached::Attached,
    counters::{Counter, Counters},
    error::{failed, internal},
    ffi,
};

/// The memory that librbd reads or writes.
enum Buffer {
    None,
    /// Kept, not looked at: librbd reads it until it calls back.
    Source {
        _data: IoBuf,
    },
    Target(IoBufMut),
}

/// An operation under way.
struct Call {
    attached: Arc<Attached>,
    what: &'static str,
    changes: bool,
    counter: fn(&Counters) -> &Counter,
    bytes: u64,
    begun: Instant,
    buffer: Buffer,
    answer: oneshot::Sender<Result<Buffer>>,
}

impl Call {
    /// The last thing that happens to it.
    fn end(self, code: i64) {
        let Self { attached, what, changes, counter, bytes, begun, buffer, answer } = self;
        let judged = match attached.judge(what, code, changes) {
            Ok(()) => match &buffer {
                Buffer::Target(target) if code as u64 != target.len() as u64 => {
                    Err(internal(format!("{what}: {code} of {} bytes came", target.len())))
                }
                _ => Ok(()),
            },
            refused => refused,
        };
        counter(&attached.counters).ended(bytes, begun, judged.is_ok());
        attached.leave();
        drop(attached);
        // Nobody waits any more: the operation's effect counts, not its answer.
        let _ = answer.send(judged.map(|()| buffer));
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

/// Begins an operation.
fn begin(
    attached: &Arc<Attached>,
    (what, changes): (&'static str, bool),
    (counter, bytes): (fn(&Counters) -> &Counter, u64),
    mut buffer: Buffer,
    submit: impl FnOnce(ffi::Image, *mut u8, ffi::Completion) -> c_int,
) -> Result<oneshot::Receiver<Result<Buffer>>> {
    let image = match attached.enter() {
        Ok(image) => image,
        Err(error) => {
            counter(&attached.counters).refused();
            return Err(error);
        }
    };
    counter(&attached.counters).begun();
    let memory = match &mut buffer {
        Buffer::None => ptr::null_mut(),
        Buffer::Source { _data: data } => data.as_ptr().cast_mut(),
        Buffer::Target(target) => target.as_mut_ptr(),
    };
    let (answer, receiver) = oneshot::channel();
    let (attached, begun) = (Arc::clone(attached), Instant::now());
    let call = Call { attached, what, changes, counter, bytes, begun, buffer, answer };
    let arg: *mut Call = Box::into_raw(Box::new(call));
    let mut completion = ptr::null_mut();
    // SAFETY: the callback has the type that librbd wants, the pointers are valid for the call.
    let made = unsafe { ffi::rbd_aio_create_completion(arg.cast(), completed, &mut completion) };
    let submitted = if made < 0 { made } else { submit(image.0, memory, completion) };
    if submitted >= 0 {
        return Ok(receiver);
    }
    if made >= 0 {
        // SAFETY: nothing was submitted, so librbd does not call back.
        unsafe { ffi::rbd_aio_release(completion) };
    }
    // SAFETY: as above: the box is nobody else's.
    let call = unsafe { Box::from_raw(arg) };
    call.end(submitted.into());
    Ok(receiver)
}

async fn answered(receiver: oneshot::Receiver<Result<Buffer>>) -> Result<Buffer> {
    receiver.await.unwrap_or_else(|_| Err(internal("an answer of the cluster was lost")))
}

fn until_done(begun: Result<oneshot::Receiver<Result<Buffer>>>) -> Op<()> {
    match begun {
        Ok(receiver) => Op::run(async move { answered(receiver).await.map(drop) }),
        Err(error) => Op::err(error),
    }
}

/// Reads into `target`.
pub(crate) fn read(attached: &Arc<Attached>, offset: u64, target: IoBufMut) -> Op<IoBuf> {
    let len = target.len();
    let begun = begin(
        attached,
        ("the read failed", false),
        (|counters| &counters.reads, len as u64),
        Buffer::Target(target),
        // SAFETY: the image is in use until the callback, and so long the box keeps the memory.
        |image, memory, completion| unsafe {
            ffi::rbd_aio_read(image, offset, len, memory.cast(), completion)
        },
    );
    match begun {
        Ok(receiver) => Op::run(async move {
            match answered(receiver).await? {
                Buffer::Target(target) => Ok(target.freeze()),
                _ => Err(lost_buffer()),
            }
        }),
        Err(error) => Op::err(error),
    }
}

fn lost_buffer() -> Error {
    internal("a read came back without its buffer")
}

/// Writes `data`: acknowledged once all replicas have it on disk, for there is no cache.
pub(crate) fn write(attached: &Arc<Attached>, offset: u64, data: IoBuf) -> Op<()> {
    let len = data.len();
    until_done(begin(
        attached,
        ("the write failed", true),
        (|counters| &counters.writes, len as u64),
        Buffer::Source { _data: data },
        // SAFETY: as for a read.
        |image, memory, completion| unsafe {
            ffi::rbd_aio_write(image, offset, len, memory.cast_const().cast(), completion)
        },
    ))
}

/// Zeros at most this many bytes at once: each object of the range is a request of its own.
const ZERO_STEP: u64 = 1 << 30;

/// Zeros a range; what is zeroed stays allocated if `thick`.
///
/// librbd's discard leaves alone what is not aligned to its granularity, so that its zeros are asked for instead: whole
/// objects are removed, the rest is truncated or zeroed.
pub(crate) fn zero(attached: &Arc<Attached>, offset: u64, len: u64, thick: bool) -> Op<()> {
    let first = zero_step(attached, offset, len.min(ZERO_STEP), thick);
    if len <= ZERO_STEP {
        return until_done(first);
    }
    let attached = Arc::clone(attached);
    Op::run(async move {
        let (mut step, mut at) = (first, offset + ZERO_STEP);
        loop {
            answered(step?).await?;
            if at >= offset + len {
                return Ok(());
            }
            let part = (offset + len - at).min(ZERO_STEP);
            step = zero_step(&attached, at, part, thick);
            at += part;
        }
    })
}

fn zero_step(
    attached: &Arc<Attached>,
    offset: u64,
    len: u64,
    thick: bool,
) -> Result<oneshot::Receiver<Result<Buffer>>> {
    let Ok(bytes) = usize::try_from(len) else {
        return Err(failed("the range cannot be zeroed", -i64::from(libc::EINVAL)));
    };
    let flags = if thick { ffi::ZEROES_THICK } else { 0 };
    begin(
        attached,
        ("the range cannot be zeroed", true),
        (|counters| &counters.zeroes, len),
        Buffer::None,
        // SAFETY: the image is in use until the callback.
        |image, _, completion| unsafe {
            ffi::rbd_aio_write_zeroes(image, offset, bytes, completion, flags, 0)
        },
    )
}

/// Waits until every write acknowledged before is durable; fails once a write has failed.
pub(crate) fn flush(attached: &Arc<Attached>) -> Op<()> {
    if let Err(error) = attached.check_doubt() {
        attached.counters.flushes.refused();
        // That another has the volume is the better answer.
        return match attached.enter() {
            Ok(_) => {
                attached.leave();
                Op::err(error)
            }
            Err(closed) => Op::err(closed),
        };
    }
    let begun = begin(
        attached,
        ("the flush failed", true),
        (|counters| &counters.flushes, 0),
        Buffer::None,
        // SAFETY: as above.
        |image, _, completion| unsafe { ffi::rbd_aio_flush(image, completion) },
    );
    match begun {
        Ok(receiver) => {
            let attached = Arc::clone(attached);
            Op::run(async move {
                answered(receiver).await?;
                // A write may have failed while the flush was under way.
                attached.check_doubt()
            })
        }
        Err(error) => Op::err(error),
    }
}
