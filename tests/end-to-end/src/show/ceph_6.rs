// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the ceph driver: its long form says of each target whether it is met. It fails where something is so
//! slow that it must be broken.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
};

/// What the table compares at least: the driver and the NBD export with fio's rbd engine, in six cases.
const COMPARISONS: usize = 12;

pub(super) fn play(stage: &Stage) -> Outcome {
    let program = Program::new(stage.artifacts.benchmark("rbd")?);
    let program = if stage.is_long() { program } else { program.arg("--short") };
    let said = program.codes(&[]).limit_secs(3600).run()?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    ensure(said.code == 0, || said.stderr)?;
    let compared = said.stdout.matches("x of fio's rbd engine").count();
    ensure(compared >= COMPARISONS, || format!("{compared} of {COMPARISONS} comparisons were made"))
}
