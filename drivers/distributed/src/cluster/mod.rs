// SPDX-License-Identifier: Apache-2.0
//! The cluster ability: nodes, replicas and shards, as operators and tools see them.

mod info;
mod movement;
mod nodes;
mod scrubs;
mod shards;

use distributed_core::{ClientOp, Descriptor, Mode as CoreMode, NodeId, ShardMap, View};
use driver_api::{
    IoBuf, Op, OpContext, RString, RVec, Result, Tuple2, WriteFlags,
    ext::{
        Cluster, Comparison, Mode, Movement, MovementPlan, NodeChange, NodeInfo, NodeSpec,
        NodeStep, Promote, Promotion, Rebalancing, RecoveredVolume, ReplicationInfo, Scrubbing,
        ShardInfo,
    },
};

use crate::{
    config::{Chosen, Config},
    driver::DistributedBackend,
    error::no_volume,
    recover::Wish,
};
use info::{attached_info, detached_info};
pub(crate) use shards::writable;

impl Cluster for DistributedBackend {
    fn nodes(&self, _cx: &OpContext) -> Op<RVec<NodeInfo>> {
        self.on(async move |backend| backend.list_nodes().await)
    }

    fn add_node(&self, _cx: &OpContext, spec: NodeSpec) -> Op<NodeInfo> {
        self.on(async move |backend| backend.add(&spec).await)
    }

    fn set_node(&self, _cx: &OpContext, name: &str, change: NodeChange) -> Op<NodeInfo> {
        let name = name.to_owned();
        self.on(async move |backend| backend.set(&name, &change).await)
    }

    fn remove_node(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let name = name.to_owned();
        self.on(async move |backend| backend.remove(&name).await)
    }

    fn recover(
        &self,
        _cx: &OpContext,
        volume: &str,
        accept_missing: bool,
        dry_run: bool,
    ) -> Op<RVec<RecoveredVolume>> {
        let wish = Wish { volume: volume.to_owned(), accept_missing, dry_run };
        self.on(async move |backend| backend.recover_volumes(wish).await)
    }

    fn replication(&self, _cx: &OpContext, volume: &str) -> Op<ReplicationInfo> {
        let volume = volume.to_owned();
        self.on(async move |backend| {
            let (descriptor, map) = backend.look_up(&volume).await?;
            let registered = backend.0.catalog.nodes().await?.all();
            let name = |id: NodeId| {
                let node = registered.iter().find(|node| node.id == id);
                node.map_or_else(|| id.to_string(), |node| node.name.clone())
            };
            let chosen = backend.0.catalog.chosen(&volume).await?;
            let told = |mode| mode_of(mode, &chosen, &backend.0.config);
            Ok(match backend.engine(&volume) {
                Some(engine) => {
                    let status = engine.status()?;
                    let info = attached_info(&descriptor, &map, &status, &name);
                    info.in_mode(told(status.mode))
                }
                None => detached_info(&descriptor, &map, &name).in_mode(told(descriptor.mode)),
            })
        })
    }

    fn shards(&self, _cx: &OpContext, volume: &str, first: u64, limit: u32) -> Op<RVec<ShardInfo>> {
        let volume = volume.to_owned();
        self.on(async move |backend| backend.list_shards(&volume, first, limit).await)
    }

    fn read_shard(
        &self,
        cx: &OpContext,
        volume: &str,
        shard: u64,
        offset: u64,
        len: u32,
    ) -> Op<IoBuf> {
        let placed = self.within(volume, shard, offset, u64::from(len));
        match placed {
            Ok(_) if len == 0 => Op::ok(IoBuf::empty()),
            Ok((engine, offset)) => engine.submit(
                cx,
                ClientOp::Read { offset, len, view: View::Latest },
                IoBuf::empty(),
            ),
            Err(error) => Op::err(error),
        }
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
        let len = data.len() as u32;
        let fua = flags.has(WriteFlags::FUA);
        let placed = self.within(volume, shard, offset, u64::from(len));
        match placed.and_then(|(engine, offset)| Ok((writable(engine)?, offset))) {
            Ok(_) if len == 0 => Op::ok(()),
            Ok((engine, offset)) => engine
                .submit(cx, ClientOp::Write { offset, len, fua }, data)
                .map(|done| done.map(drop)),
            Err(error) => Op::err(error),
        }
    }

    fn verify(&self, cx: &OpContext, volume: &str, offset: u64, len: u32) -> Op<Comparison> {
        let (backend, cx, volume) = (self.clone(), *cx, volume.to_owned());
        Op::run(async move { backend.verify_piece(&cx, &volume, offset, len).await })
    }

    fn repair(&self, cx: &OpContext, volume: &str, offset: u64, len: u32, source: &str) -> Op<()> {
        let (backend, cx) = (self.clone(), *cx);
        let (volume, source) = (volume.to_owned(), source.to_owned());
        Op::run(async move { backend.repair_piece(&cx, &volume, offset, len, &source).await })
    }

    fn plan(&self, _cx: &OpContext, volume: &str, steps: RVec<NodeStep>) -> Op<MovementPlan> {
        let volume = volume.to_owned();
        self.on(async move |backend| backend.plan_movement(&volume, &steps).await)
    }

    fn drain(&self, _cx: &OpContext, name: &str, on: bool) -> Op<NodeInfo> {
        let name = name.to_owned();
        self.on(async move |backend| backend.set_draining(&name, on).await)
    }

    fn rebalance(&self, _cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        let volume = volume.to_owned();
        self.on(async move |backend| match on {
            true => backend.rearrange(&volume).await,
            false => backend.stop_moving(&volume).await,
        })
    }

    fn rebalancing(&self, _cx: &OpContext, volume: &str) -> Op<Rebalancing> {
        match self.movement_of(volume) {
            Ok(progress) => Op::ok(progress),
            Err(error) => Op::err(error),
        }
    }

    fn configure(
        &self,
        _cx: &OpContext,
        volume: &str,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<()> {
        let (volume, options) = (volume.to_owned(), pairs(&options));
        self.on(async move |backend| backend.change_options(&volume, &options).await)
    }

    fn plan_options(
        &self,
        _cx: &OpContext,
        volume: &str,
        options: RVec<Tuple2<RString, RString>>,
    ) -> Op<Movement> {
        let (volume, options) = (volume.to_owned(), pairs(&options));
        self.on(async move |backend| backend.plan_options(&volume, &options).await)
    }

    fn scrub(&self, _cx: &OpContext, volume: &str, on: bool, repair: bool) -> Op<()> {
        Op::ready(self.scrub_volume(volume, on, repair))
    }

    fn scrubbing(&self, _cx: &OpContext, volume: &str) -> Op<Scrubbing> {
        Op::ready(self.scrub_of(volume))
    }

    fn promote(&self, _cx: &OpContext, volume: &str, how: Promote) -> Op<Promotion> {
        let volume = volume.to_owned();
        self.on(async move |backend| backend.promote_node(&volume, &how).await)
    }
}

fn pairs(options: &[Tuple2<RString, RString>]) -> Vec<(String, String)> {
    options.iter().map(|pair| (pair.0.to_string(), pair.1.to_string())).collect()
}

/// How a volume that is in this mode replicates, and what its readers see.
fn mode_of(mode: CoreMode, chosen: &Chosen, config: &Config) -> Mode {
    let bounds = chosen.configuration(config);
    match mode {
        CoreMode::Synchronous => Mode::default(),
        CoreMode::Asynchronous => Mode {
            asynchronous: true,
            consistency: chosen.consistency.into(),
            most_behind_bytes: bounds.most_behind_bytes,
            most_behind_ns: bounds.most_behind_ns,
        },
    }
}

impl DistributedBackend {
    pub(crate) async fn look_up(&self, volume: &str) -> Result<(Descriptor, ShardMap)> {
        self.0.catalog.located(volume).await?.ok_or_else(|| no_volume(volume))
    }
}
