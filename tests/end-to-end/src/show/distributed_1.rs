// SPDX-License-Identifier: Apache-2.0
//! The distributed core survives every fault that the simulator has, in every state of a replica; without any one of its
//! protections it does not, which shows that the simulator would notice.

use std::path::Path;

use serde_json::Value;

use super::Stage;
use crate::{
    failure::{Context, Outcome, ensure},
    program::Program,
    random::Random,
};

/// How often each fault has to meet each state of a replica.
const AT_LEAST: u64 = 1000;
/// How many fresh seeds the long form plays, and how many at least in the time that it has.
const MOST_FRESH: &str = "2000000";
const LEAST_FRESH: u64 = 1_000_000;
/// The core's protections, as the simulator takes them.
const PROTECTIONS: [&str; 8] = [
    "intent-log",
    "stale-before-acknowledge",
    "ordered-overlaps",
    "pinned-reads",
    "late-write-rule",
    "incarnation-check",
    "volatile-joining",
    "clean-join",
];
/// What each of them has, in minutes, to be missed; beside other scenes it takes longer.
const TO_FAIL: &str = "3";

pub(super) fn play(stage: &Stage) -> Outcome {
    let simulator = stage.artifacts.simulator()?;
    let at_least = AT_LEAST.to_string();
    let known = simulate(&simulator, &["--seeds", "10000", "--at-least", &at_least], &[0])?;
    stage.tell(said("the first seeds", &known));
    if stage.is_long() {
        // Seeds that nobody has seen before.
        let first = Random::seed() >> 1;
        stage.tell(format!("from seed {first} on"));
        let first = first.to_string();
        let fresh = ["--first", &first, "--seeds", MOST_FRESH, "--minutes", "100"];
        let found = simulate(&simulator, &fresh, &[0])?;
        stage.tell(said("fresh seeds", &found));
        ensure(found["seeds"].as_u64() >= Some(LEAST_FRESH), || {
            format!("that is less than {LEAST_FRESH} seeds: give it a machine with more processors")
        })?;
    }
    PROTECTIONS.iter().try_for_each(|protection| missed_without(stage, &simulator, protection, &[]))
}

/// Plays seeds until the simulator notices that a protection is missing.
pub(super) fn missed_without(
    stage: &Stage,
    simulator: &Path,
    protection: &str,
    era: &[&str],
) -> Outcome {
    let asked = ["--without", protection, "--minutes", TO_FAIL, "--seeds", "1000000000"];
    let found = simulate(simulator, &[&asked, era].concat(), &[1])?;
    ensure(found["violation"].is_string(), || {
        format!("without {protection} nothing went wrong in {} seeds", found["seeds"])
    })?;
    stage.tell(format!(
        "without {protection}: wrong after {} seeds, {} s",
        found["seeds"],
        found["seconds"].as_f64().unwrap_or_default().round()
    ));
    Ok(())
}

pub(super) fn simulate(simulator: &Path, arguments: &[&str], codes: &[i32]) -> Outcome<Value> {
    let program = Program::giving_way(simulator).args(["--output", "json"]).args(arguments);
    let said = program.codes(codes).limit_secs(7000).run()?;
    serde_json::from_str(&said.stdout).context("what the simulator says")
}

pub(super) fn said(what: &str, found: &Value) -> String {
    format!(
        "{what}: {} seeds, {} events, no violation, {:.0} s; rarest: {} of a replica {}, {} times",
        found["seeds"],
        found["events"],
        found["seconds"].as_f64().unwrap_or_default(),
        found["rarest"]["fault"],
        found["rarest"]["state"],
        found["rarest"]["count"]
    )
}
