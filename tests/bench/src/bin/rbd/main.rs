// SPDX-License-Identifier: Apache-2.0
//! The ceph driver beside fio's rbd engine, and the NBD export of a volume of it beside that engine and qemu-nbd, in one
//! run on one cluster, which it makes. They take turns within each round, every other round in the opposite order; the
//! medians of the rounds' ratios count. Without a cache anywhere. `rbd bench` is there for comparison with figures of others.
//! A missed target is said, and fails nothing; what is so slow that it must be broken does.
//!
//! `tests/show` builds everything; `target/release/rbd [--short] [--only TEXT] [--rounds N]`. `TMPDIR` says where the
//! cluster's disks lie.

mod cases;
mod contenders;

use std::process::ExitCode;

use end_to_end::failure::{Context, Outcome, ensure};
use novastor_bench::{
    load::{Case, Span},
    plan::{self, Plan},
    table::{Results, Round, Tally, head},
};

use crate::{
    cases::{CASES, LIMITS},
    contenders::{Contender, Field, Turn},
};

fn span(plan: &Plan) -> Span {
    if plan.short {
        Span { warm_millis: 150, millis: 350 }
    } else {
        Span { warm_millis: 500, millis: 3000 }
    }
}

fn size(plan: &Plan) -> u64 {
    if plan.short { 128 << 20 } else { 512 << 20 }
}

fn main() -> ExitCode {
    plan::run(compare)
}

fn compare(plan: &Plan) -> Outcome {
    let cases: Vec<_> = CASES.into_iter().filter(|case| case.name().contains(&plan.only)).collect();
    ensure(!cases.is_empty(), || format!("no case contains {:?}", plan.only))?;
    let room = tempfile::Builder::new().prefix("novastor-bench-").tempdir().context("room")?;
    let field = Field::start(room.path(), size(plan))?;
    println!(
        "three OSDs on this machine, images of {} MiB, no cache; {} rounds of {} ms",
        size(plan) >> 20,
        plan.rounds,
        span(plan).millis
    );
    if let Some(failure) = field.without_qemu() {
        println!("qemu-nbd on rbd cannot be had here: {failure}");
    }
    println!("{}", head());
    let mut tally = Tally::default();
    for case in cases {
        let rounds = repeat(plan, case, &field).context(case.name())?;
        let (name, block) = (case.name(), case.block);
        let results = Results { name, block, rounds, limits: LIMITS, judged: !plan.short };
        results.lines().iter().for_each(|line| println!("{line}"));
        tally.count(&results);
    }
    field.end()?;
    tally.end(!plan.short)
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
            let turn = Turn { span: span(plan), seed: round as u64 + 1, rate };
            let sample = field.run(contender, case, turn).context(contender.name())?;
            if contender == Contender::Fio {
                rate = sample.rate;
            }
            samples.push((contender.name(), sample));
        }
        rounds.push(samples);
    }
    Ok(rounds)
}
