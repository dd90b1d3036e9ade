// SPDX-License-Identifier: Apache-2.0
//! The ceph driver keeps every promise of a volume, asked of it against a cluster of three OSDs.

use std::fs;

use super::Stage;
use crate::{
    ceph::{BACKEND, Ceph},
    cli::Cli,
    failure::{Context, Outcome, ensure},
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let ceph = Ceph::start(&stage.path("ceph"))?;
    let config = stage.path("check.toml");
    fs::write(&config, ceph.section(BACKEND, "")).context(config.display())?;
    let cli = Cli::new(&stage.artifacts.host()?, &stage.path("no.sock"));
    let rounds: &[&[&str]] =
        if stage.is_long() { &[&[], &["--long", "--seed", "2"]] } else { &[&[]] };
    for more in rounds {
        let said = cli.check_driver_with(&stage.artifacts.ceph()?, &config, more)?;
        stage.tell_all(&said.stdout);
        let last = said.stdout.lines().last().unwrap_or_default();
        ensure(last.contains(" checks passed, 0 failed"), || format!("the check says {last:?}"))?;
        ensure(said.stdout.contains("fencing          exclusive_lock"), || {
            "the matrix does not show how writers are fenced".to_owned()
        })?;
    }
    Ok(())
}
