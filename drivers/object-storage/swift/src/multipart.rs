// SPDX-License-Identifier: Apache-2.0

//! Multi-part uploads as static large objects.
//!
//! ```text
//!  create                  put_part               complete
//!  .begun/KEY/UPLOAD ────► KEY/UPLOAD/00000 … ──► manifest at KEY in the container itself, then the marker goes
//!        │                                         (abort: segments go, then the marker)
//!        └ holds the headers of the object to be; lists uploads that were never completed
//! ```
//!
//! Segments and markers lie in the segments container. An upload's id carries when it was begun and when its object
//! expires, so that a part needs no look at the marker. Completing the same upload again is answered as before, as the
//! object tells which upload made it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use http::Method;
use http::header::{HeaderName, HeaderValue};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    MultipartId, MultipartUpload, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart,
};
use serde::{Deserialize, Serialize};

use crate::attributes::{DELETE_AT, UPLOAD};
use crate::client::Call;
use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::expiry;
use crate::store::Swift;

/// Names of parts have five digits, and must sort by number.
const MOST_PARTS: usize = 100_000;
/// The directory of markers.
const BEGUN: &str = ".begun/";

/// In [`PutMultipartOptions::extensions`]: the upload's completion fails if there is an object already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOnly;

/// What an upload's id tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadId {
    pub(crate) started: DateTime<Utc>,
    pub(crate) expires: Option<u64>,
}

impl UploadId {
    fn make(expires: Option<u64>) -> std::result::Result<MultipartId, getrandom::Error> {
        let id = format!("{:013}-{}", Utc::now().timestamp_millis(), encode::mark()?);
        Ok(match expires {
            Some(at) => format!("{id}-x{at}"),
            None => id,
        })
    }

    pub(crate) fn parse(id: &str) -> Option<Self> {
        let mut fields = id.split('-');
        let (millis, mark, expires) = (fields.next()?, fields.next()?, fields.next());
        let digits = millis.len() == 13 && millis.bytes().all(|b| b.is_ascii_digit());
        if !digits || mark.len() != 32 || encode::unhex(mark).is_none() || fields.next().is_some() {
            return None;
        }
        let expires = match expires {
            Some(text) => Some(text.strip_prefix('x')?.parse().ok()?),
            None => None,
        };
        Some(Self { started: DateTime::from_timestamp_millis(millis.parse().ok()?)?, expires })
    }
}

/// What a marker holds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) headers: Vec<(String, String)>,
    #[serde(default)]
    pub(crate) create: bool,
}

pub(crate) fn part_of(id: &PartId) -> Option<(String, u64)> {
    let (etag, size) = id.content_id.split_once(':')?;
    (etag.len() == 32).then_some((etag.to_owned(), size.parse().ok()?))
}

pub(crate) fn part_id(etag: &str, size: u64) -> PartId {
    PartId { content_id: format!("{etag}:{size}") }
}

impl Swift {
    /// The directory of the markers of all uploads.
    pub(crate) fn begun(&self) -> String {
        format!("{}{BEGUN}", self.part_prefix())
    }

    pub(crate) fn marker(&self, key: &str, id: &str) -> String {
        format!("{}{key}/{id}", self.begun())
    }

    pub(crate) fn known(&self, key: &Path, id: &str) -> std::result::Result<UploadId, Failure> {
        UploadId::parse(id).ok_or_else(|| self.no_upload(key, id, "this is no id of an upload"))
    }

    pub(crate) fn no_upload(&self, key: &Path, id: &str, cause: &str) -> Failure {
        Failure::new(
            FailureKind::NotFound,
            format!("upload {id} of {}/{key}", self.container_name()),
            cause,
        )
        .path(key.as_ref())
        .remedy("list the unfinished uploads; begin a new one")
    }

    /// Makes the segments container if it is not there yet.
    pub(crate) async fn ensure_segments(&self) -> std::result::Result<(), Failure> {
        let made = self.segments_ready().get_or_try_init(|| async {
            self.client()
                .send(&Call::container(Method::PUT, self.segments_name()))
                .await
                .map(|_| ())
        });
        made.await.copied()
    }

    async fn begin(
        &self,
        key: &Path,
        opts: PutMultipartOptions,
    ) -> std::result::Result<MultipartId, Failure> {
        if !self.client().capabilities().await?.slo {
            let failure = self
                .call(Method::PUT, key)
                .failure(FailureKind::Unsupported, "the server has no SLO");
            return Err(
                failure.remedy("have its slo middleware enabled, or put the object in one piece")
            );
        }
        let mut headers = self.headers_for(key, &opts.attributes, &opts.tags)?;
        let expires = expiry::absolute(&mut headers);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), std::str::from_utf8(value.as_bytes()).ok()?.to_owned()))
        };
        let begun = Begun {
            headers: headers.iter().filter_map(text).collect(),
            create: opts.extensions.get::<CreateOnly>().is_some(),
        };
        let no_id = |error: getrandom::Error| {
            let cause = format!("this system has no random numbers: {error}");
            self.call(Method::PUT, key).failure(FailureKind::Server, cause)
        };
        let id = UploadId::make(expires).map_err(no_id)?;
        self.ensure_segments().await?;
        let body = serde_json::to_vec(&begun).unwrap_or_default();
        let call = Call::object(Method::PUT, self.segments_name(), &self.marker(key.as_ref(), &id));
        self.put_checked(call.header("Content-Type", "application/json"), body.into()).await?;
        Ok(id)
    }

    pub(crate) async fn begun_as(
        &self,
        key: &Path,
        id: &str,
    ) -> std::result::Result<Option<Begun>, Failure> {
        let call = Call::object(Method::GET, self.segments_name(), &self.marker(key.as_ref(), id));
        let answer = match self.client().send(&call.clone().header("X-Newest", "true")).await {
            Ok(answer) => answer,
            Err(failure) if failure.kind() == FailureKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let begun = serde_json::from_slice(&answer.bytes().await?);
        begun.map(Some).map_err(|error| {
            call.failure(FailureKind::Corrupt, format!("the marker is damaged: {error}"))
        })
    }

    async fn part(
        &self,
        key: &Path,
        id: &str,
        index: usize,
        data: PutPayload,
    ) -> std::result::Result<PartId, Failure> {
        let known = self.known(key, id)?;
        let name = format!("{}{index:05}", self.segments_of(key.as_ref(), id));
        let mut call = Call::object(Method::PUT, self.segments_name(), &name)
            .header("Content-Type", "application/octet-stream");
        if index >= MOST_PARTS {
            let cause = format!("an upload has {MOST_PARTS} parts at most");
            return Err(call.failure(FailureKind::Rejected, cause).remedy("upload larger parts"));
        }
        if let Some(at) = known.expires {
            call = call.header(DELETE_AT, at.to_string());
        }
        let size = data.content_length() as u64;
        let (etag, _) = self.put_checked(call, data).await?;
        Ok(part_id(&etag, size))
    }

    async fn abort(&self, key: &Path, id: &str) -> std::result::Result<(), Failure> {
        self.known(key, id)?;
        if self.made_by(key, id).await? {
            return Err(self
                .no_upload(key, id, "it was completed: its parts are those of the object")
                .remedy("delete the object"));
        }
        self.clear(&self.segments_of(key.as_ref(), id)).await?;
        // A completion whose answer was lost may still have been under way.
        if self.made_by(key, id).await? {
            let cause = "it was completed while it was given up: the object lacks its parts";
            let failure = self.call(Method::DELETE, key).failure(FailureKind::Corrupt, cause);
            return Err(failure.remedy("delete the object, and upload it again"));
        }
        match self.remove_one(self.segments_name(), &self.marker(key.as_ref(), id)).await {
            Err(failure) if failure.kind() != FailureKind::NotFound => Err(failure),
            _ => Ok(()),
        }
    }

    /// Whether the object that is there was made by this upload.
    async fn made_by(&self, key: &Path, id: &str) -> std::result::Result<bool, Failure> {
        let headers = self.newest_if_any(key).await?;
        let maker = headers.as_ref().and_then(|headers| headers.get(UPLOAD));
        Ok(maker.is_some_and(|maker| maker.as_bytes() == id.as_bytes()))
    }

    pub(crate) async fn upload(
        &self,
        key: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let id = self.begin(key, opts).await?;
        let state = Arc::new(Running {
            swift: self.clone(),
            key: key.clone(),
            id,
            parts: Mutex::default(),
        });
        Ok(Box::new(Handle { state, next: 0 }))
    }

    /// A new upload's id for segments which the server copies.
    pub(crate) fn copy_id(
        &self,
        key: &Path,
        expires: Option<u64>,
    ) -> std::result::Result<MultipartId, Failure> {
        UploadId::make(expires).map_err(|error| {
            self.call(Method::PUT, key)
                .failure(FailureKind::Server, format!("no random numbers: {error}"))
        })
    }
}

#[async_trait]
impl MultipartStore for Swift {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        Ok(self.begin(path, PutMultipartOptions::default()).await?)
    }

    async fn create_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<MultipartId> {
        Ok(self.begin(path, opts).await?)
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        Ok(self.part(path, id, part_idx, data).await?)
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        Ok(self.complete(path, id, parts, false).await?)
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        Ok(self.abort(path, id).await?)
    }
}

#[derive(Debug)]
struct Running {
    swift: Swift,
    key: Path,
    id: MultipartId,
    parts: Mutex<Vec<(usize, PartId)>>,
}

/// An upload whose parts come in order.
#[derive(Debug)]
struct Handle {
    state: Arc<Running>,
    next: usize,
}

#[async_trait]
impl MultipartUpload for Handle {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (state, index) = (self.state.clone(), self.next);
        self.next += 1;
        Box::pin(async move {
            let part = state.swift.part(&state.key, &state.id, index, data).await?;
            if let Ok(mut parts) = state.parts.lock() {
                parts.push((index, part));
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut parts = self.state.parts.lock().map(|parts| parts.clone()).unwrap_or_default();
        parts.sort_by_key(|(index, _)| *index);
        if parts.len() != self.next {
            let call = self.state.swift.call(Method::PUT, &self.state.key);
            let cause = format!("{} of {} parts are there", parts.len(), self.next);
            return Err(call
                .failure(FailureKind::Rejected, cause)
                .remedy("wait for all parts before completing")
                .into());
        }
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        Ok(self.state.swift.complete(&self.state.key, &self.state.id, parts, false).await?)
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(self.state.swift.abort(&self.state.key, &self.state.id).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_start_and_expiry() {
        let id = UploadId::make(Some(4_000_000_000)).unwrap();
        let known = UploadId::parse(&id).unwrap();
        assert_eq!(known.expires, Some(4_000_000_000));
        assert!((Utc::now() - known.started).num_seconds() < 5);
        assert_eq!(UploadId::parse(&UploadId::make(None).unwrap()).unwrap().expires, None);
        for wrong in
            ["", "00000", "manifest-00000", "1234567890123-short", "../x", &format!("{id}-x")]
        {
            assert_eq!(UploadId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parts_tell_hash_and_size() {
        let part = part_id("4f6d054536d6613a91472139cc60f072", 6);
        assert_eq!(part_of(&part), Some(("4f6d054536d6613a91472139cc60f072".into(), 6)));
        assert_eq!(part_of(&PartId { content_id: "x:6".into() }), None);
    }
}
