// SPDX-License-Identifier: Apache-2.0
//! Import, export and clone.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use driver_api::ErrorKind;
use novastor::{
    jobs::{ClonePlan, ExportPlan, ImageFormat, ImportPlan, JobState, JobView},
    volumes::{Access, NewVolume},
};

use super::{
    disks::{House, Storage, lock, start, state},
    life::{MIB, new},
};

pub fn import_plan(file: &Path, name: &str) -> ImportPlan {
    let volume = NewVolume { name: name.to_owned(), ..NewVolume::default() };
    ImportPlan { file: file.to_owned(), format: ImageFormat::Auto, volume }
}

fn export_plan(volume: &str, file: PathBuf, format: ImageFormat) -> ExportPlan {
    ExportPlan { volume: volume.to_owned(), file, format, force: false }
}

/// Data, zeros and a hole, not a multiple of any block.
fn picture() -> Vec<u8> {
    let mut bytes = vec![0; 5 * MIB as usize + 777];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let place = index as u64 / (64 << 10);
        if place.is_multiple_of(3) {
            *byte = (index % 251) as u8 + 1;
        }
    }
    bytes
}

async fn end(house: &House, job: JobView) -> JobView {
    house.jobs.wait(job.id, Duration::from_secs(60)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_come_back_byte_for_byte() {
    let ((state, room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let image = room.path().join("in.raw");
    std::fs::write(&image, picture()).unwrap();
    let job = house.transfers.import(import_plan(&image, "a")).await.unwrap();
    let job = end(&house, job).await;
    assert_eq!((job.record.state, job.done), (JobState::Done, job.total), "{job:?}");
    assert!(!storage.is_held("a"));

    for (format, name) in [(ImageFormat::Raw, "out.raw"), (ImageFormat::Qcow2, "out.qcow2")] {
        let file = room.path().join(name);
        let plan = export_plan("a", file.clone(), format);
        let job = house.transfers.export(plan.clone()).await.unwrap();
        assert_eq!(end(&house, job).await.record.state, JobState::Done);
        let copy = format!("copy-{name}");
        let job = house.transfers.import(import_plan(&file, &copy)).await.unwrap();
        let job = end(&house, job).await;
        assert_eq!(job.record.state, JobState::Done, "{job:?}");
        let bytes = lock(&storage.disk(&copy).unwrap().bytes).clone();
        assert_eq!(bytes[..picture().len()], picture()[..], "{name}");
        let refused = house.transfers.export(plan).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ALREADY_EXISTS);
    }
    assert_eq!(std::fs::read(room.path().join("out.raw")).unwrap(), picture());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_import_leaves_nothing() {
    let ((state, room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let image = room.path().join("in.raw");
    std::fs::write(&image, vec![1; 40 * MIB as usize]).unwrap();
    let permits = storage.slow_writes();
    let job = house.transfers.import(import_plan(&image, "a")).await.unwrap();
    assert_eq!(house.volumes.delete("a", false).await.unwrap_err().kind(), ErrorKind::IN_USE);
    house.jobs.cancel(job.id).await.unwrap();
    permits.add_permits(1000);
    assert_eq!(end(&house, job).await.record.state, JobState::Cancelled);
    assert!(!storage.has("a"));
    assert!(house.volumes.records().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_import_leaves_nothing_and_says_why() {
    let ((state, room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let image = room.path().join("in.raw");
    std::fs::write(&image, picture()).unwrap();
    storage.fail("write", ErrorKind::NO_SPACE);
    let job = house.transfers.import(import_plan(&image, "a")).await.unwrap();
    let job = end(&house, job).await;
    assert_eq!(job.record.error.unwrap().code, ErrorKind::NO_SPACE.code());
    assert!(!storage.has("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_others_write_is_not_exported() {
    let ((state, room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let used = house.volumes.acquire("a", Access::Write, "a writer").await.unwrap();
    let plan = export_plan("a", room.path().join("out"), ImageFormat::Raw);
    let error = house.transfers.export(plan).await.unwrap_err();
    assert!(error.message().contains("a writer"), "{error}");
    assert!(!room.path().join("out").exists());
    house.volumes.release(used).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_is_a_volume_of_its_own() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    lock(&storage.disk("a").unwrap().bytes)[9] = 9;
    let volume = NewVolume { name: "b".to_owned(), ..NewVolume::default() };
    let plan = ClonePlan { source: "a".to_owned(), snapshot: None, volume };
    let job = house.transfers.clone_volume(plan.clone()).await.unwrap();
    assert_eq!(end(&house, job).await.record.state, JobState::Done);
    assert_eq!(lock(&storage.disk("b").unwrap().bytes)[9], 9);
    house.volumes.delete("a", false).await.unwrap();
    house.volumes.delete("b", false).await.unwrap();

    house.volumes.create(new("a")).await.unwrap();
    storage.fail("clone", ErrorKind::NO_SPACE);
    let job = house.transfers.clone_volume(plan).await.unwrap();
    assert_eq!(end(&house, job).await.record.state, JobState::Failed);
    assert!(house.volumes.record("b").await.is_err());
}
