// SPDX-License-Identifier: Apache-2.0
//! Volumes that get another name, also by a host that dies, and what names them.

use std::time::Duration;

use driver_api::{
    Abilities, Attach, AttachMode, ErrorKind, IoBuf, OpContext, VolumeSpec, WriteFlags,
    ext::{AllocationMap, Clones, Snapshots},
};
use novastor::{
    jobs::JobState,
    plugins::lend,
    volumes::{Access, NewExport, VolumeState},
};

use super::{
    crash::at_every_commit,
    disks::{House, Storage, lock, start, state},
    life::{MIB, new},
};

async fn one_volume(house: House) {
    house.volumes.create(new("a")).await.unwrap();
}

async fn rename(house: House) {
    house.volumes.rename("a", "b").await.unwrap();
}

/// Exactly one of the names is there, and leads to the disk.
async fn is_under_one_name(house: &House, storage: &Storage) -> String {
    let records = house.volumes.records().await.unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    let stored = &records[0];
    assert_eq!(storage.names(), [stored.record.inner_name.as_str()]);
    assert_eq!(stored.record.renaming, None);
    assert_eq!(stored.record.state, VolumeState::Available);
    let resized = house.volumes.resize(&stored.name, 2 * MIB, false).await;
    resized.unwrap_or_else(|error| panic!("it cannot be used: {error:#}"));
    assert!(house.volumes.unmanaged().await.unwrap().is_empty());
    stored.name.clone()
}

#[tokio::test]
async fn a_volume_is_found_under_one_name_whenever_its_host_dies() {
    at_every_commit(one_volume, rename, |house, storage, ended| async move {
        let name = is_under_one_name(&house, &storage).await;
        let inner = house.volumes.record(&name).await.unwrap().record.inner_name;
        assert_eq!(name, inner, "the backend has the same name");
        assert!(!ended || name == "b");
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_cannot_rename_keeps_its_name_for_the_volume() {
    let ((state, _room), storage) = (state(), Storage::default());
    storage.lack(Abilities::RENAME);
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let stored = house.volumes.rename("a", "b").await.unwrap();
    assert_eq!((stored.name.as_str(), stored.record.inner_name.as_str()), ("b", "a"));
    assert_eq!(is_under_one_name(&house, &storage).await, "b");
    let error = house.volumes.create(new("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS);
    assert!(error.message().contains("volume `b` of this host"), "{error:#}");
    house.volumes.rename("b", "a").await.unwrap();
    house.volumes.delete("a", false).await.unwrap();
    assert!(storage.names().is_empty());
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_before_anything_else_is_done() {
    for fault in ["rename", "rename answer"] {
        let ((state, _room), storage) = (state(), Storage::default());
        let house = start(&state, &storage).await;
        house.volumes.create(new("a")).await.unwrap();
        storage.fail(fault, ErrorKind::TIMED_OUT);
        let error = house.volumes.rename("a", "b").await.unwrap_err();
        assert!(error.remedy_text().contains("novastor volume rename a b"), "{error:#}");
        for refused in [
            house.volumes.delete("a", true).await.unwrap_err(),
            house.volumes.attach("a", false, false).await.map(|_| ()).unwrap_err(),
            house.volumes.rename("a", "c").await.map(|_| ()).unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::IN_USE, "{refused:#}");
            assert!(refused.remedy_text().contains("volume rename a b"), "{refused:#}");
        }
        assert!(house.volumes.unmanaged().await.unwrap().is_empty());
        storage.heal();
        house.volumes.rename("a", "b").await.unwrap();
        assert_eq!(is_under_one_name(&house, &storage).await, "b", "{fault}");
    }
}

#[tokio::test]
async fn a_host_that_restarts_settles_it() {
    for (fault, name) in [("rename", "b"), ("rename answer", "b")] {
        let ((state, _room), storage) = (state(), Storage::default());
        let house = start(&state, &storage).await;
        house.volumes.create(new("a")).await.unwrap();
        storage.fail(fault, ErrorKind::UNAVAILABLE);
        house.volumes.rename("a", "b").await.unwrap_err();
        storage.heal();
        let house = start(&state, &storage).await;
        assert_eq!(is_under_one_name(&house, &storage).await, name, "{fault}");
    }
}

#[tokio::test]
async fn what_names_the_volume_keeps_it_from_being_renamed() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.create(new("taken")).await.unwrap();
    storage.put("stray", vec![0; 512]);
    for (to, kind) in [
        ("a", ErrorKind::INVALID_ARGUMENT),
        ("../b", ErrorKind::INVALID_ARGUMENT),
        ("taken", ErrorKind::ALREADY_EXISTS),
        ("stray", ErrorKind::ALREADY_EXISTS),
    ] {
        let error = house.volumes.rename("a", to).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{to}: {error:#}");
    }
    let refusal = async |what: &str| {
        let error = house.volumes.rename("a", "b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}");
        assert!(error.remedy_text().contains(what), "{error:#}");
    };
    let new_export = NewExport { volume: "a".to_owned(), ..NewExport::default() };
    house.volumes.export_add(new_export).await.unwrap();
    refusal("novastor export remove a").await;
    house.volumes.export_remove("a").await.unwrap();
    house.volumes.attach("a", false, false).await.unwrap();
    refusal("novastor volume detach a").await;
    house.volumes.detach("a").await.unwrap();
    let used = house.volumes.acquire("a", Access::Read, "job 7").await.unwrap();
    refusal("novastor job list").await;
    house.volumes.release(used).await.unwrap();
    let missing = house.volumes.rename("none", "b").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NOT_FOUND);
    house.volumes.rename("a", "b").await.unwrap();
    assert_eq!(storage.names(), ["b", "stray", "taken"]);
}

#[tokio::test]
async fn what_is_lent_keeps_its_name_and_is_flattened_by_whose_it_is() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let backend = house.volumes.backends().get("mem").unwrap().handle().clone();
    let lent = lend(backend, "mem", house.volumes.tenure("mem", "borrower"));
    let (cx, able) = (OpContext::new(), lent.capabilities().unwrap());
    assert!(able.has(Abilities::FLATTEN | Abilities::CHANGES | Abilities::PROTECT));
    assert!(!able.has(Abilities::RENAME));
    lent.create(&cx, VolumeSpec::new("brick", MIB)).await.unwrap();
    let refused = lent.rename(&cx, "brick", "other").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED, "{refused:#}");
    assert_eq!(storage.names(), ["a", "brick"]);
    let clones = lent.clones().unwrap().expect("clones");
    clones.flatten(&cx, "brick", true).await.expect("its own");
    assert!(clones.flattening(&cx, "brick").await.unwrap().needs.is_empty());
    let refused = clones.flatten(&cx, "a", true).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED);
    assert!(refused.message().contains("volume `a` of this host"), "{refused:#}");

    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "a borrower");
    let brick = lent.attach(&cx, "brick", attach).await.unwrap();
    let snapshots = brick.snapshots().unwrap().expect("snapshots");
    snapshots.create(&cx, "s").await.unwrap();
    assert!(snapshots.protect(&cx, "s", true).await.unwrap().is_protected());
    assert!(snapshots.list(&cx).await.unwrap()[0].is_protected());
    brick.write(&cx, 4096, IoBuf::copy_from(&[1; 512]), WriteFlags::NONE).await.unwrap();
    let map = brick.allocation_map().unwrap().expect("a map");
    let told = map.changes(&cx, "s", "", 0, MIB, 10).await.unwrap();
    assert_eq!((told.len(), told[0].offset), (1, 4096));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_can_go_on_goes_on_with_the_volume_and_not_with_another_of_the_old_name() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    lock(&storage.disk("a").unwrap().flattening).needs = "source".into();
    storage.fail("copy", ErrorKind::TIMED_OUT);
    let job = house.replicas.flatten("a").await.unwrap();
    house.jobs.cancel(job.id).await.unwrap();
    let ended = house.jobs.wait(job.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.record.state, JobState::Cancelled);
    storage.heal();
    house.volumes.rename("a", "b").await.unwrap();
    house.volumes.create(new("a")).await.unwrap();
    let job = house.replicas.resume(job.id).await.unwrap();
    assert_eq!((job.record.target.as_str(), job.record.detail.as_str()), ("b", "the content of b"));
    let ended = house.jobs.wait(job.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(ended.record.state, JobState::Done, "{ended:?}");
    assert!(lock(&storage.disk("b").unwrap().flattening).needs.is_empty());
}
