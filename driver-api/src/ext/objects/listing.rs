// SPDX-License-Identifier: Apache-2.0
use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use super::ObjectInfo;

/// Which objects of a bucket to list. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin with this.
    pub prefix: RString,
    /// Keys that have this after the prefix are told once, as a common prefix up to it; empty: none are.
    pub delimiter: RString,
    /// Only keys after this one, in the order of bytes; not together with `page`.
    pub after: RString,
    /// [`ListPage::next`] of the page before; empty: the first page.
    pub page: RString,
    /// At most so many entries, from 1; the store may give fewer before the end.
    pub limit: u32,
    /// Versions too, those that are not the latest and the markers of deletions.
    pub versions: bool,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// A page of a listing. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// Objects; which of their fields a listing tells is the store's.
    pub objects: RVec<ObjectInfo>,
    /// Common prefixes, up to and with the delimiter.
    pub prefixes: RVec<RString>,
    /// What [`ListQuery::page`] needs for the next page; empty: there is none.
    pub next: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}
