// SPDX-License-Identifier: Apache-2.0
//! What a driver under check gets from its host: a state of its own, and the other backends of the configuration.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use driver_api::{BackendConfig, BackendHandle, Error, ErrorKind, Op, Result, StateHandle};

use crate::{
    config::{Loaded, check_options, resolve_secret},
    plugins::{Lender, PluginSettings, Registry, TracingLog},
    state::{open_embedded, scoped},
};

/// Lends what the configuration has.
pub(super) struct CheckLender {
    loaded: Loaded,
    state: StateHandle,
    backends: BTreeMap<String, BackendHandle>,
    // Its drivers made the backends.
    _registry: Arc<Registry>,
}

impl CheckLender {
    /// Opens every backend of the configuration but those of the driver under check.
    pub async fn open(loaded: Loaded, checked: &str, room: &Path) -> Result<Self> {
        let state = StateHandle::new(open_embedded(&room.join("state.redb"))?);
        let registry = Registry::new(
            PluginSettings {
                dir: loaded.settings.plugins.dir.clone(),
                private_dir: room.join("lent"),
                allow_sha256: None,
            },
            Arc::new(TracingLog),
        );
        let others: Vec<_> = loaded
            .settings
            .backends
            .iter()
            .filter(|(_, backend)| backend.driver != checked)
            .collect();
        let mut backends = BTreeMap::new();
        if !others.is_empty() {
            registry.rescan()?;
        }
        for (name, backend) in others {
            let driver = registry.driver(&backend.driver)?;
            let options = check_options(&loaded, name, &driver.info)?;
            let opened = driver.open(BackendConfig::new(name, &options)).await;
            let opened = opened.map_err(|error| error.with("backend", name))?;
            backends.insert(name.clone(), opened.handle().clone());
        }
        Ok(Self { loaded, state, backends, _registry: registry })
    }
}

fn no_backend(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("no backend `{name}` is configured"))
        .remedy("give the check a configuration that has it: --config FILE")
}

impl Lender for CheckLender {
    fn secret(&self, _asker: &str, name: &str) -> Result<String> {
        resolve_secret(&self.loaded.settings, name)
    }

    fn backend(&self, _asker: &str, name: &str) -> Op<BackendHandle> {
        Op::ready(self.backends.get(name).cloned().ok_or_else(|| no_backend(name)))
    }

    fn state(&self, asker: &str) -> Result<StateHandle> {
        Ok(scoped(self.state.clone(), &format!("backends/{asker}/")))
    }

    fn driver_of(&self, name: &str) -> Result<String> {
        match self.loaded.settings.backends.get(name) {
            Some(backend) => Ok(backend.driver.clone()),
            None => Err(no_backend(name)),
        }
    }
}
