// SPDX-License-Identifier: Apache-2.0
//! Drivers built against a driver-api that claims this version and is not it: each is refused, the host unharmed.

use std::{path::PathBuf, sync::OnceLock};

use novastor_old_drivers::{build_driver, build_host, changed_api, current_api, serve};
use tempfile::{TempDir, tempdir};

const FLUSH: &str = "    fn flush(&self, cx: &OpContext) -> Op<()>;\n";
const DISCARD: &str = "    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()>;\n";
const INSERTED: &str = "    fn verify(&self, cx: &OpContext) -> Op<()>;\n";

fn host() -> PathBuf {
    static HOST: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_room, host) = HOST.get_or_init(|| {
        let room = tempdir().expect("a temporary directory");
        let host = build_host(&current_api(), room.path()).expect("the host builds");
        (room, host)
    });
    host.clone()
}

/// What this host says to the memory driver of a changed driver-api.
fn refusal(file: &str, changes: &[(&str, &str)], others: &[(&str, &[(&str, &str)])]) -> String {
    let room = tempdir().expect("a temporary directory");
    let api = changed_api(room.path(), file, changes).expect("the change applies");
    for (file, changes) in others {
        let path = api.join("src").join(file);
        let mut text = std::fs::read_to_string(&path).expect("the source");
        for (from, to) in *changes {
            assert!(text.contains(from), "{file} does not contain {from:?}");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(path, text).expect("written");
    }
    let driver = build_driver(&api, room.path()).expect("the driver builds");
    let served = serve(&host(), &driver).expect("the host ends by itself");
    assert!(!served.ok, "the driver was served:\n{}", served.lines);
    let refusal = served.lines.lines().find_map(|line| line.strip_prefix("refused="));
    refusal.unwrap_or_else(|| panic!("no refusal in:\n{}", served.lines)).to_owned()
}

fn assert_names(refusal: &str, words: &[&str]) {
    assert!(refusal.len() < 800, "{} bytes: {refusal}", refusal.len());
    for word in words {
        assert!(refusal.contains(word), "{word:?} is not in: {refusal}");
    }
}

#[test]
fn an_unchanged_driver_is_served() {
    let room = tempdir().expect("a temporary directory");
    let api = changed_api(room.path(), "abi.rs", &[]).expect("a copy");
    let driver = build_driver(&api, room.path()).expect("the driver builds");
    let served = serve(&host(), &driver).expect("the host ends by itself");
    assert!(served.ok && served.lines.contains("data=intact"), "{}", served.lines);
}

#[test]
fn an_inserted_method_is_refused() {
    let glue = "    fn flush(&self, cx: &OpContext) -> Op<()> {\n";
    let body = "    fn verify(&self, cx: &OpContext) -> Op<()> {\n        start(|| self.volume.flush(cx))\n    }\n\n";
    let with_body = format!("{body}{glue}");
    let with_method = format!("{INSERTED}{FLUSH}");
    let refusal =
        refusal("abi.rs", &[(FLUSH, &with_method)], &[("export/volume.rs", &[(glue, &with_body)])]);
    assert_names(&refusal, &["layout differs", "verify"]);
}

#[test]
fn reordered_methods_are_refused() {
    let both = format!("{FLUSH}{DISCARD}");
    let swapped = format!("{DISCARD}{FLUSH}");
    let refusal = refusal("abi.rs", &[(&both, &swapped)], &[]);
    assert_names(&refusal, &["layout differs", "flush"]);
}

#[test]
fn a_changed_field_is_refused() {
    let change = ("    pub provisioned: u64,", "    pub provisioned: i64,");
    let refusal = refusal("backend.rs", &[change], &[]);
    assert_names(&refusal, &["layout differs", "provisioned"]);
}

#[test]
fn another_major_version_is_refused() {
    let refusal =
        refusal("abi.rs", &[("pub const MAJOR: u32 = 1;", "pub const MAJOR: u32 = 2;")], &[]);
    assert_names(&refusal, &["ABI 2.", "this host serves 1.x"]);
}
