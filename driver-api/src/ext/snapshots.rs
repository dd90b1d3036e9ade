// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Error, ErrorKind, Op, OpContext};

/// Read-only pictures of a volume at one moment. Every method is `[any thread · volume attached]`.
pub trait Snapshots: Send + Sync {
    /// Takes a snapshot of every write acknowledged before the call and none started after its answer, durably. A snapshot of that name: `AlreadyExists`.
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo>;

    /// All snapshots, oldest first.
    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>>;

    /// Deletes a snapshot. `NotFound` if there is none, `InUse` while a clone needs it.
    fn delete(&self, cx: &OpContext, name: &str) -> Op<()>;

    /// Puts the volume back to a snapshot, size included; the snapshot stays. Writes made since are gone.
    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()>;

    /// Protects a snapshot, durably, or with `on` false takes its protection away; one that is so already stays so: success.
    /// While it is protected it can be deleted neither by itself nor with its volume: `InUse`. `NotFound` if there is none;
    /// taking the protection away from what a clone needs may be `InUse`. Needs
    /// [`Abilities::PROTECT`](crate::Abilities::PROTECT). Since 1.3.
    fn protect(&self, _cx: &OpContext, _name: &str, _on: bool) -> Op<SnapshotInfo> {
        Op::err(no_protection())
    }
}

/// What a driver from before 1.3 answers, and one that cannot protect snapshots.
pub(crate) fn no_protection() -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot protect snapshots")
        .during("protect")
        .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}

/// What a volume knows of a snapshot.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The name.
    pub name: RString,
    /// The volume's size when it was taken, in bytes.
    pub size: u64,
    /// When it was taken, in seconds since 1970.
    pub created_unix_secs: u64,
    /// How: `reflink`, `copy`, `rbd`...
    pub method: RString,
    /// Bytes of its own that it occupies, as far as the backend knows.
    pub used: u64,
    /// The first word: [`SnapshotInfo::PROTECTED`] or zero, since 1.3. The others: zero in this version.
    pub reserved: [u64; 4],
}

impl SnapshotInfo {
    /// The bit of a snapshot that cannot be deleted. Since 1.3.
    pub const PROTECTED: u64 = 1;

    /// Whether it cannot be deleted: see [`Snapshots::protect`]. Since 1.3.
    pub fn is_protected(&self) -> bool {
        self.reserved[0] & Self::PROTECTED != 0
    }

    /// The same, protected or not. Since 1.3.
    pub fn protected(mut self, is_protected: bool) -> Self {
        self.reserved[0] = if is_protected { Self::PROTECTED } else { 0 };
        self
    }
}
