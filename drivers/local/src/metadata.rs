// SPDX-License-Identifier: Apache-2.0
//! The records on disk: JSON with magic, version, feature bits and a checksum.
//!
//! Bits of `compatible_features` may be unknown to the reader; any unknown bit of `incompatible_features`, or a
//! larger `version`, is refused. Fields of `body` that a reader does not know are ignored.

use std::{fs, path::Path};

use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    client,
    config::{Format, Preallocation},
    error::{internal, on_path},
};

const MAGIC: &str = "novastor-local";
const VERSION: u32 = 1;

/// The envelope of every record.
#[derive(Serialize, Deserialize)]
struct Envelope {
    magic: String,
    version: u32,
    compatible_features: u64,
    incompatible_features: u64,
    body: serde_json::Value,
    sha256: String,
}

/// What is known of a volume, besides what its disk file says itself (its size).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub name: String,
    pub format: Format,
    pub preallocation: Preallocation,
    /// `VOLUME` or `VOLUME@SNAPSHOT` for a clone.
    #[serde(default)]
    pub origin: String,
    /// How a clone was made.
    #[serde(default)]
    pub method: String,
    /// The largest attach epoch seen.
    #[serde(default)]
    pub epoch: u64,
    /// Lives of the volume in which acknowledged, unflushed writes may have been lost.
    #[serde(default)]
    pub incarnation: u64,
    /// Whether the last writer detached in good order.
    #[serde(default)]
    pub clean: bool,
}

/// What is known of a snapshot.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub name: String,
    pub format: Format,
    pub size: u64,
    pub created_unix_nanos: u64,
    pub method: String,
}

/// Reads a record.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|error| on_path("cannot read the record", path, &error))?;
    let envelope: Envelope =
        serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    if envelope.magic != MAGIC {
        return Err(damaged(path, "the magic is not novastor-local"));
    }
    if envelope.version > VERSION || envelope.incompatible_features != 0 {
        return Err(Error::new(
            ErrorKind::UNSUPPORTED,
            format!(
                "the record has version {} and incompatible features {:#x}, this driver reads version {VERSION} without",
                envelope.version, envelope.incompatible_features,
            ),
        )
        .with("path", path.display())
        .remedy("use the newer driver that wrote it"));
    }
    if envelope.sha256 != digest(&envelope.body) {
        return Err(damaged(path, "the checksum does not fit the content"));
    }
    serde_json::from_value(envelope.body).map_err(|error| damaged(path, &error.to_string()))
}

/// Writes a record so that, whatever happens, the old or the new one is read afterwards.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let encoding =
        |error: serde_json::Error| internal(format!("a record cannot be encoded: {error}"));
    let body = serde_json::to_value(record).map_err(encoding)?;
    let envelope = Envelope {
        magic: MAGIC.into(),
        version: VERSION,
        compatible_features: 0,
        incompatible_features: 0,
        sha256: digest(&body),
        body,
    };
    let mut text = serde_json::to_vec_pretty(&envelope).map_err(encoding)?;
    text.push(b'\n');
    client::replace_durably(path, &text)
}

/// The body's keys are sorted by serde_json's map, so the text is the same for every writer.
fn digest(body: &serde_json::Value) -> String {
    let hash = Sha256::digest(body.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the record is damaged: {why}"))
        .with("path", path.display())
        .remedy("restore the file from a backup; the disk file beside it is untouched")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> SnapshotRecord {
        SnapshotRecord {
            name: "s".into(),
            format: Format::Raw,
            size: 512,
            created_unix_nanos: 1,
            method: "copy".into(),
        }
    }

    fn altered(change: impl Fn(&mut serde_json::Value)) -> Result<SnapshotRecord> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s.json");
        write(&path, &record()).expect("written");
        let mut value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
        change(&mut value);
        fs::write(&path, value.to_string()).expect("altered");
        read(&path)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(altered(|_| ()).expect("whole"), record());
    }

    #[test]
    fn a_changed_body_is_noticed() {
        let error = altered(|value| value["body"]["size"] = 1024.into()).expect_err("changed");
        assert_eq!(error.kind(), ErrorKind::CORRUPTED);
    }

    #[test]
    fn unknown_incompatible_features_are_refused_and_compatible_ones_ignored() {
        let error = altered(|value| value["incompatible_features"] = 4.into()).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::UNSUPPORTED);
        let error = altered(|value| value["version"] = 2.into()).expect_err("newer");
        assert_eq!(error.kind(), ErrorKind::UNSUPPORTED);
        altered(|value| value["compatible_features"] = 4.into()).expect("compatible");
    }
}
