// SPDX-License-Identifier: Apache-2.0
//! The ABI across versions, and what the host refuses or contains: the tests that say so are run by themselves.

use std::path::Path;

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    workspace::{self, TestProgram},
};

const LIMIT_SECS: u64 = 300;

pub(super) fn play(stage: &Stage) -> Outcome {
    let programs = workspace::test_programs()?;
    stage.tell("tests built");
    let root = workspace::root();
    let compatibility = |test: &&TestProgram| in_crate(test, &root.join("tests/old-drivers"));
    let refusals = |test: &&TestProgram| {
        in_crate(test, &root.join("host")) && test.target.starts_with("plugins")
    };
    run(stage, "old and new drivers and hosts", programs.iter().filter(compatibility))?;
    run(stage, "refused and contained drivers", programs.iter().filter(refusals))
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
