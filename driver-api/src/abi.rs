// SPDX-License-Identifier: Apache-2.0
//! What crosses the library boundary. Drivers and hosts use [`export`](crate::export), the handles and
//! [`import`](crate::import) instead; only these modules touch the types here, and a host that puts an object of its own
//! behind a handle.
//!
//! Rules: a method is appended after the last one, with a default that refuses; nothing is inserted, reordered or
//! changed; `last_prefix_field` stays where version 1.0 put it.

mod objects;

use abi_stable::{
    StableAbi, sabi_trait,
    std_types::{ROption, RResult, RStr, RString, RVec, Tuple2},
};

use crate::{
    Attach, BackendConfig, BackendHandle, Capabilities, DriverInfo, Error, Health, Host, IoBuf, Op,
    OpContext, StateHandle, Stats, Usage, VolumeHandle, VolumeInfo, VolumeSpec, WatchHandle,
    WriteFlags,
    ext::{
        CommandSpec, Comparison, Consistency, Extent, Flattening, Movement, MovementPlan,
        NodeChange, NodeInfo, NodeSpec, NodeStep, Promote, Promotion, Rebalancing, RecoveredVolume,
        ReplicationInfo, Scrubbing, ShardInfo, SnapshotInfo,
    },
    host::LogRecord,
    state::{Batch, Committed, Entry, Transaction},
};

pub use objects::{RawObjectReader, RawObjectReader_TO, RawObjects, RawObjects_TO};

/// The ABI's major version: a driver of another one is refused.
pub const MAJOR: u32 = 1;
/// The ABI's minor version: any other one of the same major version is served.
pub const MINOR: u32 = 3;

/// The table of functions behind a driver's entry symbol.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = DriverModuleRef)))]
#[sabi(missing_field(panic))]
pub struct DriverModule {
    /// Starts the driver's runtime and connects its log; called once, before all others.
    pub initialise: extern "C" fn(Host) -> RResult<(), Error>,
    /// What the driver says of itself.
    pub describe: extern "C" fn() -> RResult<DriverInfo, Error>,
    /// Opens a backend; a layer answers `Unsupported`.
    pub open: extern "C" fn(Host, BackendConfig) -> Op<BackendHandle>,
    /// Wraps a volume; a driver answers `Unsupported`.
    #[sabi(last_prefix_field)]
    pub wrap: extern "C" fn(Host, BackendConfig, VolumeHandle) -> Op<VolumeHandle>,
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawBackend: Send + Sync {
    fn capabilities(&self) -> RResult<Capabilities, Error>;
    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo>;
    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()>;
    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>>;
    fn show(&self, cx: &OpContext, name: RStr<'_>) -> Op<VolumeInfo>;
    fn attach(&self, cx: &OpContext, name: RStr<'_>, attach: Attach) -> Op<VolumeHandle>;
    fn usage(&self, cx: &OpContext) -> Op<Usage>;
    fn health(&self, cx: &OpContext) -> Op<Health>;
    fn stats(&self) -> RResult<Stats, Error>;
    fn close(&self, cx: &OpContext) -> Op<()>;
    fn clones(&self) -> RResult<ROption<crate::handles::ClonesHandle>, Error>;
    #[sabi(last_prefix_field)]
    fn commands(&self) -> RResult<ROption<crate::handles::CommandsHandle>, Error>;
    /// Since 1.2.
    fn cluster(&self) -> RResult<ROption<crate::handles::ClusterHandle>, Error> {
        RResult::ROk(ROption::RNone)
    }
    /// Since 1.3.
    fn rename(&self, _cx: &OpContext, _name: RStr<'_>, _to: RStr<'_>) -> Op<VolumeInfo> {
        Op::err(crate::backend::no_rename())
    }
    /// Since 1.3.
    fn objects(&self) -> RResult<ROption<crate::handles::ObjectsHandle>, Error> {
        RResult::ROk(ROption::RNone)
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawVolume: Send + Sync {
    fn size(&self) -> RResult<u64, Error>;
    fn capabilities(&self) -> RResult<Capabilities, Error>;
    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf>;
    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()>;
    fn flush(&self, cx: &OpContext) -> Op<()>;
    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()>;
    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()>;
    fn detach(&self, cx: &OpContext) -> Op<()>;
    fn stats(&self) -> RResult<Stats, Error>;
    fn incarnation(&self) -> RResult<u64, Error>;
    fn snapshots(&self) -> RResult<ROption<crate::handles::SnapshotsHandle>, Error>;
    fn resize(&self) -> RResult<ROption<crate::handles::ResizeHandle>, Error>;
    #[sabi(last_prefix_field)]
    fn allocation_map(&self) -> RResult<ROption<crate::handles::AllocationMapHandle>, Error>;
    /// Since 1.1.
    fn prefetch(&self, _cx: &OpContext, _offset: u64, _len: u64) -> Op<()> {
        Op::err(crate::ext::unsupported("prefetch"))
    }
    /// Since 1.3.
    fn sessions(&self) -> RResult<ROption<crate::handles::SessionsHandle>, Error> {
        RResult::ROk(ROption::RNone)
    }
}

/// Since 1.3.
#[sabi_trait]
#[allow(missing_docs)]
pub trait RawSessions: Send + Sync {
    fn consistency(&self) -> RResult<Consistency, Error>;
    #[sabi(last_prefix_field)]
    fn open(&self, token: RStr<'_>) -> RResult<crate::handles::SessionHandle, Error>;
}

/// Since 1.3.
#[sabi_trait]
#[allow(missing_docs)]
pub trait RawSession: Send + Sync {
    fn volume(&self) -> RResult<VolumeHandle, Error>;
    #[sabi(last_prefix_field)]
    fn token(&self) -> RResult<RString, Error>;
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawSnapshots: Send + Sync {
    fn create(&self, cx: &OpContext, name: RStr<'_>) -> Op<SnapshotInfo>;
    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>>;
    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()>;
    #[sabi(last_prefix_field)]
    fn rollback(&self, cx: &OpContext, name: RStr<'_>) -> Op<()>;
    /// Since 1.3.
    fn protect(&self, _cx: &OpContext, _name: RStr<'_>, _on: bool) -> Op<SnapshotInfo> {
        Op::err(crate::ext::no_protection())
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawResize: Send + Sync {
    #[sabi(last_prefix_field)]
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()>;
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawAllocationMap: Send + Sync {
    #[sabi(last_prefix_field)]
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>>;
    /// Since 1.3.
    fn changes(
        &self,
        _cx: &OpContext,
        _from: RStr<'_>,
        _to: RStr<'_>,
        _offset: u64,
        _len: u64,
        _limit: u32,
    ) -> Op<RVec<Extent>> {
        Op::err(crate::ext::no_changes())
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawClones: Send + Sync {
    #[sabi(last_prefix_field)]
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: RStr<'_>,
        snapshot: RStr<'_>,
        target: VolumeSpec,
    ) -> Op<VolumeInfo>;
    /// Since 1.3.
    fn flatten(&self, _cx: &OpContext, _volume: RStr<'_>, _on: bool) -> Op<()> {
        Op::err(crate::ext::no_flattening("flatten"))
    }
    /// Since 1.3.
    fn flattening(&self, _cx: &OpContext, _volume: RStr<'_>) -> Op<Flattening> {
        Op::err(crate::ext::no_flattening("flattening"))
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawCommands: Send + Sync {
    fn list(&self) -> RResult<RVec<CommandSpec>, Error>;
    #[sabi(last_prefix_field)]
    fn run(&self, cx: &OpContext, command: RStr<'_>, arguments: RStr<'_>) -> Op<RString>;
}

/// Since 1.2.
#[sabi_trait]
#[allow(missing_docs)]
pub trait RawCluster: Send + Sync {
    fn nodes(&self, cx: &OpContext) -> Op<RVec<NodeInfo>>;
    fn add_node(&self, cx: &OpContext, node: NodeSpec) -> Op<NodeInfo>;
    fn set_node(&self, cx: &OpContext, name: RStr<'_>, change: NodeChange) -> Op<NodeInfo>;
    fn remove_node(&self, cx: &OpContext, name: RStr<'_>) -> Op<()>;
    fn replication(&self, cx: &OpContext, volume: RStr<'_>) -> Op<ReplicationInfo>;
    fn shards(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        first: u64,
        limit: u32,
    ) -> Op<RVec<ShardInfo>>;
    fn read_shard(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf>;
    fn write_shard(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        shard: u64,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Op<()>;
    fn verify(&self, cx: &OpContext, volume: RStr<'_>, offset: u64, len: u32) -> Op<Comparison>;
    #[sabi(last_prefix_field)]
    fn repair(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        offset: u64,
        len: u32,
        source: RStr<'_>,
    ) -> Op<()>;
    /// Since 1.3.
    fn recover(
        &self,
        _cx: &OpContext,
        _volume: RStr<'_>,
        _accept_missing: bool,
        _dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        Op::err(crate::ext::no_recovery())
    }
    /// Since 1.3.
    fn plan(&self, _cx: &OpContext, _volume: RStr<'_>, _steps: RVec<NodeStep>) -> Op<MovementPlan> {
        Op::err(crate::ext::no_movement("plan"))
    }
    /// Since 1.3.
    fn drain(&self, _cx: &OpContext, _name: RStr<'_>, _on: bool) -> Op<NodeInfo> {
        Op::err(crate::ext::no_movement("drain"))
    }
    /// Since 1.3.
    fn rebalance(&self, _cx: &OpContext, _volume: RStr<'_>, _on: bool) -> Op<()> {
        Op::err(crate::ext::no_movement("rebalance"))
    }
    /// Since 1.3.
    fn rebalancing(&self, _cx: &OpContext, _volume: RStr<'_>) -> Op<Rebalancing> {
        Op::err(crate::ext::no_movement("rebalancing"))
    }
    /// Since 1.3.
    fn configure(
        &self,
        _cx: &OpContext,
        _volume: RStr<'_>,
        _options: RVec<Tuple2<RString, RString>>,
    ) -> Op<()> {
        Op::err(crate::ext::no_movement("configure"))
    }
    /// Since 1.3.
    fn plan_options(
        &self,
        _cx: &OpContext,
        _volume: RStr<'_>,
        _options: RVec<Tuple2<RString, RString>>,
    ) -> Op<Movement> {
        Op::err(crate::ext::no_movement("plan_options"))
    }
    /// Since 1.3.
    fn scrub(&self, _cx: &OpContext, _volume: RStr<'_>, _on: bool, _repair: bool) -> Op<()> {
        Op::err(crate::ext::no_scrubs("scrub"))
    }
    /// Since 1.3.
    fn scrubbing(&self, _cx: &OpContext, _volume: RStr<'_>) -> Op<Scrubbing> {
        Op::err(crate::ext::no_scrubs("scrubbing"))
    }
    /// Since 1.3.
    fn promote(&self, _cx: &OpContext, _volume: RStr<'_>, _how: Promote) -> Op<Promotion> {
        Op::err(crate::ext::no_promotion())
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawHost: Send + Sync {
    fn enabled(&self, level: u32, target: RStr<'_>) -> bool;
    fn log(&self, record: &LogRecord<'_>);
    fn report_panic(&self, place: RStr<'_>, message: RStr<'_>);
    fn secret(&self, name: RStr<'_>) -> RResult<RString, Error>;
    fn backend(&self, name: RStr<'_>) -> Op<BackendHandle>;
    #[sabi(last_prefix_field)]
    fn state(&self) -> RResult<StateHandle, Error>;
    /// Since 1.2.
    fn driver_of(&self, _backend: RStr<'_>) -> RResult<RString, Error> {
        RResult::RErr(crate::ext::unsupported("driver_of"))
    }
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawState: Send + Sync {
    fn get(&self, key: RStr<'_>) -> Op<ROption<Entry>>;
    fn range(&self, prefix: RStr<'_>, after: RStr<'_>, limit: u32) -> Op<RVec<Entry>>;
    fn commit(&self, transaction: Transaction) -> Op<Committed>;
    fn watch(&self, prefix: RStr<'_>, after_revision: u64) -> RResult<WatchHandle, Error>;
    fn grant_lease(&self, ttl_ms: u64) -> Op<u64>;
    fn keep_lease(&self, lease: u64) -> Op<()>;
    #[sabi(last_prefix_field)]
    fn revoke_lease(&self, lease: u64) -> Op<()>;
}

#[sabi_trait]
#[allow(missing_docs)]
pub trait RawWatch: Send + Sync {
    #[sabi(last_prefix_field)]
    fn next(&self) -> Op<Batch>;
}
