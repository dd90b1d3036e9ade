// SPDX-License-Identifier: Apache-2.0
//! How many bytes transfers may hold at once. Who comes when there is no room waits, in the order of arrival.

use std::sync::Arc;

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What room is given out in.
const UNIT: u64 = 1 << 10;

/// Room for bytes. A cheap handle.
#[derive(Clone, Debug)]
pub struct Budget {
    units: u32,
    free: Arc<Semaphore>,
}

/// Room that is held until this is dropped.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl Reserved {
    /// Gives back what is not needed for so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        let units = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let spare = self.0.num_permits().saturating_sub(units);
        drop(self.0.split(spare));
    }
}

impl Budget {
    /// Room for so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        Self { units, free: Arc::new(Semaphore::new(units as usize)) }
    }

    /// Waits for room for so many bytes. More than there is at all takes all of it, and so goes alone.
    pub async fn reserve(&self, bytes: u64) -> Result<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await;
        permit.map(Reserved).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "there is no room for transfers").caused_by(&error)
        })
    }

    /// Room for so many bytes, if there is some and nobody waits for it.
    pub fn reserve_now(&self, bytes: u64) -> Option<Reserved> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.units);
        Arc::clone(&self.free).try_acquire_many_owned(units).ok().map(Reserved)
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.free.available_permits() as u64 * UNIT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_room_waits_and_the_largest_goes_alone() {
        let budget = Budget::new(10 << 10);
        let first = budget.reserve(6 << 10).await.expect("room");
        let waiting = tokio::time::timeout(Duration::from_millis(20), budget.reserve(5 << 10));
        assert!(waiting.await.is_err(), "it waits");
        assert!(budget.reserve_now(5 << 10).is_none(), "there is none now");
        drop(first);
        let mut some = budget.reserve(6 << 10).await.expect("room");
        some.shrink(8 << 10);
        assert_eq!(budget.free(), 4 << 10, "it does not grow");
        some.shrink((1 << 10) + 1);
        assert_eq!(budget.free(), 8 << 10);
        drop(some);
        let all = budget.reserve(1 << 30).await.expect("all of it");
        assert_eq!(budget.free(), 0);
        drop(all);
        assert_eq!(budget.free(), 10 << 10);
    }
}
