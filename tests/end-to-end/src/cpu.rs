// SPDX-License-Identifier: Apache-2.0
//! CPU time that programs use.

use crate::failure::{Context, Outcome};

/// CPU seconds that a running program has used, in user and kernel mode.
///
/// # Errors
/// When it has ended.
pub fn secs_of(process: u32) -> Outcome<f64> {
    secs(&process.to_string(), 14)
}

/// CPU seconds, in user and kernel mode, of the programs that this one has started and waited for.
///
/// # Errors
/// When the system does not say.
pub fn secs_of_children() -> Outcome<f64> {
    secs("self", 16)
}

/// The sum of two fields of a process's `stat`, from the one with this number on.
fn secs(process: &str, first: usize) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("CPU time")?;
    // The name of the program may hold spaces; what follows it starts with field 3.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(first - 3));
    let ticks = fields.into_iter().flatten().take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.collect::<Result<Vec<_>, _>>().context("CPU time")?.iter().sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
