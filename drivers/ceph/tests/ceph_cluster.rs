// SPDX-License-Identifier: Apache-2.0
//! Against a real cluster, which `NOVASTOR_CEPH=DIR` names; `tests/services/ceph with COMMAND` makes one for a command.
//! They stop daemons and fill the pool `volumes`, so they run one at a time, and nothing else beside them: `tests/run` asks
//! for them in a step of their own.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ceph::CephBackend;
use driver_api::{Attach, AttachMode, Backend, ErrorKind, Volume, WriteFlags};
use serde_json::{Value, json};
use support::{CX, MIB, admin, attach, bytes, config, made, open, size_of_process};

/// Opens what cannot be opened; the text names `words`, and a remedy, within the time.
async fn refused(changes: Value, kind: ErrorKind, words: &[&str]) {
    let begun = Instant::now();
    let error = CephBackend::open("c", config(&changes)).await.err().expect("refused");
    let text = format!("{error:#}");
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(!error.remedy_text().is_empty(), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{text} took {:?}", begun.elapsed());
    println!("{} ms: {text}", begun.elapsed().as_millis());
}

const WRONG_KEY: &str = "AQDRhRlnAAAAABAAmNpyYNGGeSAqtDwkHMo0LQ==";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn what_is_wrong_with_a_connection_is_said_in_time() {
    let unauthenticated = ErrorKind::UNAUTHENTICATED;
    let key = "its key is wrong";
    refused(json!({ "key": WRONG_KEY }), unauthenticated, &["client.novastor", key]).await;
    let stranger = json!({ "user": "stranger", "key": WRONG_KEY });
    refused(stranger, unauthenticated, &["client.stranger", "no such user"]).await;
    let nobody = json!({ "user": "nobody" });
    refused(nobody, unauthenticated, &["client.nobody", "its keyring cannot be read or has none"])
        .await;
    let lost = json!({ "keyring": "/nowhere/keyring" });
    refused(lost, unauthenticated, &["client.novastor", "its keyring cannot be read"]).await;
    let nowhere = json!({ "monitors": ["v2:127.0.0.1:1"] });
    refused(nowhere, ErrorKind::UNAVAILABLE, &["within 5 s", "127.0.0.1:1"]).await;
    let pool = json!({ "pool": "nowhere" });
    refused(pool, ErrorKind::NOT_FOUND, &["nowhere", "ceph osd pool create"]).await;
    let namespace = json!({ "namespace": "nowhere" });
    refused(namespace, ErrorKind::NOT_FOUND, &["nowhere", "rbd namespace create"]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn failed_connections_leave_nothing_behind() {
    let mut before = (0, 0);
    for round in 0..220 {
        if round == 20 {
            before = size_of_process();
        }
        let wrong = config(&json!({ "key": WRONG_KEY }));
        CephBackend::open("c", wrong).await.err().expect("refused");
    }
    let after = size_of_process();
    println!("threads and KiB: {before:?}, {after:?}");
    assert!(after.0 <= before.0 + 4, "threads: {before:?}, {after:?}");
    assert!(after.1 <= before.1 + (16 << 10), "KiB: {before:?}, {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_full_pool_is_no_failed_one() {
    let quota = |bytes: &str| admin(&["osd", "pool", "set-quota", "volumes", "max_bytes", bytes]);
    let backend = open(json!({ "osd_op_timeout_secs": 60 })).await;
    let volume = made(&backend, "full", 256 * MIB).await;
    volume.write(&CX, 0, bytes(1, MIB), WriteFlags::NONE).await.expect("written");
    quota("1000000");
    let begun = Instant::now();
    let mut at = 0;
    let error = loop {
        let written = volume.write(&CX, at * MIB % volume.size(), bytes(2, MIB), WriteFlags::NONE);
        match written.await {
            Ok(()) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => break error,
        }
        at += 1;
        assert!(begun.elapsed() < Duration::from_secs(60), "the pool does not become full");
    };
    let read = volume.read(&CX, 0, 4096).await;
    let flushed = volume.flush(&CX).await;
    quota("0");
    println!("{error:#}");
    assert_eq!(error.kind(), ErrorKind::NO_SPACE, "{error:#}");
    assert!(error.remedy_text().contains("quota"), "{error:#}");
    assert_eq!(read.expect("read")[0], 2);
    flushed.expect("a refused write is no lost one");
    // Each OSD hears of it at another moment: every object of the volume is tried.
    let again = async || {
        for at in (0..volume.size()).step_by(4 << 20) {
            volume.write(&CX, at, bytes(3, 4096), WriteFlags::NONE).await?;
        }
        volume.flush(&CX).await
    };
    while again().await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(120), "the pool stays full");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "full").await.expect("deleted");
}

/// What a holder ends with that was fenced.
const FENCED: i32 = 7;

/// Not a test of its own: has a volume and writes to it until it is refused.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests"]
async fn holder() {
    let Some(ready) = std::env::var_os("HOLDER_READY") else { return };
    let backend = open(json!({})).await;
    let volume = attach(&backend, "held", 1).await;
    for round in 0.. {
        if let Err(error) = volume.write(&CX, 0, bytes(9, 4096), WriteFlags::NONE).await {
            let flushed = volume.flush(&CX).await.map_err(|error| error.kind());
            let fenced = error.kind() == ErrorKind::FENCED && flushed == Err(ErrorKind::FENCED);
            std::process::exit(if fenced { FENCED } else { 1 });
        }
        if round == 0 {
            std::fs::write(&ready, "").expect("noted");
        }
    }
}

/// Another process that has the volume `held` and writes to it.
fn another_host(ready: &Path) -> std::process::Child {
    let mut other = Command::new(std::env::current_exe().expect("this program"));
    other.args(["--exact", "holder", "--include-ignored"]).env("HOLDER_READY", ready);
    let other = other.stdout(std::process::Stdio::null()).spawn().expect("started");
    let begun = Instant::now();
    while !ready.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the other host does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    other
}

/// The code that a process ends with; one that does not end is killed.
fn ended_within(process: &mut std::process::Child, limit: Duration) -> Option<i32> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(status) = process.try_wait().expect("a child") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    process.kill().expect("killed");
    process.wait().expect("ended");
    panic!("the other host goes on as if nothing had happened");
}

fn signal(process: &std::process::Child, signal: i32) {
    let pid = libc::pid_t::try_from(process.id()).expect("a process id");
    // SAFETY: a call with two numbers; the process is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn nothing_lands_of_a_host_that_was_stopped_while_another_took_over() {
    let room = tempfile::tempdir().expect("a directory");
    let backend = open(json!({})).await;
    made(&backend, "held", 16 * MIB).await.detach(&CX).await.expect("detached");
    let mut other = another_host(&room.path().join("ready"));
    signal(&other, libc::SIGSTOP);
    let polite = Attach::new(AttachMode::EXCLUSIVE, 2, "this host");
    let refused = backend.attach(&CX, "held", polite.clone()).await.err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    let before = size_of_process();
    let volume = backend.attach(&CX, "held", polite.force()).await.expect("taken over");
    println!("threads and KiB of an attachment: {before:?}, {:?}", size_of_process());
    volume.write(&CX, 0, bytes(5, 4096), WriteFlags::NONE).await.expect("written");
    volume.flush(&CX).await.expect("flushed");
    signal(&other, libc::SIGCONT);
    assert_eq!(ended_within(&mut other, Duration::from_secs(30)), Some(FENCED));
    assert_eq!(volume.read(&CX, 0, 4096).await.expect("read")[..], [5; 4096]);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "held").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_host_that_died_is_noticed_without_force() {
    let room = tempfile::tempdir().expect("a directory");
    let backend = open(json!({})).await;
    made(&backend, "held", 16 * MIB).await.detach(&CX).await.expect("detached");
    let mut other = another_host(&room.path().join("ready"));
    other.kill().expect("killed");
    other.wait().expect("ended");
    let begun = Instant::now();
    let volume = loop {
        let attach = Attach::new(AttachMode::EXCLUSIVE, 2, "this host");
        match backend.attach(&CX, "held", attach).await {
            Ok(volume) => break volume,
            Err(error) => assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "its death is not noticed");
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    println!("noticed after {:?}", begun.elapsed());
    assert_eq!(volume.read(&CX, 0, 4096).await.expect("read")[..], [9; 4096]);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "held").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn readers_that_are_taken_over_read_nothing_more() {
    let backend = open(json!({})).await;
    let volume = made(&backend, "read", 16 * MIB).await;
    volume.write(&CX, 0, bytes(1, 4096), WriteFlags::NONE).await.expect("written");
    volume.detach(&CX).await.expect("detached");
    // They have no exclusive lock that could be broken: only the register tells whom to fence.
    let mut readers = Vec::new();
    for owner in ["one", "two"] {
        let attach = Attach::new(AttachMode::READ_ONLY, 2, owner);
        readers.push(backend.attach(&CX, "read", attach).await.expect("attached"));
    }
    let polite = Attach::new(AttachMode::EXCLUSIVE, 3, "writer");
    let refused = backend.attach(&CX, "read", polite.clone()).await.err().expect("refused");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    assert_eq!(readers[0].read(&CX, 0, 512).await.expect("read")[..], [1; 512]);
    let writer = backend.attach(&CX, "read", polite.force()).await.expect("taken over");
    writer.write(&CX, 0, bytes(2, 4096), WriteFlags::NONE).await.expect("written");
    for reader in readers {
        let read = tokio::time::timeout(Duration::from_secs(20), reader.read(&CX, 0, 512));
        let error = read.await.expect("an answer").expect_err("it has been taken over");
        assert_eq!(error.kind(), ErrorKind::FENCED, "{error:#}");
    }
    writer.detach(&CX).await.expect("detached");
    backend.delete(&CX, "read").await.expect("deleted");
}
