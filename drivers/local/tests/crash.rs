// SPDX-License-Identifier: Apache-2.0
//! `kill -9` in the middle of snapshots and rollbacks.
#![allow(missing_docs)]

mod fixture;

use std::{fs, path::Path, time::Duration};

use driver_api::Volume;
use fixture::*;

const SIZE: u64 = 24 * MIB;

/// Not a test of its own: takes snapshots and rolls back without end, until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the other tests"]
async fn victim() {
    let Ok(dir) = std::env::var("VICTIM_DIR") else { return };
    let round = std::env::var("VICTIM_ROUND").expect("set");
    let backend = backend(Path::new(&dir)).await;
    let volume = attach(&backend, "v").await;
    let snapshots = volume.snapshots().expect("snapshots");
    fs::write(Path::new(&dir).join("ready"), "").expect("noted");
    for number in 0_u32.. {
        snapshots.create(&CX, &format!("s{round}-{number}")).await.expect("taken");
        let colour = if number % 2 == 0 { "b" } else { "a" };
        snapshots.rollback(&CX, colour).await.expect("rolled back");
        if number > 0 {
            snapshots.delete(&CX, &format!("s{round}-{}", number - 1)).await.expect("deleted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_or_rollback_is_whole_or_did_not_happen() {
    for format in ["raw", "qcow2"] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        let backend = backend(path).await;
        let volume = made(&backend, "v", SIZE, format).await;
        for (name, byte) in [("a", 1), ("b", 2)] {
            for at in 0..SIZE / MIB {
                write(&volume, at * MIB, &vec![byte; 1 << 20]).await;
            }
            let snapshots = volume.snapshots().expect("snapshots");
            snapshots.create(&CX, name).await.expect("taken");
        }
        volume.detach(&CX).await.expect("detached");
        for round in 0..8_u64 {
            let round_text = round.to_string();
            let variables =
                [("VICTIM_DIR", path.to_str().expect("UTF-8")), ("VICTIM_ROUND", &round_text)];
            let mut victim = respawn("victim", &variables);
            while !path.join("ready").exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Spread over the life of one snapshot and one rollback; no moment is special to the assertions.
            std::thread::sleep(Duration::from_millis(5 + round * 23));
            victim.kill().expect("killed");
            victim.wait().expect("ended");
            fs::remove_file(path.join("ready")).expect("removed");

            let volume = attach(&backend, "v").await;
            assert_eq!(volume.size(), SIZE);
            let colour = read(&volume, 0, 1).await[0];
            assert!(is_all(&volume, 0, SIZE as u32, colour).await && [1, 2].contains(&colour));
            let snapshots = volume.snapshots().expect("snapshots");
            let listed = snapshots.list(&CX).await.expect("listed");
            for info in &listed {
                snapshots.rollback(&CX, &info.name).await.expect("rolled back");
                let colour = read(&volume, 0, 1).await[0];
                assert!(is_all(&volume, 0, SIZE as u32, colour).await && [1, 2].contains(&colour));
                if !["a", "b"].contains(&info.name.as_str()) {
                    snapshots.delete(&CX, &info.name).await.expect("deleted");
                }
            }
            let left = fs::read_dir(path.join("volumes/v/snapshots")).expect("listed");
            let left = left.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>();
            assert_eq!(left.len(), 4, "{format}: a crash left {left:?}");
            volume.detach(&CX).await.expect("detached");
        }
    }
}
