// SPDX-License-Identifier: Apache-2.0
//! The driver: describes itself and opens backends.

use driver_api::{BackendConfig, Driver, DriverInfo, Host, Result};

use crate::{account::Account, backend::ObjectBackend, config::Config, options};

/// The driver `object-storage`.
pub struct ObjectStorage;

impl Driver for ObjectStorage {
    type Backend = ObjectBackend;

    fn describe() -> DriverInfo {
        options::describe()
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<ObjectBackend> {
        ObjectBackend::open(&config.name, config.parse()?)
    }
}

impl ObjectBackend {
    /// Opens a backend from its parsed options. No server is asked anything yet.
    pub fn open(name: &str, config: Config) -> Result<Self> {
        let account = Account::new(config).map_err(|error| {
            let remedy = error.remedy_text().to_owned();
            let error = error.with("backend", name);
            match remedy.is_empty() {
                true => error.remedy(format!("correct [backends.{name}] in the configuration")),
                false => error,
            }
        })?;
        Ok(Self::new(account))
    }
}
