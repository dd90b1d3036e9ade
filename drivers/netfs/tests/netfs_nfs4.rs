// SPDX-License-Identifier: Apache-2.0
//! NFSv4 against nfs-ganesha: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::time::Duration;

use driver_api::{Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, WriteFlags};
use serde_json::{Value, json};
use support::{
    CX, MIB, attach, bytes, expect, made, open,
    real::{Revive, ganesha4, service},
    write,
    writers::{BLOCK, file, under_writers},
};

/// What `mounts` says of the only share.
async fn mount_of(backend: &netfs::NetfsBackend) -> Value {
    let text = backend.commands().expect("commands").run(&CX, "mounts", "{}").await.expect("told");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let mounts = all.as_array().or_else(|| all["mounts"].as_array()).expect("a list");
    mounts[0].clone()
}

/// A volume's whole life by one version.
async fn live(versions: &[&str], protocol: &str, name: &str) {
    let backend = open(ganesha4("export", versions)).await;
    let volume = made(&backend, name, 4 * MIB).await;
    for at in 0..4 {
        write(&volume, at * MIB, at as u8 + 1, MIB).await;
    }
    volume.write(&CX, 512, bytes(9, 512), WriteFlags::FUA).await.expect("durable");
    volume.flush(&CX).await.expect("flushed");
    expect(&volume, 0, 1, 512).await;
    expect(&volume, 512, 9, 512).await;
    expect(&volume, 3 * MIB, 4, MIB).await;
    let content = std::fs::read(file(&format!("{name}.raw"))).expect("the server's file");
    assert_eq!(content.len() as u64, 4 * MIB);
    assert!(content[3 << 20..].iter().all(|byte| *byte == 4));
    let mount = mount_of(&backend).await;
    eprintln!("{name}: {mount}");
    assert_eq!(mount["protocol"], protocol, "{mount}");
    if versions[0] != protocol.trim_start_matches("NFSv") {
        assert!(mount["reason"].as_str().expect("text").contains("fell back"), "{mount}");
    }
    volume.detach(&CX).await.expect("detached");
    let again = backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("it is there");
    assert_eq!(again.kind(), ErrorKind::ALREADY_EXISTS, "{again:#}");
    let volume = attach(&backend, name, 2).await;
    expect(&volume, 2 * MIB, 3, MIB).await;
    volume.detach(&CX).await.expect("detached");
    assert_eq!(backend.show(&CX, name).await.expect("shown").size, 4 * MIB);
    backend.delete(&CX, name).await.expect("deleted");
    assert!(backend.list(&CX).await.expect("listed").iter().all(|volume| volume.name != name));
    backend.usage(&CX).await.expect("usage");
    backend.close(&CX).await.expect("closed");
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_volume_lives_by_version_4_0() {
    live(&["4.0"], "NFSv4.0", "life40").await;
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_volume_lives_by_version_4_1() {
    live(&["4.1"], "NFSv4.1", "life41").await;
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_volume_lives_by_version_4_2() {
    live(&["4.2"], "NFSv4.2", "life42").await;
}
