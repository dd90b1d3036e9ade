// SPDX-License-Identifier: Apache-2.0
//! A backend in memory that keeps every promise, and can be told to break one.

mod attachment;
mod backend;
mod changes;
mod content;
mod defect;
mod lineage;
mod session;
mod store;
mod volume_ext;

use std::sync::Arc;

use driver_api::{Abilities, BackendHandle, Host, host::NoServices};

pub use defect::Defect;
pub use store::Store;

/// All that the reference can do.
pub const ALL: Abilities = Abilities::from_bits((1 << 20) - 1);

/// Opens the store anew, through the glue that a shared library uses.
pub fn open(store: &Arc<Store>) -> BackendHandle {
    driver_api::export::export_backend(
        backend::Opening::new(Arc::clone(store)),
        Host::new(NoServices),
    )
}
