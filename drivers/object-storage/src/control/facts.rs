// SPDX-License-Identifier: Apache-2.0
//! What is said of an object, as headers: of a request that begins one, and of an answer about one.

use crate::{
    call::{Answer, Ask},
    error::invalid,
    wire::{AnswerExt, nonsense, put_header, time},
};
use driver_api::{RString, RVec, Tuple2};
use driver_api::{
    Result,
    ext::{ObjectInfo, PutOptions},
};

/// The name of the metadata that keeps the writer's mark; it is told to nobody.
pub(crate) const MARK: &str = "novastor-mark";
/// The headers of HTTP that count as metadata.
pub(crate) const PLAIN: [&str; 4] =
    ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// How a store names the headers of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// What the names of metadata begin with.
    pub metadata: &'static str,
    /// What the names of the four plain headers and the content type begin with, in requests.
    pub plain: &'static str,
    /// The storage class.
    pub class: &'static str,
    /// The version, in answers.
    pub version: &'static str,
    /// The usual class, which is not told.
    pub usual_class: &'static str,
}

/// S3's.
pub(crate) const S3: Names = Names {
    metadata: "x-amz-meta-",
    plain: "",
    class: "x-amz-storage-class",
    version: "x-amz-version-id",
    usual_class: "STANDARD",
};
/// Azure's, for requests that write a whole blob or commit its blocks.
pub(crate) const AZURE: Names = Names {
    metadata: "x-ms-meta-",
    plain: "x-ms-blob-",
    class: "x-ms-access-tier",
    version: "x-ms-version-id",
    usual_class: "Hot",
};
/// GCS's XML API.
pub(crate) const GCS: Names = Names {
    metadata: "x-goog-meta-",
    plain: "",
    class: "x-goog-storage-class",
    version: "x-goog-generation",
    usual_class: "STANDARD",
};
/// Swift's.
pub(crate) const SWIFT: Names = Names {
    metadata: "x-object-meta-",
    plain: "",
    class: "",
    version: "x-object-version-id",
    usual_class: "",
};

/// Refuses a mark that is none.
pub(crate) fn check_mark(mark: &str) -> Result<()> {
    if mark.len() > 32 || !mark.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(invalid("a mark is 1 to 32 hexadecimal digits"));
    }
    Ok(())
}

/// Adds what `options` say of an object: content type, metadata, the mark and the storage class.
pub(crate) fn add(ask: &mut Ask, names: &Names, options: &PutOptions) -> Result<()> {
    check_mark(&options.mark)?;
    let content_type = match options.content_type.as_str() {
        "" => "application/octet-stream",
        text => text,
    };
    put_header(ask, &format!("{}content-type", names.plain), content_type)?;
    for pair in &options.metadata {
        let (name, value) = (pair.0.as_str(), pair.1.as_str());
        if name.starts_with("novastor-") {
            return Err(invalid(format!(
                "the name {name:?} of metadata is kept for the driver's own use"
            )));
        }
        let known = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
        };
        if name.is_empty() || !name.bytes().all(known) {
            return Err(invalid(format!("{name:?} cannot be the name of metadata"))
                .remedy("use lower-case letters, digits, dashes and underscores"));
        }
        let prefix = if PLAIN.contains(&name) { names.plain } else { names.metadata };
        put_header(ask, &format!("{prefix}{name}"), value)?;
    }
    if !options.mark.is_empty() {
        put_header(ask, &format!("{}{}", names.metadata, mark_name(names)), &options.mark)?;
    }
    if !options.storage_class.is_empty() && !names.class.is_empty() {
        put_header(ask, names.class, &options.storage_class)?;
    }
    Ok(())
}

/// Azure's metadata have names of C identifiers, which know no dash.
fn mark_name(names: &Names) -> &'static str {
    if names.metadata == AZURE.metadata { "novastor_mark" } else { MARK }
}

/// An object and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// What is told of it.
    pub info: ObjectInfo,
    /// Its writer's mark; empty: it has none.
    pub mark: String,
}

/// What an answer to HEAD says of an object.
pub(crate) fn of(names: &Names, key: &str, reply: &Answer) -> Result<Facts> {
    let mut info = ObjectInfo { key: key.into(), latest: true, ..ObjectInfo::default() };
    let mut mark = String::new();
    let length = match reply.header("x-goog-stored-content-length") {
        "" => reply.header("content-length"),
        stored => stored,
    };
    info.size = length.parse().map_err(|_| nonsense("it does not say the object's size"))?;
    info.etag = reply.etag().into();
    info.modified_ms = time::http_ms(reply.header("last-modified"));
    info.content_type = reply.header("content-type").into();
    info.version = reply.header(names.version).into();
    if !names.class.is_empty() {
        let class = reply.header(names.class);
        info.storage_class = if class == names.usual_class { "" } else { class }.into();
    }
    let delete_at: u64 = reply.header("x-delete-at").parse().unwrap_or(0);
    info.expires_ms = delete_at.saturating_mul(1000);
    for (name, value) in &reply.headers {
        let Ok(value) = value.to_str() else { continue };
        let name = name.as_str();
        if PLAIN.contains(&name) {
            info.metadata.push(Tuple2(name.into(), value.into()));
        } else if let Some(name) = name.strip_prefix(names.metadata) {
            match name {
                "novastor-mark" | "novastor_mark" => mark = value.to_owned(),
                _ if name.starts_with("novastor-") || name.starts_with("novastor_") => {}
                _ => info.metadata.push(Tuple2(name.into(), value.into())),
            }
        }
    }
    info.metadata.sort();
    Ok(Facts { info, mark })
}

/// Pairs of text as a list for the ABI.
pub(crate) fn pairs<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> RVec<Tuple2<RString, RString>> {
    pairs.into_iter().map(|(name, value)| Tuple2(name.into(), value.into())).collect()
}
