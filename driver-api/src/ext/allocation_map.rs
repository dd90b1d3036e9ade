// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RVec};

use crate::{Op, OpContext};

/// Where a volume has data.
pub trait AllocationMap: Send + Sync {
    /// The extents of `len` bytes at `offset`, in order and without gaps; at most `limit` of them, so that the list may end early but is
    /// never empty. `[any thread · volume attached]`
    fn extents(&self, cx: &OpContext, offset: u64, len: u64, limit: u32) -> Op<RVec<Extent>>;
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
