// SPDX-License-Identifier: Apache-2.0
//! Pieces of an object that is read.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use driver_api::{Error, ErrorKind, Result};
use hyper::{Method, Response, StatusCode, body::Incoming};
use serde::{Deserialize, Serialize};

use super::{
    direct,
    facts::quoted,
    journal::Journal,
    parts::Cut,
    patience::{Patience, Stop},
    progress::Progress,
    sums::{self, Kind, hex_of_crc},
    wire::{Ask, Wire, header, next_piece},
};
use crate::{
    api::handover::PROTOCOL,
    cli::client::{Client, whole},
};

/// How often what the host found damaged on its way is asked for again.
const DAMAGED: u32 = 3;

/// A piece that is there, and the sum of what was written.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    piece: u64,
    crc: u32,
}

/// Bytes that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) first: u64,
    pub(super) len: u64,
}

/// Where bytes go.
trait Sink {
    /// Takes what came.
    fn take(&mut self, bytes: &[u8]) -> Result<()>;

    /// The file that the host may write to instead, and the place of what comes next.
    fn file(&self) -> Option<(&File, u64)> {
        None
    }

    /// The host wrote so many bytes with this CRC-32C.
    fn took(&mut self, _len: u64, _crc: u32) {}

    /// The file does not reach the host.
    fn keep(&mut self) {}
}

/// Bytes that somebody takes.
struct Taking<F>(F);

impl<F: FnMut(&[u8]) -> Result<()>> Sink for Taking<F> {
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.0(bytes)
    }
}

/// Bytes of a file.
struct Filling<'f> {
    file: &'f File,
    is_lent: &'f AtomicBool,
    place: u64,
    crc: u32,
}

impl Sink for Filling<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.place).map_err(|error| {
            Error::from_io("the file cannot be written", &error)
                .remedy("make room for it, or choose another place")
        })?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.place += bytes.len() as u64;
        Ok(())
    }

    fn file(&self) -> Option<(&File, u64)> {
        let is_lent = self.is_lent.load(Ordering::Relaxed);
        is_lent.then_some((self.file, self.place))
    }

    fn took(&mut self, len: u64, crc: u32) {
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        self.crc = crc32c::crc32c_combine(self.crc, crc, bytes);
        self.place += len;
    }

    fn keep(&mut self) {
        self.is_lent.store(false, Ordering::Relaxed);
    }
}

/// An object that is read.
pub(super) struct Fetch {
    pub(super) client: Client,
    pub(super) path: String,
    /// The object for people.
    pub(super) what: String,
    pub(super) etag: String,
    pub(super) patience: Patience,
    pub(super) stop: Arc<Stop>,
    pub(super) progress: Arc<Progress>,
}

impl Fetch {
    /// Reads all of these bytes, in order, whatever breaks off meanwhile.
    pub(super) async fn all(
        &self,
        asked: Asked,
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.read(&mut Wire::new(&self.client), asked, &mut Taking(take)).await
    }

    async fn read(&self, wire: &mut Wire, asked: Asked, sink: &mut impl Sink) -> Result<()> {
        let (mut done, mut failed, mut damaged) = (0, 0, 0);
        while done < asked.len {
            let left = Asked { first: asked.first + done, len: asked.len - done };
            let (before, lends) = (done, sink.file().is_some());
            let attempt = async {
                let response = self.ask(wire, left, lends).await?;
                if let Some(lent) = sink.file().filter(|_| is_direct(&response)) {
                    let moved = |len| self.progress.moved(len);
                    let filled = direct::fill(response, lent, left.len, moved).await;
                    sink.took(filled.done, filled.crc);
                    done += filled.done;
                    return filled.ended;
                }
                drain(response, left.len, |bytes| {
                    sink.take(bytes)?;
                    done += bytes.len() as u64;
                    self.progress.moved(bytes.len() as u64);
                    Ok(())
                })
                .await
            };
            let result = self.stop.unless(attempt).await;
            if lends && matches!(&result, Err(error) if error.kind() == ErrorKind::UNSUPPORTED) {
                sink.keep();
                continue;
            }
            if done > before {
                self.patience.well();
                failed = 0;
            }
            match result {
                Ok(()) => {}
                // Where an object has no ETag, what comes next may be of another one.
                Err(error) if self.etag.is_empty() && done > 0 => return Err(error),
                Err(error) if error.kind() == ErrorKind::CONFLICT => return Err(self.replaced()),
                Err(error) if error.kind() == ErrorKind::CORRUPTED && damaged < DAMAGED => {
                    damaged += 1;
                }
                Err(error) => self.patience.after(error, failed).await?,
            }
            failed += 1;
        }
        Ok(())
    }

    fn replaced(&self) -> Error {
        Error::new(ErrorKind::CONFLICT, "the object was replaced while it was read")
            .with("object", &self.what)
            .remedy("repeat it to read the one that is there now")
    }

    async fn ask(&self, wire: &mut Wire, asked: Asked, lends: bool) -> Result<Response<Incoming>> {
        let last = asked.first + asked.len - 1;
        let range = format!("bytes={}-{last}", asked.first);
        let mut ask = Ask::new(Method::GET, self.path.as_str()).with(hyper::header::RANGE, range);
        if !self.etag.is_empty() {
            ask = ask.with(hyper::header::IF_MATCH, quoted(&self.etag));
        }
        if lends {
            ask = ask.with(hyper::header::CONNECTION, "upgrade");
            ask = ask.with(hyper::header::UPGRADE, PROTOCOL);
        }
        let response = wire.send(&ask, whole(Vec::new())).await?;
        let told = header(response.headers(), "content-range").unwrap_or_default();
        let is_it = match response.status() {
            StatusCode::PARTIAL_CONTENT | StatusCode::SWITCHING_PROTOCOLS => {
                told.starts_with(&format!("bytes {}-{last}/", asked.first))
            }
            // All of it, for who asked for all of it.
            StatusCode::OK => {
                let len = header(response.headers(), "content-length");
                asked.first == 0 && len == Some(&asked.len.to_string())
            }
            _ => false,
        };
        if is_it {
            return Ok(response);
        }
        let why =
            format!("the host gave other bytes than were asked for: {} {told}", response.status());
        Err(Error::new(ErrorKind::INTERNAL, why))
    }
}

/// Whether the host waits for the file.
fn is_direct(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}

/// Takes a body of just this length.
async fn drain(
    response: Response<Incoming>,
    len: u64,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut body = response.into_body();
    let mut left = len;
    while let Some(data) = next_piece(&mut body).await {
        let data = data?;
        if data.len() as u64 > left {
            return Err(Error::new(
                ErrorKind::INTERNAL,
                "the host gave more bytes than were asked for",
            ));
        }
        take(&data)?;
        left -= data.len() as u64;
    }
    match left {
        0 => Ok(()),
        _ => Err(Error::new(ErrorKind::UNAVAILABLE, "the data broke off")),
    }
}

/// The pieces of a file that is filled.
pub(super) struct Pieces {
    fetch: Fetch,
    file: Arc<File>,
    /// Whether the host may write to it.
    is_lent: AtomicBool,
    cut: Cut,
    /// Where the file's first byte is in the object.
    first: u64,
    journal: Arc<Journal>,
    /// Sums of the pieces that an earlier attempt wrote.
    known: BTreeMap<u64, u32>,
    done: Mutex<BTreeMap<u64, u32>>,
    next: AtomicU64,
}

impl Pieces {
    pub(super) fn new(
        fetch: Fetch,
        (file, is_lent): (Arc<File>, bool),
        cut: Cut,
        first: u64,
        lines: Vec<Line>,
        journal: Arc<Journal>,
    ) -> Self {
        let known = lines.into_iter().map(|line| (line.piece, line.crc)).collect();
        let (done, next) = (Mutex::default(), AtomicU64::new(0));
        let is_lent = AtomicBool::new(is_lent);
        Self { fetch, file, is_lent, cut, first, journal, known, done, next }
    }

    pub(super) fn size(&self) -> u64 {
        self.cut.size
    }

    /// The sum of all pieces together.
    pub(super) fn crc(&self) -> u32 {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.iter().fold(0, |crc, (piece, next)| {
            let len = usize::try_from(self.cut.at(*piece).1).unwrap_or(usize::MAX);
            crc32c::crc32c_combine(crc, *next, len)
        })
    }

    /// Fetches pieces until there are none left.
    pub(super) async fn work(self: Arc<Self>) -> Result<()> {
        let mut wire = Wire::new(&self.fetch.client);
        loop {
            let piece = self.next.fetch_add(1, Ordering::Relaxed);
            if piece >= self.cut.count() || self.fetch.stop.is_set() {
                return Ok(());
            }
            let (at, len) = self.cut.at(piece);
            let crc = match self.there(piece, at, len)? {
                Some(crc) => {
                    self.fetch.progress.found(len);
                    crc
                }
                None => {
                    let crc = self.piece(&mut wire, at, len).await?;
                    self.journal.add(&Line { piece, crc })?;
                    crc
                }
            };
            self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(piece, crc);
        }
    }

    /// The sum of a piece that an earlier attempt wrote, if it still has it.
    fn there(&self, piece: u64, at: u64, len: u64) -> Result<Option<u32>> {
        let Some(crc) = self.known.get(&piece) else { return Ok(None) };
        let own = sums::of_file(&self.file, at, len, Kind::Crc32c)?;
        Ok((own == hex_of_crc(*crc)).then_some(*crc))
    }

    async fn piece(&self, wire: &mut Wire, at: u64, len: u64) -> Result<u32> {
        let mut filling = Filling { file: &self.file, is_lent: &self.is_lent, place: at, crc: 0 };
        self.fetch.read(wire, Asked { first: self.first + at, len }, &mut filling).await?;
        let crc = filling.crc;
        begin_to_sync(&self.file, at, len);
        Ok(crc)
    }
}

/// Has the kernel begin to bring a piece to the disk, so that the sync at the end has little left to do.
fn begin_to_sync(file: &File, at: u64, len: u64) {
    use std::os::fd::AsRawFd;
    let (Ok(at), Ok(len)) = (i64::try_from(at), i64::try_from(len)) else { return };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and no memory is passed.
    let _ =
        unsafe { libc::sync_file_range(file.as_raw_fd(), at, len, libc::SYNC_FILE_RANGE_WRITE) };
}
