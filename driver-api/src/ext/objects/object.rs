// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{ROption, RString, RVec, Tuple2},
};

use crate::{ErrorKind, IoBuf};

/// An object, or a version of it. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectName {
    /// The bucket.
    pub bucket: RString,
    /// The key: 1 to 1024 bytes of UTF-8.
    pub key: RString,
    /// The version; empty: the latest.
    pub version: RString,
}

impl ObjectName {
    /// The latest version of an object.
    pub fn new(bucket: &str, key: &str) -> Self {
        Self { bucket: bucket.into(), key: key.into(), version: RString::new() }
    }
}

/// When an operation is to be done. Unset ones, empty or 0, always hold. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The object has this ETag.
    pub if_match: RString,
    /// The object does not have this ETag; `*`: there is no object, which makes a write create-only.
    pub if_none_match: RString,
    /// It was changed after this second since 1970; for reading only.
    pub if_modified_since: u64,
    /// It was not changed after this second since 1970; for reading only.
    pub if_unmodified_since: u64,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

impl Conditions {
    /// Only if there is no object of that name.
    pub fn create_only() -> Self {
        Self { if_none_match: "*".into(), ..Self::default() }
    }

    /// Only if the object has this ETag.
    pub fn matching(etag: &str) -> Self {
        Self { if_match: etag.into(), ..Self::default() }
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known of an object. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its key.
    pub key: RString,
    /// Its version; empty: the store does not say.
    pub version: RString,
    /// Its bytes.
    pub size: u64,
    /// What changes whenever its content does, without quotes.
    pub etag: RString,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: u64,
    /// When it will go, in milliseconds since 1970; 0: never, or the store does not say.
    pub expires_ms: u64,
    /// Its content type; empty: the store does not say.
    pub content_type: RString,
    /// Its storage class; empty: the usual one.
    pub storage_class: RString,
    /// A sum over the whole content that the store knows, such as `crc32c:` or `md5:` and the sum in lower-case
    /// hexadecimal digits; empty: it knows none.
    pub checksum: RString,
    /// What its writer said of it, and the headers of HTTP that go with it (`cache-control`, `content-encoding`,
    /// `content-disposition`, `content-language`): names in lower case. Listings tell none.
    pub metadata: RVec<Tuple2<RString, RString>>,
    /// Whether it is the latest version.
    pub latest: bool,
    /// Whether it is no object but the marker that the latest version was deleted.
    pub deleted: bool,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// Bytes of an object. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct ObjectPiece {
    /// The object that they are of.
    pub object: ObjectInfo,
    /// The place of the first one.
    pub offset: u64,
    /// The bytes.
    pub data: IoBuf,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

/// How an object is written. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// When to write it.
    pub conditions: Conditions,
    /// Its content type; empty: `application/octet-stream`.
    pub content_type: RString,
    /// What is to be said of it; names as in [`ObjectInfo::metadata`].
    pub metadata: RVec<Tuple2<RString, RString>>,
    /// Its tags.
    pub tags: RVec<Tuple2<RString, RString>>,
    /// Its storage class; empty: the usual one.
    pub storage_class: RString,
    /// It goes after so many seconds; 0: it stays.
    pub expire_after_secs: u64,
    /// 1 to 32 hexadecimal digits, which the writer draws by chance for each write and gives again when it repeats that
    /// write. The driver keeps them with the object and tells nobody; where a repeated write is refused by a condition,
    /// they prove whether it was the writer's own that came first. Empty: the driver draws a mark of its own, which proves
    /// only what it repeats itself.
    pub mark: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// How an object is copied. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// When to copy, by what the source is.
    pub source: Conditions,
    /// When to copy, by what the target is.
    pub target: Conditions,
    /// What is to be said of the target instead of what is said of the source.
    pub change: ObjectChange,
    /// See [`PutOptions::mark`].
    pub mark: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What is to be said of an object; what is absent stays. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectChange {
    /// Its content type.
    pub content_type: ROption<RString>,
    /// All of its metadata.
    pub metadata: ROption<RVec<Tuple2<RString, RString>>>,
    /// All of its tags.
    pub tags: ROption<RVec<Tuple2<RString, RString>>>,
    /// Its storage class.
    pub storage_class: ROption<RString>,
    /// It goes after so many seconds from now; 0: it stays.
    pub expire_after_secs: ROption<u64>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What became of an object that was to be deleted. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct DeleteOutcome {
    /// Whether it is gone.
    pub gone: bool,
    /// Why it is not.
    pub kind: ErrorKind,
    /// The same in words; empty if it is gone.
    pub reason: RString,
    /// Zero in this version.
    pub reserved: [u64; 2],
}
