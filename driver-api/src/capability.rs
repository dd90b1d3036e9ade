// SPDX-License-Identifier: Apache-2.0
//! What a backend can do, as data. The host asks here and never guesses from an error.

use std::{fmt, ops::BitOr};

use abi_stable::StableAbi;

/// A set of abilities. Unknown bits come from a newer driver and are kept.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities(u64);

macro_rules! abilities {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl Abilities {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Every ability this version names, with its name.
            pub const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

abilities! {
    /// Volumes can be written.
    WRITE = 0, "write";
    /// A write with FUA is durable once acknowledged, without a flush of everything.
    FUA = 1, "fua";
    /// [`Volume::discard`](crate::Volume::discard) frees space and leaves zeros.
    DISCARD = 2, "discard";
    /// [`Volume::write_zeroes`](crate::Volume::write_zeroes) is there.
    WRITE_ZEROES = 3, "write-zeroes";
    /// Writing zeros is quicker than writing data.
    FAST_ZERO = 4, "fast-zero";
    /// [`ext::Resize`](crate::ext::Resize), to a larger size.
    GROW = 5, "grow";
    /// [`ext::Resize`](crate::ext::Resize), to a smaller size.
    SHRINK = 6, "shrink";
    /// [`ext::Snapshots`](crate::ext::Snapshots).
    SNAPSHOT = 7, "snapshot";
    /// [`ext::Snapshots::rollback`](crate::ext::Snapshots::rollback).
    ROLLBACK = 8, "rollback";
    /// [`ext::Clones`](crate::ext::Clones).
    CLONE = 9, "clone";
    /// [`ext::AllocationMap`](crate::ext::AllocationMap).
    ALLOCATION_MAP = 10, "allocation-map";
    /// [`ext::Commands`](crate::ext::Commands).
    COMMANDS = 11, "commands";
    /// Several readers may be attached at once.
    SHARED_READ = 12, "shared-read";
    /// Volumes survive the process. A driver without it says so here, and is not asked for crash safety.
    PERSISTENT = 13, "persistent";
    /// [`Volume::prefetch`](crate::Volume::prefetch). Since 1.1.
    PREFETCH = 14, "prefetch";
    /// [`ext::Sessions`](crate::ext::Sessions). Since 1.3.
    SESSIONS = 15, "sessions";
    /// [`ext::Clones::flatten`](crate::ext::Clones::flatten). Since 1.3.
    FLATTEN = 16, "flatten";
    /// [`ext::AllocationMap::changes`](crate::ext::AllocationMap::changes). Since 1.3.
    CHANGES = 17, "changes";
    /// [`Backend::rename`](crate::Backend::rename). Since 1.3.
    RENAME = 18, "rename";
    /// [`ext::Snapshots::protect`](crate::ext::Snapshots::protect). Since 1.3.
    PROTECT = 19, "protect";
    /// [`ext::Objects`](crate::ext::Objects). Without [`WRITE`](Self::WRITE) the backend has no volumes: it lists none, and
    /// refuses to make or attach one with `Unsupported`. Since 1.3.
    OBJECTS = 32, "objects";
    /// Reserved for network shares and their mounts.
    SHARES = 33, "shares";
    /// [`ext::Cluster`](crate::ext::Cluster). Since 1.2.
    CLUSTER = 34, "cluster";
}

impl Abilities {
    /// No ability.
    pub const NONE: Self = Self(0);

    /// The set with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The set's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether every ability of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the abilities of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether a backend with these abilities has volumes: one with [`OBJECTS`](Self::OBJECTS) and without
    /// [`WRITE`](Self::WRITE) has only objects. Since 1.3.
    pub const fn has_volumes(self) -> bool {
        self.has(Self::WRITE) || !self.has(Self::OBJECTS)
    }

    /// The names of the abilities in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().filter(move |(ability, _)| self.has(*ability)).map(|(_, name)| *name)
    }
}

impl BitOr for Abilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl fmt::Debug for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// How a backend keeps a deposed writer's late writes away from its storage.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq)]
pub struct Fencing(u32);

impl Fencing {
    /// It cannot. Attaching from several hosts must be forced by the operator.
    pub const NONE: Self = Self(0);
    /// A lock that the storage enforces and can revoke.
    pub const EXCLUSIVE_LOCK: Self = Self(1);
    /// Every object is named by its writer's epoch.
    pub const EPOCH_NAMESPACE: Self = Self(2);

    /// The value's name, as configuration and reports show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::EXCLUSIVE_LOCK => "exclusive_lock",
            Self::EPOCH_NAMESPACE => "epoch_namespace",
            _ => "unknown",
        }
    }
}

impl fmt::Debug for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a backend, or an open volume, can do and within which limits.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Capabilities {
    /// What can be done.
    pub abilities: Abilities,
    /// How deposed writers are kept away.
    pub fencing: Fencing,
    /// Offsets and lengths must be multiples of this, in bytes; a power of two, 1 for no limit.
    pub min_block: u32,
    /// Offsets and lengths should be multiples of this, in bytes, for speed.
    pub preferred_block: u32,
    /// No read or write may be longer, in bytes.
    pub max_io: u32,
    /// No volume may be larger, in bytes.
    pub max_volume_size: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl Capabilities {
    /// These abilities, no fencing, and limits that suit a disk: blocks of 1 byte, preferably 4 KiB, I/O up to 32 MiB.
    pub const fn new(abilities: Abilities) -> Self {
        Self {
            abilities,
            fencing: Fencing::NONE,
            min_block: 1,
            preferred_block: 4096,
            max_io: 32 << 20,
            max_volume_size: i64::MAX as u64,
            reserved: [0; 4],
        }
    }

    /// Whether every one of `abilities` is there.
    pub const fn has(&self, abilities: Abilities) -> bool {
        self.abilities.has(abilities)
    }
}
