// SPDX-License-Identifier: Apache-2.0
//! Objects.

use axum::http::{Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{nothing, read, say};
use crate::call::Call;
use crate::clock;
use crate::conditions::{Conditions, check_read};
use crate::refusal::Refusal;
use crate::store::{Attributes, NewObject, Object, Selection, Store};
use crate::{body, xml};

const MOST: i64 = 1000;
/// How many objects one is composed of at most.
const SOURCES: usize = 32;

pub(super) fn told(object: &Object) -> Value {
    let attributes = &object.attributes;
    let mut value = json!({
        "kind": "storage#object",
        "id": format!("{}/{}/{}", object.bucket, object.name, object.generation),
        "bucket": object.bucket,
        "name": object.name,
        "generation": object.generation.to_string(),
        "metageneration": object.metageneration.to_string(),
        "size": object.size().to_string(),
        "crc32c": STANDARD.encode(object.crc32c.to_be_bytes()),
        "etag": object.etag().trim_matches('"'),
        "contentType": attributes.content_type.as_deref().unwrap_or("application/octet-stream"),
        "storageClass": attributes.storage_class.as_deref().unwrap_or("STANDARD"),
        "timeCreated": clock::rfc3339(object.created),
        "updated": clock::rfc3339(object.updated),
    });
    for (name, text) in [
        ("cacheControl", &attributes.cache_control),
        ("contentDisposition", &attributes.content_disposition),
        ("contentEncoding", &attributes.content_encoding),
        ("contentLanguage", &attributes.content_language),
    ] {
        if let Some(text) = text {
            value[name] = json!(text);
        }
    }
    if let Some(md5) = object.md5 {
        value["md5Hash"] = json!(STANDARD.encode(md5));
    }
    if let Some(deleted) = object.deleted {
        value["timeDeleted"] = json!(clock::rfc3339(deleted));
    }
    if !attributes.metadata.is_empty() {
        value["metadata"] = json!(attributes.metadata);
    }
    value
}

/// Changes what a client names; null removes it.
fn apply(attributes: &mut Attributes, changes: &Map<String, Value>) {
    for (name, value) in changes {
        let text = value.as_str().map(str::to_owned);
        match name.as_str() {
            "contentType" => attributes.content_type = text,
            "cacheControl" => attributes.cache_control = text,
            "contentDisposition" => attributes.content_disposition = text,
            "contentEncoding" => attributes.content_encoding = text,
            "contentLanguage" => attributes.content_language = text,
            "storageClass" => attributes.storage_class = text,
            "metadata" if value.is_null() => attributes.metadata.clear(),
            "metadata" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match value.as_str() {
                        Some(text) => {
                            drop(attributes.metadata.insert(name.clone(), text.to_owned()))
                        }
                        None => drop(attributes.metadata.remove(name)),
                    }
                }
            }
            _ => {}
        }
    }
}

pub(super) fn list(store: &Store, call: &Call, bucket: &str) -> Result<Response, Refusal> {
    let text = |name: &str| call.parameter(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let token = text("pageToken");
    if token.as_deref().is_some_and(|token| !Selection::is_token(token)) {
        return Err(Refusal::invalid("Invalid argument: pageToken"));
    }
    let most = call.number("maxResults")?.unwrap_or(MOST).clamp(1, MOST);
    let selection = Selection {
        prefix: text("prefix").unwrap_or_default(),
        delimiter: text("delimiter"),
        from: text("startOffset"),
        before: text("endOffset"),
        versions: call.parameter("versions") == Some("true"),
        most: usize::try_from(most).unwrap_or(1),
        token,
        ..Selection::default()
    };
    let page = store.list(bucket, &selection)?;
    let items: Vec<_> = page.objects.iter().map(|object| told(object)).collect();
    let mut value = json!({ "kind": "storage#objects", "items": items });
    if !page.prefixes.is_empty() {
        value["prefixes"] = json!(page.prefixes);
    }
    if let Some(token) = page.token {
        value["nextPageToken"] = json!(token);
    }
    Ok(say(&value))
}

pub(super) fn get(
    store: &Store,
    call: &Call,
    bucket: &str,
    name: &str,
) -> Result<Response, Refusal> {
    let object = store.object(bucket, name, call.number("generation")?)?;
    Conditions::from_query(call, "")?.check(Some(&object))?;
    if call.parameter("alt") == Some("media") {
        return xml::read(call, &object);
    }
    check_read(&call.headers, &object)?;
    Ok(say(&told(&object)))
}

pub(super) async fn patch(
    store: &Store,
    call: &mut Call,
    bucket: &str,
    name: &str,
) -> Result<Response, Refusal> {
    let changes = read(call).await?;
    let changes = changes.as_object().cloned().unwrap_or_default();
    let replace = call.method == Method::PUT;
    let conditions = Conditions::from_query(call, "")?;
    let object =
        store.describe((bucket, name), call.number("generation")?, &conditions, |attributes| {
            if replace {
                *attributes = Attributes {
                    storage_class: attributes.storage_class.take(),
                    ..Attributes::default()
                };
            }
            apply(attributes, &changes);
        })?;
    Ok(say(&told(&object)))
}

pub(super) fn delete(
    store: &Store,
    call: &Call,
    bucket: &str,
    name: &str,
) -> Result<Response, Refusal> {
    store.delete(bucket, name, call.number("generation")?, &Conditions::from_query(call, "")?)?;
    Ok(nothing())
}

/// An upload in one request, of bytes alone; what else is said of an object is patched afterwards.
pub(super) async fn upload(
    store: &Store,
    call: &mut Call,
    bucket: &str,
) -> Result<Response, Refusal> {
    store.bucket(bucket)?;
    if call.parameter("uploadType") != Some("media") {
        return Err(Refusal::not_played("uploads of the JSON API other than uploadType=media"));
    }
    let name = call
        .parameter("name")
        .ok_or_else(|| Refusal::invalid("Required parameter: name"))?
        .to_owned();
    let conditions = Conditions::from_query(call, "")?;
    let attributes = Attributes {
        content_type: call.header("content-type").map(str::to_owned),
        ..Attributes::default()
    };
    let received = body::receive(store, call).await?;
    let new = NewObject {
        bucket: bucket.to_owned(),
        name,
        pieces: vec![received.piece],
        crc32c: received.crc32c,
        md5: Some(received.md5),
        attributes,
    };
    Ok(say(&told(&*store.put(new, &conditions)?)))
}

/// The most bytes that one request rewrites, as Google's does between locations.
const STEP: u64 = 4 << 20;

/// How many bytes a rewriting has done, by the token that the request before told.
fn done_before(call: &Call, source: &Object) -> Result<u64, Refusal> {
    let Some(token) = call.parameter("rewriteToken") else { return Ok(0) };
    let wrong = || Refusal::invalid("The rewrite token is not of this rewriting.");
    let (generation, done) = token.split_once('-').ok_or_else(wrong)?;
    let done: u64 = done.parse().map_err(|_| wrong())?;
    if generation == source.generation.to_string() { Ok(done) } else { Err(wrong()) }
}

/// A copy, of which each request does a step.
pub(super) async fn rewrite(
    store: &Store,
    call: &mut Call,
    (bucket, name): (&str, &str),
    (to, new_name): (&str, &str),
    rewrite: bool,
) -> Result<Response, Refusal> {
    let changes = read(call).await?;
    let source = store.object(bucket, name, call.number("sourceGeneration")?)?;
    Conditions::from_query(call, "Source")?.check(Some(&source))?;
    let done = done_before(call, &source)? + STEP;
    if rewrite && done < source.size() {
        return Ok(say(&json!({
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": done.to_string(),
            "objectSize": source.size().to_string(),
            "done": false,
            "rewriteToken": format!("{}-{done}", source.generation),
        })));
    }
    // What is said replaces all that was said of the source.
    let mut attributes = source.attributes.clone();
    if let Some(changes) = changes.as_object().filter(|changes| !changes.is_empty()) {
        attributes = Attributes::default();
        apply(&mut attributes, changes);
    }
    let new = NewObject {
        bucket: to.to_owned(),
        name: new_name.to_owned(),
        pieces: store.copy_of(&source)?,
        crc32c: source.crc32c,
        md5: source.md5,
        attributes,
    };
    let object = store.put(new, &Conditions::from_query(call, "")?)?;
    if !rewrite {
        return Ok(say(&told(&object)));
    }
    let size = object.size().to_string();
    Ok(say(&json!({
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": size,
        "objectSize": size,
        "done": true,
        "resource": told(&object),
    })))
}

/// One object of several of the same bucket, one after the other.
pub(super) async fn compose(
    store: &Store,
    call: &mut Call,
    bucket: &str,
    name: &str,
) -> Result<Response, Refusal> {
    let wanted = read(call).await?;
    let sources = wanted["sourceObjects"].as_array().cloned().unwrap_or_default();
    if sources.is_empty() || sources.len() > SOURCES {
        let message = format!(
            "The number of source components provided ({}) is not from 1 to {SOURCES}.",
            sources.len()
        );
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "InvalidArgument", "invalid", message));
    }
    let (mut pieces, mut crc, mut attributes) = (Vec::new(), 0, Attributes::default());
    for source in &sources {
        let generation = source["generation"].as_str().and_then(|text| text.parse().ok());
        let object =
            store.object(bucket, source["name"].as_str().unwrap_or_default(), generation)?;
        let only = source["objectPreconditions"]["ifGenerationMatch"]
            .as_str()
            .and_then(|text| text.parse::<i64>().ok());
        if only.is_some_and(|only| only != object.generation) {
            return Err(Refusal::condition());
        }
        crc = crc32c::crc32c_combine(
            crc,
            object.crc32c,
            usize::try_from(object.size()).unwrap_or(usize::MAX),
        );
        pieces.extend(store.copy_of(&object)?);
    }
    if let Some(destination) = wanted["destination"].as_object() {
        apply(&mut attributes, destination);
    }
    let new = NewObject {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        pieces,
        crc32c: crc,
        md5: None,
        attributes,
    };
    Ok(say(&told(&*store.put(new, &Conditions::from_query(call, "")?)?)))
}
