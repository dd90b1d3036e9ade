// SPDX-License-Identifier: Apache-2.0
//! Listings with versions, by the JSON API: the XML API's tells them without a way to begin after a key.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use driver_api::{
    Result,
    ext::{ListPage, ListQuery, ObjectInfo},
};
use http::Method;
use serde::Deserialize;

use super::{bucket_path, json as request_of};
use crate::{
    account::Account,
    control::pages::{self, Order, Place},
    wire::{AnswerExt, about, digest::hex, nonsense, time},
};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Objects {
    kind: String,
    items: Vec<Object>,
    prefixes: Vec<String>,
    next_page_token: String,
}

/// An object as the JSON API tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    bucket: String,
    pub(super) name: String,
    pub(super) generation: String,
    pub(super) metageneration: String,
    size: String,
    etag: String,
    updated: String,
    time_created: String,
    time_deleted: String,
    pub(super) content_type: String,
    pub(super) cache_control: String,
    pub(super) content_disposition: String,
    pub(super) content_encoding: String,
    pub(super) content_language: String,
    storage_class: String,
    crc32c: String,
    pub(super) metadata: std::collections::BTreeMap<String, String>,
}

impl Object {
    fn info(&self, bucket: &str) -> Result<ObjectInfo> {
        crate::wire::same("bucket", bucket, &self.bucket)?;
        let sum = BASE64.decode(&self.crc32c).unwrap_or_default();
        let created = if self.time_created.is_empty() { &self.updated } else { &self.time_created };
        Ok(ObjectInfo {
            key: self.name.as_str().into(),
            version: self.generation.as_str().into(),
            size: self.size.parse().map_err(|_| nonsense(format!("a size is {:?}", self.size)))?,
            etag: self.etag.as_str().into(),
            modified_ms: time::iso_ms(created),
            content_type: self.content_type.as_str().into(),
            storage_class: if self.storage_class == "STANDARD" { "" } else { &self.storage_class }
                .into(),
            checksum: if sum.is_empty() { String::new() } else { format!("crc32c:{}", hex(&sum)) }
                .into(),
            latest: self.time_deleted.is_empty(),
            ..ObjectInfo::default()
        })
    }
}

/// A page of the bucket's objects with their versions.
pub(crate) async fn list(
    account: &Account,
    until: Instant,
    bucket: &str,
    query: &ListQuery,
) -> Result<ListPage> {
    let place = pages::begin(query)?;
    let limit = query.limit.min(1000).to_string();
    let mut asked = vec![("versions", "true"), ("maxResults", limit.as_str())];
    for (name, value) in [
        ("prefix", query.prefix.as_str()),
        ("delimiter", query.delimiter.as_str()),
        ("startOffset", query.after.as_str()),
        ("pageToken", place.as_ref().map_or("", |place| &place.token)),
    ] {
        if !value.is_empty() {
            asked.push((name, value));
        }
    }
    let path = format!("{}/o", bucket_path(bucket));
    let request = request_of(account, "list versions", Method::GET, bucket, &path, &asked)?;
    let context = |error| about(error, &request);
    let answer: Objects = account.ask_ok(&request, until).await?.json(&request)?;
    if answer.kind != "storage#objects" {
        return Err(context(nonsense("it is no list of objects")));
    }
    let mut page = ListPage::default();
    for object in &answer.items {
        // The offset's own name is told too.
        if object.name.as_str() != query.after.as_str() {
            page.objects.push(object.info(bucket).map_err(context)?);
        }
    }
    page.prefixes = answer.prefixes.into_iter().map(Into::into).collect();
    if !answer.next_page_token.is_empty() {
        let last = pages::last_name(&page.objects, &page.prefixes)
            .max(place.as_ref().map_or_else(String::new, |p| p.last.clone()));
        page.next = Place { last, token: answer.next_page_token }.encode().into();
    }
    pages::check(query, place.as_ref(), Order::Versions, &page).map_err(context)?;
    Ok(page)
}
