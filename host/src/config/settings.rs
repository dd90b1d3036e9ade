// SPDX-License-Identifier: Apache-2.0
//! The configuration as plain data, checked and complete.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

use super::{layers::Variables, secrets::SecretSource};

/// All settings of the host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The backend for volumes that name none.
    pub active: Option<String>,
    /// Where sockets live.
    pub runtime_dir: PathBuf,
    /// Where files that outlive the process live.
    pub state_dir: PathBuf,
    /// Drivers.
    pub plugins: PluginSettings,
    /// The key-value state.
    pub state: StateSettings,
    /// The management API.
    pub api: ApiSettings,
    /// The NBD export.
    pub nbd: NbdSettings,
    /// The log.
    pub log: LogSettings,
    /// Where the named secrets are.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The backends, by name.
    pub backends: BTreeMap<String, BackendSettings>,
    /// The environment in which secrets are looked up.
    pub(super) variables: Variables,
}

/// Drivers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginSettings {
    /// The directory that is watched for drivers.
    pub dir: PathBuf,
    /// The directory for the copies that are loaded; not on a file system mounted noexec.
    pub private_dir: PathBuf,
    /// The SHA-256 of each driver that may be loaded, in lower case; empty: any.
    pub allow_sha256: Vec<String>,
}

/// The key-value state.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSettings {
    /// The file.
    pub path: PathBuf,
}

/// The management API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiSettings {
    /// The unix socket.
    pub socket: PathBuf,
    /// The socket's mode.
    pub mode: u32,
}

/// The NBD export.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NbdSettings {
    /// The unix socket.
    pub socket: PathBuf,
    /// The socket's mode; the API's if none.
    pub mode: Option<u32>,
    /// Addresses for TCP.
    pub listen: Vec<SocketAddr>,
    /// TLS over TCP.
    pub tls: NbdTls,
    /// The server's certificate.
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's key.
    pub tls_key: Option<PathBuf>,
    /// The authorities of clients' certificates.
    pub tls_client_ca: Option<PathBuf>,
    /// Whether clients show certificates; decided by [`NbdSettings::tls_client_ca`] if none.
    pub tls_clients: Option<NbdTlsClients>,
    /// Connections at once.
    pub max_connections: u32,
    /// Operations in flight on one connection.
    pub max_in_flight: u32,
    /// Microseconds for which a connection polls before it sleeps.
    pub busy_poll: u32,
}

/// TLS over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NbdTls {
    /// Never.
    Off,
    /// If the client wants it.
    Offer,
    /// Always.
    Require,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NbdTlsClients {
    /// They are not asked.
    None,
    /// They may.
    Offer,
    /// They must.
    Require,
}

/// The log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// What is logged, as `RUST_LOG` has it: `info,novastor=debug`.
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
}

/// How log records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One backend.
#[derive(Clone)]
pub struct BackendSettings {
    /// The driver's name.
    pub driver: String,
    /// Layers over each of its volumes; none in this release.
    pub layers: Vec<String>,
    /// The driver's options as written; [`super::check_options`] makes them what the driver gets.
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl fmt::Debug for BackendSettings {
    /// Prints the options' names alone: a value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSettings")
            .field("driver", &self.driver)
            .field("layers", &self.layers)
            .field("options", &self.options.keys())
            .finish()
    }
}
