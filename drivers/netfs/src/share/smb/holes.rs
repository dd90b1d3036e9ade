// SPDX-License-Identifier: Apache-2.0
//! What SMB has for ranges of files: zero data, allocated ranges, duplicate extents, copy chunk.

use std::time::Instant;

use driver_api::ErrorKind;
use smb2::{
    msg::{
        flush::FlushRequest,
        ioctl::{
            FSCTL_SRV_COPYCHUNK_WRITE, FSCTL_SRV_REQUEST_RESUME_KEY, IoctlRequest,
            SMB2_0_IOCTL_IS_FSCTL,
        },
    },
    pack::Pack,
    types::{Command, FileId, status::NtStatus},
};

use super::{
    SAME, Smb, lost_answers,
    messages::{Fields, HEADER},
    mux::Frame,
    status::{accept, accept_part},
};
use crate::{
    error::{Fault, broken_server},
    share::{Copied, Offers, Run, Stretch},
};

const SET_ZERO_DATA: u32 = 0x0009_80C8;
const QUERY_ALLOCATED_RANGES: u32 = 0x0009_40CF;
const DUPLICATE_EXTENTS: u32 = 0x0009_8344;
/// Bytes of an answer with ranges: 16 for each.
const LISTING: u32 = 4096;
/// Most bytes of one chunk, and chunks of one call, as servers have them.
const CHUNK: u64 = 1 << 20;
const CHUNKS: u64 = 16;

pub(super) fn control(code: u32, file: FileId, input: Vec<u8>, most: u32) -> IoctlRequest {
    IoctlRequest {
        ctl_code: code,
        file_id: file,
        max_input_response: 0,
        max_output_response: most,
        flags: SMB2_0_IOCTL_IS_FSCTL,
        input_data: input,
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// What a control brings. Offsets count from the beginning of the message's header.
fn output(answer: &Frame) -> Result<&[u8], Fault> {
    let fields = Fields(&answer.body);
    let (at, len) = (fields.u32(32)? as usize, fields.u32(36)? as usize);
    if len == 0 {
        return Ok(&[]);
    }
    let at =
        at.checked_sub(HEADER).ok_or_else(|| broken_server("an answer points before itself"))?;
    fields.bytes(at, len)
}

impl Smb {
    /// Frees a range, durably.
    pub(super) async fn set_zero(
        &self,
        file: FileId,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Result<(), Fault> {
        let zero = control(SET_ZERO_DATA, file, words(&[offset, offset + len]), 0);
        let messages: [(Command, &dyn Pack); 2] =
            [(Command::Ioctl, &zero), (Command::Flush, &FlushRequest { file_id: SAME })];
        let answers = self.link.chain(&messages, until).await?;
        let [zeroed, flushed] = &answers[..] else { return Err(lost_answers()) };
        accept(zeroed, "free a range", "")?;
        accept(flushed, "make a freed range durable", "")
    }

    /// What of a range is data and what a hole, from its beginning on; perhaps not to its end.
    pub(super) async fn runs(
        &self,
        file: FileId,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Result<Vec<Run>, Fault> {
        let asking = control(QUERY_ALLOCATED_RANGES, file, words(&[offset, len]), LISTING);
        let answer = self.link.call(Command::Ioctl, &asking, 1, until).await?;
        let is_part = answer.header.status == NtStatus::BUFFER_OVERFLOW;
        accept_part(&answer, "ask for allocated ranges", "")?;
        let listed = output(&answer)?;
        let (mut at, end, mut runs) = (offset, offset + len, Vec::new());
        for range in listed.chunks_exact(16) {
            let range = Fields(range);
            let (first, length) = (range.u64(0)?, range.u64(8)?);
            // Some servers round outwards.
            let (first, last) = (first.max(at).min(end), first.saturating_add(length).min(end));
            if first > at {
                runs.push(Run { len: first - at, is_hole: true });
                at = first;
            }
            if last > at {
                runs.push(Run { len: last - at, is_hole: false });
                at = last;
            }
        }
        if !is_part && at < end {
            runs.push(Run { len: end - at, is_hole: true });
        }
        Ok(runs)
    }

    /// Tries out what the server can do with an open file, on the bytes behind its end.
    pub(super) async fn try_out_on(
        &self,
        file: FileId,
        size: u64,
        write: bool,
        until: Instant,
    ) -> Result<Offers, Fault> {
        let can = |tried: Result<(), Fault>| match tried {
            Ok(()) => Ok(true),
            Err(Fault::Refused(error)) => {
                tracing::debug!(%error, "the server does not offer it");
                Ok(false)
            }
            Err(fault) => Err(fault),
        };
        let map = can(self.runs(file, 0, 4096, until).await.map(drop))?;
        let punch = write && can(self.set_zero(file, size, 4096, until).await)?;
        Ok(Offers { punch, map })
    }

    /// Shares blocks, or copies them where the server cannot.
    pub(super) async fn clone_or_copy(
        &self,
        from: FileId,
        to: FileId,
        stretch: Stretch,
        may_copy: bool,
        until: Instant,
    ) -> Result<Copied, Fault> {
        match self.duplicate(from, to, stretch, until).await {
            Ok(()) => Ok(Copied::Shared),
            Err(fault) if may_copy && is_missing(&fault) => {
                self.copy_chunks(from, to, stretch, until).await.map(Copied::Bytes)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Has the server copy a range from one file to another, sharing its blocks.
    async fn duplicate(
        &self,
        from: FileId,
        to: FileId,
        stretch: Stretch,
        until: Instant,
    ) -> Result<(), Fault> {
        let input = words(&[from.persistent, from.volatile, stretch.from, stretch.to, stretch.len]);
        let duplicating = control(DUPLICATE_EXTENTS, to, input, 0);
        let answer = self.link.call(Command::Ioctl, &duplicating, 1, until).await?;
        accept(&answer, "share blocks between files", "")?;
        self.flush(to, until).await
    }

    /// Has the server copy a range, durably; how many bytes it has done.
    async fn copy_chunks(
        &self,
        from: FileId,
        to: FileId,
        stretch: Stretch,
        until: Instant,
    ) -> Result<u64, Fault> {
        let asking = control(FSCTL_SRV_REQUEST_RESUME_KEY, from, Vec::new(), 32);
        let answer = self.link.call(Command::Ioctl, &asking, 1, until).await?;
        accept(&answer, "begin to copy on the server", "")?;
        let mut input = Fields(output(&answer)?).bytes(0, 24)?.to_vec();
        let all = stretch.len.min(CHUNK * CHUNKS);
        input.extend_from_slice(&(all.div_ceil(CHUNK) as u32).to_le_bytes());
        input.extend_from_slice(&[0; 4]);
        let mut done = 0;
        while done < all {
            let step = CHUNK.min(all - done);
            input.extend(words(&[stretch.from + done, stretch.to + done, step]));
            done += step;
        }
        let copying = control(FSCTL_SRV_COPYCHUNK_WRITE, to, input, 12);
        let answer = self.link.call(Command::Ioctl, &copying, 1, until).await?;
        accept(&answer, "copy on the server", "")?;
        let copied = u64::from(Fields(output(&answer)?).u32(8)?);
        if copied == 0 || copied > all {
            let what = format!("the server copied {copied} of {all} bytes");
            return Err(broken_server(what).into());
        }
        self.flush(to, until).await?;
        Ok(copied)
    }
}

/// The server, or the file system under it, does not have the operation.
fn is_missing(fault: &Fault) -> bool {
    let missing = [ErrorKind::UNSUPPORTED, ErrorKind::INVALID_ARGUMENT];
    matches!(fault, Fault::Refused(error) if missing.contains(&error.kind()))
}
