// SPDX-License-Identifier: Apache-2.0
//! NFSv4.0, 4.1 and 4.2 in user space, over the connection that NFSv3 has.
//!
//! Reads and writes name the open or the lock that they belong to, never a state that is good for anything: what the
//! server does not know as this client's own it refuses. That is what keeps an attachment that lost its lock from
//! writing, so nothing here is repeated, re-established or locked again behind the mount's back.

mod attrs;
mod compound;
mod connect;
mod holes;
mod opens;
mod session;
mod status;
mod xdr;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(crate) use connect::{may_fall_back, minor_of, mount};

use attrs::Attributes;
use compound::{Compound, op};
use opens::{How, Opened, Opens};
use status::{Failed, Status};

use super::{
    Committed, Copied, Doing, Found, Handle, Listed, Offers, Read, Run, Share, Space, Stretch,
    Traits, Verifier, Written, missing,
};
use crate::{
    error::{Fault, broken_server, internal},
    names::FileName,
};

/// Bytes of one answer when a directory is listed.
const LISTING: u32 = 64 << 10;
/// Entries of a directory, at most: a server that never ends is not listened to for ever.
const MOST_ENTRIES: usize = 1_000_000;
const UNSTABLE: u32 = 0;
const FILE_SYNC: u32 = 2;
/// The first pause before a file that somebody else has is opened again; it doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// An export that is mounted.
pub(crate) struct Nfs4 {
    opens: Arc<Opens>,
    /// The directory of the volumes.
    directory: Bytes,
    traits: Traits,
}

impl Nfs4 {
    /// Says which versions were tried before.
    pub fn after(mut self, fell_back: Option<String>) -> Self {
        self.traits.fell_back = fell_back;
        self
    }

    async fn ask(&self, all: Compound, until: Instant) -> Result<compound::Reply, Failed> {
        self.opens.session.call(all, until).await
    }

    async fn look_up(&self, name: &str, until: Instant) -> Result<Found, Failed> {
        let mut looking = Compound::on(&self.directory);
        looking.op(op::LOOKUP).opaque(name.as_bytes());
        looking.op(op::GETFH);
        looking.getattr(attrs::OF_FILE);
        let mut reply = self.ask(looking, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::LOOKUP)?;
        let handle = reply.handle()?;
        Ok(found(Opened { handle, attributes: reply.attributes()? })?)
    }

    /// Opens a file. While another client has it, this waits until that one's lease would be over if it were gone;
    /// servers look for leases that are over from time to time.
    async fn open_file(&self, name: &FileName, how: How, until: Instant) -> Result<Found, Fault> {
        let gone = Instant::now() + self.opens.session.lease() * 2 + PAUSE * 4;
        let mut pause = PAUSE;
        loop {
            let opened = self.opens.open(&self.directory, name, how, until).await;
            match opened {
                Ok(opened) => return found(opened)?.regular(name),
                Err(failed)
                    if failed.status().is_some_and(Status::is_conflict)
                        && Instant::now() + pause < gone.min(until) =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE * 8);
                }
                Err(failed) => return Err(failed.told("open", name.as_str())),
            }
        }
    }

    async fn entries(&self, until: Instant) -> Result<Vec<Listed>, Failed> {
        let mut all = Vec::new();
        let (mut cookie, mut verifier) = (0, [0; 8]);
        loop {
            let mut listing = Compound::on(&self.directory);
            let words = listing.op(op::READDIR).u64(cookie).fixed(&verifier);
            words.u32(LISTING / 4).u32(LISTING).bits(attrs::OF_ENTRY);
            let mut reply = self.ask(listing, until).await?;
            reply.next(op::PUTFH)?;
            let page = reply.next(op::READDIR)?;
            verifier = page.fixed()?;
            let before = cookie;
            while page.bool()? {
                cookie = page.u64()?;
                let name = page.opaque()?;
                let facts = Attributes::read(page)?.facts();
                if let Ok(name) = std::str::from_utf8(&name) {
                    all.push(Listed { name: name.to_owned(), facts });
                }
            }
            if page.bool()? {
                return Ok(all);
            }
            if cookie == before || all.len() > MOST_ENTRIES {
                let what = "the server's list of the directory does not end";
                return Err(Failed::Call(broken_server(what).into()));
            }
        }
    }

    async fn read_from(
        &self,
        handle: &Bytes,
        offset: u64,
        count: u32,
        until: Instant,
    ) -> Result<Read, Failed> {
        let state = self.opens.state(handle, false)?;
        let mut reading = Compound::on(handle);
        reading.op(op::READ).fixed(&state).u64(offset).u32(count);
        let mut reply = self.ask(reading, until).await?;
        reply.next(op::PUTFH)?;
        let given = reply.next(op::READ)?;
        let (at_end, mut data) = (given.bool()?, given.opaque()?);
        // More than was asked for is not wanted.
        data.truncate(count as usize);
        Ok(Read { data, at_end, facts: None })
    }

    async fn write_to(
        &self,
        handle: &Bytes,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Result<Written, Failed> {
        let asked = u32::try_from(data.len())
            .map_err(|_| Failed::Call(internal("a write is too long").into()))?;
        let state = self.opens.state(handle, true)?;
        let mut writing = Compound::on(handle);
        if durable {
            writing.getattr(attrs::OF_FILE);
        }
        let stable = if durable { FILE_SYNC } else { UNSTABLE };
        writing.op(op::WRITE).fixed(&state).u64(offset).u32(stable).u32(asked);
        writing.payload = data;
        let mut reply = self.ask(writing, until).await?;
        reply.next(op::PUTFH)?;
        // As it was before the write: which file it is does not change.
        let facts = if durable { reply.attributes()?.facts() } else { None };
        let given = reply.next(op::WRITE)?;
        let (count, committed, verifier) = (given.u32()?, given.u32()?, given.fixed()?);
        if count == 0 || count > asked {
            let what = format!("the server took {count} of {asked} bytes of a write");
            return Err(Failed::Call(broken_server(what).into()));
        }
        if durable && committed == UNSTABLE {
            let what = "the server did not make a write durable that had to be";
            return Err(Failed::Call(broken_server(what).into()));
        }
        let durable = committed != UNSTABLE;
        Ok(Written { count, durable, verifier: Verifier(verifier), facts })
    }

    async fn commit_all(&self, handle: &Bytes, until: Instant) -> Result<Committed, Failed> {
        // A commit that another client's lock has made worthless must not succeed.
        self.opens.state(handle, true)?;
        let mut committing = Compound::on(handle);
        committing.op(op::COMMIT).u64(0).u32(0);
        committing.getattr(attrs::OF_FILE);
        let mut reply = self.ask(committing, until).await?;
        reply.next(op::PUTFH)?;
        let verifier = Verifier(reply.next(op::COMMIT)?.fixed()?);
        Ok(Committed { verifier, facts: reply.attributes()?.facts() })
    }

    async fn resize(&self, handle: &Bytes, size: u64, until: Instant) -> Result<(), Failed> {
        let state = self.opens.state(handle, true)?;
        let mut setting = Compound::on(handle);
        let words = setting.op(op::SETATTR).fixed(&state).bits(&[attrs::SET_SIZE]);
        words.opaque(&size.to_be_bytes());
        let mut reply = self.ask(setting, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::SETATTR).map(drop)
    }

    async fn remove_name(&self, name: &FileName, until: Instant) -> Result<(), Failed> {
        let mut removing = Compound::on(&self.directory);
        removing.op(op::REMOVE).opaque(name.as_str().as_bytes());
        let mut reply = self.ask(removing, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::REMOVE).map(drop)
    }

    async fn rename_to(
        &self,
        from: &FileName,
        to: &FileName,
        until: Instant,
    ) -> Result<(), Failed> {
        let mut renaming = Compound::on(&self.directory);
        renaming.op(op::SAVEFH);
        let words = renaming.op(op::RENAME).opaque(from.as_str().as_bytes());
        words.opaque(to.as_str().as_bytes());
        let mut reply = self.ask(renaming, until).await?;
        reply.next(op::PUTFH)?;
        reply.next(op::SAVEFH)?;
        reply.next(op::RENAME).map(drop)
    }

    async fn room(&self, until: Instant) -> Result<Space, Failed> {
        let mut asking = Compound::on(&self.directory);
        asking.getattr(attrs::OF_SPACE);
        let mut reply = self.ask(asking, until).await?;
        reply.next(op::PUTFH)?;
        let told = reply.attributes()?;
        Ok(Space {
            total: told.total.unwrap_or_default(),
            available: told.available.unwrap_or_default(),
        })
    }

    async fn leave(&self, until: Instant) -> Result<(), Failed> {
        let closed = self.opens.close_all(until).await;
        let destroyed = self.opens.session.destroy(until).await;
        self.opens.session.end("it was unmounted");
        closed.and(destroyed)
    }
}

fn found(opened: Opened) -> Result<Found, Fault> {
    let Some(facts) = opened.attributes.facts() else {
        let what = "the server does not say which file it is: type, size, fsid and fileid";
        return Err(broken_server(what).into());
    };
    Ok(Found { handle: Handle::Nfs4(opened.handle), facts })
}

fn handle_of(handle: &Handle) -> Result<&Bytes, Fault> {
    match handle {
        Handle::Nfs4(handle) => Ok(handle),
        _ => Err(internal("a handle of another share was used").into()),
    }
}

impl Share for Nfs4 {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn look<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, Found> {
        Box::pin(async move {
            let looked = self.look_up(name.as_str(), until).await;
            looked.map_err(|failed| failed.told("look up", name.as_str()))
        })
    }

    fn open<'a>(&'a self, name: &'a FileName, write: bool, until: Instant) -> Doing<'a, Found> {
        Box::pin(self.open_file(name, if write { How::Write } else { How::Read }, until))
    }

    fn close<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let closed = self.opens.close(handle_of(handle)?, until).await;
            closed.map_err(|failed| failed.told("close", ""))
        })
    }

    fn create<'a>(&'a self, name: &'a FileName, token: u64, until: Instant) -> Doing<'a, Found> {
        Box::pin(self.open_file(name, How::Create(token), until))
    }

    fn remove<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let removed = self.remove_name(name, until).await;
            removed.map_err(|failed| failed.told("remove", name.as_str()))
        })
    }

    fn rename<'a>(&'a self, from: &'a FileName, to: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let renamed = self.rename_to(from, to, until).await;
            renamed.map_err(|failed| failed.told("rename", from.as_str()))
        })
    }

    fn list(&self, until: Instant) -> Doing<'_, Vec<Listed>> {
        Box::pin(async move {
            self.entries(until).await.map_err(|failed| failed.told("list the directory", ""))
        })
    }

    fn set_size<'a>(&'a self, handle: &'a Handle, size: u64, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let set = self.resize(handle_of(handle)?, size, until).await;
            set.map_err(|failed| failed.told("set the size", ""))
        })
    }

    fn read<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Doing<'a, Read> {
        Box::pin(async move {
            let read = self.read_from(handle_of(handle)?, offset, len, until).await;
            read.map_err(|failed| failed.told("read", ""))
        })
    }

    fn write<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Doing<'a, Written> {
        Box::pin(async move {
            let written = self.write_to(handle_of(handle)?, offset, data, durable, until).await;
            written.map_err(|failed| failed.told("write", ""))
        })
    }

    fn commit<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, Committed> {
        Box::pin(async move {
            let committed = self.commit_all(handle_of(handle)?, until).await;
            committed.map_err(|failed| failed.told("make writes durable", ""))
        })
    }

    fn try_out<'a>(
        &'a self,
        handle: &'a Handle,
        size: u64,
        write: bool,
        until: Instant,
    ) -> Doing<'a, Offers> {
        Box::pin(async move {
            if !self.has_ranges() {
                return Ok(Offers::default());
            }
            self.try_out_on(handle_of(handle)?, size, write, until).await
        })
    }

    fn punch<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, ()> {
        if !self.has_ranges() {
            return missing("free ranges of files");
        }
        Box::pin(async move {
            let freed = self.deallocate(handle_of(handle)?, offset, len, until).await;
            freed.map_err(|failed| failed.told("free a range", ""))
        })
    }

    fn map<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, Vec<Run>> {
        if !self.has_ranges() {
            return missing("tell which ranges of a file have data");
        }
        Box::pin(async move {
            let runs = self.runs(handle_of(handle)?, offset, len, until).await;
            runs.map_err(|failed| failed.told("ask for allocated ranges", ""))
        })
    }

    fn clone_range<'a>(
        &'a self,
        from: &'a Handle,
        to: &'a Handle,
        stretch: Stretch,
        may_copy: bool,
        until: Instant,
    ) -> Doing<'a, Copied> {
        if !self.has_ranges() {
            return missing("copy on the server");
        }
        Box::pin(self.clone_or_copy(handle_of(from), handle_of(to), stretch, may_copy, until))
    }

    fn space(&self, until: Instant) -> Doing<'_, Space> {
        Box::pin(async move {
            self.room(until).await.map_err(|failed| failed.told("ask for space", ""))
        })
    }

    fn ping(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(async move {
            let renewed = self.opens.session.renew(until).await;
            renewed.map_err(|failed| failed.told("renew the lease", ""))
        })
    }

    fn unmount(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(
            async move { self.leave(until).await.map_err(|failed| failed.told("unmount", "")) },
        )
    }
}
