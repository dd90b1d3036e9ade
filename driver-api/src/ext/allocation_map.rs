// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RVec};

use crate::{Error, ErrorKind, Op, OpContext};

/// Where a volume has data.
pub trait AllocationMap: Send + Sync {
    /// The extents of `len` bytes at `offset`, in order and without gaps; at most `limit` of them, so that the list may end early but is
    /// never empty. `[any thread · volume attached]`
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>>;

    /// Where two pictures of the volume differ, in `len` bytes at `offset`: the snapshot `from`, or nothing but zeros if it
    /// is empty; and the snapshot `to`, or the volume as it is now if that is empty.
    ///
    /// - Past its end a picture counts as zeros, so that sizes may differ. The range lies inside `to`: `OutOfRange` otherwise.
    /// - Every byte that differs is in an extent; an extent may have bytes that do not. One flagged
    ///   [`ExtentFlags::ZERO`] reads zeros in `to`; what others hold is to be read there.
    /// - Extents are in order, do not overlap, and lie inside the range; between them nothing differs.
    /// - There are at most `limit` of them (not zero). **The list may end early, but not if it is empty**: the caller asks
    ///   again from the last extent's end on, until that is the range's end or nothing comes back.
    /// - With `to` empty, writes that are not acknowledged before the call may be missed.
    ///
    /// A snapshot that is not there: `NotFound`. `from` taken later than `to`: `InvalidArgument`. Needs
    /// [`Abilities::CHANGES`](crate::Abilities::CHANGES). Since 1.3. `[any thread · volume attached]`
    fn changes(
        &self,
        _cx: &OpContext,
        _from: &str,
        _to: &str,
        _offset: u64,
        _len: u64,
        _limit: u32,
    ) -> Op<RVec<Extent>> {
        Op::err(no_changes())
    }
}

/// What a driver from before 1.3 answers, and one that cannot compare.
pub(crate) fn no_changes() -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot tell what changed between snapshots")
        .during("changes")
        .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}

/// What is known of an extent.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExtentFlags(u32);

impl ExtentFlags {
    /// Allocated data.
    pub const DATA: Self = Self(0);
    /// It occupies no space.
    pub const HOLE: Self = Self(1);
    /// It reads zeros.
    pub const ZERO: Self = Self(2);

    /// Whether all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags' bits: those of NBD's `base:allocation`.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// A run of bytes of one kind.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes, not zero.
    pub len: u64,
    /// What is known of it.
    pub flags: ExtentFlags,
}
