// SPDX-License-Identifier: Apache-2.0
//! NFSv3 in user space.

pub(crate) mod connect;
pub(crate) mod memory;
pub(crate) mod mux;
pub(crate) mod rpc;
mod status;

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use nfs3_client::Nfs3Client;
use nfs3_types::{
    nfs3::{
        COMMIT3args, CREATE3args, FSSTAT3args, GETATTR3args, LOOKUP3args, NFS_PROGRAM, Nfs3Option,
        Nfs3Result, READ3args, READDIR3args, READDIRPLUS3args, REMOVE3args, RENAME3args,
        SETATTR3args, WRITE3res, cookieverf3, createhow3, createverf3, diropargs3, fattr3,
        filename3, ftype3, nfs_fh3, nfsstat3, post_op_attr, sattr3, set_mode3, set_size3,
        stable_how,
    },
    rpc::opaque_auth,
};

pub(crate) use connect::{exports, mount};
use mux::{Mux, Record};
use rpc::{Wire, accepted, fault_of, head, packed, unpacked};
use status::refused;

use super::{
    Committed, Doing, Facts, Found, Handle, Identity, Kind, Listed, Read, Share, Space, Traits,
    Verifier, Written,
};
use crate::{
    config::Place,
    error::{Fault, broken_server, internal},
    names::FileName,
};

/// Bytes of one answer when a directory is listed.
const LISTING: u32 = 64 << 10;
/// Entries of a directory, at most: a server that never ends is not listened to for ever.
const MOST_ENTRIES: usize = 1_000_000;

/// An export that is mounted.
pub(crate) struct Nfs3 {
    mux: Mux,
    credential: opaque_auth<'static>,
    /// The directory of the volumes.
    directory: nfs_fh3,
    traits: Traits,
    place: Place,
    address: SocketAddr,
}

impl Nfs3 {
    /// Says which versions were tried before.
    pub fn after(mut self, fell_back: Option<String>) -> Self {
        self.traits.fell_back = fell_back;
        self
    }

    fn client(&self, until: Instant) -> Nfs3Client<Wire<'_>> {
        let wire = Wire::new(&self.mux, until);
        Nfs3Client::new_with_auth(wire, self.credential.clone(), opaque_auth::default())
    }

    fn named<'n>(&self, name: &'n FileName) -> diropargs3<'n> {
        diropargs3 { dir: self.directory.clone(), name: filename3::from(name.as_str().as_bytes()) }
    }

    async fn attributes(&self, handle: &nfs_fh3, until: Instant) -> Result<Facts, Fault> {
        let arguments = GETATTR3args { object: handle.clone() };
        match self.client(until).getattr(&arguments).await.map_err(fault_of)? {
            Nfs3Result::Ok(found) => Ok(facts(&found.obj_attributes)),
            Nfs3Result::Err((status, _)) => Err(refused(status, "look at the file", "")),
        }
    }

    async fn found(
        &self,
        handle: nfs_fh3,
        attributes: &post_op_attr,
        until: Instant,
    ) -> Result<Found, Fault> {
        let facts = match told(attributes) {
            Some(facts) => facts,
            None => self.attributes(&handle, until).await?,
        };
        Ok(Found { handle: Handle::Nfs3(handle), facts })
    }

    async fn look_up(&self, name: &FileName, until: Instant) -> Result<Found, Fault> {
        let arguments = LOOKUP3args { what: self.named(name) };
        match self.client(until).lookup(&arguments).await.map_err(fault_of)? {
            Nfs3Result::Ok(found) => self.found(found.object, &found.obj_attributes, until).await,
            Nfs3Result::Err((status, _)) => Err(refused(status, "look up", name.as_str())),
        }
    }

    async fn make(&self, name: &FileName, token: u64, until: Instant) -> Result<Found, Fault> {
        let exclusive = createhow3::EXCLUSIVE(createverf3(token.to_be_bytes()));
        let made = match self.make_as(name, exclusive, until).await {
            // A server whose file system has no room for the token.
            Err((nfsstat3::NFS3ERR_NOTSUPP, _)) => {
                let mode = set_mode3::Some(0o600);
                let guarded = createhow3::GUARDED(sattr3 { mode, ..sattr3::default() });
                self.make_as(name, guarded, until).await
            }
            made => made,
        };
        let found = made.map_err(|(_, fault)| fault)?;
        // The token may stand where the times and the mode do: they are set now.
        let handle = handle_of(&found.handle)?;
        let attributes = sattr3 {
            mode: set_mode3::Some(0o600),
            atime: nfs3_types::nfs3::set_atime::SET_TO_SERVER_TIME,
            mtime: nfs3_types::nfs3::set_mtime::SET_TO_SERVER_TIME,
            ..sattr3::default()
        };
        self.set(handle, attributes, "set the mode", until).await?;
        Ok(found)
    }

    async fn make_as(
        &self,
        name: &FileName,
        how: createhow3,
        until: Instant,
    ) -> Result<Found, (nfsstat3, Fault)> {
        let other = |fault| (nfsstat3::NFS3_OK, fault);
        let arguments = CREATE3args { where_: self.named(name), how };
        let answer = self.client(until).create(&arguments).await;
        match answer.map_err(|error| other(fault_of(error)))? {
            Nfs3Result::Ok(made) => match made.obj {
                Nfs3Option::Some(handle) => {
                    self.found(handle, &made.obj_attributes, until).await.map_err(other)
                }
                Nfs3Option::None => self.look_up(name, until).await.map_err(other),
            },
            Nfs3Result::Err((status, _)) => {
                Err((status, refused(status, "make the file", name.as_str())))
            }
        }
    }

    async fn set(
        &self,
        handle: &nfs_fh3,
        new_attributes: sattr3,
        what: &str,
        until: Instant,
    ) -> Result<(), Fault> {
        let arguments =
            SETATTR3args { object: handle.clone(), new_attributes, guard: Nfs3Option::None };
        match self.client(until).setattr(&arguments).await.map_err(fault_of)? {
            Nfs3Result::Ok(_) => Ok(()),
            Nfs3Result::Err((status, _)) => Err(refused(status, what, "")),
        }
    }

    async fn entries(&self, until: Instant) -> Result<Vec<Listed>, Fault> {
        let mut all = Vec::new();
        let (mut cookie, mut cookieverf, mut plus) = (0, cookieverf3::default(), true);
        loop {
            let page = match self.page(cookie, cookieverf, plus, until).await {
                Err((nfsstat3::NFS3ERR_NOTSUPP, _)) if plus && cookie == 0 => {
                    plus = false;
                    continue;
                }
                page => page.map_err(|(_, fault)| fault)?,
            };
            let last = page.entries.last().map(|(next, _)| *next);
            all.extend(page.entries.into_iter().filter_map(|(_, entry)| entry));
            if page.at_end {
                return Ok(all);
            }
            match last {
                Some(next) if next != cookie && all.len() < MOST_ENTRIES => cookie = next,
                _ => {
                    return Err(
                        broken_server("the server's list of the directory does not end").into()
                    );
                }
            }
            cookieverf = page.verifier;
        }
    }

    async fn page(
        &self,
        cookie: u64,
        cookieverf: cookieverf3,
        plus: bool,
        until: Instant,
    ) -> Result<Page, (nfsstat3, Fault)> {
        let (dir, mut client) = (self.directory.clone(), self.client(until));
        let other = |error| (nfsstat3::NFS3_OK, fault_of(error));
        let failed = |status| (status, refused(status, "list the directory", ""));
        if plus {
            let dircount = LISTING / 4;
            let arguments =
                READDIRPLUS3args { dir, cookie, cookieverf, dircount, maxcount: LISTING };
            return match client.readdirplus(&arguments).await.map_err(other)? {
                Nfs3Result::Ok(page) => Ok(Page {
                    entries: page
                        .reply
                        .entries
                        .0
                        .iter()
                        .map(|entry| {
                            (
                                entry.cookie,
                                listed(entry.name.as_ref(), told(&entry.name_attributes)),
                            )
                        })
                        .collect(),
                    verifier: page.cookieverf,
                    at_end: page.reply.eof,
                }),
                Nfs3Result::Err((status, _)) => Err(failed(status)),
            };
        }
        let arguments = READDIR3args { dir, cookie, cookieverf, count: LISTING };
        match client.readdir(&arguments).await.map_err(other)? {
            Nfs3Result::Ok(page) => Ok(Page {
                entries: page
                    .reply
                    .entries
                    .0
                    .iter()
                    .map(|entry| (entry.cookie, listed(entry.name.as_ref(), None)))
                    .collect(),
                verifier: page.cookieverf,
                at_end: page.reply.eof,
            }),
            Nfs3Result::Err((status, _)) => Err(failed(status)),
        }
    }

    async fn read_from(
        &self,
        handle: &nfs_fh3,
        offset: u64,
        count: u32,
        until: Instant,
    ) -> Result<Read, Fault> {
        let arguments = READ3args { file: handle.clone(), offset, count };
        let head = head(&self.credential, NFS_PROGRAM::NFSPROC3_READ as u32, &arguments)?;
        let answer = self.mux.call(Record { head, payload: Bytes::new() }, until).await?;
        let mut rest = &answer[..];
        accepted(&mut rest)?;
        let status: nfsstat3 = unpacked(&mut rest)?;
        let attributes: post_op_attr = unpacked(&mut rest)?;
        if status != nfsstat3::NFS3_OK {
            return Err(refused(status, "read", ""));
        }
        let (given, at_end): (u32, bool) = (unpacked(&mut rest)?, unpacked(&mut rest)?);
        let len: u32 = unpacked(&mut rest)?;
        if len != given || rest.len() < len as usize {
            return Err(broken_server("the server's answer to a read is cut off").into());
        }
        // More than was asked for is not wanted.
        let (start, len) = (answer.len() - rest.len(), len.min(count) as usize);
        let data = answer.slice(start..start + len);
        Ok(Read { data, at_end, facts: told(&attributes) })
    }

    async fn write_to(
        &self,
        handle: &nfs_fh3,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Result<Written, Fault> {
        let asked = u32::try_from(data.len()).map_err(|_| internal("a write is too long"))?;
        let mut head = head(&self.credential, NFS_PROGRAM::NFSPROC3_WRITE as u32, handle)?;
        packed(&offset, &mut head)?;
        packed(&asked, &mut head)?;
        packed(&if durable { stable_how::FILE_SYNC } else { stable_how::UNSTABLE }, &mut head)?;
        packed(&asked, &mut head)?;
        let answer = self.mux.call(Record { head, payload: data }, until).await?;
        let mut rest = &answer[..];
        accepted(&mut rest)?;
        let written = match unpacked::<WRITE3res>(&mut rest)? {
            Nfs3Result::Ok(written) => written,
            Nfs3Result::Err((status, _)) => return Err(refused(status, "write", "")),
        };
        if written.count == 0 || written.count > asked {
            let what = format!("the server took {} of {asked} bytes of a write", written.count);
            return Err(broken_server(what).into());
        }
        let is_durable = written.committed != stable_how::UNSTABLE;
        if durable && !is_durable {
            let what = "the server did not make a write durable that had to be";
            return Err(broken_server(what).into());
        }
        Ok(Written {
            count: written.count,
            durable: is_durable,
            verifier: Verifier(written.verf.0),
            facts: told(&written.file_wcc.after),
        })
    }

    async fn commit_all(&self, handle: &nfs_fh3, until: Instant) -> Result<Committed, Fault> {
        let arguments = COMMIT3args { file: handle.clone(), offset: 0, count: 0 };
        match self.client(until).commit(&arguments).await.map_err(fault_of)? {
            Nfs3Result::Ok(done) => {
                Ok(Committed { verifier: Verifier(done.verf.0), facts: told(&done.file_wcc.after) })
            }
            Nfs3Result::Err((status, _)) => Err(refused(status, "make writes durable", "")),
        }
    }
}

struct Page {
    entries: Vec<(u64, Option<Listed>)>,
    verifier: cookieverf3,
    at_end: bool,
}

/// An entry, if it is one that can have a meaning here.
fn listed(name: &[u8], facts: Option<Facts>) -> Option<Listed> {
    let name = std::str::from_utf8(name).ok()?;
    (name != "." && name != "..").then(|| Listed { name: name.to_owned(), facts })
}

fn facts(of: &fattr3) -> Facts {
    let kind = match of.type_ {
        ftype3::NF3REG => Kind::Regular,
        ftype3::NF3DIR => Kind::Directory,
        _ => Kind::Irregular,
    };
    let identity = Identity { fsid: of.fsid, fileid: of.fileid };
    Facts { kind, identity, size: of.size, used: of.used, links: of.nlink }
}

fn told(attributes: &post_op_attr) -> Option<Facts> {
    match attributes {
        Nfs3Option::Some(attributes) => Some(facts(attributes)),
        Nfs3Option::None => None,
    }
}

fn handle_of(handle: &Handle) -> Result<&nfs_fh3, Fault> {
    match handle {
        Handle::Nfs3(handle) => Ok(handle),
        _ => Err(internal("a handle of another share was used").into()),
    }
}

impl Share for Nfs3 {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn look<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, Found> {
        Box::pin(self.look_up(name, until))
    }

    fn open<'a>(&'a self, name: &'a FileName, _write: bool, until: Instant) -> Doing<'a, Found> {
        Box::pin(async move { self.look_up(name, until).await?.regular(name) })
    }

    fn close<'a>(&'a self, _handle: &'a Handle, _until: Instant) -> Doing<'a, ()> {
        // NFSv3 has no opens.
        Box::pin(std::future::ready(Ok(())))
    }

    fn create<'a>(&'a self, name: &'a FileName, token: u64, until: Instant) -> Doing<'a, Found> {
        Box::pin(async move { self.make(name, token, until).await?.regular(name) })
    }

    fn remove<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let arguments = REMOVE3args { object: self.named(name) };
            match self.client(until).remove(&arguments).await.map_err(fault_of)? {
                Nfs3Result::Ok(_) => Ok(()),
                Nfs3Result::Err((status, _)) => Err(refused(status, "remove", name.as_str())),
            }
        })
    }

    fn rename<'a>(&'a self, from: &'a FileName, to: &'a FileName, until: Instant) -> Doing<'a, ()> {
        Box::pin(async move {
            let arguments = RENAME3args { from: self.named(from), to: self.named(to) };
            match self.client(until).rename(&arguments).await.map_err(fault_of)? {
                Nfs3Result::Ok(_) => Ok(()),
                Nfs3Result::Err((status, _)) => Err(refused(status, "rename", from.as_str())),
            }
        })
    }

    fn list(&self, until: Instant) -> Doing<'_, Vec<Listed>> {
        Box::pin(self.entries(until))
    }

    fn set_size<'a>(&'a self, handle: &'a Handle, size: u64, until: Instant) -> Doing<'a, ()> {
        let attributes = sattr3 { size: set_size3::Some(size), ..sattr3::default() };
        Box::pin(
            async move { self.set(handle_of(handle)?, attributes, "set the size", until).await },
        )
    }

    fn read<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Doing<'a, Read> {
        Box::pin(async move { self.read_from(handle_of(handle)?, offset, len, until).await })
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
            async move { self.write_to(handle_of(handle)?, offset, data, durable, until).await },
        )
    }

    fn commit<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, Committed> {
        Box::pin(async move { self.commit_all(handle_of(handle)?, until).await })
    }

    fn space(&self, until: Instant) -> Doing<'_, Space> {
        Box::pin(async move {
            let arguments = FSSTAT3args { fsroot: self.directory.clone() };
            match self.client(until).fsstat(&arguments).await.map_err(fault_of)? {
                // `abytes` is what this user may write; `fbytes` counts what is kept for root, too.
                Nfs3Result::Ok(told) => Ok(Space { total: told.tbytes, available: told.abytes }),
                Nfs3Result::Err((status, _)) => Err(refused(status, "ask for space", "")),
            }
        })
    }

    fn ping(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(async move { self.client(until).null().await.map_err(fault_of) })
    }

    fn unmount(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(connect::unmount(self, until))
    }
}
