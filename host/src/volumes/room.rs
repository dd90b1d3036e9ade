// SPDX-License-Identifier: Apache-2.0
//! Records of one type in the key-value state: each with a format version and feature bits, changed only by
//! compare-and-swap.

use std::marker::PhantomData;

use driver_api::{
    Error, ErrorKind, Result, StateHandle,
    state::{Committed, Transaction},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const VERSION: u32 = 1;
const PAGE: u32 = 256;

/// A record with the revision it was read at.
#[derive(Clone, Debug)]
pub struct Stored<R> {
    /// Its name in the room.
    pub name: String,
    /// The revision of the state that it has.
    pub revision: u64,
    /// The record.
    pub record: R,
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    version: u32,
    compatible: u64,
    incompatible: u64,
    body: R,
}

/// All records under one prefix. A cheap handle.
pub struct Room<R> {
    state: StateHandle,
    prefix: &'static str,
    record: PhantomData<fn() -> R>,
}

impl<R> Clone for Room<R> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), prefix: self.prefix, record: PhantomData }
    }
}

impl<R: Serialize + DeserializeOwned> Room<R> {
    /// The records whose keys start with `prefix`, which ends with `/`.
    pub fn new(state: StateHandle, prefix: &'static str) -> Self {
        Self { state, prefix, record: PhantomData }
    }

    /// The key of a record.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A record's bytes, for a transaction over several rooms.
    pub fn encode(&self, record: &R) -> Result<Vec<u8>> {
        let envelope = Envelope { version: VERSION, compatible: 0, incompatible: 0, body: record };
        serde_json::to_vec(&envelope).map_err(|error| {
            Error::new(ErrorKind::INTERNAL, "a record cannot be encoded").caused_by(&error)
        })
    }

    fn decode(&self, key: &str, value: &[u8]) -> Result<R> {
        let damaged = |error: serde_json::Error| {
            Error::new(ErrorKind::CORRUPTED, "a record of the state cannot be read")
                .with("key", key)
                .caused_by(&error)
                .remedy("restore the state file, or delete the record and adopt the volume again")
        };
        let outer: Envelope<serde_json::Value> = serde_json::from_slice(value).map_err(damaged)?;
        if outer.version > VERSION || outer.incompatible != 0 {
            return Err(Error::new(
                ErrorKind::UNSUPPORTED,
                "a record of the state was written by a newer novastor",
            )
            .with("key", key)
            .with("version", outer.version)
            .remedy("run the newer novastor"));
        }
        serde_json::from_value(outer.body).map_err(damaged)
    }

    /// The record of this name, if there is one.
    pub async fn get(&self, name: &str) -> Result<Option<Stored<R>>> {
        let key = self.key(name);
        let Some(entry) = self.state.get(&key).await?.into_option() else { return Ok(None) };
        let record = self.decode(&key, &entry.value)?;
        Ok(Some(Stored { name: name.to_owned(), revision: entry.revision, record }))
    }

    /// All records, by name.
    pub async fn list(&self) -> Result<Vec<Stored<R>>> {
        let mut records = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.state.range(self.prefix, &after, PAGE).await?;
            let full = page.len() == PAGE as usize;
            for entry in page {
                let record = self.decode(&entry.key, &entry.value)?;
                let name = entry.key[self.prefix.len()..].to_owned();
                after = entry.key.into_string();
                records.push(Stored { name, revision: entry.revision, record });
            }
            if !full {
                return Ok(records);
            }
        }
    }

    /// Adds a record; `None` if one of that name is there already.
    pub async fn create(&self, name: &str, record: R) -> Result<Option<Stored<R>>> {
        let key = self.key(name);
        let transaction = Transaction::new().expect(&key, 0).put(&key, &self.encode(&record)?);
        let done = self.state.commit(transaction).await?;
        Ok(done.succeeded.then(|| Stored {
            name: name.to_owned(),
            revision: done.revision,
            record,
        }))
    }

    /// Writes a changed record, if nobody else changed it since it was read.
    pub async fn save(&self, stored: &mut Stored<R>) -> Result<()> {
        let key = self.key(&stored.name);
        let transaction = Transaction::new()
            .expect(&key, stored.revision)
            .put(&key, &self.encode(&stored.record)?);
        stored.revision = self.commit(transaction).await?.revision;
        Ok(())
    }

    /// Removes a record, if nobody else changed it since it was read.
    pub async fn remove(&self, stored: &Stored<R>) -> Result<()> {
        let key = self.key(&stored.name);
        self.commit(Transaction::new().expect(&key, stored.revision).delete(&key)).await?;
        Ok(())
    }

    /// Does a transaction whose conditions must hold.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed> {
        let key = transaction.compares.first().map(|c| c.key.to_string()).unwrap_or_default();
        let done = self.state.commit(transaction).await?;
        if done.succeeded {
            return Ok(done);
        }
        Err(Error::new(ErrorKind::IN_USE, "somebody else changed it at the same time")
            .with("key", key)
            .remedy("look at it again and repeat the command"))
    }
}
