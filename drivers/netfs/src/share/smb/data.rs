// SPDX-License-Identifier: Apache-2.0
//! Reading, writing and flushing an open file.

use std::time::Instant;

use bytes::Bytes;
use smb2::{
    msg::{
        flush::FlushRequest,
        read::{ReadRequest, SMB2_CHANNEL_NONE},
    },
    types::{Command, FileId, status::NtStatus},
};

use super::{
    Smb,
    link::credits,
    messages::{Fields, Write, payload},
    status::{accept, accept_part},
};
use crate::{
    error::{Fault, broken_server, internal},
    share::{Read, Written},
};

impl Smb {
    pub(super) async fn read_from(
        &self,
        file: FileId,
        offset: u64,
        length: u32,
        until: Instant,
    ) -> Result<Read, Fault> {
        let request = ReadRequest {
            padding: 0x50,
            flags: 0,
            length,
            offset,
            file_id: file,
            minimum_count: 0,
            channel: SMB2_CHANNEL_NONE,
            remaining_bytes: 0,
            read_channel_info: Vec::new(),
        };
        let answer = self.link.call(Command::Read, &request, credits(length), until).await?;
        if answer.header.status == NtStatus::END_OF_FILE {
            return Ok(Read { data: Bytes::new(), at_end: true, facts: None });
        }
        accept_part(&answer, "read", "")?;
        // A server may give less than there is. It says that the file has ended by giving nothing.
        Ok(Read { data: payload(answer, length)?, at_end: false, facts: None })
    }

    pub(super) async fn write_to(
        &self,
        file: FileId,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Result<Written, Fault> {
        let asked = u32::try_from(data.len()).map_err(|_| internal("a write is too long"))?;
        let request = Write { file, offset, len: asked, durable };
        let paid = credits(asked);
        let answer = self.link.call_with(Command::Write, &request, data, paid, until).await?;
        accept(&answer, "write", "")?;
        let count = Fields(&answer.body).u32(4)?;
        if count == 0 || count > asked {
            let what = format!("the server took {count} of {asked} bytes of a write");
            return Err(broken_server(what).into());
        }
        Ok(Written { count, durable, verifier: self.life, facts: None })
    }

    pub(super) async fn flush(&self, file: FileId, until: Instant) -> Result<(), Fault> {
        let request = FlushRequest { file_id: file };
        let answer = self.link.call(Command::Flush, &request, 1, until).await?;
        accept(&answer, "make writes durable", "")
    }
}
