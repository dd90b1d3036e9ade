// SPDX-License-Identifier: Apache-2.0
//! Finds the backend whose objects are meant.

use driver_api::{Error, ErrorKind, Result};

use super::names::Paths;
use crate::{
    api::{objects::types::ObjectFeaturesView, types::BackendView},
    cli::{Session, args::objects::Store},
};

/// A backend with objects.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Chosen {
    pub(in crate::cli) paths: Paths,
    pub(in crate::cli) features: ObjectFeaturesView,
}

impl Session {
    /// The backend that was named, or the only one that has objects, or may have some.
    pub(in crate::cli) async fn store(&self, store: Store) -> Result<Chosen> {
        if let Some(name) = store.backend {
            let paths = Paths::new(&name);
            let features = self.client.get(&paths.features()).await?;
            return Ok(Chosen { paths, features });
        }
        let all: Vec<BackendView> = self.client.get("/v1/backends").await?;
        let mut found = Vec::new();
        for backend in all {
            let paths = Paths::new(&backend.name);
            let asked = self.client.get::<ObjectFeaturesView>(&paths.features()).await;
            // One that does not answer may be the one that is meant: nothing is sent to another in its place.
            if !matches!(&asked, Err(error) if error.kind() == ErrorKind::UNSUPPORTED) {
                found.push((backend.name, paths, asked));
            }
        }
        if found.len() > 1 {
            let names: Vec<_> = found.iter().map(|(name, ..)| name.as_str()).collect();
            let why =
                format!("there are several backends that may have objects: {}", names.join(", "));
            return Err(
                Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy("name one with --backend")
            );
        }
        match found.pop() {
            Some((_, paths, features)) => Ok(Chosen { paths, features: features? }),
            None => Err(Error::new(ErrorKind::UNSUPPORTED, "no backend has objects").remedy(
                "configure a backend whose driver has some, such as object-storage: novastor driver list",
            )),
        }
    }
}
