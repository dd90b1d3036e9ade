// SPDX-License-Identifier: Apache-2.0
//! The driver as a host holds it: through the handles of the ABI.
#![allow(missing_docs)]

mod fixture;

use driver_api::{
    Abilities, BackendConfig, BackendHandle, Driver, ErrorKind, Fencing, Host, HostServices, IoBuf,
    Op, Result, StateHandle, VolumeSpec, WriteFlags, ext::Snapshots as _, host::LogRecord,
};
use fixture::*;
use local::Local;

struct NoHost;

impl HostServices for NoHost {
    fn enabled(&self, _level: u32, _target: &str) -> bool {
        false
    }

    fn log(&self, _record: &LogRecord<'_>) {}

    fn report_panic(&self, place: &str, message: &str) {
        panic!("{place}: {message}");
    }

    fn secret(&self, name: &str) -> Result<String> {
        panic!("the driver has no secrets, it asks for {name}");
    }

    fn backend(&self, name: &str) -> Op<BackendHandle> {
        panic!("the driver needs no other backend, it asks for {name}");
    }

    fn state(&self) -> Result<StateHandle> {
        panic!("the driver keeps its state beside the data");
    }
}

async fn open(options: serde_json::Value) -> Result<BackendHandle> {
    let host = Host::new(NoHost);
    let backend = Local::open(host.clone(), BackendConfig::new("b", &options)).await?;
    Ok(driver_api::export::export_backend(backend, host))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_declared_ability_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = open(serde_json::json!({ "dir": dir.path() })).await.expect("opened");
    let claimed = backend.capabilities().expect("asked");
    assert_eq!(claimed.fencing, Fencing::EXCLUSIVE_LOCK);
    assert!(!claimed.has(Abilities::COMMANDS));
    assert!(backend.commands().expect("asked").is_none());
    assert!(backend.clones().expect("asked").is_some() && claimed.has(Abilities::CLONE));
    for format in ["raw", "qcow2"] {
        let spec = VolumeSpec::new(format, 4 * MIB).option("format", format);
        let info = backend.create(&CX, spec).await.expect("created");
        assert!(info.labels.iter().any(|label| label.0 == "format" && label.1 == format));
        let volume = backend.attach(&CX, format, writer(1)).await.expect("attached");
        let wanted = match format {
            "qcow2" => claimed.abilities.without(Abilities::PREFETCH),
            _ => claimed.abilities,
        };
        assert_eq!(volume.capabilities().expect("asked").abilities, wanted);
        assert!(volume.snapshots().expect("asked").is_some());
        assert!(volume.resize().expect("asked").is_some());
        assert!(volume.allocation_map().expect("asked").is_some());
        let data = IoBuf::copy_from(&[1; 4096]);
        volume.write(&CX, 0, data, WriteFlags::FUA).await.expect("written");
        assert_eq!(&*volume.read(&CX, 0, 4096).await.expect("read"), &[1; 4096]);
        assert_eq!(backend.close(&CX).await.expect_err("attached").kind(), ErrorKind::IN_USE);
        let stats = volume.stats().expect("asked");
        let written = stats.metrics.iter().find(|metric| metric.name == "write_bytes_total");
        assert_eq!(written.expect("counted").value, 4096.0);
        volume.detach(&CX).await.expect("detached");
        volume.detach(&CX).await.expect("detached already");

        let volume = backend.attach(&CX, format, reader(2)).await.expect("attached");
        let abilities = volume.capabilities().expect("asked").abilities;
        assert!(!abilities.has(Abilities::WRITE) && abilities.has(Abilities::SNAPSHOT));
        let snapshots = volume.snapshots().expect("asked").expect("for listing");
        assert!(snapshots.list(&CX).await.expect("listed").is_empty());
        let refused = snapshots.create(&CX, "s").await.expect_err("a reader takes none");
        assert_eq!(refused.kind(), ErrorKind::PERMISSION_DENIED);
        volume.detach(&CX).await.expect("detached");
    }
    assert_eq!(backend.list(&CX).await.expect("listed").len(), 2);
    backend.close(&CX).await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn faulty_options_are_refused_with_the_key() {
    for (options, part) in [
        (serde_json::json!({}), "dir"),
        (serde_json::json!({ "dir": "relative" }), "dir"),
        (serde_json::json!({ "dir": "/does/not/exist" }), "/does/not/exist"),
        (serde_json::json!({ "dir": "/tmp", "colour": "red" }), "colour"),
        (serde_json::json!({ "dir": "/tmp", "high_watermark_percent": 101 }), "watermark"),
    ] {
        let error = open(options).await.expect_err("refused");
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
}
