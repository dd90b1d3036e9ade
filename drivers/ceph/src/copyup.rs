// SPDX-License-Identifier: Apache-2.0
//! Objects that a clone lacks and its source has, each made by a write that changes nothing: librbd first copies what the clone
//! shares, as for any write of a client, and with all snapshots that there are at that moment.
//!
//! Flattening needs this: librbd skips objects that the object map says are there, and the map says so before they are. After
//! a host that died while it wrote, they are lost with the source (seen with 16.2.15).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use driver_api::{Error, Result};

use crate::{
    changes::Change,
    error::{failed, internal},
    ffi,
    image::Image,
};

/// Bytes that are looked at before what is missing of them is made; more where objects are larger.
const STEP: u64 = 64 << 20;
/// Objects that are made at once: clients go on meanwhile.
const AT_ONCE: usize = 4;

/// How an image's bytes lie in objects.
struct Layout {
    object_size: u64,
    unit: u64,
    count: u64,
}

impl Layout {
    fn of(image: &Image) -> Result<Self> {
        let object_size = image.object_size()?;
        match image.stripes()? {
            (unit, count) if unit > 0 && count > 1 => Ok(Self { object_size, unit, count }),
            _ => Ok(Self { object_size, unit: object_size, count: 1 }),
        }
    }

    /// The number of the object that has this byte.
    fn object(&self, offset: u64) -> u64 {
        let block = offset / self.unit;
        let set = block / self.count / (self.object_size / self.unit);
        set * self.count + block % self.count
    }

    /// Bytes after which no object of before is met again.
    fn set(&self) -> u64 {
        self.object_size * self.count
    }

    /// Each object that has some of the data, with the first byte there.
    fn objects(&self, runs: &[Change]) -> BTreeMap<u64, u64> {
        let mut objects = BTreeMap::new();
        for run in runs.iter().filter(|run| run.is_data) {
            let mut at = run.start;
            while at < run.end {
                objects.entry(self.object(at)).or_insert(at);
                at = (at / self.unit + 1) * self.unit;
            }
        }
        objects
    }
}

/// Makes all objects that the first `overlap` bytes lack; false if `ends` said so before the end. `reached` hears how far
/// it is.
pub(crate) fn make_missing(
    image: &Image,
    overlap: u64,
    ends: impl Fn() -> bool + Sync,
    reached: impl Fn(u64),
) -> Result<bool> {
    let layout = Layout::of(image)?;
    let step = STEP.next_multiple_of(layout.set());
    let mut at = 0;
    while at < overlap {
        if ends() {
            return Ok(false);
        }
        let len = step.min(overlap - at);
        let own: BTreeSet<u64> =
            layout.objects(&image.changes("", false, at, len)?).into_keys().collect();
        let mut missing = layout.objects(&image.changes("", true, at, len)?);
        missing.retain(|object, _| !own.contains(object));
        let places: Vec<u64> = missing.into_values().collect();
        if !make_all(image, &places, &ends)? {
            return Ok(false);
        }
        at += len;
        reached(at);
    }
    Ok(true)
}

/// Makes the objects of these bytes, several at once.
fn make_all(image: &Image, places: &[u64], ends: &(impl Fn() -> bool + Sync)) -> Result<bool> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None::<Error>));
    let is_over = || failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() || ends();
    // librbd's handles may be used from any thread.
    let handle = image.0 as usize;
    let work = || {
        let image = Image(handle as ffi::Image);
        while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
            if is_over() {
                return;
            }
            if let Err(error) = touch(&image, *place) {
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(places.len()) {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(!ends()),
    }
}

/// Writes a byte as it is. One that changes meanwhile was written by a client, which has made the object.
fn touch(image: &Image, at: u64) -> Result<()> {
    let mut byte = [0];
    // SAFETY: the image is open, the buffer has its length.
    let read = unsafe { ffi::rbd_read(image.0, at, byte.len(), byte.as_mut_ptr()) };
    if read < 0 {
        return Err(failed("what the image shares cannot be read", read as i64));
    }
    if read != 1 {
        return Err(internal("librbd read nothing where the image shares data").with("offset", at));
    }
    let mut mismatch = 0;
    // SAFETY: as above; the same byte is compared and written.
    let written = unsafe {
        let (byte, len) = (byte.as_ptr(), byte.len());
        ffi::rbd_compare_and_write(image.0, at, len, byte, byte, &mut mismatch, 0)
    };
    match written {
        code if code == -(libc::EILSEQ as isize) => Ok(()),
        code if code < 0 => Err(failed("what the image shares cannot be copied", code as i64)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_in_their_objects() {
        let plain = Layout { object_size: 100, unit: 100, count: 1 };
        let run = |start, end| Change { start, end, is_data: true };
        let found = plain.objects(&[run(50, 60), run(70, 250), run(400, 401)]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(0, 50), (1, 100), (2, 200), (4, 400)]);
        // Units of 10 go round three objects of 20: bytes 0 to 59 are one set.
        let striped = Layout { object_size: 20, unit: 10, count: 3 };
        let objects: Vec<u64> = (0..12).map(|block| striped.object(block * 10)).collect();
        assert_eq!(objects, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
        assert_eq!(striped.set(), 60);
        let found = striped.objects(&[run(25, 45)]);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [(0, 30), (1, 40), (2, 25)]);
    }
}
