// SPDX-License-Identifier: Apache-2.0
//! The ceph driver in a real host, against a real cluster, which `NOVASTOR_CEPH=DIR` names.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::PathBuf,
    process::Command,
};

use end_to_end::{
    artifacts::Artifacts,
    failure::Outcome,
    host::{Host, install},
    program::Said,
};

const WRONG_KEY: &str = "AQDRhRlnAAAAABAAmNpyYNGGeSAqtDwkHMo0LQ==";

fn dir() -> PathBuf {
    std::env::var_os("NOVASTOR_CEPH").expect("NOVASTOR_CEPH names the cluster's directory").into()
}

/// The monitors' address, and the key of client.novastor.
fn access() -> (String, String) {
    let conf = dir().join("ceph.conf");
    let text = fs::read_to_string(&conf).expect("a configuration");
    let monitors = text.lines().find_map(|line| line.strip_prefix("mon_host = "));
    let mut ask = Command::new("ceph");
    ask.arg("-c").arg(conf).args(["auth", "get-key", "client.novastor"]);
    let key = ask.output().expect("started").stdout;
    (monitors.expect("an address").to_owned(), String::from_utf8(key).expect("text"))
}

/// A host with a backend `rack` in the cluster, and `more` in its section.
fn host(more: &str, key: &str) -> Host {
    let artifacts = Artifacts::of_this_build().expect("a build");
    let mut host = Host::start(&artifacts, "").expect("a host");
    host.stop().expect("stopped");
    let driver = artifacts.local().expect("built").with_file_name("libceph.so");
    install(&driver, &host.plugins()).expect("installed");
    let secret = host.path("rack.key");
    fs::write(&secret, format!("{key}\n")).expect("written");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("kept from others");
    let mut config = fs::read_to_string(host.config()).expect("a configuration");
    config += &format!(
        "\n[secrets]\nrack = {{ file = {secret:?} }}\n\n\
         [backends.rack]\ndriver = \"ceph\"\nmonitors = [{:?}]\nuser = \"novastor\"\n\
         pool = \"volumes\"\nkey = {{ secret = \"rack\" }}\nconnect_timeout_secs = 5\n{more}",
        access().0
    );
    fs::write(host.config(), config).expect("written");
    host.restart().expect("a host again");
    host
}

fn run(host: &Host, words: &[&str]) -> Outcome<Said> {
    host.cli().ask().args(words).run()
}

/// All that the host has said of itself.
fn said(host: &Host, words: &[&[&str]]) -> String {
    let mut all = fs::read_to_string(host.path("host.log")).expect("a log");
    for words in words {
        let said = run(host, words).expect("answered");
        all += &said.stdout;
        all += &said.stderr;
    }
    all
}

const ASKED: [&[&str]; 3] = [
    &["backend", "show", "rack"],
    &["--output", "json", "backend", "show", "rack"],
    &["backend", "list"],
];

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_key_from_the_hosts_secrets_is_shown_nowhere() {
    let (_, key) = access();
    let host = host("", &key);
    let said = said(&host, &ASKED);
    assert!(said.contains("healthy") && said.contains("(secret)"), "{said}");
    assert!(!said.contains(&key), "{said}");
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn a_wrong_key_from_the_hosts_secrets_is_refused_without_showing_it() {
    let host = host("", WRONG_KEY);
    let said = said(&host, &ASKED);
    assert!(said.contains("its key is wrong") && said.contains("ceph auth get"), "{said}");
    assert!(!said.contains(WRONG_KEY), "{said}");
}

/// What `/v1/metrics` answers.
fn metrics(host: &Host) -> String {
    let mut socket = UnixStream::connect(host.path("api.sock")).expect("a socket");
    let request = "GET /v1/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("asked");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

#[test]
#[ignore = "needs a cluster: NOVASTOR_CEPH"]
fn prometheus_sees_volumes_pools_and_the_cluster() {
    let host = host("", &access().1);
    for words in [
        &["volume", "create", "seen", "--size", "16MiB", "--backend", "rack"][..],
        &["export", "add", "seen"],
    ] {
        run(&host, words).expect("done");
    }
    end_to_end::clients::qemu_io(&host.uri("seen"), "write -P 1 0 1M").expect("written");
    let listed = run(&host, &["backend", "commands", "rack"]).expect("listed").stdout;
    assert!(listed.contains("trash-purge") && listed.contains("mirror-status"), "{listed}");
    let mirrored = run(&host, &["backend", "run", "rack", "mirror-status", "{}"]).expect("told");
    assert!(mirrored.stdout.contains("mirroring is not enabled"), "{}", mirrored.stdout);
    let busy = ["backend", "run", "rack", "trash-move", r#"{"volume":"seen"}"#];
    let busy = host.cli().ask().args(busy).codes(&[5]).run().expect("refused: it is in use");
    assert!(busy.stderr.contains("attached"), "{}", busy.stderr);
    let text = metrics(&host);
    let shown = run(&host, &["volume", "show", "seen"]).expect("shown").stdout;
    for words in [&["export", "remove", "seen"][..], &["volume", "delete", "seen"]] {
        run(&host, words).expect("done");
    }
    println!("{text}");
    for (line, value) in [
        ("# TYPE novastor_volume_write_seconds histogram", ""),
        ("# TYPE novastor_volume_write_bytes_total counter", ""),
        ("# TYPE novastor_backend_cluster_health gauge", ""),
        ("novastor_volume_write_seconds_bucket{volume=\"seen\",backend=\"rack\",le=\"+Inf\"}", "1"),
        ("novastor_volume_write_seconds_count{volume=\"seen\",backend=\"rack\"}", "1"),
        ("novastor_volume_write_bytes_total{volume=\"seen\",backend=\"rack\"}", "1048576"),
        ("novastor_backend_osds_up{backend=\"rack\",driver=\"ceph\"}", "3"),
        ("novastor_backend_connections_made_total{backend=\"rack\",driver=\"ceph\"}", "2"),
    ] {
        let line = format!("{line} {value}");
        assert!(text.lines().any(|one| one == line.trim_end()), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("# TYPE novastor_volume_write_seconds").count(), 1, "{text}");
    assert!(shown.contains("write_seconds_count 1") && !shown.contains("_bucket"), "{shown}");
}
