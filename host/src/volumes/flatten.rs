// SPDX-License-Identifier: Apache-2.0
//! Flattening: clones that share something with their sources get all of it.

use driver_api::{Abilities, Error, ErrorKind, Result, ext::Flattening};

use super::{attach::Use, service::Volumes};

impl Volumes {
    /// Refuses a volume whose backend cannot flatten.
    pub async fn can_flatten(&self, volume: &str) -> Result<()> {
        let backend = self.backend_of(&self.usable(volume).await?)?;
        if self.backend_has(&backend, Abilities::FLATTEN)? {
            return Ok(());
        }
        let why = format!("backend `{}` cannot flatten volumes: no `flatten`", backend.name);
        Err(Error::new(ErrorKind::UNSUPPORTED, why)
            .during("volume flatten")
            .with("driver", self.backends().driver_of(&backend.name))
            .remedy("see which backend can: novastor backend list --output json"))
    }
}

impl Use {
    /// Begins to flatten the volume, or ends that.
    pub async fn flatten(&self, on: bool) -> Result<()> {
        let flattening = self.backend().handle().flatten(&self.cx(), self.inner_name(), on);
        self.backend().call("volume flatten", flattening).await
    }

    /// How far it is.
    pub async fn flattening(&self) -> Result<Flattening> {
        let asking = self.backend().handle().flattening(&self.cx(), self.inner_name());
        self.backend().call("volume flatten", asking).await
    }
}
