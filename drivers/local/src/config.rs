// SPDX-License-Identifier: Apache-2.0
//! The backend's and the volumes' options: declared once, parsed here.

use std::path::PathBuf;

use driver_api::{DriverInfo, OptionSpec, OptionType, Result, VolumeSpec};
use serde::{Deserialize, Serialize};

use crate::error::invalid;

/// How a volume's blocks are kept in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Byte n of the volume is byte n of the file.
    #[default]
    Raw,
    /// QEMU's format, version 3.
    Qcow2,
}

impl Format {
    /// The name in options and the extension of files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// What is reserved on disk when a volume is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preallocation {
    /// Nothing: blocks are allocated by writes.
    #[default]
    Off,
    /// All blocks, without writing them.
    Falloc,
    /// All blocks, written with zeros.
    Full,
}

impl Preallocation {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Falloc => "falloc",
            Self::Full => "full",
        }
    }
}

/// The options of `[backends.NAME]` with `driver = "local"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The directory that holds everything.
    pub dir: PathBuf,
    /// Most bytes that volumes and snapshots may occupy; zero for what the file system has.
    #[serde(default)]
    pub capacity: u64,
    /// Use above which the backend's health is degraded.
    #[serde(default = "default_watermark")]
    pub high_watermark_percent: u64,
    /// Share of the space that new volumes and snapshots leave alone.
    #[serde(default = "default_reserve")]
    pub reserve_percent: u64,
    /// Whether volumes bypass the page cache.
    #[serde(default)]
    pub direct: bool,
    /// The format of new volumes that name none.
    #[serde(default)]
    pub format: Format,
    /// The preallocation of new volumes that name none.
    #[serde(default)]
    pub preallocation: Preallocation,
}

fn default_watermark() -> u64 {
    85
}

fn default_reserve() -> u64 {
    5
}

const FORMATS: &[&str] = &["raw", "qcow2"];
const PREALLOCATIONS: &[&str] = &["off", "falloc", "full"];

/// What the driver says of itself.
pub(crate) fn describe() -> DriverInfo {
    DriverInfo::new("volumes as sparse raw or qcow2 files in a directory of this host")
        .option(
            OptionSpec::new("dir", OptionType::PATH, "Existing directory that holds the volumes.")
                .required(),
        )
        .option(
            OptionSpec::new(
                "capacity",
                OptionType::SIZE,
                "Most bytes that volumes and snapshots may occupy; 0 for all of the file system.",
            )
            .default_json("0"),
        )
        .option(
            OptionSpec::new(
                "high_watermark_percent",
                OptionType::INTEGER,
                "Use in percent above which the backend reports itself degraded.",
            )
            .default_json("85"),
        )
        .option(
            OptionSpec::new(
                "reserve_percent",
                OptionType::INTEGER,
                "Percent of the space that new volumes, clones and snapshots may not use.",
            )
            .default_json("5"),
        )
        .option(
            OptionSpec::new("direct", OptionType::BOOLEAN, "Bypass the page cache (O_DIRECT).")
                .default_json("false"),
        )
        .option(format_option("Format of new volumes that name none.").default_json("\"raw\""))
        .option(
            preallocation_option("Preallocation of new volumes that name none.")
                .default_json("\"off\""),
        )
        .volume_option(format_option("Format of the volume's file; default: the backend's."))
        .volume_option(preallocation_option("What is reserved at once; default: the backend's."))
}

fn format_option(help: &str) -> OptionSpec {
    OptionSpec::new("format", OptionType::CHOICE, help).choices(FORMATS)
}

fn preallocation_option(help: &str) -> OptionSpec {
    OptionSpec::new("preallocation", OptionType::CHOICE, help).choices(PREALLOCATIONS)
}

impl Config {
    /// Refuses values that parse but make no sense.
    pub fn check(&self) -> Result<()> {
        if !self.dir.is_absolute() {
            return Err(invalid("`dir` must be an absolute path").with("dir", self.dir.display()));
        }
        for (key, value) in [
            ("high_watermark_percent", self.high_watermark_percent),
            ("reserve_percent", self.reserve_percent),
        ] {
            if value > 100 {
                return Err(invalid(format!("`{key}` must be 0 to 100")).with(key, value));
            }
        }
        Ok(())
    }

    /// Format and preallocation that `spec` asks for; `None` where it names none.
    pub fn wishes(spec: &VolumeSpec) -> Result<(Option<Format>, Option<Preallocation>)> {
        let (mut format, mut preallocation) = (None, None);
        for option in &spec.options {
            let (key, value) = (option.0.as_str(), option.1.as_str());
            match key {
                "format" => format = Some(choice(key, value, FORMATS)?),
                "preallocation" => preallocation = Some(choice(key, value, PREALLOCATIONS)?),
                _ => {
                    return Err(invalid(format!("the volume option `{key}` is unknown"))
                        .with("volume", &spec.name)
                        .remedy("the options are `format` and `preallocation`"));
                }
            }
        }
        Ok((format, preallocation))
    }
}

fn choice<T: for<'de> Deserialize<'de>>(key: &str, value: &str, choices: &[&str]) -> Result<T> {
    serde_json::from_value(serde_json::Value::from(value)).map_err(|_| {
        invalid(format!("`{value}` is no value for the volume option `{key}`"))
            .remedy(format!("use one of: {}", choices.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_volume_options_and_values_are_refused() {
        let spec = VolumeSpec::new("v", 512);
        assert!(Config::wishes(&spec.clone().option("fromat", "raw")).is_err());
        assert!(Config::wishes(&spec.clone().option("format", "vmdk")).is_err());
        let wishes = Config::wishes(&spec.option("format", "qcow2")).expect("known");
        assert_eq!(wishes, (Some(Format::Qcow2), None));
    }

    #[test]
    fn every_declared_option_is_parsed() {
        let mut options = serde_json::Map::new();
        for option in describe().options {
            let value = match option.default {
                driver_api::ROption::RSome(json) => serde_json::from_str(&json).expect("JSON"),
                driver_api::ROption::RNone => serde_json::Value::from("/srv"),
            };
            options.insert(option.name.to_string(), value);
        }
        let config: Config = serde_json::from_value(options.into()).expect("all known");
        assert_eq!((config.high_watermark_percent, config.reserve_percent), (85, 5));
        config.check().expect("defaults make sense");
    }
}
