// SPDX-License-Identifier: Apache-2.0
//! Snapshots of several volumes at one point, through a real host: volumes of two drivers, clients over NBD.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    artifacts::Artifacts,
    cluster::Cluster,
    nbd::{Client, Command},
    program::Said,
};
use serde_json::Value;

const SIZE: u64 = 4 << 20;
const BLOCK: u64 = 4096;
const GROUPS: usize = 25;
/// The first two are distributed, the last one is local.
const VOLUMES: [&str; 3] = ["left", "right", "disk"];
/// A writer goes through the volumes like this, again and again, each time with a higher number.
const ORDERS: [[usize; 3]; 4] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]];
/// Clones of distributed volumes cost most of the time.
const CLONED_EVERY: usize = 3;

fn run(cluster: &Cluster, words: &str) -> Said {
    cluster.host.cli().ask().args(words.split(' ')).run().expect("done")
}

fn cluster(room: &std::path::Path) -> Cluster {
    let artifacts = Artifacts::of_this_build().expect("a build");
    let cluster = Cluster::start(&artifacts, room, 2, &[], "").expect("a host");
    let options = [("replication_factor", "2")];
    cluster.volume_with("left", SIZE, &options).expect("a volume");
    cluster.volume_with("right", SIZE, &options).expect("a volume");
    cluster.host.volume("disk", SIZE, "raw").expect("a volume");
    cluster
}

/// Writes to one volume after the other, each time when the write before was answered. Gives the longest wait.
fn write_in_turns(mut clients: Vec<Client>, block: u64, ends: &AtomicBool) -> (u64, Duration) {
    let (mut number, mut longest) = (0_u64, Duration::ZERO);
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        let mut data = vec![0; BLOCK as usize];
        data[..8].copy_from_slice(&number.to_le_bytes());
        for client in &mut clients {
            let begun = Instant::now();
            let write = Command::Write { fua: number.is_multiple_of(8) };
            client.call(write, block * BLOCK, BLOCK as u32, &data).expect("written");
            longest = longest.max(begun.elapsed());
        }
    }
    (number, longest)
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    let blocks = bytes.chunks(BLOCK as usize).take(ORDERS.len());
    blocks.map(|block| u64::from_le_bytes(block[..8].try_into().expect("8 bytes"))).collect()
}

/// What a snapshot holds, by writer.
fn held(cluster: &Cluster, volume: &str, snapshot: &str) -> Vec<u64> {
    if volume == "disk" {
        let file = format!("data/volumes/disk/snapshots/{snapshot}.raw");
        return numbers(&fs::read(cluster.host.path(&file)).expect("the snapshot's file"));
    }
    let clone = format!("{volume}-{snapshot}");
    run(cluster, &format!("volume clone {volume} {clone} --snapshot {snapshot}"));
    cluster.host.cli().add_export(&clone).expect("exported");
    let mut client = cluster.host.connect(&clone).expect("a client");
    let len = ORDERS.len() as u32 * BLOCK as u32;
    numbers(&client.call(Command::Read, 0, len, &[]).expect("read"))
}

#[test]
fn a_write_that_waited_for_another_is_never_there_without_it() {
    let room = tempfile::tempdir().expect("a directory");
    let cluster = cluster(room.path());
    let (ends, mut paused) = (AtomicBool::new(false), Vec::new());
    let writers = thread::scope(|scope| {
        let writers: Vec<_> = (0..)
            .zip(ORDERS)
            .map(|(block, order)| {
                let connect = |volume: usize| cluster.host.connect(VOLUMES[volume]);
                let clients = order.map(|volume| connect(volume).expect("a client"));
                let ends = &ends;
                scope.spawn(move || write_in_turns(clients.into(), block, ends))
            })
            .collect();
        for count in 0..GROUPS {
            let words = format!("snapshot create disk s{count} --with left right --output json");
            let said: Value = serde_json::from_str(&run(&cluster, &words).stdout).expect("JSON");
            assert_eq!(said["snapshots"].as_array().map(Vec::len), Some(VOLUMES.len()), "{said}");
            paused.push(said["paused_ms"].as_u64().expect("a time"));
        }
        ends.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it wrote")).collect::<Vec<_>>()
    });
    paused.sort_unstable();
    println!("held for {paused:?} ms; writes and their longest wait: {writers:?}");
    let mut seen = Vec::new();
    for count in (0..GROUPS).step_by(CLONED_EVERY) {
        let snapshot = format!("s{count}");
        let of = VOLUMES.map(|volume| held(&cluster, volume, &snapshot));
        for (writer, [first, second, third]) in ORDERS.into_iter().enumerate() {
            let at = [of[first][writer], of[second][writer], of[third][writer]];
            let (begun, ended) = (at[0], at[2]);
            assert!(
                at.is_sorted_by(|a, b| a >= b) && begun - ended <= 1,
                "{snapshot}: writer {writer} was at {at:?}"
            );
        }
        seen.push(of[0][0]);
    }
    assert!(seen.is_sorted() && seen.last() > seen.first(), "nothing was written: {seen:?}");
}

#[test]
fn a_group_of_which_one_refuses_leaves_nothing() {
    let room = tempfile::tempdir().expect("a directory");
    let cluster = cluster(room.path());
    run(&cluster, "snapshot create right taken");
    let ask = |words: &str, code: i32| {
        let program = cluster.host.cli().ask().args(words.split(' ')).codes(&[code]);
        program.run().expect("refused with its code").stderr
    };
    let text = ask("snapshot create disk taken --with left right", 4);
    assert!(text.contains("right") && text.contains("taken"), "{text}");
    let text = ask("snapshot create disk new --with left nowhere", 3);
    assert!(text.contains("nowhere"), "{text}");
    for (volume, count) in [("disk", 0), ("left", 0), ("right", 1)] {
        let said = run(&cluster, &format!("snapshot list {volume} --output json"));
        let listed: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(listed.as_array().map(Vec::len), Some(count), "{volume}: {listed}");
    }
    let said = run(&cluster, "snapshot create disk new --with left right --longest-pause 20");
    assert!(said.stdout.contains("all of one point"), "{}", said.stdout);
}
