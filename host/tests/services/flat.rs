// SPDX-License-Identifier: Apache-2.0
//! Clones that are flattened, and snapshots that are protected and compared.

use std::time::Duration;

use driver_api::{Abilities, ErrorKind, ext::ExtentFlags};
use novastor::{
    jobs::{ClonePlan, JobState, JobView},
    volumes::{Between, NewVolume},
};

use super::{
    disks::{House, Storage, lock, start, state},
    life::{MIB, new},
};

async fn end(house: &House, job: JobView) -> JobView {
    house.jobs.wait(job.id, Duration::from_secs(60)).await.unwrap()
}

/// A house with a volume `a` and its clone `b`.
async fn cloned(house: &House) {
    house.volumes.create(new("a")).await.unwrap();
    let volume = NewVolume { name: "b".to_owned(), ..NewVolume::default() };
    let plan = ClonePlan { source: "a".to_owned(), snapshot: None, volume };
    let job = house.transfers.clone_volume(plan).await.unwrap();
    assert_eq!(end(house, job).await.record.state, JobState::Done);
}

fn needs(storage: &Storage) -> String {
    lock(&storage.disk("b").unwrap().flattening).needs.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_is_flattened_attached_or_not_and_a_flat_one_is_flat_at_once() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    cloned(&house).await;
    assert_eq!(needs(&storage), "a");
    let job = house.replicas.flatten("b").await.unwrap();
    let job = end(&house, job).await;
    assert_eq!((job.record.state, job.done, job.total), (JobState::Done, MIB, MIB), "{job:?}");
    assert_eq!(needs(&storage), "");
    assert!(!storage.is_held("b"));
    lock(&storage.disk("b").unwrap().flattening).needs = "a".into();
    house.volumes.attach("b", false, false).await.unwrap();
    let job = house.replicas.flatten("b").await.unwrap();
    assert_eq!(end(&house, job).await.record.state, JobState::Done);
    assert!(storage.is_held("b"), "the operator's hold stays");
    let job = house.replicas.flatten("b").await.unwrap();
    assert_eq!(end(&house, job).await.record.state, JobState::Done);
    let refused = house.replicas.resume(1).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED, "a clone is not resumed: {refused:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cut_off_says_why_and_goes_on() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    cloned(&house).await;
    storage.fail("copy", ErrorKind::NO_SPACE);
    let job = house.replicas.flatten("b").await.unwrap();
    let failed = end(&house, job).await;
    let error = failed.record.error.expect("why");
    assert!(error.message.contains("copy was told to fail"), "{error:?}");
    assert!(error.remedy.contains("novastor volume flatten b"), "{error:?}");
    storage.fail("copy", ErrorKind::TIMED_OUT);
    let job = house.replicas.resume(failed.id).await.unwrap();
    house.jobs.cancel(job.id).await.unwrap();
    assert_eq!(end(&house, job).await.record.state, JobState::Cancelled);
    assert!(!storage.is_held("b"));
    let job = house.replicas.resume(failed.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    // The host dies meanwhile.
    let later = start(&state, &storage).await;
    let found = later.jobs.show(job.id).await.unwrap();
    assert_eq!(found.record.state, JobState::Interrupted);
    assert_eq!(needs(&storage), "a");
    storage.heal();
    let job = later.replicas.resume(job.id).await.unwrap();
    assert_eq!(end(&later, job).await.record.state, JobState::Done);
    assert_eq!(needs(&storage), "");
}

#[tokio::test]
async fn a_backend_that_lacks_it_says_so_before_a_job_begins() {
    let ((state, _room), storage) = (state(), Storage::default());
    storage.lack(Abilities::FLATTEN | Abilities::PROTECT | Abilities::CHANGES);
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.snapshot_create("a", "s").await.unwrap();
    let error = house.replicas.flatten("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UNSUPPORTED);
    assert!(error.message().contains("`flatten`"), "{error:#}");
    assert!(house.jobs.list().await.unwrap().is_empty());
    let error = house.volumes.snapshot_protect("a", "s", true).await.unwrap_err();
    assert!(error.message().contains("`protect`"), "{error:#}");
    let error = house.volumes.changes("a", &Between::default(), 0, None).await.unwrap_err();
    assert!(error.message().contains("`changes`"), "{error:#}");
    assert!(!storage.is_held("a"));
}

#[tokio::test]
async fn a_protected_snapshot_is_kept_and_shown() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.snapshot_create("a", "s").await.unwrap();
    assert!(house.volumes.snapshot_protect("a", "s", true).await.unwrap().is_protected());
    assert!(house.volumes.snapshot_list("a").await.unwrap()[0].is_protected());
    let refused = house.volumes.snapshot_delete("a", "s").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::IN_USE);
    assert_eq!(refused.remedy_text(), "if it may go: novastor snapshot protect a s --undo");
    house.volumes.snapshot_protect("a", "s", false).await.unwrap();
    house.volumes.snapshot_delete("a", "s").await.unwrap();
    assert!(!storage.is_held("a"));
}

#[tokio::test]
async fn what_changed_is_told_in_parts() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(NewVolume { size: 100 * MIB, ..new("a") }).await.unwrap();
    let disk = storage.disk("a").unwrap();
    house.volumes.snapshot_create("a", "empty").await.unwrap();
    // More than one answer has, none beside another.
    for at in (0..100 * MIB as usize).step_by(8192) {
        lock(&disk.bytes)[at] = 1;
    }
    house.volumes.snapshot_create("a", "full").await.unwrap();
    lock(&disk.bytes)[0] = 0;
    let between = |from: &str, to: &str| Between { from: from.to_owned(), to: to.to_owned() };
    let (mut at, mut all, mut answers) = (Some(0), Vec::new(), 0);
    while let Some(offset) = at {
        let told = house.volumes.changes("a", &between("empty", "full"), offset, None).await;
        let told = told.unwrap();
        assert_eq!(told.size, 100 * MIB);
        all.extend(told.extents);
        at = told.next;
        answers += 1;
    }
    assert_eq!((all.len(), answers), (12_800, 2));
    assert!(all.iter().zip(0..).all(|(one, n)| one.offset == n * 8192 && one.len == 4096));
    let told = house.volumes.changes("a", &between("full", ""), 0, None).await.unwrap();
    assert_eq!(told.extents.len(), 1);
    assert!(told.extents[0].flags.has(ExtentFlags::ZERO) && told.next.is_none());
    let told = house.volumes.changes("a", &between("", "full"), 8192, Some(8192)).await.unwrap();
    assert_eq!(told.extents.len(), 1);
    for (from, to, offset, kind) in [
        ("none", "", 0, ErrorKind::NOT_FOUND),
        ("", "none", 0, ErrorKind::NOT_FOUND),
        ("full", "", 101 * MIB, ErrorKind::OUT_OF_RANGE),
    ] {
        let asked = house.volumes.changes("a", &between(from, to), offset, Some(1)).await;
        let error = asked.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:#}");
        assert!(!error.remedy_text().is_empty());
    }
    assert!(!storage.is_held("a"));
}
