// SPDX-License-Identifier: Apache-2.0
//! Attaching, and taking over from living, stopped and dead holders in other processes.
#![allow(missing_docs)]

mod fixture;

use std::{
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use driver_api::{Attach, Backend, ErrorKind, IoBuf, Op, OpContext, Volume, WriteFlags};
use fixture::*;
use local::LocalVolume;

/// Not a test of its own: the holder in another process. Attaches, writes everywhere, notes how it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the other tests"]
async fn holder() {
    let Ok(dir) = std::env::var("HOLDER_DIR") else { return };
    let dir = Path::new(&dir);
    let backend = backend(dir).await;
    let attach = Attach::new(driver_api::AttachMode::EXCLUSIVE, 1, "the holder");
    let volume = backend.attach(&CX, "v", attach).await.expect("attached");
    std::fs::write(dir.join("ready"), "").expect("noted");
    let mut storm = tokio::task::JoinSet::new();
    for task in 0..8_u64 {
        let volume = volume.clone();
        storm.spawn(async move { write_until_refused(&volume, task).await });
    }
    let mut ends = storm.join_all().await;
    ends.push(volume.flush(&CX).await.expect_err("fenced").kind().name().to_owned());
    ends.push(volume.read(&CX, 0, 512).await.expect_err("fenced").kind().name().to_owned());
    std::fs::write(dir.join("ended.new"), ends.join("\n")).expect("noted");
    std::fs::rename(dir.join("ended.new"), dir.join("ended")).expect("noted");
}

async fn write_until_refused(volume: &LocalVolume, seed: u64) -> String {
    let data = IoBuf::copy_from(&[0xaa; 65536]);
    let places = volume.size() / 65536;
    for number in seed.. {
        let offset = (number * 7 % places) * 65536;
        if let Err(error) = volume.write(&CX, offset, data.clone(), WriteFlags::NONE).await {
            return error.kind().name().to_owned();
        }
    }
    unreachable!("the loop does not end by itself")
}

struct Holder(Child);

impl Holder {
    fn start(dir: &Path) -> Self {
        let holder = Self(respawn("holder", &[("HOLDER_DIR", dir.to_str().expect("UTF-8"))]));
        wait_for(&dir.join("ready"));
        // In the middle of the storm, not before it.
        std::thread::sleep(Duration::from_millis(200));
        holder
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("tasks");
        tasks
            .map(|task| task.expect("a task").path().join("stat"))
            .all(|stat| std::fs::read_to_string(stat).expect("stat").contains(") T "))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn all_fenced(dir: &Path) {
    wait_for(&dir.join("ended"));
    let ends = std::fs::read_to_string(dir.join("ended")).expect("read");
    assert_eq!(ends.lines().collect::<Vec<_>>(), ["Fenced"; 10]);
}

async fn prepared(dir: &Path) -> local::LocalBackend {
    let backend = backend(dir).await;
    made(&backend, "v", 32 * MIB, "raw").await.detach(&CX).await.expect("detached");
    backend
}

async fn overwrite_and_check(volume: &LocalVolume, then: impl FnOnce()) {
    for at in 0..32 {
        write(volume, at * MIB, &vec![0x55; 1 << 20]).await;
    }
    volume.flush(&CX).await.expect("flushed");
    then();
    for at in 0..32 {
        assert!(is_all(volume, at * MIB, 1 << 20, 0x55).await, "a write of the old holder landed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_holder_lands_nothing_after_a_take_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = prepared(dir.path()).await;
    let holder = Holder::start(dir.path());
    holder.signal(rustix::process::Signal::STOP);
    while !holder.is_stopped() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let error = backend.attach(&CX, "v", writer(2)).await.err().expect("held");
    assert_eq!(error.kind(), ErrorKind::IN_USE);
    assert!(error.to_string().contains("the holder"), "{error}");
    assert!(error.to_string().contains(&holder.0.id().to_string()), "{error}");

    let volume = backend.attach(&CX, "v", writer(3).force()).await.expect("taken over");
    overwrite_and_check(&volume, || {
        holder.signal(rustix::process::Signal::CONT);
        all_fenced(dir.path());
    })
    .await;
    volume.detach(&CX).await.expect("detached");
    let again =
        backend.attach(&CX, "v", writer(4)).await.expect("the fenced holder is no obstacle");
    assert!(is_all(&again, 0, 1 << 20, 0x55).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_holder_is_fenced_in_the_middle_of_its_writes() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = prepared(dir.path()).await;
    let holder = Holder::start(dir.path());
    let volume = backend.attach(&CX, "v", writer(2).force()).await.expect("taken over");
    overwrite_and_check(&volume, || all_fenced(dir.path())).await;
    drop(holder);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holder_is_no_obstacle_and_changes_the_incarnation() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = prepared(dir.path()).await;
    let mut holder = Holder::start(dir.path());
    holder.0.kill().expect("killed");
    holder.0.wait().expect("ended");
    let volume = backend.attach(&CX, "v", writer(2)).await.expect("free");
    assert_eq!(volume.incarnation(), 2);
    volume.detach(&CX).await.expect("detached");
    let volume = backend.attach(&CX, "v", writer(3)).await.expect("free");
    assert_eq!(volume.incarnation(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_time_to_prove_it_nothing_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = prepared(dir.path()).await;
    let door = std::fs::File::open(dir.path().join("volumes/v/lock")).expect("the door");
    door.lock().expect("locked");
    let hurried = OpContext::new().with_timeout(Duration::from_millis(50));
    let error = backend.attach(&hurried, "v", writer(2)).await.err().expect("the door is closed");
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT);
    assert!(!error.remedy_text().is_empty());
    door.unlock().expect("unlocked");
    backend.attach(&CX, "v", writer(2)).await.expect("free");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_hold_inside_one_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let (one, two) = (prepared(dir.path()).await, backend(dir.path()).await);
    let first = one.attach(&CX, "v", writer(5)).await.expect("attached");
    for backend in [&one, &two] {
        for attach in [writer(6), reader(6)] {
            let error = backend.attach(&CX, "v", attach).await.err().expect("held");
            assert_eq!(error.kind(), ErrorKind::IN_USE);
        }
        assert_eq!(backend.delete(&CX, "v").await.expect_err("held").kind(), ErrorKind::IN_USE);
    }
    let error = two.attach(&CX, "v", writer(4).force()).await.err().expect("old epoch");
    assert_eq!(error.kind(), ErrorKind::FENCED);
    write(&first, 0, &[1; 512]).await;

    let second = two.attach(&CX, "v", writer(7).force()).await.expect("taken over");
    let data = IoBuf::copy_from(&[2; 512]);
    let error = first.write(&CX, 0, data, WriteFlags::NONE).await.expect_err("fenced");
    assert_eq!(error.kind(), ErrorKind::FENCED);
    assert_eq!(first.flush(&CX).await.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert_eq!(first.detach(&CX).await.expect_err("fenced").kind(), ErrorKind::FENCED);
    assert!(is_all(&second, 0, 512, 1).await);
    second.detach(&CX).await.expect("detached");

    let readers = [
        one.attach(&CX, "v", reader(8)).await.expect("reader"),
        two.attach(&CX, "v", reader(8)).await.expect("another reader"),
    ];
    let error = one.attach(&CX, "v", writer(9)).await.err().expect("readers hold it");
    assert_eq!(error.kind(), ErrorKind::IN_USE);
    for volume in &readers {
        assert!(is_all(volume, 0, 512, 1).await);
        let data = IoBuf::copy_from(&[2; 512]);
        let error = volume.write(&CX, 0, data, WriteFlags::NONE).await.expect_err("read-only");
        assert_eq!(error.kind(), ErrorKind::PERMISSION_DENIED);
        volume.detach(&CX).await.expect("detached");
    }
    drop(one.attach(&CX, "v", writer(10)).await.expect("free"));
    let op: Op<LocalVolume> = two.attach(&CX, "v", writer(11));
    op.await.expect("a dropped attachment is no obstacle");
}
