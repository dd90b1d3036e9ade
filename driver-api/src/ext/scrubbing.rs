// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Error, ErrorKind};

/// How bad replicas were told. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DamageVerdict(u32);

impl DamageVerdict {
    /// The others have the digest of what was there at rest.
    pub const DIGEST: Self = Self(0);
    /// Without a digest: most replicas hold the same, of three or more.
    pub const MAJORITY: Self = Self(1);
    /// They differ, and nothing tells which is right: all are named.
    pub const UNDECIDED: Self = Self(2);
    /// All hold the same, and it is not what was there at rest.
    pub const EVERYWHERE: Self = Self(3);
    /// They cannot be read there, and others can.
    pub const UNREADABLE: Self = Self(4);

    /// The verdict's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DIGEST => "digest",
            Self::MAJORITY => "majority",
            Self::UNDECIDED => "undecided",
            Self::EVERYWHERE => "everywhere",
            Self::UNREADABLE => "unreadable",
            _ => "unknown",
        }
    }
}

/// What became of bad replicas. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DamageRepair(u32);

impl DamageRepair {
    /// Nothing: nobody asked for it, or nothing tells what is right.
    pub const LEFT: Self = Self(0);
    /// It is being done.
    pub const UNDER_WAY: Self = Self(1);
    /// They were given what a good replica has, and read it back.
    pub const VERIFIED: Self = Self(2);
    /// They could not be written, or do not read what was written.
    pub const FAILED: Self = Self(3);
    /// They were given it, and clients wrote there before it was read back.
    pub const UNVERIFIED: Self = Self(4);

    /// The repair's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LEFT => "left",
            Self::UNDER_WAY => "under-way",
            Self::VERIFIED => "verified",
            Self::FAILED => "failed",
            Self::UNVERIFIED => "unverified",
            _ => "unknown",
        }
    }
}

/// A range in which replicas are not what they must be. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Its first byte in the volume.
    pub offset: u64,
    /// Its length in bytes; some of them are bad.
    pub len: u64,
    /// How the bad replicas were told.
    pub verdict: DamageVerdict,
    /// What became of them.
    pub repair: DamageRepair,
    /// The nodes whose replicas are bad, or may be, in the volume's order.
    pub bad: RVec<RString>,
    /// The nodes whose replicas are good.
    pub good: RVec<RString>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A volume's scrub, under way or the last one. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbing {
    /// Whether it is under way.
    pub running: bool,
    /// Whether bad replicas are repaired.
    pub repairs: bool,
    /// When it was begun, in milliseconds since 1970; zero: there never was one.
    pub started_unix_millis: u64,
    /// Bytes that were looked at, or given up.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes whose replicas were compared.
    pub compared: u64,
    /// Bytes that were given up: they were written again and again, or no replica could be read.
    pub passed_over: u64,
    /// Bytes that have digests.
    pub digested: u64,
    /// How many ranges were found.
    pub found: u64,
    /// What was found, as many as are kept.
    pub findings: RVec<Damage>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What a driver from before 1.3 answers, and one that takes no digests.
pub(crate) fn no_scrubs(operation: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver cannot scrub volumes")
        .during(operation)
        .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}
