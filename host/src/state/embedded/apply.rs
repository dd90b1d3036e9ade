// SPDX-License-Identifier: Apache-2.0
//! State transactions on the tables of one redb transaction. A refused one has changed nothing.

use std::collections::BTreeSet;

use driver_api::{
    Error, ErrorKind, RVec, Result,
    state::{Committed, Entry, Event, Mutation, Transaction},
};
use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    format::{COUNTERS, ENTRIES, LAST_LEASE, LEASED, LEASES, REVISION},
    leases::LeaseChange,
};

/// Outside: the file failed. Inside: the caller was refused.
pub(super) type Applied<T> = Result<Result<T>, redb::Error>;

/// The tables of a redb transaction, and what happened to them so far.
pub(super) struct Tables<'t> {
    entries: Table<'t, &'static str, (u64, u64, &'static [u8])>,
    leases: Table<'t, u64, u64>,
    leased: Table<'t, (u64, &'static str), ()>,
    counters: Table<'t, &'static str, u64>,
    revision: u64,
    changes: Changes,
}

/// What a redb transaction did, to be made known once it is durable.
#[derive(Default)]
pub(super) struct Changes {
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
    pub(super) events: Vec<Event>,
    pub(super) leases: Vec<LeaseChange>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let counters = transaction.open_table(COUNTERS)?;
        let revision = counters.get(REVISION)?.map_or(1, |row| row.value());
        Ok(Self {
            entries: transaction.open_table(ENTRIES)?,
            leases: transaction.open_table(LEASES)?,
            leased: transaction.open_table(LEASED)?,
            counters,
            revision,
            changes: Changes::default(),
        })
    }

    /// The revision and the changes to publish.
    pub(super) fn finish(self) -> (u64, Changes) {
        (self.revision, self.changes)
    }

    fn entry(&self, key: &str) -> Result<Option<Entry>, redb::Error> {
        Ok(self.entries.get(key)?.map(|row| {
            let (revision, lease, value) = row.value();
            Entry { key: key.into(), value: value.into(), revision, lease }
        }))
    }

    /// Does `transaction`, which keeps the limits, if all its compares hold.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> Applied<Committed> {
        let mut holds = true;
        for compare in &transaction.compares {
            let found = self.entries.get(compare.key.as_str())?;
            holds &= compare.revision == found.map_or(0, |row| row.value().0);
        }
        if !holds {
            let keys: BTreeSet<&str> =
                transaction.compares.iter().map(|compare| compare.key.as_str()).collect();
            let mut current = RVec::new();
            for key in keys {
                current.extend(self.entry(key)?);
            }
            return Ok(Ok(Committed { succeeded: false, revision: self.revision, current }));
        }
        for mutation in &transaction.mutations {
            if let Mutation::Put { key, lease, .. } = mutation
                && *lease != 0
                && self.leases.get(*lease)?.is_none()
            {
                return Ok(Err(no_lease(*lease).with("key", key)));
            }
        }
        let revision = self.revision + 1;
        for mutation in &transaction.mutations {
            match mutation {
                Mutation::Put { key, value, lease } => self.put(key, value, *lease, revision)?,
                Mutation::Delete { key } => self.delete(key, revision)?,
            }
        }
        self.raise(revision)?;
        Ok(Ok(Committed { succeeded: true, revision: self.revision, current: RVec::new() }))
    }

    /// Makes `revision` the store's, unless nothing happened in it.
    fn raise(&mut self, revision: u64) -> Result<(), redb::Error> {
        if self.changes.events.last().is_some_and(|event| event.entry.revision == revision) {
            self.counters.insert(REVISION, revision)?;
            self.revision = revision;
            self.changes.dirty = true;
        }
        Ok(())
    }

    fn put(
        &mut self,
        key: &str,
        value: &[u8],
        lease: u64,
        revision: u64,
    ) -> Result<(), redb::Error> {
        let before = self.entries.insert(key, (revision, lease, value))?.map(|row| row.value().1);
        if let Some(before) = before.filter(|before| *before != 0 && *before != lease) {
            self.leased.remove((before, key))?;
        }
        if lease != 0 {
            self.leased.insert((lease, key), ())?;
        }
        let entry = Entry { key: key.into(), value: value.into(), revision, lease };
        self.changes.events.push(Event { entry, removed: false });
        Ok(())
    }

    fn delete(&mut self, key: &str, revision: u64) -> Result<(), redb::Error> {
        let Some(lease) = self.entries.remove(key)?.map(|row| row.value().1) else {
            return Ok(());
        };
        if lease != 0 {
            self.leased.remove((lease, key))?;
        }
        let entry = Entry { key: key.into(), value: RVec::new(), revision, lease: 0 };
        self.changes.events.push(Event { entry, removed: true });
        Ok(())
    }

    /// Grants a lease. Its number is never used again, so an ended lease cannot come back as another's.
    pub(super) fn grant(&mut self, ttl_ms: u64) -> Applied<u64> {
        let lease = self.counters.get(LAST_LEASE)?.map_or(0, |row| row.value()) + 1;
        self.counters.insert(LAST_LEASE, lease)?;
        self.leases.insert(lease, ttl_ms)?;
        self.changes.dirty = true;
        self.changes.leases.push(LeaseChange::Runs { lease, ttl_ms });
        Ok(Ok(lease))
    }

    /// Renews a lease; this writes nothing.
    pub(super) fn keep(&mut self, lease: u64) -> Applied<()> {
        let Some(ttl_ms) = self.leases.get(lease)?.map(|row| row.value()) else {
            return Ok(Err(no_lease(lease)));
        };
        self.changes.leases.push(LeaseChange::Runs { lease, ttl_ms });
        Ok(Ok(()))
    }

    /// Ends a lease with its entries.
    pub(super) fn revoke(&mut self, lease: u64) -> Applied<()> {
        if self.leases.remove(lease)?.is_none() {
            return Ok(Err(no_lease(lease)));
        }
        let mut keys = Vec::new();
        for row in self.leased.range((lease, "")..(lease + 1, ""))? {
            keys.push(row?.0.value().1.to_owned());
        }
        let revision = self.revision + 1;
        for key in keys {
            self.delete(&key, revision)?;
        }
        self.raise(revision)?;
        self.changes.dirty = true;
        self.changes.leases.push(LeaseChange::Ended { lease });
        Ok(Ok(()))
    }
}

fn no_lease(lease: u64) -> Error {
    Error::new(ErrorKind::NOT_FOUND, "the lease has ended or never was")
        .with("lease", lease)
        .remedy("ask for a new lease, and take again what was held under the old one")
}
