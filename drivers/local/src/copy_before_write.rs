// SPDX-License-Identifier: Apache-2.0
//! A copy of a file as it was at one moment, made while the file goes on being written.
//!
//! ```text
//!  region:  todo --claim--> copying --copied--> done
//! ```
//! A mutation first brings every region it touches to `done`; the copier walks the rest. Once all regions are
//! done, mutations pass freely. If copying fails, the copy is worthless and the mutations pass freely too.

use std::{
    fs::File,
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::client;

const REGION: u64 = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Region {
    Todo,
    Copying,
    Done,
}

struct Progress {
    regions: Vec<Region>,
    failure: Option<(io::ErrorKind, String)>,
}

/// The copy under way.
pub(crate) struct CopyBeforeWrite {
    source: File,
    target: File,
    len: u64,
    progress: Mutex<Progress>,
    changed: Condvar,
}

impl CopyBeforeWrite {
    /// Begins: from now on every mutation of `source` must ask [`Self::before_mutation`]. `target` is empty.
    pub fn begin(source: File, target: File) -> io::Result<Self> {
        let len = source.metadata()?.len();
        target.set_len(len)?;
        let regions = vec![Region::Todo; len.div_ceil(REGION) as usize];
        Ok(Self {
            source,
            target,
            len,
            progress: Mutex::new(Progress { regions, failure: None }),
            changed: Condvar::new(),
        })
    }

    /// Returns once the range may be changed.
    pub fn before_mutation(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.len);
        if offset < end {
            for region in offset / REGION..end.div_ceil(REGION) {
                self.settle(region as usize, true);
            }
        }
    }

    /// Copies what is not copied yet, and makes the copy durable.
    pub fn finish(&self) -> io::Result<()> {
        let count = self.progress().regions.len();
        for region in 0..count {
            self.settle(region, false);
        }
        let mut progress = self.progress();
        while progress.failure.is_none() && progress.regions.contains(&Region::Copying) {
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some((kind, text)) = &progress.failure {
            return Err(io::Error::new(*kind, text.clone()));
        }
        drop(progress);
        self.target.sync_all()
    }

    /// Whether mutations need not wait for this copy any more.
    #[cfg(test)]
    fn is_over(&self) -> bool {
        let progress = self.progress();
        progress.failure.is_some() || progress.regions.iter().all(|region| *region == Region::Done)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, region: usize, wait: bool) {
        let mut progress = self.progress();
        loop {
            if progress.failure.is_some() {
                return;
            }
            match progress.regions[region] {
                Region::Done => return,
                Region::Copying if !wait => return,
                Region::Copying => {
                    progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
                }
                Region::Todo => break,
            }
        }
        progress.regions[region] = Region::Copying;
        drop(progress);
        let start = region as u64 * REGION;
        let end = (start + REGION).min(self.len);
        let copied = client::copy_data(&self.source, &self.target, start, end, || Ok(()));
        let mut progress = self.progress();
        progress.regions[region] = Region::Done;
        if let Err(error) = copied {
            progress.failure = Some((error.kind(), error.to_string()));
        }
        drop(progress);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_copy_holds_what_was_there_at_the_beginning() {
        let source = tempfile::tempfile().expect("a file");
        let target = tempfile::tempfile().expect("a file");
        source.write_all_at(&[1; 5 << 20], 0).expect("written");
        let copy = CopyBeforeWrite::begin(
            source.try_clone().expect("cloned"),
            target.try_clone().expect("cloned"),
        )
        .expect("begun");
        for offset in [0, 3 << 20, (4 << 20) + 99, 5 << 20] {
            copy.before_mutation(offset, 70_000);
            source.write_all_at(&[2; 70_000], offset).expect("written");
        }
        assert!(!copy.is_over());
        copy.finish().expect("copied");
        assert!(copy.is_over());
        let mut content = vec![0; 5 << 20];
        target.read_exact_at(&mut content, 0).expect("read");
        assert!(content.iter().all(|&byte| byte == 1));
        assert_eq!(target.metadata().expect("metadata").len(), 5 << 20);
    }

    #[test]
    fn a_failed_copy_fails_alone() {
        let source = tempfile::tempfile().expect("a file");
        source.write_all_at(&[1; 4096], 0).expect("written");
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let copy = CopyBeforeWrite {
            source,
            target: full,
            len: 4096,
            progress: Mutex::new(Progress { regions: vec![Region::Todo], failure: None }),
            changed: Condvar::new(),
        };
        copy.before_mutation(0, 512);
        let error = copy.finish().expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
