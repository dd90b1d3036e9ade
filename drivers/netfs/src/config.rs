// SPDX-License-Identifier: Apache-2.0
//! The backend's options: declared once, parsed here.
//!
//! What a share needs may be said for the backend as a whole, and differently in an entry of `shares`. A [`Place`] is
//! what comes of both: all that is needed to mount one share, so that more can be added while the backend is open.

use std::{fmt, time::Duration};

use driver_api::{DriverInfo, OptionSpec, OptionType, Result};
use serde::Deserialize;

use crate::{
    error::invalid,
    names::{self, FileName, Format, Layout},
    share::Offers,
    wishes::{Wishes, check_extent_size},
};

/// How a share is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// NFS, in user space.
    #[default]
    Nfs,
    /// SMB, in user space.
    Smb,
    /// A directory where the kernel has something mounted.
    Kernel,
}

impl Protocol {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nfs => "nfs",
            Self::Smb => "smb",
            Self::Kernel => "kernel",
        }
    }

    /// The versions there are, the best first.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Nfs => &["4.2", "4.1", "4.0", "3"],
            Self::Smb => &["3.1.1", "3.0.2", "3.0", "2.1"],
            Self::Kernel => &[],
        }
    }
}

/// The options of `[backends.NAME]` with `driver = "netfs"`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What holds for every share that says nothing else.
    #[serde(flatten)]
    pub common: ShareOptions,
    /// Who logs in.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<String>,
    /// In which domain.
    #[serde(default)]
    pub domain: String,
    /// The shares; none: the one that the options of the backend describe.
    #[serde(default)]
    pub shares: Vec<NamedShare>,
    /// The format of new volumes that name none.
    #[serde(default)]
    pub format: Format,
    /// In how many files new volumes are that do not say so; none: in one, but for those whose runs shall be kept apart
    /// on a share that frees no ranges.
    #[serde(default)]
    pub layout: Option<Layout>,
    /// How long the extents are of new volumes that do not say so.
    #[serde(default = "default_extent_size")]
    pub extent_size: u64,
    /// How long mounting may take.
    #[serde(default = "default_mount_timeout")]
    pub mount_timeout_secs: u64,
    /// How long an operation may take, with all that is repeated.
    #[serde(default = "default_operation_timeout")]
    pub operation_timeout_secs: u64,
    /// How long a server may be silent while something is asked of it.
    #[serde(default = "default_silence")]
    pub silence_timeout_secs: u64,
    /// After how long without use a share is unmounted.
    #[serde(default = "default_idle")]
    pub idle_unmount_secs: u64,
    /// How often a mount in use is asked whether it lives.
    #[serde(default = "default_keep_alive")]
    pub keep_alive_secs: u64,
    /// Most bytes of a volume that are written but not durable.
    #[serde(default = "default_unstable")]
    pub unstable_bytes: u64,
}

/// A share with a name of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedShare {
    /// The name in `share:path/volume`.
    pub name: String,
    /// What it does not have in common with the others.
    #[serde(flatten)]
    pub own: ShareOptions,
}

/// What describes a share.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ShareOptions {
    /// How it is reached.
    pub protocol: Option<Protocol>,
    /// Which versions may be used, the first that the server has.
    pub versions: Option<Vec<String>>,
    /// The lowest version that may be used.
    pub min_protocol: Option<String>,
    /// Whether everything must travel encrypted.
    pub require_encryption: Option<bool>,
    /// The server's name or address.
    pub server: Option<String>,
    /// The export, the share's name, or the directory.
    pub share: Option<String>,
    /// The directory in it.
    pub path: Option<String>,
    /// The service's port.
    pub port: Option<u16>,
    /// The MOUNT service's port.
    pub mount_port: Option<u16>,
    /// As which user.
    pub uid: Option<u32>,
    /// As which group.
    pub gid: Option<u32>,
    /// Whether to come from a port below 1024.
    pub reserved_port: Option<bool>,
}

impl fmt::Debug for Config {
    /// Prints where and as whom, never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config")
            .field(&(&self.common, &self.shares, &self.user))
            .finish_non_exhaustive()
    }
}

/// All that is needed to mount one share.
#[derive(Clone)]
pub(crate) struct Place {
    /// The name in `share:path/volume`.
    pub name: String,
    /// How it is reached.
    pub protocol: Protocol,
    /// Which versions may be used, the best first.
    pub versions: Vec<String>,
    /// Whether everything must travel encrypted.
    pub require_encryption: bool,
    /// The server's name or address.
    pub server: String,
    /// The export, the share's name, or the directory.
    pub share: String,
    /// The directory in it.
    pub path: Vec<FileName>,
    /// The service's port.
    pub port: Option<u16>,
    /// The MOUNT service's port.
    pub mount_port: Option<u16>,
    /// As which user.
    pub uid: u32,
    /// As which group.
    pub gid: u32,
    /// Whether to come from a port below 1024.
    pub reserved_port: bool,
    /// How long a server may be silent while something is asked of it.
    pub silence: Duration,
    /// Tells this place from every other one, to servers that keep state for their clients.
    pub client: u64,
    /// Who logs in (SMB).
    pub login: Option<Login>,
}

/// Who logs in.
#[derive(Clone)]
pub(crate) struct Login {
    /// The user.
    pub user: String,
    /// With which password; never printed.
    pub password: String,
    /// In which domain; empty for the server's own users.
    pub domain: String,
}

impl Place {
    /// The directory of the volumes, as operators name it: `share:path`.
    pub fn shown(&self) -> String {
        let path: Vec<&str> = self.path.iter().map(FileName::as_str).collect();
        format!("{}:{}", self.name, path.join("/"))
    }

    /// Whether a second writer is kept away, whichever version is spoken.
    pub fn is_exclusive(&self) -> bool {
        match self.protocol {
            Protocol::Nfs => self.versions.iter().all(|version| version != "3"),
            Protocol::Smb => true,
            Protocol::Kernel => false,
        }
    }

    /// What its server may do with ranges of files, as far as the protocol tells.
    pub fn may_offer(&self) -> Offers {
        let may = match self.protocol {
            Protocol::Nfs => self.versions.iter().any(|version| version == "4.2"),
            Protocol::Smb | Protocol::Kernel => true,
        };
        Offers { punch: may, map: may }
    }

    /// Where a file is: `share:path/name`.
    pub fn shown_file(&self, name: &FileName) -> String {
        let shown = self.shown();
        let slash = if shown.ends_with(':') { "" } else { "/" };
        format!("{shown}{slash}{name}")
    }
}

impl fmt::Debug for Place {
    /// Never prints the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what =
            (&self.name, self.protocol, &self.versions, &self.server, &self.share, &self.path);
        f.debug_tuple("Place").field(&what).finish_non_exhaustive()
    }
}

fn default_mount_timeout() -> u64 {
    15
}

fn default_operation_timeout() -> u64 {
    120
}

fn default_silence() -> u64 {
    30
}

fn default_idle() -> u64 {
    300
}

fn default_keep_alive() -> u64 {
    20
}

fn default_extent_size() -> u64 {
    64 << 20
}

fn default_unstable() -> u64 {
    64 << 20
}

/// What the driver says of itself.
pub(crate) fn describe() -> DriverInfo {
    let of = OptionSpec::new;
    let text = |name, help| of(name, OptionType::TEXT, help);
    let number = |name, help| of(name, OptionType::INTEGER, help);
    let secs = |name, default, help| number(name, help).default_json(default);
    DriverInfo::new("volumes as files on NFS and SMB shares, in user space")
        .option(
            of("protocol", OptionType::CHOICE, "How shares are reached; default: nfs.")
                .choices(&["nfs", "smb", "kernel"]),
        )
        .option(of("versions", OptionType::TEXTS, "Versions that may be used, the best first."))
        .option(text("min_protocol", "The lowest version that may be used."))
        .option(of(
            "require_encryption",
            OptionType::BOOLEAN,
            "Refuse to send anything in the clear.",
        ))
        .option(text("server", "The server's name or address."))
        .option(text(
            "share",
            "The export (NFS), the share's name (SMB), or the directory (kernel).",
        ))
        .option(text(
            "path",
            "The directory of the volumes in the share; empty for the share itself.",
        ))
        .option(number("port", "The service's port; without one the portmapper is asked (NFSv3)."))
        .option(number("mount_port", "The port of the MOUNT service (NFSv3); likewise."))
        .option(number("uid", "The user as whom files are used (NFS); default: 0."))
        .option(number("gid", "The group as which files are used (NFS); default: 0."))
        .option(of("reserved_port", OptionType::BOOLEAN, "Come from a port below 1024 (NFS)."))
        .option(text("user", "The user who logs in (SMB)."))
        .option(text("password", "The user's password (SMB).").secret())
        .option(text("domain", "The user's domain (SMB).").default_json("\"\""))
        .option(
            of("shares", OptionType::TABLE, "Several shares: each a `name`, and what differs.")
                .default_json("[]"),
        )
        .option(format_option("Format of new volumes that name none.").default_json("\"raw\""))
        .option(layout_option(
            "Layout of new volumes that name none; default: whole, but for bricks on shares that free no ranges.",
        ))
        .option(
            extent_size_option("How long the extents of new volumes are that do not say so.")
                .default_json("67108864"),
        )
        .option(secs("mount_timeout_secs", "15", "How long one attempt to mount may take."))
        .option(secs(
            "operation_timeout_secs",
            "120",
            "How long an operation may take; longer than the server takes to start again.",
        ))
        .option(secs(
            "silence_timeout_secs",
            "30",
            "How long a server may say nothing at all before the connection is made anew.",
        ))
        .option(secs(
            "idle_unmount_secs",
            "300",
            "After how long without use a share is unmounted.",
        ))
        .option(secs(
            "keep_alive_secs",
            "20",
            "How often a mount in use is asked whether it lives.",
        ))
        .option(
            of(
                "unstable_bytes",
                OptionType::SIZE,
                "Most bytes of a volume that are kept here until the server has them on disk.",
            )
            .default_json("67108864"),
        )
        .volume_option(text("share", "The name of the share that the volume is made on."))
        .volume_option(format_option("Format of the volume's file; default: the backend's."))
        .volume_option(layout_option(
            "In one file, or in one for each extent; default: the backend's.",
        ))
        .volume_option(extent_size_option("How long an extent is; default: the backend's."))
}

fn layout_option(help: &str) -> OptionSpec {
    OptionSpec::new("layout", OptionType::CHOICE, help).choices(&["whole", "extents"])
}

fn extent_size_option(help: &str) -> OptionSpec {
    OptionSpec::new("extent_size", OptionType::SIZE, help)
}

fn format_option(help: &str) -> OptionSpec {
    OptionSpec::new("format", OptionType::CHOICE, help).choices(&["raw", "qcow2"])
}

impl Config {
    /// Refuses values that parse but make no sense.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [
            ("mount_timeout_secs", self.mount_timeout_secs),
            ("operation_timeout_secs", self.operation_timeout_secs),
            ("silence_timeout_secs", self.silence_timeout_secs),
            ("idle_unmount_secs", self.idle_unmount_secs),
            ("keep_alive_secs", self.keep_alive_secs),
        ] {
            if !(1..=86_400).contains(&value) {
                return Err(invalid(format!("`{key}` must be 1 to 86400")).with(key, value));
            }
        }
        if !(1 << 20..=1 << 32).contains(&self.unstable_bytes) {
            return Err(invalid("`unstable_bytes` must be 1 MiB to 4 GiB")
                .with("unstable_bytes", self.unstable_bytes));
        }
        check_extent_size(self.extent_size)?;
        self.shape(&Wishes::default(), true)?;
        self.places().map(drop)
    }

    /// The shares that are configured.
    pub(crate) fn places(&self) -> Result<Vec<Place>> {
        let only = [NamedShare { name: "share".into(), own: ShareOptions::default() }];
        let shares = if self.shares.is_empty() { &only[..] } else { &self.shares[..] };
        let mut places: Vec<Place> = Vec::new();
        for share in shares {
            let place = self.place(share).map_err(|error| error.with("share", &share.name))?;
            if places.iter().any(|other| other.name == place.name) {
                return Err(invalid("two shares have the same name").with("share", &share.name));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// What a share's own options and the common ones come to.
    pub(crate) fn place(&self, share: &NamedShare) -> Result<Place> {
        let (own, common) = (&share.own, &self.common);
        let name_fits = (1..=64).contains(&share.name.len())
            && share.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if !name_fits {
            return Err(invalid("the name of a share must be 1 to 64 of A-Z a-z 0-9 _ -"));
        }
        let protocol = own.protocol.or(common.protocol).unwrap_or_default();
        let required = |key: &str, value: Option<String>| match value {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(invalid(format!("`{key}` is missing"))),
        };
        let server = match protocol {
            Protocol::Kernel => String::new(),
            _ => required("server", own.server.clone().or_else(|| common.server.clone()))?,
        };
        let path = own.path.as_ref().or(common.path.as_ref()).map_or("", String::as_str);
        Ok(Place {
            name: share.name.clone(),
            protocol,
            versions: versions(protocol, own, common)?,
            require_encryption: own
                .require_encryption
                .or(common.require_encryption)
                .unwrap_or(false),
            server,
            share: required("share", own.share.clone().or_else(|| common.share.clone()))?,
            path: names::directory(path).map_err(|error| error.with("path", path))?,
            port: own.port.or(common.port),
            mount_port: own.mount_port.or(common.mount_port),
            uid: own.uid.or(common.uid).unwrap_or(0),
            gid: own.gid.or(common.gid).unwrap_or(0),
            reserved_port: own.reserved_port.or(common.reserved_port).unwrap_or(false),
            silence: Duration::from_secs(self.silence_timeout_secs),
            client: fastrand::u64(..),
            login: match protocol {
                Protocol::Smb => Some(Login {
                    user: required("user", self.user.clone())?,
                    password: required("password", self.password.clone())?,
                    domain: self.domain.clone(),
                }),
                _ => None,
            },
        })
    }
}

/// The versions that are both named and high enough.
fn versions(protocol: Protocol, own: &ShareOptions, common: &ShareOptions) -> Result<Vec<String>> {
    let known = protocol.versions();
    let rank = |key: &str, version: &str| match known.iter().position(|known| *known == version) {
        Some(rank) => Ok(rank),
        None => Err(invalid(format!(
            "`{key}` names the version `{version}`, which {} has not",
            protocol.name()
        ))
        .remedy(format!("use some of: {}", known.join(", ")))),
    };
    let lowest = match own.min_protocol.as_ref().or(common.min_protocol.as_ref()) {
        Some(version) => rank("min_protocol", version)?,
        None => known.len(),
    };
    let named = own.versions.as_ref().or(common.versions.as_ref());
    let mut chosen = Vec::new();
    match named {
        Some(named) => {
            for version in named {
                if rank("versions", version)? <= lowest {
                    chosen.push(version.clone());
                }
            }
        }
        None => {
            let fit = known.iter().enumerate().filter(|(rank, _)| *rank <= lowest);
            chosen.extend(fit.map(|(_, version)| (*version).to_owned()));
        }
    }
    if chosen.is_empty() && protocol != Protocol::Kernel {
        return Err(invalid("no version is left of `versions` above `min_protocol`"));
    }
    Ok(chosen)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) fn parsed(changes: Value) -> Result<Config> {
        let mut options = serde_json::Map::new();
        for option in describe().options {
            if let driver_api::ROption::RSome(json) = option.default {
                let value = serde_json::from_str(&json).expect("JSON");
                options.insert(option.name.to_string(), value);
            }
        }
        options.insert("server".into(), "nas".into());
        options.insert("share".into(), "/v".into());
        for (key, value) in changes.as_object().expect("a table") {
            options.insert(key.clone(), value.clone());
        }
        let config: Config =
            serde_json::from_value(options.into()).map_err(|error| invalid(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn every_declared_option_is_parsed() {
        let config = parsed(json!({
            "protocol": "nfs", "versions": ["4.1", "3"], "min_protocol": "3", "require_encryption": false,
            "path": "a/b", "port": 2049, "mount_port": 2050, "uid": 7, "gid": 8, "reserved_port": true,
            "user": "u", "password": "p", "domain": "d", "layout": "whole",
        }))
        .expect("all known");
        let places = config.places().expect("places");
        let place = &places[0];
        assert_eq!((place.uid, place.gid, place.port), (7, 8, Some(2049)));
        assert_eq!(place.shown(), "share:a/b");
        assert_eq!(place.versions, ["4.1", "3"]);
        let known = given_keys();
        for option in describe().options {
            let name = option.name.as_str();
            assert!(known.iter().any(|key| key == name), "{name} is declared, but not known");
        }
    }

    /// What the test above gives, by itself and as defaults.
    fn given_keys() -> Vec<String> {
        let own = "protocol versions min_protocol require_encryption server share path port mount_port uid gid \
             reserved_port user password layout";
        let defaults = describe().options.into_iter().filter(|option| option.default.is_some());
        let defaults = defaults.map(|option| option.name.to_string());
        own.split_whitespace().map(str::to_owned).chain(defaults).collect()
    }

    #[test]
    fn a_share_says_what_it_does_not_have_in_common() {
        let config = parsed(json!({ "uid": 7, "shares": [
            { "name": "a", "share": "/a" }, { "name": "b", "server": "other", "uid": 9 },
        ]}));
        let places = config.expect("known").places().expect("places");
        let told = |place: &Place| (place.server.clone(), place.share.clone(), place.uid);
        assert_eq!(told(&places[0]), ("nas".into(), "/a".into(), 7));
        assert_eq!(told(&places[1]), ("other".into(), "/v".into(), 9));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            json!({ "server": "" }),
            json!({ "share": "" }),
            json!({ "path": "../etc" }),
            json!({ "path": "/a" }),
            json!({ "versions": ["5"] }),
            json!({ "versions": [] }),
            json!({ "versions": ["3"], "min_protocol": "4.0" }),
            json!({ "operation_timeout_secs": 0 }),
            json!({ "unstable_bytes": 1 }),
            json!({ "extent_size": 3 << 20 }),
            json!({ "extent_size": 4096 }),
            json!({ "layout": "extents", "format": "qcow2" }),
            json!({ "no_such_option": 1 }),
            json!({ "shares": [{ "name": "a" }, { "name": "a" }] }),
            json!({ "shares": [{ "name": "a:b" }] }),
            json!({ "port": 70000 }),
            json!({ "protocol": "smb", "versions": ["4.1"] }),
        ] {
            assert!(parsed(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_password_is_not_printed() {
        let config = parsed(json!({ "password": "hunter2" })).expect("known");
        let places = config.places().expect("places");
        assert!(!format!("{config:?} {places:?}").contains("hunter2"));
    }
}
