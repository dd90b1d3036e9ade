// SPDX-License-Identifier: Apache-2.0

//! Segments of large objects, whose life follows that of their object.
//!
//! Segments lie in the segments container under `KEY/UPLOAD/`. Only those of uploads of this client are removed when
//! their object is overwritten: an object tells by its metadata which upload made it. Segments which another client put
//! elsewhere may belong to more than one object, and stay. What a crash leaves behind is found by
//! [`Swift::sweep`](crate::Swift::sweep).

use futures_util::TryStreamExt;
use http::{HeaderMap, Method};
use object_store::path::Path;

use crate::attributes::{self, UPLOAD};
use crate::client::Call;
use crate::error::{Failure, FailureKind};
use crate::listing::Span;
use crate::manifest::{self, Segment};
use crate::store::Swift;

impl Swift {
    /// Where the segments of an upload lie, with a slash at its end.
    pub(crate) fn segments_of(&self, key: &str, upload: &str) -> String {
        format!("{}{key}/{upload}/", self.part_prefix())
    }

    /// The upload whose segments a put over `key` makes superfluous.
    pub(crate) async fn replaced(&self, key: &Path) -> Result<Option<String>, Failure> {
        if !self.client().config.check_replaced {
            return Ok(None);
        }
        Ok(self.newest_if_any(key).await?.and_then(|headers| upload_of(&headers)))
    }

    /// Removes the segments of an object that is no more. The object's write was done before, so this is no reason to
    /// fail it: what stays is swept later.
    pub(crate) async fn forget(&self, key: &Path, replaced: Option<String>) {
        if let Some(upload) = replaced
            && let Ok(false) = self.keeps_versions(self.container_name()).await
        {
            let _left_to_sweep = self.clear(&self.segments_of(key.as_ref(), &upload)).await;
        }
    }

    /// Whether old versions of objects stay in `container`: their segments must stay with them.
    pub(crate) async fn keeps_versions(&self, container: &str) -> Result<bool, Failure> {
        let head = self.client().send(&Call::container(Method::HEAD, container)).await?;
        // A container that once had versions may still have some, enabled or not.
        Ok(["x-versions-enabled", "x-versions-location", "x-history-location"]
            .iter()
            .any(|name| head.headers.contains_key(*name)))
    }

    /// Deletes everything in the segments container that begins with `prefix`.
    pub(crate) async fn clear(&self, prefix: &str) -> Result<(u64, u64), Failure> {
        let span = Span { prefix: prefix.to_owned(), ..Span::default() };
        let mut entries = self.entries(self.segments_name().to_owned(), span).try_chunks(1000);
        let (mut objects, mut bytes) = (0, 0);
        while let Some(chunk) = entries.try_next().await.map_err(|chunks| chunks.1)? {
            objects += chunk.len() as u64;
            bytes = chunk.iter().fold(bytes, |sum: u64, entry| sum.saturating_add(entry.bytes));
            let names: Vec<String> = chunk.into_iter().map(|entry| entry.name).collect();
            for result in self.remove_names(self.segments_name(), &names).await {
                result?;
            }
        }
        Ok((objects, bytes))
    }

    /// The segments that the large object `key` with this `head` consists of, those of nested manifests included, in
    /// order.
    pub(crate) async fn manifest(
        &self,
        key: &Path,
        head: &HeaderMap,
    ) -> Result<Vec<Segment>, Failure> {
        let Some(mut left) = self.one_manifest(self.container_name(), key.as_ref()).await? else {
            return self.listed_manifest(key, head).await;
        };
        let mut found = Vec::new();
        // Nested manifests are taken apart from the end, so that order is kept.
        left.reverse();
        while let Some(segment) = left.pop() {
            let nested = match segment.place() {
                // Only manifests of this client's making are known to be nested without being asked.
                Some((container, name)) if is_nested(name) => {
                    self.one_manifest(container, name).await?
                }
                _ => None,
            };
            match nested {
                Some(nested) => left.extend(nested.into_iter().rev()),
                None => found.push(segment),
            }
        }
        Ok(found)
    }

    /// One manifest; nothing if the server does not tell it.
    async fn one_manifest(
        &self,
        container: &str,
        key: &str,
    ) -> Result<Option<Vec<Segment>>, Failure> {
        let call = Call::object(Method::GET, container, key).query("multipart-manifest", "get");
        let answer = self.client().send(&call).await?;
        let large = attributes::is_large(&answer.headers);
        let body = answer.bytes().await?;
        // So does a Ceph gateway answer, for every object.
        if body.is_empty() {
            return Ok(None);
        }
        if !large {
            let cause = "it is no large object any more";
            return Err(call.failure(FailureKind::Rejected, cause).remedy("repeat it"));
        }
        let parsed = manifest::parse(&body);
        parsed.map(Some).map_err(|error| {
            call.failure(
                FailureKind::Unsupported,
                format!("its manifest cannot be copied: {error}"),
            )
        })
    }

    /// The segments of an object of this client's making, by a listing: they are right if its ETag follows from theirs.
    async fn listed_manifest(&self, key: &Path, head: &HeaderMap) -> Result<Vec<Segment>, Failure> {
        let failed = || {
            let call = self.call(Method::GET, key).query("multipart-manifest", "get");
            let cause = "the server does not tell which segments the object has";
            call.failure(FailureKind::Unsupported, cause).remedy("download it and upload it again")
        };
        let prefix = self.segments_of(key.as_ref(), &upload_of(head).ok_or_else(failed)?);
        let span = Span { prefix, ..Span::default() };
        let entries = self.entries(self.segments_name().to_owned(), span);
        let entries: Vec<_> = entries.try_collect().await?;
        let parts = entries.iter().filter(|entry| entry.bytes > 0 && !is_nested(&entry.name));
        let segments: Vec<Segment> = parts
            .map(|entry| {
                Segment::new(self.segments_name(), &entry.name, &entry.etag(), entry.bytes)
            })
            .collect();
        let most = self.client().capabilities().await?.max_segments;
        if attributes::header_etag(head) != Some(manifest::nested_etag(&segments, most)) {
            return Err(failed());
        }
        Ok(segments)
    }
}

fn is_nested(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|name| name.starts_with(NESTED))
}

/// How the names of nested manifests begin.
pub(crate) const NESTED: &str = "manifest-";

/// The upload which made an object, if its segments are this client's to remove.
pub(crate) fn upload_of(headers: &HeaderMap) -> Option<String> {
    if !attributes::is_large(headers) {
        return None;
    }
    headers.get(UPLOAD).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
