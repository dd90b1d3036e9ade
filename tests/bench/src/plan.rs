// SPDX-License-Identifier: Apache-2.0
//! What a benchmark was asked to do.

use std::process::ExitCode;

use end_to_end::failure::{Context, Failure, Outcome};

use crate::client;

const OPTIONS: &str =
    "[--short] [--only TEXT] [--rounds N]: --only plays cases whose name contains the text";

/// What is measured.
pub struct Plan {
    /// Quick, to see that everything runs and nothing is broken: no target is judged.
    pub short: bool,
    /// What the names of cases contain.
    pub only: String,
    /// How often each contender has its turn.
    pub rounds: usize,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut plan = Self { short: false, only: String::new(), rounds: 0 };
        let bad = |argument: &str| Failure::new(format!("{argument}: {OPTIONS}"));
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
}

/// Runs a benchmark as a program, which is its own client when its first argument says so.
pub fn run(compare: impl FnOnce(&Plan) -> Outcome) -> ExitCode {
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
