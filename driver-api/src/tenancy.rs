// SPDX-License-Identifier: Apache-2.0
//! [`Tenancy`]: the rules of attaching, for drivers whose storage is this process.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::{Attach, Error, ErrorKind, Result};

/// Who holds a volume, where nobody outside this process can hold it: one attachment at a time, epochs that only grow.
///
/// An operation keeps what [`Tenancy::enter`] gave it until it is done, so that a take-over waits for it and nothing of
/// the old holder lands afterwards: `Fencing::EXCLUSIVE_LOCK`.
#[derive(Debug, Default)]
pub struct Tenancy(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    epoch: u64,
    held: bool,
    owner: String,
}

/// Keeps an attachment from being taken over while an operation goes on.
#[derive(Debug)]
pub struct Entry<'a> {
    _state: RwLockReadGuard<'a, State>,
}

impl Tenancy {
    /// Attaches, or says who holds the volume. Waits for operations under way.
    pub fn hold(&self, attach: &Attach) -> Result<()> {
        let mut state = self.write();
        if !attach.force {
            state.check_free()?;
        }
        if state.epoch >= attach.epoch {
            return Err(Error::new(ErrorKind::FENCED, "a later attachment had the volume")
                .with("epoch", attach.epoch)
                .with("latest_epoch", state.epoch));
        }
        *state = State { epoch: attach.epoch, held: true, owner: attach.owner.to_string() };
        Ok(())
    }

    /// Begins an operation of this attachment; `Fenced` once it has ended.
    pub fn enter(&self, attach: &Attach) -> Result<Entry<'_>> {
        let state = self.read();
        state.check(attach)?;
        Ok(Entry { _state: state })
    }

    /// Ends this attachment. Waits for operations under way.
    pub fn release(&self, attach: &Attach) -> Result<()> {
        let mut state = self.write();
        state.check(attach)?;
        state.held = false;
        Ok(())
    }

    /// Whether nobody holds the volume; otherwise `InUse`, naming the holder.
    pub fn check_free(&self) -> Result<()> {
        self.read().check_free()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, attach: &Attach) -> Result<()> {
        if self.held && self.epoch == attach.epoch {
            return Ok(());
        }
        Err(Error::new(ErrorKind::FENCED, "this attachment of the volume has ended")
            .with("epoch", attach.epoch))
    }

    fn check_free(&self) -> Result<()> {
        if !self.held {
            return Ok(());
        }
        let why = format!("the volume is attached by {}", self.owner);
        Err(Error::new(ErrorKind::IN_USE, why)
            .with("holder_epoch", self.epoch)
            .remedy("detach it there, or take it over"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AttachMode;

    fn attach(epoch: u64, owner: &str) -> Attach {
        Attach::new(AttachMode::EXCLUSIVE, epoch, owner)
    }

    #[test]
    fn one_holds_until_it_releases() {
        let tenancy = Tenancy::default();
        tenancy.hold(&attach(1, "first")).expect("free");
        let refused = tenancy.hold(&attach(2, "second")).expect_err("held");
        assert_eq!(refused.kind(), ErrorKind::IN_USE);
        assert!(refused.message().contains("first"));
        tenancy.release(&attach(1, "first")).expect("held");
        tenancy.check_free().expect("released");
        tenancy.hold(&attach(2, "second")).expect("free again");
    }

    #[test]
    fn a_take_over_fences_the_old_holder_and_old_epochs_stay_out() {
        let tenancy = Tenancy::default();
        tenancy.hold(&attach(5, "old")).expect("free");
        tenancy.hold(&attach(6, "new").force()).expect("forced");
        let entered = tenancy.enter(&attach(5, "old")).map(drop);
        for ended in [entered, tenancy.release(&attach(5, "old"))] {
            assert_eq!(ended.expect_err("fenced").kind(), ErrorKind::FENCED);
        }
        drop(tenancy.enter(&attach(6, "new")).expect("holds"));
        let late = tenancy.hold(&attach(6, "late").force()).expect_err("old epoch");
        assert_eq!(late.kind(), ErrorKind::FENCED);
    }

    #[test]
    fn a_take_over_waits_for_operations_under_way() {
        let tenancy = Tenancy::default();
        tenancy.hold(&attach(1, "old")).expect("free");
        let old = attach(1, "old");
        let entry = tenancy.enter(&old).expect("holds");
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| tenancy.hold(&attach(2, "new").force()));
            assert!(!taker.is_finished(), "the operation still goes on");
            drop(entry);
            taker.join().expect("joined").expect("taken");
        });
        assert_eq!(tenancy.enter(&old).expect_err("fenced").kind(), ErrorKind::FENCED);
    }
}
