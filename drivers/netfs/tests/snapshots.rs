// SPDX-License-Identifier: Apache-2.0
//! Snapshots, on a server that does what servers do rarely.

mod support;

use std::collections::BTreeMap;

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, WriteFlags,
    ext::{Resize, Snapshots},
};
use netfs::{NetfsBackend, NetfsVolume};
use serde_json::Value;
use support::{
    CX, KIB, MIB, attach, bytes, expect,
    fake::Fake,
    layers::{
        change_record, dump, file_of, forget, names, reborn, roll_back, seen_by_qemu, snapshot,
        tree_of, until_layers, until_tidy,
    },
    made, open, write,
};

/// A new volume in this format, attached.
async fn made_as(backend: &NetfsBackend, format: &str, size: u64) -> NetfsVolume {
    let spec = VolumeSpec::new("v", size).option("format", format);
    backend.create(&CX, spec).await.expect("created");
    attach(backend, "v", 1).await
}

/// What a volume holds.
async fn content(volume: &NetfsVolume) -> Vec<u8> {
    let size = volume.size();
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        let len = (size - all.len() as u64).min(8 * MIB) as u32;
        all.extend_from_slice(&volume.read(&CX, all.len() as u64, len).await.expect("read"));
    }
    all
}

/// Asserts that qemu sees in the files what is wanted: of the volume, and of each snapshot.
fn judge(
    fake: &Fake,
    root: &str,
    now: &[u8],
    wanted: &BTreeMap<String, Vec<u8>>,
    after_a_crash: bool,
) {
    let dir = tempfile::tempdir().expect("a directory");
    dump(fake, dir.path());
    let tree = tree_of(fake, "v");
    let active = tree["active"].as_u64().unwrap_or(0);
    let seen = seen_by_qemu(&dir.path().join(file_of(&tree, root, active)), after_a_crash);
    assert!(seen == now, "qemu sees something else in the volume: {tree}");
    let snapshots = tree["snapshots"].as_array().cloned().unwrap_or_default();
    assert_eq!(snapshots.len(), wanted.len(), "{tree}");
    for snapshot in snapshots {
        let name = snapshot["name"].as_str().expect("a name");
        let file = file_of(&tree, root, snapshot["layer"].as_u64().expect("a layer"));
        let mut seen = seen_by_qemu(&dir.path().join(file), after_a_crash);
        seen.truncate(wanted[name].len());
        assert!(seen == wanted[name], "qemu sees something else in {name}: {tree}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_the_volume_and_every_snapshot_keep_their_content() {
    for (format, seed) in [("raw", 1), ("qcow2", 2), ("raw", 3), ("qcow2", 4)] {
        let fake = Fake::start().await;
        let backend = open(fake.patient()).await;
        let mut volume = made_as(&backend, format, 4 * MIB).await;
        let root = format!("v.{format}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut now = vec![0_u8; 4 << 20];
        let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for round in 1..=90_u64 {
            let taken: Vec<String> = wanted.keys().cloned().collect();
            let some = (!taken.is_empty()).then(|| taken[random.usize(..taken.len())].clone());
            match (random.u8(0..12), some) {
                (0 | 1, _) => {
                    let name = format!("s{round:02}");
                    snapshot(&volume, &name).await;
                    wanted.insert(name, now.clone());
                }
                (2 | 3, Some(name)) => {
                    forget(&volume, &name).await;
                    wanted.remove(&name);
                }
                (4, Some(name)) => {
                    roll_back(&volume, &name).await;
                    now.clone_from(&wanted[&name]);
                    assert_eq!(volume.size(), now.len() as u64);
                }
                (5, _) => {
                    let size = random.u64(4..14) * (MIB / 2) + 512 * random.u64(0..3);
                    Resize::resize(&volume, &CX, size, true).await.expect("resized");
                    now.resize(size as usize, 0);
                }
                (6, _) => {
                    let at = random.usize(0..now.len() - 4096);
                    let len = random.usize(1..(now.len() - at).min(700_000));
                    let zeroed =
                        volume.write_zeroes(&CX, at as u64, len as u64, WriteFlags::NONE).await;
                    zeroed.expect("zeroed");
                    now[at..at + len].fill(0);
                }
                _ => {
                    let at = random.usize(0..now.len() - 4096);
                    let len = random.usize(1..(now.len() - at).min(300_000));
                    let fill = (round % 255) as u8 + 1;
                    write(&volume, at as u64, fill, len as u64).await;
                    now[at..at + len].fill(fill);
                }
            }
            if round % 6 == 0 {
                assert!(content(&volume).await == now, "{format} {seed}, round {round}");
            }
            if round % 30 == 0 {
                volume.flush(&CX).await.expect("flushed");
                let listed = names(&volume).await;
                assert_eq!(listed, wanted.keys().cloned().collect::<Vec<_>>());
                if round == 60 {
                    volume.detach(&CX).await.expect("detached");
                    judge(&fake, &root, &now, &wanted, false);
                    let shown = backend.show(&CX, "v").await.expect("shown");
                    assert_eq!(shown.size, now.len() as u64);
                    volume = attach(&backend, "v", 2).await;
                }
            }
        }
        for name in wanted.keys() {
            forget(&volume, name).await;
        }
        until_layers(&volume, 1).await;
        assert!(content(&volume).await == now, "{format} {seed}: without snapshots");
        volume.detach(&CX).await.expect("detached");
        judge(&fake, &root, &now, &BTreeMap::new(), false);
        until_tidy(&fake, "v").await;
        let left: Vec<String> = fake.world().files.keys().cloned().collect();
        assert_eq!(left, ["v.novastor".to_owned(), root], "{format} {seed}");
        backend.delete(&CX, "v").await.expect("deleted");
        assert!(fake.world().files.is_empty());
    }
}

/// Hosts that die at the same time.
const AT_ONCE: u32 = 16;

/// What a host does until it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Take,
    GoBack,
    Delete,
    DeleteFirst,
    Remove,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_anywhere_leaves_the_volume_and_its_snapshots_whole() {
    // All take long; some are played always.
    let stride = if std::env::var_os("NOVASTOR_EVERY_CALL").is_some() { 1 } else { 7 };
    for format in ["raw", "qcow2"] {
        for doing in [Doing::Take, Doing::GoBack, Doing::Delete, Doing::DeleteFirst, Doing::Remove]
        {
            // Until it is done before it dies.
            let mut first = 1;
            loop {
                let calls = (0..AT_ONCE).map(|number| first + number * stride);
                let playing = calls.map(|calls| die_while(format, doing, calls));
                let died = futures_util::future::join_all(playing).await;
                if died.contains(&false) {
                    assert!(first > 1 || died[0], "{doing:?} took no call");
                    break;
                }
                first += AT_ONCE * stride;
            }
        }
    }
}

/// Plays it; whether the host died.
async fn die_while(format: &str, doing: Doing, calls: u32) -> bool {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = made_as(&backend, format, 2 * MIB).await;
    let root = format!("v.{format}");
    let mut now = vec![0_u8; 2 << 20];
    let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (at, fill) = (number * 100_000, number as u8 + 1);
        write(&volume, at as u64, fill, 200_000).await;
        now[at..at + 200_000].fill(fill);
        if name != "c" {
            snapshot(&volume, name).await;
            wanted.insert(name.to_owned(), now.clone());
        }
    }
    volume.detach(&CX).await.expect("detached");
    let what = format!("{format} {doing:?} {calls}");
    let backend = open(fake.patient()).await;
    let volume = attach(&backend, "v", 2).await;
    fake.world().faults.dies_after_calls = Some(calls);
    let done = do_until_dead(&fake, doing, backend, volume, &what).await;
    let died = fake.world().faults.dead;
    let fake = reborn(&fake, "v").await;
    let backend = open(fake.patient()).await;
    if doing == Doing::Remove {
        match backend.delete(&CX, "v").await {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{what}: {error:#}"),
        }
        let left: Vec<String> = fake.world().files.keys().cloned().collect();
        // What has the volume no more, and only a record: a new volume of this name replaces it.
        assert!(left.iter().all(|name| name == "v.novastor"), "{what}: {left:?}");
        return died;
    }
    let writer = Attach::new(AttachMode::EXCLUSIVE, 3, "test");
    let attached = backend.attach(&CX, "v", writer).await;
    let volume = attached.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let left = names(&volume).await;
    match doing {
        Doing::Take => {
            assert!(left.len() == 3 || !done, "{what}: {left:?}");
            if left.len() == 3 {
                wanted.insert("c".to_owned(), now.clone());
            }
        }
        Doing::GoBack => {
            let seen = content(&volume).await;
            if seen == wanted["a"] {
                now.clone_from(&wanted["a"]);
            }
            assert!(!done || now == wanted["a"], "{what}");
        }
        _ => {
            assert!(left.len() < 2 || !done, "{what}: {left:?}");
            wanted.retain(|name, _| left.contains(name));
        }
    }
    assert_eq!(left, wanted.keys().cloned().collect::<Vec<_>>(), "{what}");
    assert!(content(&volume).await == now, "{what}: attached again");
    // What was begun goes on.
    until_layers(&volume, 1 + wanted.len() as u64).await;
    assert!(content(&volume).await == now, "{what}: tidied up");
    write(&volume, 1_000_000, 9, 100_000).await;
    now[1_000_000..1_100_000].fill(9);
    volume.detach(&CX).await.expect("detached");
    judge(&fake, &root, &now, &wanted, true);
    backend.delete(&CX, "v").await.expect("deleted");
    let left: Vec<String> = fake.world().files.keys().cloned().collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    died
}

/// Begins it, and waits until it is done, with all that it leaves to be done, or the host is dead; whether it succeeded.
async fn do_until_dead(
    fake: &Fake,
    doing: Doing,
    backend: NetfsBackend,
    volume: NetfsVolume,
    what: &str,
) -> bool {
    let working = tokio::spawn(async move {
        let done = match doing {
            Doing::Take => Snapshots::create(&volume, &CX, "c").await.map(drop),
            Doing::GoBack => volume.rollback(&CX, "a").await,
            Doing::Delete => match Snapshots::delete(&volume, &CX, "b").await {
                Ok(()) => Snapshots::delete(&volume, &CX, "a").await,
                failed => failed,
            },
            Doing::DeleteFirst => Snapshots::delete(&volume, &CX, "a").await,
            Doing::Remove => match volume.detach(&CX).await {
                Ok(()) => backend.delete(&CX, "v").await,
                failed => failed,
            },
        };
        // While it lives, it works on.
        done.is_ok().then_some((volume, backend))
    });
    let end = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !fake.world().faults.dead && !working.is_finished() {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    if !working.is_finished() {
        // What its last call brought about it does not hear any more.
        working.abort();
        return false;
    }
    let working = working.await.expect("no panic");
    let deletes = [Doing::Delete, Doing::DeleteFirst].contains(&doing) && working.is_some();
    while deletes && !fake.world().faults.dead {
        let tree = tree_of(fake, "v");
        let layers = tree["overlays"].as_array().map_or(0, Vec::len);
        let gone = tree["gone"].as_array().map_or(0, Vec::len);
        if gone == 0 && layers == usize::from(doing == Doing::DeleteFirst) {
            break;
        }
        assert!(std::time::Instant::now() < end, "{what}: {tree}");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    working.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_go_on_while_snapshots_come_and_go() {
    const LANES: u64 = 4;
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = made_as(&backend, "raw", LANES * MIB).await;
    let ending = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..LANES)
        .map(|lane| {
            let (volume, ending) = (volume.clone(), std::sync::Arc::clone(&ending));
            tokio::spawn(async move {
                let (mut round, base) = (0_u64, lane * MIB);
                while !ending.load(std::sync::atomic::Ordering::SeqCst) {
                    round += 1;
                    let at = base + (round * 37 % 240) * 4 * KIB;
                    let fill = (round % 250) as u8 + 1;
                    write(&volume, at, fill, 8 * KIB).await;
                    expect(&volume, at, fill, 8 * KIB).await;
                    if round % 16 == 0 {
                        volume.flush(&CX).await.expect("flushed");
                    }
                }
                round
            })
        })
        .collect();
    for round in 0..12 {
        snapshot(&volume, &format!("s{round}")).await;
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        if round >= 3 {
            forget(&volume, &format!("s{}", round - 3)).await;
        }
    }
    for round in 9..12 {
        forget(&volume, &format!("s{round}")).await;
    }
    until_layers(&volume, 1).await;
    ending.store(true, std::sync::atomic::Ordering::SeqCst);
    for writer in writers {
        assert!(writer.await.expect("no write was refused") > 10);
    }
    let seen = content(&volume).await;
    volume.detach(&CX).await.expect("detached");
    assert!(fake.world().files["v.raw"].disk == seen);
    assert_eq!(value_of(&fake, "v.novastor", "incompatible_features"), 0);
}

fn value_of(fake: &Fake, file: &str, key: &str) -> Value {
    let record: Value = serde_json::from_slice(&fake.world().files[file].content()).expect("JSON");
    record[key].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_snapshots_is_renamed_listed_and_removed_whole() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().expect("a directory"));
    let backend = open(fake.patient()).await;
    let volume = made_as(&backend, "raw", 4 * MIB).await;
    write(&volume, 0, 1, MIB).await;
    snapshot(&volume, "first").await;
    write(&volume, 0, 2, 64 * KIB).await;
    let listed = backend.list(&CX).await.expect("listed");
    assert_eq!(listed.len(), 1, "{listed:?}");
    let usage = backend.usage(&CX).await.expect("usage");
    assert_eq!(usage.provisioned, 4 * MIB);
    assert!(usage.used > 4 * MIB, "{usage:?}");
    volume.detach(&CX).await.expect("detached");
    let reserved = VolumeSpec::new("v.novastor-01234567-1", MIB);
    let reserved = backend.create(&CX, reserved).await.expect_err("the name of a layer");
    assert_eq!(reserved.kind(), ErrorKind::INVALID_ARGUMENT, "{reserved:#}");
    let renamed = backend.rename(&CX, "v", "w").await.expect("renamed");
    assert_eq!(renamed.size, 4 * MIB);
    dump(&fake, dir.path());
    let tree = tree_of(&fake, "w");
    let seen = seen_by_qemu(&dir.path().join(file_of(&tree, "w.raw", 1)), false);
    assert!(seen[..64 << 10].iter().all(|byte| *byte == 2));
    assert!(seen[64 << 10..1 << 20].iter().all(|byte| *byte == 1));
    // Another volume has the old name now, and layers of its own.
    let other = made_as(&backend, "raw", MIB).await;
    write(&other, 0, 7, 4 * KIB).await;
    snapshot(&other, "first").await;
    other.detach(&CX).await.expect("detached");
    let volume = attach(&backend, "w", 2).await;
    expect(&volume, 0, 2, 64 * KIB).await;
    roll_back(&volume, "first").await;
    expect(&volume, 0, 1, MIB).await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "w").await.expect("deleted");
    let other = attach(&backend, "v", 2).await;
    expect(&other, 0, 7, 4 * KIB).await;
    assert_eq!(names(&other).await, ["first"]);
    other.detach(&CX).await.expect("detached");
    backend.delete(&CX, "v").await.expect("deleted");
    assert!(fake.world().files.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_right_is_refused() {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = made(&backend, "v", MIB).await;
    snapshot(&volume, "s").await;
    let long = "n".repeat(200);
    for bad in ["", ".", "../x", "a/b", "a b", "-a", long.as_str()] {
        let refused = Snapshots::create(&volume, &CX, bad).await.expect_err(bad);
        assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{refused:#}");
    }
    let twice = Snapshots::create(&volume, &CX, "s").await.expect_err("twice");
    assert_eq!(twice.kind(), ErrorKind::ALREADY_EXISTS, "{twice:#}");
    volume.detach(&CX).await.expect("detached");
    let late = Snapshots::create(&volume, &CX, "t").await.expect_err("detached");
    assert_eq!(late.kind(), ErrorKind::UNAVAILABLE, "{late:#}");
    let reader = Attach::new(AttachMode::READ_ONLY, 2, "reader");
    let reader = backend.attach(&CX, "v", reader).await.expect("attached");
    assert_eq!(names(&reader).await, ["s"]);
    let refused = Snapshots::create(&reader, &CX, "t").await.expect_err("a reader");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    let refused = reader.rollback(&CX, "s").await.expect_err("a reader");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    reader.detach(&CX).await.expect("detached");
    let odd = made(&backend, "odd", 1_000_001).await;
    let refused = Snapshots::create(&odd, &CX, "s").await.expect_err("no whole sectors");
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{refused:#}");
    assert!(refused.remedy_text().contains("512"), "{refused:#}");
    odd.write(&CX, 0, bytes(3, 512), WriteFlags::FUA).await.expect("it goes on");
    odd.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_writer_changes_no_layers() {
    let fake = Fake::start().await;
    let (one, two) = (open(fake.patient()).await, open(fake.patient()).await);
    let old = made_as(&one, "raw", 4 * MIB).await;
    write(&old, 0, 1, MIB).await;
    snapshot(&old, "s").await;
    write(&old, 0, 2, MIB).await;
    let writer = Attach::new(AttachMode::EXCLUSIVE, 5, "other").force();
    let new = two.attach(&CX, "v", writer).await.expect("taken over");
    for (what, refused) in [
        ("taken", Snapshots::create(&old, &CX, "t").await.map(drop)),
        ("deleted", Snapshots::delete(&old, &CX, "s").await),
        ("rolled back", old.rollback(&CX, "s").await),
    ] {
        assert_eq!(refused.expect_err(what).kind(), ErrorKind::FENCED);
    }
    expect(&new, 0, 2, MIB).await;
    roll_back(&new, "s").await;
    expect(&new, 0, 1, MIB).await;
    // What this host still does in the background writes the record, too.
    until_tidy(&fake, "v").await;
    // A host of which this one hears nothing leaves its epoch in the record.
    change_record(&fake, "v", |body| body["epoch"] = 9.into());
    let before = fake.world().files["v.novastor"].content();
    for (what, refused) in [
        ("taken", Snapshots::create(&new, &CX, "t").await.map(drop)),
        ("deleted", Snapshots::delete(&new, &CX, "s").await),
        ("rolled back", new.rollback(&CX, "s").await),
    ] {
        assert_eq!(refused.expect_err(what).kind(), ErrorKind::FENCED);
    }
    assert!(fake.world().files["v.novastor"].content() == before);
    // What another one made of the layers meanwhile is not undone.
    change_record(&fake, "v", |body| {
        body["epoch"] = 5.into();
        body["tree"]["last"] = 77.into();
    });
    let changed = Snapshots::create(&new, &CX, "t").await.expect_err("another tree");
    assert_eq!(changed.kind(), ErrorKind::CORRUPTED, "{changed:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_takes_no_snapshot_and_loses_nothing() {
    let fake = Fake::start().await;
    let backend = open(fake.patient()).await;
    let volume = made_as(&backend, "raw", 2 * MIB).await;
    write(&volume, 0, 1, MIB).await;
    snapshot(&volume, "first").await;
    write(&volume, 0, 2, MIB).await;
    volume.flush(&CX).await.expect("flushed");
    fake.world().faults.full = true;
    let full = Snapshots::create(&volume, &CX, "second").await.expect_err("no room");
    assert_eq!(full.kind(), ErrorKind::NO_SPACE, "{full:#}");
    let full = Snapshots::delete(&volume, &CX, "first").await.expect_err("not even for that");
    assert_eq!(full.kind(), ErrorKind::NO_SPACE, "{full:#}");
    expect(&volume, 0, 2, MIB).await;
    assert_eq!(names(&volume).await, ["first"]);
    fake.world().faults.full = false;
    snapshot(&volume, "second").await;
    forget(&volume, "first").await;
    forget(&volume, "second").await;
    // It fails half way, again and again, and is done once there is room.
    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    fake.world().faults.full = true;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    expect(&volume, 0, 2, MIB).await;
    fake.world().faults.full = false;
    until_layers(&volume, 1).await;
    expect(&volume, 0, 2, MIB).await;
    volume.detach(&CX).await.expect("detached");
    let left: Vec<String> = fake.world().files.keys().cloned().collect();
    assert_eq!(left, ["v.novastor", "v.raw"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_the_volume_does_not_lie_on_are_merged_as_well() {
    for format in ["raw", "qcow2"] {
        let fake = Fake::start().await;
        let backend = open(fake.patient()).await;
        let volume = made_as(&backend, format, 2 * MIB).await;
        let mut now = vec![0_u8; 2 << 20];
        let mut wanted: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let (at, fill) = (number * 200_000, number as u8 + 1);
            write(&volume, at as u64, fill, 300_000).await;
            now[at..at + 300_000].fill(fill);
            snapshot(&volume, name).await;
            wanted.insert(name.to_owned(), now.clone());
        }
        roll_back(&volume, "a").await;
        now.clone_from(&wanted["a"]);
        // What lies on c lies on b then.
        forget(&volume, "b").await;
        wanted.remove("b");
        until_layers(&volume, 4).await;
        write(&volume, 0, 9, 4 * KIB).await;
        now[..4 << 10].fill(9);
        let reached = std::time::Instant::now() + std::time::Duration::from_secs(300);
        while !tree_of(&fake, "v")["gone"].as_array().is_none_or(Vec::is_empty) {
            assert!(std::time::Instant::now() < reached, "{}", tree_of(&fake, "v"));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        volume.detach(&CX).await.expect("detached");
        judge(&fake, &format!("v.{format}"), &now, &wanted, false);
        let volume = attach(&backend, "v", 2).await;
        for name in ["d", "c"] {
            roll_back(&volume, name).await;
            assert!(content(&volume).await == wanted[name], "{format} {name}");
        }
        volume.detach(&CX).await.expect("detached");
    }
}
