// SPDX-License-Identifier: Apache-2.0
//! Where everything lies in the backend's directory, and which names may become paths.

use std::path::{Path, PathBuf};

use driver_api::Result;

use crate::{config::Format, error::invalid};

/// Names beginning with this are half made, and collected at the next opportunity.
pub(crate) const HALF_MADE: &str = ".new-";

/// The directory of one volume.
#[derive(Clone, Debug)]
pub(crate) struct VolumeDir {
    /// The volume's name.
    pub name: String,
    /// The directory.
    pub path: PathBuf,
}

impl VolumeDir {
    /// The directory of the volume `name` under the backend's `root`.
    pub fn new(root: &Path, name: &str) -> Result<Self> {
        check_name("volume", name)?;
        Ok(Self { name: name.into(), path: volumes(root).join(name) })
    }

    /// What is known of the volume.
    pub fn record(&self) -> PathBuf {
        self.path.join("volume.json")
    }

    /// The volume's blocks.
    pub fn disk(&self, format: Format) -> PathBuf {
        self.path.join(format!("disk.{}", format.name()))
    }

    /// Blocks that are to become the volume's.
    pub fn next_disk(&self, format: Format) -> PathBuf {
        self.path.join(format!("{HALF_MADE}disk.{}", format.name()))
    }

    /// Held while attachments and records change.
    pub fn door(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// One file per attachment.
    pub fn holders(&self) -> PathBuf {
        self.path.join("holders")
    }

    /// The snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// What is known of a snapshot: a snapshot exists once this does.
    pub fn snapshot_record(&self, snapshot: &str) -> PathBuf {
        self.snapshots().join(format!("{snapshot}.json"))
    }

    /// A snapshot's blocks.
    pub fn snapshot_disk(&self, snapshot: &str, format: Format) -> PathBuf {
        self.snapshots().join(format!("{snapshot}.{}", format.name()))
    }

    /// A snapshot's blocks while they are copied.
    pub fn next_snapshot(&self, snapshot: &str) -> PathBuf {
        self.snapshots().join(format!("{HALF_MADE}{snapshot}"))
    }
}

/// The directory of all volumes.
pub(crate) fn volumes(root: &Path) -> PathBuf {
    root.join("volumes")
}

/// Deleted volumes on their way out.
pub(crate) fn trash(root: &Path) -> PathBuf {
    root.join("trash")
}

/// Held shared while a volume is made or removed, exclusively while leftovers are collected.
pub(crate) fn makers(root: &Path) -> PathBuf {
    root.join("lock")
}

/// Refuses names that could lead out of their directory, or collide with names of this driver's own.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with(['.', '-']);
    if fits {
        return Ok(());
    }
    Err(invalid(format!("this is no name for a {what}"))
        .with("name", format!("{name:?}"))
        .remedy("use 1 to 128 of A-Z a-z 0-9 . _ - and do not begin with a dot or hyphen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for bad in
            ["", ".", "..", "../x", "a/b", "/etc", ".new-x", "-x", "a\0b", "ü", &"x".repeat(129)]
        {
            assert!(VolumeDir::new(Path::new("/srv"), bad).is_err(), "{bad:?}");
        }
        for good in ["a", "web-1", "A.b_c", &"x".repeat(128)] {
            assert!(VolumeDir::new(Path::new("/srv"), good).is_ok(), "{good:?}");
        }
    }
}
