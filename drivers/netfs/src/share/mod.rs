// SPDX-License-Identifier: Apache-2.0
//! What every protocol can do with the files of one directory of a share.
//!
//! A [`Share`] is one mount: connected, with the directory resolved, as good as its connection. When that ends, every
//! call under way answers [`Fault::Lost`], the [mount](crate::mounts) throws the whole object away and makes a new one.
//! Handles belong to the object that gave them.
//!
//! | who | decides |
//! |---|---|
//! | a `Share` | how one call is sent and what its answer means; never repeats one |
//! | [`crate::mounts`] | when there is a share, and what is repeated on the next one |
//! | [`crate::file`] | whether the file behind a name is still the same |

use std::{fmt, future::Future, pin::Pin, time::Instant};

use bytes::Bytes;
use driver_api::{Error, ErrorKind};

use crate::{
    error::{Fault, invalid},
    names::FileName,
};

pub(crate) mod kernel;
pub(crate) mod nfs3;
pub(crate) mod nfs4;
pub(crate) mod smb;

/// A call under way.
pub(crate) type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A server's name for a file, valid for the share that gave it.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    /// NFSv3's file handle.
    Nfs3(nfs3_types::nfs3::nfs_fh3),
    /// NFSv4's file handle.
    Nfs4(Bytes),
    /// A file that is open here, on a share that the kernel has mounted; none where it was only looked at.
    Kernel(Option<std::sync::Arc<std::fs::File>>),
    /// A file that is open on an SMB server.
    Smb(std::sync::Arc<smb::Opened>),
}

/// What tells one file from every other, for ever: a file that is removed and made anew has another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Identity {
    /// The file system on the server.
    pub fsid: u64,
    /// The file in it.
    pub fileid: u64,
}

/// What kind of thing has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A file with bytes.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a socket: never followed, never opened.
    Irregular,
}

/// What a server knows of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Which it is.
    pub identity: Identity,
    /// Its length in bytes.
    pub size: u64,
    /// Bytes that it occupies.
    pub used: u64,
    /// How many names it has; zero once it is removed.
    pub links: u32,
}

/// A file that was found or made.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The server's name for it.
    pub handle: Handle,
    /// What is known of it.
    pub facts: Facts,
}

impl Found {
    /// Refuses what is no file with bytes.
    pub fn regular(self, name: impl fmt::Display) -> Result<Self, Fault> {
        if self.facts.kind == Kind::Regular {
            return Ok(self);
        }
        let error = invalid("this is no regular file; links are not followed");
        Err(error.with("file", name).remedy("put the image itself on the share").into())
    }
}

/// An entry of the directory.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The name as the server has it, unchecked; names that are no UTF-8 are left out.
    pub name: String,
    /// What is known of it, where the server said so in the same answer.
    pub facts: Option<Facts>,
}

/// What came of a read.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// The bytes: not more than asked for; fewer are no sign of the end.
    pub data: Bytes,
    /// The file ends behind them.
    pub at_end: bool,
    /// What the server knows of the file after it, if it said so.
    pub facts: Option<Facts>,
}

/// What came of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// How many of the bytes were taken: at least one, perhaps not all.
    pub count: u32,
    /// Whether they survive the server's crash already.
    pub durable: bool,
    /// The server's life, as [`Share::commit`] has it.
    pub verifier: Verifier,
    /// What the server knows of the file after it, if it said so.
    pub facts: Option<Facts>,
}

/// What came of a commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    /// The server's life: what was written in another one may be lost.
    pub verifier: Verifier,
    /// What the server knows of the file after it, if it said so.
    pub facts: Option<Facts>,
}

/// A life of the server, in which it keeps what was written to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) struct Verifier(pub [u8; 8]);

/// Space on the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    /// All there is.
    pub total: u64,
    /// What this user may still write.
    pub available: u64,
}

/// What a server was seen to do with ranges of an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Offers {
    /// It frees them.
    pub punch: bool,
    /// It tells which have data.
    pub map: bool,
}

/// Some bytes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// How many; not zero.
    pub len: u64,
    /// They occupy nothing and read zeros.
    pub is_hole: bool,
}

/// A range of one file, and where it goes in another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stretch {
    /// The first byte.
    pub from: u64,
    /// Where that goes.
    pub to: u64,
    /// How many bytes.
    pub len: u64,
}

/// How a server made a range of one file one of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Copied {
    /// The files share its blocks.
    Shared,
    /// So many bytes were copied; perhaps not all.
    Bytes(u64),
}

/// The answer of a share that has no such operation.
fn missing<'a, T: Send + 'a>(what: &str) -> Doing<'a, T> {
    let error = Error::new(ErrorKind::UNSUPPORTED, format!("the protocol cannot {what}"))
        .remedy("use NFSv4.2 or SMB, and a file system that can do it");
    Box::pin(async move { Err(error.into()) })
}

/// What was found out about a share when it was mounted.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Protocol and version, such as `NFSv3`.
    pub protocol: &'static str,
    /// Most bytes of one read: what the server offers, at most 1 MiB.
    pub max_read: u32,
    /// Most bytes of one write, likewise.
    pub max_write: u32,
    /// No file may be larger.
    pub max_file_size: u64,
    /// Bytes of the longest name.
    pub max_name: u32,
    /// Names that differ in case alone are one.
    pub case_insensitive: bool,
    /// The server keeps others from opening for writing what is open for writing here.
    pub exclusive: bool,
    /// The better versions that the server would not have, and why.
    pub fell_back: Option<String>,
}

/// One mounted share: see the module.
///
/// Promises of every method:
/// - It sends its call once. Repeating is the caller's, who knows what is safe.
/// - It ends by `until`, with [`Fault::TimedOut`] if nothing else happened.
/// - Names are of this share's directory; symbolic links are never followed, and `..` is never sent.
/// - A dropped call disturbs no other. What it asked may still happen.
pub(crate) trait Share: Send + Sync {
    /// What was found out when it was mounted.
    fn traits(&self) -> &Traits;

    /// The server's number for this login, where another login of the same user may end it by that; else zero.
    fn session(&self) -> u64 {
        0
    }

    /// The name on the server's disk of a file that was made here.
    fn name_there(&self, name: &FileName) -> String {
        name.to_string()
    }

    /// What has a name, without opening it. `NotFound` if nothing has.
    fn look<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, Found>;

    /// Opens a file for reading or, with `write`, for both. What is no regular file is refused. Where the protocol has
    /// opens that exclude each other, a writer's excludes all others.
    fn open<'a>(&'a self, name: &'a FileName, write: bool, until: Instant) -> Doing<'a, Found>;

    /// Gives an open file back. Nothing is made durable by it.
    fn close<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, ()>;

    /// Makes an empty file, without leaving it open; `Exists` if there is something of that name. Where the protocol
    /// can, a call with the same `token` finds what an earlier one made, and succeeds. The file's name is durable.
    fn create<'a>(&'a self, name: &'a FileName, token: u64, until: Instant) -> Doing<'a, Found>;

    /// Removes a file, durably. `NotFound` if there is none: after an earlier call of unknown outcome that is success,
    /// which the caller decides.
    fn remove<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, ()>;

    /// Gives a file another name, durably, and in one step replaces what has that name.
    fn rename<'a>(&'a self, from: &'a FileName, to: &'a FileName, until: Instant) -> Doing<'a, ()>;

    /// All entries of the directory, whatever they are.
    fn list(&self, until: Instant) -> Doing<'_, Vec<Listed>>;

    /// Sets a file's length, durably. New bytes read zeros and occupy nothing.
    fn set_size<'a>(&'a self, handle: &'a Handle, size: u64, until: Instant) -> Doing<'a, ()>;

    /// Reads at most `len` bytes, which is at most [`Traits::max_read`]. It may give fewer without being at the end.
    fn read<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Doing<'a, Read>;

    /// Writes at most [`Traits::max_write`] bytes. Repeating it with the same bytes is safe. With `durable` what was
    /// taken survives the server's crash once this returned; without, the caller keeps the bytes until a commit.
    fn write<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        data: Bytes,
        durable: bool,
        until: Instant,
    ) -> Doing<'a, Written>;

    /// Makes what was written to the file durable. It holds for writes answered before the call whose verifier is the
    /// one that comes back; those of another verifier may be lost, and are written again by the caller.
    fn commit<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, Committed>;

    /// Tries out what the server can do with ranges of an open file of this size, without changing what is in it.
    fn try_out<'a>(
        &'a self,
        _handle: &'a Handle,
        _size: u64,
        _write: bool,
        _until: Instant,
    ) -> Doing<'a, Offers> {
        Box::pin(std::future::ready(Ok(Offers::default())))
    }

    /// Frees a range, durably: it reads zeros and occupies nothing. Repeating it is safe. `Unsupported` where the server
    /// cannot.
    fn punch<'a>(&'a self, _: &'a Handle, _offset: u64, _len: u64, _: Instant) -> Doing<'a, ()> {
        missing("free ranges of files")
    }

    /// What of a range inside the file is data and what a hole, from its first byte on; at least one run, perhaps not
    /// up to its end. `Unsupported` where the server cannot tell.
    fn map<'a>(
        &'a self,
        _: &'a Handle,
        _offset: u64,
        _len: u64,
        _: Instant,
    ) -> Doing<'a, Vec<Run>> {
        missing("tell which ranges of a file have data")
    }

    /// Makes a range of one open file one of another, durably and on the server, sharing its blocks where the server
    /// can; else by copying, with `may_copy`. `Unsupported` where it can do neither: the bytes have to come and go.
    fn clone_range<'a>(
        &'a self,
        _from: &'a Handle,
        _to: &'a Handle,
        _stretch: Stretch,
        _may_copy: bool,
        _until: Instant,
    ) -> Doing<'a, Copied> {
        missing("copy on the server")
    }

    /// Space on the server.
    fn space(&self, until: Instant) -> Doing<'_, Space>;

    /// A call that does nothing but come back.
    fn ping(&self, until: Instant) -> Doing<'_, ()>;

    /// Tells the server that the share is not used any more. Calls under way may end with `Lost`.
    fn unmount(&self, until: Instant) -> Doing<'_, ()>;
}
