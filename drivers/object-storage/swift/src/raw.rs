// SPDX-License-Identifier: Apache-2.0

//! What [`object_store`]'s traits have no words for: listings with all that Swift tells, of any names and with versions;
//! attributes that change while the content stays; signed URLs for parts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::{HeaderMap, Method};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Attributes, MultipartId, Result, TagSet};
use url::Url;

use crate::account::TempUrlScope;
use crate::attributes::{self, DELETE_AFTER, DELETE_AT};
use crate::client::Call;
use crate::config::Secret;
use crate::error::FailureKind;
use crate::expiry;
use crate::listing::{Entry, PAGE};
use crate::store::Swift;

/// Which page of a container is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Names that begin with this.
    pub prefix: &'a str,
    /// Names that have this behind the prefix are told once, up to it; empty: none are.
    pub delimiter: &'a str,
    /// Names behind this one.
    pub marker: &'a str,
    /// Versions too: those of the marker's name behind this one, and of later names. None lists the latest only; so does a
    /// server that keeps no versions.
    pub versions: Option<&'a str>,
    /// The most lines.
    pub limit: usize,
}

/// How a server tells listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paging {
    /// The most lines of a page: Swift refuses to be asked for more.
    pub most: usize,
    /// Whether a page that is shorter than it was asked for is the last one. Gateways have limits of their own, and say
    /// nothing when they give fewer lines.
    pub short_is_last: bool,
}

/// A line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The object's name, or the common prefix.
    pub name: String,
    /// Whether it is a common prefix.
    pub is_prefix: bool,
    /// Its bytes.
    pub size: u64,
    /// Its ETag.
    pub e_tag: String,
    /// When it was written.
    pub last_modified: Option<DateTime<Utc>>,
    /// Its content type.
    pub content_type: String,
    /// Its version, in a listing of versions.
    pub version: Option<String>,
    /// Whether it is the latest.
    pub latest: bool,
    /// Whether it stands for a deletion.
    pub deleted: bool,
}

const DELETED: &str = "application/x-deleted;swift_versions_deleted=1";

impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        Self {
            e_tag: entry.etag(),
            last_modified: attributes::listed_time(&entry.last_modified),
            is_prefix: entry.subdir.is_some(),
            name: entry.subdir.unwrap_or(entry.name),
            size: entry.bytes,
            deleted: entry.content_type == DELETED,
            content_type: entry.content_type,
            latest: entry.is_latest || entry.version_id.is_none(),
            version: entry.version_id,
        }
    }
}

impl Swift {
    /// How the server tells listings.
    ///
    /// # Errors
    /// What the server answers when it is asked for its abilities.
    pub async fn paging(&self) -> Result<Paging> {
        let info = self.client().capabilities().await?;
        Ok(Paging { most: info.page, short_is_last: info.creates })
    }

    /// Deletes an object of any name, with its segments if it is a large one.
    ///
    /// # Errors
    /// No such object; what the server answers.
    pub async fn delete_name(&self, name: &str) -> Result<()> {
        let mut outcomes = self.remove_objects(&[name.to_owned()]).await;
        Ok(outcomes.pop().unwrap_or(Ok(()))?)
    }

    /// A page of the container, in the order of names' bytes. An empty page is the end.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn list_page(&self, wanted: &Wanted<'_>) -> Result<Vec<Line>> {
        let mut call = Call::container(Method::GET, self.container_name())
            .query("format", "json")
            .query("limit", wanted.limit.clamp(1, PAGE).to_string());
        for (name, value) in
            [("prefix", wanted.prefix), ("delimiter", wanted.delimiter), ("marker", wanted.marker)]
        {
            if !value.is_empty() {
                call = call.query(name, value);
            }
        }
        if let Some(version) = wanted.versions {
            call = call.query("versions", "");
            if !version.is_empty() {
                call = call.query("version_marker", version);
            }
        }
        let (body, _) = self.client().whole(&call).await?;
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let entries: Vec<Entry> = serde_json::from_slice(&body).map_err(|error| {
            call.failure(FailureKind::Rejected, format!("the listing cannot be read: {error}"))
                .remedy("check that the storage URL is that of a Swift account")
        })?;
        Ok(entries.into_iter().map(Line::from).collect())
    }

    /// Replaces all attributes of an object but when it expires, unless they say so; its content stays.
    ///
    /// # Errors
    /// No such object; attributes that no header can have.
    pub async fn replace_attributes(&self, key: &Path, attributes: &Attributes) -> Result<()> {
        let before = attributes::kept(&self.newest(key).await?);
        let mut headers = self.headers_for(key, attributes, &TagSet::default())?;
        expiry::absolute(&mut headers);
        let mut stays = HeaderMap::new();
        for (name, value) in &before {
            let own = name.as_str().starts_with("x-object-meta-nvs-");
            if own || name == "x-object-manifest" || name.as_str() == DELETE_AT {
                stays.insert(name.clone(), value.clone());
            }
        }
        headers.remove(DELETE_AFTER);
        for (name, value) in stays {
            if let Some(name) = name
                && !headers.contains_key(&name)
            {
                headers.insert(name, value);
            }
        }
        self.client().send(&self.call(Method::POST, key).headers(headers)).await?;
        Ok(())
    }

    /// A signed URL to put a part of an upload with. `index` counts from zero.
    ///
    /// # Errors
    /// As those of signing; an id that is none.
    pub async fn sign_part(
        &self,
        key: &Path,
        id: &MultipartId,
        index: usize,
        expires_in: Duration,
    ) -> Result<Url> {
        self.known(key, id)?;
        let name = format!("{}{index:05}", self.segments_of(key.as_ref(), id));
        let segments = self.with_container(self.segments_name());
        segments.signed_url(Method::PUT, &Path::parse(name)?, expires_in).await
    }
}

impl Swift {
    /// The TempURL keys of account or container, as far as this user may see them.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn tempurl_keys(&self, scope: TempUrlScope) -> Result<Vec<Secret>> {
        let (call, name) = self.keeper(Method::HEAD, scope);
        let head = self.client().send(&call).await?;
        let second = format!("{name}-2");
        let keys = [name, &second].into_iter().filter_map(|name| head.header(name));
        Ok(keys.filter(|key| !key.is_empty()).map(Secret::new).collect())
    }
}
