// SPDX-License-Identifier: Apache-2.0
//! What the directory of a share has, and how much room there is.

use std::time::Instant;

use smb2::{
    msg::{
        query_directory::{FileInformationClass, QueryDirectoryFlags, QueryDirectoryRequest},
        query_info::InfoType,
    },
    pack::Pack,
    types::{Command, flags::FileAccessMask, status::NtStatus},
};

use super::{
    Opened, SAME, Smb, THERE, close_same,
    link::credits,
    lost_answers,
    messages::{DIRECTORY, Fields, How, SHARE_ALL, SPACE, create, entries, opened, output, query},
    status::accept,
};
use crate::{
    error::{Fault, broken_server},
    share::{Listed, Space},
};

/// Bytes of one answer when a directory is listed.
const LISTING: u32 = 64 << 10;
/// Entries of a directory, at most: a server that never ends is not listened to for ever.
const MOST_ENTRIES: usize = 1_000_000;

impl Smb {
    /// What the directory has.
    pub(super) async fn listed(&self, until: Instant) -> Result<Vec<Listed>, Fault> {
        let how = How {
            access: FileAccessMask::FILE_READ_DATA | FileAccessMask::FILE_READ_ATTRIBUTES,
            shared: SHARE_ALL,
            disposition: THERE,
            options: DIRECTORY,
        };
        let request = create(self.directory.clone(), how);
        let opening = self.link.to_the_end(until, |link, late| async move {
            let answer = link.call(Command::Create, &request, 1, late).await?;
            accept(&answer, "list the directory", "")?;
            Ok(Opened::new(opened(&answer)?, &link))
        });
        let directory = opening.await?;
        let mut all = Vec::new();
        let mut flags = QueryDirectoryFlags(QueryDirectoryFlags::RESTART_SCANS);
        loop {
            let request = QueryDirectoryRequest {
                file_information_class: FileInformationClass::FileIdBothDirectoryInformation,
                flags,
                file_index: 0,
                file_id: directory.id(),
                output_buffer_length: LISTING,
                file_name: "*".to_owned(),
            };
            let page =
                self.link.call(Command::QueryDirectory, &request, credits(LISTING), until).await?;
            match page.header.status {
                NtStatus::NO_MORE_FILES | NtStatus::NO_SUCH_FILE => break,
                _ => accept(&page, "list the directory", "")?,
            }
            entries(output(&page)?, self.fsid, &mut all)?;
            if all.len() > MOST_ENTRIES {
                let what = "the server's list of the directory does not end";
                return Err(broken_server(what).into());
            }
            flags = QueryDirectoryFlags(0);
        }
        directory.close(until).await?;
        Ok(all)
    }

    /// The space on the server.
    pub(super) async fn room(&self, until: Instant) -> Result<Space, Fault> {
        let how = How {
            access: FileAccessMask::FILE_READ_ATTRIBUTES,
            shared: SHARE_ALL,
            disposition: THERE,
            options: DIRECTORY,
        };
        let messages: [(Command, &dyn Pack); 3] = [
            (Command::Create, &create(self.directory.clone(), how)),
            (Command::QueryInfo, &query(InfoType::Filesystem, SPACE, SAME)),
            (Command::Close, &close_same()),
        ];
        let answers = self.link.chain(&messages, until).await?;
        let [created, told, _] = &answers[..] else { return Err(lost_answers()) };
        accept(created, "ask for space", "")?;
        accept(told, "ask for space", "")?;
        let told = Fields(output(told)?);
        let unit = u64::from(told.u32(24)?) * u64::from(told.u32(28)?);
        // The second count is what this user may write; the third counts what is kept for others, too.
        Ok(Space {
            total: told.u64(0)?.saturating_mul(unit),
            available: told.u64(8)?.saturating_mul(unit),
        })
    }
}
