// SPDX-License-Identifier: Apache-2.0
//! The driver and its backends: what the host calls, on its way to [`Store`].

use std::sync::Arc;

use driver_api::{
    Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Health, Host, Op, OpContext,
    RVec, Result, Stats, Usage, VolumeInfo, VolumeSpec, ext,
};

use crate::{
    attached::Attached,
    blocking::blocking,
    config,
    flatten::{self, not_attached},
    image::Image,
    layout,
    store::Store,
    volume::{CephVolume, capabilities},
    watch,
};

/// The driver `ceph`.
pub struct Ceph;

/// An open backend of the driver `ceph`.
#[derive(Clone)]
pub struct CephBackend(Arc<Store>);

impl Driver for Ceph {
    type Backend = CephBackend;

    fn describe() -> DriverInfo {
        config::describe()
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<CephBackend> {
        CephBackend::open(&config.name.clone(), config.parse()?).await
    }
}

impl CephBackend {
    /// Opens a backend from its parsed options.
    pub async fn open(name: &str, config: config::Config) -> Result<Self> {
        let opened = blocking(&OpContext::new(), "open", move || Store::open(config)).await;
        let store = opened.map(Arc::new).map_err(|error| error.with("backend", name))?;
        watch::watch(&store);
        Ok(Self(store))
    }

    pub(crate) fn on_store<T: Send + 'static>(
        &self,
        cx: &OpContext,
        what: &'static str,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let store = Arc::clone(&self.0);
        blocking(cx, what, move || work(&store))
    }

    fn on_attached<T: Send + 'static>(
        &self,
        cx: &OpContext,
        what: &'static str,
        volume: &str,
        work: impl FnOnce(&Arc<Attached>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let name = volume.to_owned();
        self.on_store(cx, what, move |store| {
            work(&store.attachment(&name).ok_or_else(|| not_attached(&name))?)
        })
    }

    fn max_volume_size(&self) -> u64 {
        self.0.cluster.config.max_volume_size()
    }
}

impl Backend for CephBackend {
    type Volume = CephVolume;

    fn capabilities(&self) -> Capabilities {
        capabilities(true, self.max_volume_size())
    }

    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.on_store(cx, "create volume", move |store| store.create(&spec))
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let name = name.to_owned();
        self.on_store(cx, "delete volume", move |store| store.delete(&name))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        self.on_store(cx, "list volumes", |store| store.list().map(RVec::from))
    }

    fn show(&self, cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let name = name.to_owned();
        self.on_store(cx, "show volume", move |store| store.show(&name))
    }

    fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<CephVolume> {
        let (name, most) = (name.to_owned(), self.max_volume_size());
        self.on_store(cx, "attach", move |store| {
            let attached = store.attach(&name, &attach)?;
            // It may have smaller objects than the backend's other volumes.
            let object_size = attached.with(Image::object_size)?;
            let max_volume_size = layout::max_size(object_size).min(most);
            Ok(CephVolume { attached, max_volume_size })
        })
    }

    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        self.on_store(cx, "ask for usage", Store::usage)
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        self.on_store(cx, "ask for health", Store::health)
    }

    fn stats(&self) -> Stats {
        let (state, _) = self.0.cluster.state();
        let stats = Stats::new()
            .gauge("attached_volumes", self.0.attachments().len() as f64)
            .gauge_of("connection", ("state", state), 1.0);
        self.0.watch.stats(self.0.cluster.totals.stats(stats))
    }

    fn close(&self, cx: &OpContext) -> Op<()> {
        self.on_store(cx, "close", Store::close)
    }

    fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        let (name, to) = (name.to_owned(), to.to_owned());
        self.on_store(cx, "rename volume", move |store| store.rename(&name, &to))
    }

    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        Some(Arc::new(self.clone()))
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        Some(Arc::new(self.clone()))
    }
}

impl ext::Clones for CephBackend {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        let (source, snapshot) = (source.to_owned(), snapshot.to_owned());
        self.on_store(cx, "clone", move |store| store.clone_volume(&source, &snapshot, &target))
    }

    fn flatten(&self, cx: &OpContext, volume: &str, on: bool) -> Op<()> {
        self.on_attached(cx, "flatten", volume, move |attached| match on {
            true => flatten::begin(attached),
            false => {
                attached.flatten.end();
                Ok(())
            }
        })
    }

    fn flattening(&self, cx: &OpContext, volume: &str) -> Op<ext::Flattening> {
        self.on_attached(cx, "flattening", volume, |attached| flatten::told(attached))
    }
}
