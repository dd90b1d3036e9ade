// SPDX-License-Identifier: Apache-2.0
//! Backends, volumes and their abilities as the other side holds them: cheap, counted handles.

mod objects;

use std::fmt;

use abi_stable::{
    StableAbi,
    std_types::{RArc, RString, RVec, Tuple2},
};

use crate::{
    Attach, Capabilities, Health, IoBuf, Op, OpContext, Result, Stats, Usage, VolumeInfo,
    VolumeSpec, WriteFlags,
    abi::{
        RawAllocationMap_TO, RawBackend_TO, RawClones_TO, RawCluster_TO, RawCommands_TO,
        RawObjectReader_TO, RawObjects_TO, RawResize_TO, RawSession_TO, RawSessions_TO,
        RawSnapshots_TO, RawVolume_TO,
    },
    ext::{
        self, CommandSpec, Comparison, Consistency, Extent, Flattening, Movement, MovementPlan,
        NodeChange, NodeInfo, NodeSpec, NodeStep, Promote, Promotion, Rebalancing, RecoveredVolume,
        ReplicationInfo, Scrubbing, ShardInfo, SnapshotInfo,
    },
};

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident, $raw:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(StableAbi)]
        pub struct $name {
            pub(crate) raw: $raw<'static, RArc<()>>,
        }

        impl $name {
            /// A handle of an object that the caller's own code stands behind, such as what a host lends. Its methods
            /// must not unwind; where they end in a driver, that driver's glue has checked and contained them already.
            pub fn from_raw(raw: $raw<'static, RArc<()>>) -> Self {
                Self { raw }
            }
        }

        impl Clone for $name {
            fn clone(&self) -> Self {
                Self { raw: $raw::from_sabi(self.raw.obj.shallow_clone()) }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

handle! {
    /// An open backend of any driver; the methods are those of [`Backend`](crate::Backend).
    BackendHandle, RawBackend_TO
}
handle! {
    /// An attached volume of any driver; the methods are those of [`Volume`](crate::Volume).
    VolumeHandle, RawVolume_TO
}
handle! {
    /// See [`ext::Snapshots`](crate::ext::Snapshots).
    SnapshotsHandle, RawSnapshots_TO
}
handle! {
    /// See [`ext::Resize`](crate::ext::Resize).
    ResizeHandle, RawResize_TO
}
handle! {
    /// See [`ext::AllocationMap`](crate::ext::AllocationMap).
    AllocationMapHandle, RawAllocationMap_TO
}
handle! {
    /// Sessions with a volume; see [`ext::Sessions`](crate::ext::Sessions).
    SessionsHandle, RawSessions_TO
}
handle! {
    /// An open session with a volume; see [`ext::Sessions`](crate::ext::Sessions).
    SessionHandle, RawSession_TO
}
handle! {
    /// See [`ext::Clones`](crate::ext::Clones).
    ClonesHandle, RawClones_TO
}
handle! {
    /// See [`ext::Commands`](crate::ext::Commands).
    CommandsHandle, RawCommands_TO
}
handle! {
    /// See [`ext::Cluster`](crate::ext::Cluster).
    ClusterHandle, RawCluster_TO
}
handle! {
    /// Buckets and objects; see [`ext::Objects`](crate::ext::Objects).
    ObjectsHandle, RawObjects_TO
}
handle! {
    /// An object that is read in order; see [`ext::ObjectReader`](crate::ext::ObjectReader).
    ObjectReaderHandle, RawObjectReader_TO
}

impl BackendHandle {
    /// See [`Backend::capabilities`](crate::Backend::capabilities).
    pub fn capabilities(&self) -> Result<Capabilities> {
        self.raw.capabilities().into()
    }

    /// See [`Backend::create`](crate::Backend::create).
    pub fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.raw.create(cx, spec)
    }

    /// See [`Backend::delete`](crate::Backend::delete).
    pub fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        self.raw.delete(cx, name.into())
    }

    /// See [`Backend::list`](crate::Backend::list).
    pub fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        self.raw.list(cx)
    }

    /// See [`Backend::show`](crate::Backend::show).
    pub fn show(&self, cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        self.raw.show(cx, name.into())
    }

    /// See [`Backend::attach`](crate::Backend::attach).
    pub fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<VolumeHandle> {
        self.raw.attach(cx, name.into(), attach)
    }

    /// See [`Backend::usage`](crate::Backend::usage).
    pub fn usage(&self, cx: &OpContext) -> Op<Usage> {
        self.raw.usage(cx)
    }

    /// See [`Backend::health`](crate::Backend::health).
    pub fn health(&self, cx: &OpContext) -> Op<Health> {
        self.raw.health(cx)
    }

    /// See [`Backend::stats`](crate::Backend::stats).
    pub fn stats(&self) -> Result<Stats> {
        self.raw.stats().into()
    }

    /// See [`Backend::close`](crate::Backend::close).
    pub fn close(&self, cx: &OpContext) -> Op<()> {
        self.raw.close(cx)
    }

    /// See [`Backend::clones`](crate::Backend::clones).
    pub fn clones(&self) -> Result<Option<ClonesHandle>> {
        self.raw.clones().into_result().map(Into::into)
    }

    /// See [`Backend::commands`](crate::Backend::commands).
    pub fn commands(&self) -> Result<Option<CommandsHandle>> {
        self.raw.commands().into_result().map(Into::into)
    }

    /// See [`Backend::cluster`](crate::Backend::cluster).
    pub fn cluster(&self) -> Result<Option<ClusterHandle>> {
        self.raw.cluster().into_result().map(Into::into)
    }

    /// See [`Backend::rename`](crate::Backend::rename).
    pub fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        self.raw.rename(cx, name.into(), to.into())
    }

    /// See [`Backend::objects`](crate::Backend::objects).
    pub fn objects(&self) -> Result<Option<ObjectsHandle>> {
        self.raw.objects().into_result().map(Into::into)
    }
}

impl VolumeHandle {
    /// See [`Volume::size`](crate::Volume::size).
    pub fn size(&self) -> Result<u64> {
        self.raw.size().into()
    }

    /// See [`Volume::capabilities`](crate::Volume::capabilities).
    pub fn capabilities(&self) -> Result<Capabilities> {
        self.raw.capabilities().into()
    }

    /// See [`Volume::read`](crate::Volume::read).
    #[inline]
    pub fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        self.raw.read(cx, offset, len)
    }

    /// See [`Volume::write`](crate::Volume::write).
    #[inline]
    pub fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()> {
        self.raw.write(cx, offset, data, flags)
    }

    /// See [`Volume::flush`](crate::Volume::flush).
    pub fn flush(&self, cx: &OpContext) -> Op<()> {
        self.raw.flush(cx)
    }

    /// See [`Volume::discard`](crate::Volume::discard).
    pub fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.raw.discard(cx, offset, len)
    }

    /// See [`Volume::write_zeroes`](crate::Volume::write_zeroes).
    pub fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        self.raw.write_zeroes(cx, offset, len, flags)
    }

    /// See [`Volume::prefetch`](crate::Volume::prefetch).
    pub fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        self.raw.prefetch(cx, offset, len)
    }

    /// See [`Volume::detach`](crate::Volume::detach).
    pub fn detach(&self, cx: &OpContext) -> Op<()> {
        self.raw.detach(cx)
    }

    /// See [`Volume::stats`](crate::Volume::stats).
    pub fn stats(&self) -> Result<Stats> {
        self.raw.stats().into()
    }

    /// See [`Volume::incarnation`](crate::Volume::incarnation).
    pub fn incarnation(&self) -> Result<u64> {
        self.raw.incarnation().into()
    }

    /// See [`Volume::snapshots`](crate::Volume::snapshots).
    pub fn snapshots(&self) -> Result<Option<SnapshotsHandle>> {
        self.raw.snapshots().into_result().map(Into::into)
    }

    /// See [`Volume::resize`](crate::Volume::resize).
    pub fn resize(&self) -> Result<Option<ResizeHandle>> {
        self.raw.resize().into_result().map(Into::into)
    }

    /// See [`Volume::allocation_map`](crate::Volume::allocation_map).
    pub fn allocation_map(&self) -> Result<Option<AllocationMapHandle>> {
        self.raw.allocation_map().into_result().map(Into::into)
    }

    /// See [`Volume::sessions`](crate::Volume::sessions).
    pub fn sessions(&self) -> Result<Option<SessionsHandle>> {
        self.raw.sessions().into_result().map(Into::into)
    }
}

impl SessionsHandle {
    /// See [`Sessions::consistency`](ext::Sessions::consistency).
    pub fn consistency(&self) -> Result<Consistency> {
        self.raw.consistency().into()
    }

    /// See [`Sessions::open`](ext::Sessions::open).
    pub fn open(&self, token: &str) -> Result<SessionHandle> {
        self.raw.open(token.into()).into()
    }
}

impl SessionHandle {
    /// The volume as the session has it.
    pub fn volume(&self) -> Result<VolumeHandle> {
        self.raw.volume().into()
    }

    /// See [`Sessions::token`](ext::Sessions::token).
    pub fn token(&self) -> Result<RString> {
        self.raw.token().into()
    }
}

impl ext::Snapshots for SnapshotsHandle {
    fn create(&self, cx: &OpContext, name: &str) -> Op<SnapshotInfo> {
        self.raw.create(cx, name.into())
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<SnapshotInfo>> {
        self.raw.list(cx)
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        self.raw.delete(cx, name.into())
    }

    fn rollback(&self, cx: &OpContext, name: &str) -> Op<()> {
        self.raw.rollback(cx, name.into())
    }

    fn protect(&self, cx: &OpContext, name: &str, on: bool) -> Op<SnapshotInfo> {
        self.raw.protect(cx, name.into(), on)
    }
}

impl ext::Resize for ResizeHandle {
    fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Op<()> {
        self.raw.resize(cx, size, shrink)
    }
}

impl ext::AllocationMap for AllocationMapHandle {
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>> {
        self.raw.extents(cx, offset, len, limit)
    }

    fn changes(
        &self,
        cx: &OpContext,
        from: &str,
        to: &str,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Op<RVec<Extent>> {
        self.raw.changes(cx, from.into(), to.into(), offset, len, limit)
    }
}

impl ext::Clones for ClonesHandle {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        self.raw.clone_volume(cx, source.into(), snapshot.into(), target)
    }

    fn flatten(&self, cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        self.raw.flatten(cx, volume.into(), on)
    }

    fn flattening(&self, cx: &OpContext, volume: &str) -> Op<Flattening> {
        self.raw.flattening(cx, volume.into())
    }
}

impl CommandsHandle {
    /// See [`Commands::list`](crate::ext::Commands::list).
    pub fn list(&self) -> Result<RVec<CommandSpec>> {
        self.raw.list().into()
    }

    /// See [`Commands::run`](crate::ext::Commands::run).
    pub fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        self.raw.run(cx, command.into(), arguments.into())
    }
}

impl ext::Cluster for ClusterHandle {
    fn nodes(&self, cx: &OpContext) -> Op<RVec<NodeInfo>> {
        self.raw.nodes(cx)
    }

    fn add_node(&self, cx: &OpContext, node: NodeSpec) -> Op<NodeInfo> {
        self.raw.add_node(cx, node)
    }

    fn set_node(&self, cx: &OpContext, name: &str, change: NodeChange) -> Op<NodeInfo> {
        self.raw.set_node(cx, name.into(), change)
    }

    fn remove_node(&self, cx: &OpContext, name: &str) -> Op<()> {
        self.raw.remove_node(cx, name.into())
    }

    fn replication(&self, cx: &OpContext, volume: &str) -> Op<ReplicationInfo> {
        self.raw.replication(cx, volume.into())
    }

    fn shards(&self, cx: &OpContext, volume: &str, first: u64, limit: u32) -> Op<RVec<ShardInfo>> {
        self.raw.shards(cx, volume.into(), first, limit)
    }

    fn read_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        self.raw.read_shard(cx, volume.into(), shard, offset, len)
    }

    fn write_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Op<()> {
        self.raw.write_shard(cx, volume.into(), shard, offset, data, flags)
    }

    fn verify(&self, cx: &OpContext, volume: &str, offset: u64, len: u32) -> Op<Comparison> {
        self.raw.verify(cx, volume.into(), offset, len)
    }

    fn repair(&self, cx: &OpContext, volume: &str, offset: u64, len: u32, source: &str) -> Op<()> {
        self.raw.repair(cx, volume.into(), offset, len, source.into())
    }

    fn recover(
        &self,
        cx: &OpContext,
        volume: &str,
        accept_missing: bool,
        dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        self.raw.recover(cx, volume.into(), accept_missing, dry_run)
    }

    fn plan(&self, cx: &OpContext, volume: &str, steps: RVec<NodeStep>) -> Op<MovementPlan> {
        self.raw.plan(cx, volume.into(), steps)
    }

    fn drain(&self, cx: &OpContext, name: &str, on: bool) -> Op<NodeInfo> {
        self.raw.drain(cx, name.into(), on)
    }

    fn rebalance(&self, cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        self.raw.rebalance(cx, volume.into(), on)
    }

    fn rebalancing(&self, cx: &OpContext, volume: &str) -> Op<Rebalancing> {
        self.raw.rebalancing(cx, volume.into())
    }

    fn configure(
        &self,
        cx: &OpContext,
        volume: &str,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<()> {
        self.raw.configure(cx, volume.into(), options)
    }

    fn plan_options(
        &self,
        cx: &OpContext,
        volume: &str,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<Movement> {
        self.raw.plan_options(cx, volume.into(), options)
    }

    fn scrub(&self, cx: &OpContext, volume: &str, on: bool, repair: bool) -> Op<()> {
        self.raw.scrub(cx, volume.into(), on, repair)
    }

    fn scrubbing(&self, cx: &OpContext, volume: &str) -> Op<Scrubbing> {
        self.raw.scrubbing(cx, volume.into())
    }

    fn promote(&self, cx: &OpContext, volume: &str, how: Promote) -> Op<Promotion> {
        self.raw.promote(cx, volume.into(), how)
    }
}
