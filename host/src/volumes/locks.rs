// SPDX-License-Identifier: Apache-2.0
//! One operation at a time on each volume's life; a second one waits a little, then learns what it waits for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use driver_api::{Error, ErrorKind, Result};
use tokio::sync::OwnedMutexGuard;

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub(super) struct Locks {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<()>>,
    operation: Mutex<String>,
}

/// The right to change one volume's life; ends when dropped.
pub(super) struct Turn {
    _guard: OwnedMutexGuard<()>,
}

impl Locks {
    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody holds or waits for are of no use any more.
        slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.lock.try_lock().is_err());
        Arc::clone(slots.entry(name.to_owned()).or_default())
    }

    pub(super) async fn turn(&self, name: &str, operation: &str) -> Result<Turn> {
        let slot = self.slot(name);
        let waiting = tokio::time::timeout(PATIENCE, Arc::clone(&slot.lock).lock_owned());
        let Ok(guard) = waiting.await else {
            let busy = slot.operation.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(Error::new(
                ErrorKind::IN_USE,
                format!("volume `{name}` is busy: {busy} is under way"),
            )
            .during(operation)
            .remedy("wait for it: novastor job list"));
        };
        operation.clone_into(&mut slot.operation.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Turn { _guard: guard })
    }
}
