// SPDX-License-Identifier: Apache-2.0
//! Snapshots, rollback and clones, while writing goes on.
#![allow(missing_docs)]

mod fixture;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use driver_api::{Backend, ErrorKind, IoBuf, Volume, VolumeSpec, WriteFlags};
use fixture::*;
use local::{LocalBackend, LocalVolume};

const BLOCK: u64 = 64 << 10;
const BLOCKS: u64 = 512;

/// Writes 1, 2, 3… to the blocks, round and round, each after the one before was acknowledged.
struct Storm {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Storm {
    async fn start(volume: &LocalVolume) -> Self {
        for number in 0..BLOCKS {
            write(volume, number * BLOCK, &block(number)).await;
        }
        let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::new(AtomicU64::new(BLOCKS)));
        let (volume, stopped, done) =
            (volume.clone(), Arc::clone(&stop), Arc::clone(&acknowledged));
        let task = tokio::spawn(async move {
            let mut number = BLOCKS;
            while !stopped.load(Ordering::SeqCst) {
                // A stride, so that writes run ahead of the copier as well as behind it.
                let data = IoBuf::copy_from(&block(number));
                let offset = place(number) * BLOCK;
                volume.write(&CX, offset, data, WriteFlags::NONE).await.expect("written");
                number += 1;
                done.store(number, Ordering::SeqCst);
            }
        });
        Self { stop, acknowledged, task }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("ended");
    }
}

fn block(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(BLOCK as usize / 8)
}

fn place(number: u64) -> u64 {
    if number < BLOCKS { number } else { number * 97 % BLOCKS }
}

/// Fails unless the volume holds exactly the first n writes for some n of at least `least` and at most `most`.
async fn is_a_prefix(volume: &LocalVolume, least: u64, most: u64) {
    let mut found = Vec::new();
    for at in 0..BLOCKS {
        let content = read(volume, at * BLOCK, BLOCK as u32).await;
        let number = u64::from_le_bytes(content[..8].try_into().expect("8 bytes"));
        assert_eq!(content, block(number), "block {at} is torn");
        found.push(number);
    }
    let newest = *found.iter().max().expect("blocks");
    assert!((least..=most).contains(&(newest + 1)), "{newest} is not in {least}..={most}");
    let mut expected = vec![0; BLOCKS as usize];
    for number in 0..=newest {
        expected[place(number) as usize] = number;
    }
    assert_eq!(found, expected, "the copy mixes moments");
}

async fn consistent_under_load(dir: &Path, format: &str, method: &str) {
    let backend = backend(dir).await;
    let volume = made(&backend, "v", BLOCKS * BLOCK, format).await;
    let storm = Storm::start(&volume).await;
    let snapshots = volume.snapshots().expect("snapshots");
    let clones = backend.clones().expect("clones");
    for round in 0..3 {
        let name = format!("s{round}");
        let least = storm.acknowledged();
        let info = snapshots.create(&CX, &name).await.expect("taken");
        let most = storm.acknowledged() + 1;
        assert_eq!((info.method.as_str(), info.size), (method, BLOCKS * BLOCK));
        let target = VolumeSpec::new(&format!("c{round}"), 0);
        clones.clone_volume(&CX, "v", &name, target).await.expect("cloned");
        let clone = attach(&backend, &format!("c{round}")).await;
        is_a_prefix(&clone, least, most).await;

        let least = storm.acknowledged();
        let target = VolumeSpec::new(&format!("d{round}"), BLOCKS * BLOCK + MIB);
        clones.clone_volume(&CX, "v", "", target.clone()).await.expect("cloned while attached");
        let most = storm.acknowledged() + 1;
        let info = clones.clone_volume(&CX, "v", "", target).await.expect("the same clone");
        assert!(info.labels.iter().any(|label| label.0 == "clone_method" && label.1 == method));
        let clone = attach(&backend, &format!("d{round}")).await;
        assert_eq!(clone.size(), BLOCKS * BLOCK + MIB);
        is_a_prefix(&clone, least, most).await;
        assert!(is_all(&clone, BLOCKS * BLOCK, 1 << 20, 0).await);
        clone.detach(&CX).await.expect("detached");
    }
    let (least, names) = (storm.acknowledged(), snapshots.list(&CX).await.expect("listed"));
    assert_eq!(names.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["s0", "s1", "s2"]);
    storm.end().await;
    is_a_prefix(&volume, least, u64::MAX).await;
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_raw_volumes_are_of_one_moment() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    consistent_under_load(dir.path(), "raw", "copy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_qcow2_volumes_are_of_one_moment() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    consistent_under_load(dir.path(), "qcow2", "copy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_blocks_can_be_shared_they_are() {
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let mounted = Mounted::xfs(&images.path().join("xfs.img"));
    consistent_under_load(mounted.path(), "raw", "reflink").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_restores_content_and_size() {
    for format in ["raw", "qcow2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = backend(dir.path()).await;
        let volume = made(&backend, "v", 4 * MIB, format).await;
        let snapshots = volume.snapshots().expect("snapshots");
        write(&volume, MIB, &[1; 1 << 20]).await;
        snapshots.create(&CX, "before").await.expect("taken");
        write(&volume, MIB, &[2; 1 << 20]).await;
        write(&volume, 3 * MIB, &[2; 1 << 20]).await;
        volume.resize().expect("resizable").resize(&CX, 8 * MIB, false).await.expect("grown");
        snapshots.create(&CX, "after").await.expect("taken");
        for _ in 0..2 {
            snapshots.rollback(&CX, "before").await.expect("rolled back");
            assert_eq!(volume.size(), 4 * MIB);
            assert!(
                is_all(&volume, MIB, 1 << 20, 1).await
                    && is_all(&volume, 3 * MIB, 1 << 20, 0).await
            );
            write(&volume, 0, &[3; 4096]).await;
            volume.flush(&CX).await.expect("flushed");
        }
        volume.detach(&CX).await.expect("detached");
        let volume = attach(&backend, "v").await;
        assert!(is_all(&volume, 0, 4096, 3).await && is_all(&volume, MIB, 1 << 20, 1).await);
        let snapshots = volume.snapshots().expect("snapshots");
        snapshots.rollback(&CX, "after").await.expect("forward again");
        assert_eq!(volume.size(), 8 * MIB);
        assert!(is_all(&volume, MIB, 1 << 20, 2).await && is_all(&volume, 0, 4096, 0).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_have_names_of_their_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let volume = made(&backend, "v", MIB, "raw").await;
    let snapshots = volume.snapshots().expect("snapshots");
    snapshots.create(&CX, "s").await.expect("taken");
    let kind = |error: driver_api::Error| error.kind();
    let twice = snapshots.create(&CX, "s").await.map_err(kind).expect_err("twice");
    assert_eq!(twice, ErrorKind::ALREADY_EXISTS);
    let escaping = snapshots.create(&CX, "../s").await.map_err(kind).expect_err("a path");
    assert_eq!(escaping, ErrorKind::INVALID_ARGUMENT);
    for missing in [snapshots.delete(&CX, "t").await, snapshots.rollback(&CX, "t").await] {
        assert_eq!(missing.map_err(kind).expect_err("missing"), ErrorKind::NOT_FOUND);
    }
    snapshots.delete(&CX, "s").await.expect("deleted");
    assert!(snapshots.list(&CX).await.expect("listed").is_empty());
    let left = std::fs::read_dir(dir.path().join("volumes/v/snapshots")).expect("listed").count();
    assert_eq!(left, 0);
    snapshots.create(&CX, "s").await.expect("the name is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_without_room_fails_alone() {
    let mounted = Mounted::tmpfs(40);
    let backend = backend(mounted.path()).await;
    let volume = made(&backend, "v", 32 * MIB, "raw").await;
    for at in 0..24 {
        write(&volume, at * MIB, &[4; 1 << 20]).await;
    }
    let snapshots = volume.snapshots().expect("snapshots");
    let error = snapshots.create(&CX, "s").await.expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::NO_SPACE);
    assert!(snapshots.list(&CX).await.expect("listed").is_empty());
    write(&volume, 30 * MIB, &[5; 1 << 20]).await;
    volume.flush(&CX).await.expect("flushed");
    assert!(is_all(&volume, 0, 24 << 20, 4).await && is_all(&volume, 30 * MIB, 1 << 20, 5).await);
    let left =
        std::fs::read_dir(mounted.path().join("volumes/v/snapshots")).expect("listed").count();
    assert_eq!(left, 0);
    let clones = backend.clones().expect("clones");
    let target = VolumeSpec::new("c", 0);
    let error = clones.clone_volume(&CX, "v", "", target).await.expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::NO_SPACE);
    assert_eq!(backend.list(&CX).await.expect("listed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn resting_volumes_are_cloned_and_foreign_ones_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mine, other): (LocalBackend, LocalBackend) =
        (backend(dir.path()).await, backend(dir.path()).await);
    let volume = made(&mine, "v", MIB, "raw").await;
    write(&volume, 0, &[1; 4096]).await;
    let clones = other.clones().expect("clones");
    let clone = |name: &str, size| clones.clone_volume(&CX, "v", "", VolumeSpec::new(name, size));
    assert_eq!(clone("c", 0).await.expect_err("held").kind(), ErrorKind::IN_USE);
    volume.detach(&CX).await.expect("detached");
    assert_eq!(clone("c", 512).await.expect_err("small").kind(), ErrorKind::INVALID_ARGUMENT);
    let info = clone("c", 0).await.expect("cloned");
    assert_eq!(info.size, MIB);
    assert!(is_all(&attach(&mine, "c").await, 0, 4096, 1).await);
    assert_eq!(clone("v", 0).await.expect_err("itself").kind(), ErrorKind::ALREADY_EXISTS);
    attach(&mine, "v").await;
    let gone = clones.clone_volume(&CX, "v", "s", VolumeSpec::new("d", 0)).await;
    assert_eq!(gone.expect_err("no such snapshot").kind(), ErrorKind::NOT_FOUND);
}
