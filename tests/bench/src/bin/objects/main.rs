// SPDX-License-Identifier: Apache-2.0
//! `novastor object` with its host and the object-storage driver beside rclone, by S3 at the gateway of a Ceph cluster of this
//! machine, in one run: a file up in parts, down in parallel ranges, and a listing. Contenders take turns within each round,
//! every other round in the opposite order; the medians of the rounds' ratios count. Both have the same size of parts and the
//! same number of them on the way; rclone is spared its second reading of the file for a sum over all of it
//! (`--s3-disable-checksum`). A missed target is said, and fails nothing; what is so slow, or takes so much memory, that it must
//! be broken does.
//!
//! `tests/show` builds everything; `target/release/objects [--short] [--only TEXT] [--rounds N]`. Files that go up and come down
//! lie in memory (`/dev/shm`), or where `NOVASTOR_BENCH_DIR` says; the cluster's disks in the directory for temporary files.

mod cases;
mod field;
mod fill;
mod memory;

use std::{path::PathBuf, process::ExitCode};

use end_to_end::failure::{Context, Outcome, ensure};
use novastor_bench::{
    plan::{self, Plan},
    table::{Results, Round, Tally, head},
};

use crate::{
    cases::{CASES, LIMITS, NOVASTOR, RCLONE, Sizes},
    field::Field,
    memory::Peaks,
};

fn main() -> ExitCode {
    plan::run(compare)
}

fn compare(plan: &Plan) -> Outcome {
    let cases: Vec<_> = CASES.into_iter().filter(|case| case.name().contains(&plan.only)).collect();
    ensure(!cases.is_empty(), || format!("no case contains {:?}", plan.only))?;
    let rounds = if plan.short { plan.rounds.min(3) } else { plan.rounds.min(5) };
    let sizes = if plan.short { Sizes::SHORT } else { Sizes::LONG };
    let place = std::env::var_os("NOVASTOR_BENCH_DIR").map_or("/dev/shm".into(), PathBuf::from);
    let room = |place: &PathBuf| {
        let room = tempfile::Builder::new().prefix("novastor-bench-").tempdir_in(place);
        room.context(place.display())
    };
    let (files, servers) = (room(&place)?, room(&std::env::temp_dir())?);
    let mut field = Field::start(files.path(), servers.path(), sizes)?;
    println!(
        "S3 at a Ceph gateway on this machine; {} MiB, parts of {} MiB, {} on the way; {} objects; {rounds} rounds; files in {}",
        sizes.file >> 20,
        sizes.part >> 20,
        sizes.parallel,
        sizes.objects,
        place.display(),
    );
    println!("{}", head());
    let (mut tally, mut heavy) = (Tally::default(), Vec::new());
    for ask in &cases {
        field.prepare(*ask).context(ask.name())?;
        let mut peaks = Peaks::default();
        let mut samples: Vec<Round> = Vec::new();
        for round in 0..rounds {
            let mut turns = [NOVASTOR, RCLONE];
            if round % 2 == 1 {
                turns.reverse();
            }
            let mut one = Round::new();
            for contender in turns {
                let (sample, peak) = field.run(contender, *ask, round).context(contender)?;
                peaks.count(contender, peak);
                one.push((contender, sample));
            }
            samples.push(one);
        }
        let (name, block) = (ask.name().to_owned(), ask.block());
        let results = Results { name, block, rounds: samples, limits: LIMITS, judged: !plan.short };
        results.lines().iter().for_each(|line| println!("{line}"));
        tally.count(&results);
        let limit = sizes.memory_limit(*ask);
        println!("{}", peaks.line(limit));
        if peaks.is_broken(limit) {
            heavy.push(ask.name());
        }
    }
    tally.end(!plan.short)?;
    ensure(heavy.is_empty(), || format!("far too much memory: {}", heavy.join(", ")))
}
