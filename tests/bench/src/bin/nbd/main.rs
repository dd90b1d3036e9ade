// SPDX-License-Identifier: Apache-2.0
//! The NBD export beside nbdkit and qemu-nbd, in one run: the servers take turns within each round, medians count, and a
//! bare socket's round trips are measured with each row. Targets are ratios to nbdkit; a missed one is said, and fails
//! nothing.
//!
//! `cargo build --release -p novastor -p novastor-driver-local -p novastor-test-ram`, then
//! `cargo run --release -p novastor-bench --bin nbd [-- --short] [--only TEXT] [--rounds N]`. `TMPDIR` says where the files
//! of the file servers lie.

mod libnbd;
mod load;
mod measure;
mod servers;
mod table;

use std::process::ExitCode;

use end_to_end::failure::{Context, Failure, Outcome, ensure};

use crate::{
    measure::{Extent, ROWS, Row, measure, ping_pong},
    servers::{Disk, Servers},
    table::{LEGEND, Results, head},
};

const USAGE: &str = "nbd [--short] [--only TEXT] [--rounds N]: --only plays rows whose kind and name, \
    such as \"files: fio read 4k d32\", contain the text";

/// What is measured.
struct Plan {
    /// Quick, to see that everything runs: nothing is judged.
    short: bool,
    only: String,
    rounds: usize,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut plan = Self { short: false, only: String::new(), rounds: 0 };
        let bad = |argument: &str| Failure::new(format!("{argument}: {USAGE}"));
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--short" => plan.short = true,
                "--only" => plan.only = arguments.next().ok_or_else(|| bad(&argument))?,
                "--rounds" => {
                    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
                    plan.rounds =
                        rounds.filter(|rounds| *rounds > 0).ok_or_else(|| bad(&argument))?;
                }
                _ => return Err(bad(&argument)),
            }
        }
        if plan.rounds == 0 {
            plan.rounds = if plan.short { 1 } else { 5 };
        }
        Ok(plan)
    }

    fn extent(&self) -> Extent {
        if self.short {
            Extent { millis: 200, size: 64 << 20 }
        } else {
            Extent { millis: 1000, size: 1 << 30 }
        }
    }

    fn rows(&self, disk: Disk) -> Vec<Row> {
        let size = self.extent().size;
        let title = |row: &Row| format!("{}: {}", disk.name(), row.name(size));
        ROWS.into_iter().filter(|row| title(row).contains(&self.only)).collect()
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = if arguments.next_if_eq("load").is_some() {
        be_a_client(arguments)
    } else {
        Plan::read(arguments).and_then(|plan| compare(&plan))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// The process that loads a server.
fn be_a_client(mut arguments: impl Iterator<Item = String>) -> Outcome {
    let text = arguments.next().ok_or_else(|| Failure::new("no load is given"))?;
    let load = serde_json::from_str(&text).context("load")?;
    let figures = load::run(&load)?;
    println!("{}", serde_json::to_string(&figures).context("figures")?);
    Ok(())
}

fn compare(plan: &Plan) -> Outcome {
    let mut met = Vec::new();
    for disk in [Disk::Ram, Disk::File] {
        let rows = plan.rows(disk);
        if rows.is_empty() {
            continue;
        }
        println!("{}, {} rounds", disk.title(), plan.rounds);
        println!("{}", head());
        let servers = Servers::start(disk, plan.extent().size)?;
        for row in rows {
            let results = repeat(plan, row, &servers)?;
            println!("{}", results.line(!plan.short));
            met.push(results.is_met());
        }
        println!();
    }
    println!("{LEGEND}");
    ensure(!met.is_empty(), || format!("no row contains {:?}", plan.only))?;
    if !plan.short {
        let count = met.iter().filter(|met| **met).count();
        println!("{count} of {} targets met", met.len());
    }
    Ok(())
}

/// The rounds of a row. Each begins with another server.
fn repeat(plan: &Plan, row: Row, servers: &Servers) -> Outcome<Results> {
    let name = row.name(plan.extent().size);
    let mut results = Results { row, name, rounds: Vec::new(), ping_pong: Vec::new() };
    for round in 0..plan.rounds {
        let mut samples = [None; 3];
        for turn in 0..samples.len() {
            let index = (round + turn) % samples.len();
            let server = &servers.all[index];
            let sample = measure(&row, server, servers, plan.extent());
            samples[index] = Some(sample.context(format!("{} on {}", results.name, server.name))?);
        }
        let [Some(ours), Some(nbdkit), Some(qemu)] = samples else {
            return Err(Failure::new("a server had no turn"));
        };
        results.rounds.push([ours, nbdkit, qemu]);
        results.ping_pong.push(ping_pong()?);
    }
    Ok(results)
}
