// SPDX-License-Identifier: Apache-2.0
//! SMB 2.1 to 3.1.1 in user space.
//!
//! SMB has no verifier that tells a restarted server: what was written but not flushed is in the server's memory for as
//! long as the server lives, and a server that ends takes the connection and every open file along. So each mount counts
//! as one life of the server. What was not flushed in it is written again on the next one, through a new open of the file.

mod cases;
mod connect;
mod data;
mod frames;
mod hello;
mod holes;
mod link;
mod listing;
mod messages;
mod mux;
mod outgoing;
mod seal;
mod socket;
mod status;
#[cfg(test)]
#[path = "smb_tests.rs"]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::ErrorKind;
use smb2::{
    msg::{
        close::CloseRequest,
        create::{CreateDisposition, ShareAccess},
        echo::EchoRequest,
        flush::FlushRequest,
        lock::{
            LockElement, LockRequest, SMB2_LOCKFLAG_EXCLUSIVE_LOCK, SMB2_LOCKFLAG_FAIL_IMMEDIATELY,
        },
        query_info::InfoType,
    },
    pack::Pack,
    types::{Command, FileId, flags::FileAccessMask, status::NtStatus},
};

pub(crate) use connect::{Past, end_session, mount, shares};
use link::Link;
pub(crate) use link::Opened;
use messages::{
    ALL, DIRECTORY, DISPOSITION, END_OF_FILE, How, NON_DIRECTORY, RENAME, SHARE_ALL, create, facts,
    name_in, opened, query, rename_to, set,
};
use mux::Frame;
use status::{accept, accept_part, refused};

use super::{
    Committed, Copied, Doing, Found, Handle, Listed, Offers, Read, Run, Share, Space, Stretch,
    Traits, Verifier, Written,
};
use crate::{
    error::{Fault, internal},
    names::FileName,
};

/// Makes a file occupy only what was written to it.
const SET_SPARSE: u32 = 0x0009_00C4;
/// Between two questions whether a file is gone.
const GONE_YET: Duration = Duration::from_millis(20);
/// How long a file that is replaced may be open elsewhere.
const BEING_READ: Duration = Duration::from_secs(1);
/// The file of the message before, in a chain.
const SAME: FileId = FileId::SENTINEL;
/// Opens what is there.
const THERE: CreateDisposition = CreateDisposition::FileOpen;

/// What a writer does with a file.
const WRITER: u32 = FileAccessMask::FILE_READ_DATA
    | FileAccessMask::FILE_WRITE_DATA
    | FileAccessMask::FILE_APPEND_DATA
    | FileAccessMask::FILE_READ_ATTRIBUTES
    | FileAccessMask::FILE_WRITE_ATTRIBUTES;
/// What a reader does.
const READER: u32 = FileAccessMask::FILE_READ_DATA | FileAccessMask::FILE_READ_ATTRIBUTES;
/// What is needed to change a name.
const REMOVER: u32 = FileAccessMask::DELETE | FileAccessMask::FILE_READ_ATTRIBUTES;

/// A share that is mounted.
pub(crate) struct Smb {
    link: Arc<Link>,
    /// The directory of the volumes, with the protocol's separators.
    directory: String,
    fsid: u64,
    /// See the module.
    life: Verifier,
    traits: Traits,
    /// The server's number for the login.
    session: u64,
    past: Arc<Past>,
}

fn lost_answers() -> Fault {
    internal("a chain of calls lost some answers").into()
}

fn close_same() -> CloseRequest {
    CloseRequest { flags: 0, file_id: SAME }
}

/// Opens a file, learns which it is, and does `more` with it in the same message.
async fn open_on(
    link: Arc<Link>,
    (path, name): (String, String),
    (how, fsid): (How, u64),
    what: &'static str,
    more: Option<(Command, Box<dyn Pack>)>,
    until: Instant,
) -> Result<(Found, Option<Frame>), Fault> {
    let (create, ask) = (create(path, how), query(InfoType::File, ALL, SAME));
    let mut messages: Vec<(Command, &dyn Pack)> =
        vec![(Command::Create, &create), (Command::QueryInfo, &ask)];
    if let Some((command, body)) = &more {
        messages.push((*command, &**body));
    }
    let mut answers = link.chain(&messages, until).await?.into_iter();
    let (Some(created), Some(all)) = (answers.next(), answers.next()) else {
        return Err(lost_answers());
    };
    accept(&created, what, &name)?;
    // From here on it is closed whatever happens.
    let file = Arc::new(Opened::new(opened(&created)?, &link));
    accept_part(&all, what, &name)?;
    if !cases::is_exact(&name_in(&all)?, &name) {
        return Err(Fault::NotFound);
    }
    let found = Found { facts: facts(&all, fsid)?, handle: Handle::Smb(file) };
    Ok((found.regular(&name)?, answers.next()))
}

fn file_of(handle: &Handle) -> Result<&Opened, Fault> {
    match handle {
        Handle::Smb(file) => Ok(file),
        _ => Err(internal("a handle of another share was used").into()),
    }
}

impl Smb {
    fn path(&self, name: &str) -> String {
        match self.directory.as_str() {
            "" => name.to_owned(),
            directory => format!("{directory}\\{name}"),
        }
    }

    async fn look_at(&self, name: &FileName, until: Instant) -> Result<Found, Fault> {
        let mut looked = Err(Fault::NotFound);
        for candidate in cases::candidates(name) {
            looked = self.look_as(&candidate, until).await;
            if !matches!(looked, Err(Fault::NotFound)) {
                break;
            }
        }
        looked
    }

    /// Which of the names that a file may have it has.
    async fn own_name(&self, name: &FileName, until: Instant) -> Result<String, Fault> {
        for candidate in cases::candidates(name) {
            match self.look_as(&candidate, until).await {
                Err(Fault::NotFound) => {}
                Err(fault) => return Err(fault),
                Ok(_) => return Ok(candidate),
            }
        }
        Err(Fault::NotFound)
    }

    async fn look_as(&self, name: &str, until: Instant) -> Result<Found, Fault> {
        let how = How {
            access: FileAccessMask::FILE_READ_ATTRIBUTES,
            shared: SHARE_ALL,
            disposition: THERE,
            options: 0,
        };
        let messages: [(Command, &dyn Pack); 3] = [
            (Command::Create, &create(self.path(name), how)),
            (Command::QueryInfo, &query(InfoType::File, ALL, SAME)),
            (Command::Close, &close_same()),
        ];
        let answers = self.link.chain(&messages, until).await?;
        let [created, all, closed] = &answers[..] else { return Err(lost_answers()) };
        accept(created, "look up", name)?;
        let file = Opened::new(opened(created)?, &self.link);
        if closed.header.status == NtStatus::SUCCESS {
            file.was_closed();
        }
        accept_part(all, "look up", name)?;
        if !cases::is_exact(&name_in(all)?, name) {
            return Err(Fault::NotFound);
        }
        Ok(Found { facts: facts(all, self.fsid)?, handle: Handle::Smb(Arc::new(file)) })
    }

    async fn open_file(
        &self,
        name: &FileName,
        write: bool,
        until: Instant,
    ) -> Result<Found, Fault> {
        // A writer is alone; readers are among themselves.
        let (access, shared) =
            if write { (WRITER, 0) } else { (READER, ShareAccess::FILE_SHARE_READ) };
        let how = How { access, shared, disposition: THERE, options: NON_DIRECTORY };
        let lock = LockRequest {
            lock_sequence: 0,
            file_id: SAME,
            locks: vec![LockElement {
                offset: 0,
                length: i64::MAX as u64,
                flags: SMB2_LOCKFLAG_EXCLUSIVE_LOCK | SMB2_LOCKFLAG_FAIL_IMMEDIATELY,
            }],
        };
        // The share mode keeps clients of this protocol away, the lock those of others, where the server passes it on.
        let more = write.then(|| (Command::Lock, Box::new(lock) as Box<dyn Pack>));
        let own = self.own_name(name, until).await?;
        let (names, how) = ((self.path(&own), own), (how, self.fsid));
        let opening =
            self.link.to_the_end(until, |link, late| open_on(link, names, how, "open", more, late));
        let (found, locked) = opening.await?;
        match locked.map(|locked| locked.header.status) {
            None | Some(NtStatus::SUCCESS) => Ok(found),
            // A server that has no locks has share modes.
            Some(NtStatus::NOT_SUPPORTED | NtStatus::INVALID_DEVICE_REQUEST) => Ok(found),
            Some(status) => Err(refused(status, "lock", name.as_str())),
        }
    }

    async fn make(&self, name: &FileName, until: Instant) -> Result<Found, Fault> {
        let how = How {
            access: WRITER,
            shared: 0,
            disposition: CreateDisposition::FileCreate,
            options: NON_DIRECTORY,
        };
        let sparse = holes::control(SET_SPARSE, SAME, Vec::new(), 0);
        let more = Some((Command::Ioctl, Box::new(sparse) as Box<dyn Pack>));
        let own = cases::written(name);
        let (names, how) = ((self.path(&own), own), (how, self.fsid));
        let making = self
            .link
            .to_the_end(until, |link, late| open_on(link, names, how, "make the file", more, late));
        let (found, sparse) = making.await?;
        if let Some(status) = sparse.map(|answer| answer.header.status)
            && status != NtStatus::SUCCESS
        {
            // The volume is served all the same, and may occupy its whole size.
            tracing::debug!(file = %name, %status, "the server makes no sparse file");
        }
        file_of(&found.handle)?.close(until).await?;
        self.sync_directory(until).await?;
        Ok(found)
    }

    /// Makes names durable, where the server can be asked to.
    async fn sync_directory(&self, until: Instant) -> Result<(), Fault> {
        let how = How {
            access: FileAccessMask::FILE_WRITE_DATA
                | FileAccessMask::FILE_APPEND_DATA
                | FileAccessMask::FILE_READ_ATTRIBUTES,
            shared: SHARE_ALL,
            disposition: THERE,
            options: DIRECTORY,
        };
        let messages: [(Command, &dyn Pack); 3] = [
            (Command::Create, &create(self.directory.clone(), how)),
            (Command::Flush, &FlushRequest { file_id: SAME }),
            (Command::Close, &close_same()),
        ];
        let answers = self.link.chain(&messages, until).await?;
        let [created, flushed, closed] = &answers[..] else { return Err(lost_answers()) };
        if created.header.status == NtStatus::SUCCESS {
            let directory = Opened::new(opened(created)?, &self.link);
            if closed.header.status == NtStatus::SUCCESS {
                directory.was_closed();
            }
        }
        for status in [created.header.status, flushed.header.status] {
            match status {
                // Servers that flush no directories keep a journal of their names.
                NtStatus::SUCCESS
                | NtStatus::ACCESS_DENIED
                | NtStatus::INVALID_DEVICE_REQUEST
                | NtStatus::INVALID_PARAMETER
                | NtStatus::NOT_SUPPORTED
                | NtStatus::NOT_IMPLEMENTED => {}
                status => return Err(refused(status, "make the directory durable", "")),
            }
        }
        Ok(())
    }

    /// Opens a file for a change of its name and makes that change.
    async fn change(
        &self,
        name: &FileName,
        shared: u32,
        (class, buffer): (u8, Vec<u8>),
        what: &str,
        until: Instant,
    ) -> Result<(), Fault> {
        self.link.settled(until).await?;
        let own = self.own_name(name, until).await?;
        let how = How { access: REMOVER, shared, disposition: THERE, options: NON_DIRECTORY };
        let messages: [(Command, &dyn Pack); 3] = [
            (Command::Create, &create(self.path(&own), how)),
            (Command::SetInfo, &set(class, SAME, buffer)),
            (Command::Close, &close_same()),
        ];
        let answers = self.link.chain(&messages, until).await?;
        let [created, changed, closed] = &answers[..] else { return Err(lost_answers()) };
        accept(created, what, name.as_str())?;
        let file = Opened::new(opened(created)?, &self.link);
        if closed.header.status == NtStatus::SUCCESS {
            file.was_closed();
        } else {
            file.close(until).await?;
        }
        accept(changed, what, name.as_str())
    }

    async fn remove_file(&self, name: &FileName, until: Instant) -> Result<(), Fault> {
        self.change(name, 0, (DISPOSITION, vec![1]), "remove", until).await?;
        // It goes when the last one who has it open closes it, which may be somebody who only looks at it.
        loop {
            match self.look_at(name, until).await {
                Err(Fault::Later) if Instant::now() + GONE_YET < until => {
                    tokio::time::sleep(GONE_YET).await;
                }
                // Another one has its name already.
                Err(Fault::NotFound) | Ok(_) => return self.sync_directory(until).await,
                Err(fault) => return Err(fault),
            }
        }
    }
}

impl Share for Smb {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn session(&self) -> u64 {
        self.session
    }

    fn name_there(&self, name: &FileName) -> String {
        cases::written(name)
    }

    fn look<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, Found> {
        Box::pin(self.look_at(name, until))
    }

    fn open<'a>(&'a self, name: &'a FileName, write: bool, until: Instant) -> Doing<'a, Found> {
        Box::pin(self.open_file(name, write, until))
    }

    fn close<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move { file_of(handle)?.close(until).await })
    }

    fn create<'a>(&'a self, name: &'a FileName, _token: u64, until: Instant) -> Doing<'a, Found> {
        // The protocol keeps no token: what an earlier call made is there already.
        Box::pin(self.make(name, until))
    }

    fn remove<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(self.remove_file(name, until))
    }

    fn rename<'a>(&'a self, from: &'a FileName, to: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let begun = Instant::now();
            loop {
                let change = (RENAME, rename_to(&self.path(&cases::written(to))));
                match self.change(from, SHARE_ALL, change, "rename", until).await {
                    // What has the name now may be open for a moment, by somebody who reads it.
                    Err(Fault::Refused(error))
                        if [ErrorKind::IN_USE, ErrorKind::PERMISSION_DENIED]
                            .contains(&error.kind())
                            && begun.elapsed() < BEING_READ
                            && Instant::now() + GONE_YET < until =>
                    {
                        tokio::time::sleep(GONE_YET).await;
                    }
                    changed => {
                        changed?;
                        return self.sync_directory(until).await;
                    }
                }
            }
        })
    }

    fn list(&self, until: Instant) -> Doing<'_, Vec<Listed>> {
        Box::pin(self.listed(until))
    }

    fn set_size<'a>(&'a self, handle: &'a Handle, size: u64, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let file = file_of(handle)?.id();
            let request = set(END_OF_FILE, file, size.to_le_bytes().to_vec());
            let answer = self.link.call(Command::SetInfo, &request, 1, until).await?;
            accept(&answer, "set the size", "")?;
            self.flush(file, until).await
        })
    }

    fn read<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Doing<'a, Read> {
        Box::pin(async move { self.read_from(file_of(handle)?.id(), offset, len, until).await })
    }

    fn write<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Doing<'a, Written> {
        Box::pin(
            async move { self.write_to(file_of(handle)?.id(), offset, data, durable, until).await },
        )
    }

    fn commit<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, Committed> {
        Box::pin(async move {
            self.flush(file_of(handle)?.id(), until).await?;
            Ok(Committed { verifier: self.life, facts: None })
        })
    }

    fn try_out<'a>(
        &'a self,
        handle: &'a Handle,
        size: u64,
        write: bool,
        until: Instant,
    ) -> Doing<'a, Offers> {
        Box::pin(async move { self.try_out_on(file_of(handle)?.id(), size, write, until).await })
    }

    fn punch<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, ()> {
        Box::pin(async move { self.set_zero(file_of(handle)?.id(), offset, len, until).await })
    }

    fn map<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, Vec<Run>> {
        Box::pin(async move { self.runs(file_of(handle)?.id(), offset, len, until).await })
    }

    fn clone_range<'a>(
        &'a self,
        from: &'a Handle,
        to: &'a Handle,
        stretch: Stretch,
        may_copy: bool,
        until: Instant,
    ) -> Doing<'a, Copied> {
        Box::pin(async move {
            let (from, to) = (file_of(from)?.id(), file_of(to)?.id());
            self.clone_or_copy(from, to, stretch, may_copy, until).await
        })
    }

    fn space(&self, until: Instant) -> Doing<'_, Space> {
        Box::pin(self.room(until))
    }

    fn ping(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(async move {
            let answer = self.link.call(Command::Echo, &EchoRequest, 1, until).await?;
            accept(&answer, "ask for a sign of life", "")
        })
    }

    fn unmount(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(connect::unmount(self, until))
    }
}
