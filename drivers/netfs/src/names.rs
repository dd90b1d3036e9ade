// SPDX-License-Identifier: Apache-2.0
//! Which names may become files on a share, and which file belongs to which volume.
//!
//! Servers do not agree on what a name is: NFSv3 passes `..` on to the file system, a colon opens a stream on SMB, and
//! Windows drops trailing dots. So a name is checked here, one component at a time, before any server sees it.

use std::fmt;

use driver_api::{Error, Result};
use serde::Deserialize;

use crate::error::invalid;

/// Bytes of the longest component: what the file systems behind shares take.
const LONGEST: usize = 255;
/// The end of the name of a volume's companion.
const COMPANION: &str = ".novastor";
/// The end of the name of a companion while it is written.
const FRESH: &str = ".novastor.new";
/// The end of the name of a raw volume that was made here.
const RAW: &str = ".raw";
/// The end of the name of a volume in an image.
const QCOW2: &str = ".qcow2";
/// What the name of a layer's file has behind the volume's name.
const LAYER: &str = ".novastor-";
/// The end of other names that are listed as raw images, and are part of the volume's name.
const LISTED: &str = ".img";

/// One component of a path that may be sent to a server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FileName(String);

impl FileName {
    /// Checks one component.
    pub fn new(name: &str) -> Result<Self> {
        match flaw(name) {
            None => Ok(Self(name.to_owned())),
            Some(flaw) => Err(refused(name, flaw)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The components of a directory inside a share; an empty text is the share itself.
pub(crate) fn directory(path: &str) -> Result<Vec<FileName>> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    path.split('/').map(FileName::new).collect()
}

fn refused(name: &str, flaw: &str) -> Error {
    let shown: String = name.chars().take(64).collect();
    invalid(format!("this is no name for a file on a share: {flaw}"))
        .with("name", format!("{shown:?}"))
        .remedy("use letters, digits, and . _ - inside the name")
}

/// What is wrong with a component.
fn flaw(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| "/\\:*?\"<>|".contains(c);
    match name {
        "" => Some("it is empty"),
        "." | ".." => Some("it leads to another directory"),
        _ if name.len() > LONGEST => Some("it is longer than 255 bytes"),
        _ if name.contains('\0') => Some("it contains a zero byte"),
        _ if name.chars().any(char::is_control) => Some("it contains a control character"),
        _ if name.contains(['/', '\\']) => Some("it contains a separator"),
        _ if name.contains(forbidden) => Some("it contains one of : * ? \" < > |"),
        _ if name.ends_with(['.', ' ']) => Some("it ends with a dot or a space"),
        _ if name.starts_with(' ') => Some("it begins with a space"),
        _ if is_reserved(name) => Some("Windows reserves it for a device"),
        _ => None,
    }
}

/// Whether a name is a device's on Windows, with or without an extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let upper = stem.to_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"].contains(&upper.as_str()) {
        return true;
    }
    let numbered = upper.strip_prefix("COM").or_else(|| upper.strip_prefix("LPT"));
    numbered.is_some_and(|digit| {
        let mut chars = digit.chars();
        let first = chars.next();
        chars.next().is_none() && first.is_some_and(|c| "0123456789¹²³".contains(c))
    })
}

/// How a volume's blocks are kept in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Byte n of the volume is byte n of the file.
    #[default]
    Raw,
    /// QEMU's format.
    Qcow2,
}

impl Format {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// In how many files a volume's blocks are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// In one.
    #[default]
    Whole,
    /// In one for each extent that was written.
    Extents,
}

impl Layout {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Extents => "extents",
        }
    }
}

/// The files of one volume.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Where its blocks are if it is raw and was made here.
    pub raw: FileName,
    /// Where its blocks are if it is an image.
    pub qcow2: FileName,
    /// Where its blocks are if it is an image that was there before and is called like the volume.
    pub adopted: Option<FileName>,
    /// What the blocks' file cannot say.
    pub companion: FileName,
    /// The companion while it is written.
    pub fresh_companion: FileName,
}

impl Files {
    /// The files of the volume `volume`.
    pub fn of(volume: &str) -> Result<Self> {
        if !is_plain(volume) {
            let shown: String = volume.chars().take(64).collect();
            return Err(invalid("this is no name for a volume")
                .with("name", format!("{shown:?}"))
                .remedy(
                    "use 1 to 128 of A-Z a-z 0-9 . _ - and do not begin with a dot or hyphen",
                ));
        }
        if volume.contains(LAYER) {
            return Err(invalid("names with `.novastor-` are those of the layers of volumes")
                .with("name", volume)
                .remedy("choose another name"));
        }
        let adopted = if is_ours(volume) { None } else { FileName::new(volume).ok() };
        Ok(Self {
            raw: FileName::new(&format!("{volume}{RAW}"))?,
            qcow2: FileName::new(&format!("{volume}{QCOW2}"))?,
            adopted,
            companion: FileName::new(&format!("{volume}{COMPANION}"))?,
            fresh_companion: FileName::new(&format!("{volume}{FRESH}"))?,
        })
    }

    /// Where the blocks of a volume of this format are that is made here.
    pub fn made(&self, format: Format) -> &FileName {
        match format {
            Format::Raw => &self.raw,
            Format::Qcow2 => &self.qcow2,
        }
    }
}

/// What the names of the files have in common that a volume has besides its own and its record; `id` tells it from others
/// that had, or will have, its name.
pub(crate) fn layer_infix(id: &str) -> String {
    format!("{LAYER}{}-", short_id(id))
}

/// The file of a layer that is made by whoever attached the volume at `epoch`: nobody else makes one of this name.
pub(crate) fn layer_file(volume: &str, id: &str, epoch: u64, number: u64) -> Result<FileName> {
    FileName::new(&format!("{volume}{}{epoch}-{number}{QCOW2}", layer_infix(id)))
}

/// The file of a volume that is not whole yet.
pub(crate) fn copy_file(volume: &str, id: &str, format: Format) -> Result<FileName> {
    let end = if format == Format::Raw { RAW } else { QCOW2 };
    FileName::new(&format!("{volume}{}copy{end}", layer_infix(id)))
}

/// The file of an extent. No name is used twice: whatever a server does late, to a file that was, happens to no other.
pub(crate) fn extent_file(volume: &str, id: &str, extent: ExtentFile) -> Result<FileName> {
    let ExtentFile { number, epoch, count } = extent;
    let random = fastrand::u32(..);
    let infix = layer_infix(id);
    FileName::new(&format!("{volume}{infix}x{number}-{epoch}-{count}-{random:08x}{RAW}"))
}

/// What the name of an extent's file says. Of two files of one extent the newer has the larger epoch, or the larger count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentFile {
    /// Which extent of the volume.
    pub number: u64,
    /// The attach epoch of who made it.
    pub epoch: u64,
    /// How many were made before it.
    pub count: u64,
}

/// What a listed file is of a volume's extents: whose (the beginning of the volume's id), and which.
pub(crate) fn extent_of(file: &str) -> Option<(&str, ExtentFile)> {
    let (id, rest) = file.split_once(LAYER)?.1.split_once("-x")?;
    let mut parts = rest.strip_suffix(RAW)?.split('-');
    let mut next = || parts.next()?.parse().ok();
    let extent = ExtentFile { number: next()?, epoch: next()?, count: next()? };
    Some((id, extent))
}

/// What the names of a volume's extents have of its id.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(16).collect()
}

/// Whether a file that a server lists is that of a layer.
pub(crate) fn is_layer(file: &str) -> bool {
    file.contains(LAYER) && file.ends_with(QCOW2)
}

/// Whether a file name is one that this driver makes: such a file is no volume of that very name.
fn is_ours(name: &str) -> bool {
    [RAW, QCOW2].iter().any(|end| name.ends_with(end))
        || name.ends_with(COMPANION)
        || name.ends_with(FRESH)
}

/// The volume whose blocks are in a file that a server lists, if it is one. The name tells the format: a guest can write
/// into a raw volume whatever an image begins with.
pub(crate) fn volume_of(file: &str) -> Option<(&str, Format)> {
    let (volume, format) = match (file.strip_suffix(RAW), file.strip_suffix(QCOW2)) {
        (Some(volume), _) => (volume, Format::Raw),
        (_, Some(volume)) => (volume, Format::Qcow2),
        _ if file.ends_with(LISTED) => (file, Format::Raw),
        _ => return None,
    };
    (is_plain(volume) && Files::of(volume).is_ok()).then_some((volume, format))
}

/// The rule for the names of volumes and snapshots; a file of another name is no volume.
pub(crate) fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_lead_elsewhere_is_a_name() {
        let long = "x".repeat(256);
        for bad in [
            "", ".", "..", "a/b", "/", "/etc", "../x", "a\\b", "a\0b", "a\nb", "\u{7f}", "a:b",
            "C:", "a.", "a ", " a", "a. ", "CON", "con", "nul.raw", "Com1", "LPT9.img", "COM¹",
            "aux .x", "a*", "a?", "a|b", "a<b", "a>b", "a\"b", "\u{85}", &long, "CONIN$", "com0",
        ] {
            assert!(FileName::new(bad).is_err(), "{bad:?}");
        }
        let longest = "x".repeat(255);
        for good in
            ["a", "web-1.raw", "a..b", "...a", "COM", "COM10", "console", "ü", "a b", &longest]
        {
            assert!(FileName::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_directory_is_checked_by_component() {
        assert!(directory("").expect("the share itself").is_empty());
        assert_eq!(directory("a/b").expect("two").len(), 2);
        for bad in ["/a", "a/", "a//b", "a/../b", "./a", "..", "a/\u{1}/b", "a/con/b"] {
            assert!(directory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_volume_has_files_of_its_own() {
        let volumes = [
            "a",
            "A",
            "a.",
            "a.raw",
            "a.qcow2",
            "a.img",
            "a.novastor",
            "a.raw.raw",
            "a..b",
            "a.novastor.new",
        ];
        let mut seen = std::collections::HashMap::new();
        for volume in volumes {
            let files = Files::of(volume).expect("a name");
            for file in [
                Some(files.raw),
                Some(files.qcow2),
                Some(files.companion),
                Some(files.fresh_companion),
                files.adopted,
            ]
            .into_iter()
            .flatten()
            {
                if let Some(other) = seen.insert(file.clone(), volume) {
                    panic!("{file} belongs to {other} and {volume}");
                }
            }
        }
    }

    #[test]
    fn a_listed_file_leads_back_to_its_volume() {
        for volume in ["a", "a.", "a.raw", "a.img", "web-1", "a.novastor"] {
            let files = Files::of(volume).expect("a name");
            for format in [Format::Raw, Format::Qcow2] {
                assert_eq!(volume_of(files.made(format).as_str()), Some((volume, format)));
            }
        }
        assert_eq!(volume_of("disk.img"), Some(("disk.img", Format::Raw)));
        let layer = layer_file("a", "0123456789abcdef0123", 7, 3).expect("a name");
        assert_eq!(layer.as_str(), "a.novastor-0123456789abcdef-7-3.qcow2");
        assert!(is_layer(layer.as_str()) && volume_of(layer.as_str()).is_none());
        assert!(Files::of("a.novastor-01234567-3").is_err() && !is_layer("a.qcow2"));
        let (id, extent) = ("0123456789abcdef0123", ExtentFile { number: 12, epoch: 7, count: 3 });
        let file = extent_file("a", id, extent).expect("a name");
        assert_eq!(extent_of(file.as_str()), Some((short_id(id).as_str(), extent)));
        assert!(!is_layer(file.as_str()) && volume_of(file.as_str()).is_none());
        assert_ne!(extent_file("a", id, extent).expect("a name"), file);
        for no in ["a.raw", layer.as_str(), "a.novastor-0123-copy.raw", "a.novastor-0123-x1-2.raw"]
        {
            assert_eq!(extent_of(no), None, "{no}");
        }
        for no in [
            "a",
            "a.novastor",
            "notes.txt",
            "with space.img",
            ".raw",
            ".hidden.raw",
            "-a.img",
            "ü.img",
        ] {
            assert_eq!(volume_of(no), None, "{no}");
        }
    }
}
