// SPDX-License-Identifier: Apache-2.0
//! A backend in memory that keeps every promise, and can be told to break one.

mod attachment;
mod backend;
mod content;
mod defect;
mod store;
mod volume_ext;

use std::sync::Arc;

use driver_api::{Abilities, BackendHandle, Error, ErrorKind, Host, HostServices, Op, StateHandle};

pub use defect::Defect;
pub use store::Store;

/// All that the reference can do.
pub const ALL: Abilities = Abilities::from_bits((1 << 15) - 1);

struct NoHost;

impl HostServices for NoHost {
    fn enabled(&self, _level: u32, _target: &str) -> bool {
        false
    }

    fn log(&self, _record: &driver_api::host::LogRecord<'_>) {}

    fn report_panic(&self, _place: &str, _message: &str) {}

    fn secret(&self, _name: &str) -> driver_api::Result<String> {
        Err(Error::new(ErrorKind::NOT_FOUND, "there are no secrets here"))
    }

    fn backend(&self, _name: &str) -> Op<BackendHandle> {
        Op::err(Error::new(ErrorKind::NOT_FOUND, "there are no other backends here"))
    }

    fn state(&self) -> driver_api::Result<StateHandle> {
        Err(Error::new(ErrorKind::UNSUPPORTED, "there is no state here"))
    }
}

/// Opens the store anew, through the glue that a shared library uses.
pub fn open(store: &Arc<Store>) -> BackendHandle {
    driver_api::export::export_backend(backend::Opening::new(Arc::clone(store)), Host::new(NoHost))
}
