// SPDX-License-Identifier: Apache-2.0
//! What a process costs: memory, threads, open files.

use std::{fmt, fs, time::Duration};

use crate::{
    failure::{Context, Failure, Outcome, ensure},
    program::until,
};

/// How long a process has to let go of what it used.
const LETTING_GO: Duration = Duration::from_secs(30);

/// What a process costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Resident memory in KiB.
    pub rss_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open files.
    pub files: u64,
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.rss_kib.div_ceil(1024);
        write!(f, "{mib} MiB, {} threads, {} files", self.threads, self.files)
    }
}

impl Vitals {
    /// The vitals of a process.
    ///
    /// # Errors
    /// When there is none, or its figures are not ours to read.
    pub fn of(process: u32) -> Outcome<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.context("the process's status")?;
        let figure = |key: &str| -> Outcome<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.ok_or_else(|| Failure::new(format!("no {key} in {status}")))
        };
        let files = fs::read_dir(format!("/proc/{process}/fd")).context("its open files")?.count();
        Ok(Self {
            rss_kib: figure("VmRSS:")?,
            threads: figure("Threads:")?,
            files: u64::try_from(files).context("files")?,
        })
    }

    /// Waits until a process costs no more than this and `kib` of memory, with a few threads and files to spare for
    /// what comes and goes in any process.
    ///
    /// # Errors
    /// When it costs more after half a minute.
    pub fn regained_by(self, process: u32, kib: u64) -> Outcome<Self> {
        until(LETTING_GO, || {
            let now = Self::of(process)?;
            ensure(now.is_within(self, kib), || format!("it had {self}, and now has {now}"))?;
            Ok(now)
        })
    }

    fn is_within(self, before: Self, kib: u64) -> bool {
        const TO_SPARE: u64 = 4;
        self.rss_kib <= before.rss_kib + kib
            && self.threads <= before.threads + TO_SPARE
            && self.files <= before.files + TO_SPARE
    }
}

#[cfg(test)]
mod tests {
    use super::Vitals;

    #[test]
    fn a_process_has_vitals() {
        let me = std::process::id();
        let before = Vitals::of(me).unwrap();
        assert!(before.rss_kib > 100 && before.threads >= 1 && before.files >= 3);
        let memory = vec![1_u8; 256 << 20];
        let after = Vitals::of(me).unwrap();
        // Other tests of this process come and go beside it.
        assert!(after.rss_kib > before.rss_kib + (128 << 10), "{before} {after}");
        drop(memory);
    }

    #[test]
    fn growth_is_seen() {
        let before = Vitals { rss_kib: 1000, threads: 10, files: 10 };
        assert!(Vitals { rss_kib: 1100, threads: 14, files: 14 }.is_within(before, 100));
        assert!(!Vitals { rss_kib: 1101, ..before }.is_within(before, 100));
        assert!(!Vitals { threads: 15, ..before }.is_within(before, 100));
        assert!(!Vitals { files: 15, ..before }.is_within(before, 100));
    }
}
