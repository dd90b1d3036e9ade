// SPDX-License-Identifier: Apache-2.0
//! Objects: put, got, copied, deleted.

use std::ops::Range;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::{document, element};
use crate::body;
use crate::call::{Call, number};
use crate::clock;
use crate::conditions::{Conditions, check_read};
use crate::refusal::Refusal;
use crate::store::{Attributes, NewObject, Object, Store};

const META: &str = "x-goog-meta-";

/// What a request says of the object that it makes.
pub(crate) fn attributes_of(call: &Call) -> Attributes {
    let text = |name: &str| call.header(name).map(str::to_owned);
    let metadata = call.headers.iter().filter_map(|(name, value)| {
        let name = name.as_str().strip_prefix(META)?;
        Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
    });
    Attributes {
        content_type: text("content-type"),
        cache_control: text("cache-control"),
        content_disposition: text("content-disposition"),
        content_encoding: text("content-encoding"),
        content_language: text("content-language"),
        storage_class: text("x-goog-storage-class"),
        metadata: metadata.collect(),
    }
}

pub(super) async fn put(
    store: &Store,
    call: &mut Call,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    store.bucket(bucket)?;
    let conditions = Conditions::from_headers(call)?;
    let received = body::receive(store, call).await?;
    let new = NewObject {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        pieces: vec![received.piece],
        crc32c: received.crc32c,
        md5: Some(received.md5),
        attributes: attributes_of(call),
    };
    let object = store.put(new, &conditions)?;
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &object);
    Ok(response)
}

pub(super) fn copy(
    store: &Store,
    call: &Call,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    let wrong = || Refusal::invalid("Invalid argument: x-goog-copy-source");
    let source = call.header("x-goog-copy-source").ok_or_else(wrong)?;
    let source = percent_decode_str(source).decode_utf8().map_err(|_| wrong())?;
    let (from, key) = source.trim_start_matches('/').split_once('/').ok_or_else(wrong)?;
    let generation = call.header("x-goog-copy-source-generation");
    let generation =
        generation.map(|text| number("x-goog-copy-source-generation", text)).transpose()?;
    let source = store.object(from, key, generation)?;
    Conditions::from_copy_headers(call)?.check(Some(&source))?;
    let replace = call
        .header("x-goog-metadata-directive")
        .is_some_and(|told| told.eq_ignore_ascii_case("REPLACE"));
    let new = NewObject {
        bucket: bucket.to_owned(),
        name: name.to_owned(),
        pieces: store.copy_of(&source)?,
        crc32c: source.crc32c,
        md5: source.md5,
        attributes: if replace { attributes_of(call) } else { source.attributes.clone() },
    };
    let object = store.put(new, &Conditions::from_headers(call)?)?;
    let inside =
        element("LastModified", clock::rfc3339(object.updated)) + &element("ETag", object.etag());
    let mut response = document("CopyObjectResult", &inside);
    for name in ["x-goog-generation", "x-goog-metageneration"] {
        let value = if name.ends_with("metageneration") {
            object.metageneration
        } else {
            object.generation
        };
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    }
    Ok(response)
}

pub(super) fn get(
    store: &Store,
    call: &Call,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    let object = store.object(bucket, name, call.number("generation")?)?;
    Conditions::from_headers(call)?.check(Some(&object))?;
    read(call, &object)
}

/// The answer to a read of an object, or of a range of it.
pub(crate) fn read(call: &Call, object: &Object) -> Result<Response, Refusal> {
    check_read(&call.headers, object)?;
    let size = object.size();
    let range = match call.header("range") {
        Some(range) => wanted(range, size).map_err(|()| {
            let message = "The requested range cannot be satisfied.";
            Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "InvalidRange",
                "requestedRangeNotSatisfiable",
                message,
            )
        })?,
        None => None,
    };
    let whole = range.is_none();
    let range = range.unwrap_or(0..size);
    let length = range.end - range.start;
    let content_range = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    let sent =
        if call.method == Method::HEAD { Body::empty() } else { body::send(&object.pieces, range) };
    let mut response = Response::new(sent);
    let headers = response.headers_mut();
    describe(headers, object);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if !whole {
        insert(headers, "content-range", &content_range);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The bytes that a header asks for: none if it asks for what is not understood, and so for all.
fn wanted(header: &str, size: u64) -> Result<Option<Range<u64>>, ()> {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..size,
        (Err(_), Ok(count)) if first.trim().is_empty() => size.saturating_sub(count)..size,
        _ => return Ok(None),
    };
    if range.start >= size || range.is_empty() { Err(()) } else { Ok(Some(range)) }
}

pub(super) fn delete(
    store: &Store,
    call: &Call,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    store.delete(bucket, name, call.number("generation")?, &Conditions::from_headers(call)?)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// What the headers of an answer say of an object.
fn describe(headers: &mut HeaderMap, object: &Object) {
    let attributes = &object.attributes;
    insert(
        headers,
        "content-type",
        attributes.content_type.as_deref().unwrap_or("application/octet-stream"),
    );
    for (name, value) in [
        ("cache-control", &attributes.cache_control),
        ("content-disposition", &attributes.content_disposition),
        ("content-encoding", &attributes.content_encoding),
        ("content-language", &attributes.content_language),
    ] {
        if let Some(value) = value {
            insert(headers, name, value);
        }
    }
    for (name, value) in &attributes.metadata {
        insert(headers, &format!("{META}{name}"), value);
    }
    insert(headers, "accept-ranges", "bytes");
    insert(headers, "etag", &object.etag());
    insert(headers, "last-modified", &clock::header(object.updated));
    insert(headers, "x-goog-generation", &object.generation.to_string());
    insert(headers, "x-goog-metageneration", &object.metageneration.to_string());
    insert(
        headers,
        "x-goog-storage-class",
        attributes.storage_class.as_deref().unwrap_or("STANDARD"),
    );
    insert(
        headers,
        "x-goog-stored-content-encoding",
        attributes.content_encoding.as_deref().unwrap_or("identity"),
    );
    insert(headers, "x-goog-stored-content-length", &object.size().to_string());
    insert(
        headers,
        "x-goog-hash",
        &format!("crc32c={}", STANDARD.encode(object.crc32c.to_be_bytes())),
    );
    if let (Some(md5), name) = (object.md5, HeaderName::from_static("x-goog-hash"))
        && let Ok(value) = HeaderValue::from_str(&format!("md5={}", STANDARD.encode(md5)))
    {
        headers.append(name, value);
    }
}

/// What cannot stand in a header is left out.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) =
        (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()))
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn ranges_are_those_that_were_asked_for() {
        assert_eq!(wanted("bytes=0-0", 10), Ok(Some(0..1)));
        assert_eq!(wanted("bytes=4-", 10), Ok(Some(4..10)));
        assert_eq!(wanted("bytes=4-99", 10), Ok(Some(4..10)));
        assert_eq!(wanted("bytes=-3", 10), Ok(Some(7..10)));
        assert_eq!(wanted("bytes=-30", 10), Ok(Some(0..10)));
        assert_eq!(wanted("bytes=10-", 10), Err(()));
        assert_eq!(wanted("bytes=-0", 10), Err(()));
        assert_eq!(wanted("bytes=5-4", 10), Ok(None));
        assert_eq!(wanted("lines=1-2", 10), Ok(None));
    }
}
