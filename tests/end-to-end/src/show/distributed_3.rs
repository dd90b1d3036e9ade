// SPDX-License-Identifier: Apache-2.0
//! The host of a volume with three replicas is killed at random moments under load: flushed bytes are there afterwards, and
//! the replicas are equal.

use std::time::Duration;

use super::{
    Stage,
    house_3::{LEDGER, SIZE, one_life},
};
use crate::{
    cluster::Cluster,
    failure::{Context, Outcome, ensure},
    load::Load,
    random::Random,
};

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    let kills = if stage.is_long() { 100 } else { 6 };
    stage.tell(format!("seed {seed}"));
    let flushes = kill_often(stage, kills, seed).context(format!("NOVASTOR_SEED={seed}"))?;
    stage.tell(format!(
        "{kills} kills, {flushes} acknowledged flushes: every flushed byte is there, and the replicas agree"
    ));
    Ok(())
}

fn kill_often(stage: &Stage, kills: u64, seed: u64) -> Outcome<u64> {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::start(&stage.artifacts, &stage.path("nodes"), 3, &[], "")?;
    cluster.volume("victim", SIZE)?;
    let load = Load::new(LEDGER / 512, 2, seed);
    for round in 1..=kills {
        let moment = Duration::from_millis(random.within(20..900));
        one_life(&mut cluster.host, &load, round, moment)
            .and_then(|()| cluster.replicas_agree("victim", 3))
            .context(format!("kill {round}, after {moment:?}"))?;
    }
    ensure(load.flushes() >= kills, || {
        "hardly anything was flushed: this shows nothing".to_owned()
    })?;
    cluster.host.stop()?;
    cluster.replicas_agree("victim", 3)?;
    Ok(load.flushes())
}
