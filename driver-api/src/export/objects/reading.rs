// SPDX-License-Identifier: Apache-2.0
//! An exported reading: gives out what the author's code does, and lets go of it without harm.

use std::sync::Arc;

use abi_stable::{sabi_trait::TD_Opaque, std_types::RArc};

use super::super::{Contained, start};
use crate::{
    Host, IoBuf, ObjectReaderHandle, Op, OpContext,
    abi::{RawObjectReader, RawObjectReader_TO},
    ext::{ObjectReader, ObjectReading, OpenedObject},
};

/// The reading as the other side holds it.
pub(super) fn export(opened: OpenedObject, host: Host) -> ObjectReading {
    let OpenedObject { object, offset, len, reader } = opened;
    let glue = ReaderGlue(Contained::new(reader, host));
    let raw = RawObjectReader_TO::from_ptr(RArc::new(glue), TD_Opaque);
    ObjectReading { object, offset, len, reader: ObjectReaderHandle { raw }, reserved: [0; 4] }
}

struct ReaderGlue(Contained<Arc<dyn ObjectReader>>);

impl RawObjectReader for ReaderGlue {
    fn next(&self, cx: &OpContext) -> Op<IoBuf> {
        start(|| self.0.next(cx))
    }
}
