// SPDX-License-Identifier: Apache-2.0
//! Opens a verified library and keeps it: the host as its backends see it, and the driver as the host sees it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use driver_api::{
    BackendConfig, BackendHandle, DriverInfo, Error, ErrorKind, Host, HostServices, Op, OpContext,
    Result, StateHandle,
    descriptor::{Descriptor, Role},
    host::LogRecord,
    import::{self, Module},
};

use super::{
    call::Call,
    guarded::{GuardedBackend, GuardedVolume},
    log::DriverLog,
    meter::DriverMeter,
    started::{Held, start},
    verify::{Rules, Verified, verify},
};

/// What the host lends to backends besides its log. Called from any thread; must not panic.
pub trait Lender: Send + Sync + 'static {
    /// The secret `name`, for the backend `asker`.
    fn secret(&self, asker: &str, name: &str) -> Result<String>;
    /// The backend `name`, for the backend `asker`.
    fn backend(&self, asker: &str, name: &str) -> Op<BackendHandle>;
    /// The key-value service, in a room of the backend `asker`.
    fn state(&self, asker: &str) -> Result<StateHandle>;
    /// The driver that the backend `name` is configured with.
    fn driver_of(&self, name: &str) -> Result<String>;
}

/// What all loaded drivers share of the host. The lender comes when there is one: it needs the drivers itself.
pub(super) struct Services {
    pub(super) log: Arc<dyn DriverLog>,
    pub(super) lender: OnceLock<Arc<dyn Lender>>,
}

impl Services {
    fn lender(&self) -> Result<&Arc<dyn Lender>> {
        self.lender.get().ok_or_else(|| {
            Error::new(ErrorKind::UNAVAILABLE, "the host lends nothing while it starts")
                .remedy("ask in or after `open`")
        })
    }
}

/// The host as one backend of a driver sees it, or, without a backend, as the whole library does.
struct DriverHost {
    services: Arc<Services>,
    meter: Arc<DriverMeter>,
    backend: Option<String>,
}

impl DriverHost {
    fn asker(&self) -> &str {
        self.backend.as_deref().unwrap_or_default()
    }
}

impl HostServices for DriverHost {
    fn enabled(&self, level: u32, target: &str) -> bool {
        self.services.log.enabled(level, target)
    }

    fn log(&self, record: &LogRecord<'_>) {
        self.services.log.log(self.meter.driver(), record);
    }

    fn report_panic(&self, place: &str, message: &str) {
        match &self.backend {
            Some(backend) => self.meter.panicked(&format!("{place} (backend {backend})"), message),
            None => self.meter.panicked(place, message),
        }
    }

    fn secret(&self, name: &str) -> Result<String> {
        self.services.lender()?.secret(self.asker(), name)
    }

    fn backend(&self, name: &str) -> Op<BackendHandle> {
        match self.services.lender() {
            Ok(lender) => lender.backend(self.asker(), name),
            Err(error) => Op::err(error),
        }
    }

    fn state(&self) -> Result<StateHandle> {
        self.services.lender()?.state(self.asker())
    }

    fn driver_of(&self, backend: &str) -> Result<String> {
        self.services.lender()?.driver_of(backend)
    }
}

/// A build of a driver, loaded for the rest of the process's life.
#[derive(Debug)]
pub struct LoadedDriver {
    /// The name that configurations use.
    pub name: String,
    /// The driver's own version.
    pub version: String,
    /// The ABI it was built for, as in `1.0`.
    pub abi: String,
    /// The file in the plugin directory that it came from.
    pub file: PathBuf,
    /// The sha256 of its content.
    pub sha256: String,
    /// Driver or layer.
    pub role: Role,
    /// What it says of itself.
    pub info: DriverInfo,
    /// What the host has seen of it.
    pub meter: Arc<DriverMeter>,
    /// When it was loaded, in seconds since 1970.
    pub loaded_unix_secs: u64,
    module: Arc<Held<Module>>,
    services: HiddenServices,
    in_use: AtomicUsize,
}

struct HiddenServices(Arc<Services>);

impl std::fmt::Debug for HiddenServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

/// Keeps a build of a driver counted as in use.
#[derive(Debug)]
pub struct InUse(Arc<LoadedDriver>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LoadedDriver {
    /// How many backends, or layered volumes, use this build now.
    pub fn backends_in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Counts one more user.
    pub fn hold(self: &Arc<Self>) -> InUse {
        self.in_use.fetch_add(1, Ordering::Relaxed);
        InUse(self.clone())
    }

    /// Opens a backend. Dropped half-way, the opening is finished and the backend dropped.
    pub async fn open(self: &Arc<Self>, config: BackendConfig) -> Result<GuardedBackend> {
        let in_use = self.hold();
        let host = self.host_for(&config.name);
        let opening = start(&self.module, Call::Open, &OpContext::new(), move |module, _| {
            module.open(host, config)
        });
        let backend = opening.await.map_err(|error| self.name_in(error))?;
        Ok(GuardedBackend::new(backend, self.meter.clone(), in_use))
    }

    /// Puts this layer over `inner`, which the layer keeps. Dropped half-way, the wrapping is finished and dropped.
    pub async fn wrap(
        self: &Arc<Self>,
        config: BackendConfig,
        inner: &GuardedVolume,
    ) -> Result<GuardedVolume> {
        let in_use = self.hold();
        let (host, below) = (self.host_for(&config.name), inner.handle().clone());
        let wrapping = start(&self.module, Call::Wrap, &OpContext::new(), move |module, _| {
            module.wrap(host, config, below)
        });
        let volume = wrapping.await.map_err(|error| self.name_in(error))?;
        Ok(GuardedVolume::layered(volume, self.meter.clone(), in_use, inner))
    }

    fn name_in(&self, error: Error) -> Error {
        error.with("driver", format_args!("{} {}", self.name, self.version))
    }

    fn host_for(&self, backend: &str) -> Host {
        Host::new(DriverHost {
            services: self.services.0.clone(),
            meter: self.meter.clone(),
            backend: Some(backend.to_owned()),
        })
    }
}

/// What came of a file that is fit to be loaded.
pub(super) enum Outcome {
    /// It is loaded now.
    Loaded(Arc<LoadedDriver>),
    /// A driver of this sha256 is loaded already.
    Known(String),
}

/// Verifies `file` and loads it, unless `known` says that this content is loaded already.
pub(super) fn load(
    file: &Path,
    rules: &Rules,
    services: &Arc<Services>,
    known: impl FnOnce(&str) -> bool,
) -> Result<Outcome> {
    let verified = verify(file, rules)?;
    if known(&verified.sha256) {
        return Ok(Outcome::Known(verified.sha256));
    }
    open(file, verified, services)
        .map(|driver| Outcome::Loaded(Arc::new(driver)))
        .map_err(|error| error.with("file", file.display()))
}

fn open(file: &Path, verified: Verified, services: &Arc<Services>) -> Result<LoadedDriver> {
    let Descriptor { abi_major, abi_minor, name, version, role, .. } = verified.descriptor.clone();
    let meter = DriverMeter::new(&name);
    let host =
        Host::new(DriverHost { services: services.clone(), meter: meter.clone(), backend: None });
    // SAFETY: only its owner, the host's user or root, could write the file, and the descriptor is that of the copy,
    // which nobody writes to.
    let module = unsafe { import::open_library(&verified.copy, &verified.descriptor, host) }?;
    let info = module.describe()?;
    let sha256 = verified.sha256.clone();
    // Debuggers and profilers read the symbols there. Of a library refused above only the name goes: it stays mapped.
    verified.keep();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(LoadedDriver {
        name,
        version,
        abi: format!("{abi_major}.{abi_minor}"),
        file: file.to_owned(),
        sha256,
        role,
        info,
        module: Held::new(module, Some(meter.clone()), None),
        meter,
        loaded_unix_secs: since.as_secs(),
        services: HiddenServices(services.clone()),
        in_use: AtomicUsize::new(0),
    })
}
