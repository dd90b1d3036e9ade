// SPDX-License-Identifier: Apache-2.0
//! What the tests against a cluster share.
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ceph::{CephBackend, CephVolume, Config};
use driver_api::{
    Attach, AttachMode, Backend, ErrorKind, IoBuf, Metric, OpContext, Stats, VolumeSpec,
};
use serde_json::{Value, json};

pub const MIB: u64 = 1 << 20;
pub const CX: OpContext = OpContext::new();

/// The cluster's directory.
pub fn dir() -> PathBuf {
    std::env::var_os("NOVASTOR_CEPH").expect("NOVASTOR_CEPH names the cluster's directory").into()
}

/// Asks `tests/services/ceph` for something, of the cluster in `dir`.
pub fn service_of(dir: &Path, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/ceph");
    let (verb, rest) = arguments.split_first().expect("a verb");
    let mut command = Command::new(script);
    command.arg(verb).arg(dir).args(rest).stdout(std::process::Stdio::null());
    assert!(command.status().expect("started").success(), "{arguments:?}");
}

/// The same, of the cluster that all tests share.
pub fn service(arguments: &[&str]) {
    service_of(&dir(), arguments);
}

/// What a program of Ceph prints when the administrator runs it.
pub fn tool(program: &str, arguments: &[&str]) -> String {
    let conf = dir().join("ceph.conf");
    let out = Command::new(program).arg("-c").arg(conf).args(arguments).output().expect("started");
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

/// `ceph`, as the administrator.
pub fn admin(arguments: &[&str]) -> String {
    tool("ceph", arguments)
}

/// `rbd --format json`, as the administrator.
pub fn rbd(arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--format", "json"]].concat();
    serde_json::from_str(&tool("rbd", &arguments)).expect("JSON")
}

/// The usual options, changed; null takes one away.
pub fn options(changes: &Value) -> Value {
    let mut options = json!({
        "conf_file": dir().join("ceph.conf"),
        "user": "novastor",
        "pool": "volumes",
        "connect_timeout_secs": 5,
    });
    for (key, value) in changes.as_object().expect("a table") {
        options[key] = value.clone();
    }
    options.as_object_mut().expect("a table").retain(|_, value| !value.is_null());
    options
}

pub fn config(changes: &Value) -> Config {
    serde_json::from_value(options(changes)).expect("options")
}

pub async fn open(changes: Value) -> CephBackend {
    CephBackend::open("c", config(&changes)).await.expect("opened")
}

pub async fn made(backend: &CephBackend, name: &str, size: u64) -> CephVolume {
    remove(backend, name).await;
    backend.create(&CX, VolumeSpec::new(name, size)).await.expect("created");
    attach(backend, name, 1).await
}

/// Deletes a volume of an earlier run.
pub async fn remove(backend: &CephBackend, name: &str) {
    match backend.delete(&CX, name).await {
        Err(error) if error.kind() != ErrorKind::NOT_FOUND => panic!("{error:#}"),
        _ => {}
    }
}

pub async fn attach(backend: &CephBackend, name: &str, epoch: u64) -> CephVolume {
    let attach = Attach::new(AttachMode::EXCLUSIVE, epoch, "test");
    backend.attach(&CX, name, attach).await.expect("attached")
}

pub fn bytes(value: u8, len: u64) -> IoBuf {
    IoBuf::copy_from(&vec![value; len as usize])
}

/// A figure whose labels contain these.
pub fn figure<'s>(stats: &'s Stats, name: &str, labels: &[(&str, &str)]) -> Option<&'s Metric> {
    stats.metrics.iter().find(|metric| {
        let has = |(key, value): &(&str, &str)| {
            metric.labels.iter().any(|label| label.0 == *key && label.1 == *value)
        };
        metric.name == name && labels.iter().all(has)
    })
}

pub fn value(stats: &Stats, name: &str) -> f64 {
    figure(stats, name, &[]).unwrap_or_else(|| panic!("no {name}")).value
}

/// Threads and resident KiB of this process.
pub fn size_of_process() -> (usize, usize) {
    let threads = std::fs::read_dir("/proc/self/task").expect("tasks").count();
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib = line.split_whitespace().nth(1).and_then(|text| text.parse().ok());
    (threads, kib.expect("a number"))
}
