// SPDX-License-Identifier: Apache-2.0
//! The driver against a server that does what servers do rarely.

mod support;

use driver_api::{Attach, AttachMode, Backend, ErrorKind, Volume, VolumeSpec, WriteFlags};
use nfs3_types::nfs3::ftype3;
use serde_json::json;
use support::{CX, KIB, MIB, attach, bytes, expect, fake::Fake, made, open, value, write};

const READ: u32 = 6;
const WRITE: u32 = 7;
const CREATE: u32 = 8;
const REMOVE: u32 = 12;
const RENAME: u32 = 14;
const COMMIT: u32 = 21;

/// What is on the server's disk, of a volume's file.
fn disk(fake: &Fake, name: &str) -> Vec<u8> {
    fake.world().files[name].disk.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_between_any_two_writes_loses_nothing() {
    for crash_every in [1, 2, 3, 7] {
        let fake = Fake::start().await;
        let backend = open(fake.options()).await;
        let volume = made(&backend, "v", 4 * MIB).await;
        fake.world().faults.crash_every = crash_every;
        let mut random = fastrand::Rng::with_seed(crash_every);
        let mut wanted = vec![0_u8; 4 << 20];
        for round in 0..6 {
            let mut writing = Vec::new();
            for _ in 0..12 {
                let at = random.u64(0..60) * 64 * KIB + random.u64(0..3) * 512;
                let (fill, len) = (random.u8(1..), random.u64(1..64) * KIB);
                let flags = if random.u8(0..5) == 0 { WriteFlags::FUA } else { WriteFlags::NONE };
                wanted[at as usize..(at + len) as usize].fill(fill);
                // One after the other: whose bytes win is known then.
                volume.write(&CX, at, bytes(fill, len), flags).await.expect("written");
                writing.push((at, len));
            }
            // Nobody sees what the server forgot.
            let seen = volume.read(&CX, 0, 4 << 20).await.expect("read");
            assert!(
                seen[..] == wanted[..],
                "every {crash_every}, round {round}: an acknowledged write is not seen"
            );
            // A server that crashes with each write can never be flushed: it gets some peace.
            fake.world().faults.crash_every = if crash_every < 3 { 0 } else { crash_every };
            volume.flush(&CX).await.expect("flushed");
            assert!(
                disk(&fake, "v.raw") == wanted,
                "every {crash_every}, round {round}: a flushed write is lost"
            );
            fake.world().crash();
            let seen = volume.read(&CX, 0, 4 << 20).await.expect("read");
            assert!(
                seen[..] == wanted[..],
                "every {crash_every}, round {round}: lost after a flush"
            );
            fake.world().faults.crash_every = crash_every;
        }
        assert!(fake.world().crashes > 6);
        fake.world().faults.crash_every = 0;
        volume.detach(&CX).await.expect("detached");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_at_a_commit_fails_the_flush_and_loses_nothing() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    write(&volume, 0, 1, 64 * KIB).await;
    fake.world().faults.full_at_commit = true;
    let full = volume.flush(&CX).await.expect_err("full");
    assert_eq!(full.kind(), ErrorKind::NO_SPACE, "{full:#}");
    assert!(!full.remedy_text().is_empty());
    // The server has thrown it away; it is still there for readers, and for the next flush.
    expect(&volume, 0, 1, 64 * KIB).await;
    volume.flush(&CX).await.expect_err("still full");
    fake.world().faults.full_at_commit = false;
    volume.flush(&CX).await.expect("space again");
    assert!(disk(&fake, "v.raw")[..64 << 10].iter().all(|byte| *byte == 1));
}

#[tokio::test]
async fn answers_that_are_lost_are_asked_for_again() {
    for (procedure, cut_inside) in
        [(WRITE, false), (WRITE, true), (READ, false), (READ, true), (COMMIT, false)]
    {
        let fake = Fake::start().await;
        let backend = open(fake.options()).await;
        let volume = made(&backend, "v", MIB).await;
        write(&volume, 0, 1, 8 * KIB).await;
        {
            let mut world = fake.world();
            let faults = &mut world.faults;
            *(if cut_inside { &mut faults.cut_inside } else { &mut faults.cut_after }) =
                Some((procedure, 1));
        }
        write(&volume, 4 * KIB, 2, 8 * KIB).await;
        expect(&volume, 0, 1, 4 * KIB).await;
        expect(&volume, 4 * KIB, 2, 8 * KIB).await;
        volume.flush(&CX).await.expect("flushed");
        assert_eq!(disk(&fake, "v.raw")[4096], 2);
        let stats = backend.stats();
        assert_eq!(value(&stats, "mount_lost_total"), 1.0, "procedure {procedure}");
        // Beside a commit the file's name is looked up, whose answer is lost as well.
        let again = value(&stats, "mount_retransmits_total");
        assert!((1.0..=2.0).contains(&again), "procedure {procedure}: {again}");
        volume.detach(&CX).await.expect("detached");
    }
}

#[tokio::test]
async fn changes_of_the_directory_are_verified_when_their_answer_was_lost() {
    for procedure in [CREATE, RENAME] {
        let fake = Fake::start().await;
        let backend = open(fake.options()).await;
        backend.list(&CX).await.expect("mounted");
        fake.world().faults.cut_after = Some((procedure, 1));
        backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("created");
        assert_eq!(backend.list(&CX).await.expect("listed").len(), 1);
        assert!(fake.world().faults.cut_after.is_none(), "{procedure} was not cut");
    }
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("created");
    fake.world().faults.cut_after = Some((REMOVE, 1));
    backend
        .delete(&CX, "v")
        .await
        .expect("deleted, though the second answer says that it is not there");
    assert!(fake.world().files.is_empty());
    let again = backend.delete(&CX, "v").await.expect_err("gone");
    assert_eq!(again.kind(), ErrorKind::NOT_FOUND);
}

#[tokio::test]
async fn a_server_that_asks_for_patience_gets_it() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    fake.world().faults.later = 3;
    write(&volume, 0, 1, 4 * KIB).await;
    fake.world().faults.later = 2;
    expect(&volume, 0, 1, 4 * KIB).await;
    assert_eq!(value(&backend.stats(), "mount_asked_to_wait_total"), 5.0);
}

#[tokio::test]
async fn short_and_long_answers_come_out_whole() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", 4 * MIB).await;
    fake.world().faults.at_most = Some(5000);
    write(&volume, 1000, 1, 3 * MIB).await;
    expect(&volume, 1000, 1, 3 * MIB).await;
    volume.flush(&CX).await.expect("flushed");
    fake.world().faults.at_most = None;
    fake.world().faults.too_much = true;
    expect(&volume, 1000, 1, 512).await;
    expect(&volume, 1000, 1, 3 * MIB).await;
}

#[tokio::test]
async fn a_write_without_an_answer_times_out_and_leaves_a_doubt() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options["operation_timeout_secs"] = json!(1);
    let backend = open(options).await;
    let volume = made(&backend, "v", MIB).await;
    write(&volume, 0, 1, 4 * KIB).await;
    fake.world().faults.mute = Some(WRITE);
    let late = volume.write(&CX, 0, bytes(2, 4 * KIB), WriteFlags::NONE).await.expect_err("mute");
    assert_eq!(late.kind(), ErrorKind::TIMED_OUT, "{late:#}");
    fake.world().faults.mute = None;
    let flushed = volume.flush(&CX).await.expect_err("who knows");
    assert_eq!(flushed.kind(), ErrorKind::CORRUPTED, "{flushed:#}");
    volume.read(&CX, 0, 512).await.expect("reads go on");
    volume.detach(&CX).await.expect_err("it says so as well");
    let volume = attach(&backend, "v", 2).await;
    write(&volume, 0, 3, 4 * KIB).await;
    volume.flush(&CX).await.expect("a new attachment has no doubt");
}

#[tokio::test]
async fn a_file_that_was_replaced_is_never_a_target() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    write(&volume, 0, 1, 4 * KIB).await;
    let foreign = vec![9; 1 << 20];
    fake.world().put("v.raw", ftype3::NF3REG, &foreign);
    // The old file still takes writes by its handle, but has no name any more: none of them is called durable.
    let outcome = volume.write(&CX, 0, bytes(2, 4 * KIB), WriteFlags::NONE).await;
    let flushed = volume.flush(&CX).await.expect_err("another file");
    assert_eq!(flushed.kind(), ErrorKind::CORRUPTED, "{flushed:#} after {outcome:?}");
    let read = volume.read(&CX, 0, 512).await.expect_err("for ever");
    assert_eq!(read.kind(), ErrorKind::CORRUPTED, "{read:#}");
    // Its handle is gone as well.
    fake.world().nameless.clear();
    volume.write(&CX, 0, bytes(2, 4 * KIB), WriteFlags::FUA).await.expect_err("for ever");
    assert!(disk(&fake, "v.raw") == foreign, "the foreign file was written");
    volume.detach(&CX).await.expect_err("what was not flushed is lost");
    assert!(disk(&fake, "v.raw") == foreign, "the foreign file was written");
}

#[tokio::test]
async fn a_stale_handle_is_looked_up_once_more() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    write(&volume, 0, 1, 4 * KIB).await;
    volume.flush(&CX).await.expect("flushed");
    // Another file, and the old handle is stale.
    {
        let mut world = fake.world();
        world.put("v.raw", ftype3::NF3REG, &vec![9; 1 << 20]);
        world.nameless.clear();
    }
    let read = volume.read(&CX, 0, 512).await.expect_err("another file");
    assert_eq!(read.kind(), ErrorKind::CORRUPTED, "{read:#}");
    assert!(format!("{read:#}").contains("another file"), "{read:#}");
}

#[tokio::test]
async fn a_file_that_was_cut_off_is_an_error() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", MIB).await;
    fake.world().files.get_mut("v.raw").expect("there").disk.truncate(4096);
    let read = volume.read(&CX, 0, 8192).await.expect_err("cut off");
    assert_eq!(read.kind(), ErrorKind::CORRUPTED, "{read:#}");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_untouched() {
    let fake = Fake::start().await;
    for (name, kind) in
        [("link", ftype3::NF3LNK), ("dir", ftype3::NF3DIR), ("pipe", ftype3::NF3FIFO)]
    {
        fake.world().put(&format!("{name}.raw"), kind, b"secret");
    }
    let backend = open(fake.options()).await;
    assert!(backend.list(&CX).await.expect("listed").is_empty());
    for name in ["link", "dir", "pipe"] {
        let refused = |error: driver_api::Error| {
            assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT, "{error:#}")
        };
        refused(backend.show(&CX, name).await.expect_err("irregular"));
        refused(backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("irregular"));
        refused(backend.delete(&CX, name).await.expect_err("irregular"));
        let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "test");
        refused(backend.attach(&CX, name, attach).await.map(drop).expect_err("irregular"));
        assert_eq!(disk(&fake, &format!("{name}.raw")), b"secret");
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_never_reach_the_server() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    backend.list(&CX).await.expect("mounted");
    let long = "x".repeat(300);
    for name in ["..", ".", "", "../x", "a/b", "a\\b", "a\0b", "a\nb", "a:b", "con", &long] {
        let refused = backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("no name");
        assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{name:?}: {refused:#}");
        for error in [
            backend.show(&CX, name).await.map(drop).expect_err("no name"),
            backend.delete(&CX, name).await.expect_err("no name"),
        ] {
            assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT, "{name:?}: {error:#}");
        }
    }
    assert!(fake.world().asked.is_empty(), "{:?}", fake.world().asked);
    for path in ["..", "a/../..", "/etc", "a//b"] {
        let options = json!({ "server": "127.0.0.1", "share": "/fake", "path": path });
        let config: netfs::Config = serde_json::from_value(options).expect("parsed");
        let refused = netfs::NetfsBackend::open("n", config).await.map(drop).expect_err("no path");
        assert_eq!(refused.kind(), ErrorKind::INVALID_ARGUMENT, "{path}");
    }
}

#[tokio::test]
async fn an_image_that_was_there_is_adopted_unchanged_and_never_taken_for_a_new_volume() {
    let fake = Fake::start().await;
    let content: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    fake.world().put("old.raw", ftype3::NF3REG, &content);
    fake.world().put("disk.img", ftype3::NF3REG, &content);
    fake.world().put("plain", ftype3::NF3REG, &content);
    fake.world().put("notes.txt", ftype3::NF3REG, b"no image");
    let backend = open(fake.options()).await;
    let listed = backend.list(&CX).await.expect("listed");
    let names: Vec<&str> = listed.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["disk.img", "old"]);
    for name in ["old", "disk.img", "plain"] {
        let taken = backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("an image");
        assert_eq!(taken.kind(), ErrorKind::ALREADY_EXISTS, "{name}: {taken:#}");
        assert_eq!(backend.show(&CX, name).await.expect("shown").size, MIB);
        let volume = attach(&backend, name, 1).await;
        let read = volume.read(&CX, 0, 1 << 20).await.expect("read");
        assert!(read[..] == content[..]);
        volume.detach(&CX).await.expect("detached");
        let taken =
            backend.create(&CX, VolumeSpec::new(name, MIB)).await.expect_err("still an image");
        assert_eq!(taken.kind(), ErrorKind::ALREADY_EXISTS);
    }
    assert!(disk(&fake, "old.raw") == content && disk(&fake, "plain") == content);
}

#[tokio::test]
async fn what_a_crash_left_half_made_is_completed() {
    let fake = Fake::start().await;
    fake.world().put("v.raw", ftype3::NF3REG, b"");
    let backend = open(fake.options()).await;
    let made = backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("completed");
    assert_eq!(made.size, MIB);
    assert_eq!(backend.create(&CX, VolumeSpec::new("v", MIB)).await.expect("the same").size, MIB);
    let other = backend.create(&CX, VolumeSpec::new("v", 2 * MIB)).await.expect_err("another");
    assert_eq!(other.kind(), ErrorKind::ALREADY_EXISTS);
}

#[tokio::test]
async fn what_is_not_durable_stays_within_its_bound() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options["unstable_bytes"] = json!(1 << 20);
    let backend = open(options).await;
    let volume = made(&backend, "v", 16 * MIB).await;
    for step in 0..32 {
        write(&volume, step * 512 * KIB, 1, 512 * KIB).await;
        assert!(value(&volume.stats(), "not_durable_bytes") <= 1.5 * MIB as f64);
    }
    volume.write_zeroes(&CX, 0, 16 * MIB, WriteFlags::NONE).await.expect("zeroed");
    expect(&volume, 0, 0, 16 * MIB).await;
}

#[tokio::test]
async fn what_was_cut_off_does_not_come_back() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let volume = made(&backend, "v", 2 * MIB).await;
    write(&volume, 0, 1, 2 * MIB).await;
    let resize = Volume::resize(&volume).expect("resizes");
    resize.resize(&CX, MIB, true).await.expect("shrunk");
    fake.world().crash();
    resize.resize(&CX, 2 * MIB, false).await.expect("grown");
    volume.flush(&CX).await.expect("flushed");
    expect(&volume, 0, 1, MIB).await;
    expect(&volume, MIB, 0, MIB).await;
}

#[tokio::test]
async fn space_is_what_this_user_may_write() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let usage = backend.usage(&CX).await.expect("usage");
    assert_eq!((usage.capacity, usage.available), (1 << 40, 1 << 30));
}

#[tokio::test]
async fn exports_and_mounts_are_shown() {
    let fake = Fake::start().await;
    let backend = open(fake.options()).await;
    let commands = backend.commands().expect("commands");
    let exports = commands.run(&CX, "exports", "{}").await.expect("listed");
    assert!(exports.contains("/fake"), "{exports}");
    let mounts = commands.run(&CX, "mounts", "{}").await.expect("shown");
    assert!(mounts.contains("\"state\":\"idle\""), "{mounts}");
    backend.list(&CX).await.expect("listed");
    let mounts = commands.run(&CX, "mounts", "{}").await.expect("shown");
    assert!(mounts.contains("\"state\":\"mounted\"") && mounts.contains("NFSv3"), "{mounts}");
}

#[tokio::test]
async fn a_share_is_unmounted_when_idle_and_mounted_when_needed() {
    let fake = Fake::start().await;
    let mut options = fake.options();
    options["idle_unmount_secs"] = json!(1);
    options["keep_alive_secs"] = json!(1);
    let backend = open(options).await;
    let commands = backend.commands().expect("commands");
    let state = async || commands.run(&CX, "mounts", "{}").await.expect("shown").to_string();
    let volume = made(&backend, "v", MIB).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(state().await.contains("\"state\":\"mounted\""), "a volume is attached");
    volume.detach(&CX).await.expect("detached");
    drop(volume);
    for _ in 0..50 {
        if state().await.contains("\"state\":\"idle\"") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(state().await.contains("\"state\":\"idle\""), "{}", state().await);
    assert_eq!(backend.list(&CX).await.expect("mounted again").len(), 1);
}

#[tokio::test]
async fn several_shares_hold_volumes_of_one_backend() {
    let (one, two) = (Fake::start().await, Fake::start().await);
    let share = |name: &str, fake: &Fake| {
        let mut share = fake.options();
        share["name"] = json!(name);
        share
    };
    let backend = open(json!({ "shares": [share("one", &one), share("two", &two)] })).await;
    backend.create(&CX, VolumeSpec::new("a", MIB)).await.expect("on the first");
    backend
        .create(&CX, VolumeSpec::new("b", MIB).option("share", "two"))
        .await
        .expect("on the second");
    assert!(one.world().files.contains_key("a.raw") && two.world().files.contains_key("b.raw"));
    let shown = backend.show(&CX, "b").await.expect("found");
    assert!(
        shown.labels.iter().any(|label| label.0 == "file" && label.1 == "two:b.raw"),
        "{shown:?}"
    );
    let unknown = backend.create(&CX, VolumeSpec::new("c", MIB).option("share", "three")).await;
    assert_eq!(unknown.expect_err("no such share").kind(), ErrorKind::INVALID_ARGUMENT);
    two.world().put("a.raw", ftype3::NF3REG, b"x");
    let both = backend.show(&CX, "a").await.expect_err("ambiguous");
    assert!(format!("{both:#}").contains("two:a.raw"), "{both:#}");
}
