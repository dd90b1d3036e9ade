// SPDX-License-Identifier: Apache-2.0
//! An attached volume as checks use it: each answer under a deadline and looked at, contents compared.

use std::time::Duration;

use driver_api::{
    Capabilities, Error, ErrorKind, IoBuf, Op, OpContext, ResizeHandle, SnapshotsHandle,
    VolumeHandle, WriteFlags,
    ext::{Resize as _, SnapshotInfo, Snapshots as _},
};

/// Why a check does not go on.
#[derive(Debug, Clone)]
pub(crate) enum Stop {
    Failed(String),
    NotClaimed(String),
}

pub(crate) type Checked<T = ()> = Result<T, Stop>;

/// Ends the check: the promise is broken.
pub(crate) fn broken<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::Failed(reason.into()))
}

/// Ends the check: the driver does not claim what it asks for.
pub(crate) fn not_claimed<T>(reason: impl Into<String>) -> Checked<T> {
    Err(Stop::NotClaimed(reason.into()))
}

/// Goes on if `kept`.
pub(crate) fn ensure(kept: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { broken(otherwise()) }
}

/// The answer of an operation, whatever it is; no answer, a panic or an error without words ends the check.
pub(crate) async fn answer<T>(
    deadline: Duration,
    what: &str,
    op: Op<T>,
) -> Checked<Result<T, Error>> {
    match tokio::time::timeout(deadline, op.into_future()).await {
        Err(_) => broken(format!("`{what}` did not answer within {deadline:?}")),
        Ok(Ok(value)) => Ok(Ok(value)),
        Ok(Err(error)) => sound(what, &error).map(|()| Err(error)),
    }
}

/// Whether an error is one that an operator can act on.
pub(crate) fn sound(what: &str, error: &Error) -> Checked {
    if error.kind() == ErrorKind::PANIC {
        return broken(format!("`{what}` panicked: {error}"));
    }
    let speaks = !error.message().trim().is_empty();
    ensure(speaks, || format!("`{what}` failed with {:?} and an empty message", error.kind()))
}

/// The value; an error ends the check.
pub(crate) fn success<T>(what: &str, answer: Result<T, Error>) -> Checked<T> {
    answer.or_else(|error| broken(format!("`{what}` failed: {error:?}")))
}

/// The error, which must be there and of one of these kinds.
pub(crate) fn refusal<T>(
    what: &str,
    answer: Result<T, Error>,
    kinds: &[ErrorKind],
) -> Checked<Error> {
    match answer {
        Ok(_) => broken(format!("{what} succeeded; expected {kinds:?}")),
        Err(error) if kinds.contains(&error.kind()) => Ok(error),
        Err(error) => broken(format!("{what} failed with {error:?}; expected {kinds:?}")),
    }
}

/// An attached volume.
#[derive(Clone)]
pub(crate) struct Vol {
    pub handle: VolumeHandle,
    pub name: String,
    pub caps: Capabilities,
    pub epoch: u64,
    pub deadline: Duration,
}

impl Vol {
    /// The context of an operation of this attachment.
    pub(crate) fn cx(&self) -> OpContext {
        OpContext::new().with_timeout(self.deadline).with_epoch(self.epoch)
    }

    /// The unit of checks: what is torn or whole after a crash, and what every range is a multiple of.
    pub(crate) fn sector(&self) -> u64 {
        u64::from(self.caps.min_block).max(512)
    }

    pub(crate) fn size(&self) -> Checked<u64> {
        success("size", self.handle.size())
    }

    pub(crate) async fn try_read(&self, offset: u64, len: u64) -> Checked<Result<IoBuf, Error>> {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let answer =
            answer(self.deadline, "read", self.handle.read(&self.cx(), offset, len)).await?;
        if let Ok(data) = &answer
            && data.len() as u64 != u64::from(len)
        {
            return broken(format!("a read of {len} bytes at {offset} gave {}", data.len()));
        }
        Ok(answer)
    }

    pub(crate) async fn read(&self, offset: u64, len: u64) -> Checked<IoBuf> {
        success("read", self.try_read(offset, len).await?)
    }

    pub(crate) async fn try_write(
        &self,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> Checked<Result<(), Error>> {
        let data = IoBuf::copy_from(data);
        answer(self.deadline, "write", self.handle.write(&self.cx(), offset, data, flags)).await
    }

    pub(crate) async fn write(&self, offset: u64, data: &[u8]) -> Checked {
        success("write", self.try_write(offset, data, WriteFlags::NONE).await?)
    }

    /// Writes in pieces that the volume allows.
    pub(crate) async fn write_whole(&self, offset: u64, data: &[u8]) -> Checked {
        let piece = self.piece() as usize;
        for (index, part) in data.chunks(piece).enumerate() {
            self.write(offset + (index * piece) as u64, part).await?;
        }
        Ok(())
    }

    pub(crate) async fn flush(&self) -> Checked {
        success("flush", answer(self.deadline, "flush", self.handle.flush(&self.cx())).await?)
    }

    pub(crate) async fn try_discard(&self, offset: u64, len: u64) -> Checked<Result<(), Error>> {
        answer(self.deadline, "discard", self.handle.discard(&self.cx(), offset, len)).await
    }

    pub(crate) async fn try_prefetch(&self, offset: u64, len: u64) -> Checked<Result<(), Error>> {
        answer(self.deadline, "prefetch", self.handle.prefetch(&self.cx(), offset, len)).await
    }

    pub(crate) async fn try_zero(
        &self,
        offset: u64,
        len: u64,
        flags: WriteFlags,
    ) -> Checked<Result<(), Error>> {
        let op = self.handle.write_zeroes(&self.cx(), offset, len, flags);
        answer(self.deadline, "write_zeroes", op).await
    }

    pub(crate) async fn try_detach(&self) -> Checked<Result<(), Error>> {
        answer(self.deadline, "detach", self.handle.detach(&self.cx())).await
    }

    pub(crate) async fn detach(&self) -> Checked {
        success("detach", self.try_detach().await?)
    }

    /// Reads in pieces that the volume allows, and compares.
    pub(crate) async fn expect(&self, offset: u64, wanted: &[u8], when: &str) -> Checked {
        let piece = self.piece();
        let mut at = 0;
        while at < wanted.len() {
            let len = (wanted.len() - at).min(piece as usize);
            let found = self.read(offset + at as u64, len as u64).await?;
            // In an unoptimised build slices compare much faster than bytes one by one.
            if found[..] != wanted[at..at + len] {
                let pairs = || found.iter().zip(&wanted[at..]);
                let differs = pairs().take_while(|(found, wanted)| found == wanted).count();
                let place = offset + (at + differs) as u64;
                let (found, wanted) = (found[differs], wanted[at + differs]);
                return broken(format!(
                    "{when}: byte {place} of {} is {found:#04x}, not {wanted:#04x}",
                    self.name
                ));
            }
            at += len;
        }
        Ok(())
    }

    pub(crate) async fn expect_zeros(&self, offset: u64, len: u64, when: &str) -> Checked {
        let piece = vec![0; self.piece() as usize];
        let mut at = offset;
        while at < offset + len {
            let part = (offset + len - at).min(self.piece());
            self.expect(at, &piece[..part as usize], when).await?;
            at += part;
        }
        Ok(())
    }

    /// A comfortable I/O size.
    fn piece(&self) -> u64 {
        let most = u64::from(self.caps.max_io).min(1 << 20);
        most - most % u64::from(self.caps.min_block)
    }

    pub(crate) fn snapshots(&self) -> Checked<SnapshotsHandle> {
        let handle = success("snapshots", self.handle.snapshots())?;
        handle.map_or_else(|| broken("snapshots are claimed, but there is no accessor"), Ok)
    }

    pub(crate) async fn snapshot(&self, name: &str) -> Checked {
        let op = self.snapshots()?.create(&self.cx(), name);
        success("snapshot", answer(self.deadline, "snapshot", op).await?).map(|_| ())
    }

    pub(crate) async fn rollback(&self, name: &str) -> Checked {
        let op = self.snapshots()?.rollback(&self.cx(), name);
        success("rollback", answer(self.deadline, "rollback", op).await?)
    }

    pub(crate) async fn snapshot_names(&self) -> Checked<Vec<String>> {
        let op = self.snapshots()?.list(&self.cx());
        let list = answer(self.deadline, "list of snapshots", op).await?;
        let list = success("list of snapshots", list)?;
        Ok(list.iter().map(|snapshot| snapshot.name.to_string()).collect())
    }

    pub(crate) async fn try_delete_snapshot(&self, name: &str) -> Checked<Result<(), Error>> {
        let op = self.snapshots()?.delete(&self.cx(), name);
        answer(self.deadline, "delete of a snapshot", op).await
    }

    pub(crate) async fn try_protect(
        &self,
        name: &str,
        on: bool,
    ) -> Checked<Result<SnapshotInfo, Error>> {
        let op = self.snapshots()?.protect(&self.cx(), name, on);
        answer(self.deadline, "protect", op).await
    }

    pub(crate) async fn protected_names(&self) -> Checked<Vec<String>> {
        let op = self.snapshots()?.list(&self.cx());
        let list = answer(self.deadline, "list of snapshots", op).await?;
        let list = success("list of snapshots", list)?;
        let kept = list.iter().filter(|snapshot| snapshot.is_protected());
        Ok(kept.map(|snapshot| snapshot.name.to_string()).collect())
    }

    fn resizing(&self) -> Checked<ResizeHandle> {
        let handle = success("resize", self.handle.resize())?;
        handle.map_or_else(|| broken("resizing is claimed, but there is no accessor"), Ok)
    }

    pub(crate) async fn try_resize(&self, size: u64, shrink: bool) -> Checked<Result<(), Error>> {
        let op = self.resizing()?.resize(&self.cx(), size, shrink);
        answer(self.deadline, "resize", op).await
    }

    pub(crate) async fn resize(&self, size: u64, shrink: bool) -> Checked {
        success("resize", self.try_resize(size, shrink).await?)?;
        let now = self.size()?;
        ensure(now == size, || format!("after a resize to {size} bytes the volume has {now}"))
    }
}
