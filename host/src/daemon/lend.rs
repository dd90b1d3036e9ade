// SPDX-License-Identifier: Apache-2.0
//! What drivers get from the host: their configuration, the log, secrets, other backends, state.

use std::sync::Arc;

use driver_api::{
    BackendConfig, BackendHandle, Error, ErrorKind, Op, Result, StateHandle, host::LogRecord,
};

use crate::{
    config::{Loaded, check_options, resolve_secret, without_secrets},
    log::LogGate,
    plugins::{DriverLog, Lender, Registry, lend},
    state::scoped,
    volumes::{Boxed, Opened, Opener, Volumes},
};

pub(super) struct HostLog(pub(super) LogGate);

impl DriverLog for HostLog {
    fn enabled(&self, level: u32, target: &str) -> bool {
        self.0.enabled(level, target)
    }

    fn log(&self, driver: &str, record: &LogRecord<'_>) {
        self.0.forward(driver, record);
    }
}

fn no_backend(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("no backend `{name}` is configured"))
}

pub(super) struct HostLender {
    pub(super) loaded: Arc<Loaded>,
    pub(super) state: StateHandle,
    pub(super) volumes: Volumes,
}

impl Lender for HostLender {
    fn secret(&self, _asker: &str, name: &str) -> Result<String> {
        resolve_secret(&self.loaded.settings, name)
    }

    fn backend(&self, asker: &str, name: &str) -> Op<BackendHandle> {
        if asker == name {
            let why = format!("backend `{name}` is built on itself");
            return Op::err(Error::new(ErrorKind::INVALID_ARGUMENT, why));
        }
        let lent =
            self.volumes.backends().get(name).map(|backend| {
                lend(backend.handle().clone(), name, self.volumes.tenure(name, asker))
            });
        lent.into()
    }

    fn state(&self, asker: &str) -> Result<StateHandle> {
        Ok(scoped(self.state.clone(), &format!("backends/{asker}/")))
    }

    fn driver_of(&self, name: &str) -> Result<String> {
        let backend = self.loaded.settings.backends.get(name).ok_or_else(|| no_backend(name))?;
        Ok(backend.driver.clone())
    }
}

/// Opens backends as the configuration has them.
pub(super) struct ConfiguredBackends {
    pub(super) loaded: Arc<Loaded>,
    pub(super) registry: Arc<Registry>,
}

impl Opener for ConfiguredBackends {
    fn open(&self, name: &str) -> Boxed<Result<Opened>> {
        let (loaded, registry, name) =
            (self.loaded.clone(), self.registry.clone(), name.to_owned());
        Box::pin(async move {
            let settings = loaded.settings.backends.get(&name).ok_or_else(|| no_backend(&name))?;
            let driver = registry.driver(&settings.driver)?;
            let options = check_options(&loaded, &name, &driver.info)?;
            let handle = driver.open(BackendConfig::new(&name, &options)).await?;
            Ok(Opened {
                version: driver.version.clone(),
                handle,
                options: without_secrets(&options, &driver.info),
                volume_options: driver.info.volume_options.to_vec(),
            })
        })
    }
}

#[cfg(test)]
#[path = "lend_tests.rs"]
mod tests;
