// SPDX-License-Identifier: Apache-2.0
//! The state file: its tables, its header, and how it is opened without harming a file that is not ours.
//!
//! A file is locked, then read into memory and checked there; only a file that passed is opened for writing. So a
//! foreign, damaged or newer file is refused as it was found, even where redb would have repaired it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use driver_api::{Error, ErrorKind, Result};
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, backends::InMemoryBackend,
};

/// Key to (revision, lease, value).
pub(super) const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> =
    TableDefinition::new("entries");
/// Lease to its time to live in milliseconds.
pub(super) const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
/// (lease, key) for each entry with a lease.
pub(super) const LEASED: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("leased");
/// The store's counters, by name.
pub(super) const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
pub(super) const REVISION: &str = "revision";
pub(super) const LAST_LEASE: &str = "last-lease";

const HEADER: TableDefinition<'_, &str, u64> = TableDefinition::new("header");
const MAGIC: u64 = u64::from_be_bytes(*b"novastat");
const FORMAT: u64 = 1;
/// Features that a reader without them must not open. Version 1 has none.
const KNOWN_INCOMPATIBLE: u64 = 0;

const REDB_MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
const CACHE_BYTES: usize = 32 << 20;
/// Files above this are opened without the check in memory.
const CHECKED_BYTES: u64 = 1 << 30;

/// Opens the file at `path`; creates it if there is none.
pub(super) fn open(path: &Path) -> Result<Database> {
    let file = match open_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path)?;
            open_file(path)
        }
        other => other,
    }
    .map_err(|error| {
        Error::from_io(format!("cannot open the state file: {error}"), &error)
            .with("file", path.display())
            .remedy("check the file's owner and mode, or set `state.path`")
    })?;
    lock(&file, path)?;
    check_copy(&file, path)?;
    let database = builder().create_file(file).map_err(|error| opening(path, error.into()))?;
    check_header(&database, path)?;
    Ok(database)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(in_use(path)),
        Err(TryLockError::Error(error)) => {
            Err(Error::from_io(format!("cannot lock the state file: {error}"), &error)
                .with("file", path.display())
                .remedy("put it on a file system with locks: set `state.path`"))
        }
    }
}

fn in_use(path: &Path) -> Error {
    Error::new(ErrorKind::IN_USE, "another process has the state file open")
        .with("file", path.display())
        .remedy("stop the other novastor, or give this one a file of its own: set `state.path`")
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the state file is damaged: {why}"))
        .with("file", path.display())
        .remedy("restore it from a backup, or move it away to begin with an empty state")
}

fn foreign(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, format!("this is not a state file of novastor: {why}"))
        .with("file", path.display())
        .remedy("set `state.path` to another file, or move this one away")
}

/// Opens a copy of the file in memory, with whatever repair it needs, and checks all of it.
fn check_copy(mut file: &File, path: &Path) -> Result<()> {
    let reading = |error: io::Error| {
        Error::from_io(format!("cannot read the state file: {error}"), &error)
            .with("file", path.display())
    };
    let metadata = file.metadata().map_err(reading)?;
    if !metadata.is_file() {
        return Err(foreign(path, "it is not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(foreign(path, "it is empty"));
    }
    let mut start = [0; REDB_MAGIC.len()];
    if metadata.len() < start.len() as u64 {
        return Err(foreign(path, "it is too short"));
    }
    file.read_exact(&mut start).map_err(reading)?;
    if start != REDB_MAGIC {
        return Err(foreign(path, "it does not begin as a redb database does"));
    }
    if metadata.len() > CHECKED_BYTES {
        return Ok(());
    }
    let mut bytes = start.to_vec();
    file.read_to_end(&mut bytes).map_err(reading)?;
    // redb asserts on some damaged files instead of returning an error.
    let checked = catch_unwind(AssertUnwindSafe(|| check_bytes(&bytes, path)));
    checked.unwrap_or_else(|_| Err(damaged(path, "its structure is not that of a redb database")))
}

fn check_bytes(bytes: &[u8], path: &Path) -> Result<()> {
    use redb::StorageBackend;
    let memory = InMemoryBackend::new();
    let filling = |error: io::Error| Error::from_io("cannot copy the state file", &error);
    memory.set_len(bytes.len() as u64).map_err(filling)?;
    memory.write(0, bytes).map_err(filling)?;
    let mut database =
        builder().create_with_backend(memory).map_err(|error| opening(path, error.into()))?;
    check_header(&database, path)?;
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err(damaged(path, "its checksums do not fit its content")),
        Err(error) => Err(opening(path, error.into())),
    }
}

fn opening(path: &Path, error: redb::Error) -> Error {
    match error {
        redb::Error::DatabaseAlreadyOpen => in_use(path),
        redb::Error::Corrupted(why) => damaged(path, &why),
        redb::Error::UpgradeRequired(version) => Error::new(
            ErrorKind::UNSUPPORTED,
            format!("the state file has redb's file format {version}, which is too old"),
        )
        .with("file", path.display())
        .remedy("upgrade it with the release of novastor that wrote it"),
        redb::Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof
            ) =>
        {
            damaged(path, &error.to_string())
        }
        other => storage_error("open the state file", path, &other),
    }
}

fn check_header(database: &Database, path: &Path) -> Result<()> {
    let read = || -> Result<Option<[u64; 3]>, redb::Error> {
        let transaction = database.begin_read()?;
        let header = match transaction.open_table(HEADER) {
            Ok(header) => header,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let row = |name| header.get(name).map(|found| found.map_or(0, |value| value.value()));
        Ok(Some([row("magic")?, row("format")?, row("incompatible")?]))
    };
    match read() {
        Ok(Some([MAGIC, FORMAT, features])) if features & !KNOWN_INCOMPATIBLE == 0 => Ok(()),
        Ok(Some([MAGIC, format, features])) => {
            let what = if format == FORMAT {
                format!("features {:#x} that this release", features & !KNOWN_INCOMPATIBLE)
            } else {
                format!("format version {format}, this release reads {FORMAT} and")
            };
            Err(Error::new(
                ErrorKind::UNSUPPORTED,
                format!("the state file comes from another release: it has {what} does not know"),
            )
            .with("file", path.display())
            .remedy("run the release of novastor that wrote it, or a newer one"))
        }
        Ok(_) | Err(redb::Error::TableTypeMismatch { .. }) => {
            Err(foreign(path, "it is a redb database of another program"))
        }
        Err(error) => Err(opening(path, error)),
    }
}

/// Makes a new file under a name of its own and gives it its name when it is complete and durable, so that a crash
/// never leaves half a file, and of two processes that create it at once, one wins.
fn create(path: &Path) -> Result<()> {
    let failed = |error: io::Error| {
        Error::from_io(format!("cannot create the state file: {error}"), &error)
            .with("file", path.display())
            .remedy("create its directory, writable for this user, or set `state.path`")
    };
    let name = path.file_name().ok_or_else(|| foreign(path, "the path names no file"))?;
    let mut new = name.to_os_string();
    new.push(format!(".new-{}", std::process::id()));
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let new = directory.join(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(failed)?;
    let made = fill(file).map_err(|error| storage_error("create the state file", path, &error));
    let linked = made.and_then(|()| match fs::hard_link(&new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(failed),
    });
    fs::remove_file(&new).map_err(failed)?;
    linked?;
    File::open(&directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn fill(file: File) -> Result<(), redb::Error> {
    let database = builder().create_file(file)?;
    let transaction = database.begin_write()?;
    {
        let mut header = transaction.open_table(HEADER)?;
        header.insert("magic", MAGIC)?;
        header.insert("format", FORMAT)?;
        header.insert("compatible", 0)?;
        header.insert("incompatible", 0)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LEASES)?;
        transaction.open_table(LEASED)?;
        // The first revision is 1: zero means "absent" in compares and "from now" in watches.
        transaction.open_table(COUNTERS)?.insert(REVISION, 1)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What a file holds besides its entries: the revision, and the leases with their times to live.
pub(super) fn summary(database: &Database) -> Result<(u64, Vec<(u64, u64)>), redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(COUNTERS)?.get(REVISION)?.map_or(1, |row| row.value());
    let mut leases = Vec::new();
    for row in transaction.open_table(LEASES)?.iter()? {
        let (lease, ttl_ms) = row?;
        leases.push((lease.value(), ttl_ms.value()));
    }
    Ok((revision, leases))
}

/// A failure of the file while it is in use.
pub(super) fn storage_error(doing: &str, path: &Path, error: &redb::Error) -> Error {
    let (kind, remedy) = match error {
        redb::Error::Io(error) => (
            ErrorKind::of_io(error),
            "check the disk under the state file for space and faults, then try again",
        ),
        redb::Error::PreviousIo => (ErrorKind::UNAVAILABLE, "try again"),
        redb::Error::Corrupted(_) => (ErrorKind::CORRUPTED, "restore the file from a backup"),
        _ => (ErrorKind::INTERNAL, "report this as a defect"),
    };
    Error::new(kind, format!("cannot {doing}: {error}")).with("file", path.display()).remedy(remedy)
}
