// SPDX-License-Identifier: Apache-2.0

//! Uploads that were begun and not completed, and segments that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use object_store::multipart::PartId;
use object_store::path::Path;
use object_store::{MultipartId, Result};

use crate::attributes::UPLOAD;
use crate::error::{Failure, FailureKind};
use crate::listing::Span;
use crate::multipart::{UploadId, part_id};
use crate::store::Swift;

/// An upload that was begun and neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The object to be.
    pub path: Path,
    /// The upload's id.
    pub id: MultipartId,
    /// When it was begun.
    pub started: DateTime<Utc>,
}

/// A part of an upload that the server has.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which part, from zero.
    pub index: usize,
    /// Its bytes.
    pub size: u64,
    /// Its MD5.
    pub e_tag: String,
    /// When it was put.
    pub last_modified: DateTime<Utc>,
    /// What to complete the upload with.
    pub id: PartId,
}

/// What a sweep has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads whose segments were removed.
    pub uploads: u64,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Swift {
    /// Uploads that were begun and not finished, of objects whose names begin with `prefix`.
    ///
    /// # Errors
    /// What the server answers a listing with.
    pub async fn list_uploads(&self, prefix: &str) -> Result<Vec<Upload>> {
        let begun = self.begun();
        let span = Span { prefix: format!("{begun}{prefix}"), ..Span::default() };
        let mut uploads = Vec::new();
        for name in self.segment_names(span).await? {
            let Some((key, id)) =
                name.0.strip_prefix(&begun).and_then(|rest| rest.rsplit_once('/'))
            else {
                continue;
            };
            // What is no marker is a segment of an object which is named like one.
            let Some(known) = UploadId::parse(id) else { continue };
            uploads.push(Upload {
                path: Path::parse(key)?,
                id: id.to_owned(),
                started: known.started,
            });
        }
        Ok(uploads)
    }

    /// The parts of an upload that the server has, in order: what a resumed upload need not send again.
    ///
    /// # Errors
    /// What the server answers a listing with; an id that is none.
    pub async fn list_parts(&self, path: &Path, id: &MultipartId) -> Result<Vec<Part>> {
        Ok(self.stored_parts(path, id).await?)
    }

    pub(crate) async fn stored_parts(
        &self,
        path: &Path,
        id: &str,
    ) -> std::result::Result<Vec<Part>, Failure> {
        if UploadId::parse(id).is_none() {
            return Err(self.no_upload(path, id, "this is no id of an upload"));
        }
        let directory = self.segments_of(path.as_ref(), id);
        let span = Span { prefix: directory.clone(), ..Span::default() };
        let entries: Vec<_> =
            match self.entries(self.segments_name().to_owned(), span).try_collect().await {
                Ok(entries) => entries,
                Err(failure) if Failure::kind(&failure) == FailureKind::NotFound => Vec::new(),
                Err(failure) => return Err(failure),
            };
        let part = |entry: &crate::listing::Entry| {
            Some(Part {
                index: entry.name.strip_prefix(&directory)?.parse().ok()?,
                size: entry.bytes,
                e_tag: entry.etag(),
                last_modified: crate::attributes::listed_time(&entry.last_modified)?,
                id: part_id(&entry.etag(), entry.bytes),
            })
        };
        Ok(entries.iter().filter_map(part).collect())
    }

    /// Removes segments which no object refers to: of uploads begun more than `older` ago that are not unfinished, and
    /// whose object is gone or was made by another upload. Unfinished uploads are listed, and aborted, one by one.
    ///
    /// # Errors
    /// A container that keeps old versions, whose segments may belong to those; what the server answers.
    pub async fn sweep(&self, older: Duration) -> Result<Swept> {
        if self.keeps_versions(self.container_name()).await? {
            let request = format!("sweeping {}", self.segments_name());
            let cause = format!(
                "{} keeps old versions, which may refer to any segment",
                self.container_name()
            );
            return Err(Failure::new(FailureKind::Unsupported, request, cause).into());
        }
        // The markers first: an upload which is completed in the meantime counts as unfinished.
        let unfinished: BTreeSet<(String, String)> = self
            .list_uploads("")
            .await?
            .into_iter()
            .map(|upload| (upload.path.to_string(), upload.id))
            .collect();
        let span = Span { prefix: self.part_prefix().to_owned(), ..Span::default() };
        let mut directories: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
        for (name, bytes) in self.segment_names(span).await? {
            let mut fields = name[self.part_prefix().len()..].rsplitn(3, '/');
            let (Some(_), Some(id), Some(key)) = (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let sum = directories.entry((key.to_owned(), id.to_owned())).or_default();
            *sum = (sum.0 + 1, sum.1 + bytes);
        }
        let before =
            Utc::now() - chrono::Duration::from_std(older).unwrap_or(chrono::Duration::MAX);
        let mut swept = Swept::default();
        for ((key, id), (segments, bytes)) in directories {
            let old = UploadId::parse(&id).is_some_and(|known| known.started < before);
            let Ok(path) = Path::parse(&key) else { continue };
            if !old || path.as_ref() != key || unfinished.contains(&(key.clone(), id.clone())) {
                continue;
            }
            let made_by =
                self.newest_if_any(&path).await?.and_then(|headers| headers.get(UPLOAD).cloned());
            if made_by.is_some_and(|value| value.as_bytes() == id.as_bytes()) {
                continue;
            }
            self.clear(&self.segments_of(&key, &id)).await?;
            swept = Swept {
                uploads: swept.uploads + 1,
                segments: swept.segments + segments,
                bytes: swept.bytes + bytes,
            };
        }
        Ok(swept)
    }

    /// Names and sizes in the segments container; none if it is not there.
    async fn segment_names(&self, span: Span) -> std::result::Result<Vec<(String, u64)>, Failure> {
        let names = self
            .entries(self.segments_name().to_owned(), span)
            .map_ok(|entry| (entry.name, entry.bytes));
        match names.try_collect().await {
            Err(failure) if Failure::kind(&failure) == FailureKind::NotFound => Ok(Vec::new()),
            names => names,
        }
    }
}
