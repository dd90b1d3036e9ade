// SPDX-License-Identifier: Apache-2.0
//! How the objects of a new image are laid out: as the backend says, or as the volume's own options say.
// A driver without librbd only checks what the backend's options say.
#![cfg_attr(not(librbd), allow(dead_code))]

use driver_api::{DriverInfo, OptionSpec, OptionType, Result, VolumeSpec};

use crate::{config::Config, error::invalid};

/// Names and bits of the features that images may be given.
const FEATURES: [(&str, u64); 5] = [
    ("layering", 1),
    ("exclusive-lock", crate::EXCLUSIVE_LOCK),
    ("object-map", 1 << 3),
    ("fast-diff", 1 << 4),
    ("deep-flatten", 1 << 5),
];

/// Which feature is nothing without which other.
const NEEDS: [(&str, &str); 2] = [("object-map", "fast-diff"), ("fast-diff", "object-map")];

/// Objects that an object map can describe.
const MOST_OBJECTS: u64 = 256_000_000;
const OBJECT_SIZES: std::ops::RangeInclusive<u64> = 4096..=32 << 20;
const SMALLEST_STRIPE: u64 = 512;
const MOST_STRIPES: u64 = 1024;

/// A layout. Stripes of one object each are `object_size` by 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub object_size: u64,
    pub stripe_unit: u64,
    pub stripe_count: u64,
    /// Empty for the pool of the images.
    pub data_pool: String,
    /// As librbd counts them.
    pub features: u64,
}

/// Declares the options that volumes take at create.
pub(crate) fn describe(info: DriverInfo) -> DriverInfo {
    let text = |name, help| OptionSpec::new(name, OptionType::TEXT, help);
    info.volume_option(text(
        "object_size",
        "Bytes of an object, such as 8MiB: a power of two from 4 KiB to 32 MiB; default: the backend's.",
    ))
    .volume_option(text(
        "stripe_unit",
        "Bytes of a stripe, such as 64KiB, together with stripe_count; default: the backend's.",
    ))
    .volume_option(OptionSpec::new(
        "stripe_count",
        OptionType::INTEGER,
        "Objects that it is striped over; default: the backend's.",
    ))
    .volume_option(text("data_pool", "The pool of its data; default: the backend's."))
    .volume_option(text(
        "features",
        "Its features, separated by commas; default: the backend's.",
    ))
}

impl Layout {
    /// What the backend's options say.
    pub fn of_backend(config: &Config) -> Result<Self> {
        let features = config.features.iter().map(String::as_str);
        Self {
            object_size: config.object_size,
            stripe_unit: config.stripe_unit,
            stripe_count: config.stripe_count,
            data_pool: config.data_pool.clone(),
            features: feature_bits(features)?,
        }
        .checked()
    }

    /// What a new volume's options say, and the backend's where they are silent.
    pub fn of_volume(config: &Config, spec: &VolumeSpec) -> Result<Self> {
        let mut layout = Self::of_backend(config)?;
        let (mut unit, mut count) = (config.stripe_unit, config.stripe_count);
        for option in &spec.options {
            let (key, value) = (option.0.as_str(), option.1.as_str());
            match key {
                "object_size" => layout.object_size = bytes(key, value)?,
                "stripe_unit" => unit = bytes(key, value)?,
                "stripe_count" => count = number(key, value)?,
                "data_pool" => layout.data_pool = value.to_owned(),
                "features" => {
                    let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                    layout.features = feature_bits(names)?;
                }
                _ => {
                    return Err(invalid(format!("the volume option `{key}` is unknown"))
                        .with("volume", &spec.name)
                        .remedy("the options are `object_size`, `stripe_unit`, `stripe_count`, `data_pool` and `features`"));
                }
            }
        }
        (layout.stripe_unit, layout.stripe_count) = (unit, count);
        layout.checked().map_err(|error| error.with("volume", &spec.name))
    }

    /// Refuses what makes no sense; no stripes become stripes of one object.
    fn checked(mut self) -> Result<Self> {
        if !self.object_size.is_power_of_two() || !OBJECT_SIZES.contains(&self.object_size) {
            return Err(invalid("`object_size` must be a power of two from 4 KiB to 32 MiB")
                .with("object_size", self.object_size)
                .remedy("write 4MiB, for instance"));
        }
        if (self.stripe_unit == 0) != (self.stripe_count == 0) {
            return Err(
                invalid("`stripe_unit` and `stripe_count` go together").remedy("give both or none")
            );
        }
        if self.stripe_unit == 0 {
            (self.stripe_unit, self.stripe_count) = (self.object_size, 1);
        }
        if !self.stripe_unit.is_power_of_two()
            || !(SMALLEST_STRIPE..=self.object_size).contains(&self.stripe_unit)
        {
            return Err(invalid("`stripe_unit` must be a power of two from 512 to `object_size`")
                .with("stripe_unit", self.stripe_unit)
                .with("object_size", self.object_size)
                .remedy("write 64KiB, for instance; 0 for it and `stripe_count`: no stripes"));
        }
        if self.stripe_count > MOST_STRIPES {
            return Err(invalid(format!("`stripe_count` must be 1 to {MOST_STRIPES}"))
                .with("stripe_count", self.stripe_count));
        }
        if self.features & crate::EXCLUSIVE_LOCK == 0 {
            return Err(invalid("`features` lacks exclusive-lock, which keeps other writers away")
                .remedy("add it"));
        }
        for (name, needed) in NEEDS {
            if self.features & bit(name) != 0 && self.features & bit(needed) == 0 {
                return Err(invalid(format!("the feature {name} goes with {needed}"))
                    .remedy("name both in `features`, or none"));
            }
        }
        Ok(self)
    }

    /// Whether it spreads what is written over several objects.
    pub fn is_striped(&self) -> bool {
        self.stripe_count > 1 || self.stripe_unit != self.object_size
    }

    /// The layout's part that an image may have besides others.
    pub fn features_of(all: u64) -> u64 {
        all & FEATURES.iter().fold(0, |bits, (_, bit)| bits | bit)
    }
}

/// The largest image with objects of this size, in bytes.
pub(crate) fn max_size(object_size: u64) -> u64 {
    object_size.saturating_mul(MOST_OBJECTS)
}

/// The names of features, from their bits.
pub(crate) fn feature_names(bits: u64) -> String {
    let named = FEATURES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name);
    named.collect::<Vec<_>>().join(",")
}

fn bit(name: &str) -> u64 {
    FEATURES.iter().find(|(known, _)| *known == name).map_or(0, |(_, bit)| *bit)
}

fn feature_bits<'n>(names: impl Iterator<Item = &'n str>) -> Result<u64> {
    let mut bits = 0;
    for name in names {
        if bit(name) == 0 {
            let all = FEATURES.map(|(name, _)| name).join(", ");
            let why = format!("`{name}` is no feature that this driver gives images");
            return Err(invalid(why).remedy(format!("choose among: {all}")));
        }
        bits |= bit(name);
    }
    Ok(bits)
}

fn number(key: &str, value: &str) -> Result<u64> {
    value.parse().map_err(|_| {
        invalid(format!("`{value}` is no value for the volume option `{key}`"))
            .remedy("write a whole number, such as 4")
    })
}

fn bytes(key: &str, value: &str) -> Result<u64> {
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &value[digits.len()..] {
        "" | "B" => Some(1),
        "K" | "KiB" => Some(1 << 10),
        "M" | "MiB" => Some(1 << 20),
        "G" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(unit).and_then(|(many, of)| many.checked_mul(of));
    bytes.ok_or_else(|| {
        invalid(format!("`{value}` is no value for the volume option `{key}`"))
            .remedy("write bytes, such as 65536, 64KiB or 4MiB")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let options = serde_json::json!({ "pool": "rbd", "monitors": ["m"] });
        serde_json::from_value(options).expect("known")
    }

    fn wanted(options: &[(&str, &str)]) -> Result<Layout> {
        let spec = VolumeSpec::new("v", 512);
        let spec = options.iter().fold(spec, |spec, (key, value)| spec.option(key, value));
        Layout::of_volume(&config(), &spec)
    }

    #[test]
    fn a_volumes_options_come_before_the_backends() {
        let layout = wanted(&[]).expect("the backend's");
        assert_eq!(Layout::of_backend(&config()).expect("defaults"), layout);
        assert_eq!((layout.stripe_unit, layout.stripe_count), (4 << 20, 1));
        let options = [("object_size", "8MiB"), ("stripe_unit", "65536"), ("stripe_count", "4")];
        let layout = wanted(&options).expect("sensible");
        assert_eq!(
            (layout.object_size, layout.stripe_unit, layout.stripe_count),
            (8 << 20, 65536, 4)
        );
        let layout = wanted(&[("features", "layering, exclusive-lock")]).expect("sensible");
        assert_eq!(layout.features, 5);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_remedy() {
        for options in [
            &[("object_size", "5MiB")][..],
            &[("object_size", "64MiB")],
            &[("object_size", "big")],
            &[("object_size", "99999999999GiB")],
            &[("stripe_unit", "64KiB")],
            &[("stripe_unit", "3000"), ("stripe_count", "2")],
            &[("stripe_unit", "8MiB"), ("stripe_count", "2")],
            &[("stripe_unit", "64KiB"), ("stripe_count", "-1")],
            &[("stripe_unit", "64KiB"), ("stripe_count", "5000")],
            &[("features", "layering")],
            &[("features", "exclusive-lock,object-map")],
            &[("features", "exclusive-lock,journaling")],
            &[("colour", "red")],
        ] {
            let error = wanted(options).expect_err("refused");
            assert_eq!(error.kind(), driver_api::ErrorKind::INVALID_ARGUMENT, "{options:?}");
        }
    }
}
