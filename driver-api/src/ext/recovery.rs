// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Error, ErrorKind};

/// What became of a volume whose recovery was asked for. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecoveryOutcome(u32);

impl RecoveryOutcome {
    /// It, or what the state lacked of it, was made anew.
    pub const RECOVERED: Self = Self(0);
    /// It would be, without `dry_run`.
    pub const WOULD_RECOVER: Self = Self(1);
    /// It was not, for the reason given; nothing was changed.
    pub const REFUSED: Self = Self(2);
    /// The state knows it.
    pub const PRESENT: Self = Self(3);

    /// The outcome's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RECOVERED => "recovered",
            Self::WOULD_RECOVER => "would be recovered",
            Self::REFUSED => "refused",
            Self::PRESENT => "present already",
            _ => "unknown",
        }
    }
}

/// A brick of a volume, and where it is. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct BrickPlace {
    /// The node's name; its number, such as `node 2`, if the name is lost.
    pub node: RString,
    /// The name of the brick, a volume of the node's backend.
    pub brick: RString,
    /// The name of the volume of that backend which says whose the brick is.
    pub companion: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What recovery found of a volume, and did. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct RecoveredVolume {
    /// The volume's name.
    pub name: RString,
    /// A number that no other volume has, also not one that had the name before.
    pub identity: u64,
    /// The newest generation that was found, as text.
    pub generation: RString,
    /// The volume's size in bytes.
    pub size: u64,
    /// Its bricks that were found, also those that it does not need any more.
    pub found: RVec<BrickPlace>,
    /// Its bricks that were not found.
    pub missing: RVec<BrickPlace>,
    /// What became of it.
    pub outcome: RecoveryOutcome,
    /// Why it was refused, what may be lost, or what is to be done next; empty where there is nothing to say.
    pub reason: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What a driver from before 1.3 answers, and one that cannot recover.
pub(crate) fn no_recovery() -> Error {
    Error::new(
        ErrorKind::UNSUPPORTED,
        "the driver cannot make volumes anew from what their bricks say of themselves",
    )
    .during("recover")
    .remedy("install a version of the driver that can: one built with driver-api 1.3 or later")
}
