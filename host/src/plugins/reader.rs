// SPDX-License-Identifier: Apache-2.0
//! Objects that are read in order, watched as their backends are.

use std::sync::Arc;

use driver_api::{IoBuf, ObjectReaderHandle, OpContext};

use super::{
    Call, GuardedBackend, Started,
    started::{Held, start},
};

/// An object that is read in order. The last handle to go gives up the rest.
#[derive(Clone, Debug)]
pub struct GuardedReader(Arc<Held<ObjectReaderHandle>>);

impl GuardedBackend {
    /// Watches a reader of this backend, which is kept until the reader is gone.
    pub fn reader(&self, reader: ObjectReaderHandle) -> GuardedReader {
        let keeps = Arc::new(self.clone());
        GuardedReader(Held::new(reader, self.meter().cloned(), Some(keeps)))
    }
}

impl GuardedReader {
    /// Starts asking for the next bytes. One call at a time.
    pub fn next(&self, cx: &OpContext) -> Started<IoBuf> {
        start(&self.0, Call::ReadObject, cx, ObjectReaderHandle::next)
    }
}
