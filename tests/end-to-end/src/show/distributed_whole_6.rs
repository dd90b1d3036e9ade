// SPDX-License-Identifier: Apache-2.0
//! The figures: what placement costs and how good it is, and how much clients feel healing. For the latter fio works on an
//! export of three replicas, with and without the copies of one replica to another node, in turns; the throttle is on.

use std::{
    fs, panic,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::Stage;
use crate::{
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    program::Program,
};

const MIB: u64 = 1 << 20;
const VOLUME: &str = "disk";
const SIZE: u64 = 384 * MIB;
/// One replica goes from the last node of one of these to that of the other, and back.
const NODES: [&str; 2] = ["nodes=n1,n2,n3", "nodes=n1,n2,n4"];
/// p99 with healing, as a multiple of that without.
const TARGET: f64 = 1.5;
/// The short form is for machines that do other things besides: it only fails when there is no throttle to speak of.
const GROSS: f64 = 6.0;
/// How much longer than its target a placement may take there.
const BUSY: f64 = 3.0;

/// How much is measured.
struct Extent {
    rounds: usize,
    secs: u64,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    placement(stage)?;
    let extent = match stage.is_long() {
        true => Extent { rounds: 5, secs: 20 },
        false => Extent { rounds: 3, secs: 5 },
    };
    let ratio = healing(stage, &extent)?;
    let limit = if stage.is_long() { TARGET } else { GROSS };
    ensure(ratio <= limit, || format!("clients feel healing {ratio:.2} times: {limit} may be"))
}

/// What placement costs and how good it is, each with its target.
fn placement(stage: &Stage) -> Outcome {
    let said = Program::new(stage.artifacts.simulator()?).arg("--figures").limit_secs(300).run()?;
    let figures: Value = serde_json::from_str(&said.stdout).context(&said.stdout)?;
    let rows = figures.as_array().ok_or_else(|| Failure::new("the simulator gives no list"))?;
    stage.tell(format!("{:<44} {:>12} {:>12}", "placement", "figure", "target"));
    let mut missed = Vec::new();
    for row in rows {
        let (name, unit) = (row["name"].as_str(), row["unit"].as_str());
        let (figure, target) = (row["figure"].as_f64(), row["target"].as_f64());
        let (Some(name), Some(unit), Some(figure), Some(target)) = (name, unit, figure, target)
        else {
            return Err(Failure::new(format!("a figure lacks something: {row}")));
        };
        let (told, wanted) = (format!("{figure:.2} {unit}"), format!("{target:.2} {unit}"));
        stage.tell(format!("{name:<44} {told:>12} {wanted:>12}"));
        let is_time = ["ns", "us"].contains(&unit);
        let allowed = if is_time && !stage.is_long() { target * BUSY } else { target };
        if figure > allowed {
            missed.push(name.to_owned());
        }
    }
    ensure(!rows.is_empty() && missed.is_empty(), || format!("missed: {}", missed.join(", ")))
}

/// The median of what clients feel with healing, divided by what they feel without.
fn healing(stage: &Stage, extent: &Extent) -> Outcome<f64> {
    let room = stage.path("nodes");
    let cluster = Cluster::start(&stage.artifacts, &room, 4, &[], "")?;
    let options = [("shard_size", "4MiB"), ("replication_factor", "3"), ("nodes", "n1,n2,n3")];
    cluster.volume_with(VOLUME, SIZE, &options)?;
    fill(&cluster, &room)?;
    let mut rounds = Vec::new();
    for round in 0..extent.rounds {
        // Each round begins with the other side.
        let (with, without) = if round % 2 == 0 {
            let with = beside_healing(&cluster, &room, extent.secs)?;
            (with, at_rest(&cluster, &room, extent.secs)?)
        } else {
            let without = at_rest(&cluster, &room, extent.secs)?;
            (beside_healing(&cluster, &room, extent.secs)?, without)
        };
        stage.tell(format!(
            "round {}: p99 {:.2} ms with healing ({} MiB copied), {:.2} ms without: {:.2}x",
            round + 1,
            with.p99_ms,
            with.copied / MIB,
            without,
            with.p99_ms / without
        ));
        ensure(with.copied > 0, || "nothing was healed meanwhile".to_owned())?;
        rounds.push(with.p99_ms / without);
    }
    rounds.sort_by(f64::total_cmp);
    let median = rounds[rounds.len() / 2];
    stage.tell(format!("median {median:.2}x, target {TARGET}x"));
    cluster.host.cli().ask().args(["volume", "verify", VOLUME]).run()?;
    let mut cluster = cluster;
    cluster.host.stop()?;
    Ok(median)
}

/// Writes everything once: what was never written costs less to copy.
fn fill(cluster: &Cluster, room: &Path) -> Outcome {
    let image = room.join("image");
    fs::write(&image, vec![0xA5; usize::try_from(SIZE).context("size")?]).context("image")?;
    Program::new("nbdcopy").arg(&image).arg(cluster.host.uri(VOLUME)).run()?;
    fs::remove_file(&image).context("image")
}

struct Felt {
    p99_ms: f64,
    copied: u64,
}

/// What clients feel while a replica of everything goes to another node, and to the first again, for as long as they look.
fn beside_healing(cluster: &Cluster, room: &Path, secs: u64) -> Outcome<Felt> {
    settle(room)?;
    let (over, before) = (AtomicBool::new(false), copied(cluster)?);
    let during = OnceLock::new();
    let measured = thread::scope(|scope| {
        let mover = scope.spawn(|| to_and_fro(cluster, &over));
        // The throttle finds out first what clients feel.
        thread::sleep(Duration::from_secs(1));
        let measured = p99(cluster, secs);
        let after = copied(cluster);
        over.store(true, Ordering::SeqCst);
        let moved = mover.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        during.get_or_init(|| after.as_ref().map_or(0, |after| after.saturating_sub(before)));
        moved.and(after.map(drop)).and(measured)
    })?;
    let copied = during.get().copied().unwrap_or_default();
    Ok(Felt { p99_ms: measured, copied })
}

fn at_rest(cluster: &Cluster, room: &Path, secs: u64) -> Outcome<f64> {
    settle(room)?;
    p99(cluster, secs)
}

/// Waits until the disk has what was copied before, which would go on being written while something else is measured.
fn settle(room: &Path) -> Outcome {
    Program::new("sync").arg("--file-system").arg(room).limit_secs(120).run()?;
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Moves a replica of everything, until it is over; what is under way then comes to its end.
fn to_and_fro(cluster: &Cluster, over: &AtomicBool) -> Outcome {
    let said =
        |words: &[&str]| cluster.host.cli().ask().args(words).limit_secs(600).run().map(drop);
    while !over.load(Ordering::SeqCst) {
        for nodes in [NODES[1], NODES[0]] {
            said(&["volume", "set", VOLUME, nodes])?;
            said(&["volume", "rebalance", VOLUME])?;
        }
    }
    Ok(())
}

/// Bytes that were copied between nodes so far.
fn copied(cluster: &Cluster) -> Outcome<u64> {
    let words = ["volume", "rebalance", VOLUME, "--status", "--output", "json"];
    let said = cluster.host.cli().ask().args(words).run()?;
    let now: Value = serde_json::from_str(&said.stdout).context(&said.stdout)?;
    now["copied"].as_u64().ok_or_else(|| Failure::new(format!("nothing is said of copies: {now}")))
}

/// The 99th percentile of what clients wait for a read or write of 4 KiB, in milliseconds.
fn p99(cluster: &Cluster, secs: u64) -> Outcome<f64> {
    let said = Program::new("fio")
        .args(["--name=felt", "--ioengine=nbd", "--output-format=json", "--time_based"])
        .args(["--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=4", "--rate_iops=700,300"])
        .args(["--randrepeat=0", "--unified_rw_reporting=mixed", "--verify_state_save=0"])
        .args([format!("--runtime={secs}"), format!("--size={SIZE}")])
        .arg(format!("--uri={}", cluster.host.uri(VOLUME)))
        .limit_secs(secs + 60)
        .run()?;
    // libnbd says its own first.
    let json = said.stdout.find('{').map(|start| &said.stdout[start..]);
    let json =
        json.ok_or_else(|| Failure::new(format!("fio gives no figures: {}", said.stdout)))?;
    let report: Value = serde_json::from_str(json).context("fio's figures")?;
    let figure = report["jobs"][0]["mixed"]["clat_ns"]["percentile"]["99.000000"].as_f64();
    let figure = figure.ok_or_else(|| Failure::new("fio gives no p99"))?;
    Ok(figure / 1e6)
}
