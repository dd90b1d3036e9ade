// SPDX-License-Identifier: Apache-2.0
//! Volumes in images, and renaming, against nfs-ganesha and Samba:
//! `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::path::PathBuf;

use driver_api::{Attach, AttachMode, Backend, ErrorKind, Volume, WriteFlags};
use serde_json::Value;
use support::{
    CX, KIB, MIB, attach, expect,
    images::{check, made_image, qemu_img_succeeds},
    open,
    real::{Revive, address, ganesha, ganesha4, samba, service},
    write,
};

/// Each protocol: its name, a backend's options, and where its files are.
fn protocols() -> Vec<(&'static str, Value, PathBuf)> {
    let export = PathBuf::from(address("export"));
    vec![
        ("NFSv3", ganesha("export"), export.clone()),
        ("NFSv4.0", ganesha4("export", &["4.0"]), export.clone()),
        ("NFSv4.1", ganesha4("export", &["4.1"]), export.clone()),
        ("NFSv4.2", ganesha4("export", &["4.2", "4.1"]), export),
        ("SMB", samba("share"), address("share_path").into()),
        ("SMB, encrypted", samba("share_encrypted"), address("share_encrypted_path").into()),
    ]
}

/// The disk in an image, as qemu sees it.
fn content(image: &std::path::Path) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let raw = dir.path().join("raw");
    let (from, to) = (image.display().to_string(), raw.display().to_string());
    qemu_img_succeeds(&["convert", "-U", "-f", "qcow2", "-O", "raw", &from, &to]);
    std::fs::read(raw).expect("converted")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn an_image_of_ours_is_qemus_and_one_of_qemus_is_ours() {
    for (protocol, options, dir) in protocols() {
        let backend = open(options).await;
        let volume = made_image(&backend, "img", 256 * MIB).await;
        let mut wanted = vec![0_u8; 256 << 20];
        let mut random = fastrand::Rng::with_seed(3);
        for round in 1..=60_u8 {
            let writing: Vec<_> = (0..8_u64)
                .map(|lane| {
                    let at = lane * 32 * MIB + random.u64(0..31 * 1024) * KIB;
                    let len = random.u64(1..256) * 4 * KIB;
                    wanted[at as usize..(at + len) as usize].fill(round);
                    let volume = volume.clone();
                    tokio::spawn(async move { write(&volume, at, round, len).await })
                })
                .collect();
            for one in writing {
                one.await.expect("written");
            }
            if round % 16 == 0 {
                volume.flush(&CX).await.expect("flushed");
            }
        }
        let zeroed = volume.write_zeroes(&CX, 5 * MIB, 9 * MIB + 512, WriteFlags::NONE).await;
        zeroed.expect("zeroed");
        wanted[5 << 20..(14 << 20) + 512].fill(0);
        let file = dir.join("img.qcow2");
        volume.detach(&CX).await.expect("detached");
        check(&file, false);
        assert!(content(&file) == wanted, "{protocol}: qemu sees something else");
        let listed = backend.list(&CX).await.expect("listed");
        let found = listed.iter().find(|volume| volume.name == "img").expect("listed");
        assert_eq!(found.size, 256 * MIB, "{protocol}");
        backend.delete(&CX, "img").await.expect("deleted");
        assert!(!file.exists(), "{protocol}");

        let foreign = dir.join("foreign.qcow2").display().to_string();
        qemu_img_succeeds(&["create", "-f", "qcow2", &foreign, "64M"]);
        let volume = attach(&backend, "foreign", 1).await;
        write(&volume, 3 * MIB, 4, MIB).await;
        volume.detach(&CX).await.expect("detached");
        check(&dir.join("foreign.qcow2"), false);
        let volume = attach(&backend, "foreign", 2).await;
        expect(&volume, 3 * MIB, 4, MIB).await;
        expect(&volume, 4 * MIB, 0, MIB).await;
        volume.detach(&CX).await.expect("detached");
        backend.delete(&CX, "foreign").await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_volume_has_its_new_name_everywhere() {
    for (protocol, options, dir) in protocols() {
        let backend = open(options).await;
        for format in ["raw", "qcow2"] {
            for name in ["before", "after"] {
                let _ = backend.delete(&CX, name).await;
            }
            let spec = driver_api::VolumeSpec::new("before", 8 * MIB).option("format", format);
            backend.create(&CX, spec).await.expect("created");
            let volume = attach(&backend, "before", 5).await;
            write(&volume, MIB, 9, MIB).await;
            let held = backend.rename(&CX, "before", "after").await.expect_err("attached");
            assert_eq!(held.kind(), ErrorKind::IN_USE, "{protocol}: {held:#}");
            volume.detach(&CX).await.expect("detached");
            let renamed = backend.rename(&CX, "before", "after").await.expect("renamed");
            assert_eq!((renamed.name.as_str(), renamed.size), ("after", 8 * MIB));
            assert!(dir.join(format!("after.{format}")).exists());
            assert!(!dir.join(format!("before.{format}")).exists());
            assert!(!dir.join("before.novastor").exists());
            let stale = Attach::new(AttachMode::EXCLUSIVE, 4, "test");
            let stale = backend.attach(&CX, "after", stale).await.map(drop).expect_err("its epoch");
            assert_eq!(stale.kind(), ErrorKind::FENCED, "{protocol}: {stale:#}");
            let volume = attach(&backend, "after", 6).await;
            expect(&volume, MIB, 9, MIB).await;
            volume.detach(&CX).await.expect("detached");
            backend.delete(&CX, "after").await.expect("deleted");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn an_image_survives_a_server_that_is_killed() {
    let _revive = Revive("ganesha");
    for (protocol, options, dir) in protocols() {
        if !protocol.starts_with("NFS") {
            continue;
        }
        let backend = open(options).await;
        let volume = made_image(&backend, "killed", 512 * MIB).await;
        let mut wanted = vec![0_u8; 512 << 20];
        for round in 1..=30_u64 {
            for lane in 0..8_u64 {
                let at = lane * 60 * MIB + round * 700 * KIB;
                wanted[at as usize..][..64 << 10].fill(round as u8);
                write(&volume, at, round as u8, 64 * KIB).await;
            }
            if round == 10 || round == 20 {
                service("daemon", &["ganesha", "KILL"]);
                service("again", &["ganesha"]);
            }
        }
        volume.flush(&CX).await.expect("flushed");
        volume.detach(&CX).await.expect("detached");
        let file = dir.join("killed.qcow2");
        check(&file, false);
        assert!(content(&file) == wanted, "{protocol}: qemu sees something else");
        backend.delete(&CX, "killed").await.expect("deleted");
    }
}
