// SPDX-License-Identifier: Apache-2.0
//! What connections may have in flight together: operations and bytes, for each export and for each backend.
//!
//! ```text
//!   connection: OWN, always its own ---beyond that---> export's pool ---and---> backend's pool
//! ```
//!
//! Nobody queues. A connection may use as much of its export's pool as it leaves free there: one alone gets half, of n
//! each gets a share of n + 1, and the last share stays for whoever comes. In the same way the exports share their
//! backend's pool; what an export may use of that is shared among its connections. A connection that is refused has operations of its own in flight and asks again when one of them ends. Only
//! one large operation of a connection that has nothing else in flight may have to wait for others: it claims its
//! place, first come first served, and the others leave that place free.
//!
//! What a connection uses is what it receives, has in the driver and has not sent yet. It takes from the pools in
//! chunks and gives back before it sleeps: an operation that ends at once, or is small, touches nothing shared.

mod patience;
mod pool;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

pub use patience::{PATIENCE, Patience};
use pool::{Claim, Pool};

/// What every connection may use without asking: one operation, with 64 KiB of data and room for some replies.
pub const OWN: Amount = Amount { operations: 1, bytes: 72 << 10 };
/// What is taken from a pool at once, if there is room.
const CHUNK: Amount = Amount { operations: 16, bytes: 256 << 10 };
/// When an operation that has to wait for other connections asks again.
pub const RETRY: Duration = Duration::from_millis(5);

/// Operations and bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Operations.
    pub operations: usize,
    /// Bytes of their data, in either direction.
    pub bytes: usize,
}

impl Amount {
    /// Nothing.
    pub const NONE: Self = Self { operations: 0, bytes: 0 };
    /// More than there is.
    const ALL: Self = Self { operations: usize::MAX, bytes: usize::MAX };

    /// Both together.
    pub const fn plus(self, other: Self) -> Self {
        Self { operations: self.operations + other.operations, bytes: self.bytes + other.bytes }
    }

    /// What is left of it, each at least zero.
    pub const fn minus(self, other: Self) -> Self {
        Self {
            operations: self.operations.saturating_sub(other.operations),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Whether there is room for it, in both.
    pub const fn within(self, room: Self) -> bool {
        self.operations <= room.operations && self.bytes <= room.bytes
    }

    const fn half(self) -> Self {
        Self { operations: self.operations / 2, bytes: self.bytes / 2 }
    }

    const fn in_chunks(self) -> Self {
        Self {
            operations: self.operations.next_multiple_of(CHUNK.operations),
            bytes: self.bytes.next_multiple_of(CHUNK.bytes),
        }
    }

    fn least(self, other: Self) -> Self {
        Self {
            operations: self.operations.min(other.operations),
            bytes: self.bytes.min(other.bytes),
        }
    }
}

/// The pools of one server.
pub struct Budgets {
    export: Amount,
    backend: Amount,
    pools: Mutex<Pools>,
}

#[derive(Default)]
struct Pools {
    exports: HashMap<String, Weak<Pool>>,
    backends: HashMap<String, Weak<Pool>>,
}

impl Budgets {
    /// Pools of these sizes.
    pub fn new(export: Amount, backend: Amount) -> Self {
        Self { export, backend, pools: Mutex::default() }
    }

    /// An account for a connection to this export of this backend.
    pub fn account(&self, export: &str, backend: &str) -> Account {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let export = shared(&mut pools.exports, export, self.export);
        let backend = shared(&mut pools.backends, backend, self.backend);
        Account { export, backend, leased: Amount::NONE, claim: None }
    }
}

/// The pool of this name that others use already, or a new one.
fn shared(pools: &mut HashMap<String, Weak<Pool>>, name: &str, capacity: Amount) -> Arc<Pool> {
    if let Some(pool) = pools.get(name).and_then(Weak::upgrade) {
        return pool;
    }
    pools.retain(|_, pool| pool.strong_count() > 0);
    let pool = Arc::new(Pool::new(capacity));
    pools.insert(name.to_owned(), Arc::downgrade(&pool));
    pool
}

/// Whether a connection may start an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes.
    Yes,
    /// Not before something that it has in flight has ended.
    Later,
    /// It has nothing in flight: come again after [`RETRY`].
    Wait,
}

/// What one connection has taken from the pools. Dropped, it gives everything back.
pub struct Account {
    export: Arc<Pool>,
    backend: Arc<Pool>,
    /// What both pools have given.
    leased: Amount,
    /// The place of an operation that waits for other connections.
    claim: Option<Claim>,
}

impl Account {
    /// Whether a connection that uses `used` may use `more` for a further operation.
    pub fn cover(&mut self, used: Amount, more: Amount) -> Answer {
        let excess = used.plus(more).minus(OWN);
        if excess == Amount::NONE {
            self.claim = None;
            return Answer::Yes;
        }
        let alone = used == Amount::NONE;
        match self.lease(excess, alone) {
            Ok(()) => {
                self.claim = None;
                Answer::Yes
            }
            Err(pool) => {
                // Where there is too little nobody keeps a rest of a chunk. And whoever waits for others holds nothing,
                // so that those who wait never wait for each other.
                self.shrink(used.minus(OWN));
                if !alone {
                    return Answer::Later;
                }
                if !self.claim.as_ref().is_some_and(|claim| claim.is_on(&pool)) {
                    self.claim = Some(Claim::new(pool, excess.bytes));
                }
                Answer::Wait
            }
        }
    }

    /// Sees that at least `excess` is leased and allowed; otherwise the pool that refuses.
    fn lease(&mut self, excess: Amount, alone: bool) -> Result<(), Arc<Pool>> {
        let claim = self.claim.as_ref();
        let (leased, whole) = (self.leased, self.export.taken());
        let limit = self.backend.share(whole, claim);
        let of_export = |most| self.export.take(leased, (excess, most), limit, alone, claim);
        let of_backend = |more: Amount| {
            let want = whole.plus(more);
            self.backend.take(whole, (want, want), Amount::ALL, alone, claim).is_some()
        };
        let Some(more) = of_export(excess.in_chunks()) else {
            return Err(Arc::clone(&self.export));
        };
        let least = excess.minus(leased);
        let more = if of_backend(more) {
            more
        } else if more != least && of_backend(least) {
            self.export.give(more.minus(least));
            least
        } else {
            self.export.give(more);
            return Err(Arc::clone(&self.backend));
        };
        self.leased = leased.plus(more);
        Ok(())
    }

    /// Gives back what a connection that uses `used` does not need. Before it sleeps, and often enough otherwise.
    pub fn settle(&mut self, used: Amount) {
        self.shrink(used.minus(OWN).in_chunks());
    }

    fn shrink(&mut self, keep: Amount) {
        let surplus = self.leased.minus(keep);
        if surplus != Amount::NONE {
            self.leased = self.leased.minus(surplus);
            self.export.give(surplus);
            self.backend.give(surplus);
        }
    }

    /// What the pools have given.
    pub fn leased(&self) -> Amount {
        self.leased
    }

    /// How often the pools have refused anybody.
    pub fn refusals(&self) -> u64 {
        self.export.refusals().wrapping_add(self.backend.refusals())
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.claim = None;
        self.settle(Amount::NONE);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
