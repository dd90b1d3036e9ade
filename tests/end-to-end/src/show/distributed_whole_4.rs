// SPDX-License-Identifier: Apache-2.0
//! A sixth node joins five under a verifying load: what moves is what `node plan` said, also though the host is killed in
//! the middle and the job resumed. Then one of the old nodes is emptied and taken out. No byte is wrong, replicas agree, and
//! what was moved away occupies nothing. Snapshots that were taken before read the same all the time.

mod pictures;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use serde_json::Value;

use self::pictures::Pictures;
use super::Stage;
use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    load::Load,
    program::{Program, until},
    random::Random,
};

const MIB: u64 = 1 << 20;
const SHARD: u64 = MIB;
const FACTOR: u64 = 3;
/// The volume under load, and one that nobody writes to.
const BUSY: (&str, u64) = ("busy", 96 * MIB);
const STILL: (&str, u64) = ("still", 25 * MIB);
/// What the verifying load writes: the first part of the volume. The rest has one pattern.
const LEDGER: u64 = 32 * MIB;
const REST: &str = "-P 0xa5 32M 64M";
const ALL_STILL: &str = "-P 0x5a 0 25M";
const NODES: usize = 5;
const NEW: &str = "n6";
const OLD: &str = "n2";
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENT_SECS: u64 = 600;
/// What a file may occupy beside its data.
const SLACK: u64 = 256 << 10;
const IN_USE: i32 = 5;
const INVALID: i32 = 2;

pub(super) fn play(stage: &Stage) -> Outcome {
    let seed = Random::seed();
    stage.tell(format!("seed {seed}"));
    let mut random = Random::new(seed);
    for round in 1..=if stage.is_long() { 10 } else { 1 } {
        let room = stage.path(&format!("round-{round}"));
        one_round(stage, &room, &mut random)
            .context(format!("round {round}, NOVASTOR_SEED={seed}"))?;
    }
    Ok(())
}

fn one_round(stage: &Stage, room: &Path, random: &mut Random) -> Outcome {
    let new = room.join(NEW);
    fs::create_dir_all(&new).context(new.display())?;
    // Clients are at it all the time, and nobody measures them.
    let more = format!(
        "healing_pace = \"balanced\"\n\n[backends.{NEW}]\ndriver = \"local\"\ndir = {new:?}\nreserve_percent = 0\n"
    );
    let mut cluster = Cluster::start(&stage.artifacts, room, NODES, &[], &more)?;
    for (name, size) in [BUSY, STILL] {
        cluster.volume_with(name, size, &[("shard_size", "1MiB"), ("replication_factor", "3")])?;
    }
    clients::qemu_io(&cluster.host.uri(BUSY.0), &format!("write -f {REST}"))?;
    clients::qemu_io(&cluster.host.uri(STILL.0), &format!("write -f {ALL_STILL}"))?;
    let load = Load::new(LEDGER / 512, 2, random.number());

    let pictures = Pictures::take(&cluster, room, &load)?;
    // What the checks expect, over what the snapshots have.
    clients::qemu_io(&cluster.host.uri(STILL.0), &format!("write -f {ALL_STILL}"))?;

    let planned = plan(&cluster, &["--add", NEW])?;
    joins(stage, &mut cluster, room, &load, &planned)?;
    pictures.are_right(&cluster).context("a node joined")?;
    leaves(stage, &cluster, room, &load)?;
    pictures.are_right(&cluster).context("a node left")?;
    if stage.is_long() {
        each_is_drained(&cluster, &pictures)?;
    }
    stage.tell("four snapshots read as when they were taken");
    options(stage, &cluster)?;
    cluster.host.stop()
}

/// The sixth node gets its share.
fn joins(
    stage: &Stage,
    cluster: &mut Cluster,
    room: &Path,
    load: &Load,
    planned: &Value,
) -> Outcome {
    let before = maps(cluster)?;
    ensure(planned["total"]["copies"] == serde_json::json!([0, 0, 0, 121]), || {
        format!("not every shard has three replicas: {planned}")
    })?;
    said(cluster, &["node", "add", NEW])?;
    ensure(plan(cluster, &[])? == *planned, || "the plan is another one after it".to_owned())?;

    let socket = cluster.host.nbd_socket();
    let host = &mut cluster.host;
    let starts = host.cli().ask().args(["volume", "rebalance", BUSY.0]).codes(&[]);
    let middle = planned_bytes(planned, BUSY.0)? / 2;
    load.until_killed_by(&socket, BUSY.0, |ends| {
        thread::scope(|scope| {
            let asking = scope.spawn(move || starts.run());
            // Only the file system tells in time.
            until(PATIENCE, || {
                let has: u64 = bricks(&room.join(NEW))?.values().sum();
                ensure(has >= middle, || format!("{has} bytes have come to {NEW}"))
            })?;
            ends.store(true, Ordering::SeqCst);
            host.kill9()?;
            asking.join().map_err(|_| Failure::new("the thread that asks panicked"))?.map(drop)
        })
    })?;
    cluster.host.restart()?;
    load.verify(&mut cluster.host.connect(BUSY.0)?)?;
    let middle = maps(cluster)?;
    let jobs = json(cluster.host.cli().ask().args(["job", "list"]))?;
    ensure(jobs[0]["state"] == "interrupted", || format!("not in the middle: {jobs}"))?;
    let job = known(jobs[0]["id"].as_u64(), "the job has no number")?;
    stage.tell(format!(
        "killed with {} of {} shards moved",
        gained(&before[BUSY.0], &middle[BUSY.0]),
        planned_bytes(planned, BUSY.0)? / SHARD
    ));
    load.during(&socket, BUSY.0, || {
        said(cluster, &["job", "resume", &job.to_string()])?;
        said(cluster, &["volume", "rebalance", STILL.0])
    })?;
    for (name, size) in [BUSY, STILL] {
        let after = shards(cluster, name)?;
        let moved = gained(&before[name], &middle[name]) + gained(&middle[name], &after);
        let least = planned_bytes(planned, name)? / SHARD;
        ensure(moved > 0 && moved <= (least * 105 / 100).max(least + 1), || {
            format!("{moved} shards of {name} were moved, {least} were planned")
        })?;
        spread(&after, size, NODES + 1).context(name)?;
        stage.tell(format!("{name}: {moved} replicas moved, {least} planned; even within one"));
    }
    right(cluster, room, load)
}

/// An old node is emptied and taken out.
fn leaves(stage: &Stage, cluster: &Cluster, room: &Path, load: &Load) -> Outcome {
    let refused = cluster.host.cli().ask().args(["node", "remove", OLD]).codes(&[IN_USE]).run()?;
    ensure(refused.stderr.contains(&format!("novastor node drain {OLD}")), || {
        format!("it does not say the way on: {}", refused.stderr)
    })?;
    let planned = plan(cluster, &["--drain", OLD])?;
    let before = maps(cluster)?;
    said(cluster, &["node", "drain", OLD])?;
    load.during(&cluster.host.nbd_socket(), BUSY.0, || {
        [BUSY, STILL].iter().try_for_each(|(name, _)| said(cluster, &["volume", "rebalance", name]))
    })?;
    for (name, size) in [BUSY, STILL] {
        let after = shards(cluster, name)?;
        ensure(!after.iter().any(|nodes| nodes.contains(OLD)), || format!("{OLD} has shards"))?;
        let (moved, least) =
            (gained(&before[name], &after), planned_bytes(&planned, name)? / SHARD);
        ensure(moved <= (least * 105 / 100).max(least + 1), || {
            format!("{moved} shards of {name} were moved, {least} were planned")
        })?;
        spread(&after, size, NODES).context(name)?;
    }
    let left = bricks(&room.join(OLD))?;
    ensure(left.is_empty(), || format!("bricks are left on {OLD}: {left:?}"))?;
    said(cluster, &["node", "remove", OLD])?;
    stage.tell(format!("{OLD} was emptied under load and taken out"));
    right(cluster, room, load)
}

/// Every node that is left is emptied once, so that no snapshot is where it was taken.
fn each_is_drained(cluster: &Cluster, pictures: &Pictures) -> Outcome {
    let names = (1..=NODES + 1).map(|number| format!("n{number}"));
    for node in names.filter(|node| node != OLD) {
        let everything_moves = || {
            [BUSY, STILL]
                .iter()
                .try_for_each(|(name, _)| said(cluster, &["volume", "rebalance", name]))
        };
        said(cluster, &["node", "drain", &node])?;
        everything_moves().context(format!("{node} is drained"))?;
        for (name, _) in [BUSY, STILL] {
            let map = shards(cluster, name)?;
            ensure(!map.iter().any(|nodes| nodes.contains(&node)), || {
                format!("{node} has shards")
            })?;
        }
        pictures.are_right(cluster).context(format!("{node} is drained"))?;
        said(cluster, &["node", "drain", &node, "--undo"])?;
        everything_moves().context(format!("{node} is back"))?;
    }
    Ok(())
}

/// Options that say where shards belong can be changed; others say that they cannot.
fn options(stage: &Stage, cluster: &Cluster) -> Outcome {
    let refused = |option: &str| {
        let words = ["volume", "set", STILL.0, option];
        cluster.host.cli().ask().args(words).codes(&[INVALID]).run().map(drop)
    };
    ["shard_size=1500KiB", "replication_factor=6", "replication_factor=0", "placement=best"]
        .into_iter()
        .try_for_each(refused)?;
    said(cluster, &["volume", "set", STILL.0, "replication_factor=2"])?;
    said(cluster, &["volume", "rebalance", STILL.0])?;
    let after = shards(cluster, STILL.0)?;
    ensure(after.iter().all(|nodes| nodes.len() == 2), || format!("not two each: {after:?}"))?;
    said(cluster, &["volume", "verify", STILL.0])?;
    clients::qemu_io(&cluster.host.uri(STILL.0), &format!("read {ALL_STILL}"))?;
    stage.tell("a volume went from three replicas to two while it was in use");
    Ok(())
}

/// No byte is wrong, replicas agree, and bricks occupy only what they hold.
fn right(cluster: &Cluster, room: &Path, load: &Load) -> Outcome {
    load.verify(&mut cluster.host.connect(BUSY.0)?)?;
    clients::qemu_io(&cluster.host.uri(BUSY.0), &format!("read {REST}"))?;
    clients::qemu_io(&cluster.host.uri(STILL.0), &format!("read {ALL_STILL}"))?;
    for (name, _) in [BUSY, STILL] {
        said(cluster, &["volume", "verify", name])?;
        let held = shards(cluster, name)?;
        let keepers = pictures::keepers(cluster, name)?;
        for number in 1..=NODES + 1 {
            let node = format!("n{number}");
            let bytes = held.iter().filter(|nodes| nodes.contains(&node)).count() as u64 * SHARD;
            for (brick, allocated) in bricks(&room.join(&node))? {
                if keepers.contains(&brick) {
                    continue;
                }
                ensure(!brick.starts_with(name) || allocated <= bytes + SLACK, || {
                    format!("{brick} on {node} occupies {allocated}, and holds {bytes}")
                })?;
            }
        }
    }
    Ok(())
}

/// The nodes of each shard.
type Map = Vec<BTreeSet<String>>;

fn maps(cluster: &Cluster) -> Outcome<BTreeMap<&'static str, Map>> {
    [BUSY, STILL].into_iter().map(|(name, _)| Ok((name, shards(cluster, name)?))).collect()
}

fn shards(cluster: &Cluster, volume: &str) -> Outcome<Map> {
    let listed = json(cluster.host.cli().ask().args(["volume", "shards", volume]))?;
    let nodes = |shard: &Value| {
        let nodes = shard["nodes"].as_array()?.iter();
        nodes.map(|node| Some(node.as_str()?.to_owned())).collect()
    };
    let all: Option<Map> = known(listed.as_array(), "no list")?.iter().map(nodes).collect();
    known(all, "a shard has no nodes")
}

/// Replicas that a map has and an earlier one had not.
fn gained(before: &Map, after: &Map) -> u64 {
    after.iter().zip(before).map(|(now, then)| now.difference(then).count() as u64).sum()
}

/// Each node has its share of shards, within one.
fn spread(map: &Map, size: u64, nodes: usize) -> Outcome {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    map.iter().flatten().for_each(|node| *counts.entry(node).or_default() += 1.0);
    let ideal = (size.div_ceil(SHARD) * FACTOR) as f64 / nodes as f64;
    let even = counts.len() == nodes && counts.values().all(|has| (has - ideal).abs() <= 1.0);
    ensure(even, || format!("the ideal is {ideal}: {counts:?}"))
}

/// The bricks in a local node's directory, and the bytes that each occupies.
fn bricks(node: &Path) -> Outcome<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    let volumes = node.join("volumes");
    for entry in fs::read_dir(&volumes).context(volumes.display())? {
        let path = entry.context(volumes.display())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains(".b") && !name.ends_with(".c") {
            let data = fs::metadata(path.join("disk.raw")).context(path.display())?;
            found.insert(name, data.blocks() * 512);
        }
    }
    Ok(found)
}

fn plan(cluster: &Cluster, words: &[&str]) -> Outcome<Value> {
    let plan = json(cluster.host.cli().ask().args(["node", "plan"]).args(words))?;
    let mut volumes = plan["volumes"].as_array().into_iter().flatten();
    let even = |volume: &Value| volume["worst_after"].as_u64().is_some_and(|far| far <= SHARD);
    ensure(volumes.all(even), || format!("it would not be even: {plan}"))?;
    Ok(plan)
}

fn planned_bytes(plan: &Value, volume: &str) -> Outcome<u64> {
    let all = plan["volumes"].as_array().into_iter().flatten();
    let one = all.into_iter().find(|one| one["volume"] == volume);
    known(one.and_then(|one| one["bytes"].as_u64()), &format!("no plan of {volume}: {plan}"))
}

fn json(program: Program) -> Outcome<Value> {
    let said = program.args(["--output", "json"]).run()?;
    serde_json::from_str(&said.stdout).context(&said.stdout)
}

/// Asks for it, however long it takes: healing gives way to the load.
fn said(cluster: &Cluster, words: &[&str]) -> Outcome {
    cluster.host.cli().ask().args(words).limit_secs(PATIENT_SECS).run().map(drop)
}

fn known<T>(value: Option<T>, what: &str) -> Outcome<T> {
    value.ok_or_else(|| Failure::new(what.to_owned()))
}
