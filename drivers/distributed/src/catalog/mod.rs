// SPDX-License-Identifier: Apache-2.0
//! What the host's state knows: nodes, and of each volume its descriptor, shard map and choices. Nothing here changes
//! with a write.
//!
//! ```text
//! nodes               the registered nodes                         JSON
//! provisioned         replica bytes that volumes may occupy        decimal
//! volumes/NAME        the volume's descriptor                      Descriptor::encode
//! chosen/NAME         what it was created with, or is to be now    JSON
//! claims/NAME         who has it attached, or had it last           JSON
//! maps/NAME/NNNN      the shard map of its creation, in pieces      ShardMap::encode
//! maps/NAME/MAP/NNNN  a later one; the descriptor says which counts ShardMap::encode
//! ```

mod digests;
mod maps;
mod nodes;
mod options;

use std::sync::Arc;

use distributed_core::{Descriptor, Outcome};
use driver_api::{
    Error, ErrorKind, ROption, Result, StateHandle,
    state::{Entry, Transaction},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::{claims::Claim, config::Chosen, error};
pub(crate) use nodes::Nodes;

/// Entries asked for at once.
const PAGE: u32 = 100;
/// How often a change is tried while others change the same.
const TRIES: usize = 32;

const NODES: &str = "nodes";
const PROVISIONED: &str = "provisioned";
const VOLUMES: &str = "volumes/";

/// The state, as this driver uses it.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    state: StateHandle,
    /// Held while what volumes provision is changed: this process does not contend with itself.
    accounting: Arc<Mutex<()>>,
}

fn volume_key(name: &str) -> String {
    format!("{VOLUMES}{name}")
}

fn chosen_key(name: &str) -> String {
    format!("chosen/{name}")
}

fn claim_key(name: &str) -> String {
    format!("claims/{name}")
}

fn map_prefix(name: &str) -> String {
    format!("maps/{name}/")
}

impl Catalog {
    /// The state that the host lends.
    pub fn new(state: StateHandle) -> Self {
        Self { state, accounting: Arc::default() }
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        match self.state.get(key).await? {
            ROption::RSome(entry) => Ok(Some(entry)),
            ROption::RNone => Ok(None),
        }
    }

    async fn get_json<T: DeserializeOwned + Default>(&self, key: &str) -> Result<(T, u64)> {
        match self.get(key).await? {
            None => Ok((T::default(), 0)),
            Some(entry) => Ok((from_json(&entry)?, entry.revision)),
        }
    }

    async fn range(&self, prefix: &str) -> Result<Vec<Entry>> {
        let mut all: Vec<Entry> = Vec::new();
        loop {
            let after = all.last().map_or("", |entry| entry.key.as_str());
            let page = self.state.range(prefix, after, PAGE).await?;
            let more = page.len() == PAGE as usize;
            all.extend(page);
            if !more {
                return Ok(all);
            }
        }
    }

    /// The registered nodes.
    pub async fn nodes(&self) -> Result<Nodes> {
        Ok(self.get_json(NODES).await?.0)
    }

    /// Changes the registered nodes; `change` may be asked again if others changed them meanwhile.
    pub async fn change_nodes<T>(&self, change: impl Fn(&mut Nodes) -> Result<T>) -> Result<T> {
        for _ in 0..TRIES {
            let (mut nodes, revision) = self.get_json::<Nodes>(NODES).await?;
            let result = change(&mut nodes)?;
            let put = Transaction::new().expect(NODES, revision).put(NODES, &to_json(&nodes)?);
            if self.state.commit(put).await?.succeeded {
                return Ok(result);
            }
        }
        Err(contended(NODES))
    }

    /// A volume's descriptor.
    pub async fn volume(&self, name: &str) -> Result<Option<Descriptor>> {
        let entry = self.get(&volume_key(name)).await?;
        entry.map(|entry| descriptor(&entry)).transpose()
    }

    /// A volume's descriptor as it is stored.
    pub async fn stored(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.get(&volume_key(name)).await?.map(|entry| entry.value.to_vec()))
    }

    /// The descriptors of all volumes, by name.
    pub async fn volumes(&self) -> Result<Vec<Descriptor>> {
        self.range(VOLUMES).await?.iter().map(descriptor).collect()
    }

    /// The names of all volumes, and their descriptors as they are stored.
    pub async fn stored_volumes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let entries = self.range(VOLUMES).await?;
        let named = entries.into_iter().filter_map(|entry| {
            let name = entry.key.strip_prefix(VOLUMES)?.to_owned();
            Some((name, entry.value.to_vec()))
        });
        Ok(named.collect())
    }

    /// What a volume was created with.
    pub async fn chosen(&self, name: &str) -> Result<Chosen> {
        Ok(self.stored_choices(name).await?.0)
    }

    /// The same, and its revision.
    async fn stored_choices(&self, name: &str) -> Result<(Chosen, u64)> {
        match self.get(&chosen_key(name)).await? {
            Some(entry) => Ok((from_json(&entry)?, entry.revision)),
            None => Err(error::damaged("the volume's choices are missing").with("volume", name)),
        }
    }

    /// Who has a volume attached, or had it last.
    pub async fn claim(&self, name: &str) -> Result<Option<Claim>> {
        self.get(&claim_key(name)).await?.map(|entry| from_json(&entry)).transpose()
    }

    /// Changes who has a volume attached; `change` may be asked again if others changed it meanwhile.
    pub async fn change_claim(
        &self,
        name: &str,
        change: impl Fn(Option<Claim>) -> Result<Claim>,
    ) -> Result<()> {
        let key = claim_key(name);
        for _ in 0..TRIES {
            let entry = self.get(&key).await?;
            let revision = entry.as_ref().map_or(0, |entry| entry.revision);
            let claim = change(entry.map(|entry| from_json(&entry)).transpose()?)?;
            let put = Transaction::new().expect(&key, revision).put(&key, &to_json(&claim)?);
            if self.state.commit(put).await?.succeeded {
                return Ok(());
            }
        }
        Err(contended(&key))
    }

    /// Replica bytes that volumes may occupy.
    pub async fn provisioned(&self) -> Result<u64> {
        Ok(self.get_json::<u64>(PROVISIONED).await?.0)
    }

    /// Begins a volume: its descriptor in the phase of creation, its choices, and the bytes that it provisions, all or
    /// nothing. `account` gets what is provisioned and gives what will be.
    pub async fn begin(
        &self,
        descriptor: &Descriptor,
        chosen: &Chosen,
        account: impl Fn(u64) -> Result<u64>,
    ) -> Result<()> {
        let name = descriptor.volume.as_str();
        let _alone = self.accounting.lock().await;
        for _ in 0..TRIES {
            let (provisioned, revision) = self.get_json::<u64>(PROVISIONED).await?;
            let after = account(provisioned)?;
            let transaction = Transaction::new()
                .expect(&volume_key(name), 0)
                .expect(PROVISIONED, revision)
                .put(&volume_key(name), &descriptor.encode())
                .put(&chosen_key(name), &to_json(chosen)?)
                .put(PROVISIONED, &to_json(&after)?);
            let committed = self.state.commit(transaction).await?;
            if committed.succeeded {
                return Ok(());
            }
            if committed.current.iter().any(|entry| entry.key == volume_key(name)) {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "a volume of this name exists")
                    .with("volume", name));
            }
        }
        Err(contended(PROVISIONED))
    }

    /// Stores a volume that was recovered: its descriptor, in the place of a `damaged` one if there is one, its choices,
    /// and the bytes that it provisions, all or nothing.
    pub async fn restore(
        &self,
        descriptor: &Descriptor,
        chosen: &Chosen,
        damaged: Option<&[u8]>,
    ) -> Result<()> {
        let name = descriptor.volume.as_str();
        let key = volume_key(name);
        let bytes = descriptor.size.saturating_mul(u64::from(chosen.replication_factor));
        // A damaged one is counted already.
        let bytes = if damaged.is_none() { bytes } else { 0 };
        let _alone = self.accounting.lock().await;
        for _ in 0..TRIES {
            let entry = self.get(&key).await?;
            if entry.as_ref().map(|entry| entry.value.as_slice()) != damaged {
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, "a volume of this name exists")
                    .with("volume", name)
                    .remedy("try again"));
            }
            let (provisioned, revision) = self.get_json::<u64>(PROVISIONED).await?;
            let transaction = Transaction::new()
                .expect(&key, entry.map_or(0, |entry| entry.revision))
                .expect(PROVISIONED, revision)
                .put(&key, &descriptor.encode())
                .put(&chosen_key(name), &to_json(chosen)?)
                .put(PROVISIONED, &to_json(&provisioned.saturating_add(bytes))?);
            if self.state.commit(transaction).await?.succeeded {
                return Ok(());
            }
        }
        Err(contended(PROVISIONED))
    }

    /// Stores what a volume was created with, as far as that is known, where it was lost.
    pub async fn restore_chosen(&self, name: &str, chosen: &Chosen) -> Result<()> {
        let put = Transaction::new().put(&chosen_key(name), &to_json(chosen)?);
        self.state.commit(put).await.map(drop)
    }

    /// Puts a descriptor in the place of exactly the one `expected`; if it is there already, that is as good.
    pub async fn swap(&self, volume: &str, expected: &[u8], bytes: &[u8]) -> Outcome {
        match self.try_swap(volume, expected, bytes).await {
            Ok(outcome) => outcome,
            // The same swap is tried again, and finds itself if it had been done.
            Err(error) => {
                tracing::warn!(volume, error = format!("{error:#}"), "the state cannot be written");
                error::changed(Err(error))
            }
        }
    }

    async fn try_swap(&self, volume: &str, expected: &[u8], bytes: &[u8]) -> Result<Outcome> {
        let key = volume_key(volume);
        for _ in 0..TRIES {
            let Some(entry) = self.get(&key).await? else { return Ok(Outcome::Conflict) };
            if entry.value.as_slice() == bytes {
                return Ok(Outcome::Ok);
            }
            if entry.value.as_slice() != expected {
                return Ok(Outcome::Conflict);
            }
            let put = Transaction::new().expect(&key, entry.revision).put(&key, bytes);
            if self.state.commit(put).await?.succeeded {
                return Ok(Outcome::Ok);
            }
        }
        Err(contended(&key))
    }

    /// Changes what volumes provision, after a volume's size has changed.
    pub async fn account(&self, change: impl Fn(u64) -> Result<u64>) -> Result<()> {
        let _alone = self.accounting.lock().await;
        for _ in 0..TRIES {
            let (provisioned, revision) = self.get_json::<u64>(PROVISIONED).await?;
            let put = Transaction::new()
                .expect(PROVISIONED, revision)
                .put(PROVISIONED, &to_json(&change(provisioned)?)?);
            if self.state.commit(put).await?.succeeded {
                return Ok(());
            }
        }
        Err(contended(PROVISIONED))
    }

    /// Forgets a volume whose bricks are gone, and gives back `bytes` that it provisioned.
    pub async fn forget(&self, name: &str, bytes: u64) -> Result<()> {
        for entry in self.range(&map_prefix(name)).await? {
            self.state.commit(Transaction::new().delete(&entry.key)).await?;
        }
        self.forget_digests(name, None).await?;
        let _alone = self.accounting.lock().await;
        for _ in 0..TRIES {
            let (provisioned, revision) = self.get_json::<u64>(PROVISIONED).await?;
            let Some(entry) = self.get(&volume_key(name)).await? else { return Ok(()) };
            let transaction = Transaction::new()
                .expect(PROVISIONED, revision)
                .expect(&volume_key(name), entry.revision)
                .delete(&volume_key(name))
                .delete(&chosen_key(name))
                .delete(&claim_key(name))
                .put(PROVISIONED, &to_json(&provisioned.saturating_sub(bytes))?);
            if self.state.commit(transaction).await?.succeeded {
                return Ok(());
            }
        }
        Err(contended(PROVISIONED))
    }
}

fn descriptor(entry: &Entry) -> Result<Descriptor> {
    Descriptor::decode(&entry.value).map_err(|why| {
        error::damaged(format!("a volume's descriptor cannot be read: {why}"))
            .with("key", &entry.key)
    })
}

fn from_json<T: DeserializeOwned>(entry: &Entry) -> Result<T> {
    serde_json::from_slice(&entry.value).map_err(|why| {
        error::damaged(format!("an entry of the state cannot be read: {why}"))
            .with("key", &entry.key)
    })
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|why| Error::new(ErrorKind::INTERNAL, format!("a value cannot be stored: {why}")))
}

fn contended(key: &str) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "others kept changing the same entry of the state")
        .with("key", key)
        .with_retry(driver_api::Retry::TEMPORARY)
        .remedy("try again")
}
