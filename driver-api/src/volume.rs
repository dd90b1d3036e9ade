// SPDX-License-Identifier: Apache-2.0
//! A volume: a block device of a backend.

use std::sync::Arc;

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

use crate::{Capabilities, IoBuf, Op, OpContext, Stats, ext};

/// How a write is to be done. Unknown bits are refused with `InvalidArgument`.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteFlags(u32);

impl WriteFlags {
    /// Nothing special.
    pub const NONE: Self = Self(0);
    /// Durable once acknowledged.
    pub const FUA: Self = Self(1);
    /// `write_zeroes` only: the range must stay allocated.
    pub const NO_HOLE: Self = Self(2);
    /// `write_zeroes` only: fail with `Unsupported` where it would not be quicker than writing data.
    pub const FAST_ONLY: Self = Self(4);

    /// Every flag that this version names.
    pub const ALL: Self = Self(7);

    /// Whether all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The flags' bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// An attached volume: reads and writes at byte offsets, under the promises of the crate's front page.
///
/// Every method is `[any thread · volume attached]`: called concurrently, from host threads that must not be held.
/// Answer at once with [`Op::ok`] where the data is at hand, otherwise return [`Op::run`]. Before a method is called,
/// this crate has refused ranges outside the volume or against [`Capabilities`], unknown flags, mutations of a
/// read-only attachment, and operations whose ability is not declared.
///
/// The type is a cheap handle: clone it into the futures.
pub trait Volume: Clone + Send + Sync + 'static {
    /// Size in bytes, now. Must not block.
    fn size(&self) -> u64;

    /// What this volume can do; a subset of its backend's capabilities. Must not block.
    fn capabilities(&self) -> Capabilities;

    /// Reads `len` bytes at `offset`. The reply has exactly `len` bytes.
    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf>;

    /// Writes `data` at `offset`. Once acknowledged, every later read sees it.
    fn write(&self, cx: &OpContext, offset: u64, data: IoBuf, flags: WriteFlags) -> Op<()>;

    /// Makes every write acknowledged before the call durable; fails for ever after acknowledged writes were lost.
    fn flush(&self, cx: &OpContext) -> Op<()>;

    /// Frees `len` bytes at `offset`; they read zeros. Needs [`Abilities::DISCARD`](crate::Abilities::DISCARD).
    fn discard(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        let _ = (cx, offset, len);
        Op::err(ext::unsupported("discard"))
    }

    /// Writes zeros. Needs [`Abilities::WRITE_ZEROES`](crate::Abilities::WRITE_ZEROES).
    fn write_zeroes(&self, cx: &OpContext, offset: u64, len: u64, flags: WriteFlags) -> Op<()> {
        let _ = (cx, offset, len, flags);
        Op::err(ext::unsupported("write_zeroes"))
    }

    /// Asks for a range to be at hand soon; changes nothing that can be read. Since 1.1.
    /// Needs [`Abilities::PREFETCH`](crate::Abilities::PREFETCH).
    fn prefetch(&self, cx: &OpContext, offset: u64, len: u64) -> Op<()> {
        let _ = (cx, offset, len);
        Op::err(ext::unsupported("prefetch"))
    }

    /// Ends the attachment: returns once all operations ended and everything acknowledged is durable.
    fn detach(&self, cx: &OpContext) -> Op<()>;

    /// Usage, performance and health of this volume. Must not block.
    fn stats(&self) -> Stats {
        Stats::new()
    }

    /// Number of the storage's life: it changes when unflushed writes may have been lost. Must not block.
    fn incarnation(&self) -> u64 {
        0
    }

    /// Snapshots, if the volume has them.
    fn snapshots(&self) -> Option<Arc<dyn ext::Snapshots>> {
        None
    }

    /// Resizing, if the volume has it.
    fn resize(&self) -> Option<Arc<dyn ext::Resize>> {
        None
    }

    /// The allocation map, if the volume has one.
    fn allocation_map(&self) -> Option<Arc<dyn ext::AllocationMap>> {
        None
    }

    /// Sessions, if the volume has them. Since 1.3. Needs [`Abilities::SESSIONS`](crate::Abilities::SESSIONS).
    fn sessions(&self) -> Option<Arc<dyn ext::Sessions<Self>>> {
        None
    }
}

/// What a volume to be created shall be.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct VolumeSpec {
    /// The name: 1 to 128 of `A-Z a-z 0-9 . _ -`, not beginning with a dot or hyphen; the host checks it.
    pub name: RString,
    /// Size in bytes.
    pub size: u64,
    /// Hint: keep each run of this many bytes apart, in bytes; zero for none.
    pub extent_size: u64,
    /// Options of the driver's own for this volume, such as `("format", "qcow2")`; unknown ones are refused.
    pub options: RVec<Tuple2<RString, RString>>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl VolumeSpec {
    /// A volume of this name and size in bytes, without further wishes.
    pub fn new(name: &str, size: u64) -> Self {
        Self { name: name.into(), size, extent_size: 0, options: RVec::new(), reserved: [0; 4] }
    }

    /// Adds an option of the driver's own.
    pub fn option(mut self, key: &str, value: &str) -> Self {
        self.options.push(Tuple2(key.into(), value.into()));
        self
    }
}

/// What a backend knows of a volume.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// The name.
    pub name: RString,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it occupies in the backend, without its snapshots.
    pub used: u64,
    /// Facts of the driver's own, such as `("format", "raw")`.
    pub labels: RVec<Tuple2<RString, RString>>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl VolumeInfo {
    /// A volume of this name, size and use in bytes.
    pub fn new(name: &str, size: u64, used: u64) -> Self {
        Self { name: name.into(), size, used, labels: RVec::new(), reserved: [0; 4] }
    }

    /// Adds a fact.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push(Tuple2(key.into(), value.into()));
        self
    }
}
