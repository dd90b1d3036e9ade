// SPDX-License-Identifier: Apache-2.0
//! Raw volumes: data path, space, names, crash leftovers.
#![allow(missing_docs)]

mod fixture;

use driver_api::{Backend, ErrorKind, HealthState, IoBuf, Volume, VolumeSpec, WriteFlags};
use fixture::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_and_survives() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let volume = made(&backend, "v", 8 * MIB, "raw").await;
    assert!(is_all(&volume, 0, 1 << 20, 0).await);
    write(&volume, 4096, &[7; 70_000]).await;
    volume.write(&CX, 5, IoBuf::copy_from(b"odd"), WriteFlags::FUA).await.expect("written");
    assert!(is_all(&volume, 4096, 70_000, 7).await);
    assert_eq!(read(&volume, 4, 5).await, b"\0odd\0");
    volume.flush(&CX).await.expect("flushed");
    volume.detach(&CX).await.expect("detached");
    let error = volume.read(&CX, 0, 1).await.expect_err("detached");
    assert_eq!(error.kind(), ErrorKind::UNAVAILABLE);
    let again = attach(&backend, "v").await;
    assert_eq!(read(&again, 4, 5).await, b"\0odd\0");
    assert!(is_all(&again, 4096, 70_000, 7).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_read_is_answered_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let volume = made(&backend(dir.path()).await, "v", MIB, "raw").await;
    write(&volume, 0, &[1; 65536]).await;
    match volume.read(&CX, 4096, 4096) {
        driver_api::Op::Ready(read) => assert_eq!(read.into_result().expect("read").len(), 4096),
        driver_api::Op::Pending(_) => panic!("a page in the cache was not read inline"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_and_flags_are_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let volume = made(&backend(dir.path()).await, "v", MIB, "raw").await;
    for (offset, len) in [(MIB, 1), (MIB - 1, 2), (u64::MAX, 2)] {
        let error = volume.read(&CX, offset, len).await.expect_err("outside");
        assert_eq!(error.kind(), ErrorKind::OUT_OF_RANGE);
        let data = IoBuf::copy_from(&vec![0; len as usize]);
        let error = volume.write(&CX, offset, data, WriteFlags::NONE).await.expect_err("outside");
        assert_eq!(error.kind(), ErrorKind::OUT_OF_RANGE);
        let error = volume.discard(&CX, offset, len.into()).await.expect_err("outside");
        assert_eq!(error.kind(), ErrorKind::OUT_OF_RANGE);
    }
    let data = IoBuf::copy_from(b"x");
    let error = volume.write(&CX, 0, data, WriteFlags::NO_HOLE).await.expect_err("unknown flag");
    assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn discard_frees_and_zeroes_may_keep() {
    for format in ["raw", "qcow2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = backend(dir.path()).await;
        let volume = made(&backend, "v", 8 * MIB, format).await;
        write(&volume, 0, &vec![3; 4 << 20]).await;
        volume.flush(&CX).await.expect("flushed");
        let before = backend.show(&CX, "v").await.expect("shown").used;
        volume.discard(&CX, MIB, 2 * MIB).await.expect("discarded");
        assert!(is_all(&volume, MIB, 2 << 20, 0).await);
        assert!(is_all(&volume, MIB - 512, 512, 3).await && is_all(&volume, 3 * MIB, 512, 3).await);
        volume.flush(&CX).await.expect("flushed");
        let after = backend.show(&CX, "v").await.expect("shown").used;
        assert!(after + MIB < before, "{format}: {before} -> {after}");
        volume
            .write_zeroes(&CX, 100, 1000, WriteFlags::NO_HOLE.and(WriteFlags::FUA))
            .await
            .expect("zeroed");
        assert!(is_all(&volume, 100, 1000, 0).await);
        assert!(is_all(&volume, 0, 100, 3).await && is_all(&volume, 1100, 100, 3).await);
        let map = volume.allocation_map().expect("a map");
        let extents = map.extents(&CX, 0, 8 * MIB, 100).await.expect("mapped");
        assert_eq!(extents.iter().map(|extent| extent.len).sum::<u64>(), 8 * MIB);
        let hole = extents
            .iter()
            .find(|extent| extent.offset <= 2 * MIB && 2 * MIB < extent.offset + extent.len);
        assert_eq!(hole.expect("covered").flags.bits(), 3, "{format}");
        assert_eq!(map.extents(&CX, 0, 8 * MIB, 1).await.expect("mapped").len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_change_while_attached() {
    for format in ["raw", "qcow2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = backend(dir.path()).await;
        let volume = made(&backend, "v", 2 * MIB, format).await;
        let resize = volume.resize().expect("resizable");
        write(&volume, MIB, &[9; 1 << 20]).await;
        resize.resize(&CX, 4 * MIB, false).await.expect("grown");
        assert_eq!(volume.size(), 4 * MIB);
        assert!(is_all(&volume, 2 * MIB, 2 << 20, 0).await);
        let error = resize.resize(&CX, MIB, false).await.expect_err("not allowed");
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        resize.resize(&CX, MIB + 512, true).await.expect("shrunk");
        let data = IoBuf::copy_from(&[1; 512]);
        let error =
            volume.write(&CX, MIB + 512, data, WriteFlags::NONE).await.expect_err("cut off");
        assert_eq!(error.kind(), ErrorKind::OUT_OF_RANGE);
        resize.resize(&CX, 2 * MIB, false).await.expect("grown again");
        assert!(is_all(&volume, MIB, 512, 9).await);
        assert!(
            is_all(&volume, MIB + 512, (1 << 20) - 512, 0).await,
            "{format}: old data came back"
        );
        volume.detach(&CX).await.expect("detached");
        assert_eq!(backend.show(&CX, "v").await.expect("shown").size, 2 * MIB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_twice_is_creating_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let spec = VolumeSpec::new("v", MIB);
    let first = backend.create(&CX, spec.clone()).await.expect("created");
    assert_eq!(backend.create(&CX, spec.clone()).await.expect("the same"), first);
    for other in [VolumeSpec::new("v", 2 * MIB), spec.option("format", "qcow2")] {
        let error = backend.create(&CX, other).await.expect_err("another");
        assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS);
    }
    backend.delete(&CX, "v").await.expect("deleted");
    assert_eq!(backend.delete(&CX, "v").await.expect_err("gone").kind(), ErrorKind::NOT_FOUND);
    let created = (0..8).map(|_| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.create(&CX, VolumeSpec::new("race", MIB)).await })
    });
    for task in created.collect::<Vec<_>>() {
        task.await.expect("ran").expect("one of them made it, all got it");
    }
    assert_eq!(backend.list(&CX).await.expect("listed").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_escapes_and_no_size_is_absurd() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    for name in ["../x", "a/b", "", ".new-1"] {
        let error = backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("a path");
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        assert!(backend.delete(&CX, name).await.is_err() && backend.show(&CX, name).await.is_err());
    }
    for size in [0, u64::MAX] {
        let error = backend.create(&CX, VolumeSpec::new("v", size)).await.expect_err("absurd");
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_a_crash_are_invisible_and_collected() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(backend(dir.path()).await);
    let half = dir.path().join("volumes/.new-1-v-0");
    let gone = dir.path().join("trash/1-0-v");
    for path in [&half, &gone] {
        std::fs::create_dir_all(path.join("holders")).expect("made");
        std::fs::write(path.join("disk.raw"), "x").expect("written");
    }
    let backend = backend(dir.path()).await;
    assert!(backend.list(&CX).await.expect("listed").is_empty());
    assert!(!half.exists() && !gone.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_answers_no_space_and_harms_nothing() {
    let mounted = Mounted::tmpfs(24);
    let backend = backend(mounted.path()).await;
    let volume = made(&backend, "v", 64 * MIB, "raw").await;
    let mut good = 0;
    let error = loop {
        let data = IoBuf::copy_from(&vec![5; 1 << 20]);
        match volume.write(&CX, good * MIB, data, WriteFlags::FUA).await {
            Ok(()) => good += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NO_SPACE);
    volume.flush(&CX).await.expect("a full disk loses nothing");
    for at in 0..good {
        assert!(is_all(&volume, at * MIB, 1 << 20, 5).await);
    }
    let partial = read(&volume, good * MIB, 1 << 20).await;
    assert!(partial.chunks(512).all(|sector| sector == [5; 512] || sector == [0; 512]));
    let error = backend.create(&CX, VolumeSpec::new("w", MIB)).await.expect_err("full");
    assert_eq!(error.kind(), ErrorKind::NO_SPACE);
    assert_eq!(backend.health(&CX).await.expect("asked").state, HealthState::DEGRADED);
    volume.discard(&CX, 0, 8 * MIB).await.expect("discarded");
    write(&volume, good * MIB, &[6; 4096]).await;
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_limits_what_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend_with(dir.path(), r#"{"capacity": 8388608, "reserve_percent": 0}"#).await;
    let refused = |spec| {
        let backend = backend.clone();
        async move { backend.create(&CX, spec).await.expect_err("too much").kind() }
    };
    assert_eq!(refused(VolumeSpec::new("big", 9 * MIB)).await, ErrorKind::NO_SPACE);
    let full = VolumeSpec::new("a", 5 * MIB).option("preallocation", "full");
    backend.create(&CX, full).await.expect("fits");
    let second = VolumeSpec::new("b", 5 * MIB).option("preallocation", "falloc");
    assert_eq!(refused(second).await, ErrorKind::NO_SPACE);
    backend.create(&CX, VolumeSpec::new("thin", 8 * MIB)).await.expect("thin fits");
    let usage = backend.usage(&CX).await.expect("asked");
    assert_eq!((usage.capacity, usage.provisioned), (8 * MIB, 13 * MIB));
    assert!(usage.used >= 5 * MIB && usage.available <= 3 * MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_volumes_bypass_the_cache() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let backend = backend_with(dir.path(), r#"{"direct": true}"#).await;
    for format in ["raw", "qcow2"] {
        let volume = made(&backend, format, 4 * MIB, format).await;
        assert_eq!(volume.capabilities().min_block, 4096);
        let data = IoBuf::copy_from(&[8; 8193]).slice(1, 8192);
        volume.write(&CX, 4096, data, WriteFlags::FUA).await.expect("written");
        assert!(is_all(&volume, 4096, 8192, 8).await && is_all(&volume, 0, 4096, 0).await);
        let error = volume.read(&CX, 100, 100).await.expect_err("unaligned");
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        let snapshots = volume.snapshots().expect("snapshots");
        snapshots.create(&CX, "s").await.expect("taken");
        let data = IoBuf::copy_from(&[9; 8192]);
        volume.write(&CX, 4096, data, WriteFlags::NONE).await.expect("written");
        assert!(is_all(&volume, 4096, 8192, 9).await);
        snapshots.rollback(&CX, "s").await.expect("rolled back");
        assert!(is_all(&volume, 4096, 8192, 8).await);
        let clones = backend.clones().expect("clones");
        let (twin, uneven) = (format!("{format}-twin"), format!("{format}-uneven"));
        let spec = VolumeSpec::new(&twin, 0).option("format", format);
        let made = clones.clone_volume(&CX, format, "", spec).await.expect("cloned");
        assert_eq!(made.size, 4 * MIB);
        let spec = VolumeSpec::new(&uneven, 4 * MIB + 512).option("format", format);
        let error = clones.clone_volume(&CX, format, "", spec).await.expect_err("no whole block");
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        volume.detach(&CX).await.expect("detached");
    }
}
