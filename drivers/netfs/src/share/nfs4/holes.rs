// SPDX-License-Identifier: Apache-2.0
//! What NFSv4.2 has for ranges of files: DEALLOCATE, SEEK, CLONE and COPY.

use std::time::Instant;

use bytes::Bytes;

use super::{
    Nfs4,
    compound::{Compound, op},
    status::{Failed, Status},
};
use crate::{
    error::{Fault, broken_server},
    share::{Copied, Offers, Run, Stretch},
};

const SEEK_DATA: u32 = 0;
const SEEK_HOLE: u32 = 1;
/// Runs of one answer.
const MOST_RUNS: usize = 128;

impl Nfs4 {
    /// Whether the version that is spoken has operations for ranges.
    pub(super) fn has_ranges(&self) -> bool {
        self.opens.session.wire.minor >= 2
    }

    /// Shares blocks, or copies them where the server cannot.
    pub(super) async fn clone_or_copy(
        &self,
        from: Result<&Bytes, Fault>,
        to: Result<&Bytes, Fault>,
        stretch: Stretch,
        may_copy: bool,
        until: Instant,
    ) -> Result<Copied, Fault> {
        let (from, to) = (from?, to?);
        match self.clone_blocks(from, to, stretch, until).await {
            Ok(()) => Ok(Copied::Shared),
            Err(failed) if may_copy && failed.status().is_some_and(is_missing) => {
                let copied = self.copy_bytes(from, to, stretch, until).await;
                copied.map(Copied::Bytes).map_err(|failed| failed.told("copy on the server", ""))
            }
            Err(failed) => Err(failed.told("share blocks between files", "")),
        }
    }

    /// Frees a range, durably.
    pub(super) async fn deallocate(
        &self,
        handle: &Bytes,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Result<(), Failed> {
        let state = self.opens.state(handle, true)?;
        let mut freeing = Compound::on(handle);
        freeing.op(op::DEALLOCATE).fixed(&state).u64(offset).u64(len);
        // The answer has no verifier: a commit in the same call, and so in the same life of the server, does without.
        freeing.op(op::COMMIT).u64(0).u32(0);
        let mut reply = self.ask(freeing, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::DEALLOCATE)?;
        reply.next(op::COMMIT)?.fixed::<8>().map(drop).map_err(Failed::from)
    }

    /// The first byte from `offset` on that is (not) in a hole; `None` if the file ends before.
    async fn seek(
        &self,
        handle: &Bytes,
        offset: u64,
        what: u32,
        until: Instant,
    ) -> Result<Option<u64>, Failed> {
        let state = self.opens.state(handle, false)?;
        let mut seeking = Compound::on(handle);
        seeking.op(op::SEEK).fixed(&state).u64(offset).u32(what);
        let mut reply = self.ask(seeking, until).await?;
        reply.next(op::PUTFH)?;
        match reply.next(op::SEEK) {
            Ok(told) => {
                let (at_end, at) = (told.bool()?, told.u64()?);
                if at < offset && !at_end {
                    let what = format!("the server looked from byte {offset} on and found {at}");
                    return Err(Failed::Call(broken_server(what).into()));
                }
                Ok((at >= offset && !(at_end && what == SEEK_DATA)).then_some(at))
            }
            // There is no data behind it.
            Err(Failed::Status(Status::NXIO)) => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// What of a range is data and what a hole, from its beginning on; perhaps not to its end.
    pub(super) async fn runs(
        &self,
        handle: &Bytes,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Result<Vec<Run>, Failed> {
        let end = offset + len;
        let (mut at, mut runs) = (offset, Vec::new());
        while at < end && runs.len() < MOST_RUNS {
            let data = self.seek(handle, at, SEEK_DATA, until).await?.map_or(end, |at| at.min(end));
            if data > at {
                runs.push(Run { len: data - at, is_hole: true });
            }
            at = data;
            if at < end {
                // Behind its data each file has a hole, if only behind its end.
                let hole = self.seek(handle, at, SEEK_HOLE, until).await?;
                let hole = hole.filter(|hole| *hole > at).map_or(end, |at| at.min(end));
                runs.push(Run { len: hole - at, is_hole: false });
                at = hole;
            }
        }
        Ok(runs)
    }

    /// Tries out what the server can do with an open file, on the bytes behind its end.
    pub(super) async fn try_out_on(
        &self,
        handle: &Bytes,
        size: u64,
        write: bool,
        until: Instant,
    ) -> Result<Offers, Fault> {
        let can = |tried: Result<(), Failed>| match tried {
            Ok(()) => Ok(true),
            Err(failed) => match failed.told("try out what the server can do", "") {
                Fault::Refused(error) => {
                    tracing::debug!(%error, "the server does not offer it");
                    Ok(false)
                }
                fault => Err(fault),
            },
        };
        let map = can(self.seek(handle, 0, SEEK_HOLE, until).await.map(drop))?;
        let punch = write && can(self.deallocate(handle, size, 4096, until).await)?;
        Ok(Offers { punch, map })
    }

    /// Has the server copy a range from one file to another, sharing its blocks with CLONE. Not durable by itself.
    async fn clone_blocks(
        &self,
        from: &Bytes,
        to: &Bytes,
        stretch: Stretch,
        until: Instant,
    ) -> Result<(), Failed> {
        let (reading, writing) = (self.opens.state(from, false)?, self.opens.state(to, true)?);
        let mut cloning = Compound::on(from);
        cloning.op(op::SAVEFH);
        cloning.op(op::PUTFH).opaque(to);
        let words = cloning.op(op::CLONE).fixed(&reading).fixed(&writing);
        words.u64(stretch.from).u64(stretch.to).u64(stretch.len);
        cloning.op(op::COMMIT).u64(0).u32(0);
        let mut reply = self.ask(cloning, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::SAVEFH)?;
        reply.next(op::PUTFH)?;
        reply.next(op::CLONE)?;
        reply.next(op::COMMIT)?.fixed::<8>().map(drop).map_err(Failed::from)
    }

    /// Has the server copy a range with COPY, durably; how many bytes it has done.
    async fn copy_bytes(
        &self,
        from: &Bytes,
        to: &Bytes,
        stretch: Stretch,
        until: Instant,
    ) -> Result<u64, Failed> {
        let (reading, writing) = (self.opens.state(from, false)?, self.opens.state(to, true)?);
        let mut copying = Compound::on(from);
        copying.op(op::SAVEFH);
        copying.op(op::PUTFH).opaque(to);
        let words = copying.op(op::COPY).fixed(&reading).fixed(&writing);
        words.u64(stretch.from).u64(stretch.to).u64(stretch.len);
        // In order, to its end, on this server.
        words.u32(1).u32(1).u32(0);
        copying.op(op::COMMIT).u64(0).u32(0);
        let mut reply = self.ask(copying, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::SAVEFH)?;
        reply.next(op::PUTFH)?;
        let told = reply.next(op::COPY)?;
        if told.u32()? != 0 {
            let what = "the server copies in the background, which it was not asked to";
            return Err(Failed::Call(broken_server(what).into()));
        }
        let count = told.u64()?;
        told.u32()?;
        told.fixed::<8>()?;
        told.fixed::<8>()?;
        reply.next(op::COMMIT)?.fixed::<8>()?;
        if count == 0 || count > stretch.len {
            let what = format!("the server copied {count} of {} bytes", stretch.len);
            return Err(Failed::Call(broken_server(what).into()));
        }
        Ok(count)
    }
}

/// The server, or the file system under it, does not have the operation.
fn is_missing(status: Status) -> bool {
    [Status::NOTSUPP, Status::OP_ILLEGAL, Status::UNION_NOTSUPP, Status::INVAL].contains(&status)
}
