// SPDX-License-Identifier: Apache-2.0
//! Every released version of the ABI against this one, both ways.

use std::{fs, path::Path};

use driver_api::{
    Abilities, Attach, AttachMode, BackendConfig, ErrorKind, Host, OpContext, VolumeSpec,
    descriptor::{Descriptor, MAGIC},
    host::NoServices,
    import::open_library,
};
use novastor_old_drivers::{
    build_driver, build_host, current_api, released_api, released_driver, serve,
};
use tempfile::tempdir;

fn descriptor(file: &Path) -> Descriptor {
    let bytes = fs::read(file).expect("the driver's file");
    let starts = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(&MAGIC));
    let mut found = starts.filter_map(|at| Descriptor::decode(&bytes[at..]));
    found.find(|descriptor| !descriptor.name.is_empty()).expect("a descriptor")
}

#[test]
fn the_driver_of_1_0_serves_in_this_host() {
    let room = tempdir().expect("a temporary directory");
    let host = build_host(&current_api(), room.path()).expect("the host builds");
    let served = serve(&host, &released_driver("1.0")).expect("the host ends by itself");
    assert!(served.ok, "{}", served.lines);
    for line in
        ["host_abi=1.1", "driver_abi=1.0", "data=intact", "past_the_end=Some(OutOfRange(5))"]
    {
        assert!(
            served.lines.lines().any(|found| found == line),
            "no {line:?} in:\n{}",
            served.lines
        );
    }
}

#[test]
fn this_driver_serves_in_the_host_of_1_0() {
    let room = tempdir().expect("a temporary directory");
    let api = released_api("1.0", room.path()).expect("the released source");
    let host = build_host(&api, room.path()).expect("the host of 1.0 builds");
    let driver = build_driver(&current_api(), room.path()).expect("the driver builds");
    let served = serve(&host, &driver).expect("the host ends by itself");
    assert!(served.ok, "{}", served.lines);
    for line in ["host_abi=1.0", "driver_abi=1.1", "data=intact"] {
        assert!(
            served.lines.lines().any(|found| found == line),
            "no {line:?} in:\n{}",
            served.lines
        );
    }
}

#[test]
fn the_source_of_1_0_still_builds_the_driver() {
    let room = tempdir().expect("a temporary directory");
    let api = released_api("1.0", room.path()).expect("the released source");
    let driver = build_driver(&api, room.path()).expect("the driver builds");
    let host = build_host(&current_api(), room.path()).expect("the host builds");
    let served = serve(&host, &driver).expect("the host ends by itself");
    assert!(served.ok && served.lines.contains("driver_abi=1.0"), "{}", served.lines);
}

#[tokio::test]
async fn what_1_0_did_not_know_is_refused_and_not_passed_on() {
    let file = released_driver("1.0");
    // SAFETY: the library is kept in this repository.
    let module = unsafe { open_library(&file, &descriptor(&file), Host::new(NoServices)) };
    let config = BackendConfig::new("old", &serde_json::json!({}));
    let backend =
        module.expect("loaded").open(Host::new(NoServices), config).await.expect("opened");
    let cx = OpContext::new();
    backend.create(&cx, VolumeSpec::new("disk", 1 << 20)).await.expect("created");
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "versions");
    let volume = backend.attach(&cx, "disk", attach).await.expect("attached");
    assert!(!volume.capabilities().expect("capabilities").has(Abilities::PREFETCH));
    let refused = volume.prefetch(&cx, 0, 4096).await.expect_err("1.0 has no prefetch");
    assert_eq!(refused.kind(), ErrorKind::UNSUPPORTED);
}
