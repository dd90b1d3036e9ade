// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Op, OpContext};

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
    /// Zero in this version.
    pub reserved: [u64; 4],
}
