// SPDX-License-Identifier: Apache-2.0
//! What the headers of HTTP say of an object, both ways.
//!
//! Values of metadata are printable ASCII as they are, except that what is not, and the percent sign, is percent-encoded
//! as UTF-8. Of what cannot be a header at all, such as a name with a space, the resource `info` tells.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use driver_api::{
    Error, ErrorKind, RString, Result, Tuple2,
    ext::{Conditions, ObjectInfo, PartInfo, PutOptions},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::types::{
    CHECKSUM, EXPIRE_AFTER, EXPIRES, HTTP_METADATA, MARK, META, STORAGE_CLASS, TAGS, VERSION,
};
use crate::objects::Wanted;

/// What a header's value does not have as it is.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// The same where spaces at the ends would be lost.
const SPACED: &AsciiSet = &ENCODED.add(b' ');

fn invalid(name: &str, why: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, format!("the header {name}: {why}"))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(Some).map_err(|_| invalid(name, "it is printable ASCII"))
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>> {
    let Some(value) = text(headers, name)? else { return Ok(None) };
    value.parse().map(Some).map_err(|_| invalid(name, "it is a number"))
}

/// One ETag without its quotes, or `*`.
fn etag(headers: &HeaderMap, name: &str) -> Result<Option<RString>> {
    let Some(value) = text(headers, name)? else { return Ok(None) };
    if value.contains(',') || headers.get_all(name).iter().nth(1).is_some() {
        return Err(invalid(name, "it is one ETag"));
    }
    let value = value.trim();
    let value = value.strip_prefix("W/").unwrap_or(value).trim_matches('"');
    match value.is_empty() {
        true => Err(invalid(name, "it is an ETag")),
        false => Ok(Some(value.into())),
    }
}

/// The ETag of a condition in a body; none: no condition.
pub(super) fn one_etag(name: &str, etag: Option<String>) -> Result<RString> {
    let Some(etag) = etag else { return Ok(RString::new()) };
    match etag.trim().trim_matches('"') {
        "" | "*" => {
            let why = format!("{name} names no ETag");
            Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .remedy("ask for the object's ETag first: novastor object head"))
        }
        etag => Ok(etag.into()),
    }
}

/// Seconds since 1970 of a date as HTTP writes it.
fn date(headers: &HeaderMap, name: &str) -> Result<u64> {
    let Some(value) = text(headers, name)? else { return Ok(0) };
    let date = httpdate::parse_http_date(value).map_err(|_| invalid(name, "it is a date"))?;
    Ok(date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// The conditions of a request.
pub(super) fn conditions(headers: &HeaderMap) -> Result<Conditions> {
    let if_match = etag(headers, "if-match")?.unwrap_or_default();
    if if_match.as_str() == "*" {
        return Err(invalid("If-Match", "it names an ETag")
            .remedy("ask for the object's ETag first: novastor object head"));
    }
    Ok(Conditions {
        if_match,
        if_none_match: etag(headers, "if-none-match")?.unwrap_or_default(),
        if_modified_since: date(headers, "if-modified-since")?,
        if_unmodified_since: date(headers, "if-unmodified-since")?,
        ..Conditions::default()
    })
}

/// The ETag that a range is of, with its quotes; one that is a date never holds here.
pub(super) fn if_range(headers: &HeaderMap) -> Result<Option<String>> {
    Ok(text(headers, "if-range")?.map(str::to_owned))
}

/// How long the body is, if the client said so.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>> {
    number(headers, header::CONTENT_LENGTH.as_str())
}

/// Which bytes are wanted. A unit that is not known is no range.
pub(super) fn range(headers: &HeaderMap) -> Result<Wanted> {
    let Some(value) = text(headers, "range")? else { return Ok(Wanted::All) };
    let Some(range) = value.strip_prefix("bytes=") else { return Ok(Wanted::All) };
    let wrong = || invalid("Range", "it is one range, such as bytes=0-99, bytes=100- or bytes=-5");
    let (first, last) = range.trim().split_once('-').ok_or_else(wrong)?;
    let place = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match (first, last) {
        ("", last) => Ok(Wanted::Last(place(last)?)),
        (first, "") => Ok(Wanted::From(place(first)?)),
        (first, last) => Ok(Wanted::Between(place(first)?, place(last)?)),
    }
}

/// How an object is to be written.
pub(super) fn put_options(headers: &HeaderMap) -> Result<PutOptions> {
    let owned =
        |name: &str| -> Result<RString> { Ok(text(headers, name)?.unwrap_or_default().into()) };
    let mut options = PutOptions {
        conditions: conditions(headers)?,
        content_type: owned("content-type")?,
        storage_class: owned(STORAGE_CLASS)?,
        expire_after_secs: number(headers, EXPIRE_AFTER)?.unwrap_or_default(),
        mark: owned(MARK)?,
        ..PutOptions::default()
    };
    for name in headers.keys() {
        let told = name.as_str();
        let key = match told.strip_prefix(META) {
            Some("") => return Err(invalid(told, "its name ends with that of the metadata")),
            Some(key) => key,
            None if HTTP_METADATA.contains(&told) => told,
            None => continue,
        };
        let value = match told == key {
            true => text(headers, told)?.unwrap_or_default().to_owned(),
            false => decoded(headers, told)?,
        };
        options.metadata.push(Tuple2(key.into(), value.into()));
    }
    let tags = text(headers, TAGS)?.unwrap_or_default();
    for (name, value) in form_urlencoded::parse(tags.as_bytes()) {
        options.tags.push(Tuple2((*name).into(), (*value).into()));
    }
    Ok(options)
}

fn decoded(headers: &HeaderMap, name: &str) -> Result<String> {
    let Some(value) = headers.get(name) else { return Ok(String::new()) };
    let utf8 = || invalid(name, "it is UTF-8, percent-encoded where it is not ASCII");
    // Bytes beyond ASCII are taken as they are, if they are UTF-8.
    let value = std::str::from_utf8(value.as_bytes()).map_err(|_| utf8())?;
    Ok(percent_decode_str(value).decode_utf8().map_err(|_| utf8())?.into_owned())
}

fn put(headers: &mut HeaderMap, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    let name = HeaderName::try_from(name);
    if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

fn quoted(etag: &str) -> String {
    if etag.is_empty() { String::new() } else { format!("\"{etag}\"") }
}

/// What is said of an object that was written.
pub(super) fn of_written(object: &ObjectInfo) -> HeaderMap {
    let mut said = HeaderMap::new();
    put(&mut said, "etag", &quoted(&object.etag));
    put(&mut said, VERSION, &object.version);
    put(&mut said, CHECKSUM, &object.checksum);
    said
}

/// What is said of a part that was written.
pub(super) fn of_part(part: &PartInfo) -> HeaderMap {
    let mut said = HeaderMap::new();
    put(&mut said, "etag", &quoted(&part.etag));
    put(&mut said, CHECKSUM, &part.checksum);
    said
}

/// All that headers can say of an object.
pub(super) fn of_object(object: &ObjectInfo) -> HeaderMap {
    let mut said = of_written(object);
    let kind = match object.content_type.as_str() {
        "" => "application/octet-stream",
        kind => kind,
    };
    put(&mut said, "content-type", kind);
    put(&mut said, "accept-ranges", "bytes");
    put(&mut said, STORAGE_CLASS, &object.storage_class);
    if object.modified_ms != 0 {
        put(&mut said, "last-modified", &http_date(object.modified_ms));
    }
    if object.expires_ms != 0 {
        put(&mut said, EXPIRES, &object.expires_ms.to_string());
    }
    for Tuple2(name, value) in &object.metadata {
        if HTTP_METADATA.contains(&name.as_str()) {
            put(&mut said, name, value);
        } else {
            let set = if value.trim() == value.as_str() { ENCODED } else { SPACED };
            let value = utf8_percent_encode(value, set).to_string();
            put(&mut said, &format!("{META}{name}"), &value);
        }
    }
    said
}

fn http_date(ms: u64) -> String {
    // Dates beyond what HTTP can write are told as its last one.
    let last = 253_402_300_799_000;
    let date: SystemTime = UNIX_EPOCH + Duration::from_millis(ms.min(last));
    httpdate::fmt_http_date(date)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            let name = HeaderName::try_from(*name).expect("a name");
            (name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn ranges_are_read_as_http_writes_them() {
        let of = |text: &str| range(&with(&[("range", text)]));
        assert_eq!(of("bytes=0-9").expect("a range"), Wanted::Between(0, 9));
        assert_eq!(of("bytes=5-").expect("a range"), Wanted::From(5));
        assert_eq!(of("bytes=-5").expect("a range"), Wanted::Last(5));
        assert_eq!(of("lines=1-2").expect("another unit"), Wanted::All);
        for wrong in ["bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,5-6", "bytes=1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_are_one_etag_each() {
        let headers = with(&[("if-match", "\"a-1\""), ("if-none-match", "*")]);
        let found = conditions(&headers).expect("conditions");
        assert_eq!((found.if_match.as_str(), found.if_none_match.as_str()), ("a-1", "*"));
        let date = with(&[("if-modified-since", "Thu, 01 Jan 1970 00:01:40 GMT")]);
        assert_eq!(conditions(&date).expect("a date").if_modified_since, 100);
        for wrong in [("if-match", "\"a\", \"b\""), ("if-match", "*"), ("if-match", "\"\"")] {
            assert!(conditions(&with(&[wrong])).is_err(), "{wrong:?}");
        }
        assert!(conditions(&with(&[("if-unmodified-since", "yesterday")])).is_err());
    }

    #[test]
    fn metadata_goes_there_and_back_in_any_letters() {
        let headers = with(&[
            ("novastor-meta-plain", "as it is, 100%25"),
            ("novastor-meta-greek", "%CE%B1 beta"),
            ("novastor-meta-raw", "α"),
            ("cache-control", "max-age=5"),
            ("novastor-tags", "a=1&b%20c=d%26e"),
            ("novastor-mark", "0f"),
        ]);
        let options = put_options(&headers).expect("options");
        let mut metadata: Vec<_> =
            options.metadata.iter().map(|pair| (pair.0.as_str(), pair.1.as_str())).collect();
        metadata.sort_unstable();
        let expected = [
            ("cache-control", "max-age=5"),
            ("greek", "α beta"),
            ("plain", "as it is, 100%"),
            ("raw", "α"),
        ];
        assert_eq!(metadata, expected);
        let tags: Vec<_> =
            options.tags.iter().map(|pair| (pair.0.as_str(), pair.1.as_str())).collect();
        assert_eq!(tags, [("a", "1"), ("b c", "d&e")]);
        let object = ObjectInfo { metadata: options.metadata, ..ObjectInfo::default() };
        let said = of_object(&object);
        assert_eq!(said["novastor-meta-greek"], "%CE%B1 beta");
        assert_eq!(said["novastor-meta-plain"], "as it is, 100%25");
        assert_eq!(said["cache-control"], "max-age=5");
        assert!(put_options(&with(&[("novastor-meta-", "x")])).is_err());
        assert!(put_options(&with(&[("novastor-meta-x", "%FF")])).is_err());
    }
}
