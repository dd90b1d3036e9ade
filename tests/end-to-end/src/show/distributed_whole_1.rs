// SPDX-License-Identifier: Apache-2.0
//! The distributed core with all that it does beside replication: moves, snapshots, resharding, digests, followers. Without
//! any one of the protections that these need the simulator notices.

use super::{
    Stage,
    distributed_1::{missed_without, said, simulate},
};
use crate::{failure::Outcome, random::Random};

/// What the simulator plays, and what is said of it.
const ERAS: [(&str, &[&str]); 4] = [
    ("everything", &[]),
    ("shards move, and are of one size", &["--moving"]),
    ("shards stay", &["--staying"]),
    ("replicas follow, of a volume that is resized", &["--following", "--resizing"]),
];
/// The core's protections, and the era of the simulator that needs each.
const PROTECTIONS: [(&str, &[&str]); 4] = [
    ("digest-invalidation", &[]),
    ("snapshot-map", &[]),
    ("token-check", &["--following"]),
    ("log-order", &["--following"]),
];
/// Fresh seeds of each era that the two forms play.
const FEW: &str = "3000";
const MANY: &str = "150000";

pub(super) fn play(stage: &Stage) -> Outcome {
    let simulator = stage.artifacts.simulator()?;
    let seeds = if stage.is_long() { MANY } else { FEW };
    let first = (Random::seed() >> 1).to_string();
    stage.tell(format!("from seed {first} on"));
    for (name, era) in ERAS {
        let fresh = ["--first", &first, "--seeds", seeds, "--minutes", "30"];
        let found = simulate(&simulator, &[&fresh, era].concat(), &[0])?;
        stage.tell(said(name, &found));
    }
    PROTECTIONS
        .iter()
        .try_for_each(|(protection, era)| missed_without(stage, &simulator, protection, era))
}
