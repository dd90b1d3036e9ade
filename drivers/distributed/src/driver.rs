// SPDX-License-Identifier: Apache-2.0
//! The driver and its backends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use distributed_core::{
    Attach as CoreAttach, Capacity, ClientOp, Descriptor, NodeId, Protections, Settings, Time,
    Volume as Core,
};
use driver_api::{
    Abilities, Attach, AttachMode, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Error,
    ErrorKind, Fencing, Health, Host, IoBuf, Op, OpContext, RVec, Result, Usage, VolumeInfo,
    VolumeSpec, ext,
};
use tokio::sync::Notify;

use crate::{
    catalog::Catalog,
    claims,
    client::Nodes,
    config::{self, Config},
    create::{Maker, info, members, random},
    engine::{Engine, Work},
    error::{damaged, no_volume},
    heal::{self, Borrowed},
    health::{self, Checks},
    meters::Histogram,
    names::{Turns, base},
    nodes, orphans, scrubs, throttle,
    volume::{ABILITIES, Attached, DistributedVolume},
};

/// How long an attachment may take if the caller says nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The driver `distributed`.
pub struct Distributed;

/// An open backend of the driver `distributed`.
#[derive(Clone)]
pub struct DistributedBackend(pub(crate) Arc<Shared>);

/// What all handles to a backend share.
pub(crate) struct Shared {
    pub config: Config,
    pub catalog: Catalog,
    pub nodes: Nodes,
    pub checks: Checks,
    pub turns: Turns,
    /// Volumes that are attached only to be healed.
    pub borrowed: Borrowed,
    /// How long reads and writes of all clients take.
    pub clients: Arc<Histogram>,
    /// Something happened that healing has to look at.
    pub heals: Notify,
    attached: Mutex<HashMap<String, Arc<Engine>>>,
    /// Nodes that the next attachment of a volume is to promote.
    promotions: Mutex<HashMap<String, NodeId>>,
}

impl Driver for Distributed {
    type Backend = DistributedBackend;

    fn describe() -> DriverInfo {
        config::describe()
    }

    async fn open(host: Host, config: BackendConfig) -> Result<DistributedBackend> {
        let name = config.name.to_string();
        let config: Config = config.parse()?;
        let with_backend = |error: Error| error.with("backend", &name);
        config.check().map_err(with_backend)?;
        let catalog = Catalog::new(host.state()?);
        nodes::register(&catalog, &config.nodes).await.map_err(with_backend)?;
        let shared = Arc::new(Shared {
            nodes: Nodes::new(host, config.io_timeout()),
            checks: Checks::new(&config),
            config,
            catalog,
            turns: Turns::default(),
            borrowed: Borrowed::default(),
            clients: Arc::default(),
            heals: Notify::new(),
            attached: Mutex::default(),
            promotions: Mutex::default(),
        });
        tracing::debug!(backend = name, root_dir = %shared.config.root_dir.display(), "the backend is open");
        tokio::spawn(health::watch(Arc::downgrade(&shared)));
        tokio::spawn(health::heal(Arc::downgrade(&shared)));
        tokio::spawn(heal::run(Arc::downgrade(&shared)));
        Ok(DistributedBackend(shared))
    }
}

impl DistributedBackend {
    fn engines(&self) -> MutexGuard<'_, HashMap<String, Arc<Engine>>> {
        self.0.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engines of all attached volumes.
    pub(crate) fn attached(&self) -> Vec<Arc<Engine>> {
        self.engines().values().cloned().collect()
    }

    /// The engine of a volume that is attached through this backend.
    pub(crate) fn engine(&self, volume: &str) -> Option<Arc<Engine>> {
        self.engines().get(volume).cloned()
    }

    /// An engine has ended.
    pub(crate) fn forget(&self, engine: &Arc<Engine>) {
        let mut engines = self.engines();
        if engines.get(engine.volume()).is_some_and(|other| Arc::ptr_eq(other, engine)) {
            engines.remove(engine.volume());
        }
    }

    fn promotions(&self) -> MutexGuard<'_, HashMap<String, NodeId>> {
        self.0.promotions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next attachment of a volume promote a node.
    pub(crate) fn wish_promotion(&self, volume: &str, node: NodeId) {
        self.promotions().insert(volume.to_owned(), node);
    }

    pub(crate) fn maker(&self) -> Maker<'_> {
        let Shared { config, catalog, nodes, .. } = &*self.0;
        Maker { config, catalog, nodes }
    }

    /// Runs `work` to its end, whether or not anybody waits for it.
    pub(crate) fn on<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> F,
    ) -> Op<T> {
        let task = tokio::spawn(work(self.clone()));
        Op::run(async move {
            task.await.map_err(|error| Error::new(ErrorKind::PANIC, error.to_string()))?
        })
    }

    /// Counts the growth of a volume, or gives back what it shrank by.
    pub(crate) async fn account_resize(&self, volume: &str, from: u64, to: u64) -> Result<()> {
        let replicas = self.0.catalog.chosen(volume).await?.replication_factor;
        let limit = self.0.config.max_capacity;
        let change = |provisioned| {
            let mut capacity = Capacity { limit, provisioned };
            if to >= from {
                capacity.provision(to - from, replicas).map_err(|why| {
                    Error::new(ErrorKind::NO_SPACE, why.to_string()).with("volume", volume)
                })?;
            } else {
                capacity.release(from - to, replicas);
            }
            Ok(capacity.provisioned)
        };
        self.0.catalog.account(change).await
    }

    /// An engine of this backend that has the volume has it no more.
    fn depose(&self, name: &str) {
        if let Some(engine) = self.engines().remove(name) {
            engine.depose();
        }
    }

    async fn attach_volume(
        self,
        name: String,
        attach: Attach,
        patience: Duration,
    ) -> Result<DistributedVolume> {
        if ![AttachMode::READ_ONLY, AttachMode::EXCLUSIVE].contains(&attach.mode) {
            return Err(ext::unsupported("this attach mode"));
        }
        let shared = &*self.0;
        let engine = {
            // Nobody begins to heal it between the end of that and the claim.
            let _turn = shared.turns.take(&name).await;
            self.give_way(&name).await;
            let is_writable = attach.mode == AttachMode::EXCLUSIVE;
            let (work, core) = self.prepare(&name, is_writable).await?;
            claims::claim(&shared.catalog, &name, &attach).await?;
            self.depose(&name);
            self.launch(work, core)
        };
        self.until_serving(&engine, attach.epoch, patience).await?;
        self.tend(&engine);
        let volume = Attached::new(self.clone(), engine, attach.epoch).await?;
        Ok(DistributedVolume { attached: Arc::new(volume), session: None })
    }

    /// Attaches a volume whose claim this process has.
    pub(crate) async fn start(
        &self,
        name: &str,
        writable: bool,
        patience: Option<Duration>,
    ) -> Result<Arc<Engine>> {
        let (work, core) = self.prepare(name, writable).await?;
        self.depose(name);
        let engine = self.launch(work, core);
        self.serving(&engine, patience.unwrap_or(PATIENCE)).await?;
        self.tend(&engine);
        Ok(engine)
    }

    /// Has an engine that serves clients throttled and scrubbed.
    fn tend(&self, engine: &Arc<Engine>) {
        tokio::spawn(throttle::run(Arc::downgrade(engine), Arc::clone(&engine.clients)));
        if engine.writable {
            tokio::spawn(scrubs::run(Arc::downgrade(engine), self.0.catalog.clone()));
        }
    }

    /// Reads what an attachment of a volume begins with.
    pub(crate) async fn prepare(&self, name: &str, writable: bool) -> Result<(Work, Core)> {
        let shared = &*self.0;
        let state = shared.catalog.stored(name).await?.ok_or_else(|| no_volume(name))?;
        let descriptor = Descriptor::decode(&state).map_err(|why| {
            damaged(format!("the volume's descriptor cannot be read: {why}")).with("volume", name)
        })?;
        let chosen = shared.catalog.chosen(name).await?;
        let maps = shared.catalog.maps(name).await?;
        let registered = shared.catalog.nodes().await?.all();
        members(&descriptor, &registered)?;
        let digests = shared.catalog.digests(name).await?;
        let map_bytes = maps.get(&descriptor.map).map_or(0, |map| map.encode().len());
        let work = Work {
            volume: name.to_owned(),
            base: base(name, descriptor.identity),
            nodes: shared.nodes.clone(),
            catalog: shared.catalog.clone(),
            map_bytes,
            writable,
            io_timeout: shared.config.io_timeout(),
            members: registered.clone(),
            everybody: Arc::clone(&shared.clients),
            healing_pace: chosen.pace(&shared.config),
        };
        let core = CoreAttach {
            state: state.into(),
            maps,
            digests,
            settings: Settings {
                verify_reads: chosen.verify_reads,
                ..chosen.settings(&shared.config)
            },
            promote: self.promotions().get(name).copied(),
            protections: Protections::default(),
            holder: random()?,
            node_names: registered.into_iter().map(|node| (node.id, node.name)).collect(),
        };
        let core = Core::attach(core, Time(0))
            .map_err(|why| Error::new(ErrorKind::IN_USE, why.to_string()).with("volume", name))?;
        Ok((work, core))
    }

    /// Starts an engine for a volume that is claimed.
    pub(crate) fn launch(&self, work: Work, core: Core) -> Arc<Engine> {
        let engine = Engine::start(work, core);
        self.engines().insert(engine.volume().to_owned(), Arc::clone(&engine));
        engine
    }

    /// Waits until an engine serves. One that does not is ended, and its claim.
    pub(crate) async fn until_serving(
        &self,
        engine: &Arc<Engine>,
        epoch: u64,
        patience: Duration,
    ) -> Result<()> {
        let serving = self.serving(engine, patience).await;
        if serving.is_err()
            && let Err(left) = claims::release(&self.0.catalog, engine.volume(), epoch).await
        {
            let volume = engine.volume();
            tracing::warn!(volume, %left, "a claim is left to the next attachment");
        }
        serving
    }

    /// Waits until an engine serves. One that does not is ended.
    async fn serving(&self, engine: &Arc<Engine>, patience: Duration) -> Result<()> {
        let name = engine.volume();
        let serving = tokio::time::timeout(patience, engine.serving()).await;
        let serving = serving.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::TIMED_OUT, "the volume's nodes did not answer in time")
                .with("volume", name)
                .remedy("look at the nodes: novastor node list"))
        });
        let serving = match serving {
            Ok(()) => self.settle(engine).await,
            not => not,
        };
        if let Err(error) = serving {
            engine.depose();
            self.forget(engine);
            return Err(error);
        }
        self.promotions().remove(name);
        tokio::spawn(orphans::collect(self.clone(), name.to_owned()));
        Ok(())
    }

    /// Ends an attachment in order.
    pub(crate) async fn detach(
        &self,
        engine: &Arc<Engine>,
        epoch: u64,
        cx: &OpContext,
    ) -> Result<()> {
        let ended = engine.submit(cx, ClientOp::Detach, IoBuf::empty()).await.map(drop);
        engine.end().await;
        self.forget(engine);
        let released = claims::release(&self.0.catalog, engine.volume(), epoch).await;
        ended.and(released)
    }
}

impl Backend for DistributedBackend {
    type Volume = DistributedVolume;

    fn capabilities(&self) -> Capabilities {
        // Of its bricks nothing is known before a volume is attached; each volume says what its own can do.
        let abilities = ABILITIES.and(Abilities::CLUSTER);
        let abilities =
            abilities.and(Abilities::SNAPSHOT).and(Abilities::ROLLBACK).and(Abilities::CLONE);
        Capabilities { fencing: Fencing::EXCLUSIVE_LOCK, ..Capabilities::new(abilities) }
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.on(async move |backend| {
            let _turn = backend.0.turns.take(&spec.name).await;
            backend.maker().create(&spec).await
        })
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let name = name.to_owned();
        self.on(async move |backend| {
            let _turn = backend.0.turns.take(&name).await;
            backend.give_way(&name).await;
            backend.maker().delete(&name).await
        })
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        self.on(async move |backend| {
            let (mut all, nodes) = (RVec::new(), backend.0.catalog.nodes().await?);
            for descriptor in backend.0.catalog.volumes().await? {
                let chosen = backend.0.catalog.chosen(&descriptor.volume).await?;
                all.push(info(&descriptor, &chosen, &nodes));
            }
            Ok(all)
        })
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let name = name.to_owned();
        self.on(async move |backend| {
            let catalog = &backend.0.catalog;
            let descriptor = catalog.volume(&name).await?.ok_or_else(|| no_volume(&name))?;
            Ok(info(&descriptor, &catalog.chosen(&name).await?, &catalog.nodes().await?))
        })
    }

    fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<DistributedVolume> {
        let (name, patience) = (name.to_owned(), cx.time_left().unwrap_or(PATIENCE));
        self.on(async move |backend| backend.attach_volume(name, attach, patience).await)
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        self.on(async move |backend| {
            let limit = backend.0.config.max_capacity;
            let provisioned = backend.0.catalog.provisioned().await?;
            let volumes = backend.0.catalog.volumes().await?;
            Ok(Usage {
                capacity: limit,
                used: provisioned,
                available: limit.saturating_sub(provisioned),
                provisioned: volumes.iter().map(|volume| volume.size).sum(),
                ..Usage::default()
            })
        })
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        self.on(async move |backend| {
            let nodes = backend.0.catalog.nodes().await?.all();
            let failed = nodes.iter().filter_map(|node| {
                let health = backend.0.checks.health(node.id);
                let is_odd = health.state != driver_api::HealthState::HEALTHY;
                is_odd.then(|| format!("node {}: {}", node.name, health.reason))
            });
            let failed: Vec<String> = failed.collect();
            Ok(if failed.is_empty() {
                Health::healthy()
            } else {
                Health::degraded(&failed.join("; "))
            })
        })
    }

    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        Some(Arc::new(self.clone()))
    }

    fn cluster(&self) -> Option<Arc<dyn ext::Cluster>> {
        Some(Arc::new(self.clone()))
    }

    fn close(&self, _cx: &OpContext) -> Op<()> {
        self.on(async move |backend| {
            backend.give_all_ways().await;
            match backend.engines().keys().next() {
                None => Ok(()),
                Some(volume) => Err(Error::new(ErrorKind::IN_USE, "a volume is attached")
                    .with("volume", volume)
                    .remedy("detach it first")),
            }
        })
    }
}
