// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec, Tuple2},
};

/// Whether a bucket keeps the versions of its objects. Since 1.3.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Versioning(u32);

impl Versioning {
    /// Nobody asked, or the store does not say.
    pub const UNKNOWN: Self = Self(0);
    /// It never did.
    pub const OFF: Self = Self(1);
    /// It does.
    pub const ON: Self = Self(2);
    /// It did, and keeps what it has.
    pub const SUSPENDED: Self = Self(3);

    /// The value's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::OFF => "off",
            Self::ON => "on",
            Self::SUSPENDED => "suspended",
            _ => "unknown",
        }
    }
}

/// A bucket to be created. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSpec {
    /// Its name.
    pub name: RString,
    /// Where it is to be; empty: where the backend's configuration says.
    pub region: RString,
    /// Whether it keeps versions from the beginning.
    pub versioning: bool,
    /// The store's own options, such as `storage_class`; an unknown one is refused.
    pub options: RVec<Tuple2<RString, RString>>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl BucketSpec {
    /// A bucket of this name, with nothing else said.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// A bucket. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its name.
    pub name: RString,
    /// When it was created, in milliseconds since 1970; 0: the store does not say.
    pub created_ms: u64,
    /// Where it is; empty: the store does not say.
    pub region: RString,
    /// Whether it keeps versions.
    pub versioning: Versioning,
    /// How many objects it has; `u64::MAX`: the store does not say.
    pub objects: u64,
    /// Their bytes; `u64::MAX`: the store does not say.
    pub bytes: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl BucketInfo {
    /// A bucket of which nothing but its name is known.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), objects: u64::MAX, bytes: u64::MAX, ..Self::default() }
    }
}
