// SPDX-License-Identifier: Apache-2.0
//! Volumes as the host uses them: every call into a driver is watched.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Poll},
};

use driver_api::{Capabilities, IoBuf, Op, OpContext, OpFuture, Result, VolumeHandle, WriteFlags};

/// An attached volume whose driver is watched. A cheap handle.
#[derive(Clone, Debug)]
pub struct GuardedVolume {
    volume: VolumeHandle,
}

/// An operation that a driver has started.
#[must_use]
pub enum Started<T> {
    /// It is finished.
    Ready(Result<T>),
    /// It goes on while polled. A mutation must be polled to its end.
    Pending(Guarded<T>),
}

/// A driver's future, watched while it is polled.
#[must_use]
pub struct Guarded<T> {
    future: OpFuture<T>,
}

impl<T> Future for Guarded<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.future).poll(cx)
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

impl<T> From<Op<T>> for Started<T> {
    fn from(op: Op<T>) -> Self {
        match op {
            Op::Ready(result) => Self::Ready(result.into()),
            Op::Pending(future) => Self::Pending(Guarded { future }),
        }
    }
}

impl GuardedVolume {
    /// Watches `volume`.
    pub fn new(volume: VolumeHandle) -> Self {
        Self { volume }
    }

    /// The unwatched volume, for its abilities.
    pub fn handle(&self) -> &VolumeHandle {
        &self.volume
    }

    /// Size in bytes.
    pub fn size(&self) -> Result<u64> {
        self.volume.size()
    }

    /// What the volume can do.
    pub fn capabilities(&self) -> Result<Capabilities> {
        self.volume.capabilities()
    }

    /// Starts a read.
    pub fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Started<IoBuf> {
        self.volume.read(cx, offset, len).into()
    }

    /// Starts a write.
    pub fn write(
        &self,
        cx: &OpContext,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Started<()> {
        self.volume.write(cx, offset, data, flags).into()
    }

    /// Starts a flush.
    pub fn flush(&self, cx: &OpContext) -> Started<()> {
        self.volume.flush(cx).into()
    }

    /// Starts a discard.
    pub fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Started<()> {
        self.volume.discard(cx, offset, len).into()
    }

    /// Starts writing zeros.
    pub fn write_zeroes(
        &self,
        cx: &OpContext,
        offset: u64,
        len: u64,
        flags: WriteFlags,
    ) -> Started<()> {
        self.volume.write_zeroes(cx, offset, len, flags).into()
    }

    /// Starts detaching.
    pub fn detach(&self, cx: &OpContext) -> Started<()> {
        self.volume.detach(cx).into()
    }
}
