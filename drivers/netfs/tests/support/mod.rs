// SPDX-License-Identifier: Apache-2.0
//! What the tests of this driver share.
#![allow(dead_code)]

pub mod fake;
pub mod images;
pub mod layers;
pub mod real;
pub mod writers;

use driver_api::{
    Attach, AttachMode, Backend, IoBuf, Metric, OpContext, Stats, Volume, VolumeSpec, WriteFlags,
};
use netfs::{Config, NetfsBackend, NetfsVolume};
use serde_json::{Value, json};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const CX: OpContext = OpContext::new();

/// Opens a backend with these options, and short patience where they do not say otherwise.
pub async fn open(options: Value) -> NetfsBackend {
    let mut all = json!({
        "versions": ["3"],
        "operation_timeout_secs": 30,
        "mount_timeout_secs": 5,
        "silence_timeout_secs": 10,
    });
    for (key, value) in options.as_object().expect("a table") {
        all[key] = value.clone();
    }
    let config: Config = serde_json::from_value(all).expect("options");
    NetfsBackend::open("n", config).await.expect("opened")
}

pub async fn made(backend: &NetfsBackend, name: &str, size: u64) -> NetfsVolume {
    let _ = backend.delete(&CX, name).await;
    backend.create(&CX, VolumeSpec::new(name, size)).await.expect("created");
    attach(backend, name, 1).await
}

pub async fn attach(backend: &NetfsBackend, name: &str, epoch: u64) -> NetfsVolume {
    let attach = Attach::new(AttachMode::EXCLUSIVE, epoch, "test");
    backend.attach(&CX, name, attach).await.expect("attached")
}

pub fn bytes(value: u8, len: u64) -> IoBuf {
    IoBuf::copy_from(&vec![value; len as usize])
}

pub async fn write(volume: &NetfsVolume, offset: u64, value: u8, len: u64) {
    volume.write(&CX, offset, bytes(value, len), WriteFlags::NONE).await.expect("written");
}

/// Asserts that a range holds one value.
pub async fn expect(volume: &NetfsVolume, offset: u64, value: u8, len: u64) {
    let read = volume.read(&CX, offset, len as u32).await.expect("read");
    assert_eq!(read.len() as u64, len);
    if let Some(at) = read.iter().position(|byte| *byte != value) {
        panic!("byte {} is {}, not {value}", offset + at as u64, read[at]);
    }
}

/// A figure whose labels contain these.
pub fn figure<'s>(stats: &'s Stats, name: &str) -> Option<&'s Metric> {
    stats.metrics.iter().find(|metric| metric.name == name)
}

pub fn value(stats: &Stats, name: &str) -> f64 {
    figure(stats, name).unwrap_or_else(|| panic!("no {name}")).value
}
