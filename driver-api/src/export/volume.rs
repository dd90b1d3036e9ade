// SPDX-License-Identifier: Apache-2.0
//! The exported volume: refuses what no volume may be asked, then asks the author's code.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RVec},
};

use super::{Contained, ask, sessions::export_sessions, start};
use crate::{
    Abilities, AllocationMapHandle, Capabilities, Error, ErrorKind, Host, IoBuf, Op, OpContext,
    ResizeHandle, Result, SessionsHandle, SnapshotsHandle, Stats, Volume, VolumeHandle, WriteFlags,
    abi::{
        RawAllocationMap, RawAllocationMap_TO, RawResize, RawResize_TO, RawSnapshots,
        RawSnapshots_TO, RawVolume, RawVolume_TO,
    },
    ext,
};

/// A volume as the other side holds it.
pub fn export_volume<V: Volume>(volume: V, host: Host) -> VolumeHandle {
    export_attached(volume, host, true)
}

/// A layer's volume: what it forwards is checked below it, against the one true size.
pub(super) fn export_layered<V: Volume>(volume: V, host: Host) -> VolumeHandle {
    export::<V, false>(volume, host, true)
}

pub(super) fn export_attached<V: Volume>(volume: V, host: Host, writable: bool) -> VolumeHandle {
    export::<V, true>(volume, host, writable)
}

fn export<V: Volume, const CHECKED: bool>(volume: V, host: Host, writable: bool) -> VolumeHandle {
    let mut limits = volume.capabilities();
    limits.min_block = limits.min_block.next_power_of_two();
    if !writable {
        limits.abilities = limits.abilities.without(MUTATIONS);
    }
    export_limited::<V, CHECKED>(volume, host, limits, writable, false)
}

fn export_limited<V: Volume, const CHECKED: bool>(
    volume: V,
    host: Host,
    limits: Capabilities,
    writable: bool,
    session: bool,
) -> VolumeHandle {
    let volume = Contained::new(volume, host);
    let glue = VolumeGlue::<V, CHECKED> { volume, limits, writable, session };
    VolumeHandle { raw: RawVolume_TO::from_ptr(RArc::new(glue), TD_Opaque) }
}

const MUTATIONS: Abilities = Abilities::WRITE
    .and(Abilities::DISCARD)
    .and(Abilities::WRITE_ZEROES)
    .and(Abilities::FAST_ZERO)
    .and(Abilities::GROW)
    .and(Abilities::SHRINK)
    .and(Abilities::ROLLBACK)
    .and(Abilities::PROTECT);

struct VolumeGlue<V, const CHECKED: bool> {
    volume: Contained<V>,
    limits: Capabilities,
    writable: bool,
    /// It is a session's: it cannot end the attachment.
    session: bool,
}

impl<V: Volume, const CHECKED: bool> VolumeGlue<V, CHECKED> {
    /// Refuses a range that is not inside the volume, not aligned, or too long.
    #[inline]
    fn check(&self, offset: u64, len: u64, max: Option<u32>) -> Result<()> {
        if !CHECKED {
            return Ok(());
        }
        let size = self.volume.size();
        let inside = offset <= size && len <= size - offset;
        let aligned = (offset | len) & u64::from(self.limits.min_block - 1) == 0;
        if inside && aligned && max.is_none_or(|max| len <= max.into()) {
            return Ok(());
        }
        Err(self.bad_range(offset, len, size, inside))
    }

    #[cold]
    fn bad_range(&self, offset: u64, len: u64, size: u64, inside: bool) -> Error {
        let refusal = if !inside {
            Error::new(ErrorKind::OUT_OF_RANGE, "the range is not inside the volume")
                .with("size", size)
        } else {
            let why = "the range is not aligned, or is longer than one operation may be";
            Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .with("min_block", self.limits.min_block)
                .with("max_io", self.limits.max_io)
        };
        refusal.with("offset", offset).with("length", len)
    }

    /// Refuses a mutation that the attachment, the driver or this version does not have.
    #[inline]
    fn check_mutation(&self, needs: Abilities, flags: WriteFlags, known: WriteFlags) -> Result<()> {
        if !CHECKED || self.limits.has(needs) && known.has(flags) {
            return Ok(());
        }
        Err(self.bad_mutation(needs, flags))
    }

    fn check_ability(&self, needs: Abilities) -> Result<()> {
        if !CHECKED || self.limits.has(needs) {
            return Ok(());
        }
        let why = "the driver does not declare the ability";
        let names = needs.names().collect::<Vec<_>>().join(", ");
        Err(Error::new(ErrorKind::UNSUPPORTED, why).with("ability", names))
    }

    #[cold]
    fn bad_mutation(&self, needs: Abilities, flags: WriteFlags) -> Error {
        if !self.writable {
            read_only()
        } else if let Err(undeclared) = self.check_ability(needs) {
            undeclared
        } else {
            Error::new(ErrorKind::INVALID_ARGUMENT, "a flag is not known")
                .with("flags", format!("{:#x}", flags.bits()))
        }
    }
}

impl<V: Volume, const CHECKED: bool> RawVolume for VolumeGlue<V, CHECKED> {
    fn size(&self) -> RResult<u64, Error> {
        ask(|| self.volume.size())
    }

    fn capabilities(&self) -> RResult<Capabilities, Error> {
        RResult::ROk(self.limits)
    }

    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        start(|| match self.check(offset, len.into(), Some(self.limits.max_io)) {
            Ok(()) => self.volume.read(cx, offset, len),
            Err(refusal) => Op::err(refusal.during("read")),
        })
    }

    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        let len = data.len() as u64;
        let checked = || {
            self.check_mutation(Abilities::WRITE, flags, WriteFlags::FUA)?;
            self.check(offset, len, Some(self.limits.max_io))
        };
        start(|| match checked() {
            Ok(()) => self.volume.write(cx, offset, data, flags),
            Err(refusal) => Op::err(refusal.during("write")),
        })
    }

    fn flush(&self, cx: &OpContext) -> Op<()> {
        start(|| self.volume.flush(cx))
    }

    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        let checked = || {
            self.check_mutation(Abilities::DISCARD, WriteFlags::NONE, WriteFlags::NONE)?;
            self.check(offset, len, None)
        };
        start(|| match checked() {
            Ok(()) => self.volume.discard(cx, offset, len),
            Err(refusal) => Op::err(refusal.during("discard")),
        })
    }

    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        let checked = || {
            self.check_mutation(Abilities::WRITE_ZEROES, flags, WriteFlags::ALL)?;
            self.check(offset, len, None)
        };
        start(|| match checked() {
            Ok(()) => self.volume.write_zeroes(cx, offset, len, flags),
            Err(refusal) => Op::err(refusal.during("write zeros")),
        })
    }

    fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        let checked = || {
            self.check_ability(Abilities::PREFETCH)?;
            self.check(offset, len, None)
        };
        start(|| match checked() {
            Ok(()) => self.volume.prefetch(cx, offset, len),
            Err(refusal) => Op::err(refusal.during("prefetch")),
        })
    }

    fn detach(&self, cx: &OpContext) -> Op<()> {
        if self.session {
            return Op::err(of_a_session().during("detach"));
        }
        start(|| self.volume.detach(cx))
    }

    fn stats(&self) -> RResult<Stats, Error> {
        ask(|| self.volume.stats())
    }

    fn incarnation(&self) -> RResult<u64, Error> {
        ask(|| self.volume.incarnation())
    }

    fn snapshots(&self) -> RResult<ROption<SnapshotsHandle>, Error> {
        let host = &self.volume.host;
        ask(|| {
            let snapshots = self.volume.snapshots()?;
            let (snapshots, writable) = (Contained::new(snapshots, host.clone()), self.writable);
            let glue = SnapshotsGlue { snapshots, writable };
            Some(SnapshotsHandle { raw: RawSnapshots_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }

    fn resize(&self) -> RResult<ROption<ResizeHandle>, Error> {
        let host = &self.volume.host;
        ask(|| {
            let resize = if self.writable { self.volume.resize() } else { None }?;
            let glue = ResizeGlue(Contained::new(resize, host.clone()));
            Some(ResizeHandle { raw: RawResize_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }

    fn allocation_map(&self) -> RResult<ROption<AllocationMapHandle>, Error> {
        let host = &self.volume.host;
        ask(|| {
            let map = self.volume.allocation_map()?;
            let glue = AllocationMapGlue(Contained::new(map, host.clone()));
            let raw = RawAllocationMap_TO::from_ptr(RArc::new(glue), TD_Opaque);
            Some(AllocationMapHandle { raw })
        })
        .map(Into::into)
    }

    fn sessions(&self) -> RResult<ROption<SessionsHandle>, Error> {
        let (host, limits, writable) = (self.volume.host.clone(), self.limits, self.writable);
        ask(|| {
            let sessions = if self.session { None } else { self.volume.sessions() }?;
            let export = {
                let host = host.clone();
                move |session| {
                    export_limited::<V, CHECKED>(session, host.clone(), limits, writable, true)
                }
            };
            Some(export_sessions(sessions, host, export))
        })
        .map(Into::into)
    }
}

fn of_a_session() -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, "a session does not end the attachment")
        .remedy("detach the volume that the session was opened with")
}

fn read_only() -> Error {
    Error::new(ErrorKind::PERMISSION_DENIED, "the volume is attached read-only")
        .remedy("attach it exclusively to change it")
}

struct SnapshotsGlue {
    snapshots: Contained<Arc<dyn ext::Snapshots>>,
    writable: bool,
}

impl RawSnapshots for SnapshotsGlue {
    fn create(&self, cx: &OpContext, name: RStr<'_>) -> Op<ext::SnapshotInfo> {
        start(|| self.snapshots.create(cx, name.as_str()))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<ext::SnapshotInfo>> {
        start(|| self.snapshots.list(cx))
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.snapshots.delete(cx, name.as_str()))
    }

    fn rollback(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        if !self.writable {
            return Op::err(read_only().during("roll back"));
        }
        start(|| self.snapshots.rollback(cx, name.as_str()))
    }

    fn protect(&self, cx: &OpContext, name: RStr<'_>, on: bool) -> Op<ext::SnapshotInfo> {
        if !self.writable {
            return Op::err(read_only().during("protect"));
        }
        start(|| self.snapshots.protect(cx, name.as_str(), on))
    }
}

struct ResizeGlue(Contained<Arc<dyn ext::Resize>>);

impl RawResize for ResizeGlue {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        start(|| self.0.resize(cx, size, shrink))
    }
}

struct AllocationMapGlue(Contained<Arc<dyn ext::AllocationMap>>);

impl RawAllocationMap for AllocationMapGlue {
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<ext::Extent>> {
        start(|| self.0.extents(cx, offset, len, limit))
    }

    fn changes(
        &self,
        cx: &OpContext,
        from: RStr<'_>,
        to: RStr<'_>,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<ext::Extent>> {
        start(|| self.0.changes(cx, from.as_str(), to.as_str(), offset, len, limit))
    }
}
