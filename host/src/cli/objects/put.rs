// SPDX-License-Identifier: Apache-2.0
//! `novastor object put`: small files by one request, larger ones by an upload of parts.
//!
//! Every repetition of one write carries the mark that was drawn for it. That is what may repeat a write whose outcome is
//! unknown: the store keeps the mark with the object, and the host tells by it whether it was this write that came first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result};
use hyper::{HeaderMap, Method};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    facts::marked,
    journal::{self, Identity, Journal},
    names::{Place, typed},
    parts,
    patience::{Patience, Stop, is_stopped},
    progress::Progress,
    source::{self, Input, Source},
    store::Chosen,
    sums::{self, Wanted},
    wire::{self, Ask, Wire, header},
};
use crate::{
    api::objects::types::{CHECKSUM, PartView, VERSION},
    cli::{
        Output, Session,
        args::objects::{Facts, Put, Terms},
        client::{Client, fresh_key},
        show,
    },
    config::format_size,
};

/// How often what arrived changed on its way is sent again.
const DAMAGED: u32 = 3;

/// The transfer that a journal is of.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) backend: String,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) file: String,
    pub(super) identity: Identity,
    /// Bytes of a part; none: it is written whole.
    pub(super) part_size: Option<u64>,
    /// What is said of the object and when it is written: another wish is another write.
    pub(super) wish: String,
    pub(super) mark: String,
    /// What tells the uploads of this transfer from those of any other, of the same request too.
    nonce: String,
}

/// What is done of a transfer.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// The upload was begun.
    Upload(String),
    /// A part is there.
    Part { number: u32, etag: String },
    /// All parts are there, and the object was asked for.
    Complete(Vec<PartView>),
}

/// What all that writes an object needs.
pub(super) struct Writing {
    pub(super) client: Client,
    pub(super) store: Chosen,
    pub(super) to: Place,
    pub(super) terms: Terms,
    pub(super) facts: Facts,
    pub(super) mark: String,
    pub(super) nonce: String,
    pub(super) parallel: usize,
    pub(super) stop: Arc<Stop>,
    pub(super) patience: Patience,
    pub(super) progress: Arc<Progress>,
    pub(super) wanted: Wanted,
}

/// The refusal of a large write under a condition that the store would ignore at its end.
pub(super) fn no_conditions(writing: &Writing) -> Error {
    let why = "this store cannot end an upload in parts under a condition, and the content is too large for one write";
    Error::new(ErrorKind::UNSUPPORTED, why)
        .with("backend", &writing.store.features.backend)
        .with("largest write at once", parts::WHOLE.min(writing.store.features.max_put))
        .remedy("write it under a name that nobody else has; `novastor object copy --create-only` may then give it the other")
}

/// What was written.
#[derive(Serialize, Clone, Debug, Default)]
pub(super) struct Written {
    pub(super) etag: Option<String>,
    pub(super) version: Option<String>,
    pub(super) checksum: Option<String>,
}

impl Written {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name| header(headers, name).map(str::to_owned);
        Self {
            etag: text("etag").map(|etag| etag.trim_matches('"').to_owned()),
            version: text(VERSION),
            checksum: text(CHECKSUM),
        }
    }

    /// The same, with what only the body says of the object.
    pub(super) fn or(self, object: &serde_json::Value) -> Self {
        let text = |name: &str| object[name].as_str().map(str::to_owned);
        Self {
            etag: self.etag.or_else(|| text("etag")),
            version: self.version.or_else(|| text("version")),
            checksum: self.checksum.or_else(|| text("checksum")),
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    bucket: &'a str,
    key: &'a str,
    size: u64,
    /// Bytes that this command sent; the rest was there from an earlier attempt.
    sent: u64,
    #[serde(flatten)]
    written: &'a Written,
}

impl Session {
    pub(super) async fn put(&self, put: Put) -> Result<()> {
        put.facts.check()?;
        let input = source::open(&put.file)?;
        let store = self.store(put.store.clone()).await?;
        let size = match &input {
            Input::File(source) => Some(source.identity.size),
            Input::Stream(_) => None,
        };
        // Another content under the same request is another write.
        let content = match &input {
            Input::File(source) => format!("{:?} {}", source.identity, wish(&put)),
            Input::Stream(_) => wish(&put),
        };
        let (stop, progress) = (Stop::on_key_press(), Arc::new(Progress::new(self.output, size)));
        let writing = Writing {
            client: self.client.clone(),
            mark: self.mark(&store, &put.to, &content),
            nonce: fresh_key()?,
            store,
            to: put.to.clone(),
            terms: put.terms.clone(),
            facts: put.facts.clone(),
            parallel: usize::from(put.moving.parallel),
            patience: Patience::new(put.moving.patience, &stop, &progress),
            stop,
            progress: Arc::clone(&progress),
            wanted: Wanted::default(),
        };
        let written = match input {
            Input::File(source) => self.put_file(writing, source, &put).await,
            Input::Stream(stream) => {
                Arc::new(writing).put_stream(stream, put.moving.part_size).await
            }
        };
        progress.end();
        let (written, size) = written?;
        if self.output == Output::Json {
            let (bucket, key, sent) =
                (put.to.bucket.as_str(), put.to.key.as_str(), progress.bytes());
            return show::json(&Answer { bucket, key, size, sent, written: &written });
        }
        let etag = written.etag.map(|etag| format!(", ETag {etag}")).unwrap_or_default();
        self.done(&format!("{} has {}{etag}\nsent {}", put.to, format_size(size), progress.sum()))
    }

    /// What tells this write from any other. Whoever repeats the command with its request id repeats the write.
    pub(super) fn mark(&self, store: &Chosen, to: &Place, content: &str) -> String {
        let mut digest = Sha256::new();
        let key = self.client.key().unwrap_or_default();
        for part in [key, &store.features.backend, &to.bucket, &to.key, content] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    async fn put_file(
        &self,
        mut writing: Writing,
        source: Source,
        put: &Put,
    ) -> Result<(Written, u64)> {
        let size = source.identity.size;
        let cut = parts::for_writing(size, put.moving.part_size, &writing.store.features)?;
        if cut.is_some() && !writing.store.completes_under(&put.terms) {
            return Err(no_conditions(&writing));
        }
        // A small write without conditions is begun anew, at no cost and with the same end.
        let plain = cut.is_none() && put.terms.is_empty();
        let file = std::path::absolute(&put.file)
            .map_err(|error| Error::from_io("the working directory is unknown", &error))?;
        let transfer = Transfer {
            backend: writing.store.features.backend.clone(),
            bucket: writing.to.bucket.clone(),
            key: writing.to.key.clone(),
            file: file.to_string_lossy().into_owned(),
            identity: source.identity.clone(),
            part_size: cut.map(|cut| cut.part),
            wish: wish(put),
            mark: writing.mark.clone(),
            nonce: writing.nonce.clone(),
        };
        if plain {
            return writing.put_whole(&source).await.map(|written| (written, size));
        }
        let names =
            [transfer.backend.as_bytes(), transfer.bucket.as_bytes(), transfer.key.as_bytes()];
        let place = journal::place(&[names[0], names[1], names[2], transfer.file.as_bytes()]);
        let place = match (place, put.moving.no_resume) {
            (Ok(place), _) => Some(place),
            (Err(_), true) => None,
            (Err(error), false) => return Err(error),
        };
        let mut kept = Kept { journal: None, steps: Vec::new() };
        if let Some(place) = place.filter(|place| !put.moving.no_resume || place.exists()) {
            let (mut journal, found) = Journal::open::<Transfer, Step>(&place)?;
            match found {
                Some((before, steps)) if before.is_same_as(&transfer) && !put.moving.no_resume => {
                    (writing.mark, writing.nonce) = (before.mark, before.nonce);
                    kept = Kept { journal: Some(journal), steps };
                }
                found => {
                    if let Some((before, steps)) = found {
                        writing.give_up_earlier(&before, &steps, put.moving.no_resume).await;
                    }
                    if put.moving.no_resume {
                        journal.remove()?;
                    } else {
                        journal.begin(&transfer)?;
                        kept.journal = Some(journal);
                    }
                }
            }
        }
        let (writing, kept) = (Arc::new(writing), Arc::new(kept));
        let result = match cut {
            None => writing.put_whole(&source).await,
            Some(cut) => writing.put_parts(Arc::new(source), cut, Arc::clone(&kept)).await,
        };
        let ended =
            result.as_ref().err().is_none_or(|error| is_for_good(error) || is_damaged(error));
        if let (true, Some(journal)) = (ended, &kept.journal)
            && let Err(error) = journal.remove()
        {
            writing.progress.say(&error.to_string());
        }
        match result {
            Err(error) if !ended && kept.journal.is_some() => Err(resumable(error)),
            result => result.map(|written| (written, size)),
        }
    }
}

/// What is said of the object and when it is written.
fn wish(put: &Put) -> String {
    format!("{:?} {:?}", put.terms, put.facts)
}

/// The journal of a transfer, if it has one, and what it said at the beginning.
pub(super) struct Kept {
    pub(super) journal: Option<Journal>,
    pub(super) steps: Vec<Step>,
}

impl Kept {
    /// Keeps a step.
    pub(super) fn keep(&self, step: &Step) -> Result<()> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.add(step))
    }

    /// Keeps a step that must not be forgotten.
    pub(super) fn keep_durably(&self, step: &Step) -> Result<()> {
        self.keep(step)?;
        self.journal.as_ref().map_or(Ok(()), Journal::sync)
    }
}

impl Transfer {
    /// Whether both are of the same bytes for the same object under the same wishes.
    fn is_same_as(&self, other: &Self) -> bool {
        *self == Self { mark: self.mark.clone(), nonce: self.nonce.clone(), ..other.clone() }
    }
}

impl Writing {
    /// Gives up what an earlier command left of another content.
    async fn give_up_earlier(&self, before: &Transfer, steps: &[Step], asked: bool) {
        let id = steps.iter().rev().find_map(|step| match step {
            Step::Upload(id) => Some(id),
            _ => None,
        });
        if !asked {
            self.progress.say(
                "the file or what is wished for it has changed since the transfer broke off; it begins anew",
            );
        }
        if let Some(id) = id {
            let place = Place { bucket: before.bucket.clone(), key: before.key.clone() };
            self.abort(&place, id, &before.mark).await;
        }
    }

    /// The object's path.
    fn path(&self) -> String {
        self.store.paths.object(&self.to)
    }

    fn request(&self) -> Result<Ask> {
        let ask = Ask::new(Method::PUT, self.path());
        let ask = self.terms.in_headers(marked(ask, &self.mark));
        if self.facts.content_type.is_some() {
            return self.facts.in_headers(ask);
        }
        let ask = ask.with(hyper::header::CONTENT_TYPE, "application/octet-stream");
        self.facts.in_headers(ask)
    }

    /// Writes a small file by one request. It is read first: a file that changes meanwhile is refused before there is any
    /// object of it.
    async fn put_whole(&self, source: &Source) -> Result<Written> {
        let bytes = source.whole()?;
        source.unchanged()?;
        self.put_bytes(bytes).await
    }

    /// Writes bytes in memory by one request.
    pub(super) async fn put_bytes(&self, bytes: Bytes) -> Result<Written> {
        let mut wire = Wire::new(&self.client);
        let ask = self.request()?;
        self.finally(async || {
            let response = wire.send(&ask, wire::body(bytes.clone())).await?;
            let written = Written::of(response.headers());
            if let Some((kind, told)) = written.checksum.as_deref().and_then(sums::told) {
                let mut sums = sums::Sums::of(&[kind]);
                sums.add(&bytes);
                same(&sums.hex(kind).unwrap_or_default(), told, "the object").map_err(damaged)?;
            }
            self.progress.moved(bytes.len() as u64);
            Ok(written)
        })
        .await
    }

    /// Does what makes the object visible, again and again while its outcome is unknown: the mark proves whose it is. One
    /// that is under way when the transfer is ended may be done all the same.
    pub(super) async fn finally<T>(
        &self,
        mut attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let (mut unknown, mut damaged) = (false, 0);
        let under_way = AtomicBool::new(false);
        let done = self
            .patience
            .insist(async || {
                loop {
                    under_way.store(true, Ordering::Relaxed);
                    let ended = attempt().await;
                    under_way.store(false, Ordering::Relaxed);
                    match ended {
                        Err(error) if error.kind() == ErrorKind::CORRUPTED && damaged < DAMAGED => {
                            damaged += 1;
                        }
                        Err(error) => {
                            unknown |= error.kind() == ErrorKind::TIMED_OUT;
                            return Err(error);
                        }
                        done => return done,
                    }
                }
            })
            .await;
        unknown |= under_way.into_inner();
        let refused = [ErrorKind::CONFLICT, ErrorKind::ALREADY_EXISTS, ErrorKind::CORRUPTED];
        match done {
            Err(error) if unknown && !refused.contains(&error.kind()) => {
                let why =
                    format!("whether {} was written is unknown: {}", self.to, error.message());
                let again = match self.client.key() {
                    Some(key) if !typed().contains("--request-id") => {
                        format!("{} --request-id {key}", typed())
                    }
                    _ => typed(),
                };
                Err(Error::new(ErrorKind::TIMED_OUT, why).caused_by(&error).remedy(again))
            }
            done => done,
        }
    }
}

/// Whether what was refused would be refused again, if it was repeated as it was.
pub(super) fn is_for_good(error: &Error) -> bool {
    let kinds = [
        ErrorKind::CONFLICT,
        ErrorKind::ALREADY_EXISTS,
        ErrorKind::INVALID_ARGUMENT,
        ErrorKind::UNSUPPORTED,
    ];
    kinds.contains(&error.kind())
}

const DAMAGED_OBJECT: &str = "the object was written, and it is damaged: ";

/// The error of an object that is there with other bytes than were sent.
pub(super) fn damaged(error: Error) -> Error {
    let why = format!("{DAMAGED_OBJECT}{}", error.message());
    let again = error.remedy_text().to_owned();
    Error::new(error.kind(), why).caused_by(&error).remedy(again)
}

/// Whether it is that error: who repeats the write begins anew.
pub(super) fn is_damaged(error: &Error) -> bool {
    error.message().starts_with(DAMAGED_OBJECT)
}

/// The error of a transfer that can go on.
pub(super) fn resumable(error: Error) -> Error {
    if is_stopped(&error) {
        let why = "interrupted; what was moved is kept, and the same command goes on from there";
        return Error::new(ErrorKind::UNAVAILABLE, why).remedy(typed());
    }
    let again = match error.remedy_text() {
        "" => typed(),
        text if text.starts_with("novastor ") => typed(),
        text => format!("{text}; then go on: {}", typed()),
    };
    error.remedy(again)
}

/// Compares what was sent with what arrived.
pub(super) fn same(own: &str, told: &str, what: &str) -> Result<()> {
    if own.eq_ignore_ascii_case(told) {
        return Ok(());
    }
    let why = format!("the store has other bytes in {what} than were sent");
    Err(Error::new(ErrorKind::CORRUPTED, why)
        .with("sum of what was sent", own)
        .with("sum of what is there", told)
        .remedy(
            "see the memory and the network of this machine and the store's log, and send it again",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(mark: &str) -> Transfer {
        let file = tempfile::tempfile().unwrap();
        Transfer {
            backend: "s".to_owned(),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            file: "/f".to_owned(),
            identity: Identity::of(&file).unwrap(),
            part_size: Some(1),
            wish: String::new(),
            mark: mark.to_owned(),
            nonce: mark.to_owned(),
        }
    }

    #[test]
    fn the_mark_of_the_first_attempt_is_the_transfers() {
        let first = transfer("1");
        let again = Transfer { mark: "2".to_owned(), nonce: "2".to_owned(), ..first.clone() };
        assert!(first.is_same_as(&again));
        assert!(!first.is_same_as(&Transfer { part_size: Some(2), ..again.clone() }));
        assert!(!first.is_same_as(&Transfer { wish: "create only".to_owned(), ..again }));
    }

    #[test]
    fn steps_are_read_as_they_were_written() {
        let steps = [
            Step::Upload("id".to_owned()),
            Step::Part { number: 1, etag: "e".to_owned() },
            Step::Complete(vec![PartView {
                number: 1,
                size: 2,
                etag: "e".to_owned(),
                checksum: None,
            }]),
        ];
        for step in steps {
            let text = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step, "{text}");
        }
    }

    #[test]
    fn other_bytes_are_an_error() {
        same("ab", "AB", "part 1").unwrap();
        assert_eq!(same("ab", "ac", "part 1").unwrap_err().kind(), ErrorKind::CORRUPTED);
    }
}
