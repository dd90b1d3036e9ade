// SPDX-License-Identifier: Apache-2.0
//! What a context knows of a range.

use driver_api::ext::Extent;

/// What a context knows of a run of bytes; it begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status {
    /// Bytes, not zero.
    pub len: u64,
    /// The context's word on them.
    pub flags: u64,
}

/// `base:allocation` of `len` bytes at `offset`, as far as `extents` reach: they are in order, without gaps, and
/// begin at `offset` or before it. `None` if they do not.
pub fn allocation(extents: &[Extent], offset: u64, len: u64) -> Option<Vec<Status>> {
    let end = offset.checked_add(len)?;
    let mut statuses: Vec<Status> = Vec::with_capacity(extents.len());
    let mut at = offset;
    for extent in extents {
        let until = extent.offset.checked_add(extent.len)?.min(end);
        if until <= at && at < end {
            continue;
        }
        if extent.offset > at {
            return None;
        }
        let flags = u64::from(extent.flags.bits());
        match statuses.last_mut() {
            Some(last) if last.flags == flags => last.len += until - at,
            _ => statuses.push(Status { len: until - at, flags }),
        }
        at = until;
        if at == end {
            break;
        }
    }
    (!statuses.is_empty()).then_some(statuses)
}

#[cfg(test)]
mod tests {
    use driver_api::ext::ExtentFlags;

    use super::*;

    const HOLE: ExtentFlags = ExtentFlags::HOLE.and(ExtentFlags::ZERO);

    #[test]
    fn extents_become_runs_of_the_range() {
        let extent = |offset, len, flags| Extent { offset, len, flags };
        let extents = [
            extent(0, 4096, ExtentFlags::DATA),
            extent(4096, 4096, HOLE),
            extent(8192, 4096, HOLE),
            extent(12288, 4096, ExtentFlags::DATA),
        ];
        let runs = [Status { len: 7000, flags: 3 }, Status { len: 10, flags: 0 }];
        assert_eq!(allocation(&extents, 5288, 7010), Some(runs.to_vec()));
        assert_eq!(allocation(&extents[..3], 5288, 7010), Some(runs[..1].to_vec()), "ends early");
        assert_eq!(allocation(&extents[..1], 4096, 10), None, "nothing of the range");
        assert_eq!(allocation(&extents[2..], 4096, 9000), None, "a gap at the front");
        assert_eq!(allocation(&[], 0, 10), None);
    }
}
