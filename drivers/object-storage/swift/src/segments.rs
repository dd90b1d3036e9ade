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
            bytes += chunk.iter().map(|entry| entry.bytes).sum::<u64>();
            let names: Vec<String> = chunk.into_iter().map(|entry| entry.name).collect();
            for result in self.remove_names(self.segments_name(), &names).await {
                result?;
            }
        }
        Ok((objects, bytes))
    }

    /// The segments that a large object consists of, those of nested manifests included, in order.
    pub(crate) async fn manifest(
        &self,
        container: &str,
        key: &str,
    ) -> Result<Vec<Segment>, Failure> {
        let mut found = Vec::new();
        // Nested manifests are taken apart from the end, so that order is kept.
        let mut left = self.one_manifest(container, key).await?;
        left.reverse();
        while let Some(segment) = left.pop() {
            let nested = match segment.place() {
                // Only manifests of this client's making are known to be nested without being asked.
                Some((container, name))
                    if name.rsplit('/').next().is_some_and(|n| n.starts_with(NESTED)) =>
                {
                    Some(self.one_manifest(container, name).await?)
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

    async fn one_manifest(&self, container: &str, key: &str) -> Result<Vec<Segment>, Failure> {
        let call = Call::object(Method::GET, container, key).query("multipart-manifest", "get");
        let answer = self.client().send(&call).await?;
        let large = attributes::is_large(&answer.headers);
        let body = answer.bytes().await?;
        if !large {
            return Err(call
                .failure(FailureKind::Rejected, "it is no large object any more")
                .remedy("repeat it"));
        }
        manifest::parse(&body).map_err(|error| {
            call.failure(
                FailureKind::Unsupported,
                format!("its manifest cannot be copied: {error}"),
            )
        })
    }
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
