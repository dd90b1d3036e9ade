// SPDX-License-Identifier: Apache-2.0
//! The files that a volume with snapshots consists of, and what is to be done with them next. Pure: it knows no server.
//!
//! ```text
//!   root: NAME.raw <--- 1: first <--+-- 2: second
//!                                   +-- 4 (active, after going back to the snapshot `first`)
//! ```
//!
//! Each layer but the root is an image that has what was written since its parent was frozen. One layer is active: it alone
//! is written. The others are frozen; snapshots are names for them. What no snapshot names any more goes: a layer that
//! nothing is above is removed, and one with a single layer above it takes over what that has.

use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::names::FileName;

/// A layer's number. The root's is [`ROOT`]; a parent's is smaller than its children's.
pub(crate) type LayerId = u64;

/// The layer that is the volume's own file.
pub(crate) const ROOT: LayerId = 0;

/// A layer above the root.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Its number.
    pub id: LayerId,
    /// Its file.
    pub file: String,
    /// What it lies on.
    pub parent: LayerId,
}

/// A name for a frozen layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The name.
    pub name: String,
    /// The layer.
    pub layer: LayerId,
    /// The volume's size when it was taken.
    pub size: u64,
    /// When it was taken, in nanoseconds since 1970.
    pub created_unix_nanos: u64,
    /// How.
    pub method: String,
}

/// The layers and snapshots of a volume. The default is a volume that has none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tree {
    /// The layers above the root, by number.
    #[serde(default)]
    pub overlays: Vec<Overlay>,
    /// The snapshots, oldest first.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    /// The layer that is written.
    #[serde(default)]
    pub active: LayerId,
    /// The largest number that a layer ever had.
    #[serde(default)]
    pub last: LayerId,
    /// Files that belong to no layer any more and are still to be removed.
    #[serde(default)]
    pub gone: Vec<String>,
}

/// What is to be done next, so that no layer is kept that no snapshot needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Nothing.
    Rest,
    /// Files that belong to no layer are removed.
    Sweep,
    /// A layer that nothing needs goes.
    Drop(LayerId),
    /// A frozen layer's content goes into its parent.
    Merge {
        /// Which one's.
        child: LayerId,
        /// Into which.
        parent: LayerId,
    },
    /// The active layer's content goes into its parent, which becomes the active one.
    Settle {
        /// Into which.
        parent: LayerId,
    },
}

impl Tree {
    /// Whether the volume is its own file and nothing else.
    pub fn is_plain(&self) -> bool {
        self.overlays.is_empty() && self.snapshots.is_empty() && self.gone.is_empty()
    }

    /// Whether the volume never was anything else.
    pub fn is_untouched(&self) -> bool {
        *self == Self::default()
    }

    /// A layer above the root.
    pub fn overlay(&self, id: LayerId) -> Option<&Overlay> {
        self.overlays.iter().find(|overlay| overlay.id == id)
    }

    /// The snapshot of this name.
    pub fn snapshot(&self, name: &str) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.name == name)
    }

    /// The layers from the root up to this one.
    pub fn chain(&self, top: LayerId) -> Vec<LayerId> {
        let mut chain = vec![top];
        let mut at = top;
        while let Some(overlay) = self.overlay(at) {
            at = overlay.parent;
            chain.push(at);
        }
        chain.reverse();
        chain
    }

    /// The layers that lie on this one.
    pub fn children(&self, of: LayerId) -> impl Iterator<Item = &Overlay> {
        self.overlays.iter().filter(move |overlay| overlay.parent == of && overlay.id != of)
    }

    /// Refuses what no driver of this kind wrote.
    pub fn check(&self) -> Result<()> {
        let mut before = ROOT;
        for overlay in &self.overlays {
            let parent_is_known = overlay.parent == ROOT || self.overlay(overlay.parent).is_some();
            let is_in_order = overlay.id > before && overlay.parent < overlay.id;
            if !parent_is_known || !is_in_order || overlay.id > self.last {
                return Err(senseless("a layer lies on none"));
            }
            before = overlay.id;
        }
        let files = self.overlays.iter().map(|overlay| &overlay.file).chain(&self.gone);
        let mut names: Vec<&String> = files.collect();
        names.iter().try_for_each(|name| FileName::new(name).map(drop))?;
        let count = names.len();
        names.sort();
        names.dedup();
        if names.len() < count {
            return Err(senseless("two layers have one file"));
        }
        let exists = |id: LayerId| id == ROOT || self.overlay(id).is_some();
        if !exists(self.active) || self.children(self.active).next().is_some() {
            return Err(senseless("the active layer is none that can be written"));
        }
        let is_frozen =
            |snapshot: &Snapshot| exists(snapshot.layer) && snapshot.layer != self.active;
        if !self.snapshots.iter().all(is_frozen) {
            return Err(senseless("a snapshot has no frozen layer"));
        }
        Ok(())
    }

    /// With a new layer in `file` on top of `parent`, which is written from then on.
    fn with_active(&self, parent: LayerId, file: &FileName) -> Self {
        let mut tree = self.clone();
        tree.last += 1;
        tree.active = tree.last;
        tree.overlays.push(Overlay { id: tree.last, file: file.to_string(), parent });
        tree
    }

    /// With the active layer frozen under a new one in `file`.
    pub fn frozen(&self, file: &FileName) -> Self {
        self.with_active(self.active, file)
    }

    /// The same, with a name for what is frozen; `snapshot.layer` is set here.
    pub fn with_snapshot(&self, snapshot: Snapshot, file: &FileName) -> Self {
        let mut tree = self.frozen(file);
        tree.snapshots.push(Snapshot { layer: self.active, ..snapshot });
        tree
    }

    /// Without the name; the layer stays until the next steps.
    pub fn without_snapshot(&self, name: &str) -> Self {
        let mut tree = self.clone();
        tree.snapshots.retain(|snapshot| snapshot.name != name);
        tree
    }

    /// With a new active layer in `file` on the frozen layer `on`; the active one goes, unless it is the root.
    pub fn rolled_back(&self, on: LayerId, file: &FileName) -> Self {
        let mut tree = self.with_active(on, file);
        tree.discard(self.active);
        tree
    }

    /// Without a layer that nothing lies on.
    pub fn dropped(&self, id: LayerId) -> Self {
        let mut tree = self.clone();
        tree.discard(id);
        tree
    }

    /// With everything of `child` taken over by its parent.
    pub fn merged(&self, child: LayerId) -> Self {
        let Some(parent) = self.overlay(child).map(|overlay| overlay.parent) else {
            return self.clone();
        };
        let mut tree = self.clone();
        for overlay in tree.overlays.iter_mut().filter(|overlay| overlay.parent == child) {
            overlay.parent = parent;
        }
        for snapshot in tree.snapshots.iter_mut().filter(|snapshot| snapshot.layer == child) {
            snapshot.layer = parent;
        }
        if tree.active == child {
            tree.active = parent;
        }
        tree.discard(child);
        tree
    }

    /// With nothing to be removed any more.
    pub fn swept(&self) -> Self {
        Self { gone: Vec::new(), ..self.clone() }
    }

    fn discard(&mut self, id: LayerId) {
        let Some(at) = self.overlays.iter().position(|overlay| overlay.id == id) else { return };
        let overlay = self.overlays.remove(at);
        self.gone.push(overlay.file);
    }

    /// What is to be done next. What is read by somebody besides is `pinned`, and stays as it is.
    pub fn next(&self, pinned: &[LayerId]) -> Step {
        if !self.gone.is_empty() {
            return Step::Sweep;
        }
        let is_needed = |id: LayerId| {
            pinned.contains(&id) || self.snapshots.iter().any(|snapshot| snapshot.layer == id)
        };
        let is_bare = |overlay: &&Overlay| {
            overlay.id != self.active
                && !is_needed(overlay.id)
                && self.children(overlay.id).next().is_none()
        };
        if let Some(overlay) = self.overlays.iter().rev().find(is_bare) {
            return Step::Drop(overlay.id);
        }
        let mut settle = None;
        // From the root up, so that nothing is copied twice.
        for parent in std::iter::once(ROOT).chain(self.overlays.iter().map(|overlay| overlay.id)) {
            let mut children = self.children(parent);
            let (Some(child), None) = (children.next(), children.next()) else { continue };
            if is_needed(parent) || pinned.contains(&child.id) {
                continue;
            }
            if child.id == self.active {
                settle = Some(Step::Settle { parent });
            } else {
                return Step::Merge { child: child.id, parent };
            }
        }
        settle.unwrap_or(Step::Rest)
    }
}

fn senseless(why: &str) -> Error {
    Error::new(ErrorKind::CORRUPTED, format!("the volume's record makes no sense: {why}"))
        .remedy("restore the record from a backup; the volume's files are untouched")
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
