// SPDX-License-Identifier: Apache-2.0
//! Objects that are read in order.

use std::sync::{Mutex, PoisonError, atomic::Ordering};

use driver_api::{
    IoBuf, Op, OpContext,
    ext::{Conditions, ObjectInfo, ObjectName, ObjectReader},
};

use super::Room;

/// What is left of an object that is read in order.
pub(super) struct Rest {
    room: Room,
    object: ObjectName,
    /// That it is still the same object.
    same: Conditions,
    left: Mutex<IoBuf>,
}

impl Rest {
    pub(super) fn new(room: Room, object: ObjectName, info: &ObjectInfo, left: IoBuf) -> Self {
        let same = Conditions::matching(&info.etag);
        Self { room, object, same, left: Mutex::new(left) }
    }
}

impl ObjectReader for Rest {
    fn next(&self, _cx: &OpContext) -> Op<IoBuf> {
        let most = self.room.0.options.max_piece as usize;
        let taken = {
            let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            let len = left.len().min(most);
            let taken = left.slice(0, len);
            let over = usize::from(self.room.breaks("stream-repeats") && len == most);
            *left = left.slice(len - over, left.len() - len + over);
            taken
        };
        let (object, same) = (self.object.clone(), self.same.clone());
        self.room.start("next", move |state| match taken.is_empty() {
            true => Ok(taken),
            false => state.read(&object, &same).map(|_| taken),
        })
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.room.0.readings_dropped.fetch_add(1, Ordering::Relaxed);
    }
}
