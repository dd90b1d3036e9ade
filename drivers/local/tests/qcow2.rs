// SPDX-License-Identifier: Apache-2.0
//! qcow2 volumes against qemu-img, and what is left of volumes after `kill -9`.
#![allow(missing_docs)]

mod fixture;

use std::{
    fs,
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use driver_api::{Backend, ErrorKind, IoBuf, Volume, WriteFlags};
use fixture::*;
use local::{LocalBackend, LocalVolume};

fn image(dir: &Path, name: &str) -> PathBuf {
    dir.join("volumes").join(name).join("disk.qcow2")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Bytes that do not repeat, from a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_driver_writes_qemu_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    for preallocation in ["off", "falloc", "full"] {
        let spec = driver_api::VolumeSpec::new(preallocation, 32 * MIB)
            .option("format", "qcow2")
            .option("preallocation", preallocation);
        backend.create(&CX, spec).await.expect("created");
        let volume = attach(&backend, preallocation).await;
        let mut expected = vec![0; 32 << 20];
        for number in 0..40 {
            let (offset, content) = (number * 800_000 + 13 * number, noise(number, 100_000));
            write(&volume, offset, &content).await;
            expected[offset as usize..][..content.len()].copy_from_slice(&content);
        }
        volume.discard(&CX, 5 * MIB + 100, 3 * MIB).await.expect("discarded");
        expected[(5 << 20) + 100..][..3 << 20].fill(0);
        volume.write_zeroes(&CX, 12 * MIB, MIB, WriteFlags::NO_HOLE).await.expect("zeroed");
        expected[12 << 20..][..1 << 20].fill(0);
        for at in 0..32 {
            assert!(
                read(&volume, at * MIB, 1 << 20).await
                    == expected[(at as usize) << 20..][..1 << 20]
            );
        }
        volume.detach(&CX).await.expect("detached");
        let image = image(dir.path(), preallocation);
        run("qemu-img", &["check", text(&image)]);
        let raw = dir.path().join("out.raw");
        run("qemu-img", &["convert", "-O", "raw", text(&image), text(&raw)]);
        assert!(fs::read(&raw).expect("read") == expected, "qemu-img reads something else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_qemu_writes_this_driver_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    made(&backend, "v", MIB, "qcow2").await.detach(&CX).await.expect("detached");
    let raw = dir.path().join("in.raw");
    let mut content = noise(1, 16 << 20);
    content[3 << 20..7 << 20].fill(0);
    fs::write(&raw, &content).expect("written");
    let target = image(dir.path(), "v");
    for arguments in [vec![], vec!["-c"]] {
        let mut all = vec!["convert", "-O", "qcow2"];
        all.extend(arguments);
        all.extend([text(&raw), text(&target)]);
        run("qemu-img", &all);
        let volume = attach(&backend, "v").await;
        assert_eq!(volume.size(), 16 * MIB);
        for at in 0..16 {
            assert!(
                read(&volume, at * MIB, 1 << 20).await == content[(at as usize) << 20..][..1 << 20]
            );
        }
        write(&volume, 4 * MIB + 5, &[7; 99_999]).await;
        assert!(is_all(&volume, 4 * MIB + 5, 99_999, 7).await);
        volume.detach(&CX).await.expect("detached");
        run("qemu-img", &["check", text(&target)]);
        assert_eq!(backend.show(&CX, "v").await.expect("shown").size, 16 * MIB);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_names_other_files_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    made(&backend, "v", MIB, "qcow2").await.detach(&CX).await.expect("detached");
    let target = image(dir.path(), "v");
    fs::remove_file(&target).expect("removed");
    let secret = dir.path().join("secret");
    fs::write(&secret, [1; 4096]).expect("written");
    run(
        "qemu-img",
        &["create", "-f", "qcow2", "-F", "raw", "-b", text(&secret), text(&target), "1M"],
    );
    let error = backend.attach(&CX, "v", writer(2)).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::UNSUPPORTED);
    assert!(error.remedy_text().contains("converted"), "{error:#}");
    fs::write(&target, "no image at all, but long enough to hold a header").expect("written");
    let error = backend.attach(&CX, "v", writer(2)).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::CORRUPTED, "{error:#}");
    backend.delete(&CX, "v").await.expect("a refused volume is not held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_leaves_the_image_whole() {
    let mounted = Mounted::tmpfs(16);
    let backend = backend(mounted.path()).await;
    let volume = made(&backend, "v", 64 * MIB, "qcow2").await;
    let mut good = 0;
    let error = loop {
        match volume
            .write(&CX, good * 100_000, IoBuf::copy_from(&noise(good, 100_000)), WriteFlags::FUA)
            .await
        {
            Ok(()) => good += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NO_SPACE, "{error:#}");
    for number in 0..good {
        assert!(read(&volume, number * 100_000, 100_000).await == noise(number, 100_000));
    }
    volume.discard(&CX, 0, 4 * MIB).await.expect("discarded");
    write(&volume, 40 * MIB, &noise(99, 100_000)).await;
    volume.flush(&CX).await.expect("flushed");
    assert!(read(&volume, 40 * MIB, 100_000).await == noise(99, 100_000));
    volume.detach(&CX).await.expect("detached");
    check_after_kill(&image(mounted.path(), "v"));
    let volume = attach(&backend, "v").await;
    assert!(is_all(&volume, 0, 4 << 20, 0).await);
    assert!(read(&volume, 40 * MIB, 100_000).await == noise(99, 100_000));
    for number in 42..good {
        assert!(read(&volume, number * 100_000, 100_000).await == noise(number, 100_000));
    }
}

/// An image with a megabyte of noise whose last writer did not detach, and its reference counts' and first table's place.
async fn left_open(backend: &LocalBackend, dir: &Path) -> (fs::File, u64, u64) {
    let volume = made(backend, "v", 8 * MIB, "qcow2").await;
    write(&volume, 0, &noise(1, 1 << 20)).await;
    volume.flush(&CX).await.expect("flushed");
    drop(volume);
    let file = fs::OpenOptions::new().read(true).write(true).open(image(dir, "v"));
    let file = file.expect("opened");
    let long = |at| {
        let mut entry = [0; 8];
        file.read_exact_at(&mut entry, at).expect("an offset");
        u64::from_be_bytes(entry) & 0x00ff_ffff_ffff_fe00
    };
    let (counts, table) = (long(long(48)), long(long(40)));
    (file, counts, table)
}

/// Attaches as soon as the dropped attachment's last operation ended.
async fn attach_left(backend: &LocalBackend) -> driver_api::Result<LocalVolume> {
    loop {
        match backend.attach(&CX, "v", writer(2)).await {
            Err(error) if error.kind() == ErrorKind::IN_USE => continue,
            attached => return attached,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_whose_counts_were_lost_are_counted_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let (file, counts, table) = left_open(&backend, dir.path()).await;
    // What a machine leaves that wrote the tables but not yet the counts; the table's own among them.
    file.write_all_at(&[0; 8], counts + 24).expect("lost");
    file.write_all_at(&[0; 2], counts + (table >> 16) * 2).expect("lost");
    let volume = attach_left(&backend).await.expect("recounted");
    write(&volume, 2 * MIB, &noise(2, 1 << 20)).await;
    assert!(read(&volume, 0, 1 << 20).await == noise(1, 1 << 20));
    assert!(read(&volume, 2 * MIB, 1 << 20).await == noise(2, 1 << 20));
    volume.detach(&CX).await.expect("detached");
    run("qemu-img", &["check", text(&image(dir.path(), "v"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_with_a_cluster_in_two_places_is_not_written_until_repaired() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let (file, counts, table) = left_open(&backend, dir.path()).await;
    let mut entries = [0; 16];
    file.read_exact_at(&mut entries, table).expect("two entries");
    entries.copy_within(..8, 8);
    file.write_all_at(&entries, table).expect("the same cluster twice");
    let cluster = u64::from_be_bytes(entries[..8].try_into().expect("8")) << 8 >> 24;
    file.write_all_at(&[0; 2], counts + cluster * 2).expect("lost");
    let error = attach_left(&backend).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::CORRUPTED);
    assert!(error.remedy_text().contains("qemu-img check -r all"), "{error:#}");
    run("qemu-img", &["check", "-r", "all", text(&image(dir.path(), "v"))]);
    let volume = backend.attach(&CX, "v", writer(3)).await.expect("repaired");
    assert!(read(&volume, 2 << 16, 65536).await == noise(1, 1 << 20)[2 << 16..3 << 16]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_take_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let old = made(&backend, "v", 8 * MIB, "qcow2").await;
    write(&old, MIB, &[2; 70_000]).await;
    let new = backend.attach(&CX, "v", writer(2).force()).await.expect("taken over");
    assert!(is_all(&new, MIB, 70_000, 2).await);
    new.detach(&CX).await.expect("detached");
    run("qemu-img", &["check", text(&image(dir.path(), "v"))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_image_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = backend(dir.path()).await;
    let old = made(&backend, "v", 8 * MIB, "qcow2").await;
    write(&old, 0, &[1; 4096]).await;
    old.flush(&CX).await.expect("flushed");
    write(&old, MIB, &[2; 4096]).await;
    let new = backend.attach(&CX, "v", writer(2).force()).await.expect("taken over");
    let data = IoBuf::copy_from(&[3; 4096]);
    let error = old.write(&CX, 0, data, WriteFlags::NONE).await.expect_err("fenced");
    assert_eq!(error.kind(), ErrorKind::FENCED);
    assert_eq!(old.flush(&CX).await.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert_eq!(old.read(&CX, 0, 512).await.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert_eq!(old.detach(&CX).await.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert!(is_all(&new, 0, 4096, 1).await);
    new.detach(&CX).await.expect("detached");
    run("qemu-img", &["check", text(&image(dir.path(), "v"))]);
}

/// Not a test of its own: writes to a volume, flushes, and notes what is durable, until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests"]
async fn victim() {
    let Ok(dir) = std::env::var("VICTIM_DIR") else { return };
    let first: u64 = std::env::var("VICTIM_FIRST").expect("set").parse().expect("a number");
    let backend = backend(Path::new(&dir)).await;
    let mut log =
        fs::OpenOptions::new().append(true).open(Path::new(&dir).join("log")).expect("a log");
    let volume = backend.attach(&CX, "v", writer(first)).await.expect("attached");
    for number in first.. {
        let data = IoBuf::copy_from(&noise(number, 40_000));
        volume.write(&CX, place(number), data, WriteFlags::NONE).await.expect("written");
        if number % 5 == 0 {
            volume
                .discard(&CX, 48 * MIB + number * 4096 % (8 * MIB), 300_000)
                .await
                .expect("discarded");
            write(&volume, 48 * MIB + number * 12_288 % (8 * MIB), &[1; 70_000]).await;
        }
        if number % 3 == 0 {
            volume.flush(&CX).await.expect("flushed");
            // In one piece, so that a kill leaves no number without its end for the next one to be added to.
            log.write_all(format!("{number}\n").as_bytes()).expect("noted");
        }
    }
}

fn place(number: u64) -> u64 {
    number * 40_000 % (40 * MIB - 40 * MIB % 40_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_everything_flushed_is_there() {
    for format in ["qcow2", "raw"] {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = backend(dir.path()).await;
        made(&backend, "v", 64 * MIB, format).await.detach(&CX).await.expect("detached");
        let log = dir.path().join("log");
        fs::write(&log, "").expect("written");
        let mut first = 1;
        for round in 0..8 {
            let variables =
                [("VICTIM_DIR", text(dir.path())), ("VICTIM_FIRST", &first.to_string())];
            let mut victim = respawn("victim", &variables);
            let begun = Instant::now();
            let last = loop {
                let noted = fs::read_to_string(&log).expect("read");
                let last = noted.lines().last().map_or(0, |line| line.parse().expect("a number"));
                if last > first + 20 * round {
                    break last;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "the victim does not write");
                std::thread::sleep(Duration::from_millis(3));
            };
            victim.kill().expect("killed");
            victim.wait().expect("ended");
            let noted = fs::read_to_string(&log).expect("read");
            let last = noted.lines().last().map_or(last, |line| line.parse().expect("a number"));
            if format == "qcow2" {
                check_after_kill(&image(dir.path(), "v"));
            }
            let volume = backend.attach(&CX, "v", writer(last)).await.expect("free");
            for number in last.saturating_sub(900).max(1)..=last {
                let found = read(&volume, place(number), 40_000).await;
                assert!(
                    found == noise(number, 40_000),
                    "{format}: flushed write {number} of {last} is lost"
                );
            }
            volume.detach(&CX).await.expect("detached");
            // What was written after the last flush may be there or not; it is not looked at again.
            first = last + 1;
        }
    }
}

/// Leaked clusters are waste, anything else is damage.
fn check_after_kill(image: &Path) {
    let output = Command::new("qemu-img").args(["check", text(image)]).output().expect("qemu-img");
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(matches!(code, Some(0 | 3)), "qemu-img check: {code:?}\n{said}");
}
