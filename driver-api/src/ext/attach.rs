// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RString};

/// What the attacher may do.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttachMode(u32);

impl AttachMode {
    /// Reads only; with others who read only.
    pub const READ_ONLY: Self = Self(0);
    /// Reads and writes, alone.
    pub const EXCLUSIVE: Self = Self(1);
}

/// Who attaches a volume, and how.
///
/// A second exclusive attachment, or a reader beside a writer, is refused with `InUse` naming the holder. With `force` the backend fences the
/// holder by its own means first: afterwards nothing that the old holder still has under way can land, and the old
/// holder's operations fail with `Fenced`. Where that cannot be proven, the answer is an error and nothing changed.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Attach {
    /// Reader or writer.
    pub mode: AttachMode,
    /// Take the volume from its present holder.
    pub force: bool,
    /// The attach epoch: larger than that of every earlier attachment. A backend that remembers a larger one refuses with `Fenced`,
    /// and tells it as the error's context `latest_epoch`.
    pub epoch: u64,
    /// The attacher, for the messages that others get.
    pub owner: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl Attach {
    /// An attachment in this mode, at this epoch, without force.
    pub fn new(mode: AttachMode, epoch: u64, owner: &str) -> Self {
        Self { mode, force: false, epoch, owner: owner.into(), reserved: [0; 4] }
    }

    /// Takes the volume from its present holder.
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}
