// SPDX-License-Identifier: Apache-2.0
//! Snapshots of several volumes at one point: what they hold, and that a group is whole or gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{ErrorKind, IoBuf, OpContext, WriteFlags};
use novastor::volumes::{Access, AttachState, NewGroup, Use, VolumeRecord};

use super::{
    crash::at_every_commit,
    disks::{House, Storage, lock, start, state},
    life::new,
};

const PAUSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a block, in which writers keep what they are at.
const BLOCK: usize = 4096;

fn group(name: &str) -> NewGroup {
    let volumes = vec!["b".to_owned(), "a".to_owned()];
    NewGroup { volumes, name: name.to_owned(), longest_pause: PAUSE }
}

async fn two_volumes(house: House) {
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.create(new("b")).await.unwrap();
}

fn snapshots(storage: &Storage, volume: &str) -> Vec<String> {
    lock(&storage.disk(volume).unwrap().snapshots).keys().cloned().collect()
}

fn nothing_is_left(storage: &Storage) {
    for volume in ["a", "b"] {
        assert_eq!(snapshots(storage, volume), Vec::<String>::new(), "volume {volume}");
    }
}

async fn write(used: &Use, block: usize, number: u64) {
    let data = IoBuf::copy_from(&number.to_le_bytes());
    let (cx, offset) = (OpContext::new(), (block * BLOCK) as u64);
    used.volume().write(&cx, offset, data, WriteFlags::NONE).await.unwrap();
}

/// Writes in turns, to the first and to the second, until told to end. Gives how often.
async fn alternate(house: House, order: [&str; 2], block: usize, ends: Arc<AtomicBool>) -> u64 {
    let mut used = Vec::new();
    for volume in order {
        used.push(house.volumes.acquire(volume, Access::Write, "a writer").await.unwrap());
    }
    let mut number = 0;
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        for one in &used {
            write(one, block, number).await;
            tokio::task::yield_now().await;
        }
    }
    for one in used {
        house.volumes.release(one).await.unwrap();
    }
    number
}

fn number(storage: &Storage, volume: &str, snapshot: &str, block: usize) -> u64 {
    let disk = storage.disk(volume).unwrap();
    let snapshots = lock(&disk.snapshots);
    let bytes = &snapshots[snapshot][block * BLOCK..block * BLOCK + 8];
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_begun_after_an_answer_is_never_there_without_it() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    two_volumes(house.clone()).await;
    let ends = Arc::new(AtomicBool::new(false));
    // Two pairs in either direction.
    let orders = [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]];
    let writers: Vec<_> = (0..)
        .zip(orders)
        .map(|(block, order)| tokio::spawn(alternate(house.clone(), order, block, ends.clone())))
        .collect();
    let (mut last, mut moved) = (0, 0);
    for count in 0..50 {
        let name = format!("s{count}");
        house.volumes.snapshot_group(group(&name)).await.unwrap();
        for (block, [first, second]) in orders.into_iter().enumerate() {
            let (first, second) =
                (number(&storage, first, &name, block), number(&storage, second, &name, block));
            assert!(first == second || first == second + 1, "{name}: {first} and {second}");
        }
        let now = number(&storage, "a", &name, 0);
        assert!(now >= last, "{name} is older than the one before");
        moved += u64::from(now > last);
        last = now;
    }
    ends.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 50, "the writer stood still");
    }
    assert!(moved > 25, "snapshots of volumes at rest show nothing");
}

#[tokio::test]
async fn a_refusal_of_one_leaves_none_and_all_go_on() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    two_volumes(house.clone()).await;
    let used = house.volumes.acquire("a", Access::Write, "a client").await.unwrap();
    storage.fail("snapshot b", ErrorKind::NO_SPACE);
    let error = house.volumes.snapshot_group(group("s")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NO_SPACE);
    let text = format!("{error:#}");
    assert!(text.contains("volume=b") || text.contains("volume: b"), "{text}");
    assert!(text.contains("nothing"), "{text}");
    nothing_is_left(&storage);
    write(&used, 0, 1).await;
    let record = |stored: VolumeRecord| (stored.taking, stored.note, stored.attach);
    let of_a = record(house.volumes.record("a").await.unwrap().record);
    assert_eq!(of_a, (None, None, AttachState::Attached));
    let of_b = record(house.volumes.record("b").await.unwrap().record);
    assert_eq!(of_b, (None, None, AttachState::Detached), "it was attached for the group alone");

    storage.fail("delete snapshot a", ErrorKind::UNAVAILABLE);
    let error = house.volumes.snapshot_group(group("s")).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("novastor snapshot delete a s"), "{text}");
    let note = house.volumes.record("a").await.unwrap().record.note.unwrap();
    assert!(note.contains("novastor snapshot delete a s"), "{note}");
    storage.heal();
    house.volumes.snapshot_delete("a", "s").await.unwrap();
    house.volumes.snapshot_group(group("s")).await.unwrap();
    assert_eq!(
        (snapshots(&storage, "a"), snapshots(&storage, "b")),
        (vec!["s".into()], vec!["s".into()])
    );
    house.volumes.release(used).await.unwrap();
}

#[tokio::test]
async fn one_that_hangs_holds_the_others_for_the_longest_pause_alone() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    two_volumes(house.clone()).await;
    let used = house.volumes.acquire("a", Access::Write, "a client").await.unwrap();
    let permits = storage.slow_snapshots("b");
    let begun = Instant::now();
    let volumes = house.volumes.clone();
    let taking = tokio::spawn(async move { volumes.snapshot_group(group("s")).await });
    while storage.disk("a").is_none_or(|_| snapshots(&storage, "a").is_empty()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    write(&used, 0, 1).await;
    let waited = begun.elapsed();
    assert!(waited >= PAUSE - Duration::from_millis(100), "the pause ended after {waited:?}");
    assert!(waited < 2 * PAUSE, "the write waited for {waited:?}");
    let error = taking.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT);
    let text = format!("{error:#}");
    assert!(text.contains("`b` is still being taken"), "{text}");
    nothing_is_left(&storage);

    // The snapshot comes all the same, and goes.
    permits.add_permits(1);
    let begun = Instant::now();
    while house.volumes.record("b").await.unwrap().record.taking.is_some() {
        assert!(begun.elapsed() < PATIENCE, "it is never undone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    nothing_is_left(&storage);
    house.volumes.release(used).await.unwrap();
    permits.add_permits(1);
    house.volumes.snapshot_group(group("s")).await.unwrap();
}

#[tokio::test]
async fn a_change_that_does_not_end_leaves_the_group_unbegun() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    two_volumes(house.clone()).await;
    let permits = storage.slow_writes();
    let used = house.volumes.acquire("b", Access::Write, "a client").await.unwrap();
    let data = IoBuf::copy_from(&[1; BLOCK]);
    // Whoever gave it up, it is under way in the driver.
    drop(used.volume().write(&OpContext::new(), 0, data, WriteFlags::NONE));
    let error = house.volumes.snapshot_group(group("s")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT);
    let text = format!("{error:#}");
    assert!(text.contains("a change that was under way did not end"), "{text}");
    nothing_is_left(&storage);
    permits.add_permits(100);
    house.volumes.snapshot_group(group("s")).await.unwrap();
    let disk = storage.disk("b").unwrap();
    assert_eq!(lock(&disk.snapshots)["s"][..BLOCK], [1; BLOCK], "it ended before the point");
    house.volumes.release(used).await.unwrap();
}

#[tokio::test]
async fn a_group_that_is_malformed_or_not_able_to_is_refused_before_anything_is_held() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    two_volumes(house.clone()).await;
    let of = |volumes: &[&str], name: &str| NewGroup {
        volumes: volumes.iter().map(|&volume| volume.to_owned()).collect(),
        ..group(name)
    };
    for (refused, kind) in [
        (of(&["a", "b", "a"], "s"), ErrorKind::INVALID_ARGUMENT),
        (of(&[], "s"), ErrorKind::INVALID_ARGUMENT),
        (of(&["a", "b"], "../s"), ErrorKind::INVALID_ARGUMENT),
        (of(&["a", "c"], "s"), ErrorKind::NOT_FOUND),
        (
            NewGroup { longest_pause: Duration::from_secs(61), ..group("s") },
            ErrorKind::INVALID_ARGUMENT,
        ),
    ] {
        let error = house.volumes.snapshot_group(refused.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{refused:?}: {error:#}");
    }
    nothing_is_left(&storage);
    house.volumes.snapshot_create("b", "s").await.unwrap();
    let error = house.volumes.snapshot_group(group("s")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS);
    assert_eq!(snapshots(&storage, "b"), ["s"], "it was there before");
    for volume in ["a", "b"] {
        assert!(!storage.is_held(volume), "{volume} is still attached");
    }
}

#[tokio::test]
async fn a_group_is_whole_or_gone() {
    let take = |house: House| async move {
        house.volumes.snapshot_group(group("s")).await.unwrap();
    };
    at_every_commit(two_volumes, take, |house, storage, ended| async move {
        let (a, b) = (snapshots(&storage, "a"), snapshots(&storage, "b"));
        assert_eq!(a, b, "a part of a group is left");
        assert!(!ended || a == ["s"]);
        for volume in ["a", "b"] {
            let record = house.volumes.record(volume).await.unwrap().record;
            assert_eq!((record.taking, record.note), (None, None), "volume {volume}");
            assert_eq!(record.attach, AttachState::Detached, "volume {volume}");
        }
        house.volumes.snapshot_group(group("again")).await.unwrap();
    })
    .await;
}
