// SPDX-License-Identifier: Apache-2.0
//! A directory where the kernel has a share mounted: plain files, each call on a thread that may block.
//!
//! The kernel repeats and replays by itself, and hides what the server said. A call that takes longer than its deadline
//! goes on in its thread, so its outcome is unknown; so many may be stuck that way and no more.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use driver_api::{Error, ErrorKind};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, copy_file_range,
        fallocate, fstat, fstatvfs, ftruncate, ioctl_ficlone, openat, renameat, seek, statat,
        unlinkat,
    },
    io::Errno,
};
use tokio::sync::Semaphore;

use super::{
    Committed, Copied, Doing, Facts, Found, Handle, Identity, Kind, Listed, Offers, Read, Run,
    Share, Space, Stretch, Traits, Verifier, Written,
};
use crate::{
    config::Place,
    error::{Fault, internal, invalid},
    names::FileName,
};

/// Most bytes of one call.
const MOST: u32 = 1 << 20;
/// Calls that may be under way, or stuck.
const AT_ONCE: usize = 64;
/// Runs of one answer.
const MOST_RUNS: usize = 1024;

/// A directory of a mounted share.
pub(crate) struct Kernel {
    directory: Arc<OwnedFd>,
    traits: Traits,
    /// What is written and not durable lives as long as this kernel does.
    life: Verifier,
    turns: Arc<Semaphore>,
}

/// Takes a mount point over, or a directory in it.
pub(crate) async fn mount(place: &Place, until: Instant) -> Result<Kernel, Fault> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let wanted = place.clone();
    let directory = on_thread(&turns, until, "open the directory", move || enter(&wanted)).await?;
    let directory = Arc::new(directory);
    Ok(Kernel {
        directory,
        traits: Traits {
            protocol: "kernel",
            max_read: MOST,
            max_write: MOST,
            max_file_size: i64::MAX as u64,
            max_name: 255,
            case_insensitive: false,
            exclusive: false,
            fell_back: None,
        },
        life: Verifier(fastrand::u64(..).to_be_bytes()),
        turns,
    })
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn enter(place: &Place) -> Result<OwnedFd, Fault> {
    let root = Path::new(&place.share);
    let told = |errno: Errno, at: &str| refused(errno, "open the directory", at);
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| {
        Fault::Refused(Error::from_io("what is mounted cannot be read", &error))
    })?;
    if !is_mounted(&mounts, root) {
        let error = Error::new(ErrorKind::UNAVAILABLE, "nothing is mounted at this directory");
        return Err(error
            .with("share", &place.share)
            .remedy("mount the share there, or name the mount point in `share` and the directory in `path`")
            .into());
    }
    let mut directory =
        openat(CWD, root, DIRECTORY, Mode::empty()).map_err(|errno| told(errno, &place.share))?;
    for component in &place.path {
        directory = openat(&directory, component.as_str(), DIRECTORY, Mode::empty())
            .map_err(|errno| told(errno, component.as_str()))?;
    }
    Ok(directory)
}

/// Whether a line of the kernel's list has this mount point; blanks in it are written as octal numbers.
fn is_mounted(mounts: &str, root: &Path) -> bool {
    let plain = |text: &str| {
        text.replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
    };
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .any(|point| Path::new(&plain(point)) == root)
}

async fn on_thread<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    until: Instant,
    what: &'static str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let late =
        |sent| Fault::TimedOut { sent, why: format!("the kernel did not {what} in time").into() };
    let turn = tokio::time::timeout_at(until.into(), Arc::clone(turns).acquire_owned()).await;
    let turn = match turn {
        Ok(Ok(turn)) => turn,
        Ok(Err(_)) => return Err(internal("the turns of a mount have ended").into()),
        Err(_) => return Err(late(false)),
    };
    let doing = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    match tokio::time::timeout_at(until.into(), doing).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => Err(internal(format!("a call was ended: {error}")).into()),
        Err(_) => Err(late(true)),
    }
}

fn refused(errno: Errno, what: &str, object: &str) -> Fault {
    let (kind, remedy) = match errno {
        Errno::NOENT => return Fault::NotFound,
        Errno::EXIST => return Fault::Exists,
        Errno::STALE => return Fault::Stale,
        Errno::NOSPC | Errno::DQUOT => {
            (ErrorKind::NO_SPACE, "free space on the server, or delete volumes")
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (
            ErrorKind::PERMISSION_DENIED,
            "give the host's user read and write access, and mount the share for writing",
        ),
        Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO => (
            ErrorKind::INVALID_ARGUMENT,
            "look what has that name; symbolic links are not followed",
        ),
        Errno::FBIG | Errno::INVAL => {
            (ErrorKind::INVALID_ARGUMENT, "choose a smaller size, or another file system")
        }
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => {
            (ErrorKind::UNSUPPORTED, "use a mount whose server and version can do it")
        }
        _ => (ErrorKind::UNAVAILABLE, "look at the kernel's log, and whether the server answers"),
    };
    let error = Error::new(kind, format!("{what}: {errno}"));
    let error = if object.is_empty() { error } else { error.with("file", object) };
    Fault::Refused(error.remedy(remedy))
}

fn refused_io(error: &io::Error, what: &str) -> Fault {
    refused(Errno::from_io_error(error).unwrap_or(Errno::IO), what, "")
}

fn facts(stat: &Stat) -> Facts {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::Regular,
        FileType::Directory => Kind::Directory,
        _ => Kind::Irregular,
    };
    Facts {
        kind,
        identity: Identity { fsid: stat.st_dev, fileid: stat.st_ino },
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        used: u64::try_from(stat.st_blocks).unwrap_or_default() * 512,
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
    }
}

fn look_at(directory: &OwnedFd, name: &str) -> Result<Facts, Fault> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|errno| refused(errno, "look up", name))?;
    Ok(facts(&stat))
}

fn regular(facts: Facts, name: &str) -> Result<Facts, Fault> {
    if facts.kind == Kind::Regular {
        return Ok(facts);
    }
    let error = invalid("this is no regular file; symbolic links are not followed");
    Err(error.with("file", name).remedy("put the image itself on the share").into())
}

fn open_at(directory: &OwnedFd, name: &str, write: bool) -> Result<Found, Fault> {
    // Opening something else could wait for ever, or do something.
    regular(look_at(directory, name)?, name)?;
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())
        .map_err(|errno| refused(errno, "open", name))?;
    let stat = fstat(&file).map_err(|errno| refused(errno, "open", name))?;
    let facts = regular(facts(&stat), name)?;
    Ok(Found { handle: Handle::Kernel(Some(Arc::new(File::from(file)))), facts })
}

fn sync_directory(directory: &OwnedFd) -> Result<(), Fault> {
    rustix::fs::fsync(directory).map_err(|errno| refused(errno, "make the directory durable", ""))
}

/// What of a range is data and what a hole.
fn runs(file: &File, offset: u64, len: u64) -> Result<Vec<Run>, Fault> {
    let end = offset + len;
    let find = |whence| match seek(file, whence) {
        Ok(at) => Ok(at.min(end)),
        Err(Errno::NXIO) => Ok(end),
        Err(errno) => Err(refused(errno, "ask for allocated ranges", "")),
    };
    let (mut at, mut runs) = (offset, Vec::new());
    while at < end && runs.len() < MOST_RUNS {
        let data = find(SeekFrom::Data(at))?.max(at);
        if data > at {
            runs.push(Run { len: data - at, is_hole: true });
        }
        at = data;
        if at < end {
            let hole = find(SeekFrom::Hole(at))?;
            let hole = if hole > at { hole } else { end };
            runs.push(Run { len: hole - at, is_hole: false });
            at = hole;
        }
    }
    Ok(runs)
}

fn punch(file: &File, offset: u64, len: u64) -> Result<(), Fault> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(file, flags, offset, len).map_err(|errno| refused(errno, "free a range", ""))?;
    file.sync_data().map_err(|error| refused_io(&error, "make a freed range durable"))
}

/// Shares all blocks of a file with another, or copies a range.
fn clone_range(from: &File, to: &File, stretch: Stretch, may_copy: bool) -> Result<Copied, Fault> {
    let told = |errno: Errno| refused(errno, "copy on the server", "");
    let len = fstat(from).map_err(told).map(|stat| facts(&stat).size)?;
    let is_whole = stretch.from == 0 && stretch.to == 0 && stretch.len >= len;
    let shared = if is_whole { ioctl_ficlone(to, from) } else { Err(Errno::OPNOTSUPP) };
    let copied = match shared {
        Ok(()) => Copied::Shared,
        Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::XDEV | Errno::NOTTY) if may_copy => {
            let (mut at, mut into) = (stretch.from, stretch.to);
            let len = usize::try_from(stretch.len).unwrap_or(usize::MAX);
            let count = copy_file_range(from, Some(&mut at), to, Some(&mut into), len);
            Copied::Bytes(count.map_err(told)? as u64)
        }
        Err(Errno::INVAL | Errno::XDEV) => return Err(told(Errno::OPNOTSUPP)),
        Err(errno) => return Err(told(errno)),
    };
    to.sync_all().map_err(|error| refused_io(&error, "make a copy durable"))?;
    Ok(copied)
}

fn file_of(handle: &Handle) -> Result<Arc<File>, Fault> {
    match handle {
        Handle::Kernel(Some(file)) => Ok(Arc::clone(file)),
        _ => Err(internal("a handle of another share, or of no open file, was used").into()),
    }
}

impl Kernel {
    fn in_directory<'a, T: Send + 'static>(
        &'a self,
        until: Instant,
        what: &'static str,
        work: impl FnOnce(&OwnedFd) -> Result<T, Fault> + Send + 'static,
    ) -> Doing<'a, T> {
        let directory = Arc::clone(&self.directory);
        Box::pin(on_thread(&self.turns, until, what, move || work(&directory)))
    }

    fn with_file<'a, T: Send + 'static>(
        &'a self,
        handle: &Handle,
        until: Instant,
        what: &'static str,
        work: impl FnOnce(&File) -> Result<T, Fault> + Send + 'static,
    ) -> Doing<'a, T> {
        match file_of(handle) {
            Ok(file) => Box::pin(on_thread(&self.turns, until, what, move || work(&file))),
            Err(fault) => Box::pin(async move { Err(fault) }),
        }
    }
}

impl Share for Kernel {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    fn look<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, Found> {
        let name = name.clone();
        self.in_directory(until, "look up a name", move |at| {
            let facts = look_at(at, name.as_str())?;
            Ok(Found { handle: Handle::Kernel(None), facts })
        })
    }

    fn open<'a>(&'a self, name: &'a FileName, write: bool, until: Instant) -> Doing<'a, Found> {
        let name = name.clone();
        self.in_directory(until, "open a file", move |at| open_at(at, name.as_str(), write))
    }

    fn close<'a>(&'a self, _handle: &'a Handle, _until: Instant) -> Doing<'a, ()> {
        // It is closed with the last who has it.
        Box::pin(async { Ok(()) })
    }

    fn create<'a>(&'a self, name: &'a FileName, _token: u64, until: Instant) -> Doing<'a, Found> {
        let name = name.clone();
        self.in_directory(until, "make a file", move |at| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(at, name.as_str(), flags, Mode::RUSR | Mode::WUSR)
                .map_err(|errno| refused(errno, "make the file", name.as_str()))?;
            sync_directory(at)?;
            open_at(at, name.as_str(), false)
        })
    }

    fn remove<'a>(&'a self, name: &'a FileName, until: Instant) -> Doing<'a, ()> {
        let name = name.clone();
        self.in_directory(until, "remove a file", move |at| {
            unlinkat(at, name.as_str(), AtFlags::empty())
                .map_err(|errno| refused(errno, "remove", name.as_str()))?;
            sync_directory(at)
        })
    }

    fn rename<'a>(&'a self, from: &'a FileName, to: &'a FileName, until: Instant) -> Doing<'a, ()> {
        let (from, to) = (from.clone(), to.clone());
        self.in_directory(until, "rename a file", move |at| {
            renameat(at, from.as_str(), at, to.as_str())
                .map_err(|errno| refused(errno, "rename", from.as_str()))?;
            sync_directory(at)
        })
    }

    fn list(&self, until: Instant) -> Doing<'_, Vec<Listed>> {
        self.in_directory(until, "list the directory", |at| {
            let told = |errno| refused(errno, "list the directory", "");
            let mut all = Vec::new();
            for entry in Dir::read_from(at).map_err(told)? {
                let entry = entry.map_err(told)?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if [".", ".."].contains(&name) {
                    continue;
                }
                match look_at(at, name) {
                    Ok(facts) => all.push(Listed { name: name.to_owned(), facts: Some(facts) }),
                    // It has gone meanwhile.
                    Err(Fault::NotFound) => {}
                    Err(fault) => return Err(fault),
                }
            }
            Ok(all)
        })
    }

    fn set_size<'a>(&'a self, handle: &'a Handle, size: u64, until: Instant) -> Doing<'a, ()> {
        self.with_file(handle, until, "set a size", move |file| {
            ftruncate(file, size).map_err(|errno| refused(errno, "set the size", ""))?;
            file.sync_all().map_err(|error| refused_io(&error, "make a size durable"))
        })
    }

    fn read<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u32,
        until: Instant,
    ) -> Doing<'a, Read> {
        self.with_file(handle, until, "read", move |file| {
            let mut data = BytesMut::zeroed(len as usize);
            let count = file.read_at(&mut data, offset).map_err(|e| refused_io(&e, "read"))?;
            data.truncate(count);
            Ok(Read { data: data.freeze(), at_end: count == 0, facts: None })
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
        let verifier = self.life;
        self.with_file(handle, until, "write", move |file| {
            let count = file.write_at(&data, offset).map_err(|e| refused_io(&e, "write"))?;
            if durable {
                file.sync_data().map_err(|e| refused_io(&e, "make a write durable"))?;
            }
            let count = u32::try_from(count).map_err(|_| internal("a write is too long"))?;
            Ok(Written { count, durable, verifier, facts: None })
        })
    }

    fn commit<'a>(&'a self, handle: &'a Handle, until: Instant) -> Doing<'a, Committed> {
        let verifier = self.life;
        self.with_file(handle, until, "make writes durable", move |file| {
            file.sync_data().map_err(|error| refused_io(&error, "make writes durable"))?;
            let stat = fstat(file).map_err(|errno| refused(errno, "look at the file", ""))?;
            Ok(Committed { verifier, facts: Some(facts(&stat)) })
        })
    }

    fn try_out<'a>(
        &'a self,
        handle: &'a Handle,
        size: u64,
        write: bool,
        until: Instant,
    ) -> Doing<'a, Offers> {
        self.with_file(handle, until, "try out what the server can do", move |file| {
            let can = |tried: Result<(), Fault>| match tried {
                Ok(()) => Ok(true),
                Err(Fault::Refused(_)) => Ok(false),
                Err(fault) => Err(fault),
            };
            let punch = write && can(punch(file, size, 4096))?;
            Ok(Offers { punch, map: can(runs(file, 0, 4096).map(drop))? })
        })
    }

    fn punch<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, ()> {
        self.with_file(handle, until, "free a range", move |file| punch(file, offset, len))
    }

    fn map<'a>(
        &'a self,
        handle: &'a Handle,
        offset: u64,
        len: u64,
        until: Instant,
    ) -> Doing<'a, Vec<Run>> {
        self.with_file(handle, until, "ask for allocated ranges", move |file| {
            runs(file, offset, len)
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
        match file_of(to) {
            Ok(to) => self.with_file(from, until, "copy", move |from| {
                clone_range(from, &to, stretch, may_copy)
            }),
            Err(fault) => Box::pin(async move { Err(fault) }),
        }
    }

    fn space(&self, until: Instant) -> Doing<'_, Space> {
        self.in_directory(until, "ask for space", |at| {
            let told = fstatvfs(at).map_err(|errno| refused(errno, "ask for space", ""))?;
            let bytes = |blocks: u64| blocks.saturating_mul(told.f_frsize);
            Ok(Space { total: bytes(told.f_blocks), available: bytes(told.f_bavail) })
        })
    }

    fn ping(&self, until: Instant) -> Doing<'_, ()> {
        Box::pin(async move { self.space(until).await.map(drop) })
    }

    fn unmount(&self, _until: Instant) -> Doing<'_, ()> {
        // Whoever mounted it has it mounted on.
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_one_that_the_kernel_lists() {
        let mounts = "29 1 254:0 / / rw - ext4 /dev/a rw\n41 29 0:36 / /mnt/my\\040share rw - nfs4 nas:/v rw\n";
        assert!(is_mounted(mounts, Path::new("/mnt/my share")));
        assert!(!is_mounted(mounts, Path::new("/mnt")));
        assert!(!is_mounted(mounts, Path::new("/mnt/my share/below")));
    }
}
