// SPDX-License-Identifier: Apache-2.0
//! Sessions of the reference. There is one copy of the data, so that each of them is strong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use driver_api::{
    ErrorKind, Result,
    ext::{Consistency, Sessions},
};

use super::{attachment::Attachment, defect::Defect, store::Disk};

/// What a session has written and seen.
pub struct Session {
    /// The attachment that it is of, as itself.
    of: Attachment,
    /// How many changes of the volume it knows of. This is its token.
    seen: AtomicU64,
    wrote: AtomicBool,
}

impl Session {
    pub fn saw(&self, disk: &Disk) {
        self.seen.fetch_max(disk.changes, Ordering::SeqCst);
    }

    pub fn wrote(&self) {
        self.wrote.store(true, Ordering::SeqCst);
    }

    /// Whether it reads what a flush has reached only, by a defect.
    pub fn is_behind(&self) -> bool {
        match self.of.store().defect {
            Some(Defect::SessionReadsFlushed) => true,
            Some(Defect::SessionTokenBindsNobody) => !self.wrote.load(Ordering::SeqCst),
            _ => false,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.of.store().is(Defect::SessionEndUndoes) && self.wrote.load(Ordering::SeqCst) {
            // An attachment that has ended, or a volume that is gone, has nothing left to undo.
            let _ = self.of.reading(|disk| {
                disk.live = disk.stable.clone();
                Ok(())
            });
        }
    }
}

impl Sessions<Self> for Attachment {
    fn consistency(&self) -> Result<Consistency> {
        Ok(Consistency::STRONG)
    }

    fn open(&self, token: &str) -> Result<Self> {
        let refused = |message| self.store().error(ErrorKind::INVALID_ARGUMENT, message);
        let seen = match token.parse() {
            Ok(seen) => seen,
            Err(_) if token.is_empty() || self.store().is(Defect::SessionTokenUnread) => 0,
            Err(_) => return Err(refused("this is no token of a session").with("token", token)),
        };
        self.reading(|disk| match seen <= disk.changes {
            true => Ok(()),
            false => Err(refused("the token is of another volume").with("token", token)),
        })?;
        let of = self.without_session();
        let (seen, wrote) = (AtomicU64::new(seen), AtomicBool::new(false));
        Ok(self.with_session(Session { of, seen, wrote }))
    }

    fn token(&self, session: &Self) -> Result<String> {
        let own = session.session();
        Ok(own.map_or(0, |own| own.seen.load(Ordering::SeqCst)).to_string())
    }
}
