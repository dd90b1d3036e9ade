// SPDX-License-Identifier: Apache-2.0
//! Who may attach a volume beside whom, where the server keeps nobody out.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use driver_api::{Attach, AttachMode, Backend, Error, ErrorKind, Volume, VolumeSpec, WriteFlags};
use netfs::{NetfsBackend, NetfsVolume};
use support::{CX, KIB, MIB, bytes, expect, fake::Fake, made, open, write};

async fn try_attach(
    backend: &NetfsBackend,
    mode: AttachMode,
    epoch: u64,
    force: bool,
) -> Result<NetfsVolume, Error> {
    let attach = Attach::new(mode, epoch, "second");
    backend.attach(&CX, "v", if force { attach.force() } else { attach }).await
}

/// Another process that attaches the volume `v` and keeps it.
#[tokio::test]
#[ignore = "is what the tests here start"]
async fn holder() {
    let options = std::env::var("NOVASTOR_NETFS_OPTIONS").expect("options");
    let backend = open(serde_json::from_str(&options).expect("JSON")).await;
    let attach = Attach::new(AttachMode::EXCLUSIVE, 5, "the-other-process");
    let volume = backend.attach(&CX, "v", attach).await.expect("attached");
    write(&volume, 0, 1, 4 * KIB).await;
    volume.flush(&CX).await.expect("flushed");
    println!("it holds");
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Ends the other process, also when the test failed.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_holder(fake: &Fake) -> Other {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["holder", "--exact", "--ignored", "--nocapture"]);
    command.env("NOVASTOR_NETFS_OPTIONS", fake.options().to_string());
    let mut other = Other(command.stdout(Stdio::piped()).spawn().expect("started"));
    let said = BufReader::new(other.0.stdout.take().expect("its output"));
    let holds = said.lines().any(|line| line.expect("a line").contains("it holds"));
    assert!(holds, "the other process did not attach");
    other
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_seen_and_forgotten_once_it_is_killed() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("created");
    let other = start_holder(&fake);
    for mode in [AttachMode::EXCLUSIVE, AttachMode::READ_ONLY] {
        let refused = try_attach(&backend, mode, 6, false).await.map(drop).expect_err("held");
        assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
        assert!(format!("{refused:#}").contains("the-other-process"), "{refused:#}");
    }
    let refused = backend.delete(&CX, "v").await.expect_err("held");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    drop(other);
    let volume = try_attach(&backend, AttachMode::EXCLUSIVE, 6, false).await.expect("free again");
    expect(&volume, 0, 1, 4 * KIB).await;
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_passed_over_by_force_alone() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("created");
    let _other = start_holder(&fake);
    let late = try_attach(&backend, AttachMode::EXCLUSIVE, 4, true).await.map(drop);
    assert_eq!(late.expect_err("a lower epoch").kind(), ErrorKind::FENCED);
    let volume = try_attach(&backend, AttachMode::EXCLUSIVE, 6, true).await.expect("forced");
    expect(&volume, 0, 1, 4 * KIB).await;
}

#[tokio::test]
async fn a_second_backend_of_this_process_is_kept_out_and_fences_by_force() {
    let fake = Fake::start().await;
    let (one, two) = (open(fake.options()).await, open(fake.options()).await);
    let first = made(&one, "v", MIB).await;
    write(&first, 0, 1, 4 * KIB).await;
    let refused = try_attach(&two, AttachMode::EXCLUSIVE, 2, false).await.map(drop);
    assert_eq!(refused.expect_err("held").kind(), ErrorKind::IN_USE);
    let second = try_attach(&two, AttachMode::EXCLUSIVE, 2, true).await.expect("forced");
    expect(&second, 0, 1, 4 * KIB).await;
    let late = first.write(&CX, 0, bytes(9, 4 * KIB), WriteFlags::NONE).await.expect_err("fenced");
    assert_eq!(late.kind(), ErrorKind::FENCED, "{late:#}");
    let late = first.flush(&CX).await.expect_err("fenced");
    assert_eq!(late.kind(), ErrorKind::FENCED, "{late:#}");
    expect(&second, 0, 1, 4 * KIB).await;
    first.detach(&CX).await.expect_err("fenced");
    second.detach(&CX).await.expect("detached");
}

#[tokio::test]
async fn a_record_that_is_lost_opens_no_door() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let first = made(&backend, "v", MIB).await;
    fake.world().files.remove("v.novastor");
    let refused = try_attach(&backend, AttachMode::EXCLUSIVE, 2, false).await.map(drop);
    assert_eq!(refused.expect_err("held").kind(), ErrorKind::IN_USE);
    let refused = backend.delete(&CX, "v").await.expect_err("held");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    first.detach(&CX).await.expect("detached");
    backend.delete(&CX, "v").await.expect("deleted");
}

#[tokio::test]
async fn a_full_server_keeps_nobody_from_its_data_and_lets_no_second_writer_in() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    write(&volume, 0, 1, 4 * KIB).await;
    volume.detach(&CX).await.expect("detached");
    fake.world().faults.full = true;
    let volume = try_attach(&backend, AttachMode::EXCLUSIVE, 2, false).await.expect("attached");
    expect(&volume, 0, 1, 4 * KIB).await;
    let full = volume.write(&CX, 0, bytes(2, 4 * KIB), WriteFlags::NONE).await.expect_err("full");
    assert_eq!(full.kind(), ErrorKind::NO_SPACE, "{full:#}");
    let refused = try_attach(&backend, AttachMode::EXCLUSIVE, 3, false).await.map(drop);
    assert_eq!(refused.expect_err("held").kind(), ErrorKind::IN_USE);
    volume.detach(&CX).await.expect("detached");
    try_attach(&backend, AttachMode::EXCLUSIVE, 3, false).await.expect("free again");
}
