// SPDX-License-Identifier: Apache-2.0

//! Versions of objects, in containers that keep them (`X-Versions-Enabled`).

use chrono::{DateTime, Utc};
use http::Method;
use object_store::Result;
use object_store::path::Path;

use crate::attributes;
use crate::client::Call;
use crate::error::FailureKind;
use crate::listing::{Entry, PAGE};
use crate::store::Swift;

/// A version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The object.
    pub path: Path,
    /// The version's id: what `GetOptions::version` takes.
    pub id: String,
    /// Whether it is what a read without a version gives.
    pub latest: bool,
    /// Whether it stands for a deletion.
    pub deleted: bool,
    /// Its bytes.
    pub size: u64,
    /// Its ETag.
    pub e_tag: String,
    /// When it was written.
    pub last_modified: DateTime<Utc>,
}

const DELETED: &str = "application/x-deleted;swift_versions_deleted=1";

impl Swift {
    /// Versions of the objects whose names begin with `prefix`, newest first for each object.
    ///
    /// # Errors
    /// What the server answers; a server without object versioning.
    pub async fn list_versions(&self, prefix: &str) -> Result<Vec<Version>> {
        let call = Call::container(Method::GET, self.container_name())
            .query("versions", "")
            .query("format", "json")
            .query("limit", PAGE.to_string())
            .query("prefix", prefix);
        if !self.client().capabilities().await?.object_versioning {
            let failure =
                call.failure(FailureKind::Unsupported, "the server has no object versioning");
            return Err(failure
                .remedy("have its versioned_writes middleware allow object versioning")
                .into());
        }
        let mut versions: Vec<Version> = Vec::new();
        loop {
            let call = match versions.last() {
                Some(last) => call
                    .clone()
                    .query("marker", last.path.as_ref())
                    .query("version_marker", &last.id),
                None => call.clone(),
            };
            let body = self.client().send(&call).await?.bytes().await?;
            let page: Vec<Entry> = if body.is_empty() {
                Vec::new()
            } else {
                serde_json::from_slice(&body).map_err(|error| {
                    call.failure(
                        FailureKind::Rejected,
                        format!("the listing cannot be read: {error}"),
                    )
                })?
            };
            let Some(end) = page.last() else { return Ok(versions) };
            let before = versions.last().map(|last| (last.path.as_ref(), last.id.as_str()));
            if before.is_some_and(|before| before == (&end.name, end.id()))
                || before.is_some_and(|(name, _)| end.name.as_str() < name)
            {
                return Err(call
                    .failure(FailureKind::Corrupt, "the list of versions does not advance")
                    .into());
            }
            for entry in page {
                versions.push(Version {
                    path: Path::parse(&entry.name)?,
                    deleted: entry.content_type == DELETED,
                    size: entry.bytes,
                    e_tag: entry.etag(),
                    last_modified: attributes::listed_time(&entry.last_modified)
                        .unwrap_or_default(),
                    latest: entry.is_latest,
                    id: entry.id().to_owned(),
                });
            }
        }
    }

    /// Deletes one version for good, with its segments if it is a large object.
    ///
    /// # Errors
    /// No such version.
    pub async fn delete_version(&self, path: &Path, id: &str) -> Result<()> {
        let head = self.client().send(&self.call(Method::HEAD, path).query("version-id", id)).await;
        let large = match &head {
            Ok(head) => attributes::is_large(&head.headers),
            // So answers a version that stands for a deletion.
            Err(failure) if failure.kind() == FailureKind::NotFound => false,
            Err(failure) => return Err(failure.clone().into()),
        };
        if large {
            return Ok(self.remove_large(self.container_name(), path.as_ref(), Some(id)).await?);
        }
        self.client().send(&self.call(Method::DELETE, path).query("version-id", id)).await?;
        Ok(())
    }
}
