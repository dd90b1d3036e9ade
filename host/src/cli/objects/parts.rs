// SPDX-License-Identifier: Apache-2.0
//! How an object is cut into parts, and a range into pieces.

use driver_api::{Error, ErrorKind, Result};

use crate::{api::objects::types::ObjectFeaturesView, config::format_size};

const MIB: u64 = 1 << 20;
/// Parts are as large as this unless there would be too many. Larger ones take more memory and no less time.
const USUAL: u64 = 16 * MIB;
/// What is read into memory to be sent by one request: the host passes no more on in one.
pub(super) const WHOLE: u64 = 16 * MIB;
/// More parts than stores take anyway, and a listing of them that is read in no time.
const MOST_PARTS: u64 = 10_000;

/// An object cut into parts of one size; the last one may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Bytes in all.
    pub(super) size: u64,
    /// Bytes of a part.
    pub(super) part: u64,
}

impl Cut {
    pub(super) fn count(self) -> u64 {
        self.size.div_ceil(self.part)
    }

    /// The first byte and the length of the part at `index`, from 0.
    pub(super) fn at(self, index: u64) -> (u64, u64) {
        let first = index * self.part;
        (first, self.part.min(self.size.saturating_sub(first)))
    }
}

/// The parts of an object that is read. Ranges have no limits in stores.
pub(super) fn for_reading(size: u64, asked: Option<u64>) -> Cut {
    let least = size.div_ceil(MOST_PARTS).next_multiple_of(MIB);
    Cut { size, part: asked.unwrap_or(USUAL).max(least).max(1) }
}

/// The parts of an object that is written within the store's limits; none: it is written whole by one request.
pub(super) fn for_writing(
    size: u64,
    asked: Option<u64>,
    limits: &ObjectFeaturesView,
) -> Result<Option<Cut>> {
    if size > limits.max_object {
        let why = format!(
            "the file has {}, and an object of this store {} at most",
            format_size(size),
            format_size(limits.max_object)
        );
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
            .remedy("split the file into several objects"));
    }
    let part = part_size(Some(size), asked, limits)?;
    if size <= part.min(limits.max_put).min(WHOLE) {
        return Ok(None);
    }
    Ok(Some(Cut { size, part }))
}

/// The size of parts for an object of `size` bytes, if that is known.
pub(super) fn part_size(
    size: Option<u64>,
    asked: Option<u64>,
    limits: &ObjectFeaturesView,
) -> Result<u64> {
    let most = MOST_PARTS.min(u64::from(limits.max_parts)).max(1);
    let needed = size.unwrap_or(0).div_ceil(most);
    let wrong = |why: String, remedy: String| {
        Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy(remedy))
    };
    if let Some(asked) = asked {
        if asked < limits.min_part.max(1) || asked > limits.max_part {
            let why = format!(
                "parts of this store have {} to {}",
                format_size(limits.min_part.max(1)),
                format_size(limits.max_part)
            );
            return wrong(why, "choose another --part-size, or leave it out".to_owned());
        }
        if asked < needed {
            let why = format!("there would be more than {most} parts");
            return wrong(
                why,
                format!("choose a --part-size of at least {needed}, or leave it out"),
            );
        }
        return Ok(asked);
    }
    if needed > limits.max_part {
        let why =
            format!("the file does not fit into {most} parts of {}", format_size(limits.max_part));
        return wrong(why, "split the file into several objects".to_owned());
    }
    let grown = needed.next_multiple_of(MIB).max(USUAL);
    Ok(grown.max(limits.min_part).min(limits.max_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn limits() -> ObjectFeaturesView {
        ObjectFeaturesView {
            backend: "s".to_owned(),
            kind: "s3".to_owned(),
            abilities: Vec::new(),
            max_object: 5 << 40,
            max_put: 5 * GIB,
            max_piece: 64 << 20,
            min_part: 5 * MIB,
            max_part: 5 * GIB,
            max_parts: 10_000,
            max_page: 1000,
            max_bulk_delete: 1000,
            max_sign_secs: 604_800,
        }
    }

    #[test]
    fn parts_grow_with_the_object_and_never_are_too_many() {
        let cut = |size| for_writing(size, None, &limits()).unwrap();
        assert_eq!(cut(0), None);
        assert_eq!(cut(16 * MIB), None);
        assert_eq!(cut(16 * MIB + 1), Some(Cut { size: 16 * MIB + 1, part: 16 * MIB }));
        assert_eq!(cut(GIB).unwrap().count(), 64);
        for size in [10_000 * 16 * MIB, 10_000 * 16 * MIB + 1, 5 << 40, (5 << 40) - 7] {
            let cut = cut(size).unwrap();
            assert!(cut.count() <= 10_000, "{size}: {cut:?}");
            assert!(cut.part.is_multiple_of(MIB), "{cut:?}");
        }
        assert!(for_writing((5 << 40) + 1, None, &limits()).is_err());
    }

    #[test]
    fn the_stores_limits_hold() {
        let few = ObjectFeaturesView { max_parts: 10, ..limits() };
        assert_eq!(for_writing(GIB, None, &few).unwrap().unwrap().part, 103 * MIB);
        let small =
            ObjectFeaturesView { max_part: 4 * MIB, min_part: 1, max_parts: 10, ..limits() };
        assert_eq!(for_writing(39 * MIB, None, &small).unwrap().unwrap().count(), 10);
        assert!(for_writing(41 * MIB, None, &small).is_err());
        let little = ObjectFeaturesView { max_put: MIB, ..limits() };
        assert_eq!(for_writing(2 * MIB, None, &little).unwrap().unwrap().count(), 1);
        assert!(for_writing(GIB, Some(MIB), &limits()).is_err());
        assert_eq!(for_writing(64 * MIB, Some(GIB), &limits()).unwrap().unwrap().count(), 1);
        assert!(for_writing(100_000 * MIB, Some(5 * MIB), &limits()).is_err());
        assert_eq!(for_writing(GIB, Some(5 * MIB), &limits()).unwrap().unwrap().count(), 205);
    }

    #[test]
    fn parts_cover_every_byte_once() {
        for (size, part) in [(1, 1), (10, 3), (9, 3), (3, 10), (0, 4)] {
            let cut = Cut { size, part };
            let mut at = 0;
            for index in 0..cut.count() {
                let (first, len) = cut.at(index);
                assert_eq!(first, at);
                assert!(len > 0);
                at += len;
            }
            assert_eq!(at, size);
        }
    }

    #[test]
    fn ranges_are_cut_without_limits_of_parts() {
        assert_eq!(for_reading(GIB, None).count(), 64);
        assert!(for_reading(5 << 40, None).count() <= 10_000);
        assert_eq!(for_reading(10, Some(3)), Cut { size: 10, part: MIB });
        assert_eq!(for_reading(0, None).count(), 0);
    }
}
