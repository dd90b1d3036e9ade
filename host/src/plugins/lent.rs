// SPDX-License-Identifier: Apache-2.0
//! Backends that the host lends to drivers.
//!
//! ```text
//!   borrower's driver ──▶ LentBackend, LentVolume ──▶ GuardedBackend, GuardedVolume ──▶ lender's driver
//!                         (whose volume is it?)       (watchdog, panics)
//! ```
//! A call is watched as one of the lender's driver: that one is named when a thread is held, degraded after a panic, and
//! isolated. What is ready stays ready. A borrower deletes only what it created, and opens for writing only what nobody
//! else has. It can neither close the backend nor run the driver's own commands or its cluster: these are the operator's. Its
//! volumes keep their names: it is known by them what it made.

mod sessions;

use std::{future::Future, pin::Pin, sync::Arc};

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RVec},
};
use driver_api::{
    Abilities, AllocationMapHandle, Attach, AttachMode, BackendHandle, Capabilities, ClonesHandle,
    ClusterHandle, CommandsHandle, Error, ErrorKind, Health, IoBuf, Op, OpContext, ResizeHandle,
    Result, SessionsHandle, SnapshotsHandle, Stats, Usage, VolumeHandle, VolumeInfo, VolumeSpec,
    WriteFlags,
    abi::{
        RawAllocationMap, RawAllocationMap_TO, RawBackend, RawBackend_TO, RawClones, RawClones_TO,
        RawResize, RawResize_TO, RawSessions_TO, RawSnapshots, RawSnapshots_TO, RawVolume,
        RawVolume_TO,
    },
    ext::{Extent, Flattening, SnapshotInfo},
};

use super::{Call, GuardedBackend, GuardedVolume, Started};
use crate::config::validate_name;

/// An answer that may take its time.
type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Who may do as he likes with a volume of a lent backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// Nobody is known to have made it.
    Nobody,
    /// The borrower that asks.
    Borrower,
    /// Somebody else, in words, such as ``volume `web1` of this host``.
    Other(String),
}

/// Remembers which volumes of a lent backend a borrower made, durably.
pub trait Tenure: Send + Sync + 'static {
    /// Whose a volume is.
    fn holder(&self, volume: &str) -> Answer<Holder>;
    /// Notes that the borrower is about to make a volume that nobody has.
    fn claim(&self, volume: &str) -> Answer<()>;
    /// Notes that the borrower's volume is gone.
    fn give_up(&self, volume: &str) -> Answer<()>;
}

/// A backend of this host, named `lender`, for the borrower that `tenure` is about.
pub fn lend(backend: GuardedBackend, lender: &str, tenure: Arc<dyn Tenure>) -> BackendHandle {
    let lent = LentBackend { backend, lender: lender.into(), tenure };
    BackendHandle::from_raw(RawBackend_TO::from_ptr(RArc::new(lent), TD_Opaque))
}

/// An attached volume of the backend `lender`, for a driver.
pub fn lend_volume(volume: GuardedVolume, lender: &str) -> VolumeHandle {
    lent_volume(LentVolume { volume, lender: lender.into() })
}

fn lent_volume(lent: LentVolume) -> VolumeHandle {
    VolumeHandle::from_raw(RawVolume_TO::from_ptr(RArc::new(lent), TD_Opaque))
}

#[derive(Clone)]
struct LentBackend {
    backend: GuardedBackend,
    lender: Arc<str>,
    tenure: Arc<dyn Tenure>,
}

#[derive(Clone)]
struct LentVolume {
    volume: GuardedVolume,
    lender: Arc<str>,
}

/// The borrower did not panic, and must not be taken for the one that did.
#[cold]
fn blame(lender: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::PANIC {
        return error;
    }
    Error::new(ErrorKind::INTERNAL, error.message())
        .during(error.operation())
        .with("backend", lender)
}

fn op<T: Send + 'static>(lender: &Arc<str>, started: Started<T>) -> Op<T> {
    match started {
        Started::Ready(Ok(value)) => Op::ok(value),
        Started::Ready(Err(error)) => Op::err(blame(lender, error)),
        Started::Pending(future) => {
            let lender = lender.clone();
            Op::run(async move { future.await.map_err(|error| blame(&lender, error)) })
        }
    }
}

fn answer<T>(lender: &str, result: Result<T>) -> RResult<T, Error> {
    result.map_err(|error| blame(lender, error)).into()
}

impl LentBackend {
    fn refused(&self, why: String, volume: &str) -> Error {
        Error::new(ErrorKind::PERMISSION_DENIED, why)
            .with("backend", &self.lender)
            .with("volume", volume)
    }

    /// Lets `make` make a volume of this name, and remembers whose it is; what was there before is nobody's new volume.
    async fn make(
        &self,
        cx: &OpContext,
        name: &str,
        make: impl Future<Output = Result<VolumeInfo>>,
    ) -> Result<VolumeInfo> {
        validate_name("volume", name)?;
        let claimed = match self.tenure.holder(name).await? {
            Holder::Borrower => false,
            Holder::Other(whose) => {
                return Err(self.taken(name, &format!("it is {whose}")));
            }
            Holder::Nobody => match self.backend.show(cx, name).await {
                Ok(_) => return Err(self.taken(name, "it was not made by this borrower")),
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {
                    self.tenure.claim(name).await?;
                    true
                }
                Err(error) => return Err(error),
            },
        };
        let made = make.await;
        if claimed
            && let Err(error) = &made
            && certainly_not_made(error.kind())
        {
            self.tenure.give_up(name).await?;
        }
        made
    }

    fn taken(&self, name: &str, why: &str) -> Error {
        let remedy = format!(
            "choose another name, or see whose it is: novastor volume list --unmanaged, backend {}",
            self.lender
        );
        Error::new(ErrorKind::ALREADY_EXISTS, format!("there is a volume of this name; {why}"))
            .during("create volume")
            .with("backend", &self.lender)
            .with("volume", name)
            .remedy(remedy)
    }

    async fn delete_own(&self, cx: &OpContext, name: &str) -> Result<()> {
        validate_name("volume", name)?;
        let why = match self.tenure.holder(name).await? {
            Holder::Borrower => match self.backend.delete(cx, name).await {
                Err(error) if error.kind() != ErrorKind::NOT_FOUND => return Err(error),
                deleted => {
                    self.tenure.give_up(name).await?;
                    return deleted;
                }
            },
            Holder::Other(whose) => {
                format!("a borrower deletes only its own volumes; this is {whose}")
            }
            Holder::Nobody => {
                "a borrower deletes only its own volumes; nobody is known to have made this one"
                    .to_owned()
            }
        };
        // What is not there needs no owner.
        self.backend.show(cx, name).await?;
        Err(self.refused(why, name).during("delete volume").remedy(format!(
            "if it may go: novastor volume adopt {name} --backend {}, then novastor volume delete {name}",
            self.lender
        )))
    }

    async fn attach_free(
        &self,
        cx: &OpContext,
        name: &str,
        attach: Attach,
    ) -> Result<VolumeHandle> {
        validate_name("volume", name)?;
        if attach.mode != AttachMode::READ_ONLY
            && let Holder::Other(whose) = self.tenure.holder(name).await?
        {
            let why = format!("a borrower does not write to what others have; this is {whose}");
            return Err(self.refused(why, name).during("attach volume"));
        }
        let volume = self.backend.attach(cx, name, attach).await?;
        Ok(lent_volume(LentVolume { volume, lender: self.lender.clone() }))
    }

    /// Runs `work` with a copy of this handle; its panics are the lender's.
    fn run<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> Op<T> {
        let (lender, work) = (self.lender.clone(), work(self.clone()));
        Op::run(async move { work.await.map_err(|error| blame(&lender, error)) })
    }
}

/// Whether a failed creation has left nothing, now or later.
fn certainly_not_made(kind: ErrorKind) -> bool {
    let unknown = [
        ErrorKind::TIMED_OUT,
        ErrorKind::UNAVAILABLE,
        ErrorKind::PANIC,
        ErrorKind::INTERNAL,
        ErrorKind::CORRUPTED,
    ];
    ErrorKind::ALL.contains(&kind) && !unknown.contains(&kind)
}

impl RawBackend for LentBackend {
    fn capabilities(&self) -> RResult<Capabilities, Error> {
        let lent = self.backend.capabilities().map(|able| Capabilities {
            abilities: able.abilities.without(Abilities::RENAME),
            ..able
        });
        answer(&self.lender, lent)
    }

    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        let cx = *cx;
        self.run(|lent| async move {
            let name = spec.name.clone();
            lent.make(&cx, &name, async { lent.backend.create(&cx, spec).await }).await
        })
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        let (cx, name) = (*cx, name.to_string());
        self.run(|lent| async move { lent.delete_own(&cx, &name).await })
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        op(&self.lender, self.backend.list(cx))
    }

    fn show(&self, cx: &OpContext, name: RStr<'_>) -> Op<VolumeInfo> {
        match validate_name("volume", name.as_str()) {
            Ok(()) => op(&self.lender, self.backend.show(cx, name.as_str())),
            Err(refusal) => Op::err(refusal),
        }
    }

    fn attach(&self, cx: &OpContext, name: RStr<'_>, attach: Attach) -> Op<VolumeHandle> {
        let (cx, name) = (*cx, name.to_string());
        self.run(|lent| async move { lent.attach_free(&cx, &name, attach).await })
    }

    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        op(&self.lender, self.backend.usage(cx))
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        op(&self.lender, self.backend.health(cx))
    }

    fn stats(&self) -> RResult<Stats, Error> {
        answer(&self.lender, self.backend.stats())
    }

    /// The borrower is done with it; others are not.
    fn close(&self, _cx: &OpContext) -> Op<()> {
        Op::ok(())
    }

    fn clones(&self) -> RResult<ROption<ClonesHandle>, Error> {
        let has = self.backend.ask(Call::Clones, |backend| Ok(backend.clones()?.is_some()));
        let lent = || RawClones_TO::from_ptr(RArc::new(self.clone()), TD_Opaque);
        answer(&self.lender, has.map(|has| has.then(|| ClonesHandle::from_raw(lent())).into()))
    }

    fn commands(&self) -> RResult<ROption<CommandsHandle>, Error> {
        RResult::ROk(ROption::RNone)
    }

    fn cluster(&self) -> RResult<ROption<ClusterHandle>, Error> {
        RResult::ROk(ROption::RNone)
    }

    fn rename(&self, _cx: &OpContext, name: RStr<'_>, _to: RStr<'_>) -> Op<VolumeInfo> {
        let why = "volumes of a lent backend keep their names".to_owned();
        Op::err(self.refused(why, name.as_str()).during("rename").remedy(format!(
            "if it is a volume of this host: novastor volume rename; its backend is {}",
            self.lender
        )))
    }
}

impl RawClones for LentBackend {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: RStr<'_>,
        snapshot: RStr<'_>,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let (cx, source, snapshot) = (*cx, source.to_string(), snapshot.to_string());
        self.run(|lent| async move {
            let name = target.name.clone();
            let clone = async { lent.backend.clone_volume(&cx, &source, &snapshot, target).await };
            lent.make(&cx, &name, clone).await
        })
    }

    fn flatten(&self, cx: &OpContext, volume: RStr<'_>, on: bool) -> Op<()> {
        let (cx, volume) = (*cx, volume.to_string());
        self.run(|lent| async move {
            if let Holder::Other(whose) = lent.tenure.holder(&volume).await? {
                let why = format!("a borrower does not change what others have; this is {whose}");
                return Err(lent.refused(why, &volume).during("flatten"));
            }
            lent.backend.flatten(&cx, &volume, on).await
        })
    }

    fn flattening(&self, cx: &OpContext, volume: RStr<'_>) -> Op<Flattening> {
        op(&self.lender, self.backend.flattening(cx, volume.as_str()))
    }
}

impl LentVolume {
    /// This volume as the ability that `has` finds in it.
    fn ability<H>(
        &self,
        call: Call,
        has: impl FnOnce(&VolumeHandle) -> Result<bool>,
        lent: impl FnOnce(RArc<Self>) -> H,
    ) -> RResult<ROption<H>, Error> {
        let has = self.volume.ask(call, has);
        answer(&self.lender, has.map(|has| has.then(|| lent(RArc::new(self.clone()))).into()))
    }
}

impl RawVolume for LentVolume {
    fn size(&self) -> RResult<u64, Error> {
        answer(&self.lender, self.volume.size())
    }

    fn capabilities(&self) -> RResult<Capabilities, Error> {
        answer(&self.lender, self.volume.capabilities())
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let read = move |volume: &VolumeHandle, cx: &OpContext| volume.read(cx, offset, len);
        self.volume.pass(Call::Read, cx, read, |started| op(&self.lender, started))
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let write =
            move |volume: &VolumeHandle, cx: &OpContext| volume.write(cx, offset, data, flags);
        self.volume.pass(Call::Write, cx, write, |started| op(&self.lender, started))
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        op(&self.lender, self.volume.flush(cx))
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        op(&self.lender, self.volume.discard(cx, offset, len))
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        op(&self.lender, self.volume.write_zeroes(cx, offset, len, flags))
    }

    fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        op(&self.lender, self.volume.prefetch(cx, offset, len))
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        op(&self.lender, self.volume.detach(cx))
    }

    fn stats(&self) -> RResult<Stats, Error> {
        answer(&self.lender, self.volume.stats())
    }

    fn incarnation(&self) -> RResult<u64, Error> {
        answer(&self.lender, self.volume.incarnation())
    }

    fn snapshots(&self) -> RResult<ROption<SnapshotsHandle>, Error> {
        let has = |volume: &VolumeHandle| Ok(volume.snapshots()?.is_some());
        self.ability(Call::Snapshots, has, |lent| {
            SnapshotsHandle::from_raw(RawSnapshots_TO::from_ptr(lent, TD_Opaque))
        })
    }

    fn resize(&self) -> RResult<ROption<ResizeHandle>, Error> {
        let has = |volume: &VolumeHandle| Ok(volume.resize()?.is_some());
        self.ability(Call::Resize, has, |lent| {
            ResizeHandle::from_raw(RawResize_TO::from_ptr(lent, TD_Opaque))
        })
    }

    fn allocation_map(&self) -> RResult<ROption<AllocationMapHandle>, Error> {
        let has = |volume: &VolumeHandle| Ok(volume.allocation_map()?.is_some());
        self.ability(Call::Extents, has, |lent| {
            AllocationMapHandle::from_raw(RawAllocationMap_TO::from_ptr(lent, TD_Opaque))
        })
    }

    fn sessions(&self) -> RResult<ROption<SessionsHandle>, Error> {
        let has = |volume: &VolumeHandle| Ok(volume.sessions()?.is_some());
        self.ability(Call::Sessions, has, |lent| {
            SessionsHandle::from_raw(RawSessions_TO::from_ptr(lent, TD_Opaque))
        })
    }
}

impl RawSnapshots for LentVolume {
    fn create(&self, cx: &OpContext, name: RStr<'_>) -> Op<SnapshotInfo> {
        op(&self.lender, self.volume.snapshot_create(cx, name.as_str()))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        op(&self.lender, self.volume.snapshot_list(cx))
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        op(&self.lender, self.volume.snapshot_delete(cx, name.as_str()))
    }

    fn rollback(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        op(&self.lender, self.volume.rollback(cx, name.as_str()))
    }

    fn protect(&self, cx: &OpContext, name: RStr<'_>, on: bool) -> Op<SnapshotInfo> {
        op(&self.lender, self.volume.snapshot_protect(cx, name.as_str(), on))
    }
}

impl RawResize for LentVolume {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        op(&self.lender, self.volume.resize(cx, size, shrink))
    }
}

impl RawAllocationMap for LentVolume {
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>> {
        op(&self.lender, self.volume.extents(cx, offset, len, limit))
    }

    fn changes(
        &self,
        cx: &OpContext,
        from: RStr<'_>,
        to: RStr<'_>,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<Extent>> {
        let between = (from.as_str(), to.as_str());
        op(&self.lender, self.volume.changes(cx, between, offset, len, limit))
    }
}
