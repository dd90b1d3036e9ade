// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the driver boundary: it prints what it measured and fails above its limits.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let program = stage.artifacts.benchmark("abi")?;
    let benchmark = || Program::new(&program).run();
    // A neighbour on the machine may cost one run its cache, hardly two.
    let said = benchmark().or_else(|failure| {
        stage.tell(format!("again, because {failure}"));
        benchmark()
    })?;
    ensure(!said.stdout.trim().is_empty(), || "the benchmark says nothing".to_owned())?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    Ok(())
}
