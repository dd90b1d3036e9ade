// SPDX-License-Identifier: Apache-2.0
//! Tests of running programs.

use std::time::Duration;

use super::{Program, until};
use crate::failure::{Failure, ensure};

#[test]
fn output_and_code_come_back() {
    let said = Program::new("sh")
        .args(["-c", "echo out; echo err >&2; exit 3"])
        .codes(&[3])
        .run()
        .unwrap();
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (3, "out\n", "err\n"));
}

#[test]
fn a_failure_repeats_what_was_said() {
    let failure =
        Program::new("sh").args(["-c", "echo because >&2; exit 1"]).run().unwrap_err().to_string();
    assert!(failure.contains("because") && failure.contains("exit status: 1"), "{failure}");
    assert!(Program::new("sh").args(["-c", "kill -9 $$"]).codes(&[]).run().is_err());
    assert!(Program::new("/nonexistent/program").run().is_err());
}

#[test]
fn a_program_that_says_far_too_much_is_ended() {
    let failure = Program::new("sh")
        .args(["-c", "exec yes | head -c 80000000"])
        .run()
        .unwrap_err()
        .to_string();
    assert!(failure.contains("y\ny\n"), "{}", failure.len());
}

#[test]
fn a_program_that_hangs_is_ended() {
    let failure = Program::new("sleep").arg("600").limit_secs(0).run().unwrap_err().to_string();
    assert!(failure.contains("still running"), "{failure}");
}

#[test]
fn a_dropped_program_takes_its_children_along() {
    let directory = tempfile::tempdir().unwrap();
    let (log, pid) = (directory.path().join("log"), directory.path().join("pid"));
    let script = "trap '' TERM; sleep 600 & echo $! > \"$1\".new; mv \"$1\".new \"$1\"; wait";
    let mut running = Program::new("sh").args(["-c", script, "sh"]).arg(&pid).start(&log).unwrap();
    let read = || std::fs::read_to_string(&pid).map_err(|error| Failure::new(error.to_string()));
    let pid = until(Duration::from_secs(20), read).unwrap();
    running.still_runs().unwrap();
    drop(running);
    until(Duration::from_secs(20), || {
        let state =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        ensure(state.is_empty() || state.contains(") Z"), || format!("it lives: {state}"))
    })
    .unwrap();
}

#[test]
fn a_killed_program_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut running =
        Program::new("sleep").arg("600").start(&directory.path().join("log")).unwrap();
    running.kill9().unwrap();
    assert!(running.still_runs().is_err());
    assert!(running.kill9().is_err());
}
