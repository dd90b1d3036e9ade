// SPDX-License-Identifier: Apache-2.0
//! What is said of an object, as the API takes it.

use std::collections::BTreeMap;

use driver_api::{Error, ErrorKind, Result};
use hyper::header::HeaderName;

use super::{names, wire::Ask};
use crate::{
    api::objects::types::{
        BeginUpload, ChangeObject, EXPIRE_AFTER, HTTP_METADATA, MARK, META, STORAGE_CLASS, TAGS,
    },
    cli::args::objects::{Facts, Terms},
};

/// What is said of each name, which is given once.
fn once(
    option: &str,
    pairs: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>> {
    let mut known = BTreeMap::new();
    for (name, value) in pairs {
        if known.contains_key(&name) {
            let why = format!("{option} {name} is given twice");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why));
        }
        known.insert(name, value);
    }
    Ok(known)
}

/// Tags by their names.
fn tags(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    once("--tag", pairs.iter().cloned())
}

/// Metadata with names in lower case.
fn metadata(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    once("--meta", pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())))
}

/// A value as a header has it: what is not printable ASCII is percent-encoded, and the percent sign.
fn header_value(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'%' => text.push_str("%25"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

impl Facts {
    /// Checks what can be checked before anything is sent.
    pub(super) fn check(&self) -> Result<()> {
        tags(&self.tags)?;
        self.in_headers(Ask::new(hyper::Method::PUT, "/")).map(|_| ())
    }

    /// The request that says this of the object that it writes.
    pub(super) fn in_headers(&self, mut ask: Ask) -> Result<Ask> {
        if let Some(content_type) = &self.content_type {
            ask = ask.with(hyper::header::CONTENT_TYPE, content_type);
        }
        for (name, value) in metadata(&self.metadata)? {
            let is_http = HTTP_METADATA.contains(&name.as_str());
            let full = if is_http { name.clone() } else { format!("{META}{name}") };
            let header = full.parse::<HeaderName>().map_err(|_| {
                let why = format!("`{}` is no name for metadata", name.escape_debug());
                Error::new(ErrorKind::INVALID_ARGUMENT, why)
                    .remedy("use letters, digits and hyphens")
            })?;
            let value = if is_http { value } else { header_value(&value) };
            ask = ask.with(header, value);
        }
        if !self.tags.is_empty() {
            ask = ask.with(HeaderName::from_static(TAGS), names::encoded(&self.tags));
        }
        if let Some(class) = &self.storage_class {
            ask = ask.with(HeaderName::from_static(STORAGE_CLASS), class);
        }
        if let Some(after) = self.expire_after {
            ask = ask.with(HeaderName::from_static(EXPIRE_AFTER), after.as_secs().to_string());
        }
        Ok(ask)
    }

    /// The upload that says this of the object that it becomes.
    pub(super) fn in_upload(&self, key: &str, mark: &str) -> Result<BeginUpload> {
        Ok(BeginUpload {
            key: key.to_owned(),
            content_type: self.content_type.clone(),
            metadata: metadata(&self.metadata)?,
            tags: tags(&self.tags)?,
            storage_class: self.storage_class.clone(),
            expire_after_secs: self.expire_after.map(|after| after.as_secs()),
            mark: Some(mark.to_owned()),
        })
    }

    /// The change of an object of which this is said from now on.
    pub(super) fn in_change(&self) -> Result<ChangeObject> {
        let metadata = metadata(&self.metadata)?;
        Ok(ChangeObject {
            content_type: self.content_type.clone(),
            metadata: (!metadata.is_empty()).then_some(metadata),
            tags: (!self.tags.is_empty()).then(|| tags(&self.tags)).transpose()?,
            storage_class: self.storage_class.clone(),
            expire_after_secs: self.expire_after.map(|after| after.as_secs()),
        })
    }
}

impl Terms {
    /// The request that is done under these conditions only.
    pub(super) fn in_headers(&self, mut ask: Ask) -> Ask {
        if self.create_only {
            ask = ask.with(hyper::header::IF_NONE_MATCH, "*");
        }
        if let Some(etag) = &self.if_match {
            ask = ask.with(hyper::header::IF_MATCH, quoted(etag));
        }
        ask
    }
}

/// An ETag as a header has it.
pub(super) fn quoted(etag: &str) -> String {
    if etag == "*" || etag.contains('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

/// The request with the writer's mark.
pub(super) fn marked(ask: Ask, mark: &str) -> Ask {
    ask.with(HeaderName::from_static(MARK), mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_headers() {
        assert_eq!(header_value("plain text; a=b"), "plain text; a=b");
        assert_eq!(header_value("100 % ü\n"), "100 %25 %C3%BC%0A");
        assert_eq!(quoted("abc"), "\"abc\"");
        assert_eq!(quoted("\"abc\""), "\"abc\"");
    }

    #[test]
    fn names_are_checked_before_anything_is_sent() {
        let facts = |names: &[&str]| Facts {
            metadata: names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect(),
            ..Facts::default()
        };
        facts(&["a", "Cache-Control"]).check().unwrap();
        for bad in [&["a b"][..], &["ü"], &["a", "A"], &["a:b"]] {
            assert_eq!(facts(bad).check().unwrap_err().kind(), ErrorKind::INVALID_ARGUMENT);
        }
    }
}
