// SPDX-License-Identifier: Apache-2.0
//! What every engine refuses before it looks at its data: the limits that the strictest engine needs.

use std::{collections::HashSet, time::Duration};

use driver_api::{
    Error, ErrorKind, Result,
    state::{MAX_BYTES, MAX_KEY, MAX_OPERATIONS, Mutation, Transaction},
};

/// The longest time that a lease may be granted for.
pub const MAX_LEASE: Duration = Duration::from_secs(30 * 24 * 3600);

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, message)
}

/// Checks a key that is to be read or written.
pub fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(refuse("a state key must not be empty".into()).remedy("name the key"));
    }
    if key.len() > MAX_KEY {
        return Err(refuse(format!("a state key has {} bytes, more than {MAX_KEY}", key.len()))
            .with("key", shorten(key))
            .remedy("use a shorter key"));
    }
    Ok(())
}

/// Checks a transaction's size, its keys, and that it changes each key once.
pub fn check_transaction(transaction: &Transaction) -> Result<()> {
    let operations = transaction.compares.len() + transaction.mutations.len();
    if operations > MAX_OPERATIONS {
        return Err(refuse(format!(
            "a state transaction has {operations} compares and mutations, more than {MAX_OPERATIONS}"
        ))
        .remedy("split it into several transactions"));
    }
    let mut bytes = 0;
    for compare in &transaction.compares {
        check_key(&compare.key)?;
        bytes += compare.key.len();
    }
    let mut changed = HashSet::new();
    for mutation in &transaction.mutations {
        let (key, size) = match mutation {
            Mutation::Put { key, value, .. } => (key, value.len()),
            Mutation::Delete { key } => (key, 0),
        };
        check_key(key)?;
        bytes += key.len() + size;
        if !changed.insert(key.as_str()) {
            return Err(refuse("a state transaction changes one key twice".into())
                .with("key", key)
                .remedy("keep the last of its changes"));
        }
    }
    if bytes > MAX_BYTES {
        return Err(refuse(format!(
            "a state transaction holds {bytes} bytes of keys and values, more than {MAX_BYTES}"
        ))
        .remedy("store bulk data in a volume, or split the transaction"));
    }
    Ok(())
}

/// Checks a lease's time to live.
pub fn check_lease(ttl_ms: u64) -> Result<()> {
    if ttl_ms == 0 || Duration::from_millis(ttl_ms) > MAX_LEASE {
        let longest = MAX_LEASE.as_millis();
        return Err(refuse(format!("a lease cannot live for {ttl_ms} ms"))
            .remedy(format!("ask for 1 to {longest} ms and renew it")));
    }
    Ok(())
}

fn shorten(key: &str) -> String {
    key.chars().take(64).chain("…".chars()).collect()
}
