// SPDX-License-Identifier: Apache-2.0
//! A backend: a driver opened with a configuration.

use std::sync::Arc;

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{
    Attach, Capabilities, Error, ErrorKind, Op, OpContext, Stats, Volume, VolumeInfo, VolumeSpec,
    ext,
};

/// An opened backend. Every method is `[any thread · backend open]`; volumes are named, names are checked by the host,
/// sizes against the capabilities and options against [`DriverInfo`](crate::DriverInfo) before a method is called.
///
/// A mutation may be repeated when its outcome is unknown: where it had succeeded, the answer says so (`create` gives the
/// same volume, `delete` says `NotFound`).
/// The type is a cheap handle: clone it into the futures.
pub trait Backend: Clone + Send + Sync + 'static {
    /// Its volumes.
    type Volume: Volume;

    /// What its volumes can do. Must not block.
    fn capabilities(&self) -> Capabilities;

    /// Creates a volume that reads zeros. One of that name and size and options is the same volume: success;
    /// another of that name: `AlreadyExists`.
    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo>;

    /// Deletes a volume. `NotFound` if there is none, `InUse` while it is attached or others depend on it.
    fn delete(&self, cx: &OpContext, name: &str) -> Op<()>;

    /// All volumes, by name.
    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>>;

    /// One volume.
    fn show(&self, cx: &OpContext, name: &str) -> Op<VolumeInfo>;

    /// Attaches a volume under [`Attach`]'s rules.
    fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<Self::Volume>;

    /// Space in the backend; zero capacity where it is not known.
    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        let _ = cx;
        Op::ok(Usage::default())
    }

    /// Asks the storage how it is. Storage that cannot fail apart from this process needs no answer of its own.
    fn health(&self, cx: &OpContext) -> Op<Health> {
        let _ = cx;
        Op::ok(Health::healthy())
    }

    /// Counters of the whole backend. Must not block.
    fn stats(&self) -> Stats {
        Stats::new()
    }

    /// Closes the backend. All volumes are detached.
    fn close(&self, cx: &OpContext) -> Op<()> {
        let _ = cx;
        Op::ok(())
    }

    /// Clones, if the backend has them.
    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        None
    }

    /// Commands of the driver's own, if it has any.
    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        None
    }

    /// Nodes, shards and replicas, if the backend has them. Since 1.2.
    fn cluster(&self) -> Option<Arc<dyn ext::Cluster>> {
        None
    }

    /// Gives a volume another name, durably; content, size and snapshots stay. `NotFound` if there is none, `AlreadyExists`
    /// if another has the name `to`, `InUse` while it is attached; then nothing is changed. One that a crash cut in two is
    /// finished when it is repeated. Needs [`Abilities::RENAME`](crate::Abilities::RENAME). Since 1.3.
    fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        let _ = (cx, name, to);
        Op::err(no_rename())
    }

    /// Buckets and objects, if the backend has them. Since 1.3. Needs [`Abilities::OBJECTS`](crate::Abilities::OBJECTS).
    fn objects(&self) -> Option<Arc<dyn ext::Objects>> {
        None
    }
}

/// What a driver from before 1.3 answers, and one whose volumes keep their names.
pub(crate) fn no_rename() -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot rename volumes")
        .during("rename")
        .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}

/// Space in a backend, in bytes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Usage {
    /// All there is.
    pub capacity: u64,
    /// Occupied by this backend's volumes and snapshots.
    pub used: u64,
    /// Still writable.
    pub available: u64,
    /// Sum of the volumes' sizes.
    pub provisioned: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// How well a backend is.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthState(u32);

impl HealthState {
    /// All is well.
    pub const HEALTHY: Self = Self(0);
    /// It serves, but something needs attention.
    pub const DEGRADED: Self = Self(1);
    /// It does not serve.
    pub const FAILED: Self = Self(2);

    /// The state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::HEALTHY => "healthy",
            Self::DEGRADED => "degraded",
            Self::FAILED => "failed",
            _ => "unknown",
        }
    }
}

/// How well a backend is, and why.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct Health {
    /// The state.
    pub state: HealthState,
    /// The reason; empty when healthy.
    pub reason: RString,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

impl Health {
    /// All is well.
    pub fn healthy() -> Self {
        Self { state: HealthState::HEALTHY, reason: RString::new(), reserved: [0; 2] }
    }

    /// It serves, but for this reason needs attention.
    pub fn degraded(reason: &str) -> Self {
        Self { state: HealthState::DEGRADED, reason: reason.into(), reserved: [0; 2] }
    }

    /// It does not serve, for this reason.
    pub fn failed(reason: &str) -> Self {
        Self { state: HealthState::FAILED, reason: reason.into(), reserved: [0; 2] }
    }
}
