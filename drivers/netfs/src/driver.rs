// SPDX-License-Identifier: Apache-2.0
//! The driver and its backends: what the host calls, on its way to [`Store`].

use std::sync::Arc;

use driver_api::{
    Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Health, Host, Op, OpContext,
    RVec, Result, Stats, Usage, VolumeInfo, VolumeSpec, ext,
};

use crate::{
    commands, config,
    ending::to_the_end,
    store::Store,
    volume::{NetfsVolume, capabilities},
};
use driver_api::Abilities;

/// The driver `netfs`.
pub struct Netfs;

/// An open backend of the driver `netfs`.
#[derive(Clone)]
pub struct NetfsBackend(pub(crate) Arc<Store>);

impl Driver for Netfs {
    type Backend = NetfsBackend;

    fn describe() -> DriverInfo {
        config::describe()
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<NetfsBackend> {
        NetfsBackend::open(&config.name.clone(), config.parse()?).await
    }
}

impl NetfsBackend {
    /// Opens a backend from its parsed options.
    pub async fn open(name: &str, config: config::Config) -> Result<Self> {
        let opened = Store::open(&config);
        opened.map(|store| Self(Arc::new(store))).map_err(|error| error.with("backend", name))
    }

    /// Does `work` on the store, to its end.
    fn on_store<T, F>(&self, operation: &'static str, work: impl FnOnce(Arc<Store>) -> F) -> Op<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let doing = work(Arc::clone(&self.0));
        to_the_end(async move { doing.await.map_err(|error| error.during(operation)) })
    }
}

impl Backend for NetfsBackend {
    type Volume = NetfsVolume;

    fn capabilities(&self) -> Capabilities {
        let volumes = capabilities(true, self.0.is_exclusive(), self.0.may_be_able());
        Capabilities {
            abilities: volumes.abilities | Abilities::COMMANDS | Abilities::RENAME,
            ..volumes
        }
    }

    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        let until = self.0.until(cx);
        self.on_store("create volume", |store| async move { store.create(&spec, until).await })
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (name, until) = (name.to_owned(), self.0.until(cx));
        self.on_store("delete volume", |store| async move { store.delete(&name, until).await })
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        let until = self.0.until(cx);
        self.on_store(
            "list volumes",
            |store| async move { store.list(until).await.map(RVec::from) },
        )
    }

    fn show(&self, cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let (name, until) = (name.to_owned(), self.0.until(cx));
        self.on_store("show volume", |store| async move { store.show(&name, until).await })
    }

    fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<NetfsVolume> {
        let (name, until) = (name.to_owned(), self.0.until(cx));
        self.on_store("attach", |store| async move { store.attach(&name, &attach, until).await })
    }

    fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Op<VolumeInfo> {
        let (name, to, until) = (name.to_owned(), to.to_owned(), self.0.until(cx));
        self.on_store("rename volume", |store| async move { store.rename(&name, &to, until).await })
    }

    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        let until = self.0.until(cx);
        self.on_store("ask for usage", |store| async move { store.usage(until).await })
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        let until = self.0.until(cx);
        self.on_store("ask for health", |store| async move { Ok(store.health(until).await) })
    }

    fn stats(&self) -> Stats {
        self.0.stats()
    }

    fn close(&self, cx: &OpContext) -> Op<()> {
        let until = self.0.until(cx);
        self.on_store("close", |store| async move { store.close(until).await })
    }

    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        let able = self.0.may_be_able();
        able.freeze.then(|| Arc::new(self.clone()) as Arc<dyn ext::Clones>)
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        Some(Arc::new(commands::NetfsCommands(Arc::clone(&self.0))))
    }
}
