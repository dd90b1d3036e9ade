// SPDX-License-Identifier: Apache-2.0
//! Listings of the XML API, version 1 and 2.

use axum::response::Response;

use super::{document, element};
use crate::call::Call;
use crate::clock;
use crate::refusal::Refusal;
use crate::store::{Object, Page, Selection, Store};

const MOST: i64 = 1000;

pub(super) fn list(store: &Store, call: &Call, bucket: &str) -> Result<Response, Refusal> {
    let second = match call.parameter("list-type") {
        None => false,
        Some("2") => true,
        Some(_) => return Err(Refusal::invalid("Invalid argument: list-type")),
    };
    let most = call.number("max-keys")?.unwrap_or(MOST);
    if most < 0 {
        return Err(Refusal::invalid("Invalid argument: max-keys"));
    }
    let text = |name: &str| call.parameter(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let token = if second { text("continuation-token") } else { None };
    if token.as_deref().is_some_and(|token| !Selection::is_token(token)) {
        return Err(Refusal::invalid("The continuation token provided is incorrect."));
    }
    let selection = Selection {
        prefix: text("prefix").unwrap_or_default(),
        delimiter: text("delimiter"),
        after: text(if second { "start-after" } else { "marker" }),
        versions: call.has("versions"),
        most: usize::try_from(most.min(MOST)).unwrap_or(0),
        token,
        ..Selection::default()
    };
    let page = store.list(bucket, &selection)?;
    Ok(document("ListBucketResult", &inside(bucket, call, second, &selection, &page)))
}

fn inside(bucket: &str, call: &Call, second: bool, selection: &Selection, page: &Page) -> String {
    let mut text = element("Name", bucket) + &element("Prefix", &selection.prefix);
    text += &element("MaxKeys", selection.most.to_string());
    if let Some(delimiter) = &selection.delimiter {
        text += &element("Delimiter", delimiter);
    }
    text += &element("IsTruncated", page.token.is_some().to_string());
    if second {
        text += &element("KeyCount", (page.objects.len() + page.prefixes.len()).to_string());
        for (name, parameter) in
            [("StartAfter", "start-after"), ("ContinuationToken", "continuation-token")]
        {
            if let Some(value) = call.parameter(parameter) {
                text += &element(name, value);
            }
        }
        if let Some(token) = &page.token {
            text += &element("NextContinuationToken", token);
        }
    } else {
        text += &element("Marker", selection.after.as_deref().unwrap_or_default());
        let last = page
            .objects
            .last()
            .map(|object| object.name.as_str())
            .max(page.prefixes.last().map(String::as_str));
        if let Some(last) = last.filter(|_| page.token.is_some()) {
            text += &element("NextMarker", last);
        }
    }
    for object in &page.objects {
        text += &contents(object, selection.versions);
    }
    for prefix in &page.prefixes {
        text += &format!("<CommonPrefixes>{}</CommonPrefixes>", element("Prefix", prefix));
    }
    text
}

fn contents(object: &Object, versions: bool) -> String {
    let mut text = element("Key", &object.name);
    text += &element("Generation", object.generation.to_string());
    text += &element("MetaGeneration", object.metageneration.to_string());
    text += &element("LastModified", clock::rfc3339(object.updated));
    text += &element("ETag", object.etag());
    text += &element("Size", object.size().to_string());
    if !versions {
        return format!("<Contents>{text}</Contents>");
    }
    text += &element("IsLatest", object.is_live().to_string());
    if let Some(deleted) = object.deleted {
        text += &element("DeletedTime", clock::rfc3339(deleted));
    }
    format!("<Version>{text}</Version>")
}
