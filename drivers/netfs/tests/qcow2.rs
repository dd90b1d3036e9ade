// SPDX-License-Identifier: Apache-2.0
//! Volumes in images, on a server that does what servers do rarely.

mod support;

use std::path::{Path, PathBuf};

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, WriteFlags, ext::Resize,
};
use nfs3_types::nfs3::ftype3;
use support::{
    CX, KIB, MIB, attach, bytes, expect,
    fake::Fake,
    images::{check, made_image, qemu_img, qemu_img_succeeds},
    made, open, write,
};

const WRITE: u32 = 7;
const CREATE: u32 = 8;
const RENAME: u32 = 14;
const REMOVE: u32 = 12;

/// After which call a host dies that renames a volume.
const CUTS: [(u32, u32); 8] = [
    (CREATE, 1),
    (CREATE, 2),
    (WRITE, 1),
    (RENAME, 1),
    (RENAME, 2),
    (RENAME, 3),
    (REMOVE, 1),
    (REMOVE, 2),
];

/// Puts what is on the server's disk of an image where qemu-img finds it.
fn image_of(fake: &Fake, name: &str, dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, &fake.world().files[name].disk).expect("written");
    path
}

/// The disk in an image, as qemu sees it.
fn content(image: &Path) -> Vec<u8> {
    let raw = image.with_extension("converted");
    let (from, to) = (image.display().to_string(), raw.display().to_string());
    qemu_img_succeeds(&["convert", "-f", "qcow2", "-O", "raw", &from, &to]);
    std::fs::read(raw).expect("converted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_is_read_by_qemu() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let backend = open(fake.options()).await;
    let volume = made_image(&backend, "v", 64 * MIB).await;
    let shown = backend.show(&CX, "v").await.expect("shown");
    assert_eq!(shown.size, 64 * MIB);
    let mut wanted = vec![0_u8; 64 << 20];
    let mut random = fastrand::Rng::with_seed(7);
    for round in 1..=200_u64 {
        let (at, len) = (random.u64(0..63 * MIB) / 512 * 512, random.u64(1..600) * 512);
        let fill = (round % 255) as u8;
        if round % 9 == 0 {
            let zeroed = volume.write_zeroes(&CX, at, len, WriteFlags::NONE).await;
            zeroed.expect("zeroed");
            wanted[at as usize..(at + len) as usize].fill(0);
        } else {
            write(&volume, at, fill, len).await;
            wanted[at as usize..(at + len) as usize].fill(fill);
        }
    }
    let read = volume.read(&CX, MIB + 1, 30 << 20).await.expect("read");
    assert!(read[..] == wanted[(MIB + 1) as usize..][..30 << 20]);
    volume.flush(&CX).await.expect("flushed");
    let image = image_of(&fake, "v.qcow2", &dir);
    check(&image, false);
    assert!(content(&image) == wanted, "qemu sees something else");
    Resize::resize(&volume, &CX, 2 * MIB + 512, true).await.expect("shrunk");
    Resize::resize(&volume, &CX, 80 * MIB, false).await.expect("grown");
    assert_eq!(volume.size(), 80 * MIB);
    expect(&volume, 2 * MIB + 512, 0, 20 * MIB).await;
    volume.detach(&CX).await.expect("detached");
    let image = image_of(&fake, "v.qcow2", &dir);
    check(&image, false);
    wanted.truncate(2 << 20 | 512);
    wanted.resize(80 << 20, 0);
    assert!(content(&image) == wanted, "qemu sees something else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_never_on_the_disk_before_what_they_lead_to() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made_image(&backend, "v", 4 << 30).await;
    fake.world().hasty = 0;
    for round in 0..40_u64 {
        write(&volume, round * 100 * MIB, 1, 4 * KIB).await;
        write(&volume, round * MIB + 64 * KIB, 2, 128 * KIB).await;
        if round % 5 == 0 {
            volume.flush(&CX).await.expect("flushed");
        }
    }
    volume.detach(&CX).await.expect("detached");
    assert_eq!(fake.world().hasty, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writes_at_once_on_a_server_that_forgets_lose_nothing() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let backend = open(fake.options()).await;
    let volume = made_image(&backend, "v", 64 * MIB).await;
    fake.world().faults.crash_every = 11;
    let mut wanted = vec![0_u8; 64 << 20];
    for round in 1..=6_u8 {
        let writing: Vec<_> = (0..24_u64)
            .map(|number| {
                let at = (number * 2 + u64::from(round) % 2) * MIB + u64::from(round) * 7 * KIB;
                wanted[at as usize..][..96 << 10].fill(round);
                let volume = volume.clone();
                tokio::spawn(async move { write(&volume, at, round, 96 * KIB).await })
            })
            .collect();
        for one in writing {
            one.await.expect("written");
        }
        volume.flush(&CX).await.expect("flushed");
        fake.world().crash();
        let read = volume.read(&CX, 0, 64 << 20).await.expect("read");
        assert!(read[..] == wanted[..], "round {round}");
    }
    fake.world().faults.crash_every = 0;
    volume.detach(&CX).await.expect("detached");
    let image = image_of(&fake, "v.qcow2", &dir);
    check(&image, false);
    assert!(content(&image) == wanted, "qemu sees something else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_both_leaves_an_image_with_all_that_was_flushed() {
    let dir = tempfile::tempdir().expect("a directory");
    for calls in 1..25 {
        let fake = Fake::start().await;
        let backend = open(impatient(&fake)).await;
        let volume = made_image(&backend, "v", 4 << 30).await;
        for block in 0..8 {
            write(&volume, block * 512 * MIB, 1, 4 * KIB).await;
        }
        volume.flush(&CX).await.expect("flushed");
        // The client is not heard any more, and the server loses what it may.
        fake.world().faults.dies_after = Some((WRITE, calls));
        let working = tokio::spawn(async move {
            for block in 0..64 {
                let at = block * 64 * MIB + 64 * KIB;
                if volume.write(&CX, at, bytes(2, 4 * KIB), WriteFlags::NONE).await.is_err() {
                    return;
                }
                if block % 4 == 0 && volume.flush(&CX).await.is_err() {
                    return;
                }
            }
        });
        while !fake.world().faults.dead {
            tokio::task::yield_now().await;
        }
        fake.world().crash();
        working.abort();
        let image = image_of(&fake, "v.qcow2", &dir);
        check(&image, true);
        let seen = content_at(&image, &[0, 512, 1024, 3584]);
        assert!(seen.iter().all(|byte| *byte == 1), "{calls}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_uncounted_is_counted_before_anything_is_written() {
    /// The cluster of the first table that leads to blocks, and where its count is: behind header, counts and L1 table.
    const TABLE: u64 = 4;
    const COUNT_AT: usize = (2 << 16) + 2 * TABLE as usize;
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let backend = open(fake.options()).await;
    let volume = made_image(&backend, "v", 64 * MIB).await;
    write(&volume, 0, 1, 64 * KIB).await;
    volume.detach(&CX).await.expect("detached");
    {
        let mut world = fake.world();
        let disk = &mut world.files.get_mut("v.qcow2").expect("the image").disk;
        assert_eq!(disk[COUNT_AT..COUNT_AT + 2], [0, 1]);
        disk[COUNT_AT + 1] = 0;
    }
    let image = image_of(&fake, "v.qcow2", &dir).display().to_string();
    let (code, said) = qemu_img(&["check", "-f", "qcow2", &image]);
    assert_eq!(code, 2, "{said}");
    let volume = attach(&backend, "v", 2).await;
    for block in 1..8 {
        write(&volume, block * 64 * KIB, 2, 64 * KIB).await;
    }
    volume.flush(&CX).await.expect("flushed");
    expect(&volume, 0, 1, 64 * KIB).await;
    expect(&volume, 64 * KIB, 2, 7 * 64 * KIB).await;
    volume.detach(&CX).await.expect("detached");
    check(&image_of(&fake, "v.qcow2", &dir), false);
}

/// The options of a backend that soon gives up.
fn impatient(fake: &Fake) -> serde_json::Value {
    let mut options = fake.options();
    options["operation_timeout_secs"] = 1.into();
    options
}

/// The bytes of an image at these MiB.
fn content_at(image: &Path, places: &[u64]) -> Vec<u8> {
    let commands: Vec<String> = places.iter().map(|at| format!("read -P 1 {at}M 4k")).collect();
    let mut command = std::process::Command::new("qemu-io");
    command.args(["-r", "-f", "qcow2"]);
    for one in &commands {
        command.args(["-c", one]);
    }
    let output = command.arg(image).output().expect("qemu-io");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let good = said.matches("read 4096/4096").count();
    if said.contains("Pattern verification failed") { vec![0] } else { vec![1; good.max(1)] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_qemus_is_served_and_one_that_leads_elsewhere_is_not() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let backend = open(fake.options()).await;
    let at = |name: &str| dir.path().join(name).display().to_string();
    let mut raw = vec![0_u8; 4 << 20];
    raw[65_536..200_000].fill(5);
    raw[3 << 20..][..100].fill(6);
    std::fs::write(at("raw"), &raw).expect("written");
    for (name, options) in
        [("plain", vec![]), ("packed", vec!["-c"]), ("old", vec!["-o", "compat=0.10"])]
    {
        let file = at(name);
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(options);
        let source = at("raw");
        arguments.extend([source.as_str(), file.as_str()]);
        qemu_img_succeeds(&arguments);
        let image = std::fs::read(&file).expect("an image");
        fake.world().put(&format!("{name}.qcow2"), ftype3::NF3REG, &image);
        let listed = backend.list(&CX).await.expect("listed");
        assert!(listed.iter().any(|volume| volume.name == name && volume.size == 4 * MIB));
        let volume = attach(&backend, name, 1).await;
        let read = volume.read(&CX, 0, 4 << 20).await.expect("read");
        assert!(read[..] == raw[..], "{name}");
        let mut wanted = raw.clone();
        write(&volume, 70_000, 9, 100_000).await;
        wanted[70_000..170_000].fill(9);
        volume.write_zeroes(&CX, MIB, 2 * MIB + 50, WriteFlags::NONE).await.expect("zeroed");
        wanted[1 << 20..][..(2 << 20) + 50].fill(0);
        let read = volume.read(&CX, 0, 4 << 20).await.expect("read");
        assert!(read[..] == wanted[..], "{name}");
        volume.detach(&CX).await.expect("detached");
        let image = image_of(&fake, &format!("{name}.qcow2"), &dir);
        check(&image, false);
        assert!(content(&image) == wanted, "{name}: qemu sees something else");
    }
    let leading: [(&str, Vec<&str>); 3] = [
        ("backed", vec!["-F", "raw", "-b", "/etc/passwd"]),
        ("apart", vec!["-o", "data_file=apart.data"]),
        ("wide", vec!["-o", "extended_l2=on"]),
    ];
    for (name, options) in leading {
        let file = at(name);
        let mut arguments = vec!["create", "-f", "qcow2"];
        arguments.extend(options);
        arguments.extend([file.as_str(), "4M"]);
        std::process::Command::new("qemu-img")
            .args(&arguments)
            .current_dir(dir.path())
            .output()
            .expect("qemu-img");
        let image = std::fs::read(&file).expect("an image");
        fake.world().put(&format!("{name}.qcow2"), ftype3::NF3REG, &image);
        let writer = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
        let refused = backend.attach(&CX, name, writer).await.map(drop).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED, "{refused:#}");
        assert!(refused.remedy_text().contains("qemu-img"), "{refused:#}");
        assert!(fake.world().files[&format!("{name}.qcow2")].disk == image, "it was touched");
    }
    backend.list(&CX).await.expect("one that cannot be served hides no other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_guest_writes_never_makes_a_raw_volume_an_image() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", 4 * MIB).await;
    let image = qcow2_image::blank::blank(1 << 30, None).expect("an image");
    let data = driver_api::IoBuf::copy_from(&image);
    volume.write(&CX, 0, data, WriteFlags::NONE).await.expect("written");
    volume.detach(&CX).await.expect("detached");
    assert_eq!(backend.show(&CX, "v").await.expect("shown").size, 4 * MIB);
    let volume = attach(&backend, "v", 2).await;
    let read = volume.read(&CX, 0, 4096).await.expect("read");
    assert!(read[..] == image[..4096]);
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_image_is_completed_and_a_name_is_taken_once() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let spec = || VolumeSpec::new("v", 8 * MIB).option("format", "qcow2");
    for calls in 1..5 {
        let dying = open(impatient(&fake)).await;
        fake.world().faults.dies_after = Some((WRITE, calls));
        let died = dying.create(&CX, spec()).await;
        let was_dead = std::mem::take(&mut fake.world().faults.dead);
        assert_eq!(died.is_err(), was_dead, "{calls}");
        fake.world().faults.dies_after = None;
        let made = backend.create(&CX, spec()).await.expect("completed");
        assert_eq!(made.size, 8 * MIB, "{calls}");
        let volume = attach(&backend, "v", 1).await;
        expect(&volume, 0, 0, MIB).await;
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, "v").await.expect("deleted");
    }
    backend.create(&CX, spec()).await.expect("made");
    backend.create(&CX, spec()).await.expect("the same");
    let other = backend.create(&CX, VolumeSpec::new("v", 8 * MIB)).await.expect_err("raw");
    assert_eq!(other.kind(), ErrorKind::ALREADY_EXISTS, "{other:#}");
    let odd = VolumeSpec::new("odd", 1000).option("format", "qcow2");
    let odd = backend.create(&CX, odd).await.expect_err("no multiple of 512");
    assert_eq!(odd.kind(), ErrorKind::INVALID_ARGUMENT, "{odd:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_that_is_cut_anywhere_is_finished_when_it_is_repeated() {
    for format in ["raw", "qcow2"] {
        for (procedure, nth) in CUTS {
            let fake = Fake::start().await;
            let backend = open(fake.options()).await;
            let spec = VolumeSpec::new("old", MIB).option("format", format);
            backend.create(&CX, spec).await.expect("made");
            let volume = attach(&backend, "old", 3).await;
            write(&volume, 0, 7, 4 * KIB).await;
            let held = backend.rename(&CX, "old", "new").await.expect_err("attached");
            assert_eq!(held.kind(), ErrorKind::IN_USE, "{held:#}");
            volume.detach(&CX).await.expect("detached");
            // This host dies there: its call has its effect, and nothing follows.
            let dying = open(impatient(&fake)).await;
            fake.world().faults.dies_after = Some((procedure, nth));
            let died = dying.rename(&CX, "old", "new").await;
            fake.world().faults.dies_after = None;
            let was_dead = std::mem::take(&mut fake.world().faults.dead);
            // The answer of its last call still reaches it.
            assert!(was_dead || died.is_ok(), "{procedure} {nth}");
            let other = open(fake.options()).await;
            match other.rename(&CX, "old", "new").await {
                Ok(renamed) => assert_eq!(renamed.name, "new"),
                // It was done already, but for the answer.
                Err(error) => assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{error:#}"),
            }
            let names: Vec<String> = fake.world().files.keys().cloned().collect();
            assert_eq!(
                names,
                ["new.novastor".to_owned(), format!("new.{format}")],
                "{procedure} {nth}"
            );
            let stale = Attach::new(AttachMode::EXCLUSIVE, 2, "test");
            let stale = other.attach(&CX, "new", stale).await.map(drop).expect_err("its epoch");
            assert_eq!(stale.kind(), ErrorKind::FENCED, "{stale:#}");
            let volume = attach(&other, "new", 4).await;
            expect(&volume, 0, 7, 4 * KIB).await;
            volume.detach(&CX).await.expect("detached");
            let gone = other.rename(&CX, "old", "new").await.expect_err("gone");
            assert_eq!(gone.kind(), ErrorKind::NOT_FOUND, "{gone:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_never_replaces_another_volume() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    for (name, format) in [("a", "raw"), ("b", "raw"), ("c", "qcow2")] {
        let spec = VolumeSpec::new(name, MIB).option("format", format);
        backend.create(&CX, spec).await.expect("made");
    }
    for to in ["b", "c"] {
        let refused = backend.rename(&CX, "a", to).await.expect_err("taken");
        assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS, "{refused:#}");
    }
    let bad = backend.rename(&CX, "a", "../x").await.expect_err("no name");
    assert_eq!(bad.kind(), ErrorKind::INVALID_ARGUMENT, "{bad:#}");
    assert_eq!(backend.list(&CX).await.expect("listed").len(), 3);
}
