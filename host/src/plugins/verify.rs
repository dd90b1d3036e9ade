// SPDX-License-Identifier: Apache-2.0
//! Decides whether a file may be loaded, before any of its code runs.
//!
//! Who could have written the file is checked on the file; everything about its content on a private copy that nobody
//! else can change: overwriting a mapped library kills the process, and a truncated one faults inside the loader.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind as IoKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use driver_api::{Error, ErrorKind, Result, descriptor::Descriptor, import};
use rustix::fs::{OFlags, StatVfsMountFlags};
use sha2::{Digest, Sha256};

use super::elf;

/// What a file must satisfy, and where its copy goes.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The directory of the private copies: made with mode 0700 if it is not there.
    pub private_dir: PathBuf,
    /// The sha256 sums, in hexadecimal, of the files that may be loaded; `None` for no such list.
    pub allow_sha256: Option<Vec<String>>,
}

/// A file that passed, as its private copy. The copy is removed with this value unless it was [kept](Verified::keep).
#[derive(Debug)]
pub struct Verified {
    /// The copy's path.
    pub copy: PathBuf,
    /// The content's sha256, in hexadecimal.
    pub sha256: String,
    /// What the library says of itself.
    pub descriptor: Descriptor,
    scratch: Scratch,
}

impl Verified {
    /// Leaves the copy in place: it is about to be mapped.
    pub fn keep(mut self) {
        self.scratch.0 = None;
    }
}

/// A file that is removed unless somebody takes it over.
#[derive(Debug)]
struct Scratch(Option<PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = self.0.take()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(file = %path.display(), %error, "a refused driver's copy stays behind");
        }
    }
}

/// Checks `file` and makes its private copy. Runs nothing of it.
pub fn verify(file: &Path, rules: &Rules) -> Result<Verified> {
    check(file, rules).map_err(|error| error.with("file", file.display()))
}

fn check(file: &Path, rules: &Rules) -> Result<Verified> {
    let canonical = file.canonicalize().map_err(|error| unreadable(&error))?;
    for parent in [file.parent(), canonical.parent()].into_iter().flatten() {
        check_directory(parent)?;
    }
    // Nonblocking: opening a pipe must not wait for its other end.
    let source = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits() as i32)
        .open(&canonical)
        .map_err(|error| unreadable(&error))?;
    let before = source.metadata().map_err(|error| unreadable(&error))?;
    if !before.is_file() {
        return Err(refused("it is not a regular file").remedy("put the library itself there"));
    }
    check_writers(&canonical, before.uid(), before.mode(), "the file")?;

    let (copy, mut target) = private_file(file, &rules.private_dir)?;
    let scratch = Scratch(Some(copy.clone()));
    let sha256 = copy_hashed(&source, &mut target)?;
    let after = source.metadata().map_err(|error| unreadable(&error))?;
    let shape = |stat: &std::fs::Metadata| (stat.len(), stat.mtime(), stat.mtime_nsec());
    if shape(&before) != shape(&after) {
        return Err(Error::new(ErrorKind::IN_USE, "it is still being written")
            .remedy("nothing: it is read again when it rests"));
    }
    check_allowed(&sha256, rules)?;
    let descriptor = elf::descriptor_of(&target)?;
    import::check_descriptor(&descriptor)?;
    Ok(Verified { copy, sha256, descriptor, scratch })
}

fn check_directory(directory: &Path) -> Result<()> {
    let stat = std::fs::metadata(directory).map_err(|error| unreadable(&error))?;
    check_writers(directory, stat.uid(), stat.mode(), "the directory it is in")
}

/// Whoever may write there becomes this process at the next load.
fn check_writers(path: &Path, uid: u32, mode: u32, what: &str) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != own {
        return Err(Error::new(
            ErrorKind::PERMISSION_DENIED,
            format!("{what} belongs to user {uid}, neither root nor the host's own user {own}"),
        )
        .remedy(format!("if you trust it: chown {own} '{}'", path.display())));
    }
    let writers = match mode & 0o022 {
        0 => return Ok(()),
        0o020 => "its group",
        _ => "everybody",
    };
    Err(Error::new(
        ErrorKind::PERMISSION_DENIED,
        format!("{what} may be written by {writers} (mode {:04o})", mode & 0o7777),
    )
    .remedy(format!("if you trust its content: chmod go-w '{}'", path.display())))
}

/// Creates an empty file that only this user can reach.
fn private_file(file: &Path, directory: &Path) -> Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    check_private(directory)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{stem}.{process}.{number}.so"));
        let made =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o700).open(&path);
        match made {
            Ok(target) => return Ok((path, target)),
            Err(error) if error.kind() == IoKind::AlreadyExists => {}
            Err(error) => return Err(no_copy(directory, &error)),
        }
    }
}

fn check_private(directory: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| no_copy(directory, &error))?;
    let stat = std::fs::symlink_metadata(directory).map_err(|error| no_copy(directory, &error))?;
    let own = rustix::process::geteuid().as_raw();
    if !stat.is_dir() || stat.uid() != own || stat.mode() & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::PERMISSION_DENIED,
            "the directory for private copies of drivers is not private",
        )
        .with("directory", directory.display())
        .remedy(format!(
            "make it a directory of user {own} with mode 0700, or configure another"
        )));
    }
    let mount =
        rustix::fs::statvfs(directory).map_err(|error| no_copy(directory, &error.into()))?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Error::new(
            ErrorKind::PERMISSION_DENIED,
            "the directory for private copies of drivers is on a mount with noexec",
        )
        .with("directory", directory.display())
        .remedy("configure a directory on another mount, or remount this one with exec"));
    }
    Ok(())
}

/// Copies `source`, gives its sha256, and stops at once if it does not begin like a library.
fn copy_hashed(mut source: &File, target: &mut File) -> Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    let mut first = true;
    loop {
        let len = match source.read(&mut chunk) {
            Ok(len) => len,
            Err(error) if error.kind() == IoKind::Interrupted => continue,
            Err(error) => return Err(unreadable(&error)),
        };
        if std::mem::replace(&mut first, false) {
            elf::check_magic(&chunk[..len])?;
        }
        if len == 0 {
            break;
        }
        hash.update(&chunk[..len]);
        target
            .write_all(&chunk[..len])
            .map_err(|error| Error::from_io("its private copy cannot be written", &error))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn check_allowed(sha256: &str, rules: &Rules) -> Result<()> {
    let Some(allowed) = &rules.allow_sha256 else { return Ok(()) };
    if allowed.iter().any(|sum| sum.trim().eq_ignore_ascii_case(sha256)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PERMISSION_DENIED,
        format!("its sha256 {sha256} is not on the allow-list"),
    )
    .remedy(format!("if you trust it, add \"{sha256}\" to the configured list of allowed drivers")))
}

/// Removes copies that processes left which are gone.
pub fn sweep(private_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(private_dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(process_of) else { continue };
        if process != std::process::id()
            && !Path::new(&format!("/proc/{process}")).exists()
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(file = %entry.path().display(), %error, "an old copy stays behind");
        }
    }
}

/// The process in the name of a private copy.
fn process_of(name: &str) -> Option<u32> {
    let mut parts = name.rsplit('.');
    let (_suffix, number, process) = (parts.next()?, parts.next()?, parts.next()?);
    number.parse::<u64>().ok()?;
    process.parse().ok()
}

pub(super) fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why)
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::from_io(format!("it cannot be read: {error}"), error)
        .remedy("check that it exists and that the host's user may read it")
}

fn no_copy(directory: &Path, error: &std::io::Error) -> Error {
    Error::from_io(format!("its private copy cannot be made: {error}"), error)
        .with("directory", directory.display())
        .remedy("make room there, or configure another directory for private copies of drivers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_dead_processes_are_swept_and_others_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        // No process has this number: Linux ends at 2^22.
        let dead = "libx.4194305.0.so";
        let mine = format!("libx.{}.0.so", std::process::id());
        for name in [dead, &mine, "notes.txt", "libx.so"] {
            std::fs::write(directory.path().join(name), name).expect("a file");
        }
        sweep(directory.path());
        let stays = |name: &str| directory.path().join(name).exists();
        assert!(!stays(dead));
        assert!(stays(&mine) && stays("notes.txt") && stays("libx.so"));
    }
}
