// SPDX-License-Identifier: Apache-2.0
//! Bits flip at rest on one replica, at many places, with three copies and with two. A scrub with digests names the bad
//! replica for every flip and repairs it; with `verify_reads` no client reads a wrong byte.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    clients,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    random::Random,
    show::Stage,
};

const MIB: u64 = 1 << 20;
/// The exit code of a command that found damage.
const CORRUPTED: i32 = 12;
const NODES: usize = 5;

/// A volume, and the node whose disk goes bad.
struct Victim {
    name: &'static str,
    factor: &'static str,
    node: &'static str,
    image: PathBuf,
}

/// Plays all of it in `room`, which is made.
///
/// # Errors
/// What was not as it must be.
pub(super) fn play(stage: &Stage, room: &Path, random: &mut Random) -> Outcome {
    fs::create_dir_all(room).context(room.display())?;
    let size = if stage.is_long() { 256 * MIB } else { 32 * MIB };
    let count = if stage.is_long() { 200 } else { 24 };
    let mut cluster = Cluster::start(&stage.artifacts, room, NODES, &[], "")?;
    let victims = [("three", "3", "n2"), ("two", "2", "n4")].map(|(name, factor, node)| Victim {
        name,
        factor,
        node,
        image: room.join(format!("{name}.image")),
    });
    for victim in &victims {
        fill(&cluster, victim, size, random)?;
    }
    for victim in &victims {
        let told = scrub(&cluster, victim.name, &[], &[0])?;
        ensure(told["digested"] == size && told["found"] == 0, || {
            format!("a sound volume: {told}")
        })?;
    }
    stage.tell(format!("{} MiB with three copies and with two have digests", size / MIB));

    cluster.host.stop()?;
    let mut flipped = Vec::new();
    for victim in &victims {
        flipped.push(flip(&cluster, victim, size, count, random)?);
    }
    cluster.host.restart()?;
    for (victim, places) in victims.iter().zip(&flipped) {
        let told = scrub(&cluster, victim.name, &[], &[CORRUPTED])?;
        is_named(victim, places, &told)?;
        stage.tell(format!(
            "{} of {}: {} bits flipped in {} digested ranges, the scrub named {} for each",
            victim.node, victim.name, count, told["found"], victim.node
        ));
        let told = scrub(&cluster, victim.name, &["--repair"], &[0])?;
        let findings = told["findings"].as_array().cloned().unwrap_or_default();
        ensure(findings.iter().all(|one| one["repair"] == "verified"), || {
            format!("not all repairs were read back: {told}")
        })?;
        cluster.host.cli().ask().args(["volume", "verify", victim.name]).run()?;
        clients::compare(&victim.image, &cluster.host.uri(victim.name))?;
    }
    stage.tell("repaired, read back from the disks, and verify is clean");
    reads_are_right(stage, &mut cluster, &victims, size, count, random)
}

/// The same with reads that are compared: nobody scrubs before they are read.
fn reads_are_right(
    stage: &Stage,
    cluster: &mut Cluster,
    victims: &[Victim],
    size: u64,
    count: usize,
    random: &mut Random,
) -> Outcome {
    for victim in victims {
        let set = ["volume", "set", victim.name, "verify_reads=true"];
        cluster.host.cli().ask().args(set).run()?;
    }
    cluster.host.stop()?;
    for victim in victims {
        flip(cluster, victim, size, count, random)?;
    }
    cluster.host.restart()?;
    for victim in victims {
        let uri = cluster.host.uri(victim.name);
        for _ in 0..3 {
            clients::compare(&victim.image, &uri)?;
        }
        scrub(cluster, victim.name, &["--repair"], &[0])?;
        cluster.host.cli().ask().args(["volume", "verify", victim.name]).run()?;
        let set = ["volume", "set", victim.name, "verify_reads=false"];
        cluster.host.cli().ask().args(set).run()?;
        clients::compare(&victim.image, &uri)?;
    }
    stage.tell(format!(
        "with verify_reads every read was right with {count} bits flipped in each volume, and the bad replicas were mended"
    ));
    cluster.host.stop()
}

fn fill(cluster: &Cluster, victim: &Victim, size: u64, random: &mut Random) -> Outcome {
    let bytes: Vec<u8> = (0..size / 8).flat_map(|_| random.number().to_le_bytes()).collect();
    fs::write(&victim.image, &bytes).context(victim.image.display())?;
    let options = [("shard_size", "1MiB"), ("replication_factor", victim.factor)];
    cluster.volume_with(victim.name, size, &options)?;
    clients::image_to_export(&victim.image, &cluster.host.uri(victim.name))
}

/// Scrubs, and gives what the host says of it then.
fn scrub(cluster: &Cluster, volume: &str, flags: &[&str], codes: &[i32]) -> Outcome<Value> {
    let ask = || cluster.host.cli().ask().args(["volume", "scrub", volume]);
    ask().args(flags).codes(codes).run()?;
    let said = ask().args(["--status", "--output", "json"]).run()?;
    let told: Value = serde_json::from_str(&said.stdout).context("scrub status")?;
    ensure(told["running"] == false && told["passed_over"] == 0, || {
        format!("the scrub left something out: {told}")
    })?;
    Ok(told)
}

/// Flips bits of one node's brick, in shards that it holds: where.
fn flip(
    cluster: &Cluster,
    victim: &Victim,
    size: u64,
    count: usize,
    random: &mut Random,
) -> Outcome<Vec<u64>> {
    let bricks = cluster.bricks(victim.name)?;
    let is_on = |brick: &&PathBuf| brick.components().any(|p| p.as_os_str() == victim.node);
    let brick = bricks.iter().find(is_on);
    let brick = brick.ok_or_else(|| Failure::new(format!("no brick on {}", victim.node)))?;
    let file = File::options().read(true).write(true).open(brick).context(brick.display())?;
    let image = fs::read(&victim.image).context(victim.image.display())?;
    let mut places = BTreeMap::new();
    for _ in 0..100 * count {
        let at = random.number() % size;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).context(brick.display())?;
        // What the node does not hold of the volume is a hole in its brick; the image has no page of zeros.
        let mut page = [0; 4096];
        let start = at / 4096 * 4096;
        file.read_exact_at(&mut page, start).context(brick.display())?;
        if page[..] != image[start as usize..start as usize + 4096] || places.contains_key(&start) {
            continue;
        }
        file.write_all_at(&[byte[0] ^ (1 << (random.number() % 8))], at)
            .context(brick.display())?;
        places.insert(start, at);
        if places.len() == count {
            return Ok(places.into_values().collect());
        }
    }
    Err(Failure::new(format!("{} holds too little of {}", victim.node, victim.name)))
}

/// Each flip lies in a finding that names the node and nobody else, and there is no other finding.
fn is_named(victim: &Victim, places: &[u64], told: &Value) -> Outcome {
    let findings = told["findings"].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    let has = |finding: &Value, at: u64| {
        let offset = number(&finding["offset"]);
        (offset..offset.saturating_add(number(&finding["len"]))).contains(&at)
    };
    for finding in &findings {
        let is_right = finding["bad"] == serde_json::json!([victim.node])
            && finding["verdict"] == "digest"
            && places.iter().any(|at| has(finding, *at));
        ensure(is_right, || format!("{} was changed, and told is {finding}", victim.node))?;
    }
    let missed: Vec<&u64> =
        places.iter().filter(|at| !findings.iter().any(|one| has(one, **at))).collect();
    ensure(missed.is_empty(), || format!("flips at {missed:?} were not found: {told}"))
}
