// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the driver boundary: it prints what it measured and fails above its limits.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    workspace,
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let said = workspace::cargo()
        .args(["run", "--release", "--quiet", "-p", "novastor-bench", "--bin", "abi"])
        .run()?;
    ensure(!said.stdout.trim().is_empty(), || "the benchmark says nothing".to_owned())?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    Ok(())
}
