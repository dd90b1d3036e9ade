// SPDX-License-Identifier: Apache-2.0
//! What is said of an object in headers: of requests that write one, and of answers about one.

use driver_api::{
    RString, RVec, Result, Tuple2,
    ext::{ObjectInfo, PutOptions},
};
use http::HeaderMap;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    account::Account,
    call::{Ask, text_of},
    config::Kind,
    error::{http_date, invalid, unsupported},
    mark, sums,
};

/// Headers of HTTP that count as metadata.
const PLAIN: [&str; 4] =
    ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// An object and its writer's mark.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// What is told of it.
    pub info: ObjectInfo,
    /// The mark; empty: it has none.
    pub mark: String,
    /// Its generation (GCS).
    pub generation: String,
}

/// What the names of metadata begin with.
pub(crate) fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "x-amz-meta-",
        Kind::Azure => "x-ms-meta-",
        Kind::Gcs => "x-goog-meta-",
        Kind::Swift => "x-object-meta-",
    }
}

fn class_header(kind: Kind) -> &'static str {
    match kind {
        Kind::S3 => "x-amz-storage-class",
        Kind::Azure => "x-ms-access-tier",
        _ => "x-goog-storage-class",
    }
}

/// The ETag without quotes and without the mark of a weak one.
pub(crate) fn unquoted(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"')
}

/// The ETag as conditions have it.
pub(crate) fn quoted(etag: &str) -> String {
    if etag == "*" { etag.to_owned() } else { format!("\"{}\"", unquoted(etag)) }
}

/// Whether an ETag looks like the MD5 of some content.
pub(crate) fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What an answer to GET or HEAD says of an object. `size` is the answer's length where it is not told otherwise.
pub(crate) fn read(kind: Kind, key: &str, headers: &HeaderMap) -> Found {
    let text = |name: &str| text_of(headers, name);
    let mut info = ObjectInfo { key: key.into(), latest: true, ..ObjectInfo::default() };
    info.size = size(headers).unwrap_or(0);
    info.etag = unquoted(text("etag")).into();
    info.modified_ms = http_date(text("last-modified"))
        .and_then(|secs| u64::try_from(secs).ok())
        .map_or(0, |secs| secs.saturating_mul(1000));
    info.content_type = text("content-type").into();
    let generation = text("x-goog-generation");
    info.version = match kind {
        Kind::S3 if text("x-amz-version-id") != "null" => text("x-amz-version-id"),
        Kind::S3 => "",
        Kind::Azure => text("x-ms-version-id"),
        Kind::Gcs => generation,
        Kind::Swift => text("x-object-version-id"),
    }
    .into();
    if kind != Kind::Swift {
        let class = text(class_header(kind));
        let usual = matches!(class, "STANDARD" | "Hot");
        info.storage_class = if usual { "" } else { class }.into();
    }
    let mut mark = String::new();
    for (name, value) in headers {
        // What is of other letters is told, too: who writes it again is refused, and nothing is dropped without a word.
        let value = String::from_utf8_lossy(value.as_bytes());
        let (name, value) = (name.as_str(), value.as_ref());
        if PLAIN.contains(&name) {
            info.metadata.push(Tuple2(name.into(), value.into()));
        } else if let Some(name) = name.strip_prefix(prefix(kind)) {
            if name == mark::name(kind) {
                value.clone_into(&mut mark);
            } else if !mark::is_hidden(name) {
                info.metadata.push(Tuple2(name.into(), value.into()));
            }
        }
    }
    info.metadata.sort();
    let plain_etag = match kind {
        Kind::S3 => {
            !text("x-amz-server-side-encryption").starts_with("aws:kms")
                && text("x-amz-server-side-encryption-customer-algorithm").is_empty()
        }
        Kind::Gcs | Kind::Azure => false,
        Kind::Swift => text("x-static-large-object").is_empty(),
    };
    let etag_is_md5 = plain_etag && is_md5(&info.etag);
    info.checksum = sums::told(kind, headers)
        .unwrap_or_else(|| {
            if etag_is_md5 { format!("md5:{}", info.etag.to_lowercase()) } else { String::new() }
        })
        .into();
    Found { info, mark, generation: generation.to_owned() }
}

/// The size of the whole object, if an answer to GET or HEAD tells it: that of a range alone does not.
pub(crate) fn size(headers: &HeaderMap) -> Option<u64> {
    let range = text_of(headers, "content-range");
    if !range.is_empty() {
        return range.rsplit_once('/')?.1.trim().parse().ok();
    }
    let stored = text_of(headers, "x-goog-stored-content-length");
    let text = if stored.is_empty() { text_of(headers, "content-length") } else { stored };
    text.parse().ok()
}

/// Puts what `options` say of an object, but for conditions, into a request that writes it.
pub(crate) fn write(
    account: &Account,
    mut ask: Ask,
    options: &PutOptions,
    mark: &str,
) -> Result<Ask> {
    let kind = account.kind;
    let content_type = match options.content_type.as_str() {
        "" => "application/octet-stream",
        text => text,
    };
    let blob = if kind == Kind::Azure { "x-ms-blob-" } else { "" };
    ask = ask.header(&format!("{blob}content-type"), content_type)?;
    for Tuple2(name, value) in &options.metadata {
        check_metadata(kind, name, value)?;
        let prefix = if PLAIN.contains(&name.as_str()) { blob } else { prefix(kind) };
        ask = ask.header(&format!("{prefix}{name}"), value)?;
    }
    if !mark.is_empty() {
        ask = ask.header(&format!("{}{}", prefix(kind), mark::name(kind)), mark)?;
    }
    let class = match options.storage_class.as_str() {
        "" => account.config.storage_class.as_deref().unwrap_or_default(),
        class => class,
    };
    if !class.is_empty() {
        if kind == Kind::Swift {
            return Err(unsupported("objects of Swift have no storage classes"));
        }
        ask = ask.header(class_header(kind), class)?;
    }
    ask = tags(kind, ask, &options.tags)?;
    if options.expire_after_secs > 0 {
        ask = expiry(kind, ask, options.expire_after_secs)?;
    }
    Ok(ask)
}

/// Refuses metadata that the store would change or drop without a word.
pub(crate) fn check_metadata(kind: Kind, name: &str, value: &str) -> Result<()> {
    let wrong = |why: String| Err(invalid(why).with("metadata", name));
    if mark::is_hidden(name) {
        return wrong("names that begin with `novastor-` are the driver's own".into());
    }
    let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 256 || !name.bytes().all(known) {
        return wrong("a name of metadata is 1 to 256 of a-z 0-9 - _ .".into());
    }
    if kind == Kind::Azure
        && !PLAIN.contains(&name)
        && (name.contains(['-', '.']) || name.starts_with(|c: char| c.is_ascii_digit()))
    {
        return wrong(
            "names of metadata are identifiers here: a-z 0-9 _, not beginning with a digit".into(),
        );
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || value.trim() != value {
        return wrong("a value of metadata is printable ASCII without space at its ends".into());
    }
    Ok(())
}

fn tags(kind: Kind, ask: Ask, tags: &RVec<Tuple2<RString, RString>>) -> Result<Ask> {
    if tags.is_empty() {
        return Ok(ask);
    }
    let header = match kind {
        Kind::S3 => "x-amz-tagging",
        Kind::Azure => "x-ms-tags",
        Kind::Gcs => {
            return Err(
                unsupported("objects of Google Cloud Storage have no tags").remedy("use metadata")
            );
        }
        Kind::Swift => {
            return Err(unsupported("objects of Swift have no tags").remedy("use metadata"));
        }
    };
    if tags.len() > 10 {
        return Err(invalid(format!("{} tags: an object has at most 10", tags.len())));
    }
    ask.header(header, &tags_text(tags))
}

/// Tags as the text of a header.
pub(crate) fn tags_text(tags: &RVec<Tuple2<RString, RString>>) -> String {
    let encode = |text: &RString| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = tags
        .iter()
        .map(|Tuple2(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}

fn expiry(kind: Kind, ask: Ask, secs: u64) -> Result<Ask> {
    match kind {
        Kind::Swift => ask.header("x-delete-after", &secs.to_string()),
        Kind::S3 | Kind::Gcs => {
            Err(unsupported("objects have no time of their own at which they go here")
                .remedy("use a lifecycle rule of the bucket"))
        }
        Kind::Azure => Err(unsupported("objects have no time of their own at which they go here")
            .remedy("have a lifecycle rule set in Azure's management plane")),
    }
}

#[cfg(test)]
#[path = "info_tests.rs"]
mod tests;
