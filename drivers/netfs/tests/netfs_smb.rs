// SPDX-License-Identifier: Apache-2.0
//! SMB against Samba: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, HealthState, Volume, VolumeSpec, WriteFlags,
};
use serde_json::{Value, json};
use support::{
    CX, KIB, MIB, attach, bytes, expect, made, open,
    real::{Revive, address, samba, service},
    value, write,
};

fn with(mut options: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().expect("a table") {
        options[key] = value.clone();
    }
    options
}

/// A file of a share, as the server has it.
fn file(share: &str, name: &str) -> PathBuf {
    PathBuf::from(address(share)).join(name)
}

/// Signals every process of Samba: it has one for each connection.
fn signal_all(signal: &str) {
    let list = std::fs::read_dir("/proc").expect("processes");
    let conf = support::real::dir().join("smb.conf").display().to_string();
    for process in list.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains("smbd") && command.contains(&conf) {
            let pid = process.file_name();
            let mut kill = std::process::Command::new("kill");
            // One that has ended meanwhile is what was wanted.
            let _ = kill.arg(format!("-{signal}")).arg(pid).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_volume_is_served_on_every_version_plain_and_encrypted() {
    for (share, path) in [("share", "share_path"), ("share_encrypted", "share_encrypted_path")] {
        for version in ["3.1.1", "3.0.2", "3.0", "2.1"] {
            if version == "2.1" && share == "share_encrypted" {
                continue;
            }
            let backend = open(with(samba(share), json!({ "versions": [version] }))).await;
            let volume = made(&backend, "basic", 8 * MIB).await;
            write(&volume, 0, 1, MIB).await;
            write(&volume, 3 * MIB + 512, 2, 4 * KIB).await;
            volume.write(&CX, MIB, bytes(3, 3 * KIB), WriteFlags::FUA).await.expect("written");
            expect(&volume, 0, 1, MIB).await;
            expect(&volume, MIB, 3, 3 * KIB).await;
            expect(&volume, 7 * MIB, 0, MIB).await;
            volume.flush(&CX).await.expect("flushed");
            volume.detach(&CX).await.expect("detached");
            let content = std::fs::read(file(path, "basic.raw")).expect("the server's file");
            assert_eq!(content.len() as u64, 8 * MIB);
            assert!(content[3 * MIB as usize + 512..][..4096].iter().all(|byte| *byte == 2));
            let again = attach(&backend, "basic", 2).await;
            expect(&again, 3 * MIB + 512, 2, 4 * KIB).await;
            again.detach(&CX).await.expect("detached");
            let listed = backend.list(&CX).await.expect("listed");
            assert_eq!(listed.iter().filter(|volume| volume.name == "basic").count(), 1);
            backend.delete(&CX, "basic").await.expect("deleted");
            assert!(!file(path, "basic.raw").exists(), "{share} {version}");
            backend.close(&CX).await.expect("closed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn what_is_wrong_is_told_with_a_remedy() {
    for (options, kind) in [
        (with(samba("share"), json!({ "password": "wrong" })), ErrorKind::PERMISSION_DENIED),
        (with(samba("share"), json!({ "user": "nobody-here" })), ErrorKind::PERMISSION_DENIED),
        (with(samba("share"), json!({ "share": "no-such-share" })), ErrorKind::NOT_FOUND),
        (with(samba("share"), json!({ "path": "no/such/directory" })), ErrorKind::NOT_FOUND),
        (samba("share_readonly"), ErrorKind::PERMISSION_DENIED),
        (
            with(samba("share_encrypted"), json!({ "versions": ["2.1"] })),
            ErrorKind::PERMISSION_DENIED,
        ),
        (
            with(samba("share"), json!({ "versions": ["2.1"], "require_encryption": true })),
            ErrorKind::UNSUPPORTED,
        ),
    ] {
        let shown = options.to_string();
        let begun = Instant::now();
        let backend = open(options).await;
        let error = backend.create(&CX, VolumeSpec::new("w", MIB)).await.expect_err(&shown);
        assert_eq!(error.kind(), kind, "{shown}: {error:#}");
        assert!(!error.remedy_text().is_empty(), "{shown}: {error:#}");
        assert!(!format!("{error:#}").contains("wrong"), "the password is told");
        assert!(begun.elapsed() < Duration::from_secs(5), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn encryption_that_is_demanded_here_is_used() {
    let options = with(samba("share"), json!({ "require_encryption": true }));
    let backend = open(options).await;
    let volume = made(&backend, "demanded", 2 * MIB).await;
    write(&volume, 0, 7, MIB).await;
    volume.flush(&CX).await.expect("flushed");
    expect(&volume, 0, 7, MIB).await;
    assert_eq!(value(&backend.stats(), "mount_encrypted"), 1.0);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "demanded").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn the_server_keeps_a_second_client_from_an_attached_volume() {
    let backend = open(samba("share")).await;
    let volume = made(&backend, "alone", 2 * MIB).await;
    write(&volume, 0, 5, 4 * KIB).await;
    // Another client, which asks nobody.
    let smbclient = |command: &str| {
        let output = std::process::Command::new("smbclient")
            .arg(format!("//{}/{}", address("host"), address("share")))
            .args(["-p", &address("smb_port")])
            .arg("-U")
            .arg(format!("{}%{}", address("user"), address("password")))
            .args(["-c", command])
            .output()
            .expect("smbclient");
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    for command in ["get alone.raw /dev/null", "del alone.raw", "rename alone.raw other.raw"] {
        let said = smbclient(command);
        assert!(said.contains("SHARING_VIOLATION"), "{command}: {said}");
    }
    // A take-over in this very process lets go of the file first.
    let mut force = Attach::new(AttachMode::EXCLUSIVE, 2, "taker");
    force.force = true;
    let taken = backend.attach(&CX, "alone", force).await.expect("taken over");
    let refused = volume.write(&CX, 0, bytes(1, 512), WriteFlags::NONE).await.expect_err("fenced");
    assert_eq!(refused.kind(), ErrorKind::FENCED);
    expect(&taken, 4 * KIB, 0, 4 * KIB).await;
    taken.detach(&CX).await.expect("detached");
    let said = smbclient("get alone.raw /dev/null");
    assert!(!said.contains("SHARING_VIOLATION"), "{said}");
    backend.delete(&CX, "alone").await.expect("deleted");
}

/// Writers at work while `harm` is done to the server; nothing fails, and everything flushed is there.
async fn under_writers(name: &'static str, share: &str, harm: impl AsyncFnOnce()) {
    const BLOCKS: u64 = 32;
    let backend = open(samba(share)).await;
    let volume = made(&backend, name, 8 * MIB).await;
    let go_on = Arc::new(AtomicBool::new(true));
    let rounds = Arc::new(AtomicU64::new(0));
    let running: Vec<_> = (0..8_u64)
        .map(|writer| {
            let (volume, go_on, rounds) = (volume.clone(), Arc::clone(&go_on), Arc::clone(&rounds));
            tokio::spawn(async move {
                let mut version = 0_u8;
                while go_on.load(Ordering::SeqCst) {
                    version = version % 250 + 1;
                    for block in 0..BLOCKS {
                        let offset = (writer * BLOCKS + block) * 4 * KIB;
                        write(&volume, offset, version, 4 * KIB).await;
                    }
                    volume.flush(&CX).await.expect("flushed");
                    expect(&volume, writer * BLOCKS * 4 * KIB, version, BLOCKS * 4 * KIB).await;
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
                version
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    harm().await;
    let before = rounds.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    go_on.store(false, Ordering::SeqCst);
    let mut versions = Vec::new();
    for running in running {
        versions.push(running.await.expect("no writer failed"));
    }
    assert!(rounds.load(Ordering::SeqCst) > before, "the writers went on");
    let path = if share == "share" { "share_path" } else { "share_encrypted_path" };
    let content = std::fs::read(file(path, &format!("{name}.raw"))).expect("the server's file");
    for (writer, version) in versions.into_iter().enumerate() {
        let part = BLOCKS as usize * 4096;
        let found = &content[writer * part..(writer + 1) * part];
        assert!(found.iter().all(|byte| *byte == version), "writer {writer}, version {version}");
    }
    let stats = backend.stats();
    assert!(value(&stats, "mount_lost_total") >= 1.0, "the connection was lost");
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, name).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_full_server_says_so_and_loses_nothing() {
    // Signing is slow without optimisation: most of the room is taken in another way.
    let filler = file("export_small", "filler");
    std::fs::write(&filler, vec![1; 56 << 20]).expect("room");
    let backend = open(samba("share_small")).await;
    let volume = made(&backend, "full", 256 * MIB).await;
    let mut kept = 0;
    let error = loop {
        match volume.write(&CX, kept * MIB, bytes(9, MIB), WriteFlags::NONE).await {
            Ok(()) if kept < 255 => kept += 1,
            Ok(()) => panic!("256 MiB fit into 64 MiB"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NO_SPACE, "{error:#}");
    assert!(!error.remedy_text().is_empty(), "{error:#}");
    volume.flush(&CX).await.expect("what was acknowledged is flushed");
    for at in 0..kept {
        expect(&volume, at * MIB, 9, MIB).await;
    }
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "full").await.expect("deleted");
    std::fs::remove_file(filler).expect("removed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn nothing_is_lost_when_the_server_is_killed() {
    let _revive = Revive("smbd");
    for (name, share) in [("killed", "share"), ("killed-encrypted", "share_encrypted")] {
        under_writers(name, share, async || {
            for _ in 0..2 {
                signal_all("KILL");
                tokio::time::sleep(Duration::from_millis(300)).await;
                service("again", &["smbd"]);
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_server_that_stands_still_is_waited_for() {
    let _revive = Revive("smbd");
    under_writers("still", "share", async || {
        signal_all("STOP");
        // Longer than the silence that is borne: the connection is made anew, and the old one still has the file.
        tokio::time::sleep(Duration::from_secs(6)).await;
        signal_all("CONT");
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    let backend = open(samba("share")).await;
    let health = backend.health(&CX).await.expect("asked");
    assert_eq!(health.state, HealthState::HEALTHY);
}
