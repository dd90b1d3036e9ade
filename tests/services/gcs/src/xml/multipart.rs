// SPDX-License-Identifier: Apache-2.0
//! Multipart uploads: <https://cloud.google.com/storage/docs/multipart-uploads>.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{attributes_of, document, element};
use crate::body;
use crate::call::Call;
use crate::clock;
use crate::refusal::Refusal;
use crate::store::Store;

const MOST: i64 = 1000;

#[derive(Deserialize)]
struct Completion {
    #[serde(rename = "Part", default)]
    parts: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "PartNumber")]
    number: u32,
    #[serde(rename = "ETag")]
    tag: String,
}

fn id(call: &Call) -> &str {
    call.parameter("uploadId").unwrap_or_default()
}

pub(super) fn begin(
    store: &Store,
    call: &Call,
    (bucket, name): (&str, &str),
) -> Result<Response, Refusal> {
    let upload = store.begin_upload(bucket, name, attributes_of(call))?;
    let inside =
        element("Bucket", bucket) + &element("Key", name) + &element("UploadId", &upload.id);
    Ok(document("InitiateMultipartUploadResult", &inside))
}

pub(super) async fn put_part(
    store: &Store,
    call: &mut Call,
    at: (&str, &str),
) -> Result<Response, Refusal> {
    store.upload(at.0, at.1, id(call))?;
    let number =
        call.number("partNumber")?.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    let received = body::receive(store, call).await?;
    let part = store.put_part(at, id(call), number, received)?;
    let mut response = Response::new(Body::empty());
    let hashes = format!(
        "crc32c={},md5={}",
        STANDARD.encode(part.crc32c.to_be_bytes()),
        STANDARD.encode(part.md5)
    );
    for (name, value) in
        [(header::ETAG, part.etag()), (HeaderName::from_static("x-goog-hash"), hashes)]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

pub(super) async fn complete(
    store: &Store,
    call: &mut Call,
    at: (&str, &str),
) -> Result<Response, Refusal> {
    let malformed = |why: String| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "MalformedCompleteMultipartUploadRequest",
            "invalid",
            why,
        )
    };
    let text = call.text().await?;
    let text = std::str::from_utf8(&text).map_err(|error| malformed(error.to_string()))?;
    let completion: Completion =
        quick_xml::de::from_str(text).map_err(|error| malformed(error.to_string()))?;
    let wanted: Vec<_> = completion.parts.into_iter().map(|part| (part.number, part.tag)).collect();
    let object = store.complete_upload(at, id(call), &wanted)?;
    let inside = element("Location", format!("http://storage.googleapis.com/{}/{}", at.0, at.1))
        + &element("Bucket", at.0)
        + &element("Key", at.1)
        + &element("ETag", object.etag());
    let mut response = document("CompleteMultipartUploadResult", &inside);
    let headers = response.headers_mut();
    headers
        .insert(HeaderName::from_static("x-goog-generation"), HeaderValue::from(object.generation));
    if let Ok(hash) =
        HeaderValue::try_from(format!("crc32c={}", STANDARD.encode(object.crc32c.to_be_bytes())))
    {
        headers.insert(HeaderName::from_static("x-goog-hash"), hash);
    }
    Ok(response)
}

pub(super) fn abort(store: &Store, call: &Call, at: (&str, &str)) -> Result<Response, Refusal> {
    store.abort_upload(at.0, at.1, id(call))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The parts of an upload.
pub(super) fn parts(store: &Store, call: &Call, at: (&str, &str)) -> Result<Response, Refusal> {
    let upload = store.upload(at.0, at.1, id(call))?;
    let most =
        usize::try_from(call.number("max-parts")?.unwrap_or(MOST).clamp(0, MOST)).unwrap_or(0);
    let marker = call.number("part-number-marker")?.unwrap_or(0);
    let mut left =
        upload.parts.iter().filter(|(number, _)| i64::from(**number) > marker).peekable();
    let mut inside =
        element("Bucket", at.0) + &element("Key", at.1) + &element("UploadId", &upload.id);
    inside += &element("PartNumberMarker", marker.to_string());
    inside += &element("MaxParts", most.to_string());
    let mut last = None;
    for (number, part) in left.by_ref().take(most) {
        let text = element("PartNumber", number.to_string())
            + &element("LastModified", clock::rfc3339(part.updated))
            + &element("ETag", part.etag())
            + &element("Size", part.piece.size.to_string());
        inside += &format!("<Part>{text}</Part>");
        last = Some(*number);
    }
    let truncated = left.peek().is_some();
    inside += &element("IsTruncated", truncated.to_string());
    if let Some(last) = last.filter(|_| truncated) {
        inside += &element("NextPartNumberMarker", last.to_string());
    }
    Ok(document("ListPartsResult", &inside))
}

/// The uploads of a bucket that are neither complete nor given up.
pub(super) fn uploads(store: &Store, call: &Call, bucket: &str) -> Result<Response, Refusal> {
    let prefix = call.parameter("prefix").unwrap_or_default();
    let most =
        usize::try_from(call.number("max-uploads")?.unwrap_or(MOST).clamp(0, MOST)).unwrap_or(0);
    let marker = (
        call.parameter("key-marker").unwrap_or_default(),
        call.parameter("upload-id-marker").unwrap_or_default(),
    );
    let uploads = store.uploads(bucket, prefix)?;
    // After a marker without an upload come the uploads of later names; after one with it, those that follow it.
    let begins = match marker {
        ("", _) => 0,
        (key, "") => uploads.partition_point(|upload| upload.name.as_str() <= key),
        (key, id) => {
            match uploads.iter().position(|upload| upload.name == key && upload.id == id) {
                Some(at) => at + 1,
                None => uploads.partition_point(|upload| upload.name.as_str() <= key),
            }
        }
    };
    let left = &uploads[begins..];
    let mut inside = element("Bucket", bucket)
        + &element("Prefix", prefix)
        + &element("MaxUploads", most.to_string());
    inside += &element("IsTruncated", (left.len() > most).to_string());
    for upload in left.iter().take(most) {
        let text = element("Key", &upload.name)
            + &element("UploadId", &upload.id)
            + &element(
                "StorageClass",
                upload.attributes.storage_class.as_deref().unwrap_or("STANDARD"),
            )
            + &element("Initiated", clock::rfc3339(upload.started));
        inside += &format!("<Upload>{text}</Upload>");
    }
    if let Some(last) = left.iter().take(most).next_back().filter(|_| left.len() > most) {
        inside +=
            &(element("NextKeyMarker", &last.name) + &element("NextUploadIdMarker", &last.id));
    }
    Ok(document("ListMultipartUploadsResult", &inside))
}
