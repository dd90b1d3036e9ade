// SPDX-License-Identifier: Apache-2.0
//! Volumes in extents, against a server that does what servers do rarely.

mod support;

use driver_api::{
    Abilities, Attach, AttachMode, Backend, ErrorKind, OpContext, Volume, VolumeSpec, WriteFlags,
    ext::ExtentFlags,
};
use netfs::{NetfsBackend, NetfsVolume};
use nfs3_types::nfs3::ftype3;
use serde_json::json;
use support::{CX, KIB, MIB, attach, bytes, expect, fake::Fake, made, open, value, write};

const SETATTR: u32 = 2;
const WRITE: u32 = 7;
const CREATE: u32 = 8;
const REMOVE: u32 = 12;
const COMMIT: u32 = 21;

/// A backend whose volumes are in extents of 1 MiB.
async fn backend(fake: &Fake) -> NetfsBackend {
    let mut options = fake.patient();
    options["layout"] = json!("extents");
    options["extent_size"] = json!(MIB);
    open(options).await
}

/// The files of a volume's extents, by number.
fn extents(fake: &Fake) -> Vec<(u64, String)> {
    let number = |name: &String| -> Option<(u64, String)> {
        let rest = name.split_once(".novastor-")?.1.split_once("-x")?.1;
        Some((rest.split('-').next()?.parse().ok()?, name.clone()))
    };
    let mut found: Vec<_> = fake.world().files.keys().filter_map(number).collect();
    found.sort();
    found
}

fn numbers(fake: &Fake) -> Vec<u64> {
    extents(fake).into_iter().map(|(number, _)| number).collect()
}

/// What is on the server's disk, of a volume in extents of 1 MiB, after a crash.
fn disk(fake: &Fake, size: u64) -> Vec<u8> {
    let mut content = vec![0; size as usize];
    for (number, name) in extents(fake) {
        let disk = fake.world().files[&name].disk.clone();
        let begin = (number * MIB) as usize;
        let len = disk.len().min(content.len().saturating_sub(begin));
        content[begin..begin + len].copy_from_slice(&disk[..len]);
    }
    content
}

async fn holes(volume: &NetfsVolume) -> Vec<(u64, u64)> {
    let map = volume.allocation_map().expect("a map");
    let extents = map.extents(&CX, 0, volume.size(), 64).await.expect("mapped");
    assert_eq!(extents.iter().map(|extent| extent.len).sum::<u64>(), volume.size());
    let holes = extents.iter().filter(|extent| extent.flags.has(ExtentFlags::HOLE));
    holes.map(|extent| (extent.offset, extent.len)).collect()
}

#[tokio::test]
async fn files_are_there_for_what_was_written_and_go_with_what_is_discarded() {
    let fake = Fake::start().await;
    let backend = backend(&fake).await;
    let volume = made(&backend, "v", 8 * MIB + 512).await;
    let abilities = volume.capabilities().abilities;
    assert!(abilities.has(Abilities::DISCARD) && abilities.has(Abilities::ALLOCATION_MAP));
    for not in [Abilities::SNAPSHOT, Abilities::CLONE, Abilities::ROLLBACK, Abilities::FAST_ZERO] {
        assert!(!abilities.has(not), "{not:?}");
    }
    expect(&volume, 0, 0, 8 * MIB + 512).await;
    assert!(numbers(&fake).is_empty());
    write(&volume, 2 * MIB - 512, 7, MIB + KIB).await;
    write(&volume, 8 * MIB, 7, 512).await;
    assert_eq!(numbers(&fake), [1, 2, 3, 8]);
    expect(&volume, 2 * MIB - 512, 7, MIB + KIB).await;
    expect(&volume, MIB, 0, MIB - 512).await;
    assert_eq!(holes(&volume).await, [(0, MIB), (4 * MIB, 4 * MIB)]);
    volume.flush(&CX).await.expect("flushed");
    assert!(fake.world().files["v.raw"].disk.iter().all(|byte| *byte == 0));
    assert_eq!(backend.show(&CX, "v").await.expect("shown").used, 12 * MIB + 512);
    // In part, whole, and as far as there is volume.
    volume.discard(&CX, 2 * MIB - 512, MIB + 512).await.expect("discarded");
    volume.discard(&CX, 8 * MIB, 512).await.expect("discarded");
    assert_eq!(numbers(&fake), [1, 3]);
    expect(&volume, 0, 0, 3 * MIB).await;
    expect(&volume, 3 * MIB, 7, 512).await;
    volume.write_zeroes(&CX, 3 * MIB, MIB, WriteFlags::NONE).await.expect("zeroed");
    assert_eq!(numbers(&fake), [1]);
    volume.write_zeroes(&CX, 3 * MIB, MIB, WriteFlags::NO_HOLE).await.expect("zeroed");
    assert_eq!(numbers(&fake), [1, 3]);
    let fast = volume.write_zeroes(&CX, 0, 512, WriteFlags::FAST_ONLY).await.expect_err("not fast");
    assert_eq!(fast.kind(), ErrorKind::UNSUPPORTED);
    volume.detach(&CX).await.expect("detached");
    let volume = attach(&backend, "v", 2).await;
    expect(&volume, 0, 0, 8 * MIB + 512).await;
    write(&volume, 5 * MIB, 3, 512).await;
    volume.detach(&CX).await.expect("detached");
    backend.rename(&CX, "v", "w").await.expect("renamed");
    let volume = attach(&backend, "w", 3).await;
    expect(&volume, 5 * MIB, 3, 512).await;
    write(&volume, 6 * MIB, 4, 512).await;
    volume.detach(&CX).await.expect("detached");
    let listed = backend.list(&CX).await.expect("listed");
    assert_eq!((listed.len(), listed[0].used), (1, 12 * MIB + 512));
    backend.delete(&CX, "w").await.expect("deleted");
    assert!(fake.world().files.is_empty(), "something is left");
}

#[tokio::test]
async fn what_needs_one_file_is_refused() {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let image = VolumeSpec::new("i", MIB).option("layout", "extents").option("format", "qcow2");
    let refused = backend.create(&CX, image).await.expect_err("an image");
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT);
    let spec = VolumeSpec::new("v", 4 * MIB).option("layout", "extents");
    backend.create(&CX, spec.clone()).await.expect("created");
    backend.create(&CX, spec).await.expect("it is there");
    let other = backend.create(&CX, VolumeSpec::new("v", 4 * MIB)).await.expect_err("another one");
    assert_eq!(other.kind(), ErrorKind::ALREADY_EXISTS);
    let volume = attach(&backend, "v", 1).await;
    assert!(volume.snapshots().is_none());
    let clones = backend.clones().expect("of others");
    let refused =
        clones.clone_volume(&CX, "v", "", VolumeSpec::new("w", 0)).await.expect_err("a clone");
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED, "{refused:#}");
    assert!(!refused.remedy_text().is_empty());
    assert!(backend.list(&CX).await.expect("listed").len() == 1);
    volume.detach(&CX).await.expect("detached");
    let record = fake.world().files["v.novastor"].disk.clone();
    let record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
    assert_eq!(record["incompatible_features"], 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_between_any_two_writes_loses_nothing() {
    const SIZE: u64 = 6 * MIB;
    for crash_every in [1, 2, 3, 7] {
        let fake = Fake::start().await;
        let backend = backend(&fake).await;
        let volume = made(&backend, "v", SIZE).await;
        let mut random = fastrand::Rng::with_seed(crash_every);
        let mut wanted = vec![0_u8; SIZE as usize];
        for round in 0..6 {
            fake.world().faults.crash_every = crash_every;
            for _ in 0..12 {
                let len = random.u64(1..1200) * KIB;
                let at = random.u64(0..(SIZE - len) / 512) * 512;
                let fill = if random.u8(0..6) == 0 { 0 } else { random.u8(1..) };
                wanted[at as usize..(at + len) as usize].fill(fill);
                if fill == 0 {
                    volume.discard(&CX, at, len).await.expect("discarded");
                } else {
                    let flags =
                        if random.u8(0..5) == 0 { WriteFlags::FUA } else { WriteFlags::NONE };
                    volume.write(&CX, at, bytes(fill, len), flags).await.expect("written");
                }
            }
            let number = random.u64(0..SIZE / MIB) * MIB;
            volume.discard(&CX, number, MIB).await.expect("discarded");
            wanted[number as usize..(number + MIB) as usize].fill(0);
            let seen = volume.read(&CX, 0, SIZE as u32).await.expect("read");
            assert!(seen[..] == wanted[..], "every {crash_every}, round {round}: not seen");
            fake.world().faults.crash_every = if crash_every < 3 { 0 } else { crash_every };
            volume.flush(&CX).await.expect("flushed");
            fake.world().crash();
            assert!(disk(&fake, SIZE) == wanted, "every {crash_every}, round {round}: lost");
        }
        assert!(fake.world().crashes > 6);
        fake.world().faults.crash_every = 0;
        volume.detach(&CX).await.expect("detached");
        let volume = attach(&backend, "v", 2).await;
        let seen = volume.read(&CX, 0, SIZE as u32).await.expect("read");
        assert!(seen[..] == wanted[..], "every {crash_every}: attached again");
    }
}

#[tokio::test]
async fn answers_that_are_lost_are_asked_for_again() {
    for procedure in [CREATE, SETATTR, WRITE, COMMIT, REMOVE] {
        let fake = Fake::start().await;
        let backend = backend(&fake).await;
        let volume = made(&backend, "v", 4 * MIB).await;
        write(&volume, 0, 1, 2 * MIB).await;
        // All calls of before have been counted on the connection.
        fake.world().faults.cut_after = Some((procedure, 1));
        write(&volume, 2 * MIB, 2, KIB).await;
        volume.flush(&CX).await.expect("flushed");
        volume.discard(&CX, 0, MIB).await.expect("discarded");
        assert_eq!(numbers(&fake), [1, 2], "procedure {procedure}");
        write(&volume, KIB, 3, KIB).await;
        volume.flush(&CX).await.expect("flushed");
        let mut wanted = vec![0; 4 << 20];
        wanted[1 << 10..2 << 10].fill(3);
        wanted[1 << 20..2 << 20].fill(1);
        wanted[2 << 20..(2 << 20) + 1024].fill(2);
        assert!(disk(&fake, 4 * MIB) == wanted, "procedure {procedure}");
        assert_eq!(value(&backend.stats(), "mount_lost_total"), 1.0, "procedure {procedure}");
        volume.detach(&CX).await.expect("detached");
    }
}

/// Whatever call of a write, or of a discard, is the last that a server ever hears: what is found afterwards is what was there
/// before, or what was asked for.
#[tokio::test]
async fn a_host_that_ends_anywhere_leaves_what_was_or_what_was_asked_for() {
    for is_discard in [false, true] {
        for calls in 1..16 {
            let fake = Fake::start().await;
            let mut options = fake.options();
            options["layout"] = json!("extents");
            options["extent_size"] = json!(MIB);
            options["operation_timeout_secs"] = json!(1);
            options["mount_timeout_secs"] = json!(1);
            let backend = open(options).await;
            let volume = made(&backend, "v", 3 * MIB).await;
            write(&volume, 0, 1, MIB).await;
            volume.flush(&CX).await.expect("flushed");
            fake.world().faults.dies_after_calls = Some(calls);
            let done = if is_discard {
                volume.discard(&CX, 0, MIB).await
            } else {
                volume.write(&CX, 2 * MIB, bytes(2, KIB), WriteFlags::FUA).await
            };
            let next = Fake::start().await;
            next.world().inherit(&mut fake.world());
            let backend = self::backend(&next).await;
            let attach = Attach::new(AttachMode::EXCLUSIVE, 2, "next").force();
            let volume = backend.attach(&CX, "v", attach).await.expect("attached");
            let first = volume.read(&CX, 0, MIB as u32).await.expect("read");
            let is = |value: u8| first.iter().all(|byte| *byte == value);
            assert!(if is_discard { is(0) || (done.is_err() && is(1)) } else { is(1) }, "{calls}");
            let last = volume.read(&CX, 2 * MIB, MIB as u32).await.expect("read");
            let is = |value: u8| last[..1024].iter().all(|byte| *byte == value);
            assert!(is(0) || is(2), "{calls}");
            assert!(is_discard || done.is_err() || is(2), "{calls}: an acknowledged write is lost");
            assert!(last[1024..].iter().all(|byte| *byte == 0), "{calls}");
            write(&volume, 0, 5, 3 * MIB).await;
            volume.detach(&CX).await.expect("detached");
            let volume = support::attach(&backend, "v", 3).await;
            expect(&volume, 0, 5, 3 * MIB).await;
            volume.detach(&CX).await.expect("detached");
            backend.delete(&CX, "v").await.expect("deleted");
            assert!(next.world().files.is_empty(), "{calls}: something is left");
        }
    }
}

/// A call that a dead connection took along, done by the server after everything else.
#[tokio::test]
async fn what_a_server_does_late_happens_to_no_data() {
    let fake = Fake::start().await;
    let backend = backend(&fake).await;
    let volume = made(&backend, "v", 2 * MIB).await;
    write(&volume, 0, 1, MIB).await;
    volume.flush(&CX).await.expect("flushed");
    let first = extents(&fake)[0].1.clone();
    volume.discard(&CX, 0, MIB).await.expect("discarded");
    write(&volume, 0, 2, MIB).await;
    volume.flush(&CX).await.expect("flushed");
    let second = extents(&fake)[0].1.clone();
    assert_ne!(first, second, "a name that was used before");
    volume.detach(&CX).await.expect("detached");
    // The first file is made once more, late, even with its length.
    for (epoch, len) in [(2, 0), (3, 1 << 20)] {
        fake.world().put(&first, ftype3::NF3REG, &vec![0; len]);
        let volume = attach(&backend, "v", epoch).await;
        expect(&volume, 0, 2, MIB).await;
        volume.detach(&CX).await.expect("detached");
    }
    backend.delete(&CX, "v").await.expect("deleted");
    assert!(fake.world().files.is_empty(), "something is left");
}

#[tokio::test]
async fn a_discard_of_unknown_outcome_leaves_a_doubt_and_is_done_first_of_all() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options["layout"] = json!("extents");
    options["extent_size"] = json!(MIB);
    options["operation_timeout_secs"] = json!(2);
    let backend = open(options).await;
    let volume = made(&backend, "v", 2 * MIB).await;
    write(&volume, 0, 1, MIB).await;
    volume.flush(&CX).await.expect("flushed");
    fake.world().faults.mute = Some(SETATTR);
    let late = volume.discard(&CX, 0, MIB).await.expect_err("no answer");
    assert_eq!(late.kind(), ErrorKind::TIMED_OUT, "{late:#}");
    fake.world().faults.mute = None;
    expect(&volume, 0, 0, MIB).await;
    write(&volume, 0, 3, KIB).await;
    expect(&volume, 0, 3, KIB).await;
    expect(&volume, KIB, 0, MIB - KIB).await;
    let doubt = volume.flush(&CX).await.expect_err("in doubt");
    assert_eq!(doubt.kind(), ErrorKind::CORRUPTED, "{doubt:#}");
    volume.detach(&CX).await.expect_err("it says so as well");
    let volume = attach(&backend, "v", 2).await;
    expect(&volume, KIB, 0, MIB - KIB).await;
}

/// A renaming that ended before the file had its new name: what has that name is none of the volume's, and goes alone.
#[tokio::test]
async fn a_name_that_was_only_reserved_reaches_no_extents() {
    for calls in (8..200).step_by(3) {
        let fake = Fake::start().await;
        let mut options = fake.options();
        options["layout"] = json!("extents");
        options["extent_size"] = json!(MIB);
        options["operation_timeout_secs"] = json!(1);
        options["mount_timeout_secs"] = json!(1);
        let backend = open(options).await;
        let volume = made(&backend, "v", 2 * MIB).await;
        write(&volume, 0, 1, 2 * MIB).await;
        volume.detach(&CX).await.expect("detached");
        fake.world().faults.dies_after_calls = Some(calls);
        let renamed = backend.rename(&CX, "v", "w").await;
        let next = Fake::start().await;
        next.world().inherit(&mut fake.world());
        let backend = self::backend(&next).await;
        let whole = |name: &str| {
            next.world().files.get(name).is_some_and(|file| !file.content().is_empty())
        };
        if whole("v.raw") && next.world().files.contains_key("w.raw") {
            let has_record = next.world().files.contains_key("w.novastor");
            let attach = Attach::new(AttachMode::EXCLUSIVE, 2, "test");
            let reserved = backend.attach(&CX, "w", attach).await;
            assert!(reserved.is_err() || !has_record, "{calls}: a name alone is attached");
            if reserved.is_err() {
                backend.delete(&CX, "w").await.expect("deleted");
            }
        }
        let name = if whole("v.raw") { "v" } else { "w" };
        assert!(name == "w" || renamed.is_err(), "{calls}");
        let volume = attach(&backend, name, 3).await;
        expect(&volume, 0, 1, 2 * MIB).await;
        volume.detach(&CX).await.expect("detached");
        if renamed.is_ok() {
            return;
        }
    }
    panic!("the renaming never ended");
}

#[tokio::test]
async fn what_was_cut_off_does_not_come_back() {
    let fake = Fake::start().await;
    let backend = backend(&fake).await;
    let volume = made(&backend, "v", 4 * MIB).await;
    write(&volume, 0, 1, 4 * MIB).await;
    let resize = volume.resize().expect("resize");
    resize.resize(&CX, MIB + 512, true).await.expect("smaller");
    assert_eq!((volume.size(), numbers(&fake)), (MIB + 512, vec![0, 1]));
    resize.resize(&CX, MIB + KIB, false).await.expect("a little larger");
    resize.resize(&CX, 4 * MIB, false).await.expect("larger");
    expect(&volume, 0, 1, MIB + 512).await;
    expect(&volume, MIB + 512, 0, 3 * MIB - 512).await;
    // What could not be removed is, before anybody sees it again.
    write(&volume, 3 * MIB, 1, KIB).await;
    volume.flush(&CX).await.expect("flushed");
    volume.detach(&CX).await.expect("detached");
    let (number, name) = extents(&fake).pop().expect("the last");
    assert_eq!(number, 3);
    let kept = fake.world().files[&name].disk.clone();
    let volume = attach(&backend, "v", 2).await;
    volume.resize().expect("resize").resize(&CX, 2 * MIB, true).await.expect("smaller");
    volume.detach(&CX).await.expect("detached");
    fake.world().put(&name, ftype3::NF3REG, &kept);
    let volume = attach(&backend, "v", 3).await;
    volume.resize().expect("resize").resize(&CX, 4 * MIB, false).await.expect("larger");
    expect(&volume, 2 * MIB, 0, 2 * MIB).await;
    assert_eq!(backend.show(&CX, "v").await.expect("shown").size, 4 * MIB);
}

#[tokio::test]
async fn what_is_not_durable_is_bounded_and_few_files_are_open() {
    let fake = Fake::start().await;
    let mut options = fake.patient();
    options["layout"] = json!("extents");
    options["extent_size"] = json!(MIB);
    options["unstable_bytes"] = json!(2 * MIB);
    let backend = open(options).await;
    let volume = made(&backend, "v", 200 * MIB).await;
    for number in 0..200 {
        write(&volume, number * MIB, number as u8, 64 * KIB).await;
        assert!(value(&volume.stats(), "not_durable_bytes") <= (2 * MIB + 64 * KIB) as f64);
    }
    volume.flush(&CX).await.expect("flushed");
    assert_eq!(value(&volume.stats(), "not_durable_bytes"), 0.0);
    for number in 0..200 {
        expect(&volume, number * MIB, number as u8, 64 * KIB).await;
    }
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test]
async fn an_extent_that_is_gone_or_cut_off_is_no_zeros() {
    let fake = Fake::start().await;
    let backend = backend(&fake).await;
    for cut in [false, true] {
        let volume = made(&backend, "v", 2 * MIB).await;
        write(&volume, 0, 1, MIB).await;
        volume.detach(&CX).await.expect("detached");
        let volume = attach(&backend, "v", 2).await;
        let name = extents(&fake)[0].1.clone();
        if cut {
            fake.world().put(&name, ftype3::NF3REG, &[1; 4096]);
        } else {
            fake.world().files.remove(&name);
        }
        let gone = volume.read(&CX, 0, 512).await.expect_err("gone");
        assert_eq!(gone.kind(), ErrorKind::CORRUPTED, "{gone:#}");
        expect(&volume, MIB, 0, MIB).await;
        volume.detach(&OpContext::new()).await.expect("detached");
        backend.delete(&CX, "v").await.expect("deleted");
    }
}
