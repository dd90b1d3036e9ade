// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the NBD export: its long form says of each target whether it is met, its short form only that all of
//! it runs and gives figures. A speed fails neither.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
};

/// What the table has at least: a line for each load on each kind of disk.
const LOADS: usize = 24;

pub(super) fn play(stage: &Stage) -> Outcome {
    let program = Program::new(stage.artifacts.benchmark("nbd")?);
    let said = if stage.is_long() { program } else { program.arg("--short") };
    let said = said.limit_secs(3600).run()?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    let loads = said.stdout.lines().filter(|line| line.contains("/s ")).count();
    ensure(loads >= LOADS, || format!("{loads} loads gave figures, {LOADS} should have"))
}
