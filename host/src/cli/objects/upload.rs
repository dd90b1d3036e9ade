// SPDX-License-Identifier: Apache-2.0
//! An object that is written in parts, several at a time.
//!
//! begin ─ parts, each compared with what the store tells of it ─ complete. The upload's id is kept before the first part is
//! sent, and that it is to be completed before it is: whoever goes on knows which of both is unknown.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use hyper::Method;

use super::{
    crew::share,
    names::Place,
    parts::{self, Cut},
    progress::Progress,
    put::{Kept, Step, Writing, Written, damaged, is_damaged, is_for_good, no_conditions, same},
    source::{Source, Tallied, read_ahead},
    sums::{self, Kind, Sums, hex_of_crc},
    wire::{self, Ask, Wire},
};
use crate::{
    api::objects::types::{CompleteUpload, PartView, PartsPage, UploadView},
    cli::client::{Sent, encoded},
};

/// How often a part that arrived changed is sent again.
const DAMAGED: u32 = 3;
/// How long giving up an upload may hold up the end of the command.
const LEAVING: Duration = Duration::from_secs(10);

/// What an earlier attempt kept of its upload.
#[derive(Default)]
struct Earlier {
    /// How many uploads there were.
    uploads: usize,
    id: Option<String>,
    /// The parts that were sent, with their ETags.
    parts: BTreeMap<u32, String>,
    /// Completion was asked for, with these parts.
    complete: Option<Vec<PartView>>,
}

impl Earlier {
    fn of(steps: &[Step]) -> Self {
        let mut earlier = Self::default();
        for step in steps {
            match step {
                Step::Upload(id) => {
                    let uploads = earlier.uploads + 1;
                    earlier = Self { uploads, id: Some(id.clone()), ..Self::default() };
                }
                Step::Part { number, etag } => {
                    earlier.parts.insert(*number, etag.clone());
                }
                Step::Complete(parts) => earlier.complete = Some(parts.clone()),
            }
        }
        earlier
    }
}

/// A part that is there, and the sum of what was sent if that is known.
#[derive(Clone)]
struct There {
    part: PartView,
    crc: Option<u32>,
}

/// What the threads of an upload share.
struct Upload {
    writing: Arc<Writing>,
    id: String,
    done: Mutex<BTreeMap<u32, There>>,
}

/// An upload of a file.
struct FileUpload {
    upload: Upload,
    source: Arc<Source>,
    cut: Cut,
    kept: Arc<Kept>,
    /// Parts that the store has from an earlier attempt.
    listed: BTreeMap<u32, PartView>,
    /// What that attempt knew of them.
    known: BTreeMap<u32, String>,
    next: AtomicU64,
}

/// An upload of what can be read once.
struct StreamUpload {
    upload: Upload,
    pieces: tokio::sync::Mutex<Pieces>,
    bytes: AtomicU64,
    most: u32,
}

/// The pieces that are still to be sent.
struct Pieces {
    first: Option<Bytes>,
    rest: tokio::sync::mpsc::Receiver<Result<Bytes>>,
    number: u32,
}

/// The bytes of a part.
enum Piece<'a> {
    OfFile(&'a Source, u64, u64),
    InMemory(&'a Bytes),
}

impl Piece<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::OfFile(_, _, len) => *len,
            Self::InMemory(bytes) => bytes.len() as u64,
        }
    }

    fn body(&self, tally: &Tallied, progress: &Arc<Progress>) -> Sent {
        match self {
            Self::OfFile(source, at, len) => source.part(*at, *len, tally, progress),
            Self::InMemory(bytes) => {
                tally.add(bytes);
                progress.moved(bytes.len() as u64);
                wire::body((*bytes).clone())
            }
        }
    }

    fn sum(&self, kind: Kind) -> Result<String> {
        match self {
            Self::OfFile(source, at, len) => sums::of_file(&source.file, *at, *len, kind),
            Self::InMemory(bytes) => {
                let mut sums = Sums::of(&[kind]);
                sums.add(bytes);
                Ok(sums.hex(kind).unwrap_or_default())
            }
        }
    }

    fn unchanged(&self) -> Result<()> {
        match self {
            Self::OfFile(source, ..) => source.unchanged(),
            Self::InMemory(_) => Ok(()),
        }
    }
}

impl Upload {
    fn done(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, There>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a part until the store has the bytes that were sent.
    async fn send(&self, wire: &mut Wire, number: u32, piece: &Piece<'_>) -> Result<There> {
        let writing = &self.writing;
        let path = writing.upload_path(&self.id, &format!("/parts/{number}"));
        let ask = Ask::new(Method::PUT, path)
            .with(hyper::header::CONTENT_TYPE, "application/octet-stream");
        let mut damaged = 0;
        writing
            .patience
            .insist(async || {
                loop {
                    let tally = Tallied::new(writing.wanted.sums());
                    let answer = wire.answer(&ask, piece.body(&tally, &writing.progress)).await;
                    let tally = tally.take();
                    let checked = match (answer, tally.failed) {
                        (_, Some(error)) => Err(error),
                        (Err(error), None) => Err(error),
                        (Ok((part, _)), None) => self.checked(part, number, piece, &tally.sums),
                    };
                    let Err(error) = checked else { return checked };
                    writing.progress.lost(tally.bytes);
                    piece.unchanged()?;
                    if error.kind() != ErrorKind::CORRUPTED || damaged == DAMAGED {
                        return Err(error);
                    }
                    damaged += 1;
                }
            })
            .await
    }

    fn checked(
        &self,
        part: PartView,
        number: u32,
        piece: &Piece<'_>,
        sums: &Sums,
    ) -> Result<There> {
        let what = format!("part {number} of upload {}", self.id);
        if part.number != number || part.size != piece.len() {
            let why = format!(
                "{what} has {} bytes in the store, and {} were sent",
                part.size,
                piece.len()
            );
            return Err(Error::new(ErrorKind::CORRUPTED, why));
        }
        if let Some((kind, told)) = part.checksum.as_deref().and_then(sums::told) {
            self.writing.wanted.learn(kind);
            let own = sums.hex(kind).map_or_else(|| piece.sum(kind), Ok)?;
            same(&own, told, &what)?;
        }
        Ok(There { part, crc: Some(sums.crc()) })
    }

    /// Makes the object of the parts.
    async fn complete(&self) -> Result<Written> {
        let (parts, sum) = {
            let done = self.done();
            let parts: Vec<_> = done.values().map(|there| there.part.clone()).collect();
            let sum = done.values().try_fold(0, |sum, there| {
                let len = usize::try_from(there.part.size).ok()?;
                Some(crc32c::crc32c_combine(sum, there.crc?, len))
            });
            (parts, sum)
        };
        let written = self.writing.complete(&self.id, parts).await?;
        match (written.checksum.as_deref().and_then(sums::told), sum) {
            (Some((Kind::Crc32c, told)), Some(sum)) => {
                let compared = same(&hex_of_crc(sum), told, "the object");
                compared.map_err(damaged).map(|()| written)
            }
            _ => Ok(written),
        }
    }
}

impl Writing {
    fn upload_path(&self, id: &str, below: &str) -> String {
        self.store.paths.upload(&self.to, id, below).and("mark", &self.mark).text()
    }

    /// Begins an upload, the next one of its transfer after so many.
    async fn begin(&self, before: usize) -> Result<String> {
        let body = self.facts.in_upload(&self.to.key, &self.mark)?;
        let path = self.store.paths.uploads(&self.to.bucket);
        let mut wire = Wire::new(&self.client);
        let begun = self.patience.insist(async || {
            // What the store would ignore at the end is refused now.
            let ask = self.terms.in_headers(Ask::new(Method::POST, path.as_str()));
            let ask = ask.once(format!("{}.begin.{before}", self.nonce));
            wire.post::<UploadView>(ask, &body).await.map_err(|error| match error.kind() {
                // The first attempt, of which no answer came, is still under way.
                ErrorKind::IN_USE => Error::new(ErrorKind::UNAVAILABLE, error.message()),
                _ => error,
            })
        });
        begun.await.map(|upload| upload.id)
    }

    /// The parts that the store has of an upload; none if there is no such upload.
    async fn listed(&self, id: &str) -> Result<Option<BTreeMap<u32, PartView>>> {
        let mut wire = Wire::new(&self.client);
        let mut parts = BTreeMap::new();
        let mut after = 0;
        loop {
            let path = self.store.paths.upload(&self.to, id, "").and("mark", &self.mark);
            let path = path.and("after", &after.to_string()).text();
            let page = self.patience.insist(async || wire.get::<PartsPage>(&path).await).await;
            let page = match page {
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => return Ok(None),
                page => page?,
            };
            let last = page.parts.last().map(|part| part.number);
            parts.extend(page.parts.into_iter().map(|part| (part.number, part)));
            match last {
                Some(last) if page.more && last > after => after = last,
                _ => return Ok(Some(parts)),
            }
        }
    }

    async fn complete(&self, id: &str, parts: Vec<PartView>) -> Result<Written> {
        let mut wire = Wire::new(&self.client);
        let path = self.upload_path(id, "/complete");
        let ask = self.terms.in_headers(Ask::new(Method::POST, path));
        let ask = ask.with(hyper::header::CONTENT_TYPE, "application/json");
        let body = CompleteUpload { parts };
        self.finally(async || {
            let (object, headers) = wire.answer::<serde_json::Value>(&ask, encoded(&body)?).await?;
            Ok(Written::of(&headers).or(&object))
        })
        .await
    }

    /// Gives an upload up, if that takes no time.
    pub(super) async fn abort(&self, place: &Place, id: &str, mark: &str) {
        let path = self.store.paths.upload(place, id, "").and("mark", mark).text();
        let mut wire = Wire::new(&self.client);
        let gone = tokio::time::timeout(LEAVING, wire.delete(&path)).await;
        if !matches!(gone, Ok(Ok(()))) {
            let Place { bucket, key } = place;
            self.progress.say(&format!(
                "an unfinished upload is left; try: novastor bucket abort {bucket} {key} {id}"
            ));
        }
    }

    /// What an error leaves of an upload: nothing, unless somebody can go on with it or it may be the object already.
    async fn leave(&self, id: &str, kept: Option<&Kept>, error: &Error) {
        let goes_on = kept.is_some_and(|kept| kept.journal.is_some()) && !is_for_good(error);
        if !goes_on && error.kind() != ErrorKind::TIMED_OUT && !is_damaged(error) {
            self.abort(&self.to, id, &self.mark).await;
        }
    }

    /// Writes a file in parts, going on where an earlier attempt ended.
    pub(super) async fn put_parts(
        self: &Arc<Self>,
        source: Arc<Source>,
        cut: Cut,
        kept: Arc<Kept>,
    ) -> Result<Written> {
        let earlier = Earlier::of(&kept.steps);
        if let (Some(id), Some(parts)) = (&earlier.id, &earlier.complete) {
            match self.complete(id, parts.clone()).await {
                // It was not completed, and is not there any more.
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                Err(error) if is_for_good(&error) => {
                    self.abort(&self.to, id, &self.mark).await;
                    return Err(error);
                }
                done => return done,
            }
        }
        let opened = self.stop.unless(async {
            if let Some(id) = &earlier.id
                && let Some(listed) = self.listed(id).await?
            {
                return Ok((id.clone(), listed));
            }
            let id = self.begin(earlier.uploads).await?;
            kept.keep_durably(&Step::Upload(id.clone()))?;
            Ok((id, BTreeMap::new()))
        });
        let (id, listed) = opened.await?;
        let upload = Upload { writing: Arc::clone(self), id: id.clone(), done: Mutex::default() };
        let known = earlier.parts;
        let next = AtomicU64::new(0);
        let kept_too = Arc::clone(&kept);
        let file = Arc::new(FileUpload { upload, source, cut, kept, listed, known, next });
        let threads = self.parallel.min(usize::try_from(cut.count()).unwrap_or(usize::MAX));
        let shared = Arc::clone(&file);
        let sent = share(threads, &self.stop, move || Arc::clone(&shared).work()).await;
        let result = match sent {
            Ok(()) => file.finish().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.leave(&id, Some(&kept_too), error).await;
        }
        result
    }

    /// Writes what can be read once: by one request if it is little, in parts otherwise.
    pub(super) async fn put_stream(
        self: &Arc<Self>,
        stream: File,
        asked: Option<u64>,
    ) -> Result<(Written, u64)> {
        let limits = &self.store.features;
        let part = usize::try_from(parts::part_size(None, asked, limits)?).unwrap_or(usize::MAX);
        let mut pieces = read_ahead(stream, part);
        let first =
            self.stop.unless(async { pieces.recv().await.unwrap_or_else(|| Ok(Bytes::new())) });
        let first = first.await?;
        if first.len() < part && first.len() as u64 <= limits.max_put {
            let size = first.len() as u64;
            return self.put_bytes(first).await.map(|written| (written, size));
        }
        if !self.store.completes_under(&self.terms) {
            return Err(no_conditions(self));
        }
        let id = self.stop.unless(self.begin(0)).await?;
        let upload = Upload { writing: Arc::clone(self), id: id.clone(), done: Mutex::default() };
        let pieces = Pieces { first: Some(first), rest: pieces, number: 0 };
        let stream = Arc::new(StreamUpload {
            upload,
            pieces: tokio::sync::Mutex::new(pieces),
            bytes: AtomicU64::new(0),
            most: limits.max_parts,
        });
        let shared = Arc::clone(&stream);
        let sent = share(self.parallel, &self.stop, move || Arc::clone(&shared).work()).await;
        let result = match sent {
            Ok(()) => stream.upload.complete().await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            self.leave(&id, None, error).await;
        }
        result.map(|written| (written, stream.bytes.load(Ordering::Relaxed)))
    }
}

impl FileUpload {
    async fn work(self: Arc<Self>) -> Result<()> {
        let mut wire = Wire::new(&self.upload.writing.client);
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.cut.count() || self.upload.writing.stop.is_set() {
                return Ok(());
            }
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let (at, len) = self.cut.at(index);
            let piece = Piece::OfFile(&self.source, at, len);
            let there = match self.there(number, &piece)? {
                Some(there) => {
                    self.upload.writing.progress.found(len);
                    there
                }
                None => {
                    let there = self.upload.send(&mut wire, number, &piece).await?;
                    self.source.unchanged()?;
                    self.kept.keep(&Step::Part { number, etag: there.part.etag.clone() })?;
                    there
                }
            };
            self.upload.done().insert(number, there);
        }
    }

    /// The part, if the store has it with the file's bytes.
    fn there(&self, number: u32, piece: &Piece<'_>) -> Result<Option<There>> {
        let Some(part) = self.listed.get(&number).filter(|part| part.size == piece.len()) else {
            return Ok(None);
        };
        let crc = match part.checksum.as_deref().and_then(sums::told) {
            Some((Kind::Crc32c, told)) => u32::from_str_radix(told, 16).ok(),
            _ => None,
        };
        let there = There { part: part.clone(), crc };
        // Its sum was compared when it was sent, and the file is what it was.
        if self.known.get(&number).is_some_and(|etag| *etag == part.etag) {
            return Ok(Some(there));
        }
        let Some((kind, told)) = part.checksum.as_deref().and_then(sums::told) else {
            return Ok(None);
        };
        let equal = piece.sum(kind)?.eq_ignore_ascii_case(told);
        Ok(equal.then_some(there))
    }

    async fn finish(&self) -> Result<Written> {
        self.source.unchanged()?;
        let parts = self.upload.done().values().map(|there| there.part.clone()).collect();
        self.kept.keep_durably(&Step::Complete(parts))?;
        self.upload.complete().await
    }
}

impl StreamUpload {
    async fn work(self: Arc<Self>) -> Result<()> {
        let writing = &self.upload.writing;
        let mut wire = Wire::new(&writing.client);
        while let Some((number, bytes)) = writing.stop.unless(self.take()).await? {
            let there = self.upload.send(&mut wire, number, &Piece::InMemory(&bytes)).await?;
            self.upload.done().insert(number, there);
            self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn take(&self) -> Result<Option<(u32, Bytes)>> {
        let mut pieces = self.pieces.lock().await;
        let bytes = match pieces.first.take() {
            Some(first) => first,
            None => match pieces.rest.recv().await {
                Some(piece) => piece?,
                None => return Ok(None),
            },
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        if pieces.number == self.most {
            let why = format!("the input does not fit into {} parts", self.most);
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .remedy("repeat it with a larger --part-size"));
        }
        pieces.number += 1;
        Ok(Some((pieces.number, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_upload_of_a_transfer_counts() {
        let part = |number, etag: &str| Step::Part { number, etag: etag.to_owned() };
        let steps = [
            Step::Upload("a".to_owned()),
            part(1, "x"),
            Step::Complete(Vec::new()),
            Step::Upload("b".to_owned()),
            part(2, "y"),
        ];
        let earlier = Earlier::of(&steps);
        assert_eq!((earlier.uploads, earlier.id.as_deref()), (2, Some("b")));
        assert_eq!(earlier.parts, BTreeMap::from([(2, "y".to_owned())]));
        assert!(earlier.complete.is_none());
        assert!(Earlier::of(&steps[..3]).complete.is_some());
        assert_eq!(Earlier::of(&[]).uploads, 0);
    }
}
