// SPDX-License-Identifier: Apache-2.0
//! The host dies at every commit of every operation, before it and after it.

use std::future::Future;

use driver_api::StateHandle;
use novastor::access::{Address, Peer};
use novastor::volumes::{AttachState, NewExport, VolumeState};

use super::{
    disks::{House, Mortal, Storage, start, state},
    life::{MIB, new},
};

fn local() -> Peer {
    Peer { address: Address::Unix { uid: Some(0) }, certificate: None }
}

fn export(volume: &str) -> NewExport {
    NewExport { volume: volume.to_owned(), ..NewExport::default() }
}

/// Runs `prepare` in a whole life, `operate` in one that ends at each possible commit, and `look` in the next.
pub async fn at_every_commit<P, O, L>(
    prepare: impl Fn(House) -> P,
    operate: impl Fn(House) -> O,
    look: impl Fn(House, Storage, bool) -> L,
) where
    P: Future<Output = ()>,
    O: Future<Output = ()>,
    L: Future<Output = ()>,
{
    for before in [true, false] {
        let mut deaths = 0;
        for commits in 0.. {
            assert!(commits < 50, "the operation never ends");
            let ((state, _room), storage) = (state(), Storage::default());
            prepare(start(&state, &storage).await).await;
            let (mortal, death) = Mortal::dying(&state, commits, before);
            let living = async { operate(start(&mortal, &storage).await).await };
            let ended = tokio::select! {
                () = living => true,
                () = death.notified() => false,
            };
            look(start(&state, &storage).await, storage, ended).await;
            if ended {
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 0, "the operation commits nothing");
    }
}

async fn nothing(_house: House) {}

async fn one_volume(house: House) {
    house.volumes.create(new("a")).await.unwrap();
}

#[tokio::test]
async fn a_create_is_whole_or_gone() {
    let create = |house: House| async move {
        house.volumes.create(new("a")).await.unwrap();
    };
    at_every_commit(nothing, create, |house, storage, ended| async move {
        let record = house.volumes.record("a").await.ok();
        assert_eq!(record.is_some(), storage.has("a"));
        assert!(record.is_some() || !ended);
        assert!(record.is_none_or(|stored| stored.record.state == VolumeState::Available));
        house.volumes.create(new("a")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_delete_is_done_or_not_begun() {
    let delete = |house: House| async move { house.volumes.delete("a", false).await.unwrap() };
    at_every_commit(one_volume, delete, |house, storage, ended| async move {
        let record = house.volumes.record("a").await.ok();
        assert_eq!(record.is_some(), storage.has("a"));
        assert!(record.is_none() || !ended);
        house.volumes.create(new("a")).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_resize_is_never_misreported() {
    let resize = |house: House| async move {
        house.volumes.resize("a", 2 * MIB, false).await.unwrap();
    };
    at_every_commit(one_volume, resize, |house, storage, ended| async move {
        let stored = house.volumes.record("a").await.unwrap();
        let disk = storage.disk("a").unwrap();
        let size = super::disks::lock(&disk.bytes).len() as u64;
        assert_eq!(stored.record.size, size);
        assert_eq!(stored.record.attach, AttachState::Detached);
        assert!(!ended || size == 2 * MIB);
        assert!(stored.record.pending.is_none());
        house.volumes.resize("a", 3 * MIB, false).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_export_comes_back_or_was_never_there() {
    let add = |house: House| async move {
        house.volumes.export_add(export("a")).await.unwrap();
    };
    at_every_commit(one_volume, add, |house, storage, ended| async move {
        let exported = house.volumes.export("a").await.is_ok();
        assert!(exported || !ended);
        assert_eq!(storage.is_held("a"), exported);
        let again = house.volumes.export_add(export("a")).await;
        again.unwrap();
        assert!(storage.is_held("a"));
        house.volumes.export_open("a", &local()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_epoch_is_never_used_twice() {
    let attach = |house: House| async move {
        let used = house.volumes.attach("a", false, false).await.unwrap();
        assert!(used.record.epoch > 0);
        house.volumes.detach("a").await.unwrap();
    };
    at_every_commit(one_volume, attach, |house, _storage, ended| async move {
        let before = house.volumes.record("a").await.unwrap().record.epoch;
        let after = house.volumes.attach("a", false, false).await.unwrap().record.epoch;
        let held = house.volumes.record("a").await.unwrap().record.holds.len();
        assert!(after > before || (after == before && !ended && held == 1), "{before} {after}");
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_import_leaves_nothing() {
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("image");
    std::fs::write(&file, vec![5; MIB as usize]).unwrap();
    let import = |house: House| {
        let plan = super::jobs::import_plan(&file, "a");
        async move {
            let job = house.transfers.import(plan).await.unwrap();
            let job = house.jobs.wait(job.id, std::time::Duration::from_secs(60)).await.unwrap();
            assert_eq!(job.record.state, novastor::jobs::JobState::Done);
        }
    };
    at_every_commit(nothing, import, |house, storage, ended| async move {
        // Tasks of the life that ended do not go on after the death of a process; here they wait for ever.
        let record = house.volumes.record("a").await.ok();
        assert_eq!(record.is_some(), storage.has("a"));
        assert!(record.is_some() || !ended);
        assert!(record.is_none_or(|stored| stored.record.state == VolumeState::Available));
        let running = house.jobs.list().await.unwrap().into_iter();
        assert_eq!(running.filter(|job| job.record.state.name() == "running").count(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_record_of_a_newer_format_is_refused() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let key = "volumes/a";
    let entry = state.get(key).await.unwrap().into_option().unwrap();
    let text = String::from_utf8(entry.value.to_vec()).unwrap();
    let newer = text.replace("\"incompatible\":0", "\"incompatible\":2");
    assert_ne!(text, newer);
    put(&state, key, newer.as_bytes()).await;
    let error = house.volumes.record("a").await.unwrap_err();
    assert!(error.message().contains("newer novastor"), "{error}");
    let kept = text.replace("\"backend\":", "\"of_tomorrow\":7,\"backend\":");
    put(&state, key, kept.as_bytes()).await;
    house.volumes.resize("a", 2 * MIB, false).await.unwrap();
    let entry = state.get(key).await.unwrap().into_option().unwrap();
    assert!(String::from_utf8_lossy(&entry.value).contains("of_tomorrow"));
}

async fn put(state: &StateHandle, key: &str, value: &[u8]) {
    let transaction = driver_api::state::Transaction::new().put(key, value);
    assert!(state.commit(transaction).await.unwrap().succeeded);
}
