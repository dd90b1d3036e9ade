// SPDX-License-Identifier: Apache-2.0
//! The benchmark of the netfs driver: it prints what it measured and fails below its limits, which in the short form are
//! such that only what is broken misses them.

use super::Stage;
use crate::{
    failure::{Outcome, ensure},
    program::Program,
};

/// What the table compares: two cases with libnfs, four with smbclient, four with one operation at a time.
const COMPARISONS: [(&str, usize); 3] =
    [("x of libnfs", 2), ("x of smbclient", 4), ("x of one at a time", 4)];

pub(super) fn play(stage: &Stage) -> Outcome {
    let program = Program::new(stage.artifacts.benchmark("netfs")?);
    let program = if stage.is_long() { program } else { program.arg("--short") };
    let said = program.codes(&[]).limit_secs(3600).run()?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    ensure(said.code == 0, || said.stderr)?;
    COMPARISONS.iter().try_for_each(|(with, count)| {
        let compared = said.stdout.matches(with).count();
        ensure(compared == *count, || format!("{compared} of {count} comparisons {with}"))
    })
}
