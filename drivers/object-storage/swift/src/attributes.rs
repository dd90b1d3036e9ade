// SPDX-License-Identifier: Apache-2.0

//! Attributes of objects as headers, and back.
//!
//! Swift folds the case of metadata's names and takes `_` for `-`, so a name of other characters than `a-z 0-9 -` goes
//! as `X-Object-Meta-Enc-HEX`; a value that no header can carry goes as `enc-HEX`. The metadata `x-delete-at` (seconds
//! since 1970) and `x-delete-after` (seconds from now) are Swift's headers of these names.

use chrono::{DateTime, NaiveDateTime, Utc};
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE,
    HeaderName, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderValue};
use object_store::path::Path;
use object_store::{Attribute, Attributes, ObjectMeta};

use crate::encode;
use crate::error::{Failure, FailureKind};

const META: &str = "x-object-meta-";
const ENCODED: &str = "enc-";
/// Metadata of this client's own: never told, never taken from users.
const OWN: &str = "nvs-";
/// Whose conditional write made the object.
pub(crate) const MARK: &str = "x-object-meta-nvs-mark";
/// The multi-part upload that made the object, if the segments are in our segments container.
pub(crate) const UPLOAD: &str = "x-object-meta-nvs-upload";
/// How a Ceph gateway keeps that an object is a large one: as metadata, which it tells.
pub(crate) const LARGE_META: &str = "x-object-meta-static-large-object";
pub(crate) const DELETE_AT: &str = "x-delete-at";
pub(crate) const DELETE_AFTER: &str = "x-delete-after";
pub(crate) const VERSION: &str = "x-object-version-id";

/// Whether a name of metadata survives Swift as it is.
fn plain_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain
        && !name.is_empty()
        && !name.starts_with(['-'])
        && !name.ends_with('-')
        && !name.starts_with(ENCODED)
        && !name.starts_with(OWN)
}

fn plain_value(value: &str) -> bool {
    let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b));
    printable && !value.is_empty() && value.trim() == value && !value.starts_with(ENCODED)
}

fn coded(text: &str) -> String {
    format!("{ENCODED}{}", encode::hex(text.as_bytes()))
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(encode::unhex(text.strip_prefix(ENCODED)?)?).ok()
}

/// The headers that stand for `attributes`. `default_type` is the content type if none is among them.
///
/// # Errors
/// An attribute that Swift has no place for, or a value that no header can carry.
pub(crate) fn to_headers(
    attributes: &Attributes,
    default_type: Option<&str>,
) -> Result<HeaderMap, Failure> {
    let refused =
        |what: String| Err(Failure::new(FailureKind::Unsupported, "setting attributes", what));
    let mut headers = HeaderMap::new();
    for (attribute, value) in attributes {
        let (name, value) = match attribute {
            Attribute::ContentType => (CONTENT_TYPE, value.to_string()),
            Attribute::ContentEncoding => (CONTENT_ENCODING, value.to_string()),
            Attribute::ContentDisposition => (CONTENT_DISPOSITION, value.to_string()),
            Attribute::ContentLanguage => (CONTENT_LANGUAGE, value.to_string()),
            Attribute::CacheControl => (CACHE_CONTROL, value.to_string()),
            Attribute::Metadata(key) if key == DELETE_AT || key == DELETE_AFTER => {
                if value.parse::<u64>().is_err() {
                    return refused(format!("{key} is a number of seconds, not '{value:?}'"));
                }
                (
                    HeaderName::from_static(if key == DELETE_AT {
                        DELETE_AT
                    } else {
                        DELETE_AFTER
                    }),
                    value.to_string(),
                )
            }
            Attribute::Metadata(key) => {
                let key = if plain_name(key) { key.to_string() } else { coded(key) };
                let value = if plain_value(value) { value.to_string() } else { coded(value) };
                match HeaderName::try_from(format!("{META}{key}")) {
                    Ok(name) => (name, value),
                    Err(_) => return refused(format!("no metadata can be named '{key}'")),
                }
            }
            other => return refused(format!("Swift has no attribute {other:?}")),
        };
        match HeaderValue::from_bytes(value.as_bytes()) {
            Ok(value) => headers.insert(name, value),
            Err(_) => {
                return refused(format!("{name} cannot have a value with control characters"));
            }
        };
    }
    if !headers.contains_key(CONTENT_TYPE)
        && let Some(value) = default_type.and_then(|text| HeaderValue::from_str(text).ok())
    {
        headers.insert(CONTENT_TYPE, value);
    }
    Ok(headers)
}

/// The attributes that an object's `headers` stand for.
pub(crate) fn from_headers(headers: &HeaderMap) -> Attributes {
    let mut attributes = Attributes::new();
    for (name, value) in headers {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else { continue };
        let attribute = match name.as_str() {
            "content-type" => Attribute::ContentType,
            "content-encoding" => Attribute::ContentEncoding,
            "content-disposition" => Attribute::ContentDisposition,
            "content-language" => Attribute::ContentLanguage,
            "cache-control" => Attribute::CacheControl,
            DELETE_AT => Attribute::Metadata(DELETE_AT.into()),
            LARGE_META => continue,
            name => match name.strip_prefix(META) {
                Some(key) if !key.starts_with(OWN) => {
                    Attribute::Metadata(decoded(key).unwrap_or_else(|| key.to_owned()).into())
                }
                _ => continue,
            },
        };
        let value = match attribute {
            Attribute::Metadata(_) => decoded(value).unwrap_or_else(|| value.to_owned()),
            _ => value.to_owned(),
        };
        attributes.insert(attribute, value.into());
    }
    attributes
}

/// The headers of an object that a POST has to repeat, or Swift drops them.
pub(crate) fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let known = matches!(
            name.as_str(),
            "content-encoding"
                | "content-disposition"
                | "content-language"
                | "cache-control"
                | "x-object-manifest"
                | DELETE_AT
        );
        if known || name.as_str().starts_with(META) {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}

/// An ETag without quotes: Swift quotes those of large objects only.
pub(crate) fn etag(text: &str) -> String {
    text.trim().trim_matches('"').to_owned()
}

pub(crate) fn header_etag(headers: &HeaderMap) -> Option<String> {
    headers.get(http::header::ETAG).and_then(|value| value.to_str().ok()).map(etag)
}

/// The time of the last change: exact where the server tells it, else to the second.
fn last_modified(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let exact = text("x-timestamp").and_then(|text| text.parse::<f64>().ok());
    let exact =
        exact.and_then(|seconds| DateTime::from_timestamp_micros((seconds * 1e6).round() as i64));
    let rounded = || {
        DateTime::parse_from_rfc2822(text(LAST_MODIFIED.as_str())?)
            .ok()
            .map(|at| at.with_timezone(&Utc))
    };
    exact.or_else(rounded)
}

/// The time in a listing.
pub(crate) fn listed_time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim_end_matches('Z');
    NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|at| at.and_utc())
}

/// What a head tells about an object of `size` bytes.
pub(crate) fn object_meta(location: &Path, headers: &HeaderMap, size: u64) -> ObjectMeta {
    ObjectMeta {
        location: location.clone(),
        last_modified: last_modified(headers).unwrap_or_default(),
        size,
        e_tag: header_etag(headers),
        version: headers.get(VERSION).and_then(|value| value.to_str().ok()).map(str::to_owned),
    }
}

/// Whether an object is a static large one.
pub(crate) fn is_large(headers: &HeaderMap) -> bool {
    headers
        .get("x-static-large-object")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// Whether an object's ETag is something else than the MD5 of its bytes.
pub(crate) fn is_manifest(headers: &HeaderMap) -> bool {
    is_large(headers) || headers.contains_key("x-object-manifest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_headers() {
        let attributes = Attributes::from_iter([
            (Attribute::ContentType, "text/plain"),
            (Attribute::ContentDisposition, "attachment; filename=\"a\""),
            (Attribute::Metadata("plain-1".into()), "hello   world"),
            (Attribute::Metadata("With_Case".into()), "grün"),
            (Attribute::Metadata("enc-00".into()), "enc-00"),
            (Attribute::Metadata("nvs-mark".into()), " spaces "),
            (Attribute::Metadata("empty".into()), ""),
            (Attribute::Metadata(DELETE_AT.into()), "4000000000"),
        ]);
        let headers = to_headers(&attributes, Some("ignored/type")).unwrap();
        assert_eq!(headers["x-object-meta-plain-1"], "hello   world");
        assert_eq!(headers[DELETE_AT], "4000000000");
        assert!(!headers.contains_key(MARK));
        assert_eq!(from_headers(&headers), attributes);
    }

    #[test]
    fn own_metadata_is_never_told() {
        let mut headers = HeaderMap::new();
        headers.insert(MARK, HeaderValue::from_static("1"));
        headers.insert(UPLOAD, HeaderValue::from_static("2"));
        assert!(from_headers(&headers).is_empty());
        assert_eq!(kept(&headers).len(), 2);
    }

    #[test]
    fn what_swift_cannot_keep_is_refused() {
        for attributes in [
            Attributes::from_iter([(Attribute::StorageClass, "cold")]),
            Attributes::from_iter([(Attribute::Metadata(DELETE_AFTER.into()), "soon")]),
            Attributes::from_iter([(Attribute::ContentType, "a\nb")]),
        ] {
            assert_eq!(to_headers(&attributes, None).unwrap_err().kind(), FailureKind::Unsupported);
        }
    }

    #[test]
    fn times_are_exact() {
        let mut headers = HeaderMap::new();
        headers.insert(LAST_MODIFIED, HeaderValue::from_static("Mon, 23 Nov 2026 15:26:01 GMT"));
        let rounded = last_modified(&headers).unwrap();
        headers.insert("x-timestamp", HeaderValue::from_static("1795447560.04006"));
        assert_eq!(last_modified(&headers), listed_time("2026-11-23T15:26:00.040060"));
        assert_eq!(listed_time("2026-11-23T15:26:01.000Z"), Some(rounded));
    }
}
