// SPDX-License-Identifier: Apache-2.0
//! Options of the driver, and of a volume at creation.

mod described;
mod healing;
mod replication;

use std::{path::PathBuf, time::Duration};

use distributed_core::{HealingPace, Policy, Settings, Shortage};
use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, de};

pub(crate) use self::described::describe;
pub use self::{healing::Pace, replication::Bounds};
use crate::sharding::Pattern;

/// The options of `[backends.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Names the installation for the operator; the driver keeps nothing there.
    pub root_dir: PathBuf,
    /// Most replica bytes that volumes may provision; zero: unlimited.
    pub max_capacity: u64,
    /// Replicas of a volume that names no number.
    pub default_replication_factor: u32,
    /// Whether volumes are encrypted: not yet.
    pub default_encryption: bool,
    /// Whether volumes are cut into shards; otherwise each is one shard.
    pub enable_sharding: bool,
    /// Bytes of a shard of a volume that names no size; none: see [`Pattern::shard_size`].
    #[serde(default)]
    pub shard_size: Option<u64>,
    /// What readers see of a volume that names no level.
    pub consistency_protocol: Consistency,
    /// Health checks in a row that a node has to fail before it counts as down.
    pub healing_query_count: u32,
    /// Time between two health checks of a node.
    #[serde(deserialize_with = "duration")]
    pub health_check_interval: Duration,
    /// For how long a node is down until it is lost: until its shards are to be replicated elsewhere.
    #[serde(deserialize_with = "duration")]
    pub down_grace: Duration,
    /// Whether volumes are rebalanced by themselves when nodes come, go or change weight.
    pub auto_rebalance: bool,
    /// Whom the healing of a volume favours that does not say.
    pub healing_pace: Pace,
    /// Time between two rounds of healing.
    #[serde(deserialize_with = "duration")]
    pub healing_interval: Duration,
    /// Whether writes are acknowledged when every in-sync replica has them.
    pub synchronous_replication: bool,
    /// How a volume that names no policy is spread over nodes.
    pub placement: Placement,
    /// Backends to be registered as nodes when this one is opened.
    pub nodes: Vec<String>,
    /// Replicas of a shard that must be in sync for a write to begin.
    pub min_in_sync: u32,
    /// What a write does while there are fewer.
    pub shortage: WhenShort,
    /// Time between two scrubs of a volume that names none; zero: none begins by itself.
    #[serde(deserialize_with = "interval")]
    pub scrub_interval: Duration,
    /// Whether reads of volumes that do not say are answered only if two replicas agree.
    pub verify_reads: bool,
    /// Bytes that replicas of an asynchronous volume may be behind.
    pub most_behind: u64,
    /// Seconds that replicas of an asynchronous volume may be behind.
    pub most_behind_secs: u64,
    /// After this time a replica that does not answer is given up; the operation stays dangerous.
    pub io_timeout_secs: u64,
}

/// What readers see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Any replica at a consistent point.
    Eventual,
    /// Every reader sees the latest acknowledged write.
    Strong,
    /// A session never reads older than what it wrote or saw.
    Causal,
}

impl Consistency {
    /// Its name among the options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Strong => "strong",
            Self::Causal => "causal",
        }
    }
}

/// What a write does while too few replicas are in sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenShort {
    /// It fails.
    ReadOnly,
    /// It waits.
    Wait,
}

impl From<WhenShort> for Shortage {
    fn from(shortage: WhenShort) -> Self {
        match shortage {
            WhenShort::ReadOnly => Self::ReadOnly,
            WhenShort::Wait => Self::Wait,
        }
    }
}

/// How a volume's shards are spread over nodes: the core's [`Policy`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// See [`Policy::Balanced`].
    #[default]
    Balanced,
    /// See [`Policy::Random`].
    Random,
    /// See [`Policy::Locality`].
    Locality,
    /// See [`Policy::Zone`].
    Zone,
}

impl From<Placement> for Policy {
    fn from(placement: Placement) -> Self {
        match placement {
            Placement::Balanced => Self::Balanced,
            Placement::Random => Self::Random,
            Placement::Locality => Self::Locality,
            Placement::Zone => Self::Zone,
        }
    }
}

impl Placement {
    /// Its name among the options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Random => "random",
            Self::Locality => "locality",
            Self::Zone => "zone",
        }
    }
}

const PLACEMENTS: &[&str] = &["balanced", "random", "locality", "zone"];
const CONSISTENCIES: &[&str] = &["eventual", "strong", "causal"];

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "`{text}` is no time: write a number with a unit, such as 30s, 1m or 1h"
        ))
    })
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_interval(&text).ok_or_else(|| {
        de::Error::custom(format!(
            "`{text}` is no time: write 7d or 12h, for example, or 0s for never"
        ))
    })
}

/// A time that may be zero, or days.
fn parse_interval(text: &str) -> Option<Duration> {
    if let Some(days) = text.strip_suffix('d') {
        return days.trim().parse::<u64>().ok()?.checked_mul(86_400).map(Duration::from_secs);
    }
    let is_zero = |number: &str| number.trim().parse() == Ok(0_u64);
    if text.strip_suffix('s').is_some_and(is_zero) {
        return Some(Duration::ZERO);
    }
    parse_duration(text)
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let millis = number.parse::<u64>().ok()?.checked_mul(millis)?;
    (millis > 0).then(|| Duration::from_millis(millis))
}

/// Names that are separated by commas.
fn names(text: &str) -> Vec<String> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bytes: u64 = match unit.trim() {
        "" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

impl Config {
    /// Refuses what no volume could be made with.
    ///
    /// # Errors
    /// The first option that does not fit, and what would.
    pub fn check(&self) -> Result<()> {
        let refuse = |option: &str, why: &str, remedy: &str| {
            let error = Error::new(ErrorKind::INVALID_ARGUMENT, why.to_owned());
            Err(error.with("option", option).remedy(remedy.to_owned()))
        };
        if self.default_encryption {
            return refuse(
                "default_encryption",
                "this version cannot encrypt distributed volumes",
                "set default_encryption = false, and encrypt below (the nodes' disks) or above (in the guest)",
            );
        }
        if self.default_replication_factor == 0 {
            return refuse(
                "default_replication_factor",
                "a volume has at least one replica",
                "set 1 or more",
            );
        }
        if self.shard_size.is_some_and(|size| size == 0 || !size.is_multiple_of(SHARD_UNIT)) {
            return refuse(
                "shard_size",
                "a shard is a multiple of 1 MiB, and not empty",
                "set \"64MiB\", for example",
            );
        }
        if self.healing_query_count == 0 {
            return refuse("healing_query_count", "a node cannot fail no check", "set 1 or more");
        }
        if self.io_timeout_secs == 0 {
            return refuse("io_timeout_secs", "no replica answers in no time", "set 1 or more");
        }
        if self.most_behind == 0 || self.most_behind_secs == 0 {
            return refuse(
                "most_behind",
                "nobody follows without ever being behind",
                "set most_behind and most_behind_secs to more than 0",
            );
        }
        if self.min_in_sync == 0 {
            return refuse(
                "min_in_sync",
                "a write needs a replica that is in sync",
                "set 1 or more",
            );
        }
        Ok(())
    }

    /// How long a replica may take to answer.
    pub fn io_timeout(&self) -> Duration {
        Duration::from_secs(self.io_timeout_secs)
    }

    /// What the core is told of a volume's attachment.
    pub fn settings(&self) -> Settings {
        Settings {
            min_in_sync: self.min_in_sync,
            shortage: self.shortage.into(),
            ..Settings::default()
        }
    }
}

/// Shards are multiples of this, in bytes.
const SHARD_UNIT: u64 = 1 << 20;

/// Options of a volume that can be changed after its creation.
const CHANGEABLE: &[&str] = &[
    "replication_factor",
    "placement",
    "nodes",
    "drivers",
    "shard_size",
    "pattern",
    "scrub_interval",
    "verify_reads",
    "healing_pace",
];
/// A shard size that the driver is to choose.
const AUTOMATIC: &str = "auto";

fn unfit(option: &str, value: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, format!("`{value}` does not fit the option"))
        .with("option", option)
        .remedy("look at the driver's options: novastor driver show distributed")
}

/// What a volume is created with, and stored beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chosen {
    /// Replicas of each shard.
    pub replication_factor: u32,
    /// Bytes of a shard.
    pub shard_size: u64,
    /// What readers see.
    pub consistency: Consistency,
    /// Whether every in-sync replica has a write when it is acknowledged.
    pub synchronous: bool,
    /// Nodes that may hold it; empty: all.
    pub nodes: Vec<String>,
    /// Drivers of the nodes that may hold it; empty: any.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// How it is spread over them.
    #[serde(default)]
    pub placement: Placement,
    /// How clients use it.
    #[serde(default)]
    pub pattern: Pattern,
    /// Seconds between two scrubs; zero: none begins by itself.
    #[serde(default)]
    pub scrub_interval_secs: u64,
    /// Whether a read is answered only if two replicas agree.
    #[serde(default)]
    pub verify_reads: bool,
    /// How far replicas may be behind, and how few may be there.
    #[serde(default)]
    pub bounds: Bounds,
    /// Whom its healing favours; absent: as the backend says.
    #[serde(default)]
    pub healing_pace: Option<Pace>,
}

impl Chosen {
    /// The choices for a new volume of `size` bytes: its own options, else the backend's.
    ///
    /// # Errors
    /// When an option does not fit, or asks for what this version cannot do.
    pub fn new(config: &Config, size: u64, options: &[(String, String)]) -> Result<Self> {
        let mut chosen = Self {
            replication_factor: config.default_replication_factor,
            shard_size: 0,
            consistency: config.consistency_protocol,
            synchronous: config.synchronous_replication,
            nodes: Vec::new(),
            drivers: Vec::new(),
            placement: config.placement,
            pattern: Pattern::default(),
            scrub_interval_secs: config.scrub_interval.as_secs(),
            verify_reads: config.verify_reads,
            bounds: Bounds::default(),
            healing_pace: None,
        };
        chosen.take(config, size, options)?;
        if !options.iter().any(|(key, _)| key == "shard_size") {
            chosen.shard_size = chosen.usual_shard_size(config, size);
        }
        chosen.check()?;
        Ok(chosen)
    }

    /// Whom its healing favours.
    pub fn pace(&self, config: &Config) -> HealingPace {
        self.healing_pace.unwrap_or(config.healing_pace).into()
    }

    /// Bytes of a shard of a volume of `size` bytes that names none.
    fn usual_shard_size(&self, config: &Config, size: u64) -> u64 {
        if !config.enable_sharding {
            return size.max(1).next_multiple_of(SHARD_UNIT);
        }
        config.shard_size.unwrap_or_else(|| self.pattern.shard_size(size))
    }

    fn take(&mut self, config: &Config, size: u64, options: &[(String, String)]) -> Result<()> {
        for (key, value) in options {
            self.set(key, value).ok_or_else(|| unfit(key, value))?;
        }
        // After the pattern, wherever that stands.
        let automatic = |(key, value): &(String, String)| key == "shard_size" && value == AUTOMATIC;
        if options.iter().any(automatic) {
            self.shard_size = self.usual_shard_size(config, size);
        }
        Ok(())
    }

    /// The choices with these options changed, for a volume of `size` bytes.
    ///
    /// # Errors
    /// When an option does not fit, or belongs to the volume since its creation.
    pub fn changed(
        &self,
        config: &Config,
        size: u64,
        options: &[(String, String)],
    ) -> Result<Self> {
        let mut chosen = self.clone();
        for (key, _) in options {
            let changeable = [CHANGEABLE, replication::CHANGEABLE].concat();
            if !changeable.contains(&key.as_str()) {
                return Err(Error::new(
                    ErrorKind::INVALID_ARGUMENT,
                    format!("the option `{key}` of a volume cannot be changed"),
                )
                .with("option", key)
                .remedy(format!("these can: {}", changeable.join(", "))));
            }
        }
        chosen.take(config, size, options)?;
        if chosen.replication_factor == 0 {
            return Err(unfit("replication_factor", "0"));
        }
        chosen.check()?;
        Ok(chosen)
    }

    /// Whether an option has this value.
    pub fn is_so(&self, key: &str, value: &str) -> bool {
        let mut same = self.clone();
        same.set(key, value).is_some() && same == *self
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "replication_factor" => self.replication_factor = value.parse().ok()?,
            "shard_size" if value == AUTOMATIC => {}
            "shard_size" => self.shard_size = parse_size(value)?,
            "pattern" => self.pattern = serde_json::from_value(value.into()).ok()?,
            "synchronous_replication" => self.synchronous = value.parse().ok()?,
            "consistency_protocol" => {
                self.consistency = serde_json::from_value(value.into()).ok()?;
            }
            "nodes" => self.nodes = names(value),
            "drivers" => self.drivers = names(value),
            "scrub_interval" => self.scrub_interval_secs = parse_interval(value)?.as_secs(),
            "verify_reads" => self.verify_reads = value.parse().ok()?,
            "healing_pace" => {
                self.healing_pace = Some(serde_json::from_value(value.into()).ok()?);
            }
            "placement" => self.placement = serde_json::from_value(value.into()).ok()?,
            _ => self.bounds.set(key, value)?,
        }
        Some(())
    }

    fn check(&self) -> Result<()> {
        self.check_replication()?;
        if self.shard_size == 0 || !self.shard_size.is_multiple_of(SHARD_UNIT) {
            let error = Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "a shard is a multiple of 1 MiB, and not empty",
            );
            return Err(error
                .with("shard_size", self.shard_size)
                .remedy("choose 64MiB, for example"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_units() {
        assert_eq!(parse_size("1048576"), Some(1 << 20));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        for bad in ["", "MiB", "64MB", "-1", "99999999999999999999", "99999999999TiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    fn config(more: serde_json::Value) -> Config {
        let mut options = serde_json::Map::new();
        for option in &describe().options {
            if let driver_api::ROption::RSome(default) = &option.default {
                options.insert(option.name.to_string(), serde_json::from_str(default).unwrap());
            }
        }
        options.insert("synchronous_replication".to_owned(), true.into());
        options.extend(more.as_object().cloned().unwrap_or_default());
        serde_json::from_value(options.into()).unwrap()
    }

    fn shard_size(config: &Config, size: u64, options: &[(&str, &str)]) -> u64 {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let options: Vec<_> = options.iter().map(text).collect();
        Chosen::new(config, size, &options).unwrap().shard_size
    }

    #[test]
    fn shards_are_as_large_as_somebody_says_or_as_the_volume_asks_for() {
        let plain = config(serde_json::json!({}));
        assert_eq!(shard_size(&plain, 64 << 30, &[]), 64 << 20);
        assert_eq!(shard_size(&plain, 64 << 30, &[("pattern", "random")]), 16 << 20);
        assert_eq!(shard_size(&plain, 64 << 30, &[("shard_size", "3MiB")]), 3 << 20);
        let late = [("shard_size", "auto"), ("pattern", "sequential")];
        assert_eq!(shard_size(&plain, 64 << 30, &late), 256 << 20);
        let named = config(serde_json::json!({ "shard_size": 32 << 20 }));
        assert_eq!(shard_size(&named, 64 << 30, &[("pattern", "random")]), 32 << 20);
        let whole = config(serde_json::json!({ "enable_sharding": false }));
        assert_eq!(shard_size(&whole, (5 << 30) + 1, &[]), (5 << 30) + (1 << 20));
        for bad in ["0", "1000", "huge"] {
            let options = [("shard_size".to_owned(), bad.to_owned())];
            assert!(Chosen::new(&plain, 1 << 30, &options).is_err(), "{bad}");
        }
    }

    #[test]
    fn another_pattern_alone_leaves_the_shards() {
        let plain = config(serde_json::json!({}));
        let before = Chosen::new(&plain, 64 << 30, &[]).unwrap();
        let pattern = ("pattern".to_owned(), "random".to_owned());
        let after = before.changed(&plain, 64 << 30, std::slice::from_ref(&pattern)).unwrap();
        assert_eq!((after.shard_size, after.pattern), (64 << 20, Pattern::Random));
        let automatic = ("shard_size".to_owned(), "auto".to_owned());
        let after = before.changed(&plain, 64 << 30, &[automatic, pattern]).unwrap();
        assert_eq!(after.shard_size, 16 << 20);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("1m"), Some(Duration::from_secs(60)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for bad in ["", "60", "m", "-1s", "1d", "0s", "99999999999999999999s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
