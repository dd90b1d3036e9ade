// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Conditions, ObjectChange, ObjectInfo, ObjectName},
};
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{json as request_of, object_path, versions::Object};
use crate::{
    account::Account,
    config::Kind,
    error::{invalid, unsupported},
    get,
    info::check_metadata,
    wire::{AnswerExt, AskExt, about, nonsense, same},
};

/// How far a rewriting is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rewritten {
    /// The object is there.
    pub done: bool,
    /// What the next request goes on from.
    pub rewrite_token: String,
}

/// Headers of HTTP that count as metadata, and their fields.
pub(crate) const PLAIN: [(&str, &str); 4] = [
    ("cache-control", "cacheControl"),
    ("content-disposition", "contentDisposition"),
    ("content-encoding", "contentEncoding"),
    ("content-language", "contentLanguage"),
];

/// Changes what is said of an object, if nobody else does so meanwhile.
pub(crate) async fn change(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    change: &ObjectChange,
) -> Result<ObjectInfo> {
    if change.tags.is_some() {
        return Err(unsupported("objects of GCS have no tags").remedy("use metadata"));
    }
    if change.expire_after_secs.is_some() {
        return Err(unsupported("objects of GCS have no time of their own at which they go")
            .remedy("use a lifecycle rule of the bucket"));
    }
    if !object.version.is_empty() {
        return Err(invalid("an old version cannot be changed"));
    }
    let path = object_path(&object.bucket, &object.key);
    let mut found = look(account, until, object).await?;
    if change.content_type.is_some() || change.metadata.is_some() {
        let body = patch(&found, change)?;
        let query = [("ifMetagenerationMatch", found.metageneration.as_str())];
        let request =
            request_of(account, "change object", Method::PATCH, &object.bucket, &path, &query)?
                .typed("application/json", body.to_string());
        let generation = found.generation;
        account.ask_ok(&request, until).await?;
        found = look(account, until, object).await?;
        if found.generation != generation {
            let error = Error::new(
                ErrorKind::CONFLICT,
                "another object was written meanwhile; what was changed was of the one before",
            );
            return Err(about(error.remedy("look at the object, and decide anew"), &request));
        }
    }
    if let Some(class) = change.storage_class.as_ref().into_option() {
        let class = if class.is_empty() { "STANDARD" } else { class.as_str() };
        let path = format!("{path}/rewriteTo/{path}");
        let body = rewritten(&found, class).to_string();
        // Without conditions an object that is written meanwhile would be replaced by what it replaced.
        let generation = found.generation.as_str();
        let conditions = [
            ("ifGenerationMatch", generation),
            ("ifSourceGenerationMatch", generation),
            ("ifSourceMetagenerationMatch", found.metageneration.as_str()),
        ];
        let mut token = String::new();
        loop {
            let mut query = conditions.to_vec();
            if !token.is_empty() {
                query.push(("rewriteToken", &token));
            }
            let request =
                request_of(account, "change object", Method::POST, &object.bucket, &path, &query)?
                    .typed("application/json", body.clone());
            let answer: Rewritten = account.ask_ok(&request, until).await?.json(&request)?;
            if answer.done {
                break;
            }
            if answer.rewrite_token.is_empty() {
                return Err(about(nonsense("a rewriting is neither done nor goes on"), &request));
            }
            token = answer.rewrite_token;
        }
    }
    Ok(get::find(account, object, &Conditions::default(), until).await?.info)
}

async fn look(account: &Account, until: Instant, object: &ObjectName) -> Result<Object> {
    let path = object_path(&object.bucket, &object.key);
    let look = request_of(account, "change object", Method::GET, &object.bucket, &path, &[])?;
    let found: Object = account.ask_ok(&look, until).await?.json(&look)?;
    same("object", &object.key, &found.name).map_err(|error| about(error, &look))?;
    Ok(found)
}

/// All that is said of an object, with another class: what a rewriting says replaces all that was said of its source.
fn rewritten(found: &Object, class: &str) -> Value {
    let mut body = Map::new();
    for (field, value) in [
        ("contentType", &found.content_type),
        ("cacheControl", &found.cache_control),
        ("contentDisposition", &found.content_disposition),
        ("contentEncoding", &found.content_encoding),
        ("contentLanguage", &found.content_language),
    ] {
        if !value.is_empty() {
            body.insert(field.to_owned(), Value::from(value.as_str()));
        }
    }
    body.insert("metadata".to_owned(), json!(found.metadata));
    body.insert("storageClass".to_owned(), Value::from(class));
    Value::Object(body)
}

/// The fields that change. A name of metadata that is to go is set to null; the writer's mark stays.
fn patch(found: &Object, change: &ObjectChange) -> Result<Value> {
    let mut body = Map::new();
    if let Some(content_type) = change.content_type.as_ref().into_option() {
        body.insert("contentType".to_owned(), Value::from(content_type.as_str()));
    }
    if let Some(metadata) = change.metadata.as_ref().into_option() {
        let mut custom: Map<String, Value> = found
            .metadata
            .keys()
            .filter(|name| !name.starts_with("novastor-"))
            .map(|name| (name.clone(), Value::Null))
            .collect();
        for (_, field) in PLAIN {
            body.insert(field.to_owned(), Value::Null);
        }
        for pair in metadata {
            let (name, value) = (pair.0.as_str(), Value::from(pair.1.as_str()));
            check_metadata(Kind::Gcs, name, &pair.1)?;
            match PLAIN.iter().find(|(header, _)| *header == name) {
                Some((_, field)) => body.insert((*field).to_owned(), value),
                None => custom.insert(name.to_owned(), value),
            };
        }
        body.insert("metadata".to_owned(), Value::Object(custom));
    }
    Ok(Value::Object(body))
}
