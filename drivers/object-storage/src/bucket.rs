// SPDX-License-Identifier: Apache-2.0
//! A bucket behind the traits of `object_store`.

use std::{fmt, sync::Arc};

use driver_api::Result;
use object_store::{
    ObjectStore, list::PaginatedListStore, multipart::MultipartStore, signer::Signer,
};

use crate::backend::ObjectBackend;

/// A bucket behind the traits of `object_store`, with the credentials, the client and the limits of its backend: for whoever
/// knows these traits, such as their own test suite.
#[derive(Clone)]
pub struct Bucket {
    /// Its objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Objects that are written in parts.
    pub parts: Arc<dyn MultipartStore>,
    /// Its listing, page by page.
    pub pages: Arc<dyn PaginatedListStore>,
    /// URLs for its objects.
    pub signer: Arc<dyn Signer>,
}

impl Bucket {
    pub(crate) fn of(
        store: impl ObjectStore + MultipartStore + PaginatedListStore + Signer,
    ) -> Self {
        let store = Arc::new(store);
        Self {
            objects: Arc::clone(&store) as Arc<dyn ObjectStore>,
            parts: Arc::clone(&store) as Arc<dyn MultipartStore>,
            pages: Arc::clone(&store) as Arc<dyn PaginatedListStore>,
            signer: store,
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.objects).finish()
    }
}

impl ObjectBackend {
    /// A bucket of this backend behind the traits of `object_store`. Nothing is asked.
    ///
    /// # Errors
    /// When the options cannot be used so.
    pub fn bucket(&self, name: &str) -> Result<Bucket> {
        self.0.open_bucket(name)
    }
}
