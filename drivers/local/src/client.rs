// SPDX-License-Identifier: Apache-2.0
//! What this driver asks of the operating system: files, directories, copies, locks.
//!
//! Everything here may block, and runs on threads that may.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use driver_api::{Error, Result};
use rustix::{
    fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, flock, seek},
    io::Errno,
};

use crate::{
    config::Preallocation,
    error::{is_unsupported, on_path},
};

const COPY_STEP: u64 = 8 << 20;

/// Opens a file of the volume; `direct` bypasses the page cache.
pub(crate) fn open(path: &Path, write: bool, direct: bool) -> Result<File> {
    let flags = if direct { rustix::fs::OFlags::DIRECT.bits() as i32 } else { 0 };
    let opened = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path);
    opened.map_err(|error| on_path("cannot open the file", path, &error))
}

/// Creates a file that must not exist.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    created.map_err(|error| on_path("cannot create the file", path, &error))
}

/// Opens a lock file, making it if it is not there.
pub(crate) fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| on_path("cannot open the lock file", path, &error))
}

/// Creates a directory, durably; one that exists is fine.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(on_path("cannot create the directory", path, &error)),
    }
}

/// Makes a directory's entries durable.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|dir| dir.sync_all());
    synced.map_err(|error| on_path("cannot make the directory durable", path, &error))
}

/// Replaces a file's content: afterwards it is the old or the new one, and the new one once this returned.
pub(crate) fn replace_durably(path: &Path, content: &[u8]) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(crate::error::internal("a record has no directory"));
    };
    let fresh = dir.join(format!("{}{}", crate::layout::HALF_MADE, name.to_string_lossy()));
    let written = File::create(&fresh).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(|error| on_path("cannot write the record", &fresh, &error))?;
    rename(&fresh, path)
}

/// Renames within the file system, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| on_path("cannot rename the file", from, &error))?;
    if let Some(dir) = to.parent() {
        sync_dir(dir)?;
    }
    match from.parent() {
        Some(dir) if to.parent() != Some(dir) => sync_dir(dir),
        _ => Ok(()),
    }
}

/// Renames unless the target exists; whether it was renamed.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => to.parent().map_or(Ok(()), sync_dir).map(|()| true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(on_path("cannot rename the directory", from, &errno.into())),
    }
}

/// Removes a file; one that is not there is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(on_path("cannot remove the file", path, &error)),
    }
}

/// Takes a lock without waiting; whether it was taken.
pub(crate) fn try_lock(file: &File, operation: FlockOperation) -> io::Result<bool> {
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes a lock, waiting until `deadline`; then `stuck` says who has it and what to do.
pub(crate) fn lock_until(
    file: &File,
    path: &Path,
    shared: bool,
    deadline: Instant,
    stuck: impl FnOnce() -> Error,
) -> Result<()> {
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    loop {
        match try_lock(file, operation) {
            Ok(true) => return Ok(()),
            Ok(false) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(false) => {
                return Err(stuck().with("path", path.display()));
            }
            Err(error) => return Err(on_path("cannot lock", path, &error)),
        }
    }
}

/// Reserves or writes blocks for `len` bytes at `offset` of a file that reads zeros there.
pub(crate) fn preallocate(
    file: &File,
    offset: u64,
    len: u64,
    how: Preallocation,
) -> io::Result<()> {
    match how {
        Preallocation::Off => Ok(()),
        Preallocation::Falloc if len > 0 => {
            Ok(fallocate(file, FallocateFlags::KEEP_SIZE, offset, len)?)
        }
        Preallocation::Full => write_zeros(file, offset, len),
        Preallocation::Falloc => Ok(()),
    }
}

/// Writes zeros as data.
pub(crate) fn write_zeros(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let zeros = driver_api::IoBufMut::zeroed(len.min(1 << 20) as usize);
    while len > 0 {
        let step = len.min(zeros.len() as u64);
        file.write_all_at(&zeros[..step as usize], offset)?;
        (offset, len) = (offset + step, len - step);
    }
    Ok(())
}

/// Makes `target` share all blocks of `source`; false where the file system cannot.
pub(crate) fn reflink(source: &File, target: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        Err(errno) if is_unsupported(errno) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Copies the data of `[offset, end)`; `target` reads zeros there before. `go_on` is asked between steps.
pub(crate) fn copy_data(
    source: &File,
    target: &File,
    mut offset: u64,
    end: u64,
    mut go_on: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    while let Some((start, stop)) = next_data(source, offset, end)? {
        let mut at = start;
        while at < stop {
            go_on()?;
            at += copy_step(source, target, at, (stop - at).min(COPY_STEP))?;
        }
        offset = stop;
    }
    Ok(())
}

fn copy_step(source: &File, target: &File, at: u64, len: u64) -> io::Result<u64> {
    let (mut from, mut to) = (at, at);
    match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), len as usize)
    {
        Ok(0) => {}
        Ok(copied) => return Ok(copied as u64),
        Err(errno) if is_unsupported(errno) => {}
        Err(errno) => return Err(errno.into()),
    }
    use std::os::unix::fs::FileExt;
    let mut buffer = driver_api::IoBufMut::zeroed(len.min(1 << 20) as usize);
    let read = source.read_at(&mut buffer, at)?;
    if read == 0 {
        // The file became shorter than its extents said: the rest reads zeros, as the target does.
        return Ok(len);
    }
    target.write_all_at(&buffer[..read], at)?;
    Ok(read as u64)
}

/// The first run of data at or after `offset` and before `end`.
pub(crate) fn next_data(file: &File, offset: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if offset >= end {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) if is_unsupported(errno) => return Ok(Some((offset, end))),
        Err(errno) => return Err(errno.into()),
    };
    if start >= end {
        return Ok(None);
    }
    let stop = match seek(file, SeekFrom::Hole(start)) {
        Ok(stop) => stop.min(end),
        Err(errno) if is_unsupported(errno) || errno == Errno::NXIO => end,
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some((start, stop)))
}

/// Bytes that a file occupies.
pub(crate) fn occupied(metadata: &fs::Metadata) -> u64 {
    metadata.blocks() * 512
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_sparse_copy_holds_the_data_and_keeps_the_holes() {
        let source = tempfile::tempfile().expect("a file");
        let target = tempfile::tempfile().expect("a file");
        source.set_len(64 << 20).expect("sized");
        target.set_len(64 << 20).expect("sized");
        source.write_all_at(b"begin", 0).expect("written");
        source.write_all_at(b"end", (40 << 20) + 77).expect("written");
        copy_data(&source, &target, 0, 64 << 20, || Ok(())).expect("copied");
        let mut buffer = [0; 5];
        target.read_exact_at(&mut buffer, 0).expect("read");
        assert_eq!(&buffer, b"begin");
        target.read_exact_at(&mut buffer[..3], (40 << 20) + 77).expect("read");
        assert_eq!(&buffer[..3], b"end");
        assert!(occupied(&target.metadata().expect("metadata")) < 1 << 20, "holes were filled");
    }
}
