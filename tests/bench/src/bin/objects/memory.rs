// SPDX-License-Identifier: Apache-2.0
//! The most memory that programs have at any time: what the kernel tells as `VmHWM`.

use std::{collections::BTreeMap, fs, path::PathBuf, thread, time::Duration};

use end_to_end::failure::{Context, Failure, Outcome};

use crate::cases::NOVASTOR;

const LOOK: Duration = Duration::from_millis(5);

/// The most memory that a running process has had, in bytes.
///
/// # Errors
/// When it has ended.
pub fn peak(process: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| Failure::new("it has ended"))
}

/// Has the kernel begin anew with a process.
///
/// # Errors
/// When it does not let us.
pub fn forget(process: u32) -> Outcome {
    let path = PathBuf::from(format!("/proc/{process}/clear_refs"));
    fs::write(&path, "5").context(path.display())
}

/// Looks at a process until it has ended, and gives the most memory that it was seen with.
pub fn watch(process: u32) -> u64 {
    let mut most = 0;
    while let Ok(now) = peak(process) {
        most = now.max(most);
        thread::sleep(LOOK);
    }
    most
}

/// The most of a round: a command, and the host behind it if it has one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Peak {
    /// Of both; they may not have been at the same time.
    pub both: u64,
    /// Of the command.
    pub command: u64,
    /// Of the host.
    pub host: u64,
}

/// The most of all rounds.
#[derive(Default, Debug)]
pub struct Peaks(BTreeMap<&'static str, Peak>);

impl Peaks {
    /// Counts a round.
    pub fn count(&mut self, who: &'static str, peak: Peak) {
        let most = self.0.entry(who).or_default();
        *most = peak.max(*most);
    }

    fn of(&self, who: &str) -> Peak {
        self.0.get(who).copied().unwrap_or_default()
    }

    /// The line below a case's table.
    pub fn line(&self, limit: u64) -> String {
        let (ours, theirs) = (self.of(NOVASTOR), self.of(crate::cases::RCLONE));
        let verdict = if ours.both <= limit { "met" } else { "MISSED" };
        format!(
            "  {:.0} MiB of memory (command {:.0}, host {:.0}), at most {:.0} {verdict}; rclone {:.0}",
            mib(ours.both),
            mib(ours.command),
            mib(ours.host),
            mib(limit),
            mib(theirs.both),
        )
    }

    /// Whether it is so much that something must be broken: twice the limit.
    pub fn is_broken(&self, limit: u64) -> bool {
        let ours = self.of(NOVASTOR).both;
        ours == 0 || ours > 2 * limit
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::{Peak, Peaks, forget, peak};
    use crate::cases::NOVASTOR;

    #[test]
    fn a_process_has_a_peak_that_can_be_forgotten() {
        let me = std::process::id();
        let block = vec![1_u8; 64 << 20];
        let high = peak(me).unwrap();
        assert!(high >= block.len() as u64);
        drop(block);
        forget(me).unwrap();
        assert!(peak(me).unwrap() < high);
    }

    #[test]
    fn too_much_is_said_and_far_too_much_is_broken() {
        let mut peaks = Peaks::default();
        assert!(peaks.is_broken(10), "nothing was measured");
        peaks.count(NOVASTOR, Peak { both: 15 << 20, command: 5 << 20, host: 10 << 20 });
        peaks.count(NOVASTOR, Peak { both: 12 << 20, command: 6 << 20, host: 6 << 20 });
        assert!(
            peaks.line(15 << 20).contains("15 MiB of memory (command 5, host 10), at most 15 met")
        );
        assert!(peaks.line(14 << 20).contains("MISSED") && !peaks.is_broken(14 << 20));
        assert!(peaks.is_broken(7 << 20));
    }
}
