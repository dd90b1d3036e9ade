// SPDX-License-Identifier: Apache-2.0
//! From merged layers to checked settings.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use ::config::{Map, Value, ValueKind};
use driver_api::{Error, ErrorKind, ROption, Result};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{
    keys::{Key, NAMED_SECTIONS, RUNTIME_DIR, STATE_DIR, backend_keys, keys},
    layers::{Merged, Sources, merge},
    names::{nearest, validate_name},
    nbd,
    origin::{Origin, Origins, dotted},
    secrets,
    settings::{BackendSettings, Settings},
    value::{Wrong, check, json, kind_name},
};

/// Settings, with where each of them was set.
#[derive(Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    pub(super) origins: Origins,
    /// The tables of `[backends]`, before a driver says what their keys mean.
    backends: BTreeMap<String, Map<String, Value>>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("settings", &self.settings)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Where a key was set, given its parts: `["nbd", "socket"]`.
    pub fn origin(&self, key: &[&str]) -> Origin {
        self.origins.of(key)
    }

    pub(super) fn backend(&self, name: &str) -> Option<&Map<String, Value>> {
        self.backends.get(name)
    }
}

impl Settings {
    /// Reads, merges and checks the configuration.
    pub fn load(sources: &Sources) -> Result<Loaded> {
        load(sources).map_err(|error| error.during("read the configuration"))
    }
}

fn load(sources: &Sources) -> Result<Loaded> {
    let merged = merge(sources)?;
    let keys = keys();
    for (section, value) in &merged.values {
        check_section(section, value, &keys, &merged.origins)?;
    }
    let mut fixed = fixed(&merged, &keys)?;
    let mut directory = |key| fixed.remove(key).and_then(|path| path.as_str().map(PathBuf::from));
    let runtime_dir = directory(RUNTIME_DIR).ok_or_else(defect)?;
    let state_dir = directory(STATE_DIR).ok_or_else(defect)?;
    let mut secrets = BTreeMap::new();
    for (name, value) in named(&merged, "secrets") {
        let origin = check_name(&merged, "secrets", name)?;
        let source = secrets::parse(value).map_err(at(&origin, &["secrets", name]))?;
        secrets.insert(name.clone(), source);
    }
    let (mut backends, mut tables) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in named(&merged, "backends") {
        let origin = check_name(&merged, "backends", name)?;
        let ValueKind::Table(table) = &value.kind else {
            return Err(not_a_table(&origin, &["backends", name], value));
        };
        backends.insert(name.clone(), backend(name, table, &merged.origins)?);
        tables.insert(name.clone(), table.clone());
    }
    let settings = Settings {
        active: fixed.remove("active").and_then(|active| active.as_str().map(str::to_owned)),
        runtime_dir,
        state_dir,
        plugins: section(&mut fixed, "plugins")?,
        state: section(&mut fixed, "state")?,
        api: section(&mut fixed, "api")?,
        nbd: section(&mut fixed, "nbd")?,
        log: section(&mut fixed, "log")?,
        secrets,
        backends,
        variables: sources.variables.clone(),
    };
    check_active(&settings, &merged.origins)?;
    nbd::check_tls(&settings.nbd, &merged.origins)?;
    let Merged { origins, files, .. } = merged;
    Ok(Loaded { settings, files, origins, backends: tables })
}

fn defect() -> Error {
    Error::new(ErrorKind::INTERNAL, "the configuration's keys do not fit the settings")
        .remedy("report this as a defect")
}

fn at(origin: &Origin, path: &[&str]) -> impl Fn(Wrong) -> Error {
    move |wrong| origin.refuse(&dotted(path), wrong.message).remedy(wrong.remedy)
}

fn not_a_table(origin: &Origin, path: &[&str], value: &Value) -> Error {
    let key = dotted(path);
    origin
        .refuse(&key, format!("this must be a section, it is {}", kind_name(value)))
        .remedy(format!("write [{key}] and the keys below it"))
}

/// Refuses keys that no section has.
fn check_section(name: &str, value: &Value, keys: &[Key], origins: &Origins) -> Result<()> {
    let own = || keys.iter().filter(|key| key.section == name).map(|key| key.spec.name.as_str());
    let is_section = own().next().is_some() || NAMED_SECTIONS.contains(&name);
    let ValueKind::Table(table) = &value.kind else {
        return if is_section {
            Err(not_a_table(&origins.of(&[name]), &[name], value))
        } else {
            Ok(())
        };
    };
    if NAMED_SECTIONS.contains(&name) || !is_section {
        return Ok(());
    }
    // The first by name, so that of several faults always the same is reported.
    let unknown = table.keys().filter(|key| !own().any(|known| known == key.as_str())).min();
    let Some(key) = unknown else { return Ok(()) };
    let path = [name, key.as_str()];
    let refusal = origins.of(&path).refuse(&dotted(&path), format!("[{name}] has no such key"));
    let elsewhere = keys.iter().find(|other| other.spec.name == key.as_str());
    Err(match (nearest(key, own()), elsewhere) {
        (Some(near), _) => refusal.remedy(format!("write `{near}`")),
        (None, Some(other)) => {
            refusal.remedy(format!("write `{}`: the key belongs there", dotted(&other.path())))
        }
        (None, None) => {
            refusal.remedy(format!("use one of: {}", own().collect::<Vec<_>>().join(", ")))
        }
    })
}

/// The values of all fixed keys, defaults filled in, as one JSON object.
fn fixed(merged: &Merged, keys: &[Key]) -> Result<serde_json::Map<String, Json>> {
    let mut all = serde_json::Map::new();
    for key in keys {
        let path = key.path();
        let given = match path[..] {
            [section, name] => match merged.values.get(section).map(|value| &value.kind) {
                Some(ValueKind::Table(table)) => table.get(name),
                _ => None,
            },
            _ => merged.values.get(path[0]),
        };
        let value = match given {
            Some(value) => {
                let origin = merged.origins.of(&path);
                checked(key, value, origin.is_text()).map_err(at(&origin, &path))?
            }
            None => default(key, &all)?,
        };
        let table = match key.section {
            "" => &mut all,
            section => all
                .entry(section)
                .or_insert_with(|| Json::Object(serde_json::Map::new()))
                .as_object_mut()
                .ok_or_else(defect)?,
        };
        table.insert(key.spec.name.to_string(), value);
    }
    Ok(all)
}

fn default(key: &Key, all: &serde_json::Map<String, Json>) -> Result<Json> {
    if let Some((directory, name)) = key.below {
        let directory = all.get(directory).and_then(Json::as_str).ok_or_else(defect)?;
        let path = Path::new(directory).join(name);
        return path.to_str().map(Json::from).ok_or_else(defect);
    }
    match &key.spec.default {
        ROption::RSome(json) => serde_json::from_str(json).map_err(|_| defect()),
        ROption::RNone => Ok(Json::Null),
    }
}

fn checked(key: &Key, value: &Value, from_text: bool) -> Result<Json, Wrong> {
    let path = key.path();
    if let ["api" | "nbd", "mode"] = path[..] {
        let what = if path[0] == "api" { "the management API" } else { "the exports" };
        return mode(value, what).map(Json::from);
    }
    let value = check(&key.spec, value, from_text)?;
    if let (Some((least, most)), Some(number)) = (key.within, value.as_i64())
        && !(least..=most).contains(&number)
    {
        return Err(Wrong::new(
            format!("{number} is not allowed"),
            format!("write a number from {least} to {most}"),
        ));
    }
    match path[..] {
        ["plugins", "allow_sha256"] => hashes(value),
        ["nbd", "listen"] => nbd::addresses(value),
        ["log", "filter"] => {
            let text = value.as_str().unwrap_or_default();
            match crate::log::parse_filter(text) {
                Ok(_) => Ok(value),
                Err(why) => Err(Wrong::new(
                    format!("{text:?} is not a log filter: {why}"),
                    "write levels and targets, such as \"info,novastor=debug\"",
                )),
            }
        }
        _ => Ok(value),
    }
}

/// A file mode. As text it is always octal; a decimal number that was meant to be octal is out of range.
fn mode(value: &Value, what: &str) -> Result<i64, Wrong> {
    let mode = match &value.kind {
        ValueKind::I64(mode) => Some(*mode),
        ValueKind::String(text) => {
            i64::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok()
        }
        _ => None,
    };
    match mode {
        Some(mode) if mode & !0o770 == 0 && mode & 0o600 == 0o600 => Ok(mode),
        Some(mode) if mode & !0o777 == 0 && mode & 0o007 != 0 => Err(Wrong::new(
            format!("mode {mode:#o} gives {what} to every user of this machine"),
            "write 0o660 and put those who may use it into the socket's group",
        )),
        _ => Err(Wrong::new(
            "this is not the mode of a socket",
            "write it in octal, such as 0o660 or 0o600",
        )),
    }
}

fn hashes(value: Json) -> Result<Json, Wrong> {
    let mut hashes = Vec::new();
    for hash in value.as_array().into_iter().flatten().filter_map(Json::as_str) {
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Wrong::new(
                format!("{hash:?} is not a SHA-256: it must have 64 hexadecimal digits"),
                "write the first word that `sha256sum FILE.so` prints",
            ));
        }
        hashes.push(hash.to_lowercase());
    }
    Ok(Json::from(hashes))
}

fn section<T: DeserializeOwned>(
    fixed: &mut serde_json::Map<String, Json>,
    name: &str,
) -> Result<T> {
    let table = fixed.remove(name).ok_or_else(defect)?;
    serde_json::from_value(table).map_err(|error| defect().with("section", name).caused_by(&error))
}

/// The operator's names in a section, with their values.
fn named<'m>(merged: &'m Merged, section: &str) -> impl Iterator<Item = (&'m String, &'m Value)> {
    let table = merged.values.get(section).and_then(|value| match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    });
    // By name, so that of several faults always the same is reported.
    table.into_iter().flat_map(|table| table.iter().collect::<BTreeMap<_, _>>())
}

/// Checks a name under `[backends]` or `[secrets]`; returns where it was set.
fn check_name(merged: &Merged, section: &str, name: &str) -> Result<Origin> {
    let path = [section, name];
    let origin = merged.origins.of(&path);
    let what = section.trim_end_matches('s');
    validate_name(what, name).map_err(|error| {
        origin.refuse(&dotted(&path), error.message()).remedy(error.remedy_text())
    })?;
    let same = |other: &str| other < name && other.eq_ignore_ascii_case(name);
    match named(merged, section).find(|(other, _)| same(other)) {
        None => Ok(origin),
        Some((other, _)) => Err(origin
            .refuse(
                &dotted(&path),
                format!("the {what} names {other:?} and {name:?} are the same but for case"),
            )
            .remedy("rename one: environment variables cannot tell them apart")),
    }
}

fn backend(name: &str, table: &Map<String, Value>, origins: &Origins) -> Result<BackendSettings> {
    let own = |key: &str, value: &Value| {
        let path = ["backends", name, key];
        let origin = origins.of(&path);
        let [driver, layers] = backend_keys();
        let spec = if key == "driver" { driver } else { layers };
        check(&spec, value, origin.is_text()).map_err(at(&origin, &path))
    };
    let driver = match table.get("driver") {
        Some(value) => own("driver", value)?.as_str().unwrap_or_default().to_owned(),
        None => {
            let path = ["backends", name];
            let near = nearest("driver", table.keys().map(String::as_str));
            let instead = near.map_or_else(String::new, |near| format!("instead of `{near}`, "));
            return Err(origins
                .of(&path)
                .refuse(&dotted(&["backends", name, "driver"]), "the backend names no driver")
                .remedy(format!("{instead}add `driver = \"local\"` or another driver's name")));
        }
    };
    let layers: Vec<String> = match table.get("layers") {
        Some(value) => serde_json::from_value(own("layers", value)?).map_err(|_| defect())?,
        None => Vec::new(),
    };
    let path = ["backends", name, "layers"];
    if !layers.is_empty() {
        return Err(origins
            .of(&path)
            .refuse(&dotted(&path), "this release cannot put layers over a backend's volumes")
            .remedy("remove the key, or empty the list"));
    }
    let options = table
        .iter()
        .filter(|(key, _)| !backend_keys().iter().any(|spec| spec.name == key.as_str()))
        .map(|(key, value)| (key.clone(), json(value)))
        .collect();
    Ok(BackendSettings { driver, layers, options })
}

fn check_active(settings: &Settings, origins: &Origins) -> Result<()> {
    let Some(active) = settings.active.as_deref() else { return Ok(()) };
    if settings.backends.contains_key(active) {
        return Ok(());
    }
    let refusal = origins
        .of(&["active"])
        .refuse("active", format!("there is no backend {active:?} to be the active one"));
    let names = || settings.backends.keys().map(String::as_str);
    Err(match nearest(active, names()) {
        Some(near) => refusal.remedy(format!("write \"{near}\"")),
        None if settings.backends.is_empty() => {
            refusal.remedy(format!("add [{}] to the configuration", dotted(&["backends", active])))
        }
        None => refusal.remedy(format!("write one of: {}", names().collect::<Vec<_>>().join(", "))),
    })
}
