// SPDX-License-Identifier: Apache-2.0
//! Where a configured value comes from, and refusals that say so.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use driver_api::{Error, ErrorKind};

/// Where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the built-in default.
    Default,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1; zero for the file as a whole.
        line: usize,
    },
    /// In the environment variable of this name.
    Variable(String),
    /// By the flag `--set` for this key.
    Flag(String),
}

impl Origin {
    /// Whether values from here are plain text, to be read as the type that their key has.
    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Variable(_) | Self::Flag(_))
    }

    /// A refusal of what was set here under `key`.
    pub(super) fn refuse(&self, key: &str, message: impl Into<String>) -> Error {
        let error = Error::new(ErrorKind::INVALID_ARGUMENT, message);
        let error = match self {
            Self::Default => error,
            Self::File { .. } => error.with("file", self),
            Self::Variable(name) => error.with("variable", name),
            Self::Flag(key) => error.with("flag", format!("--set {key}=…")),
        };
        if key.is_empty() { error } else { error.with("key", key) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "flag --set {key}=…"),
        }
    }
}

/// Where each key, and each table, was set last.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(BTreeMap<Vec<String>, Origin>);

impl Origins {
    pub(super) fn set(&mut self, path: Vec<String>, origin: Origin) {
        self.0.insert(path, origin);
    }

    /// The origin of the key, or of the nearest table around it.
    pub(super) fn of(&self, path: &[&str]) -> Origin {
        let mut path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        loop {
            match self.0.get(&path) {
                Some(origin) => return origin.clone(),
                None if path.is_empty() => return Origin::Default,
                None => drop(path.pop()),
            }
        }
    }
}

/// The parts of a key as one text, quoted where TOML wants it.
pub(super) fn dotted(path: &[&str]) -> String {
    let quoted = path.iter().map(|part| {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !part.is_empty() && part.chars().all(bare) {
            (*part).to_owned()
        } else {
            format!("{part:?}")
        }
    });
    quoted.collect::<Vec<_>>().join(".")
}
