// SPDX-License-Identifier: Apache-2.0
//! The names of buckets, keys and metadata: checked before anything is asked of a store.

use driver_api::{Result, ext::ObjectName};

use crate::{config::Kind, error::invalid};

/// Refuses a bucket's name that no store of this kind takes, or that would lead elsewhere in a URL.
pub(crate) fn check_bucket(kind: Kind, name: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(invalid(format!("the bucket's name is refused: {why}"))
            .with("bucket", name)
            .remedy("names have 3 to 63 of a-z 0-9 - and begin and end with a letter or digit"))
    };
    if name.is_empty() {
        return wrong("it is empty");
    }
    if name == "." || name == ".." || name.contains('/') {
        return wrong("it is a path");
    }
    if name.chars().any(char::is_control) {
        return wrong("it has control characters");
    }
    if kind == Kind::Swift {
        return if name.len() > 256 { wrong("it is longer than 256 bytes") } else { Ok(()) };
    }
    if name.len() < 3 {
        return wrong("it is shorter than 3 characters");
    }
    if kind == Kind::Azure && matches!(name, "$root" | "$web" | "$logs") {
        return Ok(());
    }
    let most = if kind == Kind::Gcs && name.contains('.') { 222 } else { 63 };
    if name.len() > most {
        return wrong("it is longer than 63 characters");
    }
    let allowed = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => true,
        b'.' => kind != Kind::Azure,
        b'_' => kind == Kind::Gcs,
        _ => false,
    };
    if let Some(odd) = name.chars().find(|&c| !c.is_ascii() || !allowed(c as u8)) {
        return wrong(&format!("it has {odd:?}"));
    }
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    if !end(name.as_bytes().first()) || !end(name.as_bytes().last()) {
        return wrong("it begins or ends with neither a letter nor a digit");
    }
    if name.contains("..") || (kind == Kind::Azure && name.contains("--")) {
        return wrong("it has two dots or dashes in a row");
    }
    Ok(())
}

/// Refuses a key that no store of this kind takes, or that would lead elsewhere in a URL.
pub(crate) fn check_key(kind: Kind, key: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(invalid(format!("the key is refused: {why}"))
            .with("object", key.escape_debug())
            .remedy("keys are 1 to 1024 bytes of UTF-8 without control characters"))
    };
    if key.is_empty() {
        return wrong("it is empty");
    }
    if key.len() > 1024 {
        return wrong(&format!("it has {} bytes", key.len()));
    }
    if key.chars().any(char::is_control) {
        return wrong("it has control characters");
    }
    // On the way to the server, such parts of a path are taken for directories and resolved.
    if key.split('/').any(|part| part == "." || part == "..") {
        return wrong("a part of it is `.` or `..`");
    }
    if kind == Kind::Azure && key.contains('\\') {
        return wrong("Azure takes a backslash for a slash, which is another object's name");
    }
    Ok(())
}

/// Refuses names of an object that cannot be.
pub(crate) fn check_object(kind: Kind, object: &ObjectName) -> Result<()> {
    check_bucket(kind, &object.bucket)?;
    check_key(kind, &object.key)?;
    if object.version.len() > 1024 || object.version.chars().any(char::is_control) {
        return Err(invalid("the version is no version's name").with("object", &object.key));
    }
    Ok(())
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
