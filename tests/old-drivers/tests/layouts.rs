// SPDX-License-Identifier: Apache-2.0
//! Drivers built against a driver-api that claims this version and is not it: each is refused, the host unharmed.

use std::path::PathBuf;

use novastor_old_drivers::{Change, build_driver, build_host, changed_api, current_api, serve};

const FLUSH: &str = "    fn flush(&self, cx: &OpContext) -> Op<()>;\n";
const DISCARD: &str = "    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()>;\n";
const INSERTED: &str = "    fn verify(&self, cx: &OpContext) -> Op<()>;\n";

fn host() -> PathBuf {
    build_host(&current_api().expect("a place to build")).expect("the host builds")
}

/// What this host says to the memory driver of a changed driver-api.
fn refusal(name: &str, changes: &[Change<'_>]) -> String {
    let api = changed_api(name, changes).expect("the change applies");
    let driver = build_driver(&api).expect("the driver builds");
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
    let api = changed_api("unchanged", &[]).expect("a copy");
    let driver = build_driver(&api).expect("the driver builds");
    let served = serve(&host(), &driver).expect("the host ends by itself");
    assert!(served.ok && served.lines.contains("data=intact"), "{}", served.lines);
}

#[test]
fn an_inserted_method_is_refused() {
    let glue = "    fn flush(&self, cx: &OpContext) -> Op<()> {\n";
    let body = "    fn verify(&self, cx: &OpContext) -> Op<()> {\n        start(|| self.volume.flush(cx))\n    }\n\n";
    let with_body = format!("{body}{glue}");
    let with_method = format!("{INSERTED}{FLUSH}");
    let changes = [("abi.rs", FLUSH, &*with_method), ("export/volume.rs", glue, &with_body)];
    assert_names(&refusal("inserted", &changes), &["layout differs", "verify"]);
}

#[test]
fn reordered_methods_are_refused() {
    let both = format!("{FLUSH}{DISCARD}");
    let swapped = format!("{DISCARD}{FLUSH}");
    let refusal = refusal("reordered", &[("abi.rs", &both, &swapped)]);
    assert_names(&refusal, &["layout differs", "flush"]);
}

#[test]
fn a_changed_field_is_refused() {
    let change = ("backend.rs", "    pub provisioned: u64,", "    pub provisioned: i64,");
    assert_names(&refusal("field", &[change]), &["layout differs", "provisioned"]);
}

#[test]
fn another_major_version_is_refused() {
    let change = ("abi.rs", "pub const MAJOR: u32 = 1;", "pub const MAJOR: u32 = 2;");
    assert_names(&refusal("major", &[change]), &["ABI 2.", "this host serves 1.x"]);
}
