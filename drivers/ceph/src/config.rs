// SPDX-License-Identifier: Apache-2.0
//! The backend's options: declared once, parsed here.

use std::path::PathBuf;

use driver_api::{DriverInfo, OptionSpec, OptionType, Result};
use serde::Deserialize;

use crate::{
    error::invalid,
    layout::{self, Layout},
};

/// The options of `[backends.NAME]` with `driver = "ceph"`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A `ceph.conf` to begin with.
    pub conf_file: Option<PathBuf>,
    /// Addresses of the monitors.
    #[serde(default)]
    pub monitors: Vec<String>,
    /// The user, without `client.`.
    #[serde(default = "default_user")]
    pub user: String,
    /// A keyring that has the user's key.
    pub keyring: Option<PathBuf>,
    /// The user's key.
    pub key: Option<String>,
    /// The pool of the images.
    pub pool: String,
    /// The namespace in the pool; empty for the default one.
    #[serde(default)]
    pub namespace: String,
    /// The pool of new images' data; empty for the pool of the images.
    #[serde(default)]
    pub data_pool: String,
    /// How long connecting may take.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout_secs: u64,
    /// How long a monitor may take to answer.
    #[serde(default = "default_mon_op_timeout")]
    pub mon_op_timeout_secs: u64,
    /// How long an operation on data may take.
    #[serde(default = "default_osd_op_timeout")]
    pub osd_op_timeout_secs: u64,
    /// Features of new images.
    #[serde(default = "default_features")]
    pub features: Vec<String>,
    /// Bytes of an object of new images.
    #[serde(default = "default_object_size")]
    pub object_size: u64,
    /// Bytes of a stripe of new images; zero for the object's size.
    #[serde(default)]
    pub stripe_unit: u64,
    /// Objects that new images are striped over; zero for one.
    #[serde(default)]
    pub stripe_count: u64,
    /// How long a deleted volume is kept in the pool's trash; zero: not at all.
    #[serde(default)]
    pub trash_secs: u64,
    /// Whether librbd's own counters are among the figures of volumes.
    #[serde(default)]
    pub librbd_counters: bool,
}

impl std::fmt::Debug for Config {
    /// Prints where and as whom, never the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = (&self.monitors, &self.user, &self.pool, &self.namespace);
        f.debug_tuple("Config").field(&shown).finish_non_exhaustive()
    }
}

fn default_user() -> String {
    "admin".into()
}

fn default_connect_timeout() -> u64 {
    15
}

fn default_mon_op_timeout() -> u64 {
    30
}

fn default_osd_op_timeout() -> u64 {
    120
}

fn default_features() -> Vec<String> {
    DEFAULT_FEATURES.iter().map(|name| (*name).to_owned()).collect()
}

fn default_object_size() -> u64 {
    4 << 20
}

const DEFAULT_FEATURES: [&str; 5] =
    ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"];

/// What the driver says of itself.
pub(crate) fn describe() -> DriverInfo {
    let text = |name, help| OptionSpec::new(name, OptionType::TEXT, help);
    let path = |name, help| OptionSpec::new(name, OptionType::PATH, help);
    let secs = |name, default, help| {
        OptionSpec::new(name, OptionType::INTEGER, help).default_json(default)
    };
    let size =
        |name, default, help| OptionSpec::new(name, OptionType::SIZE, help).default_json(default);
    let info = DriverInfo::new("volumes as RBD images in a Ceph cluster")
        .option(path("conf_file", "A ceph.conf to begin with; other options here come after it."))
        .option(
            OptionSpec::new("monitors", OptionType::TEXTS, "Addresses of the monitors.")
                .default_json("[]"),
        )
        .option(text("user", "The user, without `client.`.").default_json("\"admin\""))
        .option(path("keyring", "A keyring file that has the user's key."))
        .option(text("key", "The user's key.").secret())
        .option(text("pool", "The pool of the images.").required())
        .option(
            text("namespace", "The namespace in the pool; empty for the default one.")
                .default_json("\"\""),
        )
        .option(
            text("data_pool", "The pool of new images' data; empty for `pool`.")
                .default_json("\"\""),
        )
        .option(secs("connect_timeout_secs", "15", "How long connecting may take."))
        .option(secs("mon_op_timeout_secs", "30", "How long a monitor may take to answer."))
        .option(secs(
            "osd_op_timeout_secs",
            "120",
            "How long a read or write may take; longer than the cluster takes to replace a lost OSD.",
        ))
        .option(
            OptionSpec::new("features", OptionType::TEXTS, "Features of new images.").default_json(
                "[\"layering\", \"exclusive-lock\", \"object-map\", \"fast-diff\", \"deep-flatten\"]",
            ),
        )
        .option(size("object_size", "4194304", "Bytes of an object of new images."))
        .option(size("stripe_unit", "0", "Bytes of a stripe of new images; 0: the object's size."))
        .option(secs("stripe_count", "0", "Objects that new images are striped over; 0: one."))
        .option(secs(
            "trash_secs",
            "0",
            "How long a deleted volume is kept in the pool's trash; 0: not at all.",
        ))
        .option(
            OptionSpec::new(
                "librbd_counters",
                OptionType::BOOLEAN,
                "Whether librbd's own counters are among the figures of volumes.",
            )
            .default_json("false"),
        );
    layout::describe(info)
}

impl Config {
    /// Refuses values that parse but make no sense.
    pub fn check(&self) -> Result<()> {
        for (key, text) in [("pool", &self.pool), ("user", &self.user)] {
            if text.is_empty() {
                return Err(invalid(format!("`{key}` must not be empty")));
            }
        }
        if self.trash_secs > 10 * 366 * 86_400 {
            return Err(invalid("`trash_secs` must be ten years at most")
                .with("trash_secs", self.trash_secs));
        }
        if self.keyring.is_some() && self.key.is_some() {
            return Err(
                invalid("`keyring` and `key` exclude each other").remedy("give one of them")
            );
        }
        if self.conf_file.is_none() && self.monitors.is_empty() {
            return Err(invalid("nothing says where the cluster is")
                .remedy("give `monitors` or `conf_file`"));
        }
        for (key, value) in [
            ("connect_timeout_secs", self.connect_timeout_secs),
            ("mon_op_timeout_secs", self.mon_op_timeout_secs),
            ("osd_op_timeout_secs", self.osd_op_timeout_secs),
        ] {
            if !(1..=86_400).contains(&value) {
                return Err(invalid(format!("`{key}` must be 1 to 86400")).with(key, value));
            }
        }
        Layout::of_backend(self).map(drop)
    }

    /// The largest volume, in bytes.
    #[cfg(librbd)]
    pub(crate) fn max_volume_size(&self) -> u64 {
        layout::max_size(self.object_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Result<()> {
        let mut options = serde_json::Map::new();
        for option in describe().options {
            if let driver_api::ROption::RSome(json) = option.default {
                let value = serde_json::from_str(&json).expect("JSON");
                options.insert(option.name.to_string(), value);
            }
        }
        options.insert("pool".into(), "rbd".into());
        options.insert("monitors".into(), vec!["127.0.0.1"].into());
        change(&mut options);
        let config: Config = serde_json::from_value(options.into()).expect("all known");
        config.check()
    }

    #[test]
    fn every_declared_default_is_parsed_and_makes_sense() {
        parsed(|_| {}).expect("defaults");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |key: &'static str, value: serde_json::Value| {
            parsed(|options| {
                options.insert(key.into(), value);
            })
            .is_err()
        };
        assert!(refused("pool", "".into()));
        assert!(refused("monitors", Vec::<String>::new().into()));
        assert!(refused("osd_op_timeout_secs", 0.into()));
        assert!(refused("object_size", 5000.into()));
        assert!(refused("stripe_unit", 65536.into()));
        assert!(refused("features", vec!["layering"].into()));
        assert!(refused("features", vec!["exclusive-lock", "magic"].into()));
    }

    #[test]
    fn the_key_is_not_printed() {
        let options = serde_json::json!({ "pool": "rbd", "monitors": ["m"], "key": "AQsecret" });
        let config: Config = serde_json::from_value(options).expect("known");
        assert!(!format!("{config:?}").contains("AQsecret"));
    }
}
