// SPDX-License-Identifier: Apache-2.0
//! What a volume's file cannot say of itself: a small file beside it, `NAME.novastor`.
//!
//! JSON with magic, version, feature bits and a checksum. Bits of `compatible_features` may be unknown to the reader; any unknown
//! bit of `incompatible_features`, or a larger `version`, is refused. Fields of `body` that a reader does not know are kept.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, Result, Retry};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    error::{Fault, fenced, internal},
    file::OpenFile,
    holders::Holder,
    layers::tree::Tree,
    mounts::{Attempt, Mount},
    names::Files,
    share::Share,
    verified,
};

const MAGIC: &str = "novastor-netfs";
const VERSION: u32 = 1;
/// The volume consists of layers: its file alone is not what it holds.
const LAYERS: u64 = 1;
/// The volume is being made from another, or removed: its file is not what it holds, or not all of it.
const UNFINISHED: u64 = 2;
/// The volume's blocks are in extents: its file has none of them.
const EXTENTS: u64 = 4;

#[derive(Serialize, Deserialize)]
struct Envelope {
    magic: String,
    version: u32,
    compatible_features: u64,
    incompatible_features: u64,
    body: serde_json::Value,
    sha256: String,
}

/// What is known of a volume, besides what its file says itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Tells it from every other volume that ever had its name.
    #[serde(default)]
    pub id: String,
    /// Whether this driver made the file; else it was there before.
    #[serde(default)]
    pub made: bool,
    /// The size that it was made with.
    #[serde(default)]
    pub made_with: u64,
    /// The largest attach epoch seen.
    #[serde(default)]
    pub epoch: u64,
    /// The size of the disk in the image when it was last attached or resized: for as long as nobody else may look.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub image_size: u64,
    /// Which volume becomes this one, while it is renamed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub renamed_from: String,
    /// How long each of the files is that its blocks are in; zero: they are in the volume's file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extent_size: u64,
    /// Its layers and snapshots, if it has any.
    #[serde(default, skip_serializing_if = "Tree::is_untouched")]
    pub tree: Tree,
    /// It is being removed, whatever is left of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// Of what it is being made, while it is not whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub copied_from: String,
    /// Of what it was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// How.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clone_method: String,
    /// Who has it attached.
    #[serde(default)]
    pub holders: Vec<Holder>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Record {
    /// Of a volume that is made now.
    pub fn made(size: u64) -> Self {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        Self { id, made: true, made_with: size, ..Self::default() }
    }

    /// Of a file that was there before.
    pub fn adopted() -> Self {
        Self { made: false, ..Self::made(0) }
    }

    /// What an older driver must not overlook.
    fn features(&self) -> u64 {
        let layers = if self.tree.is_plain() { 0 } else { LAYERS };
        let is_whole = !self.removing && self.copied_from.is_empty();
        let extents = if self.extent_size == 0 { 0 } else { EXTENTS };
        layers | extents | if is_whole { 0 } else { UNFINISHED }
    }

    /// Refuses a volume that is not whole.
    pub fn admit(&self, volume: &str) -> Result<()> {
        let (what, remedy) = if self.removing {
            ("the volume's removal was begun and did not end", "remove it again")
        } else if !self.copied_from.is_empty() {
            ("the volume is a clone that is not finished", "wait, clone again, or remove it")
        } else {
            return Ok(());
        };
        let error = Error::new(ErrorKind::UNAVAILABLE, what);
        Err(error.with_retry(Retry::PERMANENT).with("volume", volume).remedy(remedy))
    }
}

/// Reads a volume's record; `None` if it has none.
pub(crate) async fn read(
    mount: &Arc<Mount>,
    files: &Files,
    until: Instant,
) -> Result<Option<Record>> {
    let seen = look(mount, files, until).await;
    seen.map_err(|fault| fault.told("the volume's record cannot be read"))
}

/// The same, for code that has to know what became of its calls.
pub(crate) async fn look(
    mount: &Mount,
    files: &Files,
    until: Instant,
) -> Result<Option<Record>, Fault> {
    let content = verified::read(mount, &files.companion, until).await?;
    decode_of(content, mount, files)
}

/// The same on this very share.
pub(crate) async fn read_on(
    share: &dyn Share,
    mount: &Mount,
    files: &Files,
    until: Instant,
) -> Result<Option<Record>, Fault> {
    let content = verified::read_on(share, &files.companion, until).await?;
    decode_of(content, mount, files)
}

fn decode_of(
    content: Option<Bytes>,
    mount: &Mount,
    files: &Files,
) -> Result<Option<Record>, Fault> {
    let file = || mount.place.shown_file(&files.companion);
    let decoded =
        content.map(|content| decode(&content).map_err(|error| error.with("file", file())));
    Ok(decoded.transpose()?)
}

/// Writes a volume's record, on this very share.
pub(crate) async fn write_on(
    share: &dyn Share,
    files: &Files,
    record: &Record,
    until: Instant,
) -> Result<(), Fault> {
    let content = encode(record)?.into();
    verified::replace_on(share, &files.companion, &files.fresh_companion, &content, until).await
}

/// Changes the record of a volume whose file is open, unless `change` finds nothing to change. It is told the server's number
/// for the login.
///
/// Where the server keeps other writers from the file, the record is read and written on the one share on which it does: a host
/// that lost the file meanwhile must not write over what the next one says there.
pub(crate) async fn change(
    file: &OpenFile,
    files: &Files,
    change: impl Fn(Option<Record>, u64) -> Result<Option<Record>> + Sync,
    until: Instant,
) -> Result<()> {
    let mount = &file.mount;
    if !file.is_guarded() {
        return match change(read(mount, files, until).await?, 0)? {
            Some(record) => write(mount, files, &record, until).await,
            None => Ok(()),
        };
    }
    let change = &change;
    let changed = file.perform(until, |attempt, _| async move {
        change_on(&*attempt.share, mount, files, change, until).await
    });
    changed.await.map_err(|fault| not_written(fault, mount, files))
}

async fn change_on(
    share: &dyn Share,
    mount: &Mount,
    files: &Files,
    change: &(impl Fn(Option<Record>, u64) -> Result<Option<Record>> + Sync),
    until: Instant,
) -> Result<(), Fault> {
    let record = read_on(share, mount, files, until).await?;
    match change(record, share.session())? {
        Some(record) => write_on(share, files, &record, until).await,
        None => Ok(()),
    }
}

/// Puts layers in the place of those that a volume has, in one step and durably, for whoever attached it at `epoch`. `file` is
/// the root's, which is open for as long as the volume is attached.
///
/// The record is read on the connection that then replaces it: where a server keeps other writers away, it lets go of that
/// only together with the connection, so that whoever lost the volume meanwhile finds the epoch of the next one.
pub(crate) async fn exchange(
    file: &OpenFile,
    files: &Files,
    (volume, epoch): (&str, u64),
    (from, to): (&Tree, &Tree),
    image_size: u64,
    until: Instant,
) -> Result<(), Fault> {
    let mount = &file.mount;
    let exchanged = |record: Option<Record>, _| {
        let mut record = record.unwrap_or_else(Record::adopted);
        if record.epoch > epoch {
            return Err(fenced(volume).with("latest_epoch", record.epoch));
        }
        // An earlier attempt may have done it.
        if record.tree == *to {
            return Ok(None);
        }
        if record.tree != *from {
            let file = mount.place.shown_file(&files.companion);
            return Err(damaged("somebody else changed it").with("file", file));
        }
        record.tree.clone_from(to);
        record.image_size = image_size;
        Ok(Some(record))
    };
    let exchanged = &exchanged;
    if file.is_guarded() {
        let on = |attempt: Attempt, _| async move {
            change_on(&*attempt.share, mount, files, exchanged, until).await
        };
        return file.perform(until, on).await;
    }
    let on = |attempt: Attempt| async move {
        change_on(&*attempt.share, mount, files, exchanged, until).await
    };
    mount.perform(until, on).await
}

/// Writes a volume's record.
pub(crate) async fn write(
    mount: &Arc<Mount>,
    files: &Files,
    record: &Record,
    until: Instant,
) -> Result<()> {
    let content = encode(record)?.into();
    let written =
        verified::replace(mount, &files.companion, &files.fresh_companion, &content, until).await;
    written.map_err(|fault| not_written(fault, mount, files))
}

fn not_written(fault: Fault, mount: &Mount, files: &Files) -> Error {
    let file = mount.place.shown_file(&files.companion);
    fault.told("the volume's record cannot be written").with("file", file)
}

fn encode(record: &Record) -> Result<Vec<u8>> {
    let encoding =
        |error: serde_json::Error| internal(format!("a record cannot be encoded: {error}"));
    let body = serde_json::to_value(record).map_err(encoding)?;
    let envelope = Envelope {
        magic: MAGIC.into(),
        version: VERSION,
        compatible_features: 0,
        incompatible_features: record.features(),
        sha256: digest(&body),
        body,
    };
    let mut text = serde_json::to_vec_pretty(&envelope).map_err(encoding)?;
    text.push(b'\n');
    Ok(text)
}

fn decode(content: &[u8]) -> Result<Record> {
    let envelope: Envelope =
        serde_json::from_slice(content).map_err(|error| damaged(&error.to_string()))?;
    if envelope.magic != MAGIC {
        return Err(damaged("the magic is not novastor-netfs"));
    }
    let unknown = envelope.incompatible_features & !(LAYERS | UNFINISHED | EXTENTS);
    if envelope.version > VERSION || unknown != 0 {
        let version = envelope.version;
        let what = format!(
            "the volume's record has version {version} and unknown incompatible features {unknown:#x}, this driver reads version {VERSION}"
        );
        return Err(
            Error::new(ErrorKind::UNSUPPORTED, what).remedy("use the newer driver that wrote it")
        );
    }
    if envelope.sha256 != digest(&envelope.body) {
        return Err(damaged("the checksum does not fit the content"));
    }
    let record: Record =
        serde_json::from_value(envelope.body).map_err(|error| damaged(&error.to_string()))?;
    record.tree.check()?;
    Ok(record)
}

/// The body's keys are sorted by serde_json's map, so the text is the same for every writer.
fn digest(body: &serde_json::Value) -> String {
    let hash = Sha256::digest(body.to_string().as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn damaged(why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the volume's record is damaged: {why}")).remedy(
        "restore the file from a backup, or move it away and adopt the image anew; the image itself is untouched",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn altered(change: impl Fn(&mut serde_json::Value)) -> Result<Record> {
        let record = Record { epoch: 7, ..Record::made(512) };
        let encoded = encode(&record).expect("encoded");
        let mut value = serde_json::from_slice(&encoded).expect("JSON");
        change(&mut value);
        decode(value.to_string().as_bytes())
    }

    #[test]
    fn what_was_written_is_read() {
        let record = altered(|_| ()).expect("whole");
        assert_eq!((record.epoch, record.made, record.made_with), (7, true, 512));
    }

    #[test]
    fn damage_is_noticed_and_what_is_newer_refused() {
        let kind =
            |change: fn(&mut serde_json::Value)| altered(change).expect_err("refused").kind();
        assert_eq!(kind(|value| value["body"]["epoch"] = 8.into()), ErrorKind::CORRUPTED);
        assert_eq!(kind(|value| value["magic"] = "other".into()), ErrorKind::CORRUPTED);
        assert_eq!(kind(|value| value["version"] = 2.into()), ErrorKind::UNSUPPORTED);
        assert_eq!(kind(|value| value["incompatible_features"] = 8.into()), ErrorKind::UNSUPPORTED);
        altered(|value| value["compatible_features"] = 1.into()).expect("compatible");
    }

    #[test]
    fn what_is_more_than_its_file_is_kept_from_older_versions() {
        let file = crate::names::FileName::new("v.novastor-x-1.qcow2").expect("a name");
        let plain = Record::made(512);
        let layered = Record { tree: Tree::default().frozen(&file), ..Record::made(512) };
        let merged = Record { tree: layered.tree.merged(1).swept(), ..Record::made(512) };
        let cut = Record { extent_size: 1 << 20, ..Record::made(512) };
        let removing = Record { removing: true, ..Record::made(512) };
        for (record, features) in
            [(plain, 0), (layered, LAYERS), (merged, 0), (removing, UNFINISHED), (cut, EXTENTS)]
        {
            let text = encode(&record).expect("encoded");
            let value: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!(value["incompatible_features"], features);
            assert_eq!(decode(&text).expect("read"), record);
            assert_eq!(record.admit("v").is_err(), features == UNFINISHED);
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_kept() {
        let mut record = Record::made(512);
        record.other.insert("layout".into(), "extents".into());
        let read = decode(&encode(&record).expect("encoded")).expect("read");
        assert_eq!(read, record);
    }
}
