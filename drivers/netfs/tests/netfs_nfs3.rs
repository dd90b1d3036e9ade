// SPDX-License-Identifier: Apache-2.0
//! NFSv3 against nfs-ganesha: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::{
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, HealthState, Volume, VolumeSpec, WriteFlags,
};
use serde_json::json;
use support::{
    CX, MIB, attach, bytes, expect, made, open,
    real::{Revive, address, ganesha, service},
    write,
    writers::{BLOCK, file, under_writers},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let _revive = Revive("ganesha");
    under_writers(ganesha("export"), "killed", async || {
        for _ in 0..3 {
            service("daemon", &["ganesha", "KILL"]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            service("again", &["ganesha"]);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_hangs_for_a_while_loses_nothing() {
    let _revive = Revive("ganesha");
    under_writers(ganesha("export"), "hung", async || {
        service("daemon", &["ganesha", "STOP"]);
        tokio::time::sleep(Duration::from_secs(7)).await;
        service("daemon", &["ganesha", "CONT"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_ends_in_good_order_and_comes_back_loses_nothing() {
    let _revive = Revive("ganesha");
    under_writers(ganesha("export"), "ended", async || {
        service("daemon", &["ganesha", "TERM"]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        service("again", &["ganesha"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_hangs_for_good_is_a_clear_error_after_the_deadline() {
    let _revive = Revive("ganesha");
    let mut options = ganesha("export");
    options["operation_timeout_secs"] = json!(3);
    let backend = open(options).await;
    let volume = made(&backend, "stuck", MIB).await;
    write(&volume, 0, 1, BLOCK).await;
    service("daemon", &["ganesha", "STOP"]);
    let begun = Instant::now();
    let (late, read) = tokio::join!(
        async { volume.write(&CX, 0, bytes(2, BLOCK), WriteFlags::NONE).await.expect_err("hung") },
        async { volume.read(&CX, 0, 512).await.expect_err("hung") },
    );
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
    for error in [&late, &read] {
        assert_eq!(error.kind(), ErrorKind::TIMED_OUT, "{error:#}");
        assert!(!error.remedy_text().is_empty(), "{error:#}");
    }
    let health = backend.health(&CX).await.expect("asked");
    assert_eq!(health.state, HealthState::FAILED, "{}", health.reason);
    service("daemon", &["ganesha", "CONT"]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let flushed = volume.flush(&CX).await.expect_err("a write is in doubt");
    assert_eq!(flushed.kind(), ErrorKind::CORRUPTED, "{flushed:#}");
    volume.detach(&CX).await.expect_err("it says so as well");
    let volume = attach(&backend, "stuck", 2).await;
    write(&volume, 0, 3, BLOCK).await;
    volume.flush(&CX).await.expect("flushed");
    expect(&volume, 0, 3, BLOCK).await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "stuck").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_away_is_waited_for_and_then_told_of() {
    let _revive = Revive("ganesha");
    let mut options = ganesha("export");
    options["operation_timeout_secs"] = json!(2);
    let backend = open(options).await;
    service("daemon", &["ganesha", "KILL"]);
    let begun = Instant::now();
    let away = backend.list(&CX).await.expect_err("away");
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert_eq!(away.kind(), ErrorKind::TIMED_OUT, "{away:#}");
    assert!(format!("{away:#}").contains("refused"), "{away:#}");
    service("again", &["ganesha"]);
    backend.list(&CX).await.expect("back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_full_server_says_so_and_the_volume_stays_whole() {
    let backend = open(ganesha("export_small")).await;
    let volume = made(&backend, "big", 128 * MIB).await;
    write(&volume, 0, 1, MIB).await;
    volume.flush(&CX).await.expect("room for this");
    let mut failed = None;
    for step in 1..128 {
        let written = volume.write(&CX, step * MIB, bytes(2, MIB), WriteFlags::NONE).await;
        if let Err(error) = written {
            failed = Some(error);
            break;
        }
    }
    let failed = failed.expect("64 MiB are not enough");
    assert_eq!(failed.kind(), ErrorKind::NO_SPACE, "{failed:#}");
    expect(&volume, 0, 1, MIB).await;
    let usage = backend.usage(&CX).await.expect("usage");
    assert!(usage.available < 4 * MIB, "{usage:?}");
    volume.detach(&CX).await.expect("what was taken is durable");
    backend.delete(&CX, "big").await.expect("deleted");
    let usage = backend.usage(&CX).await.expect("usage");
    assert!(usage.available > 32 * MIB, "{usage:?}");
    let volume = made(&backend, "next", MIB).await;
    write(&volume, 0, 1, MIB).await;
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "next").await.expect("deleted");
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn an_export_for_reading_only_is_read_and_says_so() {
    std::fs::write(PathBuf::from(address("export_readonly")).join("old.raw"), [7; 4096])
        .expect("put there");
    let backend = open(ganesha("export_readonly")).await;
    assert_eq!(backend.list(&CX).await.expect("listed").len(), 1);
    let refused = backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    assert!(refused.remedy_text().contains("rw"), "{refused:#}");
    let writer = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
    let refused = backend.attach(&CX, "old", writer).await.map(drop).expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    let reader = Attach::new(AttachMode::READ_ONLY, 1, "test");
    let volume = backend.attach(&CX, "old", reader).await.expect("for reading");
    expect(&volume, 0, 7, 4096).await;
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_refused_port_and_a_wrong_export_are_explained() {
    let backend = open(ganesha("export_reserved")).await;
    let refused = backend.list(&CX).await.expect_err("a port above 1023");
    assert!(refused.remedy_text().contains("insecure"), "{refused:#}");
    let mut options = ganesha("export_reserved");
    options["reserved_port"] = json!(true);
    open(options).await.list(&CX).await.expect("a port below 1024");
    let mut options = ganesha("export");
    options["share"] = json!("/no/such/export");
    let refused = open(options).await.list(&CX).await.expect_err("no such export");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    let mut options = ganesha("export");
    options["path"] = json!("no/such/directory");
    let refused = open(options).await.list(&CX).await.expect_err("no such directory");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    let backend = open(ganesha("export")).await;
    let exports =
        backend.commands().expect("commands").run(&CX, "exports", "{}").await.expect("listed");
    assert!(exports.contains(&address("export")), "{exports}");
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn symbolic_links_lead_nowhere() {
    let outside = PathBuf::from(address("export")).with_file_name("outside.raw");
    std::fs::write(&outside, [9; 4096]).expect("outside");
    for name in ["link.raw", "there"] {
        let _ = std::fs::remove_file(file(name));
    }
    symlink(&outside, file("link.raw")).expect("a link");
    symlink("..", file("there")).expect("a link");
    let backend = open(ganesha("export")).await;
    assert!(backend.list(&CX).await.expect("listed").iter().all(|volume| volume.name != "link"));
    let writer = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
    let refused = backend.attach(&CX, "link", writer).await.map(drop).expect_err("a link");
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{refused:#}");
    backend.create(&CX, VolumeSpec::new("link", MIB)).await.expect_err("a link");
    backend.delete(&CX, "link").await.expect_err("a link");
    let mut options = ganesha("export");
    options["path"] = json!("there");
    let refused = open(options).await.list(&CX).await.expect_err("a link");
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{refused:#}");
    assert_eq!(std::fs::read(&outside).expect("outside"), [9; 4096]);
    for path in [outside, file("link.raw"), file("there")] {
        std::fs::remove_file(path).expect("removed");
    }
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_file_that_is_replaced_on_the_server_is_noticed_and_spared() {
    let backend = open(ganesha("export")).await;
    let volume = made(&backend, "swapped", MIB).await;
    write(&volume, 0, 1, BLOCK).await;
    volume.flush(&CX).await.expect("flushed");
    std::fs::write(file("swapped.fresh"), vec![9; 1 << 20]).expect("another file");
    std::fs::rename(file("swapped.fresh"), file("swapped.raw")).expect("over it");
    let written = volume.write(&CX, 0, bytes(2, BLOCK), WriteFlags::NONE).await;
    let flushed = match written {
        Ok(()) => volume.flush(&CX).await.expect_err("another file"),
        Err(error) => error,
    };
    assert_eq!(flushed.kind(), ErrorKind::CORRUPTED, "{flushed:#}");
    volume.flush(&CX).await.expect_err("for ever");
    volume.read(&CX, 0, 512).await.expect_err("for ever");
    volume.detach(&CX).await.expect_err("a write is lost");
    assert!(std::fs::read(file("swapped.raw")).expect("there").iter().all(|byte| *byte == 9));
    backend.delete(&CX, "swapped").await.expect("deleted");
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_volume_is_the_file_that_its_name_says() {
    std::fs::create_dir_all(file("some/where")).expect("directories");
    let mut options = ganesha("export");
    options["path"] = json!("some/where");
    let backend = open(options).await;
    let volume = made(&backend, "plain", MIB).await;
    write(&volume, 512, 5, 512).await;
    volume.flush(&CX).await.expect("flushed");
    let mut wanted = vec![0; 1 << 20];
    wanted[512..1024].fill(5);
    assert!(std::fs::read(file("some/where/plain.raw")).expect("the file") == wanted);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "plain").await.expect("deleted");
    assert_eq!(
        std::fs::read_dir(file("some/where")).expect("a directory").count(),
        0,
        "something is left"
    );
}
