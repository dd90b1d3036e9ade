// SPDX-License-Identifier: Apache-2.0
//! What the host offers: exports to NBD clients, drivers and ways in to the API.

use std::{sync::Arc, time::Duration};

use driver_api::{Error, ErrorKind, Result, ext::Consistency};
use tokio::runtime::Handle;

use crate::{
    access::Peer,
    api::{
        Drivers, Gates,
        types::{DriverView, OptionView},
    },
    export::nbd::{Export, ExportSource, ListenAddress, Server},
    plugins::{GuardedVolume, PluginState, PluginStatus, Registry},
    volumes::{Boxed, Volumes},
};

/// How long clients of a removed export get to end.
const GRACE: Duration = Duration::from_secs(30);

/// The recorded exports, as the NBD server asks for them from its own threads.
pub(super) struct Exports {
    pub(super) volumes: Volumes,
    pub(super) runtime: Handle,
}

impl Exports {
    /// Has a thread of the runtime do something. The connection's own keeps the deepest stack that it ever had, and there
    /// are thousands.
    fn ask<T, F>(&self, asking: impl FnOnce(Volumes) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let answer = self.runtime.block_on(self.runtime.spawn(asking(self.volumes.clone())));
        answer.unwrap_or_else(|why| {
            Err(Error::new(ErrorKind::PANIC, format!("an export was not looked up: {why}")))
        })
    }
}

impl ExportSource for Exports {
    fn list(&self, peer: &Peer) -> Vec<String> {
        let exports = self.ask(async move |volumes| volumes.exports().await);
        let exports = exports.unwrap_or_else(|error| {
            tracing::error!("exports cannot be listed: {error:#}");
            Vec::new()
        });
        let admitting = exports.into_iter().filter(|export| export.admits(peer));
        admitting.map(|export| export.name).collect()
    }

    fn default_name(&self) -> Result<String> {
        self.ask(async move |volumes| volumes.default_export().await)
    }

    fn find(&self, name: &str, peer: &Peer) -> Result<()> {
        let (name, peer) = (name.to_owned(), peer.clone());
        self.ask(async move |volumes| volumes.export_for(&name, &peer).await.map(drop))
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Export> {
        let (name, peer) = (name.to_owned(), peer.clone());
        let opened = self.ask(async move |volumes| volumes.export_open(&name, &peer).await);
        let (export, used) = opened?;
        let (volume, coherent) = for_connection(used.volume())?;
        Ok(Export {
            name: export.name,
            description: format!("volume {}", export.record.volume),
            volume,
            coherent,
            backend: used.backend().name.clone(),
            read_only: export.record.read_only,
            lease: Box::new(used),
        })
    }
}

/// A volume as one connection has it, and whether what it writes is seen on every other: the connection is a session,
/// unless reads are strong and it needs none.
fn for_connection(volume: &GuardedVolume) -> Result<(GuardedVolume, bool)> {
    let is_weaker = volume.consistency()?.is_some_and(|level| level != Consistency::STRONG);
    let session = if is_weaker { volume.open_session("")? } else { None };
    Ok(match session {
        Some(session) => (session.volume().clone(), false),
        None => (volume.clone(), true),
    })
}

/// The NBD server, as the API steers it.
pub(super) struct NbdGate {
    pub(super) server: Arc<Server>,
    /// Clients over TCP use TLS.
    pub(super) tls: bool,
}

impl Gates for NbdGate {
    fn uri(&self, export: &str) -> String {
        let socket = self.socket();
        match self.listen().first() {
            Some(address) if socket.is_empty() => {
                format!("nbd{}://{address}/{export}", if self.tls { "s" } else { "" })
            }
            _ => format!("nbd+unix:///{export}?socket={socket}"),
        }
    }

    fn socket(&self) -> String {
        let mut addresses = self.server.addresses().iter();
        let unix = addresses.find(|address| matches!(address, ListenAddress::Unix(_)));
        unix.map(ListenAddress::to_string).unwrap_or_default()
    }

    fn listen(&self) -> Vec<String> {
        let addresses = self.server.addresses().iter();
        let tcp = addresses.filter(|address| matches!(address, ListenAddress::Tcp(_)));
        tcp.map(ListenAddress::to_string).collect()
    }

    fn connections(&self, export: &str) -> usize {
        self.server.connections().iter().filter(|connection| connection.export == export).count()
    }

    fn disconnect(&self, export: &str) -> Boxed<Result<()>> {
        let (server, export) = (self.server.clone(), export.to_owned());
        Box::pin(async move {
            let ending =
                tokio::task::spawn_blocking(move || server.disconnect_export(&export, GRACE));
            ending.await.unwrap_or_else(|panic| {
                let why = format!("the NBD server panicked: {panic}");
                Err(Error::new(ErrorKind::INTERNAL, why))
            })
        })
    }
}

/// The drivers, as the API shows them.
pub(super) struct RegistryView(pub(super) Arc<Registry>);

impl RegistryView {
    fn view(&self, status: PluginStatus) -> DriverView {
        let driver = self.0.driver(&status.name).ok();
        let driver = driver.filter(|driver| driver.sha256 == status.sha256);
        let options = |options: &[driver_api::OptionSpec]| -> Vec<OptionView> {
            options.iter().map(OptionView::from).collect()
        };
        DriverView {
            state: match status.state {
                PluginState::Found => "found",
                PluginState::Refused => "refused",
                PluginState::Loaded => "loaded",
                PluginState::Degraded => "degraded",
                PluginState::Draining => "draining",
            }
            .to_owned(),
            summary: driver.as_ref().map(|d| d.info.summary.to_string()).unwrap_or_default(),
            options: driver.as_ref().map(|d| options(&d.info.options)).unwrap_or_default(),
            volume_options: driver
                .as_ref()
                .map(|d| options(&d.info.volume_options))
                .unwrap_or_default(),
            name: status.name,
            version: status.version,
            abi: status.abi,
            role: status.role,
            sha256: status.sha256,
            backends_in_use: status.backends_in_use,
            blocked_calls: status.blocked_calls,
            last_blocked: status.last_blocked,
            why: Some(status.reason).filter(|text| !text.is_empty()),
            remedy: Some(status.remedy).filter(|text| !text.is_empty()),
            file: status.file,
        }
    }
}

impl Drivers for RegistryView {
    fn list(&self) -> Vec<DriverView> {
        self.0.list().into_iter().map(|status| self.view(status)).collect()
    }

    fn rescan(&self) -> Result<()> {
        self.0.rescan()
    }
}
