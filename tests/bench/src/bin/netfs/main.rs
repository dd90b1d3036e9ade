// SPDX-License-Identifier: Apache-2.0
//! The netfs driver beside libnfs and smbclient, on servers of this machine in one run; and what many operations at once are
//! worth to it on a server that is 2 ms away. Contenders take turns within each round, every other round in the opposite
//! order; the medians of the rounds' ratios count. A missed target is said, and fails nothing; what is so slow that it must be
//! broken does.
//!
//! `tests/show` builds everything; `target/release/netfs [--short] [--only TEXT] [--rounds N]`. The servers' files lie in
//! memory (`/dev/shm`), or where `NOVASTOR_BENCH_DIR` says.

mod cases;
mod contenders;
mod delay;
mod libnfs;

use std::{path::PathBuf, process::ExitCode};

use end_to_end::failure::{Context, Outcome, ensure};
use novastor_bench::{
    load::Span,
    plan::{self, Plan},
    table::{Results, Round, Tally, head},
};

use crate::{
    cases::{Ask, CASES, LIMITS},
    contenders::Field,
};

fn span(plan: &Plan) -> Span {
    if plan.short {
        Span { warm_millis: 200, millis: 500 }
    } else {
        Span { warm_millis: 500, millis: 3000 }
    }
}

fn size(plan: &Plan) -> u64 {
    if plan.short { 256 << 20 } else { 512 << 20 }
}

fn main() -> ExitCode {
    plan::run(compare)
}

fn compare(plan: &Plan) -> Outcome {
    let cases: Vec<_> = CASES.into_iter().filter(|case| case.name().contains(&plan.only)).collect();
    ensure(!cases.is_empty(), || format!("no case contains {:?}", plan.only))?;
    let place = std::env::var_os("NOVASTOR_BENCH_DIR").map_or("/dev/shm".into(), PathBuf::from);
    let room = tempfile::Builder::new().prefix("novastor-bench-").tempdir_in(&place);
    let room = room.context(place.display())?;
    let field = Field::start(room.path(), size(plan))?;
    println!(
        "nfs-ganesha and Samba on this machine, files in {}; sequential: {} MiB once; random: {} ms; {} rounds",
        place.display(),
        size(plan) >> 20,
        span(plan).millis,
        plan.rounds
    );
    println!("{}", head());
    let mut tally = Tally::default();
    for ask in &cases {
        let rounds = repeat(plan, ask, &field).context(ask.name())?;
        let (name, block) = (ask.name(), ask.case.block);
        let results = Results { name, block, rounds, limits: LIMITS, judged: !plan.short };
        results.lines().iter().for_each(|line| println!("{line}"));
        tally.count(&results);
    }
    tally.end(!plan.short)
}

/// The rounds of a case.
fn repeat(plan: &Plan, ask: &Ask, field: &Field) -> Outcome<Vec<Round>> {
    let mut rounds: Vec<Round> = Vec::new();
    field.prepare(ask)?;
    for round in 0..plan.rounds {
        let mut turns = ask.contenders().to_vec();
        if round % 2 == 1 {
            turns.reverse();
        }
        let mut samples = Round::new();
        for contender in turns {
            let sample = field.run(contender, ask, span(plan), round as u64 + 1);
            samples.push((contender, sample.context(contender)?));
        }
        rounds.push(samples);
    }
    Ok(rounds)
}
