// SPDX-License-Identifier: Apache-2.0
//! The driver and its backends: what the host calls, on its way to [`Store`].

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use driver_api::{
    Attach, AttachMode, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Error, ErrorKind,
    Health, Host, Op, OpContext, RVec, Result, Stats, Usage, VolumeInfo, VolumeSpec, ext,
};
use qcow2_image::check::{self, Trouble};
use tokio::sync::{Mutex, RwLock};

use crate::{
    client, config,
    config::Format,
    disk::Disk,
    error::on_data,
    fence::{self, Acquired, Wish},
    qcow2_actor::Actor,
    store::{Store, measure},
    volume::{Attached, LocalVolume, blocking, capabilities, deadline, to_the_end},
};

/// The driver `local`.
pub struct Local;

/// An open backend of the driver `local`.
#[derive(Clone)]
pub struct LocalBackend(pub(crate) Arc<Store>);

impl Driver for Local {
    type Backend = LocalBackend;

    fn describe() -> DriverInfo {
        config::describe()
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<LocalBackend> {
        Self::Backend::open(&config.name.clone(), config.parse()?).await
    }
}

impl LocalBackend {
    /// Opens a backend from its parsed options.
    pub async fn open(name: &str, config: config::Config) -> Result<Self> {
        let name = name.to_owned();
        blocking(move || {
            let opened = Store::open(&name, config);
            opened.map(|store| Self(Arc::new(store))).map_err(|error| error.with("backend", &name))
        })
        .await
    }

    fn on_store<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<Store>) -> Result<T> + Send + 'static,
    ) -> Op<T> {
        let store = Arc::clone(&self.0);
        let done = blocking(move || work(&store));
        to_the_end(async move { done.await.map_err(|error| error.during(operation)) })
    }
}

impl Backend for LocalBackend {
    type Volume = LocalVolume;

    fn capabilities(&self) -> Capabilities {
        capabilities(true, self.0.align())
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.on_store("create volume", move |store| store.create(&spec))
    }

    fn delete(&self, cx: &OpContext, name: &str) -> Op<()> {
        let (name, deadline) = (name.to_owned(), deadline(cx));
        self.on_store("delete volume", move |store| store.delete(&name, deadline))
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        self.on_store("list volumes", |store| store.list().map(RVec::from))
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        let name = name.to_owned();
        self.on_store("show volume", move |store| store.show(&name))
    }

    fn attach(&self, cx: &OpContext, name: &str, attach: Attach) -> Op<LocalVolume> {
        let (name, deadline) = (name.to_owned(), deadline(cx));
        self.on_store("attach", move |store| {
            let dir = store.volume(&name)?;
            if ![AttachMode::READ_ONLY, AttachMode::EXCLUSIVE].contains(&attach.mode) {
                return Err(ext::unsupported("this attach mode"));
            }
            let wish = Wish {
                mode: attach.mode,
                force: attach.force,
                epoch: Some(attach.epoch),
                owner: &attach.owner,
                deadline,
            };
            let acquired = fence::acquire(&dir, &wish)?;
            let slot = Arc::clone(&acquired.slot);
            let opened = open_volume(store, dir.clone(), acquired, &attach);
            if opened.is_err() {
                fence::release(&dir, &slot, false)?;
            }
            opened
        })
    }

    fn usage(&self, _cx: &OpContext) -> Op<Usage> {
        self.on_store("ask for usage", |store| store.usage())
    }

    fn health(&self, _cx: &OpContext) -> Op<Health> {
        self.on_store("ask for health", |store| Ok(store.health()))
    }

    fn stats(&self) -> Stats {
        let attachments = self.0.attachments();
        Stats::new().gauge("attached_volumes", attachments.len() as f64)
    }

    fn close(&self, _cx: &OpContext) -> Op<()> {
        let open = self.0.attachments();
        let attached =
            open.iter().find(|volume| !volume.closed.load(std::sync::atomic::Ordering::Acquire));
        match attached {
            None => Op::ok(()),
            Some(volume) => Op::err(
                Error::new(ErrorKind::IN_USE, "a volume is attached")
                    .with("volume", &volume.dir.name)
                    .remedy("detach it first"),
            ),
        }
    }

    fn clones(&self) -> Option<Arc<dyn ext::Clones>> {
        Some(Arc::new(self.clone()))
    }
}

fn open_volume(
    store: &Arc<Store>,
    dir: crate::layout::VolumeDir,
    acquired: Acquired,
    attach: &Attach,
) -> Result<LocalVolume> {
    let Acquired { slot, record, was_clean } = acquired;
    let writer = attach.mode == AttachMode::EXCLUSIVE;
    let path = dir.disk(record.format);
    let file: File = client::open(&path, writer, store.config.direct)?;
    let raw_size = measure(&file, Format::Raw)
        .map_err(|error| crate::error::on_path("cannot measure the volume", &path, &error))?
        .0;
    if writer && !was_clean && record.format == Format::Qcow2 {
        let _in_flight = slot.enter()?;
        recount(&dir.name, &client::open(&path, true, false)?)?;
    }
    let disk = Arc::new(Disk::new(&dir.name, file, Some(Arc::clone(&slot)), store.align()));
    let (image, size) = match record.format {
        Format::Raw => (None, raw_size),
        Format::Qcow2 => {
            let (actor, size) = Actor::start(Arc::clone(&disk), writer)?;
            (Some(actor), size)
        }
    };
    let attached = Arc::new(Attached {
        dir,
        record,
        store: Arc::clone(store),
        slot,
        disk,
        image,
        writer,
        size: AtomicU64::new(size),
        gate: Arc::new(RwLock::new(())),
        maintenance: Mutex::new(()),
        closed: AtomicBool::new(false),
        counters: Default::default(),
    });
    store.remember(&attached.dir.name, &attached);
    Ok(LocalVolume(attached))
}

/// Counts what an earlier life of the volume left uncounted, or refuses its image.
fn recount(volume: &str, image: &File) -> Result<()> {
    match check::recount(image) {
        Ok(0) => Ok(()),
        Ok(clusters) => {
            tracing::warn!(
                volume,
                clusters,
                "counted clusters that an earlier life left uncounted"
            );
            Ok(())
        }
        Err(Trouble::Refused(error)) => Err(error.with("volume", volume)),
        Err(Trouble::Failed(error)) => {
            Err(on_data("the image cannot be checked", &error).with("volume", volume))
        }
    }
}
