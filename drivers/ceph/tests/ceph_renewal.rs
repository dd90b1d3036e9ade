// SPDX-License-Identifier: Apache-2.0
//! Volumes whose writes time out and that work again by themselves, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::{
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use ceph::{CephBackend, CephVolume};
use driver_api::{
    Attach, AttachMode, Backend, Error, ErrorKind, HealthState, Result, Volume, WriteFlags,
};
use serde_json::json;
use support::{
    CX, MIB, admin, attach, bytes, dir, made, open, service, size_of_process, tool, value,
};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(4);
/// How much earlier than asked for librados may find a deadline passed: its clock is the coarse one.
const CLOCK_STEP: Duration = Duration::from_millis(20);

fn osds(signal: &str) {
    for osd in ["osd.0", "osd.1", "osd.2"] {
        service(&["daemon", osd, signal]);
    }
}

async fn hasty() -> CephBackend {
    open(json!({ "osd_op_timeout_secs": DEADLINE.as_secs(), "librbd_counters": true })).await
}

async fn write(volume: &CephVolume, offset: u64, byte: u8) -> Result<()> {
    volume.write(&CX, offset, bytes(byte, 4096), WriteFlags::NONE).await
}

async fn read(volume: &CephVolume, offset: u64) -> Result<u8> {
    let found = volume.read(&CX, offset, 4096).await?;
    assert!(found.iter().all(|byte| *byte == found[0]), "a torn block");
    Ok(found[0])
}

/// Stops the OSDs until a write of this byte has failed.
async fn lose_a_write(volume: &CephVolume, byte: u8) -> Error {
    osds("STOP");
    let begun = Instant::now();
    let written = write(volume, 0, byte).await;
    let waited = begun.elapsed();
    osds("CONT");
    let error = written.expect_err("nobody answered");
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{error:#}");
    // librados looks at its deadlines every 5 s, by a clock that steps by some milliseconds.
    assert!((DEADLINE - CLOCK_STEP..SECOND * 11).contains(&waited), "{waited:?}");
    error
}

/// Flushes until one fails that says it is settled: others may have waited in vain.
async fn told(volume: &CephVolume) -> Error {
    let begun = Instant::now();
    loop {
        match volume.flush(&CX).await {
            Ok(()) => panic!("a flush vouched for a write whose outcome is not known"),
            Err(error) if error.kind() == ErrorKind::CORRUPTED => return error,
            Err(error) => assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{error:#}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not work again");
    }
}

/// The first byte of an image, as a client reads it that has nothing to do with the driver.
fn first_byte(name: &str) -> u8 {
    let conf = dir().join("ceph.conf");
    let mut rbd = Command::new("rbd");
    rbd.arg("-c").arg(conf).args(["export", "--no-progress", &format!("volumes/{name}"), "-"]);
    let out = rbd.output().expect("started");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout[0]
}

/// The client that has the volume in the register, and its address.
fn holder_of(volume: &str) -> (String, String) {
    let image = support::rbd(&["info", &format!("volumes/{volume}")]);
    let object = format!("rbd_header.{}", image["id"].as_str().expect("an identity"));
    let told =
        tool("rados", &["-p", "volumes", "lock", "info", &object, "novastor", "--format", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let lockers = told["lockers"].as_array().expect("entries");
    assert_eq!(lockers.len(), 1, "{told}");
    let text = |name: &str| lockers[0][name].as_str().expect("a text").to_owned();
    (text("name"), text("addr"))
}

/// Without the version of the protocol.
fn bare(address: &str) -> String {
    address.trim_start_matches("v1:").trim_start_matches("v2:").to_owned()
}

fn blocklist() -> String {
    admin(&["osd", "blocklist", "ls"])
}

/// Some 200 MiB under way at once.
const OPERATIONS: u64 = 1600;
const OPERATION_LEN: u64 = 128 << 10;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn who_asks_a_cluster_that_hangs_is_not_held_up() {
    let backend = open(json!({ "osd_op_timeout_secs": 20 })).await;
    let volume = made(&backend, "crowd", OPERATIONS * OPERATION_LEN).await;
    let ask = |byte: u64| -> Vec<_> {
        let write = |number| {
            let data = bytes((number + byte) as u8, OPERATION_LEN);
            volume.write(&CX, number * OPERATION_LEN, data, WriteFlags::NONE)
        };
        (0..OPERATIONS).map(write).collect()
    };
    // The first write of an object waits for the object map.
    for write in ask(0) {
        write.await.expect("written");
    }
    osds("STOP");
    let writes = ask(1);
    // Had one of them waited for room, it would have waited until others failed.
    let under_way = value(&volume.stats(), "write_in_flight");
    osds("CONT");
    assert_eq!(under_way, OPERATIONS as f64);
    for (number, write) in writes.into_iter().enumerate() {
        write.await.unwrap_or_else(|error| panic!("write {number}: {error:#}"));
    }
    assert_eq!(read(&volume, 257 * OPERATION_LEN).await.expect("read"), 2);
    volume.detach(&CX).await.expect("detached");
    support::remove(&backend, "crowd").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_volume_works_again_after_a_write_that_timed_out() {
    let backend = hasty().await;
    let volume = made(&backend, "doubt", 16 * MIB).await;
    write(&volume, 0, 1).await.expect("written");
    volume.flush(&CX).await.expect("flushed");
    write(&volume, 4096, 7).await.expect("acknowledged, not flushed");
    let (first, address) = holder_of("doubt");
    println!("{:#}", lose_a_write(&volume, 2).await);
    let begun = Instant::now();
    let error = told(&volume).await;
    println!("after {:?}: {error:#}", begun.elapsed());
    assert!(error.remedy_text().contains("read again"), "{error:#}");
    // Told once: the volume serves on under the same attachment.
    volume.flush(&CX).await.expect("flushed");
    let found = read(&volume, 0).await.expect("read");
    assert!([1, 2].contains(&found), "{found}");
    assert_eq!(read(&volume, 4096).await.expect("read"), 7, "an acknowledged write is lost");
    write(&volume, MIB, 3).await.expect("written");
    volume.flush(&CX).await.expect("flushed");
    // Another client has the register, and the first is fenced: nothing of it lands any more.
    let (second, _) = holder_of("doubt");
    assert_ne!(first, second);
    assert!(blocklist().contains(&bare(&address)), "{address} is not in {}", blocklist());
    for _ in 0..4 {
        assert_eq!(first_byte("doubt"), found, "a write landed after a flush");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stats = volume.stats();
    assert_eq!(value(&stats, "writes_in_doubt"), 0.0);
    assert_eq!(value(&stats, "renewals_total"), 1.0);
    assert_eq!(value(&stats, "flush_in_flight") + value(&stats, "write_in_flight"), 0.0);
    backend.health(&CX).await.expect("asked");
    assert!(value(&volume.stats(), "librbd_asked_seconds_ago") < 5.0, "of the new client");
    volume.detach(&CX).await.expect("detached");
    // It left the register.
    let volume = attach(&backend, "doubt", 2).await;
    assert_eq!(read(&volume, MIB).await.expect("read"), 3);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "doubt").await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn what_is_under_way_when_the_client_is_replaced_goes_on_with_the_next() {
    let deadline = Duration::from_secs(10);
    let backend = open(json!({ "osd_op_timeout_secs": deadline.as_secs() })).await;
    let volume = made(&backend, "busy", 64 * MIB).await;
    for block in 0..16 {
        write(&volume, block * MIB, 1).await.expect("written");
    }
    let (_, address) = holder_of("busy");
    osds("STOP");
    let lost = tokio::spawn({
        let volume = volume.clone();
        async move { write(&volume, 0, 2).await }
    });
    tokio::time::sleep(deadline - Duration::from_millis(500)).await;
    let mut later = Vec::new();
    for block in 1..16 {
        let volume = volume.clone();
        later.push(tokio::spawn(async move {
            let asked = Instant::now();
            let done = if block % 2 == 0 {
                write(&volume, block * MIB, 3).await
            } else {
                read(&volume, block * MIB).await.map(|byte| assert_eq!(byte, 1))
            };
            (block, asked.elapsed(), done)
        }));
    }
    let under_way = tokio::spawn({
        let volume = volume.clone();
        async move { volume.flush(&CX).await }
    });
    let error = lost.await.expect("joined").expect_err("nobody answered");
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{error:#}");
    let health = backend.health(&CX).await.expect("asked");
    assert_eq!(health.state, HealthState::DEGRADED, "{health:?}");
    // Before the OSDs have a chance to answer: what they then have of it they refuse, mostly.
    admin(&["osd", "blocklist", "add", &bare(&address)]);
    osds("CONT");
    let (back, mut done) = (Instant::now(), Vec::new());
    for task in later {
        let (block, took, outcome) = task.await.expect("joined");
        match outcome {
            Ok(()) => done.push(block),
            // On a busy machine: never before its deadline, and never because its client was fenced.
            Err(error) => {
                let text = format!("block {block}, after {took:?}: {error:#}");
                assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{text}");
                assert!(took >= deadline - Duration::from_millis(100), "{text}");
            }
        }
    }
    println!("{} of 15 done {:?} after the OSDs went on", done.len(), back.elapsed());
    under_way.await.expect("joined").expect_err("it was asked before the write failed");
    if value(&volume.stats(), "writes_in_doubt") > 0.0 {
        told(&volume).await;
    }
    volume.flush(&CX).await.expect("flushed");
    for block in done.into_iter().filter(|block| block % 2 == 0) {
        assert_eq!(read(&volume, block * MIB).await.expect("read"), 3, "block {block} is lost");
    }
    let stats = volume.stats();
    for name in ["read_in_flight", "write_in_flight", "flush_in_flight"] {
        assert_eq!(value(&stats, name), 0.0, "{name}");
    }
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "busy").await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}

/// What a holder ends with that was fenced.
const FENCED: i32 = 7;

/// Not a test of its own: loses a write, and goes on until it is refused.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn holder_that_loses_a_write() {
    let Some(room) = std::env::var_os("HOLDER_ROOM") else { return };
    let room = Path::new(&room);
    let backend = hasty().await;
    let volume = attach(&backend, "held", 1).await;
    write(&volume, 0, 8).await.expect("written");
    std::fs::write(room.join("ready"), "").expect("noted");
    while write(&volume, 0, 9).await.is_ok() {}
    std::fs::write(room.join("in-doubt"), "").expect("noted");
    loop {
        match volume.flush(&CX).await {
            Ok(()) => std::process::exit(1),
            Err(error) if error.kind() == ErrorKind::FENCED => break,
            Err(_) => {}
        }
    }
    let written = write(&volume, 0, 9).await.map_err(|error| error.kind());
    let detached = volume.detach(&CX).await.map_err(|error| error.kind());
    let fenced = written == Err(ErrorKind::FENCED) && detached == Err(ErrorKind::FENCED);
    std::process::exit(if fenced { FENCED } else { 2 });
}

fn appears(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(process: &Child, signal: i32) {
    let pid = libc::pid_t::try_from(process.id()).expect("a process id");
    // SAFETY: a call with two numbers; the process is a child that was not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_host_that_was_taken_over_while_it_replaced_its_client_is_fenced() {
    let room = tempfile::tempdir().expect("a directory");
    let backend = open(json!({})).await;
    made(&backend, "held", 16 * MIB).await.detach(&CX).await.expect("detached");
    let mut other = Command::new(std::env::current_exe().expect("this program"));
    other.args(["--exact", "holder_that_loses_a_write", "--include-ignored"]);
    let mut other = other.env("HOLDER_ROOM", room.path()).spawn().expect("started");
    appears(&room.path().join("ready"));
    osds("STOP");
    appears(&room.path().join("in-doubt"));
    signal(&other, libc::SIGSTOP);
    osds("CONT");
    let forced = Attach::new(AttachMode::EXCLUSIVE, 2, "this host").force();
    let begun = Instant::now();
    let volume = loop {
        match backend.attach(&CX, "held", forced.clone()).await {
            Ok(volume) => break volume,
            Err(error) => println!("{error:#}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it is not taken over");
    };
    write(&volume, 0, 5).await.expect("written");
    volume.flush(&CX).await.expect("flushed");
    signal(&other, libc::SIGCONT);
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = other.try_wait().expect("a child") {
            break status.code();
        }
        if begun.elapsed() > Duration::from_secs(60) {
            other.kill().expect("killed");
            panic!("the other host goes on");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(code, Some(FENCED));
    assert_eq!(read(&volume, 0).await.expect("read"), 5);
    write(&volume, 0, 6).await.expect("this host still has it");
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "held").await.expect("deleted");
}

fn threads_of_the_driver() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("tasks").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("nova-ceph-")).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn detaching_ends_a_renewal_and_what_is_in_doubt_never_lands() {
    let backend = hasty().await;
    let volume = made(&backend, "left", 16 * MIB).await;
    write(&volume, 0, 1).await.expect("written");
    let (_, address) = holder_of("left");
    osds("STOP");
    write(&volume, 0, 2).await.expect_err("nobody answered");
    let begun = Instant::now();
    let error = volume.detach(&CX).await.expect_err("a detach vouched");
    let took = begun.elapsed();
    osds("CONT");
    println!("after {took:?}: {error:#}");
    assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{error:#}");
    assert!(took < 4 * DEADLINE, "{took:?}");
    assert!(error.remedy_text().contains("attach"), "{error:#}");
    drop(volume);
    while threads_of_the_driver() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "threads are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The next attachment fences it, as soon as the cluster finds it dead.
    let volume = loop {
        let polite = Attach::new(AttachMode::EXCLUSIVE, 2, "this host");
        match backend.attach(&CX, "left", polite).await {
            Ok(volume) => break volume,
            Err(error) => assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "it stays in use");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert!(blocklist().contains(&bare(&address)), "{address} is not in {}", blocklist());
    write(&volume, 0, 3).await.expect("written");
    volume.flush(&CX).await.expect("flushed");
    assert_eq!(read(&volume, 0).await.expect("read"), 3);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "left").await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn threads_and_memory_stay_flat_over_renewals() {
    let backend = hasty().await;
    let volume = made(&backend, "flat", 16 * MIB).await;
    let mut before = (0, 0);
    for round in 1..=6 {
        lose_a_write(&volume, round).await;
        told(&volume).await;
        write(&volume, 0, 100 + round).await.expect("written");
        volume.flush(&CX).await.expect("flushed");
        let begun = Instant::now();
        while threads_of_the_driver() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "threads are left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let now = size_of_process();
        println!("round {round}: threads and KiB: {now:?}");
        if round == 2 {
            before = now;
        }
    }
    let after = size_of_process();
    assert!(after.0 <= before.0 + 3, "threads: {before:?}, {after:?}");
    assert!(after.1 <= before.1 + (8 << 10), "KiB: {before:?}, {after:?}");
    assert_eq!(value(&volume.stats(), "renewals_total"), 6.0);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "flat").await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}
