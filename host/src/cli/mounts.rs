// SPDX-License-Identifier: Apache-2.0
//! `novastor backend mounts`: the command `mounts` of whichever drivers have it, as a table.

use clap::Args;
use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{
    Session,
    args::Watched,
    client::part,
    show::{self, Row},
};
use crate::api::types::{BackendView, CommandView};

/// Whose mounts.
#[derive(Args, Clone, Debug)]
pub struct Mounts {
    /// The backend; all that mount something if none
    pub name: Option<String>,
    #[command(flatten)]
    pub watched: Watched,
}

/// The command that drivers with mounts have.
const COMMAND: &str = "mounts";

/// A mount, as drivers tell it.
#[derive(Serialize, Deserialize)]
struct MountView {
    /// The backend whose mount it is; told by the host.
    #[serde(default)]
    backend: String,
    name: String,
    state: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    server: String,
    #[serde(default)]
    share: String,
    #[serde(default)]
    volumes: u64,
    /// What else the driver tells.
    #[serde(flatten)]
    more: serde_json::Map<String, serde_json::Value>,
}

impl Row for MountView {
    const HEAD: &'static [&'static str] =
        &["backend", "mount", "state", "protocol", "server", "share", "volumes", "why"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.backend.clone(),
            self.name.clone(),
            self.state.clone(),
            self.protocol.clone(),
            self.server.clone(),
            self.share.clone(),
            self.volumes.to_string(),
            self.reason.clone(),
        ]
    }
}

impl Session {
    /// The mounts of one backend, or of all.
    pub(super) async fn mounts(&self, backend: Option<&str>) -> Result<()> {
        let mut all = Vec::new();
        match backend {
            Some(name) => all.extend(self.mounts_of(name).await?.ok_or_else(|| {
                Error::new(ErrorKind::UNSUPPORTED, format!("backend {name} mounts nothing"))
                    .remedy("novastor backend mounts")
            })?),
            None => {
                let backends: Vec<BackendView> = self.client.get("/v1/backends").await?;
                let able = |view: &&BackendView| view.abilities.iter().any(|it| it == "commands");
                for backend in backends.iter().filter(able) {
                    all.extend(self.mounts_of(&backend.name).await?.unwrap_or_default());
                }
            }
        }
        show::list(self.output, &all)
    }

    async fn mounts_of(&self, backend: &str) -> Result<Option<Vec<MountView>>> {
        let path = format!("/v1/backends/{}/commands", part(backend));
        let commands: Vec<CommandView> = self.client.get(&path).await?;
        if !commands.iter().any(|command| command.name == COMMAND) {
            return Ok(None);
        }
        let asking = format!("{path}/{COMMAND}");
        let nothing = serde_json::json!({});
        let mut told: Vec<MountView> = self.client.asking().post(&asking, &nothing).await?;
        for mount in &mut told {
            mount.backend = backend.to_owned();
        }
        Ok(Some(told))
    }
}
