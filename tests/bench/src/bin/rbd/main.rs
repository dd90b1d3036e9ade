// SPDX-License-Identifier: Apache-2.0
//! The ceph driver beside fio's rbd engine, and the NBD export of a volume of it beside that engine and qemu-nbd, in one
//! run on one cluster, which it makes. They take turns within each round, every other round in the opposite order; the
//! medians of the rounds' ratios count. Without a cache anywhere. `rbd bench` is there for comparison with figures of others.
//! A missed target is said, and fails nothing; what is so slow that it must be broken does.
//!
//! `tests/show` builds everything; `target/release/rbd [--short] [--only TEXT] [--rounds N]`. `TMPDIR` says where the
//! cluster's disks lie.

mod cases;
mod client;
mod contenders;
mod table;

use std::process::ExitCode;

use end_to_end::failure::{Context, Failure, Outcome, ensure};

use crate::{
    cases::{CASES, Case, Span},
    contenders::{Contender, Field, Turn},
    table::{Results, Round, head},
};

const USAGE: &str = "rbd [--short] [--only TEXT] [--rounds N]: --only plays cases whose name, \
    such as \"4 KiB random read, depth 16\", contains the text";

/// What is measured.
struct Plan {
    /// Quick, to see that everything runs and nothing is broken: no target is judged.
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
            plan.rounds = if plan.short { 3 } else { 7 };
        }
        Ok(plan)
    }

    fn span(&self) -> Span {
        if self.short {
            Span { warm_millis: 150, millis: 350 }
        } else {
            Span { warm_millis: 500, millis: 3000 }
        }
    }

    fn size(&self) -> u64 {
        if self.short { 128 << 20 } else { 512 << 20 }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = if arguments.next_if_eq("client").is_some() {
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

/// The process that has the driver.
fn be_a_client(mut arguments: impl Iterator<Item = String>) -> Outcome {
    let text = arguments.next().ok_or_else(|| Failure::new("no load is given"))?;
    let load = serde_json::from_str(&text).context("load")?;
    let sample = client::run(&load)?;
    println!("{}", serde_json::to_string(&sample).context("figures")?);
    Ok(())
}

fn compare(plan: &Plan) -> Outcome {
    let cases: Vec<_> = CASES.into_iter().filter(|case| case.name().contains(&plan.only)).collect();
    ensure(!cases.is_empty(), || format!("no case contains {:?}", plan.only))?;
    let room = tempfile::Builder::new().prefix("novastor-bench-").tempdir().context("room")?;
    let field = Field::start(room.path(), plan.size())?;
    println!(
        "three OSDs on this machine, images of {} MiB, no cache; {} rounds of {} ms",
        plan.size() >> 20,
        plan.rounds,
        plan.span().millis
    );
    if let Some(failure) = field.without_qemu() {
        println!("qemu-nbd on rbd cannot be had here: {failure}");
    }
    println!("{}", head());
    let (mut compared, mut missed, mut broken) = (0, Vec::new(), Vec::new());
    for case in cases {
        let rounds = repeat(plan, case, &field).context(case.name())?;
        let results = Results { case, rounds, judged: !plan.short };
        results.lines().iter().for_each(|line| println!("{line}"));
        compared += results.compared();
        missed.extend(results.missed());
        broken.extend(results.broken());
    }
    field.end()?;
    if !plan.short {
        println!("{} of {compared} targets met", compared - missed.len());
    }
    ensure(broken.is_empty(), || format!("far too slow:\n{}", broken.join("\n")))
}

/// The rounds of a case.
fn repeat(plan: &Plan, case: Case, field: &Field) -> Outcome<Vec<Round>> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut rate = 0.0;
    for round in 0..plan.rounds {
        let mut turns: Vec<_> = field.contenders().collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        let mut samples = Round::new();
        // Nobody is judged by it.
        turns.retain(|one| *one != Contender::RbdBench || !plan.short || round == 0);
        for contender in turns {
            let turn = Turn { span: plan.span(), seed: round as u64 + 1, rate };
            let sample = field.run(contender, case, turn).context(contender.name())?;
            if contender == Contender::Fio {
                rate = sample.rate;
            }
            samples.push((contender, sample));
        }
        rounds.push(samples);
    }
    Ok(rounds)
}
