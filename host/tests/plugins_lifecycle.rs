// SPDX-License-Identifier: Apache-2.0
//! Drivers that come, change and go while the process runs.

mod plugins_support;

use std::{fs, io::Write};

use driver_api::{BackendConfig, ErrorKind, IoBuf, OpContext, WriteFlags, abi};
use novastor::plugins::{GuardedVolume, PluginState, PluginWatch};
use plugins_support::{House, forward, small, volume};
use serde_json::json;

/// Another build of the driver `faulty`: the same code with another sum.
fn another_build() -> Vec<u8> {
    [small(), b"another build"].concat()
}

async fn write_and_read(volume: &GuardedVolume, byte: u8) {
    let (cx, data) = (OpContext::new(), [byte; 4096]);
    let data = IoBuf::copy_from(&data);
    volume.write(&cx, 8192, data.clone(), WriteFlags::NONE).await.expect("a write");
    volume.flush(&cx).await.expect("a flush");
    let read = volume.read(&cx, 8192, 4096).await.expect("a read");
    assert_eq!(&read[..], &data[..]);
}

#[tokio::test]
async fn a_dropped_driver_serves_without_a_restart() {
    let house = House::new();
    let _watch = PluginWatch::start(house.registry.clone()).expect("a watch");
    assert!(house.registry.driver("faulty").is_err());
    house.put("libfaulty.so", small());
    let status = house.wait_for("libfaulty.so", |status| status.state == PluginState::Loaded);
    assert_eq!(
        (status.name.as_str(), status.abi.clone(), status.role.as_str()),
        ("faulty", format!("{}.{}", abi::MAJOR, abi::MINOR), "driver")
    );
    assert!(status.loaded_unix_secs > 0 && status.sha256.len() == 64, "{status:?}");
    let backend = house.faulty(json!({})).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    write_and_read(&volume, 7).await;
    assert_eq!(house.status("libfaulty.so").backends_in_use, 1);
    // The volume keeps its backend, and the backend its driver.
    drop(backend);
    assert_eq!(house.status("libfaulty.so").backends_in_use, 1);
    drop(volume);
    assert_eq!(house.status("libfaulty.so").backends_in_use, 0);
}

#[tokio::test]
async fn a_driver_that_is_copied_slowly_is_loaded_in_the_end() {
    let house = House::new();
    let _watch = PluginWatch::start(house.registry.clone()).expect("a watch");
    let mut file = fs::File::create(house.plugins.join("slow.so")).expect("a file");
    let (half, rest) = small().split_at(small().len() / 2);
    file.write_all(half).expect("half of it");
    // Looked at half-way, as by an operator who asks: refused, but not for good.
    house.registry.rescan().expect("a scan");
    assert_eq!(house.status("slow.so").state, PluginState::Refused);
    file.write_all(rest).expect("the rest");
    drop(file);
    house.wait_for("slow.so", |status| status.state == PluginState::Loaded);
}

#[tokio::test]
async fn an_overwritten_driver_serves_on_while_new_backends_get_the_new_build() {
    let house = House::new();
    let _watch = PluginWatch::start(house.registry.clone()).expect("a watch");
    house.put("f.so", small());
    let old = house.wait_for("f.so", |status| status.state == PluginState::Loaded);
    let old_backend = house.faulty(json!({})).await.expect("a backend");
    let old_volume = volume(&old_backend, "v").await.expect("a volume");
    // In place, under the feet of the loaded code: `cp` does this.
    fs::write(house.plugins.join("f.so"), another_build()).expect("overwritten");
    let new = house.wait_for("f.so", |status| {
        status.state == PluginState::Loaded && status.sha256 != old.sha256
    });
    write_and_read(&old_volume, 1).await;
    let new_backend = house.faulty(json!({})).await.expect("a backend");
    let new_volume = volume(&new_backend, "v").await.expect("a volume of that name, elsewhere");
    write_and_read(&new_volume, 2).await;
    let draining = house.wait_for("f.so", |status| status.sha256 == old.sha256);
    assert_eq!((draining.state, draining.backends_in_use), (PluginState::Draining, 1));
    assert_eq!(house.status("f.so").sha256, new.sha256);
    drop((old_volume, old_backend));
    assert_eq!(house.registry.list().len(), 1, "a drained build leaves the list");
}

#[tokio::test]
async fn a_removed_driver_drains() {
    let house = House::new();
    let _watch = PluginWatch::start(house.registry.clone()).expect("a watch");
    let file = house.put("f.so", small());
    house.wait_for("f.so", |status| status.state == PluginState::Loaded);
    let backend = house.faulty(json!({})).await.expect("a backend");
    let volume = volume(&backend, "v").await.expect("a volume");
    fs::remove_file(&file).expect("removed");
    let draining = house.wait_for("f.so", |status| status.state == PluginState::Draining);
    assert!(draining.reason.contains("removed"), "{draining:?}");
    let refused = house.faulty(json!({})).await.expect_err("no new backends");
    assert_eq!(refused.kind(), ErrorKind::NOT_FOUND);
    write_and_read(&volume, 3).await;
    drop((volume, backend));
    assert!(house.registry.list().is_empty(), "{:?}", house.registry.list());
}

#[tokio::test]
async fn the_same_content_is_not_loaded_twice() {
    let house = House::new();
    let first = house.offer("f.so", small());
    let driver = house.registry.driver("faulty").expect("a driver");
    fs::remove_file(house.plugins.join("f.so")).expect("removed");
    house.registry.rescan().expect("a scan");
    assert!(house.registry.driver("faulty").is_err());
    let again = house.offer("renamed.so", small());
    assert_eq!((again.state, again.sha256), (PluginState::Loaded, first.sha256));
    let same = house.registry.driver("faulty").expect("a driver");
    assert!(std::sync::Arc::ptr_eq(&driver, &same));
}

#[tokio::test]
async fn going_back_to_an_earlier_build_works() {
    let house = House::new();
    let first = house.offer("f.so", small());
    house.offer("f.so", &another_build());
    assert_ne!(house.registry.driver("faulty").expect("a driver").sha256, first.sha256);
    house.offer("f.so", small());
    assert_eq!(house.registry.driver("faulty").expect("a driver").sha256, first.sha256);
    assert_eq!(house.registry.list().len(), 1);
    // Also where the later build's file stays: what was put there last serves.
    house.offer("f.so", &another_build());
    house.offer("back.so", small());
    assert_eq!(house.registry.driver("faulty").expect("a driver").sha256, first.sha256);
    let replaced = house.status("f.so");
    assert!(replaced.reason.contains("replaced by back.so"), "{replaced:?}");
}

#[tokio::test]
async fn two_files_of_one_driver_the_later_one_serves() {
    let house = House::new();
    house.put("b-2.so", &another_build());
    house.put("a-1.so", small());
    house.registry.rescan().expect("a scan");
    assert_eq!(house.status("b-2.so").state, PluginState::Loaded);
    let replaced = house.status("a-1.so");
    assert_eq!(replaced.state, PluginState::Draining);
    assert!(replaced.reason.contains("replaced by b-2.so"), "{replaced:?}");
    fs::remove_file(house.plugins.join("b-2.so")).expect("removed");
    house.registry.rescan().expect("a scan");
    assert_eq!(house.status("a-1.so").state, PluginState::Loaded);
}

#[tokio::test]
async fn a_bad_replacement_leaves_the_last_good_build_in_service() {
    let house = House::new();
    house.offer("f.so", small());
    house.offer("f.so", b"oops");
    let list = house.registry.list();
    let states: Vec<PluginState> = list.iter().map(|status| status.state).collect();
    assert_eq!(states, [PluginState::Loaded, PluginState::Refused], "{list:?}");
    assert!(list[0].reason.contains("a restart would miss it"), "{list:?}");
    house.faulty(json!({})).await.expect("a backend");
}

#[tokio::test]
async fn a_layer_over_a_volume_keeps_both_drivers_in_use() {
    let house = House::new();
    house.offer("f.so", small());
    house.offer("layer.so", &fs::read(forward()).expect("the layer"));
    assert_eq!(house.status("layer.so").role, "layer");
    let backend = house.faulty(json!({})).await.expect("a backend");
    let inner = volume(&backend, "v").await.expect("a volume");
    let layer = house.registry.driver("forward").expect("a layer");
    let config = BackendConfig::new("l", &json!({}));
    let outer = layer.wrap(config.clone(), &inner).await.expect("a wrapped volume");
    drop((backend, inner));
    write_and_read(&outer, 5).await;
    assert_eq!(outer.size().expect("a size"), plugins_support::SIZE);
    let in_use = |file| house.status(file).backends_in_use;
    assert_eq!((in_use("f.so"), in_use("layer.so")), (1, 1));
    let wrong = house.registry.driver("faulty").expect("a driver").wrap(config, &outer).await;
    assert_eq!(wrong.expect_err("no layer").kind(), ErrorKind::UNSUPPORTED);
    let wrong = layer.open(BackendConfig::new("x", &json!({}))).await;
    assert_eq!(wrong.expect_err("no driver").kind(), ErrorKind::UNSUPPORTED);
    drop(outer);
    assert_eq!((in_use("f.so"), in_use("layer.so")), (0, 0));
}
