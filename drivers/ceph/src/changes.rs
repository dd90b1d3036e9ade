// SPDX-License-Identifier: Apache-2.0
//! Where two pictures of a volume differ, as librbd tells it from the snapshots that each object has.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use driver_api::{
    Error, ErrorKind, Result,
    ext::{Extent, ExtentFlags},
};

use crate::{
    attached::Attached,
    cluster::{c_text, check},
    error::{invalid, not_found},
    ffi,
    image::{Image, Snapshot},
};

/// Bytes that one question to librbd covers: the answer is held in memory.
const STEP: u64 = 1 << 30;

/// What is asked for.
pub(crate) struct Question {
    pub from: String,
    pub to: String,
    pub offset: u64,
    pub len: u64,
    pub limit: usize,
}

impl Question {
    /// The answer, for an attached volume.
    pub fn ask(&self, attached: &Attached) -> Result<Vec<Extent>> {
        if self.to.is_empty() {
            return attached.with(|image| {
                let all = image.snapshots()?;
                if !self.from.is_empty() {
                    find(&all, &self.from)?;
                }
                self.ask_of(image)
            });
        }
        let order = attached.with(|image| {
            let all = image.snapshots()?;
            let to = find(&all, &self.to)?;
            let from = if self.from.is_empty() { None } else { Some(find(&all, &self.from)?) };
            Ok(from.map(|from| from.id.cmp(&to.id)))
        })?;
        match order {
            Some(std::cmp::Ordering::Equal) => Ok(Vec::new()),
            Some(std::cmp::Ordering::Greater) => {
                Err(invalid("the first snapshot was taken after the second")
                    .with("from", &self.from)
                    .with("to", &self.to)
                    .remedy("exchange the two"))
            }
            _ => attached.with_snapshot(&self.to, |image| self.ask_of(image)),
        }
    }

    /// The answer, of an image that is open at `to`.
    fn ask_of(&self, image: &Image) -> Result<Vec<Extent>> {
        let size = image.size()?;
        if self.offset > size || self.len > size - self.offset {
            return Err(Error::new(ErrorKind::OUT_OF_RANGE, "the range ends beyond the volume")
                .with("offset", self.offset)
                .with("length", self.len)
                .with("size", size));
        }
        let (mut list, end, mut at) = (Vec::new(), self.offset + self.len, self.offset);
        // One more than wanted: the last one may go on.
        while at < end && list.len() <= self.limit {
            let step = (end - at).min(STEP);
            for change in image.changes(&self.from, true, at, step)? {
                // Zeros differ from nothing but zeros nowhere.
                if change.is_data || !self.from.is_empty() {
                    change.add_to(&mut list, at, at + step);
                }
            }
            at += step;
        }
        list.truncate(self.limit);
        Ok(list)
    }
}

fn find<'a>(all: &'a [Snapshot], name: &str) -> Result<&'a Snapshot> {
    all.iter().find(|one| one.name == name).ok_or_else(|| not_found("snapshot", name))
}

/// A run of bytes that differ, or may.
pub(crate) struct Change {
    pub start: u64,
    pub end: u64,
    pub is_data: bool,
}

impl Change {
    /// Adds what of it lies in `[from, end)` and was not told yet.
    fn add_to(&self, list: &mut Vec<Extent>, from: u64, end: u64) {
        let told = list.last().map_or(0, |last| last.offset + last.len);
        let (start, stop) = (self.start.max(from).max(told), self.end.min(end));
        if start >= stop {
            return;
        }
        let hole = ExtentFlags::HOLE.and(ExtentFlags::ZERO);
        let flags = if self.is_data { ExtentFlags::DATA } else { hole };
        match list.last_mut() {
            Some(last) if last.flags == flags && told == start => last.len += stop - start,
            _ => list.push(Extent { offset: start, len: stop - start, flags }),
        }
    }
}

impl Image {
    /// What differs in a range between a snapshot, or nothing if it is empty, and what this image is open at. With
    /// nothing, what the image only shares counts if `shared` says so.
    pub fn changes(&self, from: &str, shared: bool, offset: u64, len: u64) -> Result<Vec<Change>> {
        let from = if from.is_empty() { None } else { Some(c_text(from)?) };
        let mut changes: Vec<Change> = Vec::new();
        // SAFETY: the image is open; the list outlives the call, which alone uses it.
        let asked = unsafe {
            ffi::rbd_diff_iterate2(
                self.0,
                from.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
                offset,
                len,
                shared.into(),
                0,
                add_change,
                ptr::from_mut(&mut changes).cast(),
            )
        };
        check("cannot ask what changed", asked)?;
        changes.sort_by_key(|change| change.start);
        Ok(changes)
    }
}

extern "C" fn add_change(offset: u64, len: usize, exists: c_int, arg: *mut c_void) -> c_int {
    if len > 0 {
        // SAFETY: arg is the list of the call that this is called from.
        let changes = unsafe { &mut *arg.cast::<Vec<Change>>() };
        changes.push(Change { start: offset, end: offset + len as u64, is_data: exists != 0 });
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_and_is_alike_is_one_extent() {
        let change = |start, end, is_data| Change { start, end, is_data };
        let mut list = Vec::new();
        for one in [change(0, 10, true), change(10, 12, true), change(11, 20, false)] {
            one.add_to(&mut list, 5, 15);
        }
        change(15, 18, false).add_to(&mut list, 15, 30);
        change(40, 50, true).add_to(&mut list, 15, 30);
        let told: Vec<_> = list.iter().map(|one| (one.offset, one.len, one.flags.bits())).collect();
        assert_eq!(told, [(5, 7, 0), (12, 6, 3)]);
    }
}
