// SPDX-License-Identifier: Apache-2.0
//! `novastor object get`: pieces of an object, several at a time, into a file that has its name only once it is whole.
//!
//! Bytes go to `FILE.partial` beside `FILE.partial.journal`, which knows the object's ETag and the sum of each piece. Every
//! request asks for that ETag: pieces of two objects never meet. Whoever goes on compares the pieces that are there with
//! their sums, so that nothing has to be synced before the end.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    crew::share,
    direct,
    journal::{Journal, folder, sync_folder},
    names::Query,
    parts::{self, Cut},
    patience::{Patience, Stop},
    pieces::{Asked, Fetch, Line, Pieces},
    progress::Progress,
    put::resumable,
    store::Chosen,
    sums::{self, Kind, hex_of_crc},
};
use crate::{
    api::objects::types::ObjectView,
    cli::{Output, Session, args::objects::Get, show},
    config::format_size,
};

/// A file that is as small as this is read once more to compare its sum, without being asked to.
const CHEAP: u64 = 32 << 20;

/// What the names of a partial file and of its journal end with.
const PARTIAL: &str = ".partial";
const JOURNAL: &str = ".journal";
/// The longest name of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// The transfer that a journal is of.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
struct Transfer {
    backend: String,
    bucket: String,
    key: String,
    version: Option<String>,
    etag: String,
    /// The first byte of the object, and how many.
    first: u64,
    len: u64,
    piece: u64,
}

#[derive(Serialize)]
struct Answer<'a> {
    file: String,
    file_size: u64,
    /// Bytes that this command read; the rest was there from an earlier attempt.
    read: u64,
    /// The sum by which the whole was compared, if the store tells one.
    compared: Option<String>,
    #[serde(flatten)]
    object: &'a ObjectView,
}

/// Where the bytes go.
enum Target {
    /// In order to whoever reads.
    Stream(File),
    /// To a file of this name.
    File(PathBuf),
}

fn target(get: &Get) -> Result<Target> {
    let failed = |error: std::io::Error| {
        Error::from_io("the file cannot be written", &error).with("file", get.file.display())
    };
    if get.file.as_os_str() == "-" {
        use std::os::fd::AsFd;
        let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
        return Ok(Target::Stream(output.into()));
    }
    let kind = match std::fs::metadata(&get.file) {
        Ok(known) => known.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = folder(&get.file);
            if !folder.is_dir() {
                let why = "there is no folder for the file";
                return Err(Error::new(ErrorKind::NOT_FOUND, why)
                    .with("folder", folder.display())
                    .remedy(format!("mkdir -p {}", folder.display())));
            }
            // A link that leads nowhere.
            if get.file.is_symlink() && !get.force {
                return Err(exists(&get.file));
            }
            return Ok(Target::File(get.file.clone()));
        }
        Err(error) => return Err(failed(error)),
    };
    if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
        let file = OpenOptions::new().write(true).open(&get.file).map_err(failed)?;
        return Ok(Target::Stream(file));
    }
    if !kind.is_file() {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "this is no file")
            .with("file", get.file.display())
            .remedy("name a file"));
    }
    if !get.force {
        return Err(exists(&get.file));
    }
    // What a link leads to is replaced, and not the link.
    let file = match get.file.is_symlink() {
        true => std::fs::canonicalize(&get.file).map_err(failed)?,
        false => get.file.clone(),
    };
    Ok(Target::File(file))
}

fn exists(file: &Path) -> Error {
    Error::new(ErrorKind::ALREADY_EXISTS, "there is a file of that name")
        .with("file", file.display())
        .remedy("choose another name, or replace it with --force")
}

fn is_in_the_way(partial: &Path) -> Error {
    let why =
        "there is a file where the bytes would go, and no journal says that it is of this command";
    Error::new(ErrorKind::ALREADY_EXISTS, why)
        .with("file", partial.display())
        .remedy("remove it if nobody needs it, or choose another name for the object's file")
}

/// The partial file beside a file, and its journal.
fn beside(file: &Path) -> (PathBuf, PathBuf) {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    if name.len() + PARTIAL.len() + JOURNAL.len() > LONGEST_NAME {
        let digest = Sha256::digest(name.as_bytes());
        let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        name = format!("novastor-{digits}").into();
    }
    name.push(PARTIAL);
    let partial = file.with_file_name(&name);
    name.push(JOURNAL);
    (partial, file.with_file_name(name))
}

impl Session {
    pub(super) async fn get(&self, get: Get) -> Result<()> {
        let target = target(&get)?;
        let store = self.store(get.store.clone()).await?;
        let path = format!("{}/info", store.paths.object(&get.from));
        let path = Query::new(path).maybe("version", get.version.as_deref()).text();
        let object: ObjectView = self.client.get(&path).await?;
        let etag = object.etag.clone().unwrap_or_default();
        let is = |wanted: &String| wanted == "*" || wanted.trim_matches('"') == etag;
        if get.if_match.as_ref().is_some_and(|wanted| !is(wanted)) {
            let why = format!("{} has another ETag: {etag}", get.from);
            return Err(Error::new(ErrorKind::CONFLICT, why));
        }
        if get.if_none_match.as_ref().is_some_and(is) {
            if matches!(target, Target::Stream(_)) {
                eprintln!("novastor: {} still has this ETag; nothing was read", get.from);
                return Ok(());
            }
            return self.done(&format!("{} still has this ETag; nothing was read", get.from));
        }
        let (first, len) = match get.range {
            Some(range) => range.within(object.size)?,
            None => (0, object.size),
        };
        let (stop, progress) =
            (Stop::on_key_press(), Arc::new(Progress::new(self.output, Some(len))));
        let fetch = Fetch {
            client: self.client.clone(),
            path: Query::new(store.paths.object(&get.from))
                .maybe("version", get.version.as_deref())
                .text(),
            what: get.from.to_string(),
            etag,
            patience: Patience::new(get.moving.patience, &stop, &progress),
            stop,
            progress: Arc::clone(&progress),
        };
        let result = match target {
            Target::Stream(output) => {
                let asked = Asked { first, len };
                stream(&fetch, output, asked, &object).await
            }
            Target::File(file) => {
                let result = self.get_file(&get, store, fetch, &object, (first, len), &file).await;
                progress.end();
                return self.tell_got(&get, &object, len, &progress, result?);
            }
        };
        progress.end();
        result
    }

    fn tell_got(
        &self,
        get: &Get,
        object: &ObjectView,
        size: u64,
        progress: &Progress,
        compared: Option<String>,
    ) -> Result<()> {
        let file = get.file.display().to_string();
        if self.output == Output::Json {
            return show::json(&Answer {
                file,
                file_size: size,
                read: progress.bytes(),
                compared,
                object,
            });
        }
        let compared =
            compared.map(|sum| format!(", {sum} as the store tells")).unwrap_or_default();
        self.done(&format!("{file} has {}{compared}\nread {}", format_size(size), progress.sum()))
    }

    /// Reads into a file, and tells the sum by which it was compared, if there is one.
    async fn get_file(
        &self,
        get: &Get,
        store: Chosen,
        fetch: Fetch,
        object: &ObjectView,
        (first, len): (u64, u64),
        file: &Path,
    ) -> Result<Option<String>> {
        let (partial, noted) = beside(file);
        // What has no ETag cannot be told from what replaces it: it is read at one go.
        let is_known = !fetch.etag.is_empty();
        let piece = if is_known { get.moving.part_size } else { Some(len) };
        let cut = parts::for_reading(len, piece);
        let transfer = Transfer {
            backend: store.features.backend,
            bucket: get.from.bucket.clone(),
            key: get.from.key.clone(),
            version: get.version.clone(),
            etag: fetch.etag.clone(),
            first,
            len,
            piece: cut.part,
        };
        // Locked even if nothing is kept in it: two commands never write one file.
        let (mut journal, found) = Journal::open::<Transfer, Line>(&noted)?;
        let keeps = !get.moving.no_resume && is_known;
        let lines = match found {
            Some((before, lines)) if keeps && before == transfer && partial.exists() => lines,
            None if partial.symlink_metadata().is_ok() => {
                journal.remove_if_new()?;
                return Err(is_in_the_way(&partial));
            }
            found => {
                if found.is_some() && keeps {
                    fetch.progress.say("the partial file is of something else; it begins anew");
                }
                journal.begin(&transfer)?;
                Vec::new()
            }
        };
        let result = fill(fetch, &partial, cut, first, lines, journal, get, object).await;
        let (journal, ended) = match result {
            Ok((pieces, compared)) => {
                (pieces, finish(&partial, file, get.force).map(|()| compared))
            }
            Err((journal, error)) => (journal, Err(error)),
        };
        match ended {
            Ok(compared) => {
                journal.remove()?;
                Ok(compared)
            }
            // What is there is of no use to anybody.
            Err(error) if !keeps || is_of_no_use(&error) => {
                let _ = std::fs::remove_file(&partial);
                let _ = journal.remove();
                Err(error)
            }
            Err(error) if error.kind() == ErrorKind::ALREADY_EXISTS => Err(error),
            Err(error) => Err(resumable(error)),
        }
    }
}

fn is_of_no_use(error: &Error) -> bool {
    let kinds = [
        ErrorKind::CONFLICT,
        ErrorKind::CORRUPTED,
        ErrorKind::NOT_FOUND,
        ErrorKind::INVALID_ARGUMENT,
    ];
    kinds.contains(&error.kind())
}

type Filled = std::result::Result<(Arc<Journal>, Option<String>), (Arc<Journal>, Error)>;

/// Fills the partial file, and compares it with what the store tells.
#[allow(clippy::too_many_arguments, reason = "each is another thing")]
async fn fill(
    fetch: Fetch,
    partial: &Path,
    cut: Cut,
    first: u64,
    lines: Vec<Line>,
    journal: Journal,
    get: &Get,
    object: &ObjectView,
) -> Filled {
    let journal = Arc::new(journal);
    let result = async {
        let (file, is_lent) = open_partial(partial, cut.size, lines.is_empty())?;
        let (stop, progress) = (Arc::clone(&fetch.stop), Arc::clone(&fetch.progress));
        let threads = usize::from(get.moving.parallel);
        let threads = threads.min(usize::try_from(cut.count()).unwrap_or(usize::MAX));
        let file = Arc::new(file);
        let pieces = Arc::new(Pieces::new(
            fetch,
            (Arc::clone(&file), is_lent),
            cut,
            first,
            lines,
            Arc::clone(&journal),
        ));
        let shared = Arc::clone(&pieces);
        share(threads, &stop, move || Arc::clone(&shared).work()).await?;
        let compared = compare(&file, &pieces, get, object, &progress)?;
        file.sync_all().map_err(|error| {
            // What could not be written is told once, and reads as if it had been: nobody may go on with it.
            let _ = std::fs::remove_file(partial);
            Error::from_io("the file cannot be synced", &error).with("file", partial.display())
        })?;
        drop((file, pieces));
        direct::returned(partial)?;
        Ok(compared)
    }
    .await;
    match result {
        Ok(compared) => Ok((journal, compared)),
        Err(error) => Err((journal, error)),
    }
}

/// Opens the partial file, and tells whether the host may write to it.
fn open_partial(path: &Path, size: u64, anew: bool) -> Result<(File, bool)> {
    let failed = |error: std::io::Error| {
        Error::from_io("the file cannot be written", &error).with("file", path.display())
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path).map_err(failed)?;
    // First: it may be on loan from a command before.
    let is_lent = direct::lock(&file, path)?;
    if anew {
        file.set_len(0).map_err(failed)?;
    }
    file.set_len(size).map_err(failed)?;
    Ok((file, is_lent))
}

/// Compares the whole with the sum that the store tells of it, as far as that is cheap or asked for.
fn compare(
    file: &File,
    pieces: &Pieces,
    get: &Get,
    object: &ObjectView,
    progress: &Progress,
) -> Result<Option<String>> {
    let tells = object.checksum.as_deref().filter(|_| pieces.size() == object.size);
    let Some((told, (kind, sum))) = tells.and_then(|told| Some((told, sums::told(told)?))) else {
        if get.verify {
            progress.say("the store tells no sum of these bytes that could be compared");
        }
        return Ok(None);
    };
    let own = match kind {
        Kind::Crc32c => hex_of_crc(pieces.crc()),
        _ if get.verify || object.size <= CHEAP => sums::of_file(file, 0, object.size, kind)?,
        _ => return Ok(None),
    };
    if own.eq_ignore_ascii_case(sum) {
        return Ok(Some(told.to_owned()));
    }
    Err(Error::new(ErrorKind::CORRUPTED, "what was read is not what the store tells the sum of")
        .with("object", &get.from)
        .with("sum of what was read", own)
        .with("sum that the store tells", sum)
        .remedy("read it again; if that does not help, the object is damaged"))
}

/// Gives the whole file its name.
fn finish(partial: &Path, file: &Path, force: bool) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::from_io("the file cannot be given its name", &error).with("file", file.display())
    };
    if force {
        std::fs::rename(partial, file).map_err(failed)?;
    } else {
        // Somebody may have made a file of that name meanwhile.
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let (here, there) = (rustix::fs::CWD, rustix::fs::CWD);
        match rustix::fs::renameat_with(here, partial, there, file, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => return Err(exists(file)),
            // A file system without it.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !file.exists() => {
                std::fs::rename(partial, file).map_err(failed)?;
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
    sync_folder(file)
}

/// Writes an object in order to whoever reads.
async fn stream(fetch: &Fetch, mut output: File, asked: Asked, object: &ObjectView) -> Result<()> {
    let told = object.checksum.as_deref().filter(|_| asked.len == object.size);
    let told = told.and_then(sums::told);
    let mut sums = sums::Sums::of(&told.map(|(kind, _)| kind).into_iter().collect::<Vec<_>>());
    let all = fetch.all(asked, |bytes| {
        sums.add(bytes);
        match output.write_all(bytes) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            result => {
                result.map_err(|error| Error::from_io("the output cannot be written", &error))
            }
        }
    });
    fetch.stop.unless(all).await?;
    // A pipe has nothing to be synced, and says so.
    if output.metadata().is_ok_and(|known| known.file_type().is_block_device()) {
        let synced = output.sync_all();
        synced.map_err(|error| Error::from_io("the device cannot be synced", &error))?;
    }
    match told.and_then(|(kind, sum)| Some((sums.hex(kind)?, sum))) {
        Some((own, sum)) if !own.eq_ignore_ascii_case(sum) => {
            let why = "what was read, and written out, is not what the store tells the sum of";
            Err(Error::new(ErrorKind::CORRUPTED, why)
                .with("sum of what was read", own)
                .with("sum that the store tells", sum))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_name_once() {
        let room = tempfile::tempdir().unwrap();
        let (partial, file) = (room.path().join("f.partial"), room.path().join("f"));
        std::fs::write(&partial, "new").unwrap();
        std::fs::write(&file, "old").unwrap();
        let refused = finish(&partial, &file, false).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS);
        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        finish(&partial, &file, true).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert!(!partial.exists());
    }
}
