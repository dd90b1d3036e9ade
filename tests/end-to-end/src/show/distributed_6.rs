// SPDX-License-Identifier: Apache-2.0
//! What an operator asks a distributed backend for: the options as the running host has them, nodes of one driver only,
//! and what is refused. And its benchmark: a speed fails nothing; the long form says of each target whether it is met.

mod refusals;

use std::time::Duration;

use serde_json::{Value, json};

use super::Stage;
use crate::{
    cluster::{BACKEND, Cluster},
    failure::{Context, Failure, Outcome, ensure},
    host::install,
    program::{Program, until},
};

/// What the table has at least: lines with a rate.
const LOADS: usize = 6;
/// Three local nodes, and one of another driver.
const NODES: [&str; 4] = ["n1", "n2", "n3", "odd"];
const MORE: &str = "shard_size = \"32MiB\"\nhealth_check_interval = \"5s\"\nmax_capacity = \"1GiB\"\n\
                    io_timeout_secs = 1\n\n\
                    [backends.odd]\ndriver = \"faulty\"\n";

pub(super) fn play(stage: &Stage) -> Outcome {
    let room = stage.path("nodes");
    let cluster = Cluster::start(&stage.artifacts, &room, 3, &["odd"], MORE)?;
    install(&stage.artifacts.faulty()?, &cluster.host.plugins())?;
    let options = until(Duration::from_secs(30), || {
        let shown = shown(&cluster)?;
        shown.get("options").cloned().ok_or_else(|| Failure::new(format!("no options: {shown}")))
    })?;
    let wrong: Vec<String> = expected()
        .into_iter()
        .filter(|(key, value)| options[*key] != *value)
        .map(|(key, value)| format!("{key} is {}, not {value}", options[key]))
        .collect();
    ensure(wrong.is_empty(), || wrong.join("\n"))?;
    let count = options.as_object().map_or(0, serde_json::Map::len);
    stage.tell(format!("{count} options read back, as configured or by default"));

    refusals::play(&cluster)?;
    stage.tell(format!("{} requests refused with the way on, nothing written", refusals::count()));

    for driver in ["local", "faulty"] {
        let factor = if driver == "local" { "3" } else { "1" };
        let only = [("drivers", driver), ("replication_factor", factor)];
        cluster.host.cli().create_volume(driver, 32 << 20, Some(BACKEND), &only)?;
        cluster.host.cli().add_export(driver)?;
        let on: Vec<String> = cluster.replicas(driver)?.into_keys().collect();
        let wanted = if driver == "local" { &NODES[..3] } else { &NODES[3..] };
        ensure(on == wanted, || format!("the replicas of {driver} are on {on:?}"))?;
    }
    stage.tell("a volume over nodes of one driver only");
    all_copies_lost(&cluster)?;
    stage.tell("without any copy a volume stops, and says where they were, what is at risk, and the way on");
    drop(cluster);

    let again = Cluster::start(&stage.artifacts, &stage.path("again"), 2, &["n1"], "")?;
    until(Duration::from_secs(30), || {
        let why = shown(&again)?["why"].to_string();
        ensure(why.contains("named twice"), || format!("a backend is two nodes: {why}"))
    })?;
    stage.tell("a backend that is named twice as a node is refused");
    drop(again);
    benchmark(stage)
}

/// The only node of a volume hangs for longer than it may: nothing is answered from then on but with the reason.
fn all_copies_lost(cluster: &Cluster) -> Outcome {
    let cli = cluster.host.cli();
    let write = || {
        let uri = cluster.host.uri("faulty");
        Program::new("qemu-io").args(["-f", "raw", "-c", "write -P 1 0 64k", &uri]).codes(&[])
    };
    ensure(write().run()?.code == 0, || "the volume is not written".to_owned())?;
    cli.run_on_backend("odd", "freeze", &json!({ "frozen": true }))?;
    ensure(write().run()?.code != 0, || "a write to no copy was acknowledged".to_owned())?;
    cli.run_on_backend("odd", "freeze", &json!({ "frozen": false }))?;
    let said = cli.ask().args(["shard", "read", "faulty", "0"]).codes(&[]).run()?;
    let texts = ["the last in-sync copy is gone: node odd", "At risk", "Bring node odd back"];
    ensure(said.code > 0 && texts.iter().all(|text| said.stderr.contains(text)), || {
        format!("the volume serves, or does not say why not: {}", said.stderr)
    })
}

fn benchmark(stage: &Stage) -> Outcome {
    let program = Program::new(stage.artifacts.benchmark("distributed")?);
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
        ("max_capacity", json!(1 << 30)),
        ("default_replication_factor", json!(3)),
        ("default_encryption", json!(false)),
        ("enable_sharding", json!(true)),
        ("shard_size", json!(32 << 20)),
        ("consistency_protocol", json!("eventual")),
        ("healing_query_count", json!(5)),
        ("health_check_interval", json!("5s")),
        ("down_grace", json!("10m")),
        ("auto_rebalance", json!(false)),
        ("healing_pace", json!("gentle")),
        ("healing_interval", json!("1h")),
        ("synchronous_replication", json!(true)),
        ("placement", json!("balanced")),
        ("nodes", json!(NODES)),
    ]
}

fn shown(cluster: &Cluster) -> Outcome<Value> {
    let cli = cluster.host.cli();
    let said = cli.ask().args(["backend", "show", BACKEND, "--output", "json"]).run()?;
    serde_json::from_str(&said.stdout).context("backend show")
}
