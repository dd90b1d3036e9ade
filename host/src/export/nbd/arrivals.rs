// SPDX-License-Identifier: Apache-2.0
//! Connections that have not chosen an export yet. They are bounded apart from the others, and the oldest makes room:
//! whoever only connects, or is slow to choose, keeps nobody out.

use std::{collections::BTreeMap, sync::Arc};

use super::control::{Control, Wish};

/// Connections that negotiate, oldest first.
#[derive(Default)]
pub struct Arrivals(BTreeMap<u64, Arc<Control>>);

impl Arrivals {
    /// Adds the youngest, and sends the oldest away as long as there are more than `most`.
    pub fn add(&mut self, control: Arc<Control>, most: usize) {
        self.0.insert(control.id, control);
        while self.0.len() > most.max(1) {
            let Some((id, oldest)) = self.0.pop_first() else { return };
            tracing::debug!(connection = id, "a client was slow to choose, and others came");
            oldest.ask(Wish::Abandon);
        }
    }

    /// Takes a connection off that has chosen or left. False if it was sent away before.
    pub fn remove(&mut self, id: u64) -> bool {
        self.0.remove(&id).is_some()
    }
}
