// SPDX-License-Identifier: Apache-2.0
//! `novastor serve`: what starts in which order, and ends in the opposite one.
//!
//! ```text
//!   log -> state (its lock: one host a state file) -> drivers -> backends, recovery (10 s at most) -> NBD -> API -> READY
//!   SIGTERM -> API -> jobs -> NBD clients -> volumes detached -> backends closed -> state closed
//! ```

mod activation;
mod lend;
mod notify;
mod offer;
mod stdio;
mod ways;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result, StateHandle};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    api::{Api, Parts, requests::Requests},
    config::{Loaded, Settings},
    export::nbd::{self, Amount, Server, ServerSettings, Tls, TlsSettings},
    jobs::{Jobs, ReplicaJobs, Transfers},
    log,
    plugins::{PluginSettings, PluginWatch, Registry},
    state::{EmbeddedState, open_embedded},
    volumes::{BackendStatus, Backends, Volumes, begin_life},
};

use ways::Ways;
pub use ways::tls_files;

/// How long clients, requests and jobs get to end.
const GRACE: Duration = Duration::from_secs(30);
/// How long NBD clients are told that this ends.
const NBD_FAREWELL: Duration = Duration::from_millis(500);
/// How often a driver that was missing is looked for.
const LOOK: Duration = Duration::from_millis(250);
/// How long a start waits for backends and for what is to be recovered in them.
const OPENING: Duration = Duration::from_secs(10);
/// How long the state may still be locked by a host that is going.
const LETTING_GO: Duration = Duration::from_secs(5);
/// Bytes that one NBD connection has in flight at most.
const NBD_BYTES_IN_FLIGHT: usize = 64 << 20;
/// What all NBD connections to one export have in flight at most.
const NBD_EXPORT_IN_FLIGHT: Amount = Amount { operations: 1024, bytes: 256 << 20 };
/// What all NBD connections to the exports of one backend have in flight at most.
const NBD_BACKEND_IN_FLIGHT: Amount = Amount { operations: 4096, bytes: 512 << 20 };
/// NBD connections that have not chosen an export.
const NBD_NEGOTIATING: usize = 128;

/// Serves until a signal ends it.
pub async fn serve(loaded: Loaded) -> Result<()> {
    let gate = log::init(&loaded.settings.log)?;
    let mut signals = Signals::catch()?;
    let host = Host::start(loaded, gate, Ways::Sockets(activation::take()?)).await?;
    notify::ready();
    tracing::info!(nbd = host.addresses(), "ready");
    signals.wait().await;
    notify::stopping();
    host.stop().await;
    Ok(())
}

/// Serves the one client at standard input and output, until it leaves or a signal ends it.
pub async fn serve_stdio(loaded: Loaded) -> Result<()> {
    let gate = log::init(&loaded.settings.log)?;
    let mut signals = Signals::catch()?;
    let client = stdio::client()?;
    let host = Host::start(loaded, gate, Ways::None).await?;
    let server = host.server.clone();
    let mut serving = tokio::task::spawn_blocking(move || {
        server.serve_one(client.socket)?;
        match client.relay.map(std::thread::JoinHandle::join) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Error::new(ErrorKind::INTERNAL, "the way to the client panicked")),
        }
    });
    let served = tokio::select! {
        served = &mut serving => served.unwrap_or_else(|panic| {
            Err(Error::new(ErrorKind::INTERNAL, format!("the NBD server panicked: {panic}")))
        }),
        () = signals.wait() => Ok(()),
    };
    host.stop().await;
    served
}

/// The signals that end the host.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let on =
            |kind| signal(kind).map_err(|error| Error::from_io("signals cannot be caught", &error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: ending"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: ending"),
        }
    }
}

/// A running host.
struct Host {
    volumes: Volumes,
    jobs: Jobs,
    server: Arc<Server>,
    api: Option<RunningApi>,
    look: JoinHandle<()>,
    /// The opening of backends that was still under way when the host began to serve.
    going_on: Option<AbortHandle>,
    _watch: PluginWatch,
}

struct RunningApi {
    serving: JoinHandle<Result<()>>,
    end: oneshot::Sender<()>,
    /// The socket that was made for it.
    made: Option<PathBuf>,
}

impl Host {
    /// Starts everything; after an error nothing is left running.
    async fn start(loaded: Loaded, gate: log::LogGate, ways: Ways) -> Result<Self> {
        let loaded = Arc::new(loaded);
        let settings = &loaded.settings;
        make_folder(&settings.state.path)?;
        // Its lock comes first: a second host must touch nothing.
        let state = StateHandle::new(open_state(&settings.state.path).await?);
        let registry = Registry::new(plugin_settings(settings), Arc::new(lend::HostLog(gate)));
        let drivers: BTreeMap<String, String> = settings
            .backends
            .iter()
            .map(|(name, backend)| (name.clone(), backend.driver.clone()))
            .collect();
        let opener =
            lend::ConfiguredBackends { loaded: loaded.clone(), registry: registry.clone() };
        let backends = Backends::new(settings.active.clone(), drivers, opener);
        let owner = begin_life(&state, &process()).await?;
        let volumes = Volumes::new(state.clone(), backends, &owner);
        volumes.begin().await?;
        let jobs = Jobs::begin(state.clone()).await?;
        let lender = lend::HostLender {
            loaded: loaded.clone(),
            state: state.clone(),
            volumes: volumes.clone(),
        };
        registry.lend(Arc::new(lender));
        registry.rescan()?;
        let watch = PluginWatch::start(registry.clone())?;
        let going_on = open_for_a_start(volumes.clone()).await?;

        let runtime = tokio::runtime::Handle::current();
        let source = Arc::new(offer::Exports { volumes: volumes.clone(), runtime });
        let tls = ways::tls(&settings.nbd)?;
        let over_tls = tls.tcp == Tls::Require;
        let doors = ways.open(settings, &tls)?;
        let server = Arc::new(nbd::serve(server_settings(settings, tls), doors.nbd, source)?);
        let api = Api::new(Parts {
            volumes: volumes.clone(),
            jobs: jobs.clone(),
            transfers: Transfers::new(volumes.clone(), jobs.clone()),
            replicas: ReplicaJobs::new(volumes.clone(), jobs.clone()),
            requests: Requests::new(state),
            drivers: Box::new(offer::RegistryView(registry.clone())),
            gates: Box::new(offer::NbdGate { server: server.clone(), tls: over_tls }),
            started: Instant::now(),
        });
        let api = doors.api.map(|door| {
            let (end, ended) = oneshot::channel::<()>();
            let serving = tokio::spawn(api.serve(door.listener, async {
                // A sender that is gone says the same as its word.
                let _ = ended.await;
            }));
            RunningApi { serving, end, made: door.made }
        });
        let look = tokio::spawn(open_when_drivers_come(volumes.clone(), registry));
        Ok(Self { volumes, jobs, server, api, look, going_on, _watch: watch })
    }

    /// Where NBD clients find it.
    fn addresses(&self) -> String {
        let addresses: Vec<String> =
            self.server.addresses().iter().map(ToString::to_string).collect();
        addresses.join(" ")
    }

    /// Ends everything, so that a later start finds nothing to recover.
    async fn stop(self) {
        self.look.abort();
        if let Some(going_on) = &self.going_on {
            going_on.abort();
        }
        let mut made = None;
        if let Some(mut api) = self.api {
            // The API may have ended by itself; then nobody listens.
            let _ = api.end.send(());
            if tokio::time::timeout(GRACE, &mut api.serving).await.is_err() {
                tracing::warn!("requests are still under way; they are left behind");
                api.serving.abort();
            }
            made = api.made;
        }
        self.jobs.stop(GRACE).await;
        let server = self.server.clone();
        match tokio::task::spawn_blocking(move || server.shutdown(GRACE)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("NBD: {error:#}"),
            Err(panic) => tracing::error!("NBD: {panic}"),
        }
        self.volumes.detach_all().await;
        self.volumes.backends().close_all().await;
        if let Some(socket) = made {
            remove_socket(&socket);
        }
        tracing::info!("ended");
    }
}

/// Opens the backends and recovers their volumes, for as long as a start may wait: one whose storage stands still must not
/// keep the others from being served. What is then under way goes on.
async fn open_for_a_start(volumes: Volumes) -> Result<Option<AbortHandle>> {
    let mut opening = tokio::spawn(async move { volumes.open_backends().await });
    let Ok(opened) = tokio::time::timeout(OPENING, &mut opening).await else {
        tracing::warn!(
            "backends are still opened, or their volumes recovered; this host serves what is there"
        );
        let going_on = opening.abort_handle();
        tokio::spawn(async move {
            if let Ok(Err(error)) = opening.await {
                tracing::error!("opening backends: {error:#}");
            }
        });
        return Ok(Some(going_on));
    };
    let panicked = |error| Error::new(ErrorKind::INTERNAL, format!("opening backends: {error}"));
    opened.map_err(panicked)?.map(|()| None)
}

/// Opens the state. A host that was just ended may need a moment to let go of it.
async fn open_state(path: &Path) -> Result<EmbeddedState> {
    let deadline = Instant::now() + LETTING_GO;
    loop {
        match open_embedded(path) {
            Err(error) if error.kind() == ErrorKind::IN_USE && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            result => return result,
        }
    }
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(socket = %path.display(), "left behind: {error}");
    }
}

/// Makes the directory of a file.
fn make_folder(file: &Path) -> Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::from_io(format!("a directory cannot be made: {error}"), &error)
            .with("directory", folder.display())
            .remedy("make it, or configure another: novastor serve --set state.path=…")
    })
}

fn plugin_settings(settings: &Settings) -> PluginSettings {
    let allowed = &settings.plugins.allow_sha256;
    PluginSettings {
        dir: settings.plugins.dir.clone(),
        private_dir: settings.plugins.private_dir.clone(),
        allow_sha256: (!allowed.is_empty()).then(|| allowed.clone()),
    }
}

fn server_settings(settings: &Settings, tls: TlsSettings) -> ServerSettings {
    ServerSettings {
        tls,
        max_connections: settings.nbd.max_connections as usize,
        max_in_flight: settings.nbd.max_in_flight as usize,
        max_in_flight_bytes: NBD_BYTES_IN_FLIGHT,
        busy_poll: Duration::from_micros(settings.nbd.busy_poll.into()),
        farewell: NBD_FAREWELL,
        max_negotiating: NBD_NEGOTIATING,
        export: NBD_EXPORT_IN_FLIGHT,
        backend: NBD_BACKEND_IN_FLIGHT,
    }
}

/// This process, for the messages that others get.
fn process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("novastor on {}, process {}", host.trim(), std::process::id())
}

/// Opens a backend that is not open once a build of its driver is there that it was not tried with.
async fn open_when_drivers_come(volumes: Volumes, registry: Arc<Registry>) {
    let mut tried: BTreeMap<String, String> = BTreeMap::new();
    loop {
        for (name, status) in volumes.backends().list() {
            let BackendStatus::Unavailable(_) = status else { continue };
            let Ok(driver) = registry.driver(volumes.backends().driver_of(&name)) else { continue };
            if tried.get(&name) == Some(&driver.sha256) {
                continue;
            }
            tried.insert(name.clone(), driver.sha256.clone());
            // Its reason is logged, and shown with the backend.
            let _ = volumes.open_backend(&name).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}
