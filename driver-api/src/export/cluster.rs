// SPDX-License-Identifier: Apache-2.0
//! The exported cluster ability: refuses what no cluster may be asked, then asks the author's code.

use std::sync::Arc;

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, RStr, RString, RVec, Tuple2},
};

use super::{Contained, start};
use crate::{
    ClusterHandle, Error, ErrorKind, Host, IoBuf, Op, OpContext, Result, WriteFlags,
    abi::{RawCluster, RawCluster_TO},
    ext::{
        Cluster, Comparison, Movement, MovementPlan, NodeChange, NodeInfo, NodeSpec, NodeStep,
        PIECE, Promote, Promotion, Rebalancing, RecoveredVolume, ReplicationInfo, Scrubbing,
        ShardInfo,
    },
};

/// The ability as the other side holds it; `max_io` is its backend's.
pub(super) fn export_cluster(cluster: Arc<dyn Cluster>, host: Host, max_io: u32) -> ClusterHandle {
    let glue = ClusterGlue { cluster: Contained::new(cluster, host), max_io };
    ClusterHandle { raw: RawCluster_TO::from_ptr(RArc::new(glue), TD_Opaque) }
}

struct ClusterGlue {
    cluster: Contained<Arc<dyn Cluster>>,
    max_io: u32,
}

/// Refuses a length that one operation cannot have.
fn check_len(len: u64, most: u32) -> Result<()> {
    if (1..=u64::from(most)).contains(&len) {
        return Ok(());
    }
    let why = format!("one operation has 1 to {most} bytes");
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).with("length", len))
}

fn check_flags(flags: WriteFlags) -> Result<()> {
    if WriteFlags::FUA.has(flags) {
        return Ok(());
    }
    let bits = format!("{:#x}", flags.bits());
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, "a flag is not known").with("flags", bits))
}

/// Starts `call` unless `checked` refuses it.
fn start_checked<T>(operation: &str, checked: Result<()>, call: impl FnOnce() -> Op<T>) -> Op<T> {
    match checked {
        Ok(()) => start(call),
        Err(refusal) => Op::err(refusal.during(operation)),
    }
}

impl RawCluster for ClusterGlue {
    fn nodes(&self, cx: &OpContext) -> Op<RVec<NodeInfo>> {
        start(|| self.cluster.nodes(cx))
    }

    fn add_node(&self, cx: &OpContext, node: NodeSpec) -> Op<NodeInfo> {
        start(|| self.cluster.add_node(cx, node))
    }

    fn set_node(&self, cx: &OpContext, name: RStr<'_>, change: NodeChange) -> Op<NodeInfo> {
        start(|| self.cluster.set_node(cx, name.as_str(), change))
    }

    fn remove_node(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.cluster.remove_node(cx, name.as_str()))
    }

    fn replication(&self, cx: &OpContext, volume: RStr<'_>) -> Op<ReplicationInfo> {
        start(|| self.cluster.replication(cx, volume.as_str()))
    }

    fn shards(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        first: u64,
        limit: u32,
    ) -> Op<RVec<ShardInfo>> {
        start(|| self.cluster.shards(cx, volume.as_str(), first, limit))
    }

    fn read_shard(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        start_checked("read shard", check_len(len.into(), self.max_io), || {
            self.cluster.read_shard(cx, volume.as_str(), shard, offset, len)
        })
    }

    fn write_shard(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        shard: u64,
        offset: u64,
        data: IoBuf,
        flags: WriteFlags,
    ) -> Op<()> {
        let checked = check_flags(flags).and_then(|()| check_len(data.len() as u64, self.max_io));
        start_checked("write shard", checked, || {
            self.cluster.write_shard(cx, volume.as_str(), shard, offset, data, flags)
        })
    }

    fn verify(&self, cx: &OpContext, volume: RStr<'_>, offset: u64, len: u32) -> Op<Comparison> {
        start_checked("verify", check_len(len.into(), PIECE), || {
            self.cluster.verify(cx, volume.as_str(), offset, len)
        })
    }

    fn repair(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        offset: u64,
        len: u32,
        source: RStr<'_>,
    ) -> Op<()> {
        start_checked("repair", check_len(len.into(), PIECE), || {
            self.cluster.repair(cx, volume.as_str(), offset, len, source.as_str())
        })
    }

    fn recover(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        accept_missing: bool,
        dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        start(|| self.cluster.recover(cx, volume.as_str(), accept_missing, dry_run))
    }

    fn plan(&self, cx: &OpContext, volume: RStr<'_>, steps: RVec<NodeStep>) -> Op<MovementPlan> {
        start(|| self.cluster.plan(cx, volume.as_str(), steps))
    }

    fn drain(&self, cx: &OpContext, name: RStr<'_>, on: bool) -> Op<NodeInfo> {
        start(|| self.cluster.drain(cx, name.as_str(), on))
    }

    fn rebalance(&self, cx: &OpContext, volume: RStr<'_>, on: bool) -> Op<()> {
        start(|| self.cluster.rebalance(cx, volume.as_str(), on))
    }

    fn rebalancing(&self, cx: &OpContext, volume: RStr<'_>) -> Op<Rebalancing> {
        start(|| self.cluster.rebalancing(cx, volume.as_str()))
    }

    fn configure(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<()> {
        start(|| self.cluster.configure(cx, volume.as_str(), options))
    }

    fn plan_options(
        &self,
        cx: &OpContext,
        volume: RStr<'_>,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<Movement> {
        start(|| self.cluster.plan_options(cx, volume.as_str(), options))
    }

    fn scrub(&self, cx: &OpContext, volume: RStr<'_>, on: bool, repair: bool) -> Op<()> {
        start(|| self.cluster.scrub(cx, volume.as_str(), on, repair))
    }

    fn scrubbing(&self, cx: &OpContext, volume: RStr<'_>) -> Op<Scrubbing> {
        start(|| self.cluster.scrubbing(cx, volume.as_str()))
    }

    fn promote(&self, cx: &OpContext, volume: RStr<'_>, how: Promote) -> Op<Promotion> {
        start(|| self.cluster.promote(cx, volume.as_str(), how))
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
