// SPDX-License-Identifier: Apache-2.0
//! Writes whose outcome nobody knows, and who has been told of them.
//!
//! ```text
//!   none --> noted ----------> settled ---------------------> none
//!            a write failed    its client is fenced:          a flush failed to tell it,
//!            or timed out      nothing lands any more         or the volume was detached
//! ```
//! They are counted, because another write may time out before a flush has told of the last one. A flush that was asked before
//! the others were told fails as well: it was to vouch for writes of that time.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// What a flush says of writes in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vouch {
    /// There are none that it has to tell of.
    Yes,
    /// There were: nothing of them lands any more.
    Settled,
    /// There are, and they may still land.
    Open,
}

/// How many there were, of how many it is settled that they do not land any more, and how many were told.
#[derive(Default)]
pub(crate) struct Doubt {
    noted: AtomicU64,
    settled: AtomicU64,
    told: AtomicU64,
}

impl Doubt {
    /// A write has failed, or was not answered.
    pub fn note(&self) {
        self.noted.fetch_add(1, SeqCst);
    }

    /// Nothing of those that were noted lands any more.
    pub fn settle(&self) {
        self.settled.fetch_max(self.noted.load(SeqCst), SeqCst);
    }

    /// Whether some may still land.
    pub fn is_open(&self) -> bool {
        self.settled.load(SeqCst) < self.noted.load(SeqCst)
    }

    /// Whether there are some that no flush has told of.
    pub fn is_untold(&self) -> bool {
        self.told.load(SeqCst) < self.noted.load(SeqCst)
    }

    /// What has been told when a flush is asked for.
    pub fn heard(&self) -> u64 {
        self.told.load(SeqCst)
    }

    /// Whether a flush vouches that had heard this when it was asked for. If it does not, the caller is told.
    pub fn vouch(&self, heard: u64) -> Vouch {
        let noted = self.noted.load(SeqCst);
        if noted == heard {
            return Vouch::Yes;
        }
        if self.settled.load(SeqCst) < noted {
            return Vouch::Open;
        }
        self.told.fetch_max(noted, SeqCst);
        Vouch::Settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flush_tells_and_only_once_nothing_lands_any_more() {
        let doubt = Doubt::default();
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Yes);
        doubt.note();
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Open);
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Open);
        doubt.settle();
        assert!(!doubt.is_open() && doubt.is_untold());
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Settled);
        assert!(!doubt.is_untold());
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Yes);
    }

    #[test]
    fn flushes_that_were_asked_before_it_was_told_fail_as_well() {
        let doubt = Doubt::default();
        let (under_way, second) = (doubt.heard(), doubt.heard());
        doubt.note();
        doubt.settle();
        assert_eq!(doubt.vouch(doubt.heard()), Vouch::Settled);
        assert_eq!(doubt.vouch(under_way), Vouch::Settled);
        let later = doubt.heard();
        assert_eq!(doubt.vouch(later), Vouch::Yes);
        doubt.note();
        assert_eq!(doubt.vouch(second), Vouch::Open);
        assert_eq!(doubt.vouch(later), Vouch::Open);
        doubt.settle();
        assert_eq!(doubt.vouch(later), Vouch::Settled);
    }
}
