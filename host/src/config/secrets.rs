// SPDX-License-Identifier: Apache-2.0
//! Secrets: where they may be, and how they are fetched. A secret is never part of a message.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ::config::{Map, Value, ValueKind};
use driver_api::{Error, ErrorKind, Result};

use super::{
    layers::Variables,
    names::{nearest, validate_name},
    settings::Settings,
    value::{Wrong, kind_name},
};

const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
const LARGEST: u64 = 64 << 10;
const HOW: &str = "write { file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" }";

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file that others cannot read.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// In a systemd credential of this name.
    Credential(String),
}

/// The secret that `[secrets]` calls `name`, fetched now. One newline at its end is not part of it.
pub fn resolve_secret(settings: &Settings, name: &str) -> Result<String> {
    find(settings, name).and_then(|source| fetch(source, &settings.variables)).map_err(|wrong| {
        Error::new(ErrorKind::INVALID_ARGUMENT, wrong.message)
            .with("secret", name)
            .remedy(wrong.remedy)
    })
}

/// The source of the secret called `name`.
pub(super) fn find<'s>(settings: &'s Settings, name: &str) -> Result<&'s SecretSource, Wrong> {
    settings.secrets.get(name).ok_or_else(|| {
        let near = nearest(name, settings.secrets.keys().map(String::as_str));
        let instead = near.map_or_else(String::new, |near| format!("write {near:?}, or "));
        Wrong::new(
            format!("[secrets] has no secret {name:?}"),
            format!("{instead}add `{name} = {{ file = \"/path\" }}` to [secrets]"),
        )
    })
}

/// Reads a source as it is written in the configuration.
pub(super) fn parse(value: &Value) -> Result<SecretSource, Wrong> {
    let ValueKind::Table(table) = &value.kind else {
        return Err(Wrong::new(
            format!("a secret's place must be a table, this is {}", kind_name(value)),
            HOW,
        ));
    };
    let (kind, place) = single(table, &["file", "env", "credential"], HOW)?;
    match kind {
        "file" if Path::new(place).is_absolute() => Ok(SecretSource::File(place.into())),
        "file" => Err(Wrong::new("the path of the secret's file is not absolute", HOW)),
        "env" if place.is_empty() => Err(Wrong::new("the variable has no name", HOW)),
        "env" => Ok(SecretSource::Env(place.to_owned())),
        _ => match validate_name("credential", place) {
            Ok(()) => Ok(SecretSource::Credential(place.to_owned())),
            Err(error) => Err(Wrong::new(error.message(), error.remedy_text())),
        },
    }
}

/// The only key of `table`, which must be one of `kinds`, and its text.
pub(super) fn single<'t>(
    table: &'t Map<String, Value>,
    kinds: &[&'static str],
    remedy: &str,
) -> Result<(&'static str, &'t str), Wrong> {
    if let Some(key) = table.keys().filter(|key| !kinds.contains(&key.as_str())).min() {
        let near = nearest(key, kinds.iter().copied());
        let near = near.map_or_else(String::new, |near| format!("write `{near}`: "));
        return Err(Wrong::new(
            format!("a secret's place has no key {key:?}"),
            format!("{near}{remedy}"),
        ));
    }
    let mut given = kinds.iter().filter_map(|kind| Some((*kind, table.get(*kind)?)));
    match (given.next(), given.next()) {
        (Some((kind, value)), None) => match &value.kind {
            ValueKind::String(text) => Ok((kind, text)),
            _ => Err(Wrong::new(
                format!("`{kind}` must be text, this is {}", kind_name(value)),
                remedy,
            )),
        },
        (None, _) => Err(Wrong::new("the secret's place is empty", remedy)),
        (Some((one, _)), Some((two, _))) => Err(Wrong::new(
            format!("the secret has two places, `{one}` and `{two}`; layers are merged key by key"),
            format!("keep one: {remedy}"),
        )),
    }
}

/// Fetches a secret from its place.
pub(super) fn fetch(source: &SecretSource, variables: &Variables) -> Result<String, Wrong> {
    match source {
        SecretSource::File(path) => read(path),
        SecretSource::Env(name) => match variables.get(name) {
            Some(Ok("")) | None => Err(Wrong::new(
                format!("the secret is missing: the environment variable {name} is not set"),
                format!("set {name} for this process, or put the secret into a file"),
            )),
            Some(Err(())) => Err(Wrong::new(
                format!("the secret in the environment variable {name} is not UTF-8"),
                "correct the variable",
            )),
            Some(Ok(value)) => Ok(value.to_owned()),
        },
        SecretSource::Credential(name) => match variables.get(CREDENTIALS) {
            Some(Ok(directory)) if !directory.is_empty() => read(&Path::new(directory).join(name)),
            _ => Err(Wrong::new(
                format!(
                    "the secret is missing: ${CREDENTIALS} is not set, so there is no systemd \
                     credential {name:?}"
                ),
                format!("add `LoadCredential={name}:/path` to the systemd unit, or use a file"),
            )),
        },
    }
}

fn read(path: &Path) -> Result<String, Wrong> {
    let place = path.display();
    let missing = |error: std::io::Error| {
        Wrong::new(
            format!("the secret is missing: {place} cannot be read: {error}"),
            "create the file with the secret in it, readable for this user alone",
        )
    };
    // Not blocking: a pipe without a writer would hold the host.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = File::options().read(true).custom_flags(nonblocking).open(path).map_err(missing)?;
    let metadata = file.metadata().map_err(missing)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(Wrong::new(
            format!("{place} is not a regular file of at most {LARGEST} bytes"),
            "name a file that holds the secret alone",
        ));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o006 != 0 {
        return Err(Wrong::new(
            format!(
                "the secret is not safe: others may read or write {place} (mode {:04o})",
                mode & 0o7777
            ),
            format!(
                "run `chmod o-rwx {place}`, and change the secret if others could have read it"
            ),
        ));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(missing)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(Wrong::new(
            format!("the secret is missing: {place} is empty"),
            "write the secret into it",
        ));
    }
    Ok(secret.to_owned())
}
