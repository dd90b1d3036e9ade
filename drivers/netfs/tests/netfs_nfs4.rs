// SPDX-License-Identifier: Apache-2.0
//! NFSv4 against nfs-ganesha: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use driver_api::{Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, WriteFlags};
use serde_json::{Value, json};
use support::{
    CX, MIB, attach, bytes, expect, made, open,
    real::{Revive, ganesha, ganesha4, service},
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

/// The export has this name by NFSv3 alone.
#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_version_that_does_not_do_is_passed_over_and_named() {
    let mut options = ganesha("export");
    options["versions"] = json!(["4.2", "4.1", "3"]);
    let backend = open(options).await;
    backend.list(&CX).await.expect("listed");
    let mount = mount_of(&backend).await;
    assert_eq!(mount["protocol"], "NFSv3", "{mount}");
    let reason = mount["reason"].as_str().expect("text");
    assert!(reason.contains("fell back") && reason.contains("4.2"), "{mount}");
}

async fn killed(versions: &[&str], name: &str) {
    let _revive = Revive("ganesha");
    under_writers(ganesha4("export", versions), name, async || {
        for _ in 0..2 {
            service("daemon", &["ganesha", "KILL"]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            service("again", &["ganesha"]);
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_killed_and_comes_back_loses_nothing_by_4_0() {
    killed(&["4.0"], "killed40").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_is_killed_and_comes_back_loses_nothing_by_4_1() {
    killed(&["4.1"], "killed41").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_that_hangs_for_a_while_loses_nothing() {
    let _revive = Revive("ganesha");
    for (version, name) in [("4.0", "hung40"), ("4.1", "hung41")] {
        under_writers(ganesha4("export", &[version]), name, async || {
            service("daemon", &["ganesha", "STOP"]);
            tokio::time::sleep(Duration::from_secs(9)).await;
            service("daemon", &["ganesha", "CONT"]);
        })
        .await;
    }
}

/// Another process that attaches a volume and goes on writing to its first block, until something fails.
#[tokio::test]
#[ignore = "is what the tests here start"]
async fn holder() {
    let Ok(options) = std::env::var("NOVASTOR_NETFS_OPTIONS") else { return };
    let backend = open(serde_json::from_str(&options).expect("JSON")).await;
    let name = std::env::var("NOVASTOR_NETFS_VOLUME").expect("a volume");
    let attach = Attach::new(AttachMode::EXCLUSIVE, 5, "the-other-process");
    let volume = backend.attach(&CX, &name, attach).await.expect("attached");
    println!("it holds");
    let failed = loop {
        let written = volume.write(&CX, 0, bytes(1, BLOCK), WriteFlags::FUA).await;
        if let Err(error) = written {
            break error;
        }
        println!("it writes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    println!("it failed: {failed:#}");
    let flushed = volume.flush(&CX).await.expect_err("fenced");
    println!("its flush failed: {flushed:#}");
}

/// The other process, which ends with the test.
struct Other(Child, BufReader<ChildStdout>);

impl Drop for Other {
    fn drop(&mut self) {
        self.signal("CONT");
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Other {
    fn start(options: &Value, volume: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["holder", "--exact", "--ignored", "--nocapture"]);
        command.env("NOVASTOR_NETFS_OPTIONS", options.to_string());
        command.env("NOVASTOR_NETFS_VOLUME", volume);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let mut other = Self(child, said);
        other.until("it holds");
        other
    }

    /// Waits until it says this.
    fn until(&mut self, wanted: &str) -> String {
        let mut line = String::new();
        // It says a line with every write, twenty times a second.
        for _ in 0..600 {
            line.clear();
            let read = self.1.read_line(&mut line).expect("a line");
            assert!(read > 0, "the other process ended without saying: {wanted}");
            if line.contains(wanted) {
                return line;
            }
        }
        panic!("the other process goes on without saying: {wanted}");
    }

    fn signal(&self, signal: &str) {
        let mut command = Command::new("kill");
        command.args([format!("-{signal}"), self.0.id().to_string()]);
        let _ = command.status();
    }
}

async fn taken_over(version: &str, name: &str) {
    let options = ganesha4("export", &[version]);
    let backend = open(options.clone()).await;
    made(&backend, name, MIB).await.detach(&CX).await.expect("detached");
    let mut other = Other::start(&options, name);
    let taker = |epoch| Attach::new(AttachMode::EXCLUSIVE, epoch, "the-taker");
    let refused = backend.attach(&CX, name, taker(6)).await.map(drop).expect_err("held");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    // It lives and keeps its lock: not even force takes that.
    let begun = Instant::now();
    let refused = backend.attach(&CX, name, taker(7).force()).await.map(drop);
    let refused = refused.expect_err("locked");
    assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
    eprintln!("{name}: a live holder's lock was respected for {:?}: {refused:#}", begun.elapsed());
    other.until("it writes");

    other.signal("STOP");
    let begun = Instant::now();
    let volume = backend.attach(&CX, name, taker(8).force()).await.expect("its lease is over");
    eprintln!("{name}: a stopped holder's lock was free after {:?}", begun.elapsed());
    write(&volume, 0, 2, BLOCK).await;
    volume.flush(&CX).await.expect("flushed");
    other.signal("CONT");
    let failed = other.until("it failed");
    assert!(failed.contains("another attachment took this volume over"), "{failed}");
    other.until("its flush failed");
    expect(&volume, 0, 2, BLOCK).await;
    assert!(std::fs::read(file(&format!("{name}.raw"))).expect("there")[..4096] == [2; 4096]);
    drop(other);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, name).await.expect("deleted");
    backend.close(&CX).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_live_holder_is_left_alone_and_a_stopped_one_fenced_by_4_0() {
    taken_over("4.0", "taken40").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_live_holder_is_left_alone_and_a_stopped_one_fenced_by_4_1() {
    taken_over("4.1", "taken41").await;
}

/// Between two locks of the stopped process another one had the volume, and has left it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_lock_that_is_free_again_is_not_taken_where_another_epoch_was() {
    let options = ganesha4("export", &["4.1"]);
    let backend = open(options.clone()).await;
    made(&backend, "passed", MIB).await.detach(&CX).await.expect("detached");
    let mut other = Other::start(&options, "passed");
    other.until("it writes");
    other.signal("STOP");
    let taker = Attach::new(AttachMode::EXCLUSIVE, 8, "the-taker").force();
    let volume = backend.attach(&CX, "passed", taker).await.expect("its lease is over");
    write(&volume, 0, 2, BLOCK).await;
    volume.detach(&CX).await.expect("detached");
    other.signal("CONT");
    let failed = other.until("it failed");
    assert!(failed.contains("another attachment took this volume over"), "{failed}");
    assert!(std::fs::read(file("passed.raw")).expect("there")[..4096] == [2; 4096]);
    drop(other);
    backend.delete(&CX, "passed").await.expect("deleted");
}

/// A lease that ran out is noticed, and where nobody came meanwhile the lock is taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_lease_that_ran_out_is_noticed_and_the_work_goes_on() {
    for version in ["4.0", "4.1"] {
        let options = ganesha4("export", &[version]);
        let backend = open(options.clone()).await;
        made(&backend, "expired", MIB).await.detach(&CX).await.expect("detached");
        let mut other = Other::start(&options, "expired");
        other.until("it writes");
        other.signal("STOP");
        tokio::time::sleep(Duration::from_secs(9)).await;
        other.signal("CONT");
        for _ in 0..40 {
            other.until("it writes");
        }
        drop(other);
        backend.delete(&CX, "expired").await.expect("its process is gone");
    }
}

#[tokio::test]
#[ignore = "needs the servers of tests/services/netfs"]
async fn refusals_are_explained() {
    let mut options = ganesha4("export", &["4.1"]);
    options["share"] = json!("/no/such/export");
    let refused = open(options).await.list(&CX).await.expect_err("no such export");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    assert!(refused.remedy_text().contains("Pseudo"), "{refused:#}");
    let mut options = ganesha4("export", &["4.0"]);
    options["path"] = json!("no/such/directory");
    let refused = open(options).await.list(&CX).await.expect_err("no such directory");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND, "{refused:#}");
    let backend = open(ganesha4("export_readonly", &["4.1"])).await;
    let refused = backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect_err("read-only");
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    let backend = open(ganesha4("export_reserved", &["4.1"])).await;
    let refused = backend.list(&CX).await.expect_err("a port above 1023");
    assert!(refused.remedy_text().contains("insecure"), "{refused:#}");
    std::os::unix::fs::symlink("/etc/hostname", file("link4.raw")).expect("a link");
    let backend = open(ganesha4("export", &["4.1"])).await;
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
    let refused = backend.attach(&CX, "link4", attach).await.map(drop).expect_err("a link");
    assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{refused:#}");
    std::fs::remove_file(file("link4.raw")).expect("removed");
}
