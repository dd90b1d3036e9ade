// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the driver boundary: it prints what it measured and fails above its limits.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
    workspace,
};

/// The benchmark and the drivers that it loads, built together so that they share their dependencies.
const CRATES: [&str; 6] =
    ["-p", "novastor-bench", "-p", "novastor-test-ram", "-p", "novastor-test-forward"];

pub(super) fn play(stage: &Stage) -> Outcome {
    workspace::cargo().args(["build", "--release", "--locked", "--quiet"]).args(CRATES).run()?;
    let benchmark = || Program::new(stage.artifacts.target().join("release/abi")).run();
    // A neighbour on the machine may cost one run its cache, hardly two.
    let said = benchmark().or_else(|failure| {
        stage.tell(format!("again, because {failure}"));
        benchmark()
    })?;
    ensure(!said.stdout.trim().is_empty(), || "the benchmark says nothing".to_owned())?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    Ok(())
}
