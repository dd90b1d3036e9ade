// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the object-storage driver and its commands beside rclone: its long form says of each target whether it is
//! met. It fails where something is so slow, or takes so much memory, that it must be broken.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
};

/// What the table compares: up, down and a listing.
const COMPARISONS: usize = 3;

pub(super) fn play(stage: &Stage) -> Outcome {
    let program = Program::new(stage.artifacts.benchmark("objects")?);
    let program = if stage.is_long() { program } else { program.arg("--short") };
    let said = program.codes(&[]).limit_secs(3600).run()?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    ensure(said.code == 0, || said.stderr)?;
    let compared = said.stdout.matches("x of rclone").count();
    ensure(compared == COMPARISONS, || format!("{compared} of {COMPARISONS} comparisons"))?;
    let memory = said.stdout.matches("MiB of memory").count();
    ensure(memory >= 2, || "memory was not measured".to_owned())
}
