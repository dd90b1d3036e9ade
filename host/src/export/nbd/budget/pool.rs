// SPDX-License-Identifier: Apache-2.0
//! One budget that many use: how much is taken, and who waits for a place.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use super::Amount;

/// Bits of a packed amount that count bytes: up to a TiB, beside 16 million operations.
const BYTE_BITS: u32 = 40;

/// One budget.
pub struct Pool {
    capacity: Amount,
    /// What is taken, packed, so that both parts change at once.
    taken: AtomicU64,
    /// Bytes of the oldest claim; everybody else leaves them free.
    reserved: AtomicUsize,
    claims: Mutex<Claims>,
    refusals: AtomicU64,
}

#[derive(Default)]
struct Claims {
    last: u64,
    bytes: BTreeMap<u64, usize>,
}

const fn pack(amount: Amount) -> u64 {
    (amount.operations as u64) << BYTE_BITS | amount.bytes as u64
}

const fn unpack(packed: u64) -> Amount {
    Amount {
        operations: (packed >> BYTE_BITS) as usize,
        bytes: (packed & ((1 << BYTE_BITS) - 1)) as usize,
    }
}

impl Pool {
    /// A pool of which nothing is taken.
    pub fn new(capacity: Amount) -> Self {
        let most = unpack(u64::MAX >> 1);
        Self {
            capacity: capacity.least(most),
            taken: AtomicU64::new(0),
            reserved: AtomicUsize::new(0),
            claims: Mutex::default(),
            refusals: AtomicU64::new(0),
        }
    }

    /// What is taken now.
    pub fn taken(&self) -> Amount {
        // The numbers alone are shared, no memory that they would guard: everything here is relaxed.
        unpack(self.taken.load(Ordering::Relaxed))
    }

    /// What somebody who has `own` of this pool may have in all: half of what the others leave, which is no more than
    /// what is free beside it.
    pub fn share(&self, own: Amount, claim: Option<&Claim>) -> Amount {
        self.open_to(claim).minus(self.taken().minus(own)).half()
    }

    /// The capacity without the place of the first who waits, if that is somebody else.
    fn open_to(&self, claim: Option<&Claim>) -> Amount {
        let first = claim.is_some_and(|claim| claim.is_first_on(self));
        let reserved = if first { 0 } else { self.reserved.load(Ordering::Relaxed) };
        self.capacity.minus(Amount { operations: 0, bytes: reserved })
    }

    /// Sees that somebody who has `own` of this pool has at least `want` and at best `most`; what is taken for that.
    ///
    /// They may share `limit` if that is less than the capacity. Somebody who has more than the share by now is
    /// refused even what is there. `alone`: the taker has nothing in flight, and gets one operation wherever there is
    /// room for it.
    pub fn take(
        &self,
        own: Amount,
        (want, most): (Amount, Amount),
        limit: Amount,
        alone: bool,
        claim: Option<&Claim>,
    ) -> Option<Amount> {
        let capacity = self.open_to(claim);
        let mut packed = self.taken.load(Ordering::Relaxed);
        loop {
            let taken = unpack(packed);
            let share = capacity.least(limit).minus(taken.minus(own)).half();
            let more = if want.within(share) {
                most.least(share).minus(own)
            } else if alone && want.minus(own).within(capacity.minus(taken)) {
                want.minus(own)
            } else {
                self.refusals.fetch_add(1, Ordering::Relaxed);
                return None;
            };
            if more == Amount::NONE {
                return Some(more);
            }
            let (order, new) = (Ordering::Relaxed, pack(taken.plus(more)));
            match self.taken.compare_exchange_weak(packed, new, order, order) {
                Ok(_) => return Some(more),
                Err(now) => packed = now,
            }
        }
    }

    /// Takes back what was taken.
    pub fn give(&self, amount: Amount) {
        if amount != Amount::NONE {
            self.taken.fetch_sub(pack(amount), Ordering::Relaxed);
        }
    }

    /// How often somebody was refused.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn change_claims<T>(&self, change: impl FnOnce(&mut Claims) -> T) -> T {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut claims);
        let first = claims.bytes.first_key_value().map_or(0, |(_, bytes)| *bytes);
        self.reserved.store(first, Ordering::Relaxed);
        result
    }
}

/// A place among those who wait for room in a pool; dropped, the place is given up.
pub struct Claim {
    pool: Arc<Pool>,
    ticket: u64,
}

impl Claim {
    /// The last place.
    pub fn new(pool: Arc<Pool>, bytes: usize) -> Self {
        let ticket = pool.change_claims(|claims| {
            claims.last += 1;
            claims.bytes.insert(claims.last, bytes);
            claims.last
        });
        Self { pool, ticket }
    }

    /// Whether it waits for this pool.
    pub fn is_on(&self, pool: &Pool) -> bool {
        std::ptr::eq(&*self.pool, pool)
    }

    fn is_first_on(&self, pool: &Pool) -> bool {
        self.is_on(pool)
            && pool.change_claims(|claims| {
                claims.bytes.first_key_value().is_some_and(|(first, _)| *first == self.ticket)
            })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.pool.change_claims(|claims| claims.bytes.remove(&self.ticket));
    }
}
