// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::config::{Format, Preallocation};

fn volume(root: &Path) -> VolumeDir {
    let dir = VolumeDir::new(root, "v").expect("a name");
    fs::create_dir_all(dir.holders()).expect("made");
    fs::create_dir_all(dir.snapshots()).expect("made");
    fs::write(dir.disk(Format::Raw), [1; 4096]).expect("written");
    let record = VolumeRecord {
        name: "v".into(),
        format: Format::Raw,
        preallocation: Preallocation::Off,
        origin: String::new(),
        method: String::new(),
        epoch: 0,
        incarnation: 1,
        clean: true,
    };
    metadata::write(&dir.record(), &record).expect("written");
    dir
}

fn wish(epoch: u64, force: bool, patience: Duration) -> Wish<'static> {
    Wish {
        mode: AttachMode::EXCLUSIVE,
        force,
        epoch: Some(epoch),
        owner: "test",
        deadline: Instant::now() + patience,
    }
}

#[test]
fn a_mutation_that_never_ends_stays_with_the_old_file() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    let old = acquire(&dir, &wish(1, false, PATIENCE)).expect("free").slot;
    let old_file = client::open(&dir.disk(Format::Raw), true, false).expect("opened");
    let stuck = old.enter().expect("not fenced yet");
    let new = acquire(&dir, &wish(2, true, PATIENCE)).expect("moved");
    assert_eq!((new.record.epoch, new.record.incarnation, new.was_clean), (2, 2, false));
    old_file.write_all_at(&[9; 4096], 0).expect("the system call that was on its way");
    drop(stuck);
    assert_eq!(fs::read(dir.disk(Format::Raw)).expect("read"), [1; 4096]);
    assert!(old.enter().is_err(), "the old holder goes on");
    new.slot.enter().expect("the new holder may write");
}

#[test]
fn a_drained_holder_keeps_the_file_where_it_is() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    let old = acquire(&dir, &wish(1, false, PATIENCE)).expect("free").slot;
    drop(old.enter().expect("not fenced yet"));
    let before = fs::metadata(dir.disk(Format::Raw)).expect("there").ino();
    let _new = acquire(&dir, &wish(2, true, PATIENCE)).expect("taken over");
    assert_eq!(fs::metadata(dir.disk(Format::Raw)).expect("there").ino(), before);
    assert!(old.enter().is_err());
}

#[test]
fn a_take_over_that_cannot_be_finished_leaves_the_volume_free() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    let old = acquire(&dir, &wish(1, false, PATIENCE)).expect("free").slot;
    let stuck = old.enter().expect("not fenced yet");
    let error = acquire(&dir, &wish(2, true, Duration::ZERO)).err().expect("no time");
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT);
    assert!(error.remedy_text().contains(&std::process::id().to_string()), "{error:#}");
    assert!(!dir.next_disk(Format::Raw).exists());
    assert!(old.enter().is_err(), "it was revoked");
    drop(stuck);
    acquire(&dir, &wish(2, false, PATIENCE)).expect("free without force");
}

#[test]
fn only_a_smaller_epoch_is_fenced() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    for (epoch, expected) in [(5, None), (4, Some(ErrorKind::FENCED)), (5, None), (6, None)] {
        let acquired = acquire(&dir, &wish(epoch, false, PATIENCE));
        assert_eq!(acquired.as_ref().err().map(Error::kind), expected, "epoch {epoch}");
        if let Ok(acquired) = acquired {
            release(&dir, &acquired.slot, true).expect("released");
        }
    }
    let record: VolumeRecord = metadata::read(&dir.record()).expect("read");
    assert_eq!((record.epoch, record.incarnation, record.clean), (6, 1, true));
}

#[test]
fn what_a_crash_left_half_made_goes_with_the_next_writer() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    fs::write(dir.next_disk(Format::Raw), "half").expect("written");
    fs::write(dir.next_snapshot("s"), "half").expect("written");
    fs::write(dir.snapshot_disk("no.record", Format::Raw), "whole").expect("written");
    fs::write(dir.snapshot_disk("with.record", Format::Raw), "whole").expect("written");
    fs::write(dir.snapshot_record("with.record"), "record").expect("written");
    acquire(&dir, &wish(1, false, PATIENCE)).expect("free");
    assert!(!dir.next_disk(Format::Raw).exists() && !dir.next_snapshot("s").exists());
    assert!(!dir.snapshot_disk("no.record", Format::Raw).exists());
    assert!(dir.snapshot_disk("with.record", Format::Raw).exists());
    assert!(dir.snapshot_record("with.record").exists());
}

#[test]
fn whoever_waits_at_the_door_learns_who_is_behind_it() {
    let root = tempfile::tempdir().expect("a directory");
    let dir = volume(root.path());
    fs::write(dir.door(), "4194303999999999").expect("what an earlier one left");
    let door = Door::open(&dir, Instant::now() + PATIENCE).expect("free");
    let error = Door::open(&dir, Instant::now()).err().expect("taken");
    let pid = std::process::id();
    assert_eq!(error.kind(), ErrorKind::TIMED_OUT);
    assert!(error.message().contains(&format!("process {pid} ")), "{error:#}");
    assert!(error.remedy_text().contains(&format!("kill -CONT {pid}")), "{error:#}");
    fs::write(dir.door(), "").expect("unsigned");
    let error = Door::open(&dir, Instant::now()).err().expect("taken");
    assert!(error.remedy_text().contains("fuser"), "{error:#}");
    drop(door);
}
