// SPDX-License-Identifier: Apache-2.0
//! Finds out whether librbd and librados can be linked; where not, the driver is built to say so.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// What the driver is linked with; Debian's librbd-dev and librados-dev bring them.
const LIBRARIES: [&str; 2] = ["rbd", "rados"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(librbd)");
    println!("cargo::rerun-if-changed=build.rs");
    if links() {
        println!("cargo::rustc-cfg=librbd");
        return;
    }
    // A file that is not there has this asked again at the next build.
    println!("cargo::rerun-if-changed=librbd-was-missing");
    println!(
        "cargo::warning=librbd or librados cannot be linked: the ceph driver will refuse to open \
         (on Debian: apt-get install librbd-dev librados-dev)"
    );
}

/// Whether a program that does nothing links with them.
fn links() -> bool {
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return false };
    let source = out.join("probe.c");
    if fs::write(&source, "int main(void) { return 0; }\n").is_err() {
        return false;
    }
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let mut probe = Command::new(linker);
    probe.arg(&source).arg("-o").arg(out.join("probe"));
    probe.args(LIBRARIES.map(|library| format!("-l{library}")));
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
