// SPDX-License-Identifier: Apache-2.0
//! [`Op`]: an operation that was started, and is either finished or a future.

use std::{
    future::{Future, IntoFuture},
    marker::PhantomData,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use abi_stable::{
    StableAbi,
    std_types::{
        RResult,
        RResult::{RErr, ROk},
    },
};

use crate::{
    Error, Result,
    runtime::Entered,
    waker::{WakerRef, with_waker},
};

/// A started operation. Drivers return it, layers pass it on as it is, hosts `.await` it.
///
/// `Ready` costs no allocation, so a driver that has the answer at hand says so; everything else is
/// [`Op::run`] with plain async code.
#[repr(C)]
#[derive(StableAbi)]
#[must_use = "an operation does nothing until awaited"]
pub enum Op<T> {
    /// It is finished.
    Ready(RResult<T, Error>),
    /// It goes on while polled.
    Pending(OpFuture<T>),
}

impl<T> Op<T> {
    /// An operation that succeeded at once.
    pub fn ok(value: T) -> Self {
        Self::Ready(ROk(value))
    }

    /// An operation that failed at once.
    pub fn err(error: Error) -> Self {
        Self::Ready(RErr(error))
    }

    /// An operation that is finished.
    pub fn ready(result: Result<T>) -> Self {
        Self::Ready(result.into())
    }
}

impl<T: Send + 'static> Op<T> {
    /// An operation that `future` will finish, with this driver's tokio at hand while it is polled or dropped.
    pub fn run(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self::Pending(OpFuture::new(future))
    }

    /// The operation with its result passed through `change`.
    pub fn map<U: Send + 'static>(
        self,
        change: impl FnOnce(Result<T>) -> Result<U> + Send + 'static,
    ) -> Op<U> {
        match self {
            Op::Ready(result) => Op::ready(change(result.into())),
            Op::Pending(future) => Op::run(async move { change(future.await) }),
        }
    }
}

impl<T> IntoFuture for Op<T> {
    type Output = Result<T>;
    type IntoFuture = OpWait<T>;

    fn into_future(self) -> OpWait<T> {
        match self {
            Op::Ready(result) => OpWait::Ready(Some(result)),
            Op::Pending(future) => OpWait::Pending(future),
        }
    }
}

impl<T> From<Result<T>> for Op<T> {
    fn from(result: Result<T>) -> Self {
        Self::ready(result)
    }
}

impl<T> From<Error> for Op<T> {
    fn from(error: Error) -> Self {
        Self::err(error)
    }
}

/// Awaits an [`Op`].
pub enum OpWait<T> {
    /// The result until it is taken.
    Ready(Option<RResult<T, Error>>),
    /// The future to poll.
    Pending(OpFuture<T>),
}

impl<T> Unpin for OpWait<T> {}

impl<T> Future for OpWait<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match self.get_mut() {
            OpWait::Ready(result) => match result.take() {
                Some(result) => Poll::Ready(result.into()),
                None => Poll::Pending,
            },
            OpWait::Pending(future) => Pin::new(future).poll(cx),
        }
    }
}

/// What polling an [`OpFuture`] gave.
#[repr(C)]
#[derive(StableAbi)]
pub enum Polled<T> {
    /// Not finished; the waker was kept.
    Pending,
    /// Finished; the future must not be polled again.
    Ready(RResult<T, Error>),
}

/// How a future's maker polls and frees it.
#[repr(C)]
#[derive(StableAbi)]
pub struct FutureVTable<T> {
    poll: unsafe extern "C" fn(*mut (), &WakerRef) -> Polled<T>,
    release: unsafe extern "C" fn(*mut ()),
    /// Zero in this version.
    reserved: [usize; 2],
}

/// A boxed future that any side may poll and drop, from any one thread at a time.
#[repr(C)]
#[derive(StableAbi)]
#[must_use = "futures do nothing unless polled"]
pub struct OpFuture<T> {
    /// Null once it has finished and is freed.
    state: *mut (),
    vtable: *const FutureVTable<T>,
}

// SAFETY: `new` takes only futures that are Send, and polling needs `&mut`.
unsafe impl<T> Send for OpFuture<T> {}

impl<T> Unpin for OpFuture<T> {}

struct VTableOf<T, F>(PhantomData<(T, F)>);

impl<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static> VTableOf<T, F> {
    const VTABLE: FutureVTable<T> =
        FutureVTable { poll: poll_boxed::<T, F>, release: release_boxed::<F>, reserved: [0; 2] };
}

impl<T: Send + 'static> OpFuture<T> {
    /// Boxes `future`. Its panics become errors of kind `Panic`.
    pub fn new<F: Future<Output = Result<T>> + Send + 'static>(future: F) -> Self {
        Self { state: Box::into_raw(Box::new(future)).cast(), vtable: &VTableOf::<T, F>::VTABLE }
    }
}

impl<T> OpFuture<T> {
    fn release(&mut self) {
        let state = std::mem::replace(&mut self.state, std::ptr::null_mut());
        if !state.is_null() {
            // SAFETY: state belongs to the vtable and is given up here, once.
            unsafe { ((*self.vtable).release)(state) };
        }
    }
}

impl<T> Future for OpFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if self.state.is_null() {
            return Poll::Pending;
        }
        let waker = WakerRef::new(cx.waker());
        // SAFETY: state belongs to the vtable, is not yet released, and &mut keeps other pollers out.
        match unsafe { ((*self.vtable).poll)(self.state, &waker) } {
            Polled::Pending => Poll::Pending,
            Polled::Ready(result) => {
                self.release();
                Poll::Ready(result.into())
            }
        }
    }
}

impl<T> Drop for OpFuture<T> {
    fn drop(&mut self) {
        self.release();
    }
}

unsafe extern "C" fn poll_boxed<T, F: Future<Output = Result<T>>>(
    state: *mut (),
    waker: &WakerRef,
) -> Polled<T> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _entered = Entered::new();
        with_waker(waker, |waker| {
            // SAFETY: state is a Box<F> that never moves its content, and the caller has it alone.
            let future = unsafe { Pin::new_unchecked(&mut *state.cast::<F>()) };
            future.poll(&mut Context::from_waker(waker))
        })
    }));
    match polled {
        Ok(Poll::Pending) => Polled::Pending,
        Ok(Poll::Ready(result)) => Polled::Ready(result.into()),
        Err(payload) => Polled::Ready(RErr(crate::panic::error_of(payload))),
    }
}

unsafe extern "C" fn release_boxed<F>(state: *mut ()) {
    // SAFETY: state came from Box::into_raw of a Box<F> and is released once.
    let future = ManuallyDrop::new(unsafe { Box::from_raw(state.cast::<F>()) });
    crate::panic::contain("drop of a future", || {
        let _entered = Entered::new();
        drop(ManuallyDrop::into_inner(future));
    });
}

#[cfg(test)]
#[path = "op_tests.rs"]
mod tests;
