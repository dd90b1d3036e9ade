// SPDX-License-Identifier: Apache-2.0
//! Every released version of the ABI against this one, both ways.

use std::{fs, path::Path};

use driver_api::{
    Abilities, Attach, AttachMode, BackendConfig, BackendHandle, ErrorKind, Host, OpContext,
    VolumeSpec,
    descriptor::{Descriptor, MAGIC},
    ext::{Cluster, Promote},
    host::NoServices,
    import::open_library,
};
use novastor_old_drivers::{
    build_cluster_driver, build_driver, build_host, current_api, released_api, released_driver,
    serve,
};

fn descriptor(file: &Path) -> Descriptor {
    let bytes = fs::read(file).expect("the driver's file");
    let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&MAGIC));
    let mut found = starts.filter_map(|at| Descriptor::decode(&bytes[at..]));
    found.find(|descriptor| !descriptor.name.is_empty()).expect("a descriptor")
}

/// The versions that `tests/old-drivers` keeps.
const RELEASED: [&str; 3] = ["1.0", "1.1", "1.2"];
/// The version of this driver-api.
const CURRENT: &str = "1.3";

fn assert_lines(lines: &str, expected: &[&str]) {
    for line in expected {
        assert!(lines.lines().any(|found| found == *line), "no {line:?} in:\n{lines}");
    }
}

#[test]
fn every_version_before_this_one_is_kept() {
    let current = format!("{}.{}", driver_api::abi::MAJOR, driver_api::abi::MINOR);
    assert_eq!(current, CURRENT);
    assert_eq!(RELEASED.len(), driver_api::abi::MINOR as usize);
}

#[test]
fn the_driver_of_each_release_serves_in_this_host() {
    let host = build_host(&current_api().expect("a place to build")).expect("the host builds");
    for version in RELEASED {
        let served = serve(&host, &released_driver(version)).expect("the host ends by itself");
        assert!(served.ok, "{version}: {}", served.lines);
        let (host, driver) = (format!("host_abi={CURRENT}"), format!("driver_abi={version}"));
        let shown = [&host, &driver, "data=intact", "past_the_end=Some(OutOfRange(5))"];
        assert_lines(&served.lines, &shown);
    }
}

#[test]
fn this_driver_serves_in_the_host_of_each_release() {
    let current = current_api().expect("a place to build");
    for version in RELEASED {
        let api = released_api(version).expect("the released source");
        let host = build_host(&api).expect("the old host builds");
        let driver = build_driver(&current).expect("the driver builds");
        let served = serve(&host, &driver).expect("the host ends by itself");
        assert!(served.ok, "{version}: {}", served.lines);
        let (host, driver) = (format!("host_abi={version}"), format!("driver_abi={CURRENT}"));
        assert_lines(&served.lines, &[&host, &driver, "data=intact"]);
    }
}

#[test]
fn the_source_of_each_release_still_builds_the_driver() {
    let host = build_host(&current_api().expect("a place to build")).expect("the host builds");
    for version in RELEASED {
        let api = released_api(version).expect("the released source");
        let driver = build_driver(&api).expect("the driver builds");
        let served = serve(&host, &driver).expect("the host ends by itself");
        assert!(served.ok, "{version}: {}", served.lines);
        assert_lines(&served.lines, &[&format!("driver_abi={version}")]);
    }
}

/// A backend of a kept driver, with one volume.
async fn opened(version: &str) -> BackendHandle {
    opened_from(&released_driver(version)).await
}

async fn opened_from(file: &Path) -> BackendHandle {
    // SAFETY: the library is kept in this repository, or was built from it.
    let module = unsafe { open_library(file, &descriptor(file), Host::new(NoServices)) };
    let config = BackendConfig::new("old", &serde_json::json!({}));
    let opening = module.expect("loaded").open(Host::new(NoServices), config);
    let backend = opening.await.expect("opened");
    backend.create(&OpContext::new(), VolumeSpec::new("disk", 1 << 20)).await.expect("created");
    backend
}

#[tokio::test]
async fn what_1_0_did_not_know_is_refused_and_not_passed_on() {
    let (backend, cx) = (opened("1.0").await, OpContext::new());
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "versions");
    let volume = backend.attach(&cx, "disk", attach).await.expect("attached");
    assert!(!volume.capabilities().expect("capabilities").has(Abilities::PREFETCH));
    let refused = volume.prefetch(&cx, 0, 4096).await.expect_err("1.0 has no prefetch");
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
}

#[tokio::test]
async fn a_volume_from_before_1_3_has_no_sessions() {
    for version in RELEASED {
        let (backend, cx) = (opened(version).await, OpContext::new());
        let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "versions");
        let volume = backend.attach(&cx, "disk", attach).await.expect("attached");
        assert!(!volume.capabilities().expect("capabilities").has(Abilities::SESSIONS));
        assert!(volume.sessions().expect("an answer").is_none(), "{version}");
    }
}

#[tokio::test]
async fn a_driver_from_before_1_3_renames_nothing_and_says_so() {
    for version in RELEASED {
        let (backend, cx) = (opened(version).await, OpContext::new());
        let able = backend.capabilities().expect("capabilities");
        let since_1_3 =
            [Abilities::RENAME, Abilities::FLATTEN, Abilities::CHANGES, Abilities::PROTECT];
        assert!(since_1_3.iter().all(|ability| !able.has(*ability)), "{version}");
        let refused = backend.rename(&cx, "disk", "other").await.expect_err("it cannot");
        assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED, "{version}");
        assert!(refused.remedy_text().contains("driver-api 1.3"), "{refused:#}");
        backend.show(&cx, "disk").await.expect("it is where it was");
    }
}

#[tokio::test]
async fn a_driver_from_before_1_2_has_no_cluster() {
    for version in ["1.0", "1.1"] {
        let backend = opened(version).await;
        assert!(!backend.capabilities().expect("capabilities").has(Abilities::CLUSTER));
        assert!(backend.cluster().expect("an answer").is_none(), "{version}");
    }
}

#[tokio::test]
async fn a_cluster_of_1_2_has_nodes_and_says_that_it_cannot_recover() {
    let api = released_api("1.2").expect("the released source");
    let driver = build_cluster_driver(&api).expect("the driver builds");
    let (backend, cx) = (opened_from(&driver).await, OpContext::new());
    let cluster = backend.cluster().expect("an answer").expect("a cluster");
    assert_eq!(cluster.nodes(&cx).await.expect("nodes")[0].spec.name.as_str(), "only");
    let refused = cluster.recover(&cx, "", false, true).await.expect_err("1.2 cannot recover");
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
    assert!(refused.remedy_text().contains("driver-api 1.3"), "{refused:#}");
    let refused = cluster.promote(&cx, "disk", Promote::default()).await;
    let refused = refused.expect_err("1.2 has no asynchronous volumes");
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
    assert!(refused.remedy_text().contains("driver-api 1.3"), "{refused:#}");
}
