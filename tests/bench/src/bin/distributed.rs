// SPDX-License-Identifier: Apache-2.0
//! A volume with three replicas beside plain volumes on the same nodes, in one run: fio through the same host's NBD export,
//! nodes with O_DIRECT on one file system. Each row compares with what the nodes give without replication: a write with
//! three plain volumes written in parallel (the slowest of them), a read with one of them. The two sides take turns,
//! medians count; a missed target is said, and fails nothing.
//!
//! `cargo build --release -p novastor -p novastor-driver-local -p novastor-driver-distributed`, then
//! `cargo run --release -p novastor-bench --bin distributed [-- --short]`. `TMPDIR` says where the nodes' files lie.

use std::{collections::BTreeMap, path::Path, process::ExitCode, time::Duration};

use end_to_end::{
    artifacts::Artifacts,
    cluster::Cluster,
    failure::{Context, Failure, Outcome, ensure},
    program::{Program, until},
};
use serde_json::Value;

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const VOLUME: &str = "replicated";
const PATIENCE: Duration = Duration::from_secs(30);

/// A load, and what of the plain volumes' rate the replicated one shall reach.
struct Row {
    name: &'static str,
    write: bool,
    fio: &'static [&'static str],
    target: Option<f64>,
}

const ROWS: [Row; 6] = [
    Row {
        name: "write 4k d16, fsync each 32",
        write: true,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=16", "--fsync=32"],
        target: Some(0.7),
    },
    Row {
        name: "read 4k d16",
        write: false,
        fio: &["--rw=randread", "--bs=4k", "--iodepth=16"],
        target: Some(0.9),
    },
    Row {
        name: "write 4k d1",
        write: true,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=1"],
        target: None,
    },
    Row {
        name: "write 4k d16",
        write: true,
        fio: &["--rw=randwrite", "--bs=4k", "--iodepth=16"],
        target: None,
    },
    Row {
        name: "read 4k d1",
        write: false,
        fio: &["--rw=randread", "--bs=4k", "--iodepth=1"],
        target: None,
    },
    Row {
        name: "write 1M d4",
        write: true,
        fio: &["--rw=write", "--bs=1M", "--iodepth=4"],
        target: None,
    },
];

/// How long and how much: rounds, milliseconds of a load, bytes of a volume.
struct Extent {
    rounds: usize,
    millis: u64,
    size: u64,
}

fn main() -> ExitCode {
    let extent = match std::env::args().nth(1).as_deref() {
        None => Extent { rounds: 5, millis: 3000, size: 512 << 20 },
        Some("--short") => Extent { rounds: 1, millis: 500, size: 64 << 20 },
        Some(other) => {
            eprintln!("{other}: distributed [--short]");
            return ExitCode::FAILURE;
        }
    };
    match compare(&extent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn compare(extent: &Extent) -> Outcome {
    let room = tempfile::Builder::new().prefix("novastor-bench-").tempdir().context("room")?;
    let cluster = start(room.path(), extent.size)?;
    println!("factor 3 over three nodes with O_DIRECT, fio over NBD, {} rounds", extent.rounds);
    println!("{:<28} {:>10} {:>10} {:>7}  target", "load", "replicated", "plain", "ratio");
    let (mut met, mut judged) = (0, 0);
    for row in ROWS {
        let mut rounds = Vec::new();
        for round in 0..extent.rounds {
            let ours = || load(&cluster, &row, &[VOLUME], extent);
            let plain = || {
                let volumes = if row.write { &NODES[..] } else { &NODES[..1] };
                load(&cluster, &row, volumes, extent)
            };
            // Each round begins with the other side.
            let (ours, plain) = if round % 2 == 0 {
                let ours = ours()?;
                (ours, plain()?)
            } else {
                let plain = plain()?;
                (ours()?, plain)
            };
            rounds.push([ours, plain, ours / plain]);
        }
        let median = |index: usize| {
            let mut figures: Vec<f64> = rounds.iter().map(|round| round[index]).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (ours, plain, ratio) = (median(0), median(1), median(2));
        let verdict = match row.target {
            Some(target) if extent.rounds > 1 => {
                judged += 1;
                met += usize::from(ratio >= target);
                format!("{target:.2}x {}", if ratio >= target { "met" } else { "missed" })
            }
            Some(target) => format!("{target:.2}x"),
            None => "-".to_owned(),
        };
        println!("{:<28} {ours:>6.0} /s {plain:>7.0} /s {ratio:>6.2}x  {verdict}", row.name);
    }
    if judged > 0 {
        println!("{met} of {judged} targets met");
    }
    Ok(())
}

/// A host with three nodes, a volume with a replica on each, and a plain volume on each, all written once.
fn start(room: &Path, size: u64) -> Outcome<Cluster> {
    let mut nodes = String::new();
    for node in NODES {
        let directory = room.join(node);
        std::fs::create_dir(&directory).context(directory.display())?;
        nodes += &format!(
            "\n[backends.{node}]\ndriver = \"local\"\ndir = {directory:?}\ndirect = true\nreserve_percent = 0\n"
        );
    }
    let cluster = Cluster::start(&Artifacts::of_this_build()?, room, 0, &NODES, &nodes)?;
    cluster.volume(VOLUME, size)?;
    for node in NODES {
        until(PATIENCE, || cluster.host.cli().create_volume(node, size, Some(node), &[]))?;
        cluster.host.cli().add_export(node)?;
    }
    let image = room.join("image");
    std::fs::write(&image, vec![0xA5; usize::try_from(size).context("size")?]).context("image")?;
    for volume in [VOLUME].iter().chain(&NODES) {
        Program::new("nbdcopy").arg(&image).arg(cluster.host.uri(volume)).run()?;
    }
    std::fs::remove_file(&image).context("image")?;
    Ok(cluster)
}

/// Operations in a second on each of these volumes at once: the least of them.
fn load(cluster: &Cluster, row: &Row, volumes: &[&str], extent: &Extent) -> Outcome<f64> {
    let mut program = Program::new("fio")
        .args(["--output-format=json", "--verify_state_save=0", "--ioengine=nbd", "--time_based"])
        .args(["--randrepeat=0", &format!("--runtime={}ms", extent.millis)])
        .args([format!("--size={}", extent.size)])
        .args(row.fio);
    for volume in volumes {
        program = program
            .args([format!("--name={volume}"), format!("--uri={}", cluster.host.uri(volume))]);
    }
    let said = program.run()?;
    // libnbd says its own first.
    let json = said.stdout.find('{').map(|start| &said.stdout[start..]);
    let json =
        json.ok_or_else(|| Failure::new(format!("fio gives no figures: {}", said.stdout)))?;
    let report: Value = serde_json::from_str(json).context("fio's figures")?;
    let way = if row.write { "write" } else { "read" };
    let jobs = report["jobs"].as_array().cloned().unwrap_or_default();
    let rates: BTreeMap<_, _> = jobs
        .iter()
        .filter_map(|job| Some((job["jobname"].as_str()?, job[way]["iops"].as_f64()?)))
        .collect();
    ensure(rates.len() == volumes.len(), || format!("fio counts for {rates:?} only"))?;
    let least = rates.into_values().fold(f64::INFINITY, f64::min);
    ensure(least > 0.0, || format!("{}: nothing was done", row.name))?;
    Ok(least)
}
