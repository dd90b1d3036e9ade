// SPDX-License-Identifier: Apache-2.0
//! Checkpoints of digests in the state. Which of them counts, companions say.

use std::{collections::BTreeMap, sync::Arc};

use distributed_core::Generation;
use driver_api::{Result, state::Transaction};

use super::Catalog;

/// Bytes of a checkpoint in one entry: two fit a transaction.
const PIECE: usize = 256 << 10;

fn prefix(name: &str) -> String {
    format!("digests/{name}/")
}

fn version_of(prefix: &str, key: &str) -> Option<Generation> {
    let (version, _) = key.strip_prefix(prefix)?.split_once('/')?;
    let (epoch, change) = version.split_once('.')?;
    Some(Generation { epoch: epoch.parse().ok()?, change: change.parse().ok()? })
}

impl Catalog {
    /// The checkpoints of a volume, by their names. One that was not stored to its end has a wrong checksum.
    pub async fn digests(&self, name: &str) -> Result<BTreeMap<Generation, Arc<[u8]>>> {
        let prefix = prefix(name);
        let mut pieces: BTreeMap<Generation, Vec<u8>> = BTreeMap::new();
        for entry in self.range(&prefix).await? {
            if let Some(version) = version_of(&prefix, &entry.key) {
                pieces.entry(version).or_default().extend_from_slice(&entry.value);
            }
        }
        Ok(pieces.into_iter().map(|(version, bytes)| (version, bytes.into())).collect())
    }

    /// Stores a checkpoint under this name.
    pub async fn put_digests(&self, name: &str, version: Generation, bytes: &[u8]) -> Result<()> {
        for (number, piece) in bytes.chunks(PIECE).enumerate() {
            let key = format!("{}{version}/{number:06}", prefix(name));
            self.state.commit(Transaction::new().put(&key, piece)).await?;
        }
        Ok(())
    }

    /// Deletes the checkpoints with smaller names; all without one.
    pub async fn forget_digests(&self, name: &str, before: Option<Generation>) -> Result<()> {
        let prefix = prefix(name);
        for entry in self.range(&prefix).await? {
            let version = version_of(&prefix, &entry.key);
            if before.is_none() || version.is_none() || version < before {
                self.state.commit(Transaction::new().delete(&entry.key)).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_which_checkpoint_they_are_of() {
        let version = Generation { epoch: 12, change: 3 };
        let key = format!("{}{version}/000001", prefix("web"));
        assert_eq!(version_of("digests/web/", &key), Some(version));
        assert_eq!(version_of("digests/web/", "digests/web/x/000000"), None);
        assert_eq!(version_of("digests/web/", "digests/web2/1.1/000000"), None);
    }
}
