// SPDX-License-Identifier: Apache-2.0
//! Backends and volumes as the host uses them: cheap handles whose every call into the driver is watched.

use std::sync::Arc;

use driver_api::{
    Attach, BackendHandle, Capabilities, Health, IoBuf, Op, OpContext, OpFuture, RVec, Result,
    Stats, Usage, VolumeHandle, VolumeInfo, VolumeSpec, WriteFlags,
};

pub use super::started::{Guarded, Started};
use super::{
    call::Call,
    gate::{Admitted, Gate, Pause},
    meter::DriverMeter,
    registry::InUse,
    started::{Held, ask, pass, plain_buffer, start, start_admitted},
};

/// An attached volume whose driver is watched. A cheap handle; the last one to go drops the driver's object.
#[derive(Clone, Debug)]
pub struct GuardedVolume {
    held: Arc<Held<VolumeHandle>>,
    /// Where changes of its content go through, if they can be paused.
    gate: Option<Arc<Gate>>,
}

impl GuardedVolume {
    /// A volume of no driver in particular, such as a test's: nothing is counted, mutations are still finished.
    pub fn new(volume: VolumeHandle) -> Self {
        Self { held: Held::new(volume, None, None), gate: None }
    }

    /// Watches `volume`, which is one of the meter's driver.
    pub fn watched(volume: VolumeHandle, meter: Arc<DriverMeter>) -> Self {
        Self { held: Held::new(volume, Some(meter), None), gate: None }
    }

    /// Watches the volume of a layer, keeping the layer in use and `inner` held until that volume is gone.
    pub(super) fn layered(
        volume: VolumeHandle,
        meter: Arc<DriverMeter>,
        in_use: InUse,
        inner: &Self,
    ) -> Self {
        let keeps = Arc::new((in_use, inner.clone()));
        Self { held: Held::new(volume, Some(meter), Some(keeps)), gate: None }
    }

    /// The volume with a gate of its own: [`GuardedVolume::pause`] holds the changes that come through this handle and
    /// its clones, and those alone.
    pub fn gated(mut self) -> Self {
        self.gate = Some(Arc::default());
        self
    }

    /// Lets no change of the content begin until the pause is dropped. `None` if there is no gate, or somebody else has
    /// paused it.
    pub fn pause(&self) -> Option<Pause> {
        self.gate.as_ref()?.pause()
    }

    /// Waits while the volume is paused; what is to change its content by another way keeps the answer until it has.
    pub async fn admit(&self) -> Option<Admitted> {
        match &self.gate {
            Some(gate) => Some(gate.admit().await),
            None => None,
        }
    }

    /// Starts a change of the content, now or when the pause ends.
    #[inline]
    fn change(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&VolumeHandle, &OpContext) -> Op<()> + Send + 'static,
    ) -> Started<()> {
        let Some(gate) = &self.gate else { return start(&self.held, call, cx, begin) };
        match gate.try_admit() {
            Some(admitted) => start_admitted(&self.held, call, cx, begin, Some(admitted)),
            None => change_later(Arc::clone(&self.held), Arc::clone(gate), call, cx, begin),
        }
    }

    /// Watches another handle of this volume, and keeps this one held until that one is gone. A pause of this one holds
    /// changes through either.
    pub(super) fn beside(&self, volume: VolumeHandle) -> Self {
        let keeps = Arc::new(self.clone());
        let held = Held::new(volume, self.meter().cloned(), Some(keeps));
        Self { held, gate: self.gate.clone() }
    }

    /// The unwatched volume, for what has no method here. Prefer [`GuardedVolume::run`].
    pub fn handle(&self) -> &VolumeHandle {
        self.held.handle()
    }

    /// The driver's meter, if the volume is watched.
    pub fn meter(&self) -> Option<&Arc<DriverMeter>> {
        self.held.meter()
    }

    /// Size in bytes.
    pub fn size(&self) -> Result<u64> {
        ask(&self.held, Call::Size, VolumeHandle::size)
    }

    /// What the volume can do.
    pub fn capabilities(&self) -> Result<Capabilities> {
        ask(&self.held, Call::Capabilities, VolumeHandle::capabilities)
    }

    /// Counters and health figures.
    pub fn stats(&self) -> Result<Stats> {
        ask(&self.held, Call::Stats, VolumeHandle::stats)
    }

    /// Number of the storage's life.
    pub fn incarnation(&self) -> Result<u64> {
        ask(&self.held, Call::Incarnation, VolumeHandle::incarnation)
    }

    /// Starts a read.
    #[inline]
    pub fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Started<IoBuf> {
        start(&self.held, Call::Read, cx, move |volume, cx| volume.read(cx, offset, len))
    }

    /// Starts a write.
    #[inline]
    pub fn write(
        &self,
        cx: &OpContext,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Started<()> {
        self.change(Call::Write, cx, move |volume, cx| volume.write(cx, offset, data, flags))
    }

    /// Starts a flush.
    pub fn flush(&self, cx: &OpContext) -> Started<()> {
        start(&self.held, Call::Flush, cx, VolumeHandle::flush)
    }

    /// Starts a prefetch.
    pub fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Started<()> {
        start(&self.held, Call::Prefetch, cx, move |volume, cx| volume.prefetch(cx, offset, len))
    }

    /// Starts a discard.
    pub fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Started<()> {
        self.change(Call::Discard, cx, move |volume, cx| volume.discard(cx, offset, len))
    }

    /// Starts writing zeros.
    pub fn write_zeroes(
        &self,
        cx: &OpContext,
        offset: u64,
        len: u64,
        flags: WriteFlags,
    ) -> Started<()> {
        self.change(Call::WriteZeroes, cx, move |volume, cx| {
            volume.write_zeroes(cx, offset, len, flags)
        })
    }

    /// Starts detaching.
    pub fn detach(&self, cx: &OpContext) -> Started<()> {
        start(&self.held, Call::Detach, cx, VolumeHandle::detach)
    }

    /// Starts an operation of one of the volume's abilities, named `call`.
    pub fn run<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&VolumeHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        start(&self.held, call, cx, begin)
    }

    /// As [`GuardedVolume::run`], for a caller that passes the answer on; see [`pass`].
    #[inline]
    pub(super) fn pass<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&VolumeHandle, &OpContext) -> Op<T> + Send + 'static,
        settle: impl FnOnce(Started<T>) -> Op<T>,
    ) -> Op<T> {
        pass(&self.held, call, cx, begin, settle)
    }

    /// Asks the volume something that needs no waiting, named `call`.
    pub fn ask<T>(
        &self,
        call: Call,
        question: impl FnOnce(&VolumeHandle) -> Result<T>,
    ) -> Result<T> {
        ask(&self.held, call, question)
    }
}

/// A change that waits for the end of a pause. Nobody knows which thread will poll it then.
#[cold]
fn change_later(
    held: Arc<Held<VolumeHandle>>,
    gate: Arc<Gate>,
    call: Call,
    cx: &OpContext,
    begin: impl FnOnce(&VolumeHandle, &OpContext) -> Op<()> + Send + 'static,
) -> Started<()> {
    let cx = cx.with_allocator(plain_buffer);
    let later = OpFuture::new(async move {
        let admitted = gate.admit().await;
        start_admitted(&held, call, &cx, begin, Some(admitted)).await
    });
    Started::Pending(Guarded::own(later, call))
}

/// An open backend whose driver is watched. A cheap handle; the last one to go, and the last volume attached through
/// it, drop the driver's object and free the driver's build.
#[derive(Clone, Debug)]
pub struct GuardedBackend {
    held: Arc<Held<BackendHandle>>,
}

impl GuardedBackend {
    /// Watches `backend`, which is one of the meter's driver, and keeps that driver in use.
    pub(super) fn new(backend: BackendHandle, meter: Arc<DriverMeter>, in_use: InUse) -> Self {
        Self { held: Held::new(backend, Some(meter), Some(Arc::new(in_use))) }
    }

    /// A backend of no driver in particular, such as a test's: nothing is counted, mutations are still finished.
    pub fn unwatched(backend: BackendHandle) -> Self {
        Self { held: Held::new(backend, None, None) }
    }

    /// The unwatched backend, for tools that look at the driver itself. Prefer [`GuardedBackend::run`]; other drivers
    /// get it by [`lend`](super::lend).
    pub fn handle(&self) -> &BackendHandle {
        self.held.handle()
    }

    /// The driver's meter.
    pub fn meter(&self) -> Option<&Arc<DriverMeter>> {
        self.held.meter()
    }

    /// What its volumes can do.
    pub fn capabilities(&self) -> Result<Capabilities> {
        ask(&self.held, Call::Capabilities, BackendHandle::capabilities)
    }

    /// Counters of the whole backend.
    pub fn stats(&self) -> Result<Stats> {
        ask(&self.held, Call::Stats, BackendHandle::stats)
    }

    /// Starts creating a volume.
    pub fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Started<VolumeInfo> {
        start(&self.held, Call::Create, cx, move |backend, cx| backend.create(cx, spec))
    }

    /// Starts deleting a volume.
    pub fn delete(&self, cx: &OpContext, name: &str) -> Started<()> {
        let name = name.to_owned();
        start(&self.held, Call::Delete, cx, move |backend, cx| backend.delete(cx, &name))
    }

    /// Starts listing all volumes.
    pub fn list(&self, cx: &OpContext) -> Started<RVec<VolumeInfo>> {
        start(&self.held, Call::List, cx, BackendHandle::list)
    }

    /// Starts asking for one volume.
    pub fn show(&self, cx: &OpContext, name: &str) -> Started<VolumeInfo> {
        let name = name.to_owned();
        start(&self.held, Call::Show, cx, move |backend, cx| backend.show(cx, &name))
    }

    /// Attaches a volume. Dropped half-way, the attaching is finished and the volume dropped.
    pub async fn attach(
        &self,
        cx: &OpContext,
        name: &str,
        attach: Attach,
    ) -> Result<GuardedVolume> {
        let owned = name.to_owned();
        let attaching = start(&self.held, Call::Attach, cx, move |backend, cx| {
            backend.attach(cx, &owned, attach)
        });
        let volume = attaching.await?;
        let backend = self.held.clone();
        Ok(GuardedVolume {
            held: Held::new(volume, self.meter().cloned(), Some(backend)),
            gate: None,
        })
    }

    /// Starts asking for the space in the backend.
    pub fn usage(&self, cx: &OpContext) -> Started<Usage> {
        start(&self.held, Call::Usage, cx, BackendHandle::usage)
    }

    /// Starts asking the storage how it is.
    pub fn health(&self, cx: &OpContext) -> Started<Health> {
        start(&self.held, Call::Health, cx, BackendHandle::health)
    }

    /// Starts closing the backend. All volumes are detached.
    pub fn close(&self, cx: &OpContext) -> Started<()> {
        start(&self.held, Call::Close, cx, BackendHandle::close)
    }

    /// Starts an operation of one of the backend's abilities, named `call`.
    pub fn run<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&BackendHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        start(&self.held, call, cx, begin)
    }

    /// As [`GuardedBackend::run`], for a change of a volume's content: see [`GuardedVolume::admit`].
    pub(super) fn run_admitted<T: Send + 'static>(
        &self,
        admitted: Option<Admitted>,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&BackendHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        start_admitted(&self.held, call, cx, begin, admitted)
    }

    /// Asks the backend something that needs no waiting, named `call`.
    pub fn ask<T>(
        &self,
        call: Call,
        question: impl FnOnce(&BackendHandle) -> Result<T>,
    ) -> Result<T> {
        ask(&self.held, call, question)
    }
}
