// SPDX-License-Identifier: Apache-2.0
//! A backend's options against what its driver declares.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use ::config::{Value, ValueKind};
use driver_api::{DriverInfo, Error, ErrorKind, OptionSpec, ROption, Result};
use serde_json::{Map, Value as Json};

use super::{
    keys::backend_keys,
    load::Loaded,
    names::nearest,
    origin::{Origin, dotted},
    secrets,
    value::{Wrong, check},
};

const SECRET_HOW: &str = "write { secret = \"name\" }, { file = \"/path\" }, { env = \"NAME\" } or { credential = \"name\" }";

/// The options of a backend as its driver gets them: every key known and of its type, defaults filled in, secrets fetched.
///
/// The result holds secrets: hand it to the driver and print nothing of it.
pub fn check_options(loaded: &Loaded, backend: &str, driver: &DriverInfo) -> Result<Json> {
    let table = loaded.backend(backend).ok_or_else(|| {
        let near = nearest(backend, loaded.settings.backends.keys().map(String::as_str));
        let remedy = match near {
            Some(near) => format!("write {near:?}"),
            None => format!("add [backends.{}] to the configuration", dotted(&[backend])),
        };
        Error::new(ErrorKind::NOT_FOUND, "there is no such backend")
            .with("backend", backend)
            .remedy(remedy)
    })?;
    let own = backend_keys();
    let known = |key: &str| driver.options.iter().chain(&own).any(|spec| spec.name == key);
    // The first by name, so that of several faults always the same is reported.
    if let Some(key) = table.keys().filter(|key| !known(key)).min() {
        return Err(unknown(loaded, backend, key, driver));
    }
    let mut options = Map::new();
    for spec in &driver.options {
        let path = ["backends", backend, spec.name.as_str()];
        let value = match table.get(spec.name.as_str()) {
            Some(value) => {
                let origin = loaded.origins.of(&path);
                let checked = if spec.secret {
                    secret(loaded, value, &origin)
                } else {
                    check(spec, value, origin.is_text())
                };
                checked.map_err(|wrong| {
                    origin
                        .refuse(&dotted(&path), wrong.message)
                        .with("driver", &loaded.settings.backends[backend].driver)
                        .remedy(wrong.remedy)
                })?
            }
            None if spec.required => return Err(missing(loaded, backend, spec)),
            None => match &spec.default {
                ROption::RSome(json) => default(spec, json, backend)?,
                ROption::RNone => continue,
            },
        };
        options.insert(spec.name.to_string(), value);
    }
    Ok(Json::Object(options))
}

/// The options as anybody may see them: each secret's value is replaced by a word that says so.
pub fn without_secrets(options: &Json, driver: &DriverInfo) -> BTreeMap<String, Json> {
    let hidden = |key: &str| driver.options.iter().any(|spec| spec.secret && spec.name == key);
    let all = options.as_object().into_iter().flatten();
    all.map(|(key, value)| {
        (key.clone(), if hidden(key) { Json::from("(secret)") } else { value.clone() })
    })
    .collect()
}

fn unknown(loaded: &Loaded, backend: &str, key: &str, driver: &DriverInfo) -> Error {
    let path = ["backends", backend, key];
    let own = backend_keys();
    let names = || driver.options.iter().chain(&own).map(|spec| spec.name.as_str());
    let name = &loaded.settings.backends[backend].driver;
    let remedy = match nearest(key, names()) {
        Some(near) => format!("write `{near}`"),
        None => format!("use one of: {}", names().collect::<Vec<_>>().join(", ")),
    };
    loaded
        .origins
        .of(&path)
        .refuse(&dotted(&path), format!("the driver {name:?} has no option {key:?}"))
        .remedy(remedy)
}

fn missing(loaded: &Loaded, backend: &str, spec: &OptionSpec) -> Error {
    let path = ["backends", backend, spec.name.as_str()];
    let name = &loaded.settings.backends[backend].driver;
    let value = if spec.secret { "{ file = \"/path\" }" } else { "…" };
    loaded
        .origins
        .of(&path[..2])
        .refuse(&dotted(&path), format!("the driver {name:?} needs this option"))
        .remedy(format!(
            "add `{} = {value}` to [{}]: {} ({})",
            spec.name,
            dotted(&path[..2]),
            spec.help,
            spec.kind.name()
        ))
}

/// The default through the same checks: a size may be written as `"64MiB"` there too.
fn default(spec: &OptionSpec, text: &str, backend: &str) -> Result<Json> {
    let value = serde_json::from_str::<Value>(text).ok();
    value.and_then(|value| check(spec, &value, false).ok()).ok_or_else(|| {
        Error::new(ErrorKind::INTERNAL, "the driver declares a default that is not of its type")
            .with("backend", backend)
            .with("option", &spec.name)
            .remedy(
                "set the option in the configuration, and report the defect to the driver's author",
            )
    })
}

fn secret(loaded: &Loaded, value: &Value, origin: &Origin) -> Result<Json, Wrong> {
    let text = match &value.kind {
        ValueKind::Table(table) => {
            let kinds = ["secret", "file", "env", "credential"];
            let (kind, place) = secrets::single(table, &kinds, SECRET_HOW)?;
            let source = match kind {
                "secret" => secrets::find(&loaded.settings, place)?.clone(),
                _ => secrets::parse(value)?,
            };
            secrets::fetch(&source, &loaded.settings.variables)?
        }
        ValueKind::String(text) => {
            stands_safely(origin)?;
            text.clone()
        }
        _ => {
            return Err(Wrong::new(
                "a secret must be text, or a table that says where it is",
                SECRET_HOW,
            ));
        }
    };
    Ok(Json::from(text))
}

/// Whether a secret may stand in the clear at its origin.
fn stands_safely(origin: &Origin) -> Result<(), Wrong> {
    match origin {
        Origin::Flag(_) => Err(Wrong::new(
            "a secret must not be given as a flag: every user of this machine sees flags",
            SECRET_HOW,
        )),
        Origin::File { path, .. } => {
            let mode = fs::metadata(path).map(|metadata| metadata.permissions().mode());
            match mode {
                Ok(mode) if mode & 0o004 == 0 => Ok(()),
                _ => Err(Wrong::new(
                    "a secret stands here in the clear, in a file that others may read",
                    format!("{SECRET_HOW}; or run `chmod o-r {}`", path.display()),
                )),
            }
        }
        Origin::Variable(_) | Origin::Default => Ok(()),
    }
}
