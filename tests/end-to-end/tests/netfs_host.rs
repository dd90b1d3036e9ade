// SPDX-License-Identifier: Apache-2.0
//! The netfs driver in a real host, against real servers: `tests/services/netfs with cargo test --test 'netfs_*'`.

use std::{fs, path::PathBuf};

use end_to_end::{
    artifacts::Artifacts,
    failure::Outcome,
    host::{Host, install},
    program::Said,
};
use serde_json::Value;

fn address(key: &str) -> String {
    let dir = std::env::var_os("NOVASTOR_NETFS").expect("NOVASTOR_NETFS names a directory");
    let text = fs::read_to_string(PathBuf::from(dir).join("addresses")).expect("addresses");
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

/// A host with a backend `nas` that has one share, and `gone`, whose server is not there.
fn host() -> Host {
    let artifacts = Artifacts::of_this_build().expect("a build");
    let mut host = Host::start(&artifacts, "").expect("a host");
    host.stop().expect("stopped");
    install(&artifacts.netfs().expect("built"), &host.plugins()).expect("installed");
    let mut config = fs::read_to_string(host.config()).expect("a configuration");
    config += &format!(
        "\n[backends.nas]\ndriver = \"netfs\"\nversions = [\"4.1\"]\nserver = \"{0}\"\nport = {1}\nshare = \"/export\"\n\
         \n[backends.gone]\ndriver = \"netfs\"\nversions = [\"4.1\"]\nserver = \"{0}\"\nport = 1\nshare = \"/export\"\n\
         mount_timeout_secs = 1\noperation_timeout_secs = 1\n",
        address("host"),
        address("nfs_port"),
    );
    fs::write(host.config(), config).expect("written");
    host.restart().expect("a host again");
    host
}

fn run(host: &Host, words: &[&str]) -> Outcome<Said> {
    host.cli().ask().args(words).run()
}

fn mounts(host: &Host, backend: &[&str]) -> Vec<Value> {
    let words = [&["--output", "json", "backend", "mounts"][..], backend].concat();
    let told = run(host, &words).expect("told").stdout;
    serde_json::from_str(&told).expect("a list")
}

#[test]
#[ignore = "needs the servers of tests/services/netfs"]
fn mounts_are_shown_with_their_reasons() {
    let host = host();
    run(&host, &["volume", "create", "seen", "--size", "4MiB", "--backend", "nas"]).expect("made");
    let all = mounts(&host, &[]);
    let of = |backend: &str| {
        let found = all.iter().find(|mount| mount["backend"] == backend);
        found.unwrap_or_else(|| panic!("no {backend} in {all:?}"))
    };
    assert_eq!(
        (&of("nas")["state"], &of("nas")["protocol"]),
        (&"mounted".into(), &"NFSv4.1".into())
    );
    assert!(of("nas")["max_read"].as_u64() > Some(4096), "what else the driver tells is there");
    let gone = of("gone");
    assert!(gone["state"] != "mounted", "{gone}");
    let table = run(&host, &["backend", "mounts", "nas"]).expect("told").stdout;
    assert!(
        table.contains("WHY") && table.contains("/export") && !table.contains("gone"),
        "{table}"
    );
    let refused = run(&host, &["backend", "mounts", "no-such"]).expect_err("no backend");
    assert!(format!("{refused:?}").contains("no-such"), "{refused:?}");
    let arguments = r#"{"name":"more","share":"/small"}"#;
    run(&host, &["backend", "run", "nas", "add-share", arguments]).expect("added");
    assert_eq!(mounts(&host, &["nas"]).len(), 2);
    run(&host, &["backend", "run", "nas", "remove-share", r#"{"share":"more"}"#]).expect("removed");
    assert_eq!(mounts(&host, &["nas"]).len(), 1);
    run(&host, &["volume", "delete", "seen"]).expect("deleted");
}
