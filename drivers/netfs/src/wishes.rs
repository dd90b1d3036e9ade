// SPDX-License-Identifier: Apache-2.0
//! What a new volume shall be like: its own options, and what the backend's say of others.

use driver_api::{Result, VolumeSpec};

use crate::{
    config::Config,
    error::invalid,
    names::{Format, Layout},
};

/// What a new volume shall be like.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    /// On which share.
    pub share: Option<String>,
    /// In which format.
    pub format: Option<Format>,
    /// In how many files.
    pub layout: Option<Layout>,
    /// How long each is.
    pub extent_size: Option<u64>,
    /// Each run of this many bytes shall be apart if it costs nothing else; zero: no such wish.
    pub apart: u64,
}

impl Config {
    /// What `spec` asks for.
    pub(crate) fn wishes(spec: &VolumeSpec) -> Result<Wishes> {
        let mut wishes = Wishes { apart: spec.extent_size, ..Wishes::default() };
        for option in &spec.options {
            match (option.0.as_str(), option.1.as_str()) {
                ("share", name) => wishes.share = Some(name.to_owned()),
                ("format", "raw") => wishes.format = Some(Format::Raw),
                ("format", "qcow2") => wishes.format = Some(Format::Qcow2),
                ("format", other) => {
                    return Err(invalid(format!(
                        "`{other}` is no value for the volume option `format`"
                    ))
                    .remedy("use one of: raw, qcow2"));
                }
                ("layout", "whole") => wishes.layout = Some(Layout::Whole),
                ("layout", "extents") => wishes.layout = Some(Layout::Extents),
                ("layout", other) => {
                    return Err(invalid(format!(
                        "`{other}` is no value for the volume option `layout`"
                    ))
                    .remedy("use one of: whole, extents"));
                }
                ("extent_size", text) => {
                    let size = parse_size(text).unwrap_or(0);
                    check_extent_size(size).map_err(|error| error.with("given", text))?;
                    wishes.extent_size = Some(size);
                }
                (key, _) => {
                    return Err(invalid(format!("the volume option `{key}` is unknown"))
                        .with("volume", &spec.name)
                        .remedy("the options are `share`, `format`, `layout` and `extent_size`"));
                }
            }
        }
        Ok(wishes)
    }

    /// The format of a new volume, and how long its extents are; zero: it has none. `may_punch`: the share may free
    /// ranges of files.
    pub(crate) fn shape(&self, wishes: &Wishes, may_punch: bool) -> Result<(Format, u64)> {
        let format = wishes.format.unwrap_or(self.format);
        let layout = match (wishes.layout, wishes.format) {
            (Some(layout), _) => layout,
            // Who asks for an image does not mean what the backend makes of others.
            (None, Some(Format::Qcow2)) => Layout::Whole,
            (None, _) => match self.layout {
                Some(layout) => layout,
                // Nothing else gives space back on such a share.
                None if format == Format::Raw && !may_punch && wishes.extent_size.is_none() => {
                    return Ok((format, extent_size_for(wishes.apart)));
                }
                None => Layout::Whole,
            },
        };
        match (layout, format) {
            (Layout::Whole, _) if wishes.extent_size.is_some() => {
                Err(invalid("`extent_size` is for volumes in extents")
                    .remedy("say `layout=extents` as well"))
            }
            (Layout::Whole, _) => Ok((format, 0)),
            (Layout::Extents, Format::Qcow2) => Err(invalid("an image cannot be in extents")
                .remedy("use the format raw, or the layout whole")),
            (Layout::Extents, Format::Raw) => {
                Ok((format, wishes.extent_size.unwrap_or(self.extent_size)))
            }
        }
    }
}

/// Refuses a size that extents cannot have.
pub(crate) fn check_extent_size(size: u64) -> Result<()> {
    if size.is_power_of_two() && (1 << 20..=1 << 30).contains(&size) {
        return Ok(());
    }
    Err(invalid("`extent_size` must be a power of two, 1 MiB to 1 GiB").with("extent_size", size))
}

/// The longest that extents can be which keep runs of `apart` bytes apart; zero if there is none.
fn extent_size_for(apart: u64) -> u64 {
    let size = if apart == 0 { 0 } else { 1 << apart.trailing_zeros().min(30) };
    if check_extent_size(size).is_ok() { size } else { 0 }
}

/// Bytes, or so many KiB, MiB or GiB.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" => 0,
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::parsed;

    #[test]
    fn a_volume_says_in_how_many_files_it_is() {
        let shape = |backend: Value, options: &[(&str, &str)]| {
            let mut spec = VolumeSpec::new("v", 1);
            for (key, value) in options {
                spec = spec.option(key, value);
            }
            let wishes = Config::wishes(&spec);
            wishes.and_then(|wishes| parsed(backend).expect("known").shape(&wishes, true))
        };
        let (whole, extents) = (json!({}), json!({ "layout": "extents", "extent_size": 1 << 20 }));
        let told = |backend: &Value, options: &[(&str, &str)]| {
            shape(backend.clone(), options).expect("a shape")
        };
        assert_eq!(told(&whole, &[]), (Format::Raw, 0));
        assert_eq!(told(&whole, &[("layout", "extents")]), (Format::Raw, 64 << 20));
        assert_eq!(
            told(&whole, &[("layout", "extents"), ("extent_size", "2MiB")]),
            (Format::Raw, 2 << 20)
        );
        assert_eq!(told(&extents, &[]), (Format::Raw, 1 << 20));
        assert_eq!(told(&extents, &[("layout", "whole")]), (Format::Raw, 0));
        assert_eq!(told(&extents, &[("format", "qcow2")]), (Format::Qcow2, 0));
        for bad in [
            &[("layout", "extents"), ("format", "qcow2")][..],
            &[("layout", "other")],
            &[("extent_size", "1MiB")],
            &[("layout", "extents"), ("extent_size", "3MiB")],
        ] {
            assert!(shape(whole.clone(), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn runs_are_kept_apart_where_nothing_else_gives_space_back() {
        let shape = |backend: Value, apart: u64, may_punch: bool| {
            let spec = VolumeSpec { extent_size: apart, ..VolumeSpec::new("brick", 1) };
            let wishes = Config::wishes(&spec).expect("no options");
            parsed(backend).expect("known").shape(&wishes, may_punch).expect("a shape")
        };
        let apart = |apart| shape(json!({}), apart, false).1;
        assert_eq!((apart(0), apart(1 << 20), apart(64 << 20)), (0, 1 << 20, 64 << 20));
        assert_eq!((apart(48 << 20), apart(8 << 30)), (16 << 20, 1 << 30));
        assert_eq!(apart((1 << 20) + 4096), 0, "no extent is that short");
        assert_eq!(shape(json!({}), 1 << 20, true), (Format::Raw, 0));
        assert_eq!(shape(json!({ "layout": "whole" }), 1 << 20, false), (Format::Raw, 0));
        let own = json!({ "layout": "extents", "extent_size": 2 << 20 });
        assert_eq!(shape(own, 1 << 20, false), (Format::Raw, 2 << 20));
        assert_eq!(shape(json!({ "format": "qcow2" }), 1 << 20, false), (Format::Qcow2, 0));
    }
}
