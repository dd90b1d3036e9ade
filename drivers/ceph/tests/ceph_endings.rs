// SPDX-License-Identifier: Apache-2.0
//! Backends and processes that end, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::{
    os::unix::process::ExitStatusExt,
    process::Command,
    time::{Duration, Instant},
};

use driver_api::{
    Backend, ErrorKind, Volume, WriteFlags,
    ext::{AllocationMap, Snapshots},
};
use serde_json::json;
use support::{CX, MIB, bytes, made, open, remove, size_of_process};

const ROUNDS: usize = 12;

/// Not a test of its own: drops a volume and its backend without a word, and exits at once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn holder_that_exits_at_once() {
    let Some(name) = std::env::var_os("HOLDER_NAME") else { return };
    let backend = open(json!({})).await;
    let volume = made(&backend, &name.to_string_lossy(), 16 * MIB).await;
    volume.write(&CX, 0, bytes(1, 4096), WriteFlags::NONE).await.expect("written");
    drop((volume, backend));
    std::process::exit(0);
}

/// Not a test of its own: exits while another thread drops the backend.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn holder_that_exits_while_it_drops() {
    let Some(after) = std::env::var_os("HOLDER_DROPS_AFTER_US") else { return };
    let after = after.to_string_lossy().parse().expect("microseconds");
    let backend = open(json!({})).await;
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(after));
        drop(backend);
    });
    std::process::exit(0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_process_that_exits_while_another_thread_drops_its_backend_does_not_crash() {
    for after in [0, 50, 100, 200, 500, 1000, 2000, 3000, 5000, 10_000, 20_000, 50_000] {
        let mut other = Command::new(std::env::current_exe().expect("this program"));
        other.args(["--exact", "holder_that_exits_while_it_drops", "--include-ignored"]);
        let ended = other.env("HOLDER_DROPS_AFTER_US", after.to_string()).output();
        let ended = ended.expect("started").status;
        assert!(ended.success(), "after {after} us: {ended}, signal {:?}", ended.signal());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_process_that_exits_while_its_connections_end_does_not_crash() {
    for round in 0..ROUNDS {
        let name = format!("left{round}");
        let mut other = Command::new(std::env::current_exe().expect("this program"));
        other.args(["--exact", "holder_that_exits_at_once", "--include-ignored"]);
        let ended = other.env("HOLDER_NAME", &name).output().expect("started").status;
        assert!(ended.success(), "round {round}: {ended}, signal {:?}", ended.signal());
    }
    // It left the register, too: nobody has to wait until the cluster finds it dead.
    let backend = open(json!({})).await;
    for round in 0..ROUNDS {
        backend.delete(&CX, &format!("left{round}")).await.expect("deleted");
    }
    backend.close(&CX).await.expect("closed");
}

/// Not a test of its own: opens and closes snapshots of a volume, one after the other.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn holder_that_opens_and_closes() {
    let Some(name) = std::env::var_os("HOLDER_NAME") else { return };
    let backend = open(json!({})).await;
    let volume = made(&backend, &name.to_string_lossy(), 16 * MIB).await;
    Snapshots::create(&volume, &CX, "first").await.expect("taken");
    volume.write(&CX, 0, bytes(1, 4096), WriteFlags::NONE).await.expect("written");
    Snapshots::create(&volume, &CX, "second").await.expect("taken");
    for round in 0..20 {
        let asked = AllocationMap::changes(&volume, &CX, "first", "second", 0, 16 * MIB, 10);
        let told = asked.await.unwrap_or_else(|error| panic!("round {round}: {error:#}"));
        assert_eq!(told.len(), 1, "round {round}: {told:?}");
    }
    volume.detach(&CX).await.expect("detached");
    remove(&backend, &name.to_string_lossy()).await;
    backend.close(&CX).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn an_image_that_is_closed_at_once_crashes_nothing_if_threads_of_librados_are_late() {
    let scratch = tempfile::tempdir().expect("a directory");
    let late = scratch.path().join("late.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slow_to_go_on.c");
    let built =
        Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&late).arg(source).status();
    assert!(built.expect("gcc").success());
    let mut other = Command::new(std::env::current_exe().expect("this program"));
    other.args(["--exact", "holder_that_opens_and_closes", "--include-ignored"]);
    other.env("HOLDER_NAME", "closed-at-once").env("LD_PRELOAD", &late);
    // What is freed is filled with something else, for who uses it nevertheless.
    other.env("GLIBC_TUNABLES", "glibc.malloc.perturb=165");
    let ended = other.output().expect("started");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}: {said}", ended.status);
}

fn threads_of_connections() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names
        .filter(|name| name.starts_with("nova-ceph-end") || name.starts_with("msgr-worker"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn closing_a_backend_ends_its_connections() {
    let mut before = (0, 0);
    for round in 0..6 {
        let backend = open(json!({})).await;
        let volume = made(&backend, "closing", 16 * MIB).await;
        let error = backend.close(&CX).await.expect_err("a volume is attached");
        assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}");
        volume.write(&CX, 0, bytes(1, 4096), WriteFlags::NONE).await.expect("it serves on");
        // Dropped, not detached: closing waits for it.
        drop(volume);
        backend.delete(&CX, "closing").await.ok();
        backend.close(&CX).await.expect("closed");
        // A thread that has done its work is listed for a moment yet.
        let deadline = Instant::now() + Duration::from_secs(2);
        while threads_of_connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(threads_of_connections(), 0, "threads of connections are left in round {round}");
        // Nobody connects anew after that.
        let error = backend.list(&CX).await.expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::UNAVAILABLE, "{error:#}");
        if round == 0 {
            before = size_of_process();
        }
    }
    let after = size_of_process();
    println!("threads and KiB: {before:?}, {after:?}");
    assert!(after.0 <= before.0 + 2, "threads: {before:?}, {after:?}");
}
