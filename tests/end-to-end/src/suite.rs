// SPDX-License-Identifier: Apache-2.0
//! All tests of the workspace, as `cargo test --workspace` has them, some programs at the same time.

use std::time::Instant;

use crate::{
    failure::{Outcome, ensure},
    lanes::{self, Job, Manner, Plan},
    program::{Program, Said},
    workspace::{self, TestProgram},
};

/// How many programs run at a time; each has threads of its own.
const LANES: usize = 2;
const LIMIT_SECS: u64 = 900;
/// The programs that last, or do not only wait: those begin first, and these are told apart.
const KNOWN: [(&str, Manner, u64); 10] = [
    ("layouts", Manner::Computes, 90),
    ("versions", Manner::Computes, 60),
    ("mutations", Manner::Computes, 10),
    ("distributed_core", Manner::Computes, 9),
    ("seeds", Manner::Computes, 5),
    ("placing", Manner::Computes, 2),
    ("shards", Manner::Waits, 70),
    ("crash", Manner::Waits, 17),
    // What they assert are times.
    ("services", Manner::Measures, 13),
    ("speed", Manner::Measures, 1),
];
const DOCUMENTATION: Job = Job { manner: Manner::Computes, secs: 15 };

/// A part of all tests.
enum Part {
    Program(TestProgram),
    Documentation,
}

impl Part {
    fn name(&self) -> String {
        match self {
            Self::Program(test) => format!("{} of {}", test.target, test.directory.display()),
            Self::Documentation => "documentation".to_owned(),
        }
    }

    fn job(&self) -> Job {
        let Self::Program(test) = self else { return DOCUMENTATION };
        let known = KNOWN.iter().find(|(target, ..)| *target == test.target);
        known.map_or(Job { manner: Manner::Waits, secs: 1 }, |&(_, manner, secs)| Job {
            manner,
            secs,
        })
    }

    fn run(&self) -> Outcome<Said> {
        let program = match self {
            Self::Program(test) => {
                let program = match self.job().manner {
                    Manner::Computes => Program::giving_way(&test.program),
                    Manner::Waits | Manner::Measures => Program::new(&test.program),
                };
                workspace::as_cargo_would(program, test)
            }
            Self::Documentation => {
                workspace::cargo().args(["test", "--workspace", "--locked", "--quiet", "--doc"])
            }
        };
        // What a program says is shown as a whole, also if a test failed.
        program.limit_secs(LIMIT_SECS).codes(&[]).run()
    }
}

/// Runs all of them, and prints what each program says when it has ended.
///
/// # Errors
/// When one does not compile, a test fails, or a program that is known here has another name.
pub fn run() -> Outcome {
    let programs = workspace::test_programs()?;
    let is_there = |name: &str| programs.iter().any(|test| test.target == name);
    let gone: Vec<&str> =
        KNOWN.iter().map(|(name, ..)| *name).filter(|name| !is_there(name)).collect();
    ensure(gone.is_empty(), || format!("no test program is called {}", gone.join(" or ")))?;
    let mut parts: Vec<Part> = programs.into_iter().map(Part::Program).collect();
    parts.push(Part::Documentation);
    let plan = Plan::new(LANES, &parts.iter().map(Part::job).collect::<Vec<_>>());
    let (mut failed, mut passed) = (Vec::new(), 0);
    let begin = |index: usize| {
        let begun = Instant::now();
        (parts[index].run(), begun.elapsed())
    };
    lanes::run(plan, begin, |index, result| {
        let name = parts[index].name();
        let Ok((outcome, time)) = result else {
            println!("{name}: what runs it panicked\n");
            return failed.push(name);
        };
        println!("{:>6.1} s  {name}", time.as_secs_f64());
        match outcome {
            Ok(said) => {
                println!("{}{}", said.stdout, said.stderr);
                passed += workspace::passed(&said);
                if said.code != 0 {
                    failed.push(name);
                }
            }
            Err(failure) => {
                println!("{failure}\n");
                failed.push(name);
            }
        }
    });
    ensure(failed.is_empty(), || format!("tests failed: {}", failed.join(", ")))?;
    println!("{passed} tests of {} programs passed", parts.len());
    Ok(())
}
