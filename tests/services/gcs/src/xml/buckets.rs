// SPDX-License-Identifier: Apache-2.0
//! Buckets: made and removed, listed, with or without versions. The rest of their settings is the JSON API's.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::Value;

use super::{document, element, listing};
use crate::call::Call;
use crate::conditions::Conditions;
use crate::json::new_bucket;
use crate::refusal::Refusal;
use crate::store::Store;

/// What else one may ask a bucket for, and this program does not play.
const OTHERS: &[&str] = &[
    "acl",
    "billing",
    "cors",
    "encryption",
    "lifecycle",
    "logging",
    "policy",
    "storageClass",
    "tagging",
    "websiteConfig",
];

pub(super) fn get(store: &Store, call: &Call, name: &str) -> Result<Response, Refusal> {
    let bucket = store.bucket(name)?;
    refuse_others(call)?;
    if call.method == Method::HEAD {
        return Ok(Response::new(Body::empty()));
    }
    if call.has("versioning") {
        let status = if bucket.versioning { element("Status", "Enabled") } else { String::new() };
        return Ok(document("VersioningConfiguration", &status));
    }
    if call.has("location") {
        let location = bucket.settings.get("location").and_then(Value::as_str).unwrap_or("US");
        return Ok(document("LocationConstraint", &quick_xml::escape::escape(location)));
    }
    listing::list(store, call, name)
}

pub(super) async fn put(store: &Store, call: &mut Call, name: &str) -> Result<Response, Refusal> {
    refuse_others(call)?;
    let text = String::from_utf8_lossy(&call.text().await?).into_owned();
    if call.has("versioning") {
        let versioning = match text.as_str() {
            text if text.contains("<Status>Enabled</Status>") => true,
            text if text.contains("<Status>Suspended</Status>") => false,
            _ => return Err(Refusal::invalid("The versioning configuration has no status.")),
        };
        store.change_bucket(name, &Conditions::default(), |bucket| {
            bucket.versioning = versioning;
            Ok(())
        })?;
    } else {
        let mut bucket =
            new_bucket(name, call.header("x-goog-project-id").unwrap_or("novastor-test"))?;
        if let Some(location) =
            text.split_once("<LocationConstraint>").and_then(|(_, rest)| rest.split_once('<'))
        {
            bucket.settings.insert("location".to_owned(), Value::from(location.0.to_uppercase()));
        }
        store.create_bucket(bucket)?;
    }
    Ok(Response::new(Body::empty()))
}

pub(super) fn delete(store: &Store, call: &Call, name: &str) -> Result<Response, Refusal> {
    refuse_others(call)?;
    store.delete_bucket(name, &Conditions::from_headers(call)?)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn refuse_others(call: &Call) -> Result<(), Refusal> {
    match OTHERS.iter().find(|other| call.has(other)) {
        Some(other) => {
            Err(Refusal::not_played(&format!("?{other} of a bucket; its JSON API does")))
        }
        None => Ok(()),
    }
}
