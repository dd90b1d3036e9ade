// SPDX-License-Identifier: Apache-2.0
//! The layers of the configuration, read and merged: files, environment, flags.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use ::config::{Config, ConfigError, Map, Source, Value, ValueKind};
use driver_api::{Error, ErrorKind, Result};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{NAMED_SECTIONS, keys},
    names::nearest,
    origin::{Origin, Origins, dotted},
};

/// The file that is read when none is named. It may be absent.
pub const DEFAULT_FILE: &str = "/etc/novastor/host.toml";
const PREFIX: &str = "NOVASTOR__";

/// Where the configuration is to be read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file of `--config`; it must exist. Without it [`DEFAULT_FILE`] is read if it is there.
    pub config: Option<PathBuf>,
    /// The environment.
    pub variables: Variables,
    /// The values of `--set`: `section.key=value`.
    pub overrides: Vec<String>,
}

/// Environment variables. Their values are not printed.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, OsString>);

impl Variables {
    /// Those of this process.
    pub fn of_process() -> Self {
        let named =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(named.collect())
    }

    /// The value of `name`: `Err` if it is not UTF-8.
    pub(super) fn get(&self, name: &str) -> Option<Result<&str, ()>> {
        self.0.get(name).map(|value| value.to_str().ok_or(()))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// All layers in one.
pub(super) struct Merged {
    pub(super) values: Map<String, Value>,
    pub(super) origins: Origins,
    pub(super) files: Vec<PathBuf>,
}

/// Reads and merges all layers; later ones win.
pub(super) fn merge(sources: &Sources) -> Result<Merged> {
    let mut origins = Origins::default();
    let mut files = Vec::new();
    let mut layers = Vec::new();
    let (main, must_exist) = match &sources.config {
        Some(path) => (path.clone(), true),
        None => (DEFAULT_FILE.into(), false),
    };
    for path in [main.clone()].into_iter().chain(drop_ins(&main)?) {
        match read(&path)? {
            Some(text) => {
                layers.push(file_layer(&path, &text, &mut origins)?);
                files.push(path);
            }
            None if must_exist && path == main => {
                return Err(Origin::File { path, line: 0 }
                    .refuse("", "the configuration file does not exist")
                    .remedy("correct `--config`, or create the file"));
            }
            None => {}
        }
    }
    let names = operator_names(&layers);
    for (name, value) in sources.variables.0.range(PREFIX.to_owned()..) {
        if !name.starts_with(PREFIX) {
            break;
        }
        let origin = Origin::Variable(name.clone());
        let Some(value) = value.to_str() else {
            return Err(origin.refuse("", "the value is not UTF-8").remedy("correct the variable"));
        };
        let path = variable_path(name, &names);
        layers.push(text_layer(path, value, origin, &mut origins)?);
    }
    for flag in &sources.overrides {
        let (path, value) = flag_path(flag)?;
        let origin = Origin::Flag(dotted(&path.iter().map(String::as_str).collect::<Vec<_>>()));
        layers.push(text_layer(path, value, origin, &mut origins)?);
    }
    let mut builder = Config::builder();
    for layer in layers {
        builder = builder.add_source(layer);
    }
    let values = builder.build().and_then(|config| config.collect()).map_err(|_| {
        // The text of this error may hold values.
        Error::new(ErrorKind::INTERNAL, "the layers of the configuration cannot be merged")
            .remedy("report this as a defect")
    })?;
    Ok(Merged { values, origins, files })
}

/// One layer on its way into the crate `config`.
#[derive(Clone)]
struct Layer(Map<String, Value>);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// The `conf.d/*.toml` beside the main file, by name.
fn drop_ins(main: &Path) -> Result<Vec<PathBuf>> {
    let directory = main.parent().unwrap_or(Path::new("")).join("conf.d");
    let failed = |error: io::Error| {
        Origin::File { path: directory.clone(), line: 0 }
            .refuse("", format!("the directory cannot be read: {error}"))
            .remedy("make it readable for this user")
    };
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Origin::File { path: path.to_owned(), line: 0 }
            .refuse("", format!("the configuration file cannot be read: {error}"))
            .remedy("make it a UTF-8 file that this user may read")),
    }
}

struct FileReader<'f> {
    path: &'f Path,
    text: &'f str,
    origins: &'f mut Origins,
}

fn file_layer(path: &Path, text: &str, origins: &mut Origins) -> Result<Layer> {
    let mut reader = FileReader { path, text, origins };
    // Only the message and the place: the error's own display quotes the line, which may hold a secret.
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let origin = reader.origin(start);
        let (key, message, remedy) = if error.message().contains("duplicate key") {
            let twice = "a key or section stands here twice";
            (key_at(text, start), twice, "merge the two, or remove one")
        } else {
            ("", "this is not TOML", "correct the line; texts stand in \"quotes\"")
        };
        origin
            .refuse(key, format!("{message}: {}", error.message().replace('\n', "; ")))
            .remedy(remedy)
    })?;
    let table = reader.table(document.get_ref(), &mut Vec::new())?;
    Ok(Layer(table))
}

/// The key or section in the line of `place`: never its value, which may be a secret.
fn key_at(text: &str, place: usize) -> &str {
    let begin = text.get(..place).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    let line = text.get(begin..).unwrap_or_default();
    line.split(['=', ']', '\n']).next().unwrap_or_default().trim_matches(['[', ' ', '\t'])
}

impl FileReader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(offset);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Origin::File { path: self.path.to_owned(), line }
    }

    fn table(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) -> Result<Map<String, Value>> {
        let mut values = Map::new();
        for (key, value) in table {
            let name = key.get_ref().to_string();
            let origin = self.origin(key.span().start);
            path.push(name.clone());
            if path.len() == 1 {
                check_top_level(&name, &origin)?;
            }
            self.origins.set(path.clone(), origin);
            values.insert(name, self.value(value, path)?);
            path.pop();
        }
        Ok(values)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>) -> Result<Value> {
        let too_large = |what: &str| {
            let parts: Vec<&str> = path.iter().map(String::as_str).collect();
            self.origin(value.span().start)
                .refuse(&dotted(&parts), format!("the {what} is too large"))
                .remedy("write a smaller number")
        };
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::new(None, text.to_string()),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                Value::new(None, parsed.map_err(|_| too_large("integer"))?)
            }
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => Value::new(None, number),
                _ => return Err(too_large("number")),
            },
            DeValue::Boolean(value) => Value::new(None, *value),
            DeValue::Datetime(time) => Value::new(None, time.to_string()),
            DeValue::Array(items) => {
                let items: Result<Vec<Value>> =
                    items.iter().map(|item| self.value(item, path)).collect();
                Value::new(None, items?)
            }
            DeValue::Table(table) => Value::new(None, self.table(table, path)?),
        })
    }
}

/// A value given as text, from an origin with no types.
pub(super) fn parse_inline(text: &str) -> Option<Value> {
    let document = format!("value = {text}");
    let table = DeTable::parse(&document).ok()?;
    let (mut origins, path) = (Origins::default(), Path::new(""));
    let mut reader = FileReader { path, text: &document, origins: &mut origins };
    // One level down, where no key is taken for a section.
    let mut values = reader.table(table.get_ref(), &mut vec![String::new()]).ok()?;
    if values.len() == 1 { values.remove("value") } else { None }
}

/// The keys under the named sections, as their files write them: variables cannot tell upper from lower case.
fn operator_names(layers: &[Layer]) -> Vec<String> {
    let sections = layers
        .iter()
        .flat_map(|layer| NAMED_SECTIONS.iter().filter_map(|section| layer.0.get(*section)));
    sections
        .filter_map(|section| match &section.kind {
            ValueKind::Table(table) => Some(table.keys().cloned()),
            _ => None,
        })
        .flatten()
        .collect()
}

fn variable_path(name: &str, names: &[String]) -> Vec<String> {
    let parts = name[PREFIX.len()..].split("__").map(str::to_lowercase);
    let mut path: Vec<String> = parts.collect();
    if path.len() > 1
        && NAMED_SECTIONS.contains(&path[0].as_str())
        && let Some(name) = names.iter().find(|name| name.to_lowercase() == path[1])
    {
        path[1] = name.clone();
    }
    path
}

fn flag_path(flag: &str) -> Result<(Vec<String>, &str)> {
    let refuse = |key: &str, why| {
        Origin::Flag(key.to_owned()).refuse("", why).remedy("write `--set section.key=value`")
    };
    let Some((key, value)) = flag.split_once('=') else {
        // Without a key there is no telling what of it may be shown.
        return Err(refuse("", "the flag has no `=` between key and value"));
    };
    let path = parse_key(key.trim())
        .ok_or_else(|| refuse(key, "what stands before the `=` is not a key"))?;
    Ok((path, value))
}

/// The parts of a dotted key, by TOML's own rules for quotes.
fn parse_key(key: &str) -> Option<Vec<String>> {
    let document = format!("{key} = 0");
    let table = DeTable::parse(&document).ok()?;
    let mut path = Vec::new();
    let mut table = table.get_ref();
    loop {
        let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
        path.push(key.get_ref().to_string());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            DeValue::Integer(_) => return Some(path),
            _ => return None,
        }
    }
}

fn text_layer(
    path: Vec<String>,
    text: &str,
    origin: Origin,
    origins: &mut Origins,
) -> Result<Layer> {
    if path.iter().any(String::is_empty) {
        return Err(origin
            .refuse("", "it names no key")
            .remedy(format!("write {PREFIX}SECTION__KEY")));
    }
    check_top_level(&path[0], &origin)?;
    let mut layer = Map::new();
    let mut value = Value::new(None, text);
    for name in path.iter().skip(1).rev() {
        value = Value::new(None, Map::from_iter([(name.clone(), value)]));
    }
    layer.insert(path[0].clone(), value);
    origins.set(path, origin);
    Ok(Layer(layer))
}

/// Checked in each layer, before merging takes a dot in a key for a path.
fn check_top_level(name: &str, origin: &Origin) -> Result<()> {
    let keys = keys();
    let known = || {
        let own = keys.iter().filter_map(|key| key.path().first().copied());
        own.chain(NAMED_SECTIONS)
    };
    if known().any(|key| key == name) {
        return Ok(());
    }
    let refusal = origin.refuse(&dotted(&[name]), "there is no such key or section");
    let deeper = keys.iter().find(|key| !key.section.is_empty() && key.spec.name == name);
    Err(if let Some(near) = nearest(name, known()) {
        refusal.remedy(format!("write `{near}`"))
    } else if let Some(key) = deeper {
        refusal.remedy(format!("write `{}`: it belongs to a section", key.path().join(".")))
    } else {
        let mut known: Vec<&str> = known().collect();
        known.sort_unstable();
        known.dedup();
        refusal.remedy(format!("use one of: {}", known.join(", ")))
    })
}
