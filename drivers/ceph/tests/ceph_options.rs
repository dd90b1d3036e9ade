// SPDX-License-Identifier: Apache-2.0
//! The options of backends and volumes, against a real cluster, which `NOVASTOR_CEPH=DIR` names.
#![allow(missing_docs)]
#![cfg(librbd)]

mod support;

use std::fs;

use ceph::CephBackend;
use driver_api::{Backend, ErrorKind, Volume, VolumeSpec, WriteFlags};
use serde_json::{Value, json};
use support::{CX, MIB, admin, attach, bytes, config, dir, made, open, rbd, remove, service_of};

/// A setting of the cluster's configuration file.
fn setting(dir: &std::path::Path, name: &str) -> String {
    let conf = fs::read_to_string(dir.join("ceph.conf")).expect("a configuration");
    let line = conf.lines().find_map(|line| line.strip_prefix(&format!("{name} = ")));
    line.expect("the setting").to_owned()
}

/// Makes a pool whose data is spread by an erasure code, and a user who may use both pools.
fn pool_with_a_code(name: &str) {
    let profile = ["k=2", "m=1", "crush-failure-domain=osd"];
    let begin = ["osd", "erasure-code-profile", "set", "two-and-one", "--force"];
    admin(&[&begin[..], &profile].concat());
    admin(&["osd", "pool", "create", name, "8", "8", "erasure", "two-and-one"]);
    admin(&["osd", "pool", "application", "enable", name, "rbd"]);
    let osd = format!("profile rbd pool=volumes, profile rbd pool={name}");
    let caps = ["mon", "profile rbd", "osd", &osd, "mgr", "profile rbd pool=volumes"];
    let keyring = dir().join("wide.keyring");
    let begin = ["auth", "get-or-create", "client.wide"];
    fs::write(keyring, admin(&[&begin[..], &caps].concat())).expect("a keyring");
}

async fn refused(backend: &CephBackend, spec: VolumeSpec, kind: ErrorKind, words: &str) {
    let name = spec.name.to_string();
    let error = backend.create(&CX, spec).await.expect_err("refused");
    let text = format!("{error:#}");
    println!("{text}: {}", error.remedy_text());
    assert_eq!(error.kind(), kind, "{text}");
    assert!(!error.remedy_text().is_empty(), "{text}");
    let told = format!("{text} {}", error.remedy_text());
    assert!(told.contains(words), "{told}");
    let left = rbd(&["ls", "volumes"]);
    assert!(!left.as_array().expect("names").contains(&json!(name)), "{name} is there");
}

fn image(name: &str) -> Value {
    rbd(&["info", &format!("volumes/{name}")])
}

/// Writes over the borders of objects and stripes, discards, and finds all of it again.
async fn serves(backend: &CephBackend, name: &str) {
    let volume = attach(backend, name, 1).await;
    for at in [0, 60 << 10, 4 * MIB - 2048, 9 * MIB + 512] {
        let data = bytes((at / 512) as u8 | 1, 128 << 10);
        volume.write(&CX, at, data.clone(), WriteFlags::FUA).await.expect("written");
        assert_eq!(volume.read(&CX, at, 128 << 10).await.expect("read")[..], data[..], "{at}");
    }
    volume.flush(&CX).await.expect("flushed");
    volume.discard(&CX, 512, 3 * MIB).await.expect("discarded");
    let read = volume.read(&CX, 0, 64 << 10).await.expect("read");
    assert!(read[..512].iter().all(|byte| *byte == 1) && read[512..].iter().all(|byte| *byte == 0));
    volume.detach(&CX).await.expect("detached");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn images_are_laid_out_as_the_options_say() {
    pool_with_a_code("coded");
    let wide = json!({ "user": "wide", "keyring": dir().join("wide.keyring") });
    let backend = open(wide.clone()).await;
    let coded = || VolumeSpec::new("coded", 16 * MIB).option("data_pool", "coded");
    remove(&backend, "coded").await;
    let refusal = "allow_ec_overwrites true";
    refused(&backend, coded(), ErrorKind::INVALID_ARGUMENT, refusal).await;
    admin(&["osd", "pool", "set", "coded", "allow_ec_overwrites", "true"]);
    backend.create(&CX, coded()).await.expect("created");
    serves(&backend, "coded").await;
    let info = backend.show(&CX, "coded").await.expect("shown");
    assert!(info.labels.iter().any(|label| label.0 == "data_pool" && label.1 == "coded"));
    assert_eq!(image("coded")["data_pool"], "coded");
    backend.delete(&CX, "coded").await.expect("deleted");

    let mut odd = wide;
    odd["data_pool"] = "coded".into();
    odd["object_size"] = (8 * MIB).into();
    odd["stripe_unit"] = (64 << 10).into();
    odd["stripe_count"] = 3.into();
    odd["features"] = json!(["layering", "exclusive-lock"]);
    let backend = open(odd).await;
    made(&backend, "odd", 48 * MIB).await.detach(&CX).await.expect("detached");
    serves(&backend, "odd").await;
    let info = image("odd");
    println!("{info}");
    assert_eq!((&info["data_pool"], &info["object_size"]), (&json!("coded"), &json!(8 * MIB)));
    assert_eq!((&info["stripe_unit"], &info["stripe_count"]), (&json!(64 << 10), &json!(3)));
    let features = ["layering", "striping", "exclusive-lock", "data-pool"];
    assert_eq!(info["features"], json!(features));
    assert!(backend.usage(&CX).await.expect("told").available > 0);
    backend.delete(&CX, "odd").await.expect("deleted");

    let lost = json!({ "data_pool": "nowhere" });
    let error = CephBackend::open("c", config(&lost)).await.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND, "{error:#}");
    assert!(error.remedy_text().contains("data_pool"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn a_volume_may_be_laid_out_otherwise_than_its_backend_says() {
    let backend = open(json!({})).await;
    remove(&backend, "own").await;
    let plain = || VolumeSpec::new("own", 48 * MIB);
    let own = || {
        let spec = plain().option("object_size", "8MiB").option("stripe_unit", "64KiB");
        spec.option("stripe_count", "3").option("features", "layering,exclusive-lock")
    };
    let wrong = ErrorKind::INVALID_ARGUMENT;
    for (key, value, words) in [
        ("object_size", "3MiB", "power of two"),
        ("object_size", "large", "4MiB"),
        ("stripe_unit", "64KiB", "give both"),
        ("features", "exclusive-lock,object-map", "fast-diff"),
        ("features", "layering", "exclusive-lock"),
        ("features", "exclusive-lock,journaling", "choose among"),
        ("colour", "red", "stripe_count"),
    ] {
        refused(&backend, plain().option(key, value), wrong, words).await;
    }
    let nowhere = plain().option("data_pool", "nowhere");
    refused(&backend, nowhere, ErrorKind::NOT_FOUND, "ceph osd pool create").await;
    let large = VolumeSpec::new("own", 2 << 40).option("object_size", "4KiB");
    refused(&backend, large, wrong, "larger `object_size`").await;

    backend.create(&CX, own()).await.expect("created");
    backend.create(&CX, own()).await.expect("the same one");
    for other in
        [plain(), own().option("stripe_count", "2"), own().option("features", "exclusive-lock")]
    {
        let error = backend.create(&CX, other).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ALREADY_EXISTS, "{error:#}");
    }
    let info = image("own");
    assert_eq!(info["object_size"], json!(8 * MIB));
    assert_eq!((&info["stripe_unit"], &info["stripe_count"]), (&json!(64 << 10), &json!(3)));
    serves(&backend, "own").await;
    let volume = attach(&backend, "own", 2).await;
    let shown = volume.capabilities().max_volume_size;
    assert_eq!(shown, backend.capabilities().max_volume_size);
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "own").await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn monitors_and_a_key_are_enough() {
    let key = admin(&["auth", "get-key", "client.novastor"]);
    let monitors = json!([setting(&dir(), "mon_host")]);
    let alone = json!({ "conf_file": null, "monitors": monitors, "key": key });
    assert!(!format!("{:?}", config(&alone)).contains(&key));
    let backend = open(alone.clone()).await;
    made(&backend, "keyed", 16 * MIB).await.detach(&CX).await.expect("detached");
    serves(&backend, "keyed").await;
    backend.delete(&CX, "keyed").await.expect("deleted");
    let ring = json!({ "conf_file": null, "monitors": monitors, "keyring": dir().join("keyring") });
    open(ring).await.list(&CX).await.expect("listed");

    // What is wrong with a key is said without it.
    for key in ["AQDRhRlnAAAAABAAmNpyYNGGeSAqtDwkHMo0LQ==", "no key at all", "AQ=="] {
        let mut wrong = alone.clone();
        wrong["key"] = key.into();
        let error = CephBackend::open("c", config(&wrong)).await.err().expect("refused");
        let told = format!("{error:#} {error:?} {}", error.remedy_text());
        println!("{told}");
        assert!(!told.contains(key) && told.contains("client.novastor"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
async fn one_process_serves_volumes_of_two_clusters() {
    let room = tempfile::tempdir().expect("a directory");
    let second = room.path().join("second");
    service_of(&second, &["start"]);
    let there = json!({ "conf_file": second.join("ceph.conf") });
    let outcome = tokio::spawn(async move {
        let (here, there) = (open(json!({})).await, open(there).await);
        let (one, other) =
            (made(&here, "twin", 16 * MIB).await, made(&there, "twin", 16 * MIB).await);
        for round in 0..8 {
            let writes = [(&one, 1), (&other, 2)].map(|(volume, value)| {
                volume.write(&CX, round * MIB, bytes(value, MIB), WriteFlags::NONE)
            });
            for write in writes {
                write.await.expect("written");
            }
        }
        for (volume, value) in [(&one, 1), (&other, 2)] {
            volume.flush(&CX).await.expect("flushed");
            let read = volume.read(&CX, 0, 8 << 20).await.expect("read");
            assert!(read.iter().all(|byte| *byte == value), "{value}");
        }
        one.detach(&CX).await.expect("detached");
        here.delete(&CX, "twin").await.expect("deleted");
        assert_eq!(there.list(&CX).await.expect("listed").len(), 1);
        other.detach(&CX).await.expect("detached");
        for backend in [here, there] {
            backend.close(&CX).await.expect("closed");
        }
    });
    let outcome = outcome.await;
    service_of(&second, &["remove"]);
    outcome.expect("two clusters at once");
}
