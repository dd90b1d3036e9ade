// SPDX-License-Identifier: Apache-2.0
//! A driver's options, declared as data: the host derives help, checks and documentation from them.

use abi_stable::{
    StableAbi,
    std_types::{
        ROption::{self, RNone, RSome},
        RString, RVec,
    },
};
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// The type of an option's value in the configuration file.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionType(u32);

impl OptionType {
    /// A string.
    pub const TEXT: Self = Self(1);
    /// A whole number.
    pub const INTEGER: Self = Self(2);
    /// `true` or `false`.
    pub const BOOLEAN: Self = Self(3);
    /// Bytes: a whole number, or a string such as `"64MiB"`. The driver gets a number.
    pub const SIZE: Self = Self(4);
    /// An absolute path.
    pub const PATH: Self = Self(5);
    /// One of [`OptionSpec::choices`].
    pub const CHOICE: Self = Self(6);
    /// A number with or without fraction.
    pub const NUMBER: Self = Self(7);
    /// A list of strings.
    pub const TEXTS: Self = Self(8);
    /// Any table or list; the driver checks it.
    pub const TABLE: Self = Self(9);

    /// The type's name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::TEXT => "text",
            Self::INTEGER => "integer",
            Self::BOOLEAN => "boolean",
            Self::SIZE => "size in bytes",
            Self::PATH => "absolute path",
            Self::CHOICE => "choice",
            Self::NUMBER => "number",
            Self::TEXTS => "list of texts",
            Self::TABLE => "table",
            _ => "unknown type",
        }
    }
}

/// One option: its name, type, default, unit and meaning.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct OptionSpec {
    /// The key in the configuration file, with its unit (`idle_timeout_secs`).
    pub name: RString,
    /// The value's type.
    pub kind: OptionType,
    /// The default as JSON; nothing for an option without.
    pub default: ROption<RString>,
    /// Whether the backend cannot be opened without it.
    pub required: bool,
    /// Whether the value is a secret: never logged, and configurable as a file or variable instead.
    pub secret: bool,
    /// The allowed values of a [`OptionType::CHOICE`].
    pub choices: RVec<RString>,
    /// One sentence for the operator.
    pub help: RString,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

impl OptionSpec {
    /// An optional option without default.
    pub fn new(name: &str, kind: OptionType, help: &str) -> Self {
        Self {
            name: name.into(),
            kind,
            default: RNone,
            required: false,
            secret: false,
            choices: RVec::new(),
            help: help.into(),
            reserved: [0; 2],
        }
    }

    /// Must be given.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Is a secret.
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Has a default, given as JSON: `"\"raw\""`, `"0"`, `"true"`.
    pub fn default_json(mut self, json: &str) -> Self {
        self.default = RSome(json.into());
        self
    }

    /// Allows these values only.
    pub fn choices(mut self, choices: &[&str]) -> Self {
        self.choices = choices.iter().map(|choice| RString::from(*choice)).collect();
        self
    }
}

/// A backend's (or layer's) name and its checked options.
#[repr(C)]
#[derive(StableAbi, Clone)]
pub struct BackendConfig {
    /// The backend's name: `nas1` for `[backends.nas1]`.
    pub name: RString,
    options: RString,
    reserved: [u64; 4],
}

impl BackendConfig {
    /// A configuration whose options are this JSON object, defaults filled in and secrets resolved.
    pub fn new(name: &str, options: &serde_json::Value) -> Self {
        Self { name: name.into(), options: options.to_string().into(), reserved: [0; 4] }
    }

    /// The options as the driver's own plain struct. Use `#[serde(deny_unknown_fields)]` on it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.options).map_err(|error| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("the options do not fit: {error}"))
                .with("backend", &self.name)
                .remedy(format!("correct [backends.{}] in the configuration", self.name))
        })
    }
}

impl std::fmt::Debug for BackendConfig {
    /// Prints the name alone: options may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendConfig").field("name", &self.name).finish_non_exhaustive()
    }
}
