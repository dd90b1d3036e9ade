// SPDX-License-Identifier: Apache-2.0
//! What volumes can do beside reads and writes, against a real cluster, which `NOVASTOR_CEPH=DIR` names:
//! `tests/services/ceph with COMMAND` makes one for a command.
#![allow(missing_docs)]
#![cfg(librbd)]

use std::{
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ceph::{CephBackend, CephVolume};
use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, IoBuf, OpContext, Volume, VolumeSpec, WriteFlags,
    ext::{AllocationMap, Clones, Extent, ExtentFlags, Flattening, Resize, Snapshots},
};
use serde_json::json;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const CX: OpContext = OpContext::new();

fn conf() -> PathBuf {
    let dir =
        std::env::var_os("NOVASTOR_CEPH").expect("NOVASTOR_CEPH names the cluster's directory");
    PathBuf::from(dir).join("ceph.conf")
}

/// Ceph's own tools, as the administrator.
fn ask(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).arg("-c").arg(conf()).args(arguments).output().expect("started")
}

fn rbd(arguments: &[&str]) -> String {
    let out = ask("rbd", arguments);
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

async fn open() -> CephBackend {
    open_with(json!({})).await
}

async fn open_with(more: serde_json::Value) -> CephBackend {
    let mut options = json!({ "conf_file": conf(), "user": "novastor", "pool": "volumes" });
    for (key, value) in more.as_object().expect("a table") {
        options[key] = value.clone();
    }
    let config = serde_json::from_value(options).expect("options");
    CephBackend::open("c", config).await.expect("opened")
}

/// Waits until the connections of backends and volumes that were dropped have ended: a process that ends meanwhile crashes.
async fn all_ended() {
    let is_ending = || {
        let threads = std::fs::read_dir("/proc/self/task").expect("threads").flatten();
        let mut names =
            threads.flat_map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names.any(|name| name.starts_with("nova-ceph-end"))
    };
    let (begun, mut quiet) = (Instant::now(), 0);
    // What the last call still holds is dropped a moment later.
    while quiet < 10 {
        assert!(begun.elapsed() < Duration::from_secs(30), "a connection does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
        quiet = if is_ending() { 0 } else { quiet + 1 };
    }
}

async fn gone(backend: &CephBackend, name: &str) {
    match backend.delete(&CX, name).await {
        Err(error) if error.kind() != ErrorKind::NOT_FOUND => panic!("{error:#}"),
        _ => {}
    }
}

async fn made(backend: &CephBackend, name: &str, size: u64) -> CephVolume {
    gone(backend, name).await;
    backend.create(&CX, VolumeSpec::new(name, size)).await.expect("created");
    attach(backend, name).await
}

async fn attach(backend: &CephBackend, name: &str) -> CephVolume {
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
    backend.attach(&CX, name, attach).await.expect("attached")
}

/// Numbers that look random, and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| 1 + self.below(255) as u8).collect()
    }
}

async fn write(volume: &CephVolume, at: u64, data: &[u8]) {
    for (index, piece) in data.chunks(MIB as usize).enumerate() {
        let at = at + index as u64 * MIB;
        volume.write(&CX, at, IoBuf::copy_from(piece), WriteFlags::NONE).await.expect("written");
    }
}

async fn content(volume: &CephVolume) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < volume.size() {
        let len = (volume.size() - bytes.len() as u64).min(MIB) as u32;
        bytes.extend_from_slice(&volume.read(&CX, bytes.len() as u64, len).await.expect("read"));
    }
    bytes
}

/// All that is told of a range, asked for as the contract says.
async fn changes(
    volume: &CephVolume,
    (from, to): (&str, &str),
    range: std::ops::Range<u64>,
    limit: u32,
) -> Vec<Extent> {
    let (mut at, mut all) = (range.start, Vec::<Extent>::new());
    while at < range.end {
        let asked = AllocationMap::changes(volume, &CX, from, to, at, range.end - at, limit);
        let more = asked.await.expect("told");
        assert!(more.len() <= limit as usize);
        let Some(last) = more.last() else { break };
        let mut from = at;
        for one in &more {
            assert!(one.offset >= from && one.len > 0, "{one:?} does not follow {from}");
            from = one.offset + one.len;
        }
        assert!(from <= range.end);
        at = last.offset + last.len;
        all.extend(more);
    }
    all
}

/// Every byte that differs is told, and what is called zero is zero. Gives the bytes told that do not differ.
fn agree(told: &[Extent], before: &[u8], after: &[u8], when: &str) -> u64 {
    let mut marked = vec![false; after.len()];
    for one in told {
        let range = one.offset as usize..(one.offset + one.len) as usize;
        marked[range.clone()].fill(true);
        if one.flags.has(ExtentFlags::ZERO) {
            assert!(after[range].iter().all(|byte| *byte == 0), "{when}: {one:?} has data");
        }
    }
    let mut needless = 0;
    for (at, byte) in after.iter().enumerate() {
        let differs = before.get(at).copied().unwrap_or(0) != *byte;
        assert!(marked[at] || !differs, "{when}: byte {at} differs and is not told: {told:?}");
        needless += u64::from(marked[at] && !differs);
    }
    needless
}

/// Changes that a file system would make, some across objects.
async fn stir(volume: &CephVolume, random: &mut Random, rounds: u64) {
    for _ in 0..rounds {
        let len = (1 + random.below(600)) * KIB;
        let at = random.below(volume.size() - len);
        match random.below(4) {
            0 => volume.discard(&CX, at, len).await.expect("discarded"),
            1 => {
                let whole = 4 * MIB;
                let at = at - at % whole;
                let len = whole.min(volume.size() - at);
                volume.discard(&CX, at, len).await.expect("discarded");
            }
            2 => volume.write_zeroes(&CX, at, len, WriteFlags::NO_HOLE).await.expect("zeroed"),
            _ => write(volume, at, &random.bytes(len)).await,
        }
    }
}

async fn snapshot(volume: &CephVolume, name: &str) {
    Snapshots::create(volume, &CX, name).await.expect("taken");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn what_changed_is_told_and_nothing_of_it_is_missed() {
    let backend = open().await;
    for seed in 1..=3 {
        let volume = made(&backend, "stirred", 24 * MIB).await;
        let mut random = Random(seed);
        let mut pictures = vec![(String::new(), Vec::new())];
        for (number, size) in [24, 24, 30, 17, 26].into_iter().enumerate() {
            // Not only whole objects: the last one is cut off, and grows again.
            let size = size * MIB + number as u64 * 4096;
            Resize::resize(&volume, &CX, size, true).await.expect("resized");
            stir(&volume, &mut random, 20).await;
            let name = format!("s{number}");
            snapshot(&volume, &name).await;
            pictures.push((name, content(&volume).await));
        }
        stir(&volume, &mut random, 10).await;
        let now = content(&volume).await;
        let (mut told, mut needless) = (0, 0);
        for (index, (from, before)) in pictures.iter().enumerate() {
            let later = pictures[index + 1..].iter().map(|(name, bytes)| (name.as_str(), bytes));
            for (to, after) in later.chain([("", &now)]) {
                let when = format!("seed {seed}, {from:?} to {to:?}");
                let len = after.len() as u64;
                let all = changes(&volume, (from, to), 0..len, 3).await;
                needless += agree(&all, before, after, &when);
                told += all.iter().map(|one| one.len).sum::<u64>();
                let at_once = changes(&volume, (from, to), 0..len, 10_000).await;
                assert_eq!(sum(&all), sum(&at_once), "{when}");
                let (start, end) = (random.below(len / 2), len / 2 + random.below(len / 2));
                let part = changes(&volume, (from, to), start..end, 10_000).await;
                assert_eq!(sum(&part), within(&at_once, start..end), "{when}, {start} to {end}");
            }
        }
        println!("seed {seed}: {told} bytes told, {needless} of them do not differ");
        let refused = |from, to, offset, len| {
            let asked = AllocationMap::changes(&volume, &CX, from, to, offset, len, 10);
            async move { asked.await.err().map(|error| error.kind()) }
        };
        assert_eq!(refused("s2", "s1", 0, MIB).await, Some(ErrorKind::INVALID_ARGUMENT));
        assert_eq!(refused("none", "", 0, MIB).await, Some(ErrorKind::NOT_FOUND));
        assert_eq!(refused("s1", "none", 0, MIB).await, Some(ErrorKind::NOT_FOUND));
        let end = pictures[4].1.len() as u64;
        assert_eq!(refused("s0", "s3", end, 1).await, Some(ErrorKind::OUT_OF_RANGE));
        assert_eq!(refused("s1", "s1", 0, MIB).await, None);
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, "stirred").await.expect("deleted");
    }
    drop(backend);
    all_ended().await;
}

fn sum(extents: &[Extent]) -> u64 {
    extents.iter().map(|one| one.len).sum()
}

fn within(extents: &[Extent], range: std::ops::Range<u64>) -> u64 {
    let part = |one: &Extent| {
        let (start, end) = (one.offset.max(range.start), (one.offset + one.len).min(range.end));
        end.saturating_sub(start)
    };
    extents.iter().map(part).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn what_changed_in_a_clone_is_told_too() {
    let backend = open().await;
    gone(&backend, "twin").await;
    let source = made(&backend, "original", 16 * MIB).await;
    let mut random = Random(7);
    write(&source, 0, &random.bytes(16 * MIB)).await;
    source.detach(&CX).await.expect("detached");
    backend.clone_volume(&CX, "original", "", VolumeSpec::new("twin", 0)).await.expect("cloned");
    let volume = attach(&backend, "twin").await;
    let mut pictures = vec![(String::new(), Vec::new())];
    for round in 0..4 {
        let name = format!("s{round}");
        snapshot(&volume, &name).await;
        pictures.push((name, content(&volume).await));
        // Whole objects that only the source had are freed, some that were written, too.
        volume.discard(&CX, round * 4 * MIB, 4 * MIB).await.expect("discarded");
        stir(&volume, &mut random, 6).await;
    }
    let flat = async || {
        backend.flatten(&CX, "twin", true).await.expect("begun");
        until_flat(&backend, "twin").await
    };
    for round in ["shared", "flat"] {
        let now = content(&volume).await;
        for (index, (from, before)) in pictures.iter().enumerate() {
            let later = pictures[index + 1..].iter().map(|(name, bytes)| (name.as_str(), bytes));
            for (to, after) in later.chain([("", &now)]) {
                let all = changes(&volume, (from, to), 0..after.len() as u64, 100).await;
                let when = format!("{round}, {from:?} to {to:?}");
                let needless = agree(&all, before, after, &when);
                println!("{when}: {} bytes told, {needless} do not differ", sum(&all));
            }
        }
        if round == "shared" {
            assert_eq!(flat().await.needs.as_str(), "");
        }
    }
    // The snapshots have what they shared, also where the volume itself had it no more.
    backend.delete(&CX, "original").await.expect("deleted");
    for (name, wanted) in pictures.iter().skip(1).rev() {
        volume.rollback(&CX, name).await.expect("rolled back");
        assert!(content(&volume).await == *wanted, "{name} has lost what it shared");
    }
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "twin").await.expect("deleted");
    drop(backend);
    all_ended().await;
}

/// Where the client writes in each MiB, and how much.
const WRITTEN: std::ops::Range<usize> = 4096..4104;

/// Writes and reads until it is told to end; how often, and the longest that it waited.
async fn client(volume: CephVolume, ends: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut random, mut writes, mut longest) = (Random(11), 0_u64, Duration::ZERO);
    while !ends.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let at = random.below(volume.size() / MIB) * MIB + WRITTEN.start as u64;
        write(&volume, at, &writes.to_le_bytes()).await;
        assert_eq!(&volume.read(&CX, at, 8).await.expect("read")[..], writes.to_le_bytes());
        longest = longest.max(begun.elapsed());
        writes += 1;
    }
    (writes, longest)
}

async fn is_block_but_for_writes(volume: &CephVolume, block: &[u8], when: &str) {
    for (index, piece) in content(volume).await.chunks(block.len()).enumerate() {
        let same = piece[..WRITTEN.start] == block[..WRITTEN.start]
            && piece[WRITTEN.end..] == block[WRITTEN.end..];
        assert!(same, "{when}: MiB {index} is not what it was");
    }
}

/// What a volume is shown to need.
async fn needs(backend: &CephBackend, name: &str) -> Option<String> {
    let info = backend.show(&CX, name).await.expect("shown");
    let fact = info.labels.into_iter().find(|fact| fact.0 == "needs");
    fact.map(|fact| fact.1.into_string())
}

async fn until_flat(backend: &CephBackend, name: &str) -> Flattening {
    let begun = Instant::now();
    loop {
        let now = backend.flattening(&CX, name).await.expect("told");
        if !now.running {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "it does not end: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_flattened_clone_needs_its_source_no_more_and_its_clients_go_on() {
    let backend = open().await;
    gone(&backend, "copy").await;
    const SIZE: u64 = 256 * MIB;
    let source = made(&backend, "mother", SIZE).await;
    let mut random = Random(3);
    let block = random.bytes(MIB);
    for at in (0..SIZE).step_by(MIB as usize) {
        write(&source, at, &block).await;
    }
    snapshot(&source, "day").await;
    let made = backend.clone_volume(&CX, "mother", "day", VolumeSpec::new("copy", 0));
    made.await.expect("cloned");
    assert_eq!(needs(&backend, "copy").await.as_deref(), Some("mother@day"));
    let not_attached = backend.flatten(&CX, "copy", true).await.expect_err("refused");
    assert_eq!(not_attached.kind(), ErrorKind::INVALID_ARGUMENT, "{not_attached:#}");
    let volume = attach(&backend, "copy").await;
    let before = backend.flattening(&CX, "copy").await.expect("told");
    assert_eq!((before.running, before.needs.as_str()), (false, "mother@day"));

    // Ended in the middle, it can be begun again, and the volume is as it was.
    backend.flatten(&CX, "copy", true).await.expect("begun");
    while backend.flattening(&CX, "copy").await.expect("told").done == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    backend.flatten(&CX, "copy", false).await.expect("ended");
    let begun = Instant::now();
    let cut = until_flat(&backend, "copy").await;
    println!("ended after {:?}: {cut:?}", begun.elapsed());
    assert!(cut.done > 0 && cut.done < cut.total && cut.total == SIZE, "{cut:?}");
    assert_eq!(cut.needs.as_str(), "mother@day");
    assert!(!cut.reason.is_empty());

    // Detached in the middle, it ends with the attachment.
    backend.flatten(&CX, "copy", true).await.expect("begun");
    let begun = Instant::now();
    volume.detach(&CX).await.expect("detached");
    println!("detached within {:?}", begun.elapsed());
    let volume = attach(&backend, "copy").await;
    let told = backend.flattening(&CX, "copy").await.expect("told");
    assert_eq!((told.running, told.needs.as_str()), (false, "mother@day"));

    let refused = backend.delete(&CX, "mother").await.expect_err("it is attached");
    assert_eq!(refused.kind(), ErrorKind::IN_USE);
    source.detach(&CX).await.expect("detached");
    let refused = backend.delete(&CX, "mother").await.expect_err("a clone needs it");
    assert_eq!(refused.kind(), ErrorKind::IN_USE);
    assert!(refused.remedy_text().contains("novastor volume flatten copy"), "{refused:#}");

    // A client writes, and a snapshot is taken, while it goes on.
    let ends = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(client(volume.clone(), Arc::clone(&ends)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    backend.flatten(&CX, "copy", true).await.expect("begun");
    let (mut steps, mut has_mid) = (Vec::new(), false);
    let last = loop {
        let now = backend.flattening(&CX, "copy").await.expect("told");
        if steps.last() != Some(&now.done) {
            steps.push(now.done);
        }
        if !now.running {
            break now;
        }
        if !has_mid && now.done > SIZE / 8 {
            snapshot(&volume, "mid").await;
            has_mid = true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    println!("flattened {SIZE} bytes within {:?}, {} steps", begun.elapsed(), steps.len());
    ends.store(true, Ordering::Relaxed);
    let (writes, longest) = writer.await.expect("it wrote");
    println!("{writes} writes of a client meanwhile, the longest took {longest:?}");
    assert_eq!((last.needs.as_str(), last.reason.as_str()), ("", ""));
    assert_eq!((last.done, last.total), (SIZE, SIZE));
    assert!(has_mid && steps.len() > 3 && steps.is_sorted() && writes > 3, "{steps:?}");
    is_block_but_for_writes(&volume, &block, "flattened").await;
    assert_eq!(needs(&backend, "copy").await, None);
    backend.flatten(&CX, "copy", true).await.expect("it is flat already");
    backend.delete(&CX, "mother").await.expect("nobody needs it any more");
    is_block_but_for_writes(&volume, &block, "without its source").await;
    volume.rollback(&CX, "mid").await.expect("rolled back");
    is_block_but_for_writes(&volume, &block, "rolled back to what was taken meanwhile").await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "copy").await.expect("deleted");
    drop(backend);
    all_ended().await;
}

/// A host that died while it wrote leaves an object map that says of objects that they are there, and they are not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn what_the_object_map_says_wrongly_is_not_lost_by_flattening() {
    let plain = [4 * MIB, 8 * MIB + 512, 20 * MIB];
    flatten_with_a_wrong_map(&open().await, plain, true).await;
    // Object 1 begins at 64 KiB, object 2 at 128 KiB.
    let striped = [64 * KIB, 128 * KIB + 512, 20 * MIB];
    let options = json!({ "stripe_unit": 64 * KIB, "stripe_count": 4 });
    flatten_with_a_wrong_map(&open_with(options).await, striped, false).await;
    all_ended().await;
}

/// With writes to the objects 1 and 2, and another.
async fn flatten_with_a_wrong_map(backend: &CephBackend, writes: [u64; 3], has_hole: bool) {
    gone(backend, "half").await;
    let source = made(backend, "whole", 32 * MIB).await;
    let wanted = Random(5).bytes(32 * MIB);
    write(&source, 0, &wanted).await;
    source.discard(&CX, 12 * MIB, 4 * MIB).await.expect("discarded");
    let wanted = content(&source).await;
    source.detach(&CX).await.expect("detached");
    backend.clone_volume(&CX, "whole", "", VolumeSpec::new("half", 0)).await.expect("cloned");
    let volume = attach(backend, "half").await;
    for at in writes {
        // A write of what is there makes the object, and the map says so.
        let same = volume.read(&CX, at, 512).await.expect("read");
        volume.write(&CX, at, same, WriteFlags::NONE).await.expect("written");
    }
    volume.detach(&CX).await.expect("detached");
    let info: serde_json::Value =
        serde_json::from_str(&rbd(&["info", "volumes/half", "--format", "json"])).expect("JSON");
    let prefix = info["block_name_prefix"].as_str().expect("a prefix");
    for number in [1, 2] {
        let object = format!("{prefix}.{number:016x}");
        let out = ask("rados", &["-p", "volumes", "rm", &object]);
        assert!(out.status.success(), "{object} is not there: nothing is shown");
    }
    let volume = attach(backend, "half").await;
    assert!(content(&volume).await == wanted, "before, it is as it should be");
    backend.flatten(&CX, "half", true).await.expect("begun");
    let told = until_flat(backend, "half").await;
    assert_eq!((told.needs.as_str(), told.reason.as_str()), ("", ""));
    assert!(content(&volume).await == wanted, "flattening lost what the source has");
    backend.delete(&CX, "whole").await.expect("deleted");
    assert!(content(&volume).await == wanted, "without its source");
    let objects = ask("rados", &["-p", "volumes", "ls"]);
    let hole = format!("{prefix}.{:016x}", 3);
    assert!(
        !String::from_utf8_lossy(&objects.stdout).contains(&hole) || !has_hole,
        "a hole was filled"
    );
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "half").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_renamed_volume_is_found_under_one_name() {
    let backend = open().await;
    for name in ["new", "other"] {
        gone(&backend, name).await;
    }
    let volume = made(&backend, "old", 8 * MIB).await;
    write(&volume, 0, &[7; 4096]).await;
    snapshot(&volume, "kept").await;
    let refused = backend.rename(&CX, "old", "new").await.expect_err("it is attached");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    let elsewhere = open().await;
    let refused = elsewhere.rename(&CX, "old", "new").await.expect_err("it is attached");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    volume.detach(&CX).await.expect("detached");
    backend.create(&CX, VolumeSpec::new("other", MIB)).await.expect("created");
    let refused = backend.rename(&CX, "old", "other").await.expect_err("it is taken");
    assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{refused:#}");
    let refused = backend.rename(&CX, "nothing", "new").await.expect_err("there is none");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    let info = backend.rename(&CX, "old", "new").await.expect("renamed");
    assert_eq!((info.name.as_str(), info.size), ("new", 8 * MIB));
    let refused = backend.rename(&CX, "old", "new").await.expect_err("it was done");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    let volume = attach(&backend, "new").await;
    assert_eq!(volume.read(&CX, 0, 4096).await.expect("read")[..], [7; 4096]);
    assert_eq!(Snapshots::list(&volume, &CX).await.expect("listed").len(), 1);
    volume.detach(&CX).await.expect("detached");

    // As librbd leaves it when it dies before, and after, it changes the directory.
    let rados = |arguments: &[&str]| {
        let out = ask("rados", &[&["-p", "volumes"], arguments].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    rados(&["cp", "rbd_id.new", "rbd_id.old"]);
    backend.rename(&CX, "new", "old").await.expect("renamed, what was left behind is no volume");
    rados(&["cp", "rbd_id.old", "rbd_id.new"]);
    let names: Vec<_> = rbd(&["ls", "volumes"]).lines().map(str::to_owned).collect();
    assert!(names.contains(&"old".to_owned()) && !names.contains(&"new".to_owned()), "{names:?}");
    let info = backend.rename(&CX, "new", "old").await.expect("finished");
    assert_eq!(info.name.as_str(), "old");
    let gone = backend.show(&CX, "new").await.expect_err("nothing leads there");
    assert_eq!(gone.kind(), ErrorKind::NOT_FOUND);
    for name in ["old", "other"] {
        backend.delete(&CX, name).await.expect("deleted");
    }
    drop((backend, elsewhere));
    all_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_protected_snapshot_stays_until_its_protection_is_taken_away() {
    let backend = open().await;
    let volume = made(&backend, "kept", 8 * MIB).await;
    write(&volume, 0, &[1; 4096]).await;
    // The loose one would go first with the volume.
    snapshot(&volume, "loose").await;
    snapshot(&volume, "first").await;
    let info = volume.protect(&CX, "first", true).await.expect("protected");
    assert!(info.is_protected() && info.name == "first");
    assert!(rbd(&["snap", "ls", "volumes/kept"]).contains("yes"));
    volume.protect(&CX, "first", true).await.expect("it is already");
    let missing = volume.protect(&CX, "none", true).await.expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NOT_FOUND);
    let refused = Snapshots::delete(&volume, &CX, "first").await.expect_err("it is protected");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    assert!(refused.remedy_text().contains("--undo"), "{refused:#}");
    let list = Snapshots::list(&volume, &CX).await.expect("listed");
    let told: Vec<_> = list.iter().map(|one| (one.name.as_str(), one.is_protected())).collect();
    assert_eq!(told, [("loose", false), ("first", true)]);
    volume.detach(&CX).await.expect("detached");
    let refused = backend.delete(&CX, "kept").await.expect_err("a snapshot is protected");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    let volume = attach(&backend, "kept").await;
    let list = Snapshots::list(&volume, &CX).await.expect("listed");
    assert_eq!(list.len(), 2, "a refused delete changed something");

    // What others protected is protected here, and the other way round.
    rbd(&["snap", "protect", "volumes/kept@loose"]);
    let refused = Snapshots::delete(&volume, &CX, "loose").await.expect_err("it is protected");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    for name in ["first", "loose"] {
        let info = volume.protect(&CX, name, false).await.expect("freed");
        assert!(!info.is_protected());
        volume.protect(&CX, name, false).await.expect("it is already");
    }
    Snapshots::delete(&volume, &CX, "first").await.expect("deleted");
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "kept").await.expect("deleted");
    drop(backend);
    all_ended().await;
}
