// SPDX-License-Identifier: Apache-2.0
//! The servers that `tests/services/netfs` has started.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

/// The directory of the servers.
pub fn dir() -> PathBuf {
    std::env::var_os("NOVASTOR_NETFS").expect("NOVASTOR_NETFS names the servers' directory").into()
}

/// What `addresses` says of a key.
pub fn address(key: &str) -> String {
    let text = std::fs::read_to_string(dir().join("addresses")).expect("addresses");
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

pub fn port(key: &str) -> u16 {
    address(key).parse().expect("a port")
}

/// Asks `tests/services/netfs` for something.
pub fn service(verb: &str, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/netfs");
    let mut command = Command::new(script);
    command.arg(verb).arg(dir()).args(arguments).stdout(Stdio::null());
    assert!(command.status().expect("started").success(), "{verb} {arguments:?}");
}

/// The options of a backend on an export of ganesha.
pub fn ganesha(export: &str) -> Value {
    json!({
        "server": address("host"),
        "share": address(export),
        "port": port("nfs_port"),
        "mount_port": port("mount_port"),
    })
}

/// The options of a backend on an export of ganesha, by one of these versions of NFSv4.
pub fn ganesha4(export: &str, versions: &[&str]) -> Value {
    let path = address(export);
    let name = Path::new(&path).file_name().expect("a name").to_string_lossy();
    json!({
        "server": address("host"),
        "share": format!("/{name}"),
        "port": port("nfs_port"),
        "versions": versions,
    })
}

/// The options of a backend on a share of Samba.
pub fn samba(share: &str) -> Value {
    json!({
        "protocol": "smb",
        "versions": ["3.1.1", "3.0.2", "3.0", "2.1"],
        "server": address("host"),
        "share": address(share),
        "port": port("smb_port"),
        "user": address("user"),
        "password": address("password"),
        "domain": address("domain"),
        "silence_timeout_secs": 3,
        "operation_timeout_secs": 60,
    })
}

/// Brings a server back that a test has ended, also when the test failed.
pub struct Revive(pub &'static str);

impl Drop for Revive {
    fn drop(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/netfs");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&script);
            let _ = command
                .arg(arguments[0])
                .arg(dir())
                .args(&arguments[1..])
                .stderr(Stdio::null())
                .status();
        };
        run(&["daemon", self.0, "CONT"]);
        run(&["again", self.0]);
    }
}
