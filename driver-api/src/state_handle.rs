// SPDX-License-Identifier: Apache-2.0
//! The key-value service as drivers hold it, and the traits behind which a host keeps its engine.

use std::fmt;

use abi_stable::{
    StableAbi,
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RVec},
};

use crate::{
    Error, Op, Result,
    abi::{RawState, RawState_TO, RawWatch, RawWatch_TO},
    state::{Batch, Committed, Entry, Transaction},
};

/// The key-value service. A cheap handle.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct StateHandle {
    raw: RawState_TO<'static, RArc<()>>,
}

impl Clone for StateHandle {
    fn clone(&self) -> Self {
        Self { raw: RawState_TO::from_sabi(self.raw.obj.shallow_clone()) }
    }
}

impl fmt::Debug for StateHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateHandle")
    }
}

impl StateHandle {
    /// The host's half: lends this engine. It must not panic.
    pub fn new(service: impl StateService) -> Self {
        Self { raw: RawState_TO::from_ptr(RArc::new(StateGlue(service)), TD_Opaque) }
    }

    /// The entry of `key`, if there is one.
    pub fn get(&self, key: &str) -> Op<ROption<Entry>> {
        self.raw.get(key.into())
    }

    /// Entries whose keys start with `prefix` and come after `after` (empty: from the first), by key, at most `limit`.
    pub fn range(&self, prefix: &str, after: &str, limit: u32) -> Op<RVec<Entry>> {
        self.raw.range(prefix.into(), after.into(), limit)
    }

    /// Does the transaction, durably, or nothing of it. A result of kind `TimedOut` means that the outcome is unknown.
    pub fn commit(&self, transaction: Transaction) -> Op<Committed> {
        self.raw.commit(transaction)
    }

    /// Watches keys that start with `prefix`, from after a revision; zero: from now.
    pub fn watch(&self, prefix: &str, after_revision: u64) -> Result<WatchHandle> {
        self.raw.watch(prefix.into(), after_revision).into()
    }

    /// Grants a lease that ends `ttl_ms` milliseconds after its last renewal. Its entries end with it.
    pub fn grant_lease(&self, ttl_ms: u64) -> Op<u64> {
        self.raw.grant_lease(ttl_ms)
    }

    /// Renews a lease; `NotFound` once it ended.
    pub fn keep_lease(&self, lease: u64) -> Op<()> {
        self.raw.keep_lease(lease)
    }

    /// Ends a lease now, with its entries.
    pub fn revoke_lease(&self, lease: u64) -> Op<()> {
        self.raw.revoke_lease(lease)
    }
}

/// A running watch; dropping it ends it.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct WatchHandle {
    raw: RawWatch_TO<'static, RArc<()>>,
}

impl WatchHandle {
    /// The host's half.
    pub fn new(watch: impl WatchService) -> Self {
        Self { raw: RawWatch_TO::from_ptr(RArc::new(WatchGlue(watch)), TD_Opaque) }
    }

    /// Waits for the next changes.
    pub fn next(&self) -> Op<Batch> {
        self.raw.next()
    }
}

impl fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchHandle")
    }
}

/// What a host's engine implements; the methods are those of [`StateHandle`].
pub trait StateService: Send + Sync + 'static {
    /// See [`StateHandle::get`].
    fn get(&self, key: &str) -> Op<ROption<Entry>>;
    /// See [`StateHandle::range`].
    fn range(&self, prefix: &str, after: &str, limit: u32) -> Op<RVec<Entry>>;
    /// See [`StateHandle::commit`].
    fn commit(&self, transaction: Transaction) -> Op<Committed>;
    /// See [`StateHandle::watch`].
    fn watch(&self, prefix: &str, after_revision: u64) -> Result<WatchHandle>;
    /// See [`StateHandle::grant_lease`].
    fn grant_lease(&self, ttl_ms: u64) -> Op<u64>;
    /// See [`StateHandle::keep_lease`].
    fn keep_lease(&self, lease: u64) -> Op<()>;
    /// See [`StateHandle::revoke_lease`].
    fn revoke_lease(&self, lease: u64) -> Op<()>;
}

/// What stands behind a [`WatchHandle`].
pub trait WatchService: Send + Sync + 'static {
    /// See [`WatchHandle::next`].
    fn next(&self) -> Op<Batch>;
}

struct StateGlue<S>(S);

impl<S: StateService> RawState for StateGlue<S> {
    fn get(&self, key: RStr<'_>) -> Op<ROption<Entry>> {
        self.0.get(key.as_str())
    }

    fn range(&self, prefix: RStr<'_>, after: RStr<'_>, limit: u32) -> Op<RVec<Entry>> {
        self.0.range(prefix.as_str(), after.as_str(), limit)
    }

    fn commit(&self, transaction: Transaction) -> Op<Committed> {
        self.0.commit(transaction)
    }

    fn watch(&self, prefix: RStr<'_>, after_revision: u64) -> RResult<WatchHandle, Error> {
        self.0.watch(prefix.as_str(), after_revision).into()
    }

    fn grant_lease(&self, ttl_ms: u64) -> Op<u64> {
        self.0.grant_lease(ttl_ms)
    }

    fn keep_lease(&self, lease: u64) -> Op<()> {
        self.0.keep_lease(lease)
    }

    fn revoke_lease(&self, lease: u64) -> Op<()> {
        self.0.revoke_lease(lease)
    }
}

struct WatchGlue<W>(W);

impl<W: WatchService> RawWatch for WatchGlue<W> {
    fn next(&self) -> Op<Batch> {
        self.0.next()
    }
}
