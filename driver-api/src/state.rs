// SPDX-License-Identifier: Apache-2.0
//! The key-value service that the host owns and lends: small, transactional, watchable.
//!
//! It holds membership, generations and names, never anything that changes with each write of data.
//! Limits that every engine keeps: keys up to 1 KiB, at most [`MAX_OPERATIONS`] compares and mutations and
//! [`MAX_BYTES`] in a transaction.

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

/// Compares and mutations that one transaction may hold together.
pub const MAX_OPERATIONS: usize = 100;
/// Bytes of keys and values that one transaction may hold together.
pub const MAX_BYTES: usize = 1 << 20;
/// Bytes of a key.
pub const MAX_KEY: usize = 1 << 10;

/// A key with its value, as of one revision.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, parts separated by `/`.
    pub key: RString,
    /// The value.
    pub value: RVec<u8>,
    /// The store's revision at which this value was written; never zero.
    pub revision: u64,
    /// The lease that the entry ends with; zero for none.
    pub lease: u64,
}

/// A condition of a transaction.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The key.
    pub key: RString,
    /// The revision that its entry must have; zero: there must be none.
    pub revision: u64,
}

/// A change of a transaction.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Writes an entry.
    Put {
        /// The key.
        key: RString,
        /// The value.
        value: RVec<u8>,
        /// The lease that the entry ends with; zero for none.
        lease: u64,
    },
    /// Removes an entry; removing none is no failure.
    Delete {
        /// The key.
        key: RString,
    },
}

/// Changes that happen all or not at all, if every compare holds.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The conditions.
    pub compares: RVec<Compare>,
    /// The changes; a key may occur once.
    pub mutations: RVec<Mutation>,
}

impl Transaction {
    /// A transaction without conditions and changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition: `key` has this revision; zero: it is absent.
    pub fn expect(mut self, key: &str, revision: u64) -> Self {
        self.compares.push(Compare { key: key.into(), revision });
        self
    }

    /// Adds a write without lease.
    pub fn put(self, key: &str, value: &[u8]) -> Self {
        self.put_leased(key, value, 0)
    }

    /// Adds a write that ends with `lease`.
    pub fn put_leased(mut self, key: &str, value: &[u8], lease: u64) -> Self {
        self.mutations.push(Mutation::Put { key: key.into(), value: value.into(), lease });
        self
    }

    /// Adds a removal.
    pub fn delete(mut self, key: &str) -> Self {
        self.mutations.push(Mutation::Delete { key: key.into() });
        self
    }
}

/// What became of a transaction.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Whether every compare held and the changes were made, durably.
    pub succeeded: bool,
    /// The store's revision after it.
    pub revision: u64,
    /// If not: the entries of the compared keys as they are; absent keys are missing.
    pub current: RVec<Entry>,
}

/// A change that a watch saw.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The entry; of a removed one the key and revision, with an empty value.
    pub entry: Entry,
    /// Whether the entry was removed.
    pub removed: bool,
}

/// What a watch delivers at once.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The changes, oldest first.
    pub events: RVec<Event>,
    /// The revision up to which the watch has now seen everything.
    pub revision: u64,
    /// Changes before `revision` were compacted away: read the range again, then go on from here.
    pub compacted: bool,
}
