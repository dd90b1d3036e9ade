// SPDX-License-Identifier: Apache-2.0
//! The life of a volume where nothing crashes.

use driver_api::ErrorKind;
use novastor::{
    access::{Address, Peer},
    volumes::{Access, AttachState, Backends, NewExport, NewVolume, VolumeState, begin_life},
};

use super::disks::{OpenStorage, Storage, start, start_as, state};

pub const MIB: u64 = 1 << 20;

pub fn new(name: &str) -> NewVolume {
    NewVolume { name: name.to_owned(), size: MIB, ..NewVolume::default() }
}

fn export(volume: &str) -> NewExport {
    NewExport { volume: volume.to_owned(), ..NewExport::default() }
}

#[tokio::test]
async fn a_repeated_create_is_the_same_and_another_one_is_refused() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let first = house.volumes.create(new("a")).await.unwrap();
    let again = house.volumes.create(new("a")).await.unwrap();
    assert_eq!(first.record, again.record);
    let larger = NewVolume { size: 2 * MIB, ..new("a") };
    assert_eq!(house.volumes.create(larger).await.unwrap_err().kind(), ErrorKind::ALREADY_EXISTS);
    for name in ["../a", "", ".a"] {
        let error = house.volumes.create(new(name)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT, "{name}");
    }
}

#[tokio::test]
async fn a_refused_create_leaves_nothing_and_an_unknown_one_says_so() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    storage.fail("create", ErrorKind::NO_SPACE);
    assert_eq!(house.volumes.create(new("a")).await.unwrap_err().kind(), ErrorKind::NO_SPACE);
    assert!(house.volumes.records().await.unwrap().is_empty());

    storage.fail("create", ErrorKind::TIMED_OUT);
    let error = house.volumes.create(new("a")).await.unwrap_err();
    assert!(error.remedy_text().contains("unknown"), "{error:#}");
    let kept = house.volumes.record("a").await.unwrap();
    assert_eq!(kept.record.state, VolumeState::Creating);

    storage.heal();
    let made = house.volumes.create(new("a")).await.unwrap();
    assert_eq!(made.record.state, VolumeState::Available);
}

#[tokio::test]
async fn a_volume_in_use_is_not_deleted_and_its_users_are_named() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.export_add(export("a")).await.unwrap();
    let used = house.volumes.acquire("a", Access::Read, "a reader").await.unwrap();
    let error = house.volumes.delete("a", false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IN_USE);
    assert!(error.message().contains("export a, a reader"), "{error}");
    assert_eq!(error.remedy_text(), "novastor export remove a");

    house.volumes.release(used).await.unwrap();
    assert!(storage.is_held("a"), "the export still holds it");
    house.volumes.export_remove("a").await.unwrap();
    assert!(!storage.is_held("a"), "nobody holds it any more");
    house.volumes.delete("a", false).await.unwrap();
    assert!(!storage.has("a"));
}

#[tokio::test]
async fn attachments_are_shared_and_raise_the_epoch_once() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let one = house.volumes.acquire("a", Access::Write, "one").await.unwrap();
    let two = house.volumes.acquire("a", Access::Read, "two").await.unwrap();
    assert_eq!((one.epoch(), two.epoch()), (1, 1));
    house.volumes.release(one).await.unwrap();
    assert!(storage.is_held("a"));
    house.volumes.release(two).await.unwrap();
    assert!(!storage.is_held("a"));
    let reader = house.volumes.acquire("a", Access::Read, "reader").await.unwrap();
    assert_eq!(reader.epoch(), 2);
    let refused = house.volumes.acquire("a", Access::Write, "writer").await;
    assert_eq!(refused.err().expect("a reader has it").kind(), ErrorKind::IN_USE);
    house.volumes.release(reader).await.unwrap();
}

#[tokio::test]
async fn a_volume_that_could_not_be_detached_stays_ours() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.attach("a", false, false).await.unwrap();
    storage.fail("detach", ErrorKind::UNAVAILABLE);
    assert!(house.volumes.detach("a").await.is_err());
    let stored = house.volumes.record("a").await.unwrap();
    assert_eq!(stored.record.attach, AttachState::Detaching);
    storage.heal();
    let stored = house.volumes.detach("a").await.unwrap();
    assert_eq!(stored.record.attach, AttachState::Detached);
    assert!(!storage.is_held("a"));
}

#[tokio::test]
async fn shrinking_needs_its_flag() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    house.volumes.create(new("a")).await.unwrap();
    let grown = house.volumes.resize("a", 2 * MIB, false).await.unwrap();
    assert_eq!(grown.record.size, 2 * MIB);
    let error = house.volumes.resize("a", MIB, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
    assert!(error.remedy_text().contains("--shrink"));
    assert_eq!(house.volumes.resize("a", MIB, true).await.unwrap().record.size, MIB);
    assert!(!storage.is_held("a"), "it was attached for the resize alone");
}

#[tokio::test]
async fn what_a_backend_has_already_is_adopted_and_never_created_over() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    storage.put("old", vec![7; MIB as usize]);
    let error = house.volumes.create(new("old")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS);
    assert!(error.remedy_text().contains("adopt"), "{error:#}");
    assert_eq!(house.volumes.unmanaged().await.unwrap().len(), 1);
    house.volumes.adopt(None, "old", "mine").await.unwrap();
    assert!(house.volumes.unmanaged().await.unwrap().is_empty());
    let used = house.volumes.acquire("mine", Access::Read, "test").await.unwrap();
    let data = used.volume().read(&driver_api::OpContext::new(), 0, 4).await.unwrap();
    assert_eq!(&data[..], &[7; 4]);
    house.volumes.release(used).await.unwrap();
}

#[tokio::test]
async fn a_backend_that_does_not_open_is_unavailable_until_it_does() {
    let ((state, _room), storage) = (state(), Storage::default());
    storage.fail("open", ErrorKind::UNAVAILABLE);
    let house = start(&state, &storage).await;
    let error = house.volumes.create(new("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UNAVAILABLE);
    assert!(error.remedy_text().contains("novastor backend open mem"), "{error:#}");
    storage.heal();
    house.volumes.open_backend("mem").await.unwrap();
    house.volumes.create(new("a")).await.unwrap();
}

#[tokio::test]
async fn an_export_with_rules_is_for_whom_they_name_and_one_is_the_default() {
    let ((state, _room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let volumes = &house.volumes;
    for name in ["a", "b", "c"] {
        volumes.create(new(name)).await.unwrap();
    }
    assert_eq!(volumes.default_export().await.unwrap_err().kind(), ErrorKind::NOT_FOUND);
    let ruled = NewExport { allow: vec!["uid:7".parse().unwrap()], ..export("a") };
    volumes.export_add(ruled.clone()).await.unwrap();
    volumes.export_add(ruled.clone()).await.unwrap();
    let error = volumes.export_add(export("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS, "other rules are another wish");
    assert_eq!(volumes.default_export().await.unwrap(), "a", "the only one");
    let user = |uid| Peer { address: Address::Unix { uid: Some(uid) }, certificate: None };
    let error = volumes.export_open("a", &user(8)).await.err().expect("not for 8");
    assert_eq!(error.kind(), ErrorKind::PERMISSION_DENIED);
    assert!(!error.to_string().contains("uid:7"), "rules are not the client's business: {error}");
    drop(volumes.export_open("a", &user(7)).await.unwrap());

    let chosen = NewExport { default: true, ..export("b") };
    volumes.export_add(chosen.clone()).await.unwrap();
    volumes.export_add(chosen).await.unwrap();
    assert_eq!(volumes.default_export().await.unwrap(), "b");
    let second = NewExport { default: true, ..export("c") };
    let error = volumes.export_add(second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS);
    assert!(error.message().contains("`b` is the default"), "{error}");
    volumes.export_add(export("c")).await.unwrap();
    volumes.export_remove("b").await.unwrap();
    assert_eq!(volumes.default_export().await.unwrap_err().kind(), ErrorKind::NOT_FOUND);
}

#[tokio::test]
async fn backends_are_closed_before_those_that_they_may_be_built_on() {
    let storage = Storage::default();
    let drivers = ["base", "over", "top"].map(|name| (name.to_owned(), "test".to_owned()));
    let backends = Backends::new(None, drivers.into(), OpenStorage(storage.clone()));
    for name in ["top", "base", "over"] {
        backends.open(name).await.unwrap();
    }
    backends.open("top").await.unwrap();
    backends.close_all().await;
    assert_eq!(storage.closed(), ["over", "base", "top"]);
}

#[tokio::test]
async fn a_host_takes_its_volumes_back_from_its_own_earlier_life_and_from_nobody_else() {
    let ((state, _room), storage) = (state(), Storage::default());
    let ((elsewhere, _other_room), who) = (self::state(), "novastor on a, process 1");
    let first = begin_life(&state, who).await.unwrap();
    let other = begin_life(&elsewhere, who).await.unwrap();
    let house = start_as(&state, &storage, &first).await;
    house.volumes.create(new("a")).await.unwrap();
    house.volumes.attach("a", false, false).await.unwrap();
    let epoch = house.volumes.record("a").await.unwrap().record.epoch;
    drop(house);

    // It died; the backend has not noticed.
    for holders in [vec![other.as_str()], vec![first.as_str(), other.as_str()]] {
        storage.hold_for("a", &holders);
        let owner = begin_life(&state, who).await.unwrap();
        let house = start_as(&state, &storage, &owner).await;
        assert!(!storage.is_held("a"), "taken from another host");
        let error = house.volumes.attach("a", false, false).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::IN_USE, "{error:#}");
        assert!(error.remedy_text().contains("--take-over"), "{error:#}");
        let note = house.volumes.record("a").await.unwrap().record.note.unwrap_or_default();
        assert!(note.contains("not attached again"), "{note}");
    }
    storage.hold_for("a", &[&first]);
    let owner = begin_life(&state, who).await.unwrap();
    let house = start_as(&state, &storage, &owner).await;
    assert!(storage.is_held("a"), "it is there again when the host has begun");
    assert!(house.volumes.record("a").await.unwrap().record.epoch > epoch);
}
