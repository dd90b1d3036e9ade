// SPDX-License-Identifier: Apache-2.0
//! Runs seeds, on every processor, and prints what came of them.

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use distributed_core::Protections;
use serde_json::json;
use simulation::{Deeds, Era, Matrix, Verdict, run};

/// Run the distributed core through seeded faults.
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Stop after this many minutes, however many seeds there are; 0: no limit.
    #[arg(long, default_value_t = 0.0)]
    minutes: f64,
    /// Run only this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Leave the shards where they are.
    #[arg(long)]
    staying: bool,
    /// Move the shards, but leave them as large as they are, and take no digests.
    #[arg(long, conflicts_with = "staying")]
    moving: bool,
    /// Have the volume be asynchronous, at times, instead of what is not for that mode.
    #[arg(long, conflicts_with_all = ["staying", "moving"])]
    following: bool,
    /// Have it resized, too; with --following.
    #[arg(long, requires = "following")]
    resizing: bool,
    /// Switch this protection off: one of the names of the core's protections.
    #[arg(long, value_parser = Protections::NAMES)]
    without: Option<String>,
    /// Fail unless each fault met each replica state this often.
    #[arg(long, default_value_t = 0)]
    at_least: u64,
    /// Threads; 0: one for each processor.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Run no seeds: print what placement costs and how good it is, as JSON.
    #[arg(long)]
    figures: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Arguments {
    fn era(&self) -> Era {
        match (self.staying, self.moving, self.following, self.resizing) {
            (true, ..) => Era::Staying,
            (_, true, ..) => Era::Moving,
            (.., true) => Era::Resizing,
            (.., true, false) => Era::Following,
            _ => Era::Scrubbing,
        }
    }

    /// What has a seed do again what it did.
    fn replay(&self, seed: u64) -> String {
        let era = match self.era() {
            Era::Staying => " --staying",
            Era::Moving => " --moving",
            Era::Following => " --following",
            Era::Resizing => " --following --resizing",
            Era::Cutting | Era::Scrubbing => "",
        };
        let without =
            self.without.as_ref().map_or(String::new(), |name| format!(" --without {name}"));
        format!("novastor-simulation --seed {seed}{era}{without} --trace")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Default)]
struct Total {
    runs: u64,
    events: u64,
    matrix: Matrix,
    deeds: Deeds,
    failed: Option<Verdict>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.figures {
        return print_figures();
    }
    let without = arguments.without.as_deref();
    let protections = without.and_then(Protections::without).unwrap_or_default();
    if let Some(seed) = arguments.seed {
        let verdict = run(seed, protections, arguments.era(), arguments.trace);
        verdict.trace.iter().for_each(|line| println!("{line}"));
        let total = Total {
            runs: 1,
            events: verdict.events,
            matrix: verdict.matrix.clone(),
            deeds: verdict.deeds.clone(),
            failed: verdict.violation.is_some().then_some(verdict),
        };
        return report(&arguments, &total, Duration::ZERO);
    }
    let started = Instant::now();
    let total = run_all(&arguments, protections, started);
    report(&arguments, &total, started.elapsed())
}

fn print_figures() -> ExitCode {
    match simulation::figures() {
        Ok(figures) => {
            println!("{}", json!(figures));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("novastor-simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_all(arguments: &Arguments, protections: Protections, started: Instant) -> Total {
    let next = AtomicU64::new(arguments.first);
    let end = arguments.first.saturating_add(arguments.seeds);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let is_late =
        || arguments.minutes > 0.0 && started.elapsed().as_secs_f64() > arguments.minutes * 60.0;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Total::default();
                while !stop.load(Ordering::Relaxed) && !is_late() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let verdict = run(seed, protections, arguments.era(), false);
                    mine.runs += 1;
                    mine.events += verdict.events;
                    mine.matrix.add(&verdict.matrix);
                    mine.deeds.add(&verdict.deeds);
                    if verdict.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        mine.failed = Some(verdict);
                    }
                }
                let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                total.runs += mine.runs;
                total.events += mine.events;
                total.matrix.add(&mine.matrix);
                total.deeds.add(&mine.deeds);
                total.failed = total.failed.take().or(mine.failed);
            });
        }
    });
    total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn report(arguments: &Arguments, total: &Total, elapsed: Duration) -> ExitCode {
    let (rarest, fault, state) = total.matrix.rarest();
    let is_thin = rarest < arguments.at_least;
    let replay = total.failed.as_ref().map(|failed| arguments.replay(failed.seed));
    let violation = total.failed.as_ref().and_then(|failed| failed.violation.clone());
    if arguments.output == Output::Json {
        println!(
            "{}",
            json!({
                "seeds": total.runs,
                "events": total.events,
                "seconds": elapsed.as_secs_f64(),
                "violation": violation,
                "replay": replay,
                "faults": total.matrix.to_json(),
                "deeds": total.deeds.to_json(),
                "rarest": { "fault": format!("{fault:?}"), "state": format!("{state:?}"), "count": rarest },
            })
        );
    } else {
        println!("{}\n{}", total.matrix, total.deeds);
        let seconds = elapsed.as_secs_f64();
        println!(
            "{} seeds, {} events, {seconds:.1} s; rarest: {fault:?} of a replica {state:?}, {rarest} times",
            total.runs, total.events
        );
        if let (Some(violation), Some(replay)) = (&violation, &replay) {
            println!("VIOLATION: {violation}\nreplay: {replay}");
        } else if is_thin {
            println!("TOO FEW: {} of each were asked for", arguments.at_least);
        } else {
            println!("no violation");
        }
    }
    if violation.is_some() || is_thin { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
