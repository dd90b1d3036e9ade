// SPDX-License-Identifier: Apache-2.0
use std::{fmt, ops::BitOr};

use abi_stable::{StableAbi, std_types::RString};

/// What an object store can do beyond the least. Unknown bits come from a newer driver and are kept. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectAbilities(u64);

macro_rules! object_abilities {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $text:literal;)*) => {
        impl ObjectAbilities {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Every ability that this version names, with its name.
            pub const NAMED: &'static [(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

object_abilities! {
    /// Buckets are created and deleted.
    BUCKETS = 0, "buckets";
    /// [`Objects::set_versioning`](super::Objects::set_versioning), and versions can be listed, read and deleted.
    VERSIONING = 1, "versioning";
    /// [`Objects::policy`](super::Objects::policy).
    POLICY = 2, "policy";
    /// Lifecycle rules that expire objects.
    EXPIRE_RULES = 3, "expire-rules";
    /// Lifecycle rules that give up stale uploads.
    ABORT_RULES = 4, "abort-rules";
    /// Lifecycle rules that move objects to another storage class.
    TRANSITION_RULES = 5, "transition-rules";
    /// An object can be given a time at which it goes.
    OBJECT_EXPIRY = 6, "object-expiry";
    /// A write under `if_none_match = "*"` makes a new object or none.
    CREATE_ONLY = 7, "create-only";
    /// A write under `if_match` replaces just that object or none.
    UPDATE = 8, "update";
    /// A deletion under `if_match`.
    CONDITIONAL_DELETE = 9, "conditional-delete";
    /// Objects have tags.
    TAGS = 10, "tags";
    /// The metadata of an object can be changed.
    CHANGE_METADATA = 11, "change-metadata";
    /// Objects have storage classes.
    STORAGE_CLASSES = 12, "storage-classes";
    /// URLs can be signed.
    SIGN = 13, "sign";
    /// URLs for parts of an upload can be signed.
    SIGN_PARTS = 14, "sign-parts";
    /// Many objects are deleted by one request.
    BULK_DELETE = 15, "bulk-delete";
    /// Unfinished uploads can be listed.
    LIST_UPLOADS = 16, "list-uploads";
    /// An upload is completed under `if_none_match = "*"`; without it, only a write at once can be create-only.
    CREATE_ONLY_COMPLETE = 17, "create-only-complete";
    /// An upload is completed under `if_match`; without it, only a write at once can replace just that object.
    UPDATE_COMPLETE = 18, "update-complete";
    /// [`Objects::open_read`](super::Objects::open_read).
    STREAM = 19, "stream";
}

impl ObjectAbilities {
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

    /// The names of the abilities in this set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMED.iter().filter(move |(ability, _)| self.has(*ability)).map(|(_, name)| *name)
    }
}

impl BitOr for ObjectAbilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

impl fmt::Debug for ObjectAbilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What an object store can do, and its limits. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectFeatures {
    /// The kind of store, such as `s3` or `swift`.
    pub kind: RString,
    /// What it can do.
    pub abilities: ObjectAbilities,
    /// The largest object, in bytes.
    pub max_object: u64,
    /// The most bytes of a [`put`](super::Objects::put).
    pub max_put: u64,
    /// The most bytes of a [`get`](super::Objects::get).
    pub max_piece: u32,
    /// The least bytes of a part that is not an upload's last.
    pub min_part: u64,
    /// The most bytes of a part.
    pub max_part: u64,
    /// The most parts, and the highest number of one.
    pub max_parts: u32,
    /// The most entries of a page.
    pub max_page: u32,
    /// The most names of a [`delete_many`](super::Objects::delete_many).
    pub max_bulk_delete: u32,
    /// The longest time for which a URL can be signed, in seconds.
    pub max_sign_secs: u64,
    /// Zero in this version.
    pub reserved: [u64; 8],
}
