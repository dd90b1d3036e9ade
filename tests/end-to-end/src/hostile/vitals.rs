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
        const TO_SPARE: u64 = 4;
        until(LETTING_GO, || {
            let now = Self::of(process)?;
            let regained = now.rss_kib <= self.rss_kib + kib
                && now.threads <= self.threads + TO_SPARE
                && now.files <= self.files + TO_SPARE;
            ensure(regained, || format!("it had {self}, and now has {now}"))?;
            Ok(now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Vitals;

    #[test]
    fn growth_is_seen() {
        let me = std::process::id();
        let before = Vitals::of(me).unwrap();
        assert!(before.rss_kib > 100 && before.threads >= 1 && before.files >= 3);
        let memory = vec![1_u8; 64 << 20];
        let after = Vitals::of(me).unwrap();
        assert!(after.rss_kib > before.rss_kib + (60 << 10), "{before} {after}");
        drop(memory);
        assert!(before.regained_by(me, 16 << 10).is_ok());
    }
}
