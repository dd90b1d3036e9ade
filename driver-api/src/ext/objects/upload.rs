// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

/// An object that is written in parts, and not finished. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadInfo {
    /// The bucket.
    pub bucket: RString,
    /// The key that the object will have.
    pub key: RString,
    /// The store's name for it: printable text.
    pub id: RString,
    /// [`PutOptions::mark`](super::PutOptions::mark) of its begin; empty where it is not known, as in a listing.
    pub mark: RString,
    /// When it was begun, in milliseconds since 1970; 0: the store does not say.
    pub started_ms: u64,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A part of an upload. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number, from 1.
    pub number: u32,
    /// Its bytes.
    pub size: u64,
    /// The store's name for its content.
    pub etag: RString,
    /// A sum over its content that the store knows, as in [`ObjectInfo::checksum`](super::ObjectInfo::checksum).
    pub checksum: RString,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

/// A page of an upload's parts. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct PartPage {
    /// The parts, by number.
    pub parts: RVec<PartInfo>,
    /// Whether there are more, after the last one of these.
    pub more: bool,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

/// Which uploads of a bucket to list. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadQuery {
    /// Only those of keys that begin with this.
    pub prefix: RString,
    /// [`UploadPage::next`] of the page before; empty: the first page.
    pub page: RString,
    /// At most so many, from 1; the store may give fewer before the end.
    pub limit: u32,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A page of uploads. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadPage {
    /// The uploads, by key.
    pub uploads: RVec<UploadInfo>,
    /// What [`UploadQuery::page`] needs for the next page; empty: there is none.
    pub next: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}
