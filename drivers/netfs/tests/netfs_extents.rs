// SPDX-License-Identifier: Apache-2.0
//! Volumes in extents on real servers: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::{os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

use driver_api::{
    Abilities, Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, ext::ExtentFlags,
};
use netfs::NetfsBackend;
use serde_json::{Value, json};
use support::{
    CX, KIB, MIB, attach, expect, made, open,
    real::{Revive, address, ganesha, ganesha4, samba, service},
    write,
    writers::under_writers_of,
};

fn in_extents(mut options: Value) -> Value {
    options["layout"] = json!("extents");
    options["extent_size"] = json!(MIB);
    options
}

/// The files of a volume's extents, by number.
fn extents(directory: &str, volume: &str) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(address(directory)).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&format!("{volume}.novastor-")) else { continue };
        let Some((_, rest)) = rest.split_once("-x") else { continue };
        let number = rest.split('-').next().expect("a number").parse().expect("a number");
        found.push((number, path));
    }
    found.sort();
    found
}

/// What the files of a volume occupy on the server, as `du` tells.
fn occupied(directory: &str, volume: &str) -> u64 {
    let root = PathBuf::from(address(directory)).join(format!("{volume}.raw"));
    let files = extents(directory, volume).into_iter().map(|(_, path)| path).chain([root]);
    files.map(|path| std::fs::metadata(path).expect("there").blocks() * 512).sum()
}

async fn gives_space_back(options: Value, directory: &str, volume: &str) {
    let backend = open(in_extents(options)).await;
    serves_in_extents(&backend, directory, VolumeSpec::new(volume, 8 * MIB)).await;
}

async fn serves_in_extents(backend: &NetfsBackend, directory: &str, spec: VolumeSpec) {
    let name = &*spec.name.clone();
    let _ = backend.delete(&CX, name).await;
    backend.create(&CX, spec.clone()).await.expect("created");
    backend.create(&CX, spec).await.expect("the same volume again");
    let volume = attach(backend, name, 1).await;
    let abilities = volume.capabilities().abilities;
    for ability in [Abilities::DISCARD, Abilities::WRITE_ZEROES, Abilities::ALLOCATION_MAP] {
        assert!(abilities.has(ability), "{name}: {abilities:?}");
    }
    assert!(occupied(directory, name) <= 4 * KIB, "{name}: a new volume");
    write(&volume, 0, 7, 8 * MIB).await;
    volume.flush(&CX).await.expect("flushed");
    let full = occupied(directory, name);
    assert!(full >= 8 * MIB, "{name}: {full}");
    let told = backend.show(&CX, name).await.expect("shown").used;
    assert!(told >= 8 * MIB && told <= full + MIB, "{name}: {told}, {full}");
    volume.discard(&CX, MIB + 512, 5 * MIB).await.expect("discarded");
    let left = occupied(directory, name);
    eprintln!("{name}: {full} bytes on the server, {left} after 4 of 8 MiB were discarded");
    assert!(full - left >= 4 * MIB, "{name}: {full} bytes, now {left}");
    let numbers = || extents(directory, name).into_iter().map(|(number, _)| number);
    assert_eq!(numbers().collect::<Vec<_>>(), [0, 1, 6, 7], "{name}");
    for (at, value, len) in
        [(0, 7, MIB + 512), (MIB + 512, 0, 5 * MIB), (6 * MIB + 512, 7, 2 * MIB - 512)]
    {
        expect(&volume, at, value, len).await;
    }
    let map = volume.allocation_map().expect("a map");
    let mapped = map.extents(&CX, 2 * MIB, 4 * MIB, 64).await.expect("mapped");
    assert!(mapped.len() == 1 && mapped[0].flags.has(ExtentFlags::HOLE), "{name}: {mapped:?}");
    let resize = volume.resize().expect("resize");
    resize.resize(&CX, MIB, true).await.expect("smaller");
    assert_eq!(numbers().collect::<Vec<_>>(), [0], "{name}");
    resize.resize(&CX, 4 * MIB, false).await.expect("larger");
    expect(&volume, MIB, 0, 3 * MIB).await;
    write(&volume, 3 * MIB, 9, 512).await;
    volume.detach(&CX).await.expect("detached");
    let renamed = format!("{name}-renamed");
    let _ = backend.delete(&CX, &renamed).await;
    backend.rename(&CX, name, &renamed).await.expect("renamed");
    let reader = Attach::new(AttachMode::READ_ONLY, 1, "reader");
    let volume = backend.attach(&CX, &renamed, reader).await.expect("attached");
    expect(&volume, 0, 7, MIB).await;
    expect(&volume, 3 * MIB, 9, 512).await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, &renamed).await.expect("deleted");
    assert!(extents(directory, name).is_empty(), "{name}: something is left");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn whole_extents_are_given_back_by_nfs_3() {
    gives_space_back(ganesha("export"), "export", "extents3").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn whole_extents_are_given_back_by_nfs_4() {
    gives_space_back(ganesha4("export", &["4.0"]), "export", "extents40").await;
    gives_space_back(ganesha4("export", &["4.1"]), "export", "extents41").await;
    gives_space_back(ganesha4("export", &["4.2"]), "export", "extents42").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn whole_extents_are_given_back_by_smb() {
    gives_space_back(samba("share"), "share_path", "extents").await;
}

/// Kills the server three times under writers of many extents, and a last time; compares what is on its disk then.
/// A volume whose runs of a MiB shall be kept apart if that costs nothing else: what a shard's brick asks for.
fn brick(name: &str) -> VolumeSpec {
    VolumeSpec { extent_size: MIB, ..VolumeSpec::new(name, 8 * MIB) }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_brick_is_in_extents_where_the_server_frees_no_ranges() {
    serves_in_extents(&open(ganesha("export")).await, "export", brick("brick3")).await;
    serves_in_extents(&open(ganesha4("export", &["4.1"])).await, "export", brick("brick41")).await;
    let mut whole = ganesha("export");
    whole["layout"] = json!("whole");
    for (name, options) in [("brick42", ganesha4("export", &["4.2"])), ("whole3", whole)] {
        let backend = open(options).await;
        let _ = backend.delete(&CX, name).await;
        let made = backend.create(&CX, brick(name)).await.expect("created");
        assert!(made.labels.iter().all(|label| label.0 != "layout"), "{name}: {made:?}");
        backend.delete(&CX, name).await.expect("deleted");
    }
}

async fn killed(options: Value, name: &str) {
    let _revive = Revive("ganesha");
    let content = || {
        let mut content = vec![0; 8 << 20];
        for (number, path) in extents("export", name) {
            let found = std::fs::read(path).expect("the server's file");
            let begin = (number * MIB) as usize;
            content[begin..begin + found.len()].copy_from_slice(&found);
        }
        content
    };
    let harm = async || {
        for _ in 0..3 {
            service("daemon", &["ganesha", "KILL"]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            service("again", &["ganesha"]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    under_writers_of(in_extents(options), name, content, harm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_killed_under_writers_loses_nothing_by_nfs_3() {
    killed(ganesha("export"), "cut3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_killed_under_writers_loses_nothing_by_nfs_4_1() {
    killed(ganesha4("export", &["4.1"]), "cut41").await;
}

/// What was discarded stays so when the server is killed right behind the answer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn what_was_discarded_stays_so_when_the_server_is_killed() {
    let _revive = Revive("ganesha");
    for (name, options) in [("gone3", ganesha("export")), ("gone41", ganesha4("export", &["4.1"]))]
    {
        let backend = open(in_extents(options)).await;
        let volume = made(&backend, name, 4 * MIB).await;
        write(&volume, 0, 3, 4 * MIB).await;
        volume.discard(&CX, MIB, MIB).await.expect("discarded");
        service("daemon", &["ganesha", "KILL"]);
        service("again", &["ganesha"]);
        volume.flush(&CX).await.expect("flushed");
        write(&volume, MIB, 4, 512).await;
        for (at, value, len) in [(0, 3, MIB), (MIB, 4, 512), (2 * MIB, 3, 2 * MIB)] {
            expect(&volume, at, value, len).await;
        }
        expect(&volume, MIB + 512, 0, MIB - 512).await;
        volume.detach(&CX).await.expect("detached");
        let volume = attach(&backend, name, 2).await;
        expect(&volume, 0, 3, MIB).await;
        expect(&volume, MIB + 512, 0, MIB - 512).await;
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, name).await.expect("deleted");
    }
}

/// Space that was full is there again after a discard, on a share of 64 MiB.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_full_server_has_room_again_after_a_discard() {
    let backend = open(in_extents(ganesha("export_small"))).await;
    let volume = made(&backend, "full", 128 * MIB).await;
    let mut full = None;
    for step in 0..128 {
        let data = support::bytes(2, MIB);
        if let Err(error) = volume.write(&CX, step * MIB, data, driver_api::WriteFlags::FUA).await {
            assert_eq!(error.kind(), ErrorKind::NO_SPACE, "{error:#}");
            full = Some(step);
            break;
        }
    }
    let full = full.expect("64 MiB are not enough");
    volume.discard(&CX, 0, 16 * MIB).await.expect("discarded on a full server");
    write(&volume, 100 * MIB, 5, 8 * MIB).await;
    volume.flush(&CX).await.expect("room again");
    expect(&volume, 0, 0, 16 * MIB).await;
    expect(&volume, 16 * MIB, 2, (full - 16).min(16) * MIB).await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "full").await.expect("deleted");
}
