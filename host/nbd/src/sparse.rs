// SPDX-License-Identifier: Apache-2.0
//! Which parts of a read need not be sent, because they are zero.

use driver_api::ext::{Extent, ExtentFlags};

/// Fewer zeros than this are sent as data: a chunk of their own would cost more.
const WORTH_A_CHUNK: u64 = 4096;

/// A part of a read; it begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// It is known to be zero.
    pub zero: bool,
    /// The offset behind it, in bytes.
    pub until: u64,
}

/// The runs from `start` to `end`, without gaps. `extents` are in order and begin at `start` or before it; what they
/// do not reach counts as data.
pub fn runs(extents: &[Extent], start: u64, end: u64) -> Vec<Run> {
    let mut known = Vec::with_capacity(extents.len() + 1);
    for extent in extents {
        let until = extent.offset.saturating_add(extent.len).min(end);
        push(&mut known, start, Run { zero: extent.flags.has(ExtentFlags::ZERO), until });
    }
    push(&mut known, start, Run { zero: false, until: end });
    let mut runs = Vec::with_capacity(known.len());
    let mut at = start;
    for run in known {
        push(&mut runs, start, Run { zero: run.zero && run.until - at >= WORTH_A_CHUNK, ..run });
        at = run.until;
    }
    runs
}

/// Appends a run, unless it is empty; runs of one kind become one.
fn push(runs: &mut Vec<Run>, start: u64, run: Run) {
    if run.until <= runs.last().map_or(start, |last| last.until) {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.zero == run.zero => last.until = run.until,
        _ => runs.push(run),
    }
}

/// The bytes that must be read: from the first run of data to the last; `None` if all is zero.
pub fn to_read(runs: &[Run], start: u64) -> Option<(u64, u64)> {
    let first = runs.iter().position(|run| !run.zero)?;
    let from = if first == 0 { start } else { runs[first - 1].until };
    let last = runs.iter().rev().find(|run| !run.zero)?;
    Some((from, last.until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, len: u64, zero: bool) -> Extent {
        Extent { offset, len, flags: if zero { ExtentFlags::ZERO } else { ExtentFlags::DATA } }
    }

    fn run(zero: bool, until: u64) -> Run {
        Run { zero, until }
    }

    #[test]
    fn runs_cover_the_read_and_nothing_else() {
        let extents = [extent(0, 8192, true), extent(8192, 8192, true), extent(16384, 9999, false)];
        assert_eq!(runs(&extents, 4096, 20_000), [run(true, 16384), run(false, 20_000)]);
        assert_eq!(runs(&extents, 0, 8192), [run(true, 8192)]);
        let short = runs(&extents[..1], 0, 20_000);
        assert_eq!(short, [run(true, 8192), run(false, 20_000)], "the map may end early");
        assert_eq!(runs(&[], 5, 9), [run(false, 9)]);
    }

    #[test]
    fn few_zeros_are_data() {
        let extents = [extent(0, 4096, false), extent(4096, 4095, true), extent(8191, 8193, false)];
        assert_eq!(runs(&extents, 0, 16384), [run(false, 16384)]);
        let extents = [extent(0, 4095, true), extent(4095, 1, false), extent(4096, 4096, true)];
        assert_eq!(runs(&extents, 0, 8192), [run(false, 4096), run(true, 8192)]);
    }

    #[test]
    fn only_the_data_is_read() {
        assert_eq!(to_read(&[run(true, 100)], 0), None);
        let runs = [run(true, 100), run(false, 200), run(true, 300), run(false, 400)];
        assert_eq!(to_read(&runs, 50), Some((100, 400)));
        assert_eq!(to_read(&runs[1..3], 100), Some((100, 200)));
    }
}
