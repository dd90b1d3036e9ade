// SPDX-License-Identifier: Apache-2.0
//! Volumes with layers: what their records say, and their files as qemu-img sees them.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use driver_api::{
    Volume,
    ext::{SnapshotInfo, Snapshots},
};
use netfs::NetfsVolume;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    CX,
    fake::Fake,
    images::{check, qemu_img_succeeds},
    value,
};

/// Takes a snapshot.
pub async fn snapshot(volume: &NetfsVolume, name: &str) -> SnapshotInfo {
    let snapshots: &dyn Snapshots = volume;
    snapshots.create(&CX, name).await.unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// Goes back to one.
pub async fn roll_back(volume: &NetfsVolume, name: &str) {
    volume.rollback(&CX, name).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
}

/// Deletes one.
pub async fn forget(volume: &NetfsVolume, name: &str) {
    let snapshots: &dyn Snapshots = volume;
    snapshots.delete(&CX, name).await.unwrap_or_else(|error| panic!("{name}: {error:#}"));
}

/// The names of all.
pub async fn names(volume: &NetfsVolume) -> Vec<String> {
    let snapshots: &dyn Snapshots = volume;
    let all = snapshots.list(&CX).await.expect("listed");
    all.iter().map(|snapshot| snapshot.name.to_string()).collect()
}

/// Waits until the volume consists of so many layers.
pub async fn until_layers(volume: &NetfsVolume, wanted: u64) {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let layers = value(&volume.stats(), "layers") as u64;
        if layers == wanted {
            return;
        }
        assert!(Instant::now() < end, "there are {layers} layers, not {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is left once nobody works on the layers any more.
pub async fn until_tidy(fake: &Fake, volume: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(300);
    loop {
        let tree = tree_of(fake, volume);
        let none = |key: &str| tree[key].as_array().is_none_or(Vec::is_empty);
        if none("gone") && (!none("snapshots") || none("overlays")) {
            return tree;
        }
        assert!(Instant::now() < end, "it does not end: {tree}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The layers in a volume's record.
pub fn tree_of(fake: &Fake, volume: &str) -> Value {
    let world = fake.world();
    let record = &world.files[&format!("{volume}.novastor")].content();
    let record: Value = serde_json::from_slice(record).expect("JSON");
    let is_marked = record["incompatible_features"].as_u64().expect("a number") & 1 == 1;
    let tree = record["body"]["tree"].clone();
    let some = |key: &str| tree[key].as_array().is_some_and(|list| !list.is_empty());
    assert_eq!(is_marked, some("overlays") || some("snapshots") || some("gone"), "{record}");
    tree
}

/// Changes a volume's record, as another host would.
pub fn change_record(fake: &Fake, volume: &str, change: impl FnOnce(&mut Value)) {
    let mut world = fake.world();
    let Some(file) = world.files.get_mut(&format!("{volume}.novastor")) else { return };
    let mut record: Value = serde_json::from_slice(&file.content()).expect("JSON");
    change(&mut record["body"]);
    let hash = Sha256::digest(record["body"].to_string().as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    record["sha256"] = hash.into();
    file.disk = record.to_string().into_bytes();
    file.dirty.clear();
}

/// Another server with what is on the disk of this one, where nobody is known to have the volume attached.
pub async fn reborn(fake: &Fake, volume: &str) -> Fake {
    let other = Fake::start().await;
    other.world().inherit(&mut fake.world());
    change_record(&other, volume, |body| body["holders"] = Value::Array(Vec::new()));
    other
}

/// The file of a layer.
pub fn file_of(tree: &Value, root: &str, layer: u64) -> String {
    let overlays = tree["overlays"].as_array().cloned().unwrap_or_default();
    let found = overlays.iter().find(|overlay| overlay["id"] == layer);
    match found {
        Some(overlay) => overlay["file"].as_str().expect("a name").to_owned(),
        None => root.to_owned(),
    }
}

/// Puts what is on the server's disk where qemu-img finds it.
pub fn dump(fake: &Fake, dir: &Path) {
    for (name, file) in &fake.world().files {
        std::fs::write(dir.join(name), &file.disk).expect("written");
    }
}

/// Asserts that the chain of files below this one is whole, and gives the disk in it, as qemu sees it. A crash may have left
/// clusters that are counted and not used.
pub fn seen_by_qemu(file: &Path, after_a_crash: bool) -> Vec<u8> {
    let format = if file.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
    let path = file.display().to_string();
    if format == "qcow2" {
        check(file, after_a_crash);
    }
    let chain = qemu_img_succeeds(&["info", "-U", "--backing-chain", "-f", format, &path]);
    assert!(!chain.contains("could not"), "{chain}");
    let raw: PathBuf = file.with_extension("converted");
    let to = raw.display().to_string();
    qemu_img_succeeds(&["convert", "-U", "-f", format, "-O", "raw", &path, &to]);
    let content = std::fs::read(&raw).expect("converted");
    std::fs::remove_file(raw).expect("removed");
    content
}
