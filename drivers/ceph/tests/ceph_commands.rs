// SPDX-License-Identifier: Apache-2.0
//! The driver's own commands, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use ceph::CephBackend;
use driver_api::{
    Backend, Error, ErrorKind, Result, Volume, VolumeSpec, WriteFlags,
    ext::{Clones, Commands, Snapshots},
};
use serde_json::{Value, json};
use support::{CX, MIB, attach, bytes, made, open, rbd, remove, tool};

async fn run(backend: &CephBackend, command: &str, arguments: Value) -> Result<Value> {
    let answer = Commands::run(backend, &CX, command, &arguments.to_string()).await?;
    Ok(serde_json::from_str(&answer).expect("JSON"))
}

async fn refused(
    backend: &CephBackend,
    command: &str,
    arguments: Value,
    kind: ErrorKind,
    words: &str,
) -> Error {
    let error = run(backend, command, arguments).await.expect_err(command);
    let told = format!("{error:#} {}", error.remedy_text());
    println!("{told}");
    assert_eq!(error.kind(), kind, "{told}");
    assert!(told.contains(words) && !error.remedy_text().is_empty(), "{told}");
    error
}

/// Removes all that an earlier run left in the trash.
async fn empty_trash(backend: &CephBackend) {
    run(backend, "trash-purge", json!({ "all": true })).await.expect("purged");
    assert_eq!(run(backend, "trash-list", json!({})).await.expect("listed"), json!([]));
}

async fn filled(backend: &CephBackend, name: &str, value: u8) {
    let volume = made(backend, name, 8 * MIB).await;
    volume.write(&CX, 0, bytes(value, MIB), WriteFlags::NONE).await.expect("written");
    volume.detach(&CX).await.expect("detached");
}

async fn content(backend: &CephBackend, name: &str) -> u8 {
    let volume = attach(backend, name, 9).await;
    let read = volume.read(&CX, 0, MIB as u32).await.expect("read");
    assert!(read.iter().all(|byte| *byte == read[0]), "{name} is of two moments");
    volume.detach(&CX).await.expect("detached");
    read[0]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_deleted_volume_can_be_had_back_from_the_trash() {
    let backend = open(json!({ "trash_secs": 3600 })).await;
    let plain = open(json!({})).await;
    for name in ["lost", "found", "copy"] {
        remove(&plain, name).await;
    }
    empty_trash(&backend).await;
    filled(&backend, "lost", 7).await;
    let volume = attach(&backend, "lost", 2).await;
    Snapshots::create(&volume, &CX, "before").await.expect("a snapshot");
    let busy = json!({ "volume": "lost" });
    refused(&backend, "trash-move", busy.clone(), ErrorKind::IN_USE, "attached by test").await;
    refused(&plain, "trash-move", busy.clone(), ErrorKind::IN_USE, "attached by test").await;
    volume.detach(&CX).await.expect("detached");

    // A clone needs it: nothing changes.
    backend.clone_volume(&CX, "lost", "before", VolumeSpec::new("copy", 0)).await.expect("cloned");
    let error = backend.delete(&CX, "lost").await.expect_err("a clone needs it");
    assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}");
    refused(&backend, "trash-move", busy.clone(), ErrorKind::IN_USE, "copy").await;
    assert_eq!(content(&backend, "lost").await, 7);
    plain.delete(&CX, "copy").await.expect("deleted");

    backend.delete(&CX, "lost").await.expect("deleted");
    let error = backend.show(&CX, "lost").await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{error:#}");
    let error = backend.delete(&CX, "lost").await.expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{error:#}");
    let trash = run(&backend, "trash-list", json!({})).await.expect("listed");
    println!("{trash}");
    let one = &trash[0];
    assert_eq!((&one["name"], &one["source"]), (&json!("lost"), &json!("user")));
    assert_eq!(one["expired"], false);
    let (moved, expires) = (&one["moved_unix_secs"], &one["expires_unix_secs"]);
    assert_eq!(expires.as_u64().expect("a time") - moved.as_u64().expect("a time"), 3600);
    assert_eq!(trash.as_array().expect("a list").len(), 1);
    let id = one["id"].as_str().expect("an id").to_owned();

    // The name is free, and then taken.
    filled(&backend, "lost", 8).await;
    let taken = json!({ "id": id });
    refused(&backend, "trash-restore", taken, ErrorKind::ALREADY_EXISTS, "another name").await;
    let early = json!({ "id": id });
    refused(&backend, "trash-remove", early, ErrorKind::IN_USE, "\"force\": true").await;
    let skipped = run(&backend, "trash-purge", json!({})).await.expect("purged");
    println!("{skipped}");
    assert_eq!(skipped[0]["outcome"], "skipped");
    assert!(skipped[0]["why"].as_str().expect("a reason").contains("kept until"));
    let named = json!({ "id": id, "name": "found" });
    run(&backend, "trash-restore", named).await.expect("restored");
    assert_eq!(content(&backend, "found").await, 7);
    assert_eq!(content(&backend, "lost").await, 8);
    let volume = attach(&backend, "found", 10).await;
    let kept = Snapshots::list(&volume, &CX).await.expect("listed");
    assert_eq!(kept.len(), 1, "its snapshot came back with it");
    volume.detach(&CX).await.expect("detached");

    // By hand, for no time: it has expired at once.
    run(&backend, "trash-move", json!({ "volume": "found" })).await.expect("moved");
    let early = json!({ "expired_before_unix_secs": 1_000_000_000 });
    let skipped = run(&backend, "trash-purge", early).await.expect("purged");
    assert_eq!(skipped[0]["outcome"], "skipped", "{skipped}");
    let future = json!({ "expired_before_unix_secs": 9_000_000_000_u64 });
    refused(&backend, "trash-purge", future, ErrorKind::INVALID_ARGUMENT, "has passed").await;
    let purged = run(&backend, "trash-purge", json!({})).await.expect("purged");
    assert_eq!((&purged[0]["name"], &purged[0]["outcome"]), (&json!("found"), &json!("removed")));
    backend.delete(&CX, "lost").await.expect("deleted");
    let trash = run(&backend, "trash-list", json!({})).await.expect("listed");
    let forced = json!({ "id": trash[0]["id"], "force": true });
    run(&backend, "trash-remove", forced.clone()).await.expect("removed");
    refused(&backend, "trash-remove", forced, ErrorKind::NOT_FOUND, "trash-list").await;
    let wrong = ErrorKind::INVALID_ARGUMENT;
    let strange = json!({ "volume": "v", "colour": 1 });
    refused(&backend, "trash-move", strange, wrong, "keep_secs").await;
    refused(&backend, "trash-move", json!({ "volume": "../v" }), wrong, "A-Z").await;
    refused(&backend, "trash-list", json!({ "all": true }), wrong, "unknown field").await;
    let missing = json!({ "volume": "nowhere" });
    let error = run(&backend, "trash-move", missing).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{error:#}");
    refused(&backend, "trash-burn", json!({}), ErrorKind::UNSUPPORTED, "trash-purge").await;
    assert_eq!(Commands::list(&backend).len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_group_goes_back_to_one_moment() {
    let backend = open(json!({})).await;
    let other = open(json!({})).await;
    let groups = run(&backend, "group-list", json!({})).await.expect("listed");
    for group in groups.as_array().expect("a list").iter().filter(|one| one["group"] == "pair") {
        tool("rbd", &["group", "rm", &format!("volumes/{}", group["group"].as_str().unwrap())]);
    }
    let snap = |name: &str| json!({ "group": "pair", "snapshot": name });
    let member = |name: &str| json!({ "group": "pair", "volume": name });
    let group = json!({ "group": "pair" });
    filled(&backend, "left", 1).await;
    filled(&backend, "right", 1).await;
    run(&backend, "group-create", group.clone()).await.expect("made");
    let exists = ErrorKind::ALREADY_EXISTS;
    refused(&backend, "group-create", group.clone(), exists, "another name").await;
    let empty = ErrorKind::INVALID_ARGUMENT;
    refused(&backend, "group-snapshot", snap("s"), empty, "group-add").await;
    for name in ["left", "right", "right"] {
        run(&backend, "group-add", member(name)).await.expect("added");
    }
    let listed = run(&backend, "group-list", json!({})).await.expect("listed");
    assert!(
        listed
            .as_array()
            .expect("a list")
            .contains(&json!({ "group": "pair", "volumes": ["left", "right"] })),
        "{listed}"
    );
    run(&backend, "group-snapshot", snap("first")).await.expect("taken");
    refused(&backend, "group-snapshot", snap("first"), exists, "another name").await;
    for name in ["left", "right"] {
        let volume = attach(&backend, name, 2).await;
        volume.write(&CX, 0, bytes(2, MIB), WriteFlags::NONE).await.expect("written");
        volume.detach(&CX).await.expect("detached");
    }

    // Attached, through this backend or another host's: refused before anything is touched, and writes go on.
    let volume = attach(&other, "right", 3).await;
    let in_use = ErrorKind::IN_USE;
    refused(&backend, "group-snapshot", snap("busy"), in_use, "novastor snapshot create").await;
    for (command, arguments) in [
        ("group-snapshot-rollback", snap("first")),
        ("group-snapshot-delete", snap("first")),
        ("group-remove", member("right")),
        ("group-delete", group.clone()),
    ] {
        refused(&backend, command, arguments, in_use, "right").await;
    }
    volume.write(&CX, 0, bytes(2, MIB), WriteFlags::NONE).await.expect("it serves on");
    volume.detach(&CX).await.expect("detached");
    let taken = run(&backend, "group-snapshots", group.clone()).await.expect("listed");
    let first = json!([{ "group": "pair", "snapshot": "first", "state": "complete" }]);
    assert_eq!(taken, first);

    run(&backend, "group-snapshot", snap("second")).await.expect("taken");
    filled_again(&backend, "left", 3).await;
    run(&backend, "group-snapshot-rollback", snap("second")).await.expect("rolled back");
    assert_eq!((content(&backend, "left").await, content(&backend, "right").await), (2, 2));
    run(&backend, "group-snapshot-rollback", snap("first")).await.expect("rolled back");
    assert_eq!((content(&backend, "left").await, content(&backend, "right").await), (1, 1));
    // Snapshots of the group are not the volume's own.
    let volume = attach(&backend, "left", 10).await;
    assert!(Snapshots::list(&volume, &CX).await.expect("listed").is_empty());
    volume.detach(&CX).await.expect("detached");

    // A member is not deleted, and keeps what it has.
    let error = backend.delete(&CX, "left").await.expect_err("a group has it");
    assert!(error.kind() == in_use && error.remedy_text().contains("group-remove"), "{error:#}");
    refused(&backend, "group-remove", member("left"), in_use, "group-snapshot-delete").await;
    refused(&backend, "group-delete", group.clone(), in_use, "group-snapshot-delete").await;
    refused(
        &backend,
        "group-snapshot-rollback",
        snap("third"),
        ErrorKind::NOT_FOUND,
        "group-snapshots",
    )
    .await;
    for name in ["first", "second"] {
        run(&backend, "group-snapshot-delete", snap(name)).await.expect("removed");
    }
    run(&backend, "group-remove", member("left")).await.expect("taken out");
    backend.delete(&CX, "left").await.expect("deleted");
    run(&backend, "group-delete", group.clone()).await.expect("removed");
    refused(&backend, "group-snapshots", group, ErrorKind::NOT_FOUND, "group-list").await;
    assert_eq!(content(&backend, "right").await, 1);
    backend.delete(&CX, "right").await.expect("deleted");
}

async fn filled_again(backend: &CephBackend, name: &str, value: u8) {
    let volume = attach(backend, name, 5).await;
    volume.write(&CX, 0, bytes(value, MIB), WriteFlags::NONE).await.expect("written");
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn mirroring_is_shown_where_it_is_enabled() {
    let backend = open(json!({})).await;
    let status = async || run(&backend, "mirror-status", json!({})).await.expect("told");
    let off = status().await;
    println!("{off}");
    assert_eq!((&off["mode"], &off["images"]), (&json!("disabled"), &json!([])));
    assert!(off["note"].as_str().expect("a note").contains("rbd mirror pool enable"));

    filled(&backend, "mirrored", 1).await;
    filled(&backend, "alone", 1).await;
    tool("rbd", &["mirror", "pool", "enable", "volumes", "image"]);
    tool("rbd", &["mirror", "image", "enable", "volumes/mirrored", "snapshot"]);
    let on = status().await;
    println!("{on}");
    let theirs = rbd(&["mirror", "image", "status", "volumes/mirrored"]);
    println!("{theirs}");
    // The snapshots that mirroring takes are not the volume's own.
    let volume = attach(&backend, "mirrored", 2).await;
    let own = Snapshots::list(&volume, &CX).await.expect("listed").len();
    volume.detach(&CX).await.expect("detached");
    tool("rbd", &["mirror", "image", "disable", "volumes/mirrored"]);
    tool("rbd", &["mirror", "pool", "disable", "volumes"]);
    assert_eq!(own, 0);
    assert_eq!(on["mode"], "image");
    let images = on["images"].as_array().expect("a list");
    assert_eq!(images.len(), 1, "{on}");
    let image = &images[0];
    assert_eq!((&image["volume"], &image["mode"]), (&json!("mirrored"), &json!("snapshot")));
    assert_eq!((&image["primary"], &image["up"]), (&json!(true), &json!(false)));
    assert_eq!((&image["state"], &image["site"]), (&json!("unknown"), &json!("local")));
    for name in ["mirrored", "alone"] {
        backend.delete(&CX, name).await.expect("deleted");
    }
}
