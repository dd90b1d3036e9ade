// SPDX-License-Identifier: Apache-2.0
//! Options of a volume that say when its writes are acknowledged, what its readers see, and what follows from that.

use distributed_core::{Configuration, Mode, Settings};
use driver_api::{Error, ErrorKind, OptionSpec, OptionType, Result, ext};
use serde::{Deserialize, Serialize};

use super::{Chosen, Config, Consistency, WhenShort, parse_size};

/// Options that can be changed while the volume is in use, at once.
pub(super) const CHANGEABLE: &[&str] = &[
    "synchronous_replication",
    "consistency_protocol",
    "min_in_sync",
    "shortage",
    "most_behind",
    "most_behind_secs",
];

/// Bounds of a volume; what is absent is the backend's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Bounds {
    /// See [`Config::min_in_sync`].
    #[serde(default)]
    pub min_in_sync: Option<u32>,
    /// See [`Config::shortage`].
    #[serde(default)]
    pub shortage: Option<WhenShort>,
    /// See [`Config::most_behind`].
    #[serde(default)]
    pub most_behind: Option<u64>,
    /// See [`Config::most_behind_secs`].
    #[serde(default)]
    pub most_behind_secs: Option<u64>,
}

impl Bounds {
    /// Sets an option; `None` for one that is none of these, or a value that does not fit.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "min_in_sync" => self.min_in_sync = Some(value.parse().ok()?),
            "shortage" => self.shortage = Some(serde_json::from_value(value.into()).ok()?),
            "most_behind" => self.most_behind = Some(parse_size(value)?),
            "most_behind_secs" => self.most_behind_secs = Some(value.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

impl From<Consistency> for ext::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Strong => Self::STRONG,
            Consistency::Causal => Self::CAUSAL,
            Consistency::Eventual => Self::EVENTUAL,
        }
    }
}

impl Chosen {
    /// When its writes are to be acknowledged.
    pub fn mode(&self) -> Mode {
        if self.synchronous { Mode::Synchronous } else { Mode::Asynchronous }
    }

    /// What the core is told of the volume's attachment.
    pub fn settings(&self, config: &Config) -> Settings {
        let wanted = self.configuration(config);
        Settings {
            min_in_sync: wanted.min_in_sync,
            shortage: wanted.shortage,
            most_behind_bytes: wanted.most_behind_bytes,
            most_behind_ns: wanted.most_behind_ns,
            ..config.settings()
        }
    }

    /// How the volume is to behave.
    pub fn configuration(&self, config: &Config) -> Configuration {
        let Bounds { min_in_sync, shortage, most_behind, most_behind_secs } = self.bounds;
        Configuration {
            mode: self.mode(),
            acknowledging: None,
            min_in_sync: min_in_sync.unwrap_or(config.min_in_sync),
            shortage: shortage.unwrap_or(config.shortage).into(),
            most_behind_bytes: most_behind.unwrap_or(config.most_behind),
            most_behind_ns: most_behind_secs
                .unwrap_or(config.most_behind_secs)
                .saturating_mul(1_000_000_000),
        }
    }

    /// Refuses what contradicts itself.
    pub(super) fn check_replication(&self) -> Result<()> {
        let refuse = |option: &str, why: &str, remedy: &str| {
            let error = Error::new(ErrorKind::INVALID_ARGUMENT, why.to_owned());
            Err(error.with("option", option).remedy(remedy.to_owned()))
        };
        if !self.synchronous && self.replication_factor < 2 {
            return refuse(
                "synchronous_replication",
                "an asynchronous volume has somebody who follows, and this one has a single replica",
                "choose a replication_factor of 2 or more, or synchronous_replication=true",
            );
        }
        let Bounds { min_in_sync, most_behind, most_behind_secs, .. } = self.bounds;
        if min_in_sync == Some(0) {
            return refuse("min_in_sync", "a write needs a replica", "choose 1 or more");
        }
        if min_in_sync.is_some_and(|least| least > self.replication_factor) {
            return refuse(
                "min_in_sync",
                "no write could ever begin: the volume has fewer replicas",
                "choose no more than the replication_factor",
            );
        }
        if most_behind == Some(0) || most_behind_secs == Some(0) {
            return refuse(
                "most_behind",
                "nobody follows without ever being behind",
                "choose a bound, such as most_behind=64MiB and most_behind_secs=5, or synchronous_replication=true",
            );
        }
        Ok(())
    }
}

/// The options of a volume.
pub(super) fn volume_options() -> [OptionSpec; 4] {
    [
        OptionSpec::new(
            "min_in_sync",
            OptionType::INTEGER,
            "Replicas that must be in sync, or follow, for a write to begin; default: the backend's.",
        ),
        OptionSpec::new(
            "shortage",
            OptionType::CHOICE,
            "What a write does while fewer are: fail, or wait; default: the backend's.",
        )
        .choices(&["read_only", "wait"]),
        OptionSpec::new(
            "most_behind",
            OptionType::SIZE,
            "Asynchronous: bytes that replicas may be behind; default: the backend's.",
        ),
        OptionSpec::new(
            "most_behind_secs",
            OptionType::INTEGER,
            "Asynchronous: seconds that replicas may be behind; default: the backend's.",
        ),
    ]
}

/// The options of the backend.
pub(super) fn options() -> [OptionSpec; 2] {
    [
        OptionSpec::new(
            "most_behind",
            OptionType::SIZE,
            "Bytes of writes that the replicas of an asynchronous volume may be behind; then writes wait.",
        )
        .default_json("67108864"),
        OptionSpec::new(
            "most_behind_secs",
            OptionType::INTEGER,
            "Seconds that the replicas of an asynchronous volume may be behind; then writes wait.",
        )
        .default_json("5"),
    ]
}

#[cfg(test)]
#[path = "replication_tests.rs"]
mod tests;
