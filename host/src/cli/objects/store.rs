// SPDX-License-Identifier: Apache-2.0
//! Finds the backend whose objects are meant.

use driver_api::Result;

use super::names::Paths;
use crate::{
    api::objects::types::ObjectFeaturesView,
    cli::{
        Session,
        args::objects::{Store, Terms},
    },
};

/// What stands for the only backend that has objects.
const ONLY: &str = "-";

/// A backend with objects.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Chosen {
    pub(in crate::cli) paths: Paths,
    pub(in crate::cli) features: ObjectFeaturesView,
}

impl Chosen {
    /// Whether the store may heed these conditions at an upload's end, as far as is known before it is asked for.
    pub(in crate::cli) fn completes_under(&self, terms: &Terms) -> bool {
        (!terms.create_only || self.features.has("create-only-complete"))
            && (terms.if_match.is_none() || self.features.has("update-complete"))
    }
}

impl Session {
    /// The backend that was named, or the only one that has objects; the host knows which that is. From here on it is meant
    /// by its own name, whatever other backends come meanwhile.
    pub(in crate::cli) async fn store(&self, store: Store) -> Result<Chosen> {
        let asked = Paths::new(store.backend.as_deref().unwrap_or(ONLY));
        let features: ObjectFeaturesView = self.client.get(&asked.features()).await?;
        Ok(Chosen { paths: Paths::new(&features.backend), features })
    }
}
