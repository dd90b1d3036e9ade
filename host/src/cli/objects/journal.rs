// SPDX-License-Identifier: Apache-2.0
//! Journals of transfers: what a command that is started again needs to go on.
//!
//! A journal is a file of lines of JSON: the first says which transfer it is, the others what is done. Lines are only
//! added, and one that was cut off by a crash is no line. Whoever has the journal open holds a lock, which ends with the
//! process: two commands never work on one transfer.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use driver_api::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// The journal of one transfer, locked.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    path: PathBuf,
}

/// What a journal says: the transfer, and what was done of it.
pub(super) type Found<H, L> = Option<(H, Vec<L>)>;

impl Journal {
    /// Opens the journal, and says what is in it.
    pub(super) fn open<H: DeserializeOwned, L: DeserializeOwned>(
        path: &Path,
    ) -> Result<(Self, Found<H, L>)> {
        let failed = |error: std::io::Error| failed(path, &error);
        let mut file = loop {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true).mode(0o600);
            options.custom_flags(libc::O_NOFOLLOW);
            let file = options.open(path).map_err(failed)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(Error::new(
                        ErrorKind::IN_USE,
                        "another command is at this transfer",
                    )
                    .with("journal", path.display())
                    .remedy("wait for its end, or end it"));
                }
                Err(error) => return Err(failed(error.into())),
            }
            // Between the opening and the lock the one before may have ended and removed it.
            let own = file.metadata().map_err(failed)?;
            match std::fs::metadata(path) {
                Ok(there) if (there.ino(), there.dev()) == (own.ino(), own.dev()) => break file,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        };
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        Ok((Self { file, path: path.to_owned() }, parse(&text[..whole])))
    }

    /// Makes it the journal of a transfer of which nothing is done. Durable once it returns.
    pub(super) fn begin(&mut self, header: &impl Serialize) -> Result<()> {
        let failed = |error: std::io::Error| failed(&self.path, &error);
        self.file.set_len(0).map_err(failed)?;
        self.file.rewind().map_err(failed)?;
        self.add(header)?;
        self.file.sync_all().map_err(failed)?;
        sync_folder(&self.path)
    }

    /// Adds a line. It survives the end of this process, and that of the machine only once it is synced.
    pub(super) fn add(&self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "a line of a journal cannot be encoded")
                .caused_by(&error)
        })?;
        text.push(b'\n');
        (&self.file).write_all(&text).map_err(|error| failed(&self.path, &error))
    }

    /// Has every line survive the end of the machine.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| failed(&self.path, &error))
    }

    /// Removes it if nothing was ever written to it.
    pub(super) fn remove_if_new(&self) -> Result<()> {
        let known = self.file.metadata().map_err(|error| failed(&self.path, &error))?;
        if known.len() == 0 { self.remove() } else { Ok(()) }
    }

    /// Removes it: the transfer is at its end.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(&self.path, &error))
            }
            _ => Ok(()),
        }
    }
}

fn parse<H: DeserializeOwned, L: DeserializeOwned>(text: &[u8]) -> Found<H, L> {
    let mut lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let header = serde_json::from_slice(lines.next()?).ok()?;
    // After a crash of the machine a line may be zeros: what it said is done again then.
    Some((header, lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let error = Error::from_io("the journal of the transfer cannot be kept", error)
        .with("journal", path.display());
    match error.kind() {
        ErrorKind::NO_SPACE => error.remedy("make room for it"),
        _ => error.remedy("see what is in its place, and who may write there"),
    }
}

/// The folder that a name is in.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Has a name that was made or changed in a folder survive the end of the machine.
pub(super) fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| {
        Error::from_io("the folder cannot be synced", &error).with("folder", folder.display())
    })
}

/// Where the journal of the transfer of these names is, in a folder that is there.
pub(super) fn place(names: &[&[u8]]) -> Result<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(|| {
            Error::new(ErrorKind::INVALID_ARGUMENT, "there is no place for journals of transfers")
                .remedy("set HOME or XDG_STATE_HOME, or use --no-resume")
        })?;
    let folder = state.join("novastor/transfers");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| failed(&folder, &error))?;
    let mut digest = Sha256::new();
    for name in names {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
    }
    let name: String =
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(folder.join(format!("{name}.journal")))
}

/// What tells a file from another, and from itself after a change.
#[derive(Serialize, serde::Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) size: u64,
    modified_secs: i64,
    modified_nanos: i64,
    /// When the file itself was changed, which nobody can set: its dates may be those of an older content.
    changed_secs: i64,
    changed_nanos: i64,
    inode: u64,
    device: u64,
}

impl Identity {
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let known = file.metadata()?;
        Ok(Self {
            size: known.len(),
            modified_secs: known.mtime(),
            modified_nanos: known.mtime_nsec(),
            changed_secs: known.ctime(),
            changed_nanos: known.ctime_nsec(),
            inode: known.ino(),
            device: known.dev(),
        })
    }
}

/// Reads as much as there is, at most the buffer's length.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lines = Found<String, u32>;

    fn opened(path: &Path) -> (Journal, Lines) {
        Journal::open(path).unwrap()
    }

    #[test]
    fn a_journal_says_what_was_written_to_it() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("j");
        let (mut journal, found) = opened(&path);
        assert_eq!(found, None);
        journal.begin(&"first").unwrap();
        journal.add(&1_u32).unwrap();
        journal.add(&2_u32).unwrap();
        drop(journal);
        let (mut journal, found) = opened(&path);
        assert_eq!(found, Some(("first".to_owned(), vec![1, 2])));
        journal.begin(&"second").unwrap();
        drop(journal);
        let (journal, found) = opened(&path);
        assert_eq!(found, Some(("second".to_owned(), vec![])));
        journal.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_line_that_was_cut_off_is_no_line() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("j");
        std::fs::write(&path, "\"head\"\n1\n2").unwrap();
        let (journal, found) = opened(&path);
        assert_eq!(found, Some(("head".to_owned(), vec![1])));
        journal.add(&3_u32).unwrap();
        drop(journal);
        assert_eq!(opened(&path).1, Some(("head".to_owned(), vec![1, 3])));
        for text in ["", "\"hea", "{", "\0\0\0\0\n", "7\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(opened(&path).1, None, "{text:?}");
        }
        std::fs::write(&path, "\"head\"\n1\n\0\0\0\n3\n").unwrap();
        assert_eq!(opened(&path).1, Some(("head".to_owned(), vec![1, 3])));
    }

    #[test]
    fn two_never_have_it_at_once() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("j");
        let (first, _) = opened(&path);
        let refused = Journal::open::<String, u32>(&path).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::IN_USE);
        drop(first);
        opened(&path);
    }

    #[test]
    fn a_changed_file_is_another() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let file = File::open(&path).unwrap();
        let before = Identity::of(&file).unwrap();
        assert_eq!(Identity::of(&file).unwrap(), before);
        std::fs::write(&path, "abd").unwrap();
        let stamp = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
        File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        assert_ne!(Identity::of(&file).unwrap(), before);
    }
}
