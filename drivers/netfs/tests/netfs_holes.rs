// SPDX-License-Identifier: Apache-2.0
//! Holes against real servers: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::{os::unix::fs::MetadataExt, path::PathBuf};

use driver_api::{Abilities, Backend, ErrorKind, Volume, WriteFlags, ext::ExtentFlags};
use netfs::NetfsVolume;
use serde_json::{Value, json};
use support::{
    CX, KIB, MIB, attach, expect, made, open,
    real::{Revive, address, ganesha, ganesha4, port, service},
    write,
};

fn samba(share: &str) -> Value {
    json!({
        "protocol": "smb",
        "versions": ["3.1.1"],
        "server": address("host"),
        "share": address(share),
        "port": port("smb_port"),
        "user": address("user"),
        "password": address("password"),
        "domain": address("domain"),
    })
}

fn path(directory: &str, name: &str) -> PathBuf {
    PathBuf::from(address(directory)).join(name)
}

/// Holes of a volume, as its allocation map has them.
async fn holes(volume: &NetfsVolume) -> Vec<(u64, u64)> {
    let map = volume.allocation_map().expect("a map");
    let (mut at, mut holes) = (0, Vec::<(u64, u64)>::new());
    while at < volume.size() {
        for extent in map.extents(&CX, at, volume.size() - at, 64).await.expect("a map") {
            assert_eq!(extent.offset, at);
            at += extent.len;
            if extent.flags.has(ExtentFlags::HOLE) {
                match holes.last_mut() {
                    Some((from, len)) if *from + *len == extent.offset => *len += extent.len,
                    _ => holes.push((extent.offset, extent.len)),
                }
            }
        }
    }
    holes
}

/// Fills a volume, frees parts of it in both ways, and looks at what is left there and on the server.
async fn freed(options: Value, directory: &str, name: &str) {
    let backend = open(options).await;
    let volume = made(&backend, name, 8 * MIB).await;
    let abilities = volume.capabilities().abilities;
    for ability in [Abilities::DISCARD, Abilities::FAST_ZERO, Abilities::ALLOCATION_MAP] {
        assert!(abilities.has(ability), "{name}: {abilities:?}");
    }
    assert_eq!(holes(&volume).await, [(0, 8 * MIB)], "{name}: a new volume");
    for at in 0..8 {
        write(&volume, at * MIB, 7, MIB).await;
    }
    // What is kept here counts, whether the server has it on its disk or not.
    assert_eq!(holes(&volume).await, [], "{name}: full");
    let used = |name: &str| std::fs::metadata(path(directory, name)).expect("there").blocks() * 512;
    volume.flush(&CX).await.expect("flushed");
    let file = format!("{name}.raw");
    let full = used(&file);
    volume.discard(&CX, MIB, 2 * MIB).await.expect("discarded");
    let zeroing = volume.write_zeroes(&CX, 5 * MIB, MIB, WriteFlags::FAST_ONLY);
    zeroing.await.expect("zeroed");
    // Not in whole blocks of any file system.
    volume.discard(&CX, 7 * MIB + 512, 8 * KIB).await.expect("discarded");
    assert!(full - used(&file) >= 3 * MIB, "{name}: {full} bytes, now {}", used(&file));
    for (at, value, len) in [
        (0, 7, MIB),
        (MIB, 0, 2 * MIB),
        (3 * MIB, 7, 2 * MIB),
        (5 * MIB, 0, MIB),
        (6 * MIB, 7, MIB + 512),
        (7 * MIB + 512, 0, 8 * KIB),
        (7 * MIB + 512 + 8 * KIB, 7, MIB - 512 - 8 * KIB),
    ] {
        expect(&volume, at, value, len).await;
    }
    let left = holes(&volume).await;
    assert!(left.contains(&(MIB, 2 * MIB)) && left.contains(&(5 * MIB, MIB)), "{name}: {left:?}");
    let kept = WriteFlags::NO_HOLE;
    volume.write_zeroes(&CX, 5 * MIB, MIB, kept).await.expect("zeroed with data");
    assert!(!holes(&volume).await.contains(&(5 * MIB, MIB)), "{name}: it was to stay allocated");
    let outside = volume.discard(&CX, 8 * MIB, 512).await.expect_err("outside");
    assert_eq!(outside.kind(), ErrorKind::OUT_OF_RANGE);
    volume.detach(&CX).await.expect("detached");
    assert_eq!(std::fs::metadata(path(directory, &file)).expect("there").len(), 8 * MIB);
    let commands = backend.commands().expect("commands");
    let told = commands.run(&CX, "mounts", "{}").await.expect("told");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told[0]["discard"], &told[0]["allocation_map"]), (&json!(true), &json!(true)));
    backend.delete(&CX, name).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn ranges_are_freed_on_samba() {
    freed(samba("share"), "share_path", "holes").await;
    freed(samba("share_encrypted"), "share_encrypted_path", "holes").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn ranges_are_freed_by_nfs_4_2() {
    freed(ganesha4("export", &["4.2"]), "export", "holes42").await;
}

/// A discard that was acknowledged and flushed is there after the server was killed, and nothing older comes back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn what_was_freed_stays_so_when_the_server_is_killed() {
    let _revive = Revive("ganesha");
    let backend = open(ganesha4("export", &["4.2"])).await;
    let volume = made(&backend, "stays42", 4 * MIB).await;
    write(&volume, 0, 3, 4 * MIB).await;
    volume.discard(&CX, MIB, MIB).await.expect("discarded");
    service("daemon", &["ganesha", "KILL"]);
    service("again", &["ganesha"]);
    volume.flush(&CX).await.expect("flushed");
    for (at, value) in [(0, 3), (MIB, 0), (2 * MIB, 3)] {
        expect(&volume, at, value, MIB).await;
    }
    volume.detach(&CX).await.expect("detached");
    let content = std::fs::read(path("export", "stays42.raw")).expect("there");
    assert!(content[1 << 20..2 << 20].iter().all(|byte| *byte == 0));
    assert!(content[..1 << 20].iter().all(|byte| *byte == 3));
    backend.delete(&CX, "stays42").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn what_a_version_cannot_do_is_not_offered() {
    for options in [ganesha("export"), ganesha4("export", &["4.0"]), ganesha4("export", &["4.1"])] {
        let backend = open(options).await;
        let volume = made(&backend, "whole", MIB).await;
        let abilities = volume.capabilities().abilities;
        assert!(!abilities.has(Abilities::DISCARD) && !abilities.has(Abilities::ALLOCATION_MAP));
        assert!(volume.allocation_map().is_none());
        let refused = volume.discard(&CX, 0, 512).await.expect_err("not offered");
        assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
        volume.detach(&CX).await.expect("detached");
        let again = attach(&backend, "whole", 2).await;
        again.write_zeroes(&CX, 0, MIB, WriteFlags::NONE).await.expect("zeros as data");
        again.detach(&CX).await.expect("detached");
        backend.delete(&CX, "whole").await.expect("deleted");
    }
}
