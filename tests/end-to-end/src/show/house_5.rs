// SPDX-License-Identifier: Apache-2.0
//! The ABI across versions, and what the host refuses or contains: the tests that say so are run by themselves.

use std::{path::Path, time::Duration};

use super::Stage;
use crate::{
    cli::Driver,
    clients,
    failure::{Failure, Outcome, ensure},
    host::{Host, install},
    program::until,
    workspace::{self, TestProgram},
};

const LIMIT_SECS: u64 = 300;
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;
const BACKENDS: &str = "
[backends.old]
driver = \"memory\"

[backends.panics]
driver = \"faulty\"
panic_in = \"write\"

[backends.blocks]
driver = \"faulty\"
block_in = \"flush\"
block_ms = 60
";

pub(super) fn play(stage: &Stage) -> Outcome {
    let programs = workspace::test_programs()?;
    stage.tell("tests built");
    let root = workspace::root();
    let compatibility = |test: &&TestProgram| in_crate(test, &root.join("tests/old-drivers"));
    let refusals = |test: &&TestProgram| {
        in_crate(test, &root.join("host")) && test.target.starts_with("plugins")
    };
    run(stage, "old and new drivers and hosts", programs.iter().filter(compatibility))?;
    run(stage, "refused and contained drivers", programs.iter().filter(refusals))?;
    serve_on(stage)
}

/// One daemon with a driver of ABI 1.0, one that panics and blocks, and a sound one.
fn serve_on(stage: &Stage) -> Outcome {
    let host = Host::start(&stage.artifacts, BACKENDS)?;
    let old = workspace::root().join("tests/old-drivers/1.0/libmemory.so");
    install(&old, &host.plugins())?;
    install(&stage.artifacts.faulty()?, &host.plugins())?;
    host.volume("sound", MIB, "raw")?;
    for backend in ["old", "panics", "blocks"] {
        until(PATIENCE, || host.cli().create_volume(backend, MIB, Some(backend), &[]))?;
        host.cli().add_export(backend)?;
    }
    let write = |export: &str| clients::qemu_io(&host.uri(export), "write -P 9 0 64k");
    write("old")?;
    let named = |name: &str| -> Outcome<Driver> {
        let drivers = host.cli().drivers()?;
        let found = drivers.iter().find(|driver| driver.name == name).cloned();
        found.ok_or_else(|| Failure::new(format!("no driver {name} among {drivers:?}")))
    };
    let memory = named("memory")?;
    ensure(memory.abi == "1.0" && memory.state == "loaded", || format!("{memory:?}"))?;
    stage.tell("the driver of ABI 1.0 serves in this host");

    ensure(write("panics").is_err(), || "a write in which the driver panicked succeeded".into())?;
    let faulty = named("faulty")?;
    let degraded = faulty.state == "degraded" && faulty.why.contains("write");
    ensure(degraded, || format!("after a panic in write: {faulty:?}"))?;
    stage.tell(format!("a driver that panicked is degraded: {}", faulty.why));

    clients::qemu_io(&host.uri("blocks"), "flush")?;
    until(PATIENCE, || {
        let faulty = named("faulty")?;
        ensure(faulty.last_blocked.contains("flush"), || format!("nobody is named: {faulty:?}"))
    })?;
    stage.tell(format!("a driver that held a thread is named: {}", named("faulty")?.last_blocked));
    for export in ["sound", "old"] {
        write(export)?;
        clients::qemu_io(&host.uri(export), "read -P 9 0 64k")?;
    }
    stage.tell("the others serve on");
    Ok(())
}

fn in_crate(test: &TestProgram, directory: &Path) -> bool {
    test.directory
        .canonicalize()
        .is_ok_and(|found| Ok(found) == directory.canonicalize().map_err(|_| ()))
}

fn run<'a>(stage: &Stage, what: &str, programs: impl Iterator<Item = &'a TestProgram>) -> Outcome {
    let mut passed = 0;
    for program in programs {
        passed += workspace::passed(&workspace::run_tests(program, LIMIT_SECS)?);
    }
    ensure(passed > 0, || format!("no test shows {what}"))?;
    stage.tell(format!("{what}: {passed} tests pass"));
    Ok(())
}
