// SPDX-License-Identifier: Apache-2.0

//! Listings, page by page.

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::{Extensions, Method};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{Error, ListResult, ObjectMeta};
use serde::Deserialize;

use crate::attributes;
use crate::client::Call;
use crate::error::{Failure, FailureKind};
use crate::store::Swift;

/// The most names Swift puts in one page.
pub(crate) const PAGE: usize = 10_000;

/// One line of a listing.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) hash: String,
    #[serde(default)]
    pub(crate) last_modified: String,
    #[serde(default)]
    pub(crate) content_type: String,
    /// The ETag of a static large object; `hash` is its manifest's.
    pub(crate) slo_etag: Option<String>,
    /// A common prefix instead of an object.
    pub(crate) subdir: Option<String>,
    pub(crate) version_id: Option<String>,
    #[serde(default)]
    pub(crate) is_latest: bool,
}

impl Entry {
    /// The name that the next page begins behind.
    fn marker(&self) -> &str {
        self.subdir.as_deref().unwrap_or(&self.name)
    }

    pub(crate) fn id(&self) -> &str {
        self.version_id.as_deref().unwrap_or("null")
    }

    pub(crate) fn etag(&self) -> String {
        attributes::etag(self.slo_etag.as_deref().unwrap_or(&self.hash))
    }

    fn meta(&self) -> Result<ObjectMeta, Error> {
        let last_modified = attributes::listed_time(&self.last_modified).ok_or_else(|| {
            let cause = format!("'{}' of {} is no time", self.last_modified, self.name);
            Failure::new(FailureKind::Rejected, "reading a listing", cause)
        })?;
        Ok(ObjectMeta {
            location: Path::parse(&self.name)?,
            last_modified,
            size: self.bytes,
            e_tag: Some(self.etag()),
            version: None,
        })
    }
}

/// Which part of a container is listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) prefix: String,
    /// Names behind this one.
    pub(crate) marker: String,
    /// Names before this one.
    pub(crate) end_marker: String,
    pub(crate) delimiter: Option<String>,
}

impl Swift {
    /// One page of `container`, and the extensions of its answer.
    pub(crate) async fn page(
        &self,
        container: &str,
        span: &Span,
        limit: usize,
    ) -> Result<(Vec<Entry>, Extensions), Failure> {
        // Swift refuses to be asked for more than it gives; what it gives is known once it was asked for its abilities.
        let most = self.client().info.get().map_or(PAGE, |info| info.page);
        let mut call = Call::container(Method::GET, container)
            .query("format", "json")
            .query("limit", limit.min(most).to_string());
        for (name, value) in
            [("prefix", &span.prefix), ("marker", &span.marker), ("end_marker", &span.end_marker)]
        {
            if !value.is_empty() {
                call = call.query(name, value);
            }
        }
        if let Some(delimiter) = &span.delimiter {
            call = call.query("delimiter", delimiter);
        }
        let (body, extensions) = self.client().whole(&call).await?;
        if body.is_empty() {
            return Ok((Vec::new(), extensions));
        }
        let entries: Vec<Entry> = serde_json::from_slice(&body).map_err(|error| {
            call.failure(FailureKind::Rejected, format!("the listing cannot be read: {error}"))
                .remedy("check that the storage URL is that of a Swift account")
        })?;
        if entries.last().is_some_and(|last| last.marker() <= span.marker.as_str()) {
            return Err(call
                .failure(FailureKind::Corrupt, "the listing does not advance")
                .remedy("check that the storage URL is that of a Swift account"));
        }
        Ok((entries, extensions))
    }

    /// All entries of `container` within `span`, page by page.
    pub(crate) fn entries(
        &self,
        container: String,
        span: Span,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        let pages = stream::try_unfold(Some((self.clone(), container, span)), |state| async {
            let Some((swift, container, mut span)) = state else { return Ok(None) };
            let (entries, _) = swift.page(&container, &span, PAGE).await?;
            // A short page need not be the last one: only an empty one is.
            let next = entries.last().map(|last| {
                span.marker = last.marker().to_owned();
                (swift, container, span)
            });
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), next)))
        });
        pages.try_flatten().boxed()
    }

    pub(crate) fn objects(
        &self,
        prefix: Option<&Path>,
        offset: &str,
    ) -> BoxStream<'static, Result<ObjectMeta, Error>> {
        let span = Span { prefix: directory(prefix), marker: offset.to_owned(), ..Span::default() };
        let entries = self.entries(self.container_name().to_owned(), span);
        entries.map(|entry| entry?.meta()).boxed()
    }

    pub(crate) async fn directory(&self, prefix: Option<&Path>) -> Result<ListResult, Error> {
        let mut span =
            Span { prefix: directory(prefix), delimiter: Some("/".to_owned()), ..Span::default() };
        let mut result =
            ListResult { common_prefixes: vec![], objects: vec![], extensions: Extensions::new() };
        loop {
            let (entries, extensions) = self.page(self.container_name(), &span, PAGE).await?;
            result.extensions.extend(extensions);
            let Some(last) = entries.last() else { return Ok(result) };
            span.marker = last.marker().to_owned();
            // A short page need not be the last one: only an empty one is.
            collect(entries, &mut result)?;
        }
    }
}

/// A prefix that ends with a slash, as paths are directories here.
pub(crate) fn directory(prefix: Option<&Path>) -> String {
    prefix
        .filter(|prefix| !prefix.as_ref().is_empty())
        .map(|prefix| format!("{prefix}/"))
        .unwrap_or_default()
}

fn collect(entries: Vec<Entry>, result: &mut ListResult) -> Result<(), Error> {
    for entry in entries {
        match &entry.subdir {
            Some(subdir) => result.common_prefixes.push(Path::parse(subdir)?),
            None => result.objects.push(entry.meta()?),
        }
    }
    Ok(())
}

#[async_trait]
impl PaginatedListStore for Swift {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        opts: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let limit = opts.max_keys.unwrap_or(PAGE).clamp(1, PAGE);
        let span = Span {
            prefix: prefix.unwrap_or_default().to_owned(),
            marker: opts.page_token.or(opts.offset).unwrap_or_default(),
            end_marker: String::new(),
            delimiter: opts.delimiter.map(|delimiter| delimiter.into_owned()),
        };
        let (entries, extensions) = self.page(self.container_name(), &span, limit).await?;
        // A gateway's short page need not be the last one: only an empty one is.
        let more = entries.len() >= limit || !self.client().capabilities().await?.creates;
        let page_token = entries.last().filter(|_| more).map(|last| last.marker().to_owned());
        let mut result = ListResult { common_prefixes: vec![], objects: vec![], extensions };
        collect(entries, &mut result)?;
        Ok(PaginatedListResult { result, page_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_tell_the_etag_that_a_head_tells() {
        let entry: Entry = serde_json::from_str(
            r#"{"bytes": 12, "hash": "42", "name": "a/k", "content_type": "x/y",
                "last_modified": "2026-11-23T15:26:00.040060", "slo_etag": "\"d8\""}"#,
        )
        .unwrap();
        let meta = entry.meta().unwrap();
        assert_eq!((meta.e_tag.as_deref(), meta.size), (Some("d8"), 12));
        let subdir: Entry = serde_json::from_str(r#"{"subdir": "a/"}"#).unwrap();
        assert_eq!(subdir.marker(), "a/");
    }

    #[test]
    fn a_name_that_is_no_path_is_an_error_not_a_gap() {
        let entry: Entry =
            serde_json::from_str(r#"{"name": "a//b", "last_modified": "2026-11-23T15:26:00.0"}"#)
                .unwrap();
        assert!(matches!(entry.meta(), Err(Error::InvalidPath { .. })));
    }
}
