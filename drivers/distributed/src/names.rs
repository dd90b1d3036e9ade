// SPDX-License-Identifier: Apache-2.0
//! Names of bricks, and who works on a volume's name right now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

/// A longer name leaves no room for what a brick's name adds.
const LONGEST: usize = 100;
/// What is kept of a name that is too long.
const KEPT: usize = 80;

/// What the names of a volume's bricks begin with: its name, or if that is too long its beginning and identity.
pub(crate) fn base(volume: &str, identity: u64) -> String {
    match volume.get(..KEPT) {
        Some(kept) if volume.len() > LONGEST => format!("{kept}.{identity:016x}"),
        _ => volume.to_owned(),
    }
}

/// Whether the names of a volume's bricks may begin so, whatever its identity is.
pub(crate) fn may_be_base(volume: &str, base: &str) -> bool {
    match volume.get(..KEPT) {
        Some(kept) if volume.len() > LONGEST => {
            base.strip_prefix(kept).is_some_and(|rest| rest.len() == 17 && rest.starts_with('.'))
        }
        _ => base == volume,
    }
}

/// One at a time creates or deletes a volume of a name.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits until nobody else works on this name.
    pub async fn take(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Names on which nobody works are forgotten.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bricks_of_long_names_have_names_too() {
        let long = "n".repeat(128);
        assert_eq!(base("disk", 7), "disk");
        assert_eq!(base(&long, 7).len(), KEPT + 17);
        assert_ne!(base(&long, 7), base(&long, 8));
        assert!(may_be_base(&long, &base(&long, 7)) && may_be_base("disk", "disk"));
        assert!(!may_be_base(&long, &long) && !may_be_base("disk", "disk1"));
    }
}
