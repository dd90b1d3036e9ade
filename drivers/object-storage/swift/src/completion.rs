// SPDX-License-Identifier: Apache-2.0

//! The completion of uploads: manifests, nested where they are long, and what is tidied up behind them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{self, StreamExt};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{Extensions, MultipartId, PutMode, PutPayload, PutResult, Result};

use crate::attributes::{self, DELETE_AT, UPLOAD};
use crate::client::Call;
use crate::error::{Failure, FailureKind};
use crate::listing::Span;
use crate::manifest::{self, Report, Segment};
use crate::multipart::{UploadId, part_of};
use crate::retry::Backoff;
use crate::segments::NESTED;
use crate::store::{Swift, put_result};

/// What each segment adds to the deadline of its manifest: the server looks at all of them.
const EACH: Duration = Duration::from_millis(50);
const PARTS: &str = "upload the parts that it names again, and complete it again";

fn named(failure: Failure) -> Failure {
    if failure.status() == Some(400) { failure.remedy(PARTS) } else { failure }
}

impl Swift {
    /// Completes an upload with `mode`: [`PutMode::Create`] fails if there is an object already.
    ///
    /// # Errors
    /// Parts that are not there or differ; no such upload; an object that exists; [`PutMode::Update`].
    pub async fn complete_multipart_mode(
        &self,
        key: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
        mode: PutMode,
    ) -> Result<PutResult> {
        if let PutMode::Update(_) = mode {
            return Err(object_store::Error::NotImplemented {
                operation:
                    "complete_multipart with PutMode::Update (Swift ignores If-Match on PUT)"
                        .to_owned(),
                implementer: self.to_string(),
            });
        }
        Ok(self.complete(key, id, parts, mode == PutMode::Create).await?)
    }

    pub(crate) async fn complete(
        &self,
        key: &Path,
        id: &str,
        parts: Vec<PartId>,
        create: bool,
    ) -> std::result::Result<PutResult, Failure> {
        self.known(key, id)?;
        let directory = self.segments_of(key.as_ref(), id);
        let mut segments = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let Some((etag, size)) = part_of(part) else {
                let cause = format!("part {index} has an id that no part has");
                return Err(self.call(Method::PUT, key).failure(FailureKind::Rejected, cause));
            };
            // A manifest may not name empty segments, and need not.
            if size > 0 {
                segments.push(Segment::new(
                    self.segments_name(),
                    &format!("{directory}{index:05}"),
                    &etag,
                    size,
                ));
            }
        }
        let leaves: Vec<String> = segments
            .iter()
            .filter_map(|segment| segment.place())
            .map(|(_, name)| name.to_owned())
            .collect();
        let Some(begun) = self.begun_as(key, id).await? else {
            return self.completed_before(key, id, segments).await;
        };
        self.compare(key, id, &parts).await?;
        let mut headers = HeaderMap::new();
        for (name, value) in &begun.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
            {
                headers.insert(name, value);
            }
        }
        let (top, nested) = self.nest(key, id, segments).await?;
        let result = self.put_manifest(key, id, headers, &top, create || begun.create).await?;
        self.tidy(key, id, leaves, nested).await;
        Ok(result)
    }

    /// Compares parts with what is stored, for servers that are not known to do so when they get a manifest.
    async fn compare(
        &self,
        key: &Path,
        id: &str,
        parts: &[PartId],
    ) -> std::result::Result<(), Failure> {
        if self.client().capabilities().await?.creates {
            return Ok(());
        }
        let stored = self.stored_parts(key, id).await?;
        for (index, part) in parts.iter().enumerate() {
            let found = stored.iter().find(|stored| stored.index == index);
            // Nothing stands for a gap between the numbers of parts.
            if found.is_none() && part_of(part).is_some_and(|(_, size)| size == 0) {
                continue;
            }
            if found.map(|stored| &stored.id.content_id) != Some(&part.content_id) {
                let what = if found.is_some() { "differs" } else { "is missing" };
                let failure = self
                    .call(Method::PUT, key)
                    .failure(FailureKind::Rejected, format!("part {index} {what}"));
                return Err(failure.remedy(PARTS));
            }
        }
        Ok(())
    }

    /// What is not part of the object goes, the marker last. The object is complete: what fails here is swept later.
    async fn tidy(&self, key: &Path, id: &str, mut used: Vec<String>, nested: Vec<String>) {
        used.extend(nested);
        let used: HashSet<String> = used.into_iter().collect();
        let span = Span { prefix: self.segments_of(key.as_ref(), id), ..Default::default() };
        let entries = self.entries(self.segments_name().to_owned(), span);
        let unused: std::result::Result<Vec<String>, Failure> = entries
            .map_ok(|entry| entry.name)
            .try_filter(|name| std::future::ready(!used.contains(name)))
            .try_collect()
            .await;
        if let Ok(unused) = unused {
            self.remove_names(self.segments_name(), &unused).await;
        }
        let _left_to_sweep =
            self.remove_one(self.segments_name(), &self.marker(key.as_ref(), id)).await;
    }

    /// The answer to a completion whose marker is gone: as before, if this upload made the object that is there.
    async fn completed_before(
        &self,
        key: &Path,
        id: &str,
        segments: Vec<Segment>,
    ) -> std::result::Result<PutResult, Failure> {
        let headers = self.newest_if_any(key).await?;
        let ours = headers.filter(|headers| {
            headers.get(UPLOAD).is_some_and(|value| value.as_bytes() == id.as_bytes())
        });
        let Some(headers) = ours else {
            return Err(self.no_upload(
                key,
                id,
                "it was aborted, or completed and its object replaced since",
            ));
        };
        let etag = attributes::header_etag(&headers).unwrap_or_default();
        let most = self.client().capabilities().await?.max_segments;
        if etag == manifest::nested_etag(&segments, most) {
            return Ok(put_result(etag, &headers, Extensions::new()));
        }
        let cause = "the upload was completed before, with other parts";
        Err(self.call(Method::PUT, key).failure(FailureKind::Rejected, cause))
    }

    /// Puts manifests of manifests where there are more segments than one may name. Returns the top and the names of
    /// the others.
    pub(crate) async fn nest(
        &self,
        key: &Path,
        id: &str,
        segments: Vec<Segment>,
    ) -> std::result::Result<(Vec<Segment>, Vec<String>), Failure> {
        let most = self.client().capabilities().await?.max_segments.max(1);
        if segments.len() <= most {
            return Ok((segments, Vec::new()));
        }
        let expires = UploadId::parse(id).and_then(|id| id.expires);
        let put = segments.chunks(most).map(<[Segment]>::to_vec).enumerate().map(
            |(index, chunk)| async move {
                let name = format!("{}{NESTED}{index:05}", self.segments_of(key.as_ref(), id));
                let mut call = Call::object(Method::PUT, self.segments_name(), &name);
                if let Some(at) = expires {
                    call = call.header(DELETE_AT, at.to_string());
                }
                let (etag, _, _) = self.send_manifest(call, &chunk).await?;
                let size = chunk.iter().fold(0_u64, |sum, one| sum.saturating_add(one.size_bytes));
                Ok((Segment::new(self.segments_name(), &name, &etag, size), name))
            },
        );
        stream::iter(put)
            .buffered(2)
            .try_collect::<Vec<_>>()
            .await
            .map(|nested| nested.into_iter().unzip())
    }

    /// Puts an object's manifest, which makes the object visible, and removes the segments of what it replaces.
    pub(crate) async fn put_manifest(
        &self,
        key: &Path,
        id: &str,
        headers: HeaderMap,
        segments: &[Segment],
        create: bool,
    ) -> std::result::Result<PutResult, Failure> {
        let mut call = self.call(Method::PUT, key).headers(headers).header(UPLOAD, id);
        let mut replaced = None;
        if create {
            self.ensure_creation().await?;
            call = call.header("If-None-Match", "*");
        } else {
            replaced = self.replaced(key).await?.filter(|old| old != id);
        }
        let sent = if segments.is_empty() {
            self.put_checked(call, PutPayload::default())
                .await
                .map(|(etag, answer)| (etag, answer.headers, answer.extensions))
        } else {
            self.send_manifest(call, segments).await
        };
        match sent {
            Ok((etag, headers, extensions)) => {
                self.forget(key, replaced).await;
                Ok(put_result(etag, &headers, extensions))
            }
            Err(failure) => self.whose(key, UPLOAD, id, failure).await,
        }
    }

    async fn send_manifest(
        &self,
        call: Call,
        segments: &[Segment],
    ) -> std::result::Result<(String, HeaderMap, Extensions), Failure> {
        let body = Bytes::from(serde_json::to_vec(segments).unwrap_or_default());
        let mut call = call.query("multipart-manifest", "put");
        if self.client().capabilities().await?.heartbeat {
            call = call.query("heartbeat", "on");
        }
        let call = call.payload(body).allowance(EACH * segments.len() as u32);
        let expected = manifest::etag(segments.iter().map(|segment| segment.etag.as_str()));
        let config = &self.client().config;
        let deadline = Instant::now() + config.retry.retry_timeout;
        let mut backoff = Backoff::new(&config.retry);
        let mut unknown = false;
        loop {
            let answer = self.client().send(&call).await.map_err(|failure| {
                let unknown = unknown || failure.outcome_unknown();
                named(failure).unknown(unknown)
            })?;
            unknown |= answer.repeated;
            let (headers, extensions) = (answer.headers.clone(), answer.extensions.clone());
            let told = attributes::header_etag(&headers);
            let report = Report::parse(&answer.bytes().await?);
            let etag = match &report {
                Some(report) if (200..300).contains(&report.code()) && report.errors.is_empty() => {
                    attributes::etag(&report.etag)
                }
                Some(report) => {
                    let status = StatusCode::from_u16(report.code()).unwrap_or_default();
                    let (kind, remedy) = crate::error::classify(status);
                    let remedy = if status == 400 { PARTS } else { remedy };
                    unknown |= status.is_server_error();
                    let failure =
                        call.failure(kind, report.cause()).remedy(remedy).unknown(unknown);
                    let failure = failure.answered(status, crate::retry::transaction(&headers));
                    if status.is_server_error() && backoff.wait(deadline, None).await.is_ok() {
                        continue;
                    }
                    return Err(failure);
                }
                None => told.unwrap_or_default(),
            };
            if etag == expected {
                return Ok((etag, headers, extensions));
            }
            let cause = format!(
                "the object that was made is another one: its ETag is {etag}, not {expected}"
            );
            return Err(call
                .failure(FailureKind::Corrupt, cause)
                .remedy("delete it, and upload it again"));
        }
    }
}
