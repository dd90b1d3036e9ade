// SPDX-License-Identifier: Apache-2.0
//! A room of the state: every key gets a prefix on the way in and loses it on the way out.

use driver_api::{
    Op, ROption, RString, RVec, Result, StateHandle, StateService, WatchHandle, WatchService,
    state::{Batch, Committed, Entry, Mutation, Transaction},
};

use super::limits;

/// The part of `state` below `prefix`, as if it were the whole. Revisions and leases are those of the whole.
///
/// A prefix that does not end with `/` gets one, so that `nas1` does not see into `nas10`.
pub fn scoped(state: StateHandle, prefix: &str) -> StateHandle {
    let mut prefix = prefix.to_owned();
    if !prefix.is_empty() && !prefix.ends_with('/') {
        prefix.push('/');
    }
    StateHandle::new(Scoped { state, prefix })
}

struct Scoped {
    state: StateHandle,
    prefix: String,
}

impl Scoped {
    fn outside(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn strip(&self) -> impl Fn(&mut Entry) + Send + 'static {
        let prefix = self.prefix.clone();
        move |entry| strip(&prefix, entry)
    }
}

fn strip(prefix: &str, entry: &mut Entry) {
    if let Some(inside) = entry.key.strip_prefix(prefix) {
        entry.key = RString::from(inside);
    }
}

impl StateService for Scoped {
    fn get(&self, key: &str) -> Op<ROption<Entry>> {
        if let Err(error) = limits::check_key(key) {
            return Op::err(error);
        }
        let strip = self.strip();
        self.state.get(&self.outside(key)).map(move |found| {
            found.map(|found| {
                found.map(|mut entry| {
                    strip(&mut entry);
                    entry
                })
            })
        })
    }

    fn range(&self, prefix: &str, after: &str, limit: u32) -> Op<RVec<Entry>> {
        let after = if after.is_empty() { String::new() } else { self.outside(after) };
        let strip = self.strip();
        self.state.range(&self.outside(prefix), &after, limit).map(move |entries| {
            entries.map(|mut entries| {
                entries.iter_mut().for_each(strip);
                entries
            })
        })
    }

    fn commit(&self, mut transaction: Transaction) -> Op<Committed> {
        // Checked as the caller wrote it: an empty key is refused before the prefix would hide it.
        if let Err(error) = limits::check_transaction(&transaction) {
            return Op::err(error);
        }
        for compare in transaction.compares.iter_mut() {
            compare.key = self.outside(&compare.key).into();
        }
        for mutation in transaction.mutations.iter_mut() {
            match mutation {
                Mutation::Put { key, .. } | Mutation::Delete { key } => {
                    *key = self.outside(key).into();
                }
            }
        }
        let strip = self.strip();
        self.state.commit(transaction).map(move |committed| {
            committed.map(|mut committed| {
                committed.current.iter_mut().for_each(strip);
                committed
            })
        })
    }

    fn watch(&self, prefix: &str, after_revision: u64) -> Result<WatchHandle> {
        let watch = self.state.watch(&self.outside(prefix), after_revision)?;
        Ok(WatchHandle::new(ScopedWatch { watch, prefix: self.prefix.clone() }))
    }

    fn grant_lease(&self, ttl_ms: u64) -> Op<u64> {
        self.state.grant_lease(ttl_ms)
    }

    fn keep_lease(&self, lease: u64) -> Op<()> {
        self.state.keep_lease(lease)
    }

    fn revoke_lease(&self, lease: u64) -> Op<()> {
        self.state.revoke_lease(lease)
    }
}

struct ScopedWatch {
    watch: WatchHandle,
    prefix: String,
}

impl WatchService for ScopedWatch {
    fn next(&self) -> Op<Batch> {
        let prefix = self.prefix.clone();
        self.watch.next().map(move |batch| {
            batch.map(|mut batch| {
                batch.events.iter_mut().for_each(|event| strip(&prefix, &mut event.entry));
                batch
            })
        })
    }
}
