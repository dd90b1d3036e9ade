// SPDX-License-Identifier: Apache-2.0
use std::{fmt, sync::Arc};

use abi_stable::StableAbi;

use super::ObjectInfo;
use crate::{IoBuf, ObjectReaderHandle, Op, OpContext};

/// The rest of an object that is read in order. Since 1.3.
///
/// Dropping it gives up what has not been read. A store that ends the connection while nobody asks for more costs the next
/// call a new request, and is no error. Every method is `[any thread · backend open]`.
pub trait ObjectReader: Send + Sync {
    /// The next bytes: at least one and at most [`ObjectReading::MOST`], as they came; none at the end, and again whenever
    /// it is called after that. They are of the object that was told of when the reading was opened: if it was replaced
    /// and the rest cannot be had any more, `Conflict`. If the store told a sum of all that is read, the last bytes are
    /// given out only if it is right: `Corrupted` otherwise, and what was given out before is not to be used.
    ///
    /// The deadline is for these bytes alone. One call at a time. A call that is dropped takes no bytes with it, and one
    /// that failed with an error that is temporary may be made again: both go on at the place reached.
    fn next(&self, cx: &OpContext) -> Op<IoBuf>;
}

/// A reading as a driver opens it. Since 1.3.
pub struct OpenedObject {
    /// The object.
    pub object: ObjectInfo,
    /// The place of the first byte that comes.
    pub offset: u64,
    /// How many bytes come.
    pub len: u64,
    /// Gives them out.
    pub reader: Arc<dyn ObjectReader>,
}

impl fmt::Debug for OpenedObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedObject")
            .field("object", &self.object)
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A reading of any driver, as the other side holds it. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct ObjectReading {
    /// The object.
    pub object: ObjectInfo,
    /// The place of the first byte that comes.
    pub offset: u64,
    /// How many bytes come.
    pub len: u64,
    /// Gives them out.
    pub reader: ObjectReaderHandle,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl ObjectReading {
    /// The most bytes that one call gives.
    pub const MOST: usize = 1 << 20;
}
