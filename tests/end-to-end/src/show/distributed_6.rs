// SPDX-License-Identifier: Apache-2.0
//! The distributed driver's options as the running host has them, and its benchmark. A speed fails nothing; the long form
//! says of each target whether it is met.

use serde_json::{Value, json};

use super::Stage;
use crate::{
    cluster::{BACKEND, Cluster},
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    program::{Program, until},
    workspace,
};

/// What the table has at least: lines with a rate.
const LOADS: usize = 6;

pub(super) fn play(stage: &Stage) -> Outcome {
    let room = stage.path("nodes");
    let more = "shard_size = \"32MiB\"\nhealth_check_interval = \"5s\"";
    let cluster = Cluster::start(&stage.artifacts, &room, 3, &[], more)?;
    let options = options(&cluster.host)?;
    let wrong: Vec<String> = expected()
        .into_iter()
        .filter(|(key, value)| options[*key] != *value)
        .map(|(key, value)| format!("{key} is {}, not {value}", options[key]))
        .collect();
    ensure(wrong.is_empty(), || wrong.join("\n"))?;
    let count = options.as_object().map_or(0, serde_json::Map::len);
    stage.tell(format!("{count} options read back: some as configured, the others by default"));
    drop(cluster);

    workspace::cargo()
        .args(["build", "--release", "--locked", "--quiet", "-p", "novastor-bench"])
        .run()?;
    let program = Program::new(stage.artifacts.target().join("release/distributed"));
    let program = if stage.is_long() { program } else { program.arg("--short") };
    let said = program.limit_secs(1200).run()?;
    said.stdout.lines().for_each(|line| stage.tell(line));
    let loads = said.stdout.lines().filter(|line| line.contains(" /s ")).count();
    ensure(loads >= LOADS, || format!("{loads} loads gave figures, {LOADS} should have"))
}

/// What the configuration above and the driver's promised defaults come to.
fn expected() -> Vec<(&'static str, Value)> {
    vec![
        ("root_dir", json!("/var/lib/novacron/distributed")),
        ("max_capacity", json!(0)),
        ("default_replication_factor", json!(3)),
        ("default_encryption", json!(false)),
        ("enable_sharding", json!(true)),
        ("shard_size", json!(32 << 20)),
        ("consistency_protocol", json!("eventual")),
        ("healing_query_count", json!(5)),
        ("health_check_interval", json!("5s")),
        ("healing_interval", json!("1h")),
        ("synchronous_replication", json!(true)),
        ("nodes", json!(["n1", "n2", "n3"])),
    ]
}

fn options(host: &Host) -> Outcome<Value> {
    until(std::time::Duration::from_secs(30), || {
        let said = host.cli().ask().args(["backend", "show", BACKEND, "--output", "json"]).run()?;
        let shown: Value = serde_json::from_str(&said.stdout).context("backend show")?;
        match shown.get("options") {
            Some(options) => Ok(options.clone()),
            None => Err(Failure::new(format!("the backend shows no options: {shown}"))),
        }
    })
}
