// SPDX-License-Identifier: Apache-2.0
//! A driver crate that knows driver-api alone, built far from this workspace, dropped into a host that runs.

use std::{fs, path::Path, path::PathBuf, time::Duration};

use super::Stage;
use crate::{
    clients,
    failure::{Context, Outcome, ensure},
    host::{Host, install},
    program::{Program, until},
    workspace::root,
};

const MIB: u64 = 1 << 20;
/// A backend that waits for its driver.
const BACKEND: &str = "\n[backends.outside]\ndriver = \"memory\"\n";

pub(super) fn play(stage: &Stage) -> Outcome {
    let host = Host::start(&stage.artifacts, BACKEND)?;
    let early = host.cli().create_volume("early", MIB, Some("outside"), &[]);
    ensure(early.is_err(), || "a backend without its driver made a volume".to_owned())?;
    let driver = build(stage)?;
    stage.tell("built outside the workspace");

    let config = stage.path("check.toml");
    fs::write(&config, "").context(config.display())?;
    host.cli().check_driver(&driver, &config)?;
    stage.tell("`novastor driver check` passes");

    install(&driver, &host.plugins())?;
    until(Duration::from_secs(30), || {
        let drivers = host.cli().drivers()?;
        let loaded =
            drivers.iter().any(|driver| driver.name == "memory" && driver.state == "loaded");
        ensure(loaded, || format!("the dropped driver is not loaded: {drivers:?}"))
    })?;
    stage.tell("dropped into plugins.d of the running host, and loaded");

    until(Duration::from_secs(30), || {
        host.cli().create_volume("guest", 32 * MIB, Some("outside"), &[])
    })?;
    host.cli().add_export("guest")?;
    let uri = host.uri("guest");
    for command in
        ["read -P 0 0 1M", "write -P 0x77 4k 1M", "read -P 0x77 4k 1M", "read -P 0 2M 1M"]
    {
        clients::qemu_io(&uri, command)?;
    }
    let info = clients::nbdinfo(&uri)?;
    ensure(info["export-size"] == 32 * MIB, || format!("nbdinfo says: {info}"))?;
    stage.tell("its volume serves qemu-io and nbdinfo");
    Ok(())
}

/// Writes the crate and builds it, with the workspace's versions of driver-api's dependencies.
fn build(stage: &Stage) -> Outcome<PathBuf> {
    let home = stage.path("outside");
    let source = home.join("src/lib.rs");
    fs::create_dir_all(home.join("src")).context(home.display())?;
    fs::copy(root().join("driver-api/examples/memory.rs"), &source)
        .context("the example's source")?;
    fs::copy(root().join("Cargo.lock"), home.join("Cargo.lock")).context("Cargo.lock")?;
    fs::write(home.join("Cargo.toml"), manifest(&root())).context("Cargo.toml")?;
    let target = stage.artifacts.target().join("outside");
    Program::giving_way("cargo")
        .args(["build", "--release", "--quiet"])
        .env("CARGO_TARGET_DIR", &target)
        .without_env("CARGO_MANIFEST_DIR")
        .directory(&home)
        .limit_secs(900)
        .run()?;
    Ok(target.join("release/liboutside.so"))
}

fn manifest(root: &Path) -> String {
    let api = root.join("driver-api");
    format!(
        "[package]\nname = \"outside\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [dependencies]\ndriver-api = {{ package = \"novastor-driver-api\", path = {:?} }}\n\n\
         [workspace]\n",
        api.display().to_string()
    )
}
