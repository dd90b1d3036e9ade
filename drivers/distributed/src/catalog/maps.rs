// SPDX-License-Identifier: Apache-2.0
//! Shard maps in the state. A volume has several while one is being stored; its descriptor says which counts.

use std::collections::BTreeMap;

use distributed_core::{Descriptor, Generation, ShardMap};
use driver_api::{Error, Result, state::Transaction};

use super::{Catalog, TRIES, contended, map_prefix, volume_key};
use crate::error;

/// Bytes of a shard map in one entry: two fit a transaction.
const MAP_PIECE: usize = 256 << 10;

impl Catalog {
    /// The shard maps of a volume that can be read, by their names.
    pub async fn maps(&self, name: &str) -> Result<BTreeMap<Generation, ShardMap>> {
        let prefix = map_prefix(name);
        let mut pieces: BTreeMap<Generation, Vec<u8>> = BTreeMap::new();
        for entry in self.range(&prefix).await? {
            if let Some(version) = version_of(&prefix, &entry.key) {
                pieces.entry(version).or_default().extend_from_slice(&entry.value);
            }
        }
        let decoded = pieces.into_iter().filter_map(|(version, bytes)| {
            let map = ShardMap::decode(&bytes);
            if let Err(why) = &map {
                // One that was not stored to its end is named by no descriptor.
                tracing::debug!(volume = name, %version, %why, "a shard map cannot be read");
            }
            Some((version, map.ok()?))
        });
        Ok(decoded.collect())
    }

    /// Where a volume's shards are, as far as the state knows.
    pub async fn map(&self, descriptor: &Descriptor) -> Result<ShardMap> {
        let maps = self.maps(&descriptor.volume).await?;
        let stored = maps.get(&descriptor.map);
        let map = stored.and_then(|stored| descriptor.map_from(stored));
        map.ok_or_else(|| no_map(descriptor))
    }

    /// A volume, and where its shards are. While they move, a map may be gone that a descriptor named a moment ago.
    pub async fn located(&self, name: &str) -> Result<Option<(Descriptor, ShardMap)>> {
        for _ in 0..TRIES {
            let Some(descriptor) = self.volume(name).await? else { return Ok(None) };
            match self.map(&descriptor).await {
                Ok(map) => return Ok(Some((descriptor, map))),
                Err(error) if self.volume(name).await?.as_ref() == Some(&descriptor) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Err(contended(&volume_key(name)))
    }

    /// Stores a shard map under this name.
    pub async fn put_map(&self, name: &str, version: Generation, map: &[u8]) -> Result<()> {
        for (number, piece) in map.chunks(MAP_PIECE).enumerate() {
            let key = format!("{}{number:04}", version_prefix(name, version));
            self.state.commit(Transaction::new().put(&key, piece)).await?;
        }
        Ok(())
    }

    /// Deletes the shard maps with smaller names, but for some.
    pub async fn forget_maps(
        &self,
        name: &str,
        before: Generation,
        but: &[Generation],
    ) -> Result<()> {
        let prefix = map_prefix(name);
        for entry in self.range(&prefix).await? {
            let is_old = |version: Generation| version < before && !but.contains(&version);
            if version_of(&prefix, &entry.key).is_some_and(is_old) {
                self.state.commit(Transaction::new().delete(&entry.key)).await?;
            }
        }
        Ok(())
    }
}

fn no_map(descriptor: &Descriptor) -> Error {
    error::damaged(format!("the shard map {} cannot be read", descriptor.map))
        .with("volume", &descriptor.volume)
}

/// The map of a volume's creation has no name in its keys.
fn version_prefix(name: &str, version: Generation) -> String {
    if version == Generation::default() {
        return map_prefix(name);
    }
    format!("{}{version}/", map_prefix(name))
}

fn version_of(prefix: &str, key: &str) -> Option<Generation> {
    let Some((version, _)) = key.strip_prefix(prefix)?.split_once('/') else {
        return Some(Generation::default());
    };
    let (epoch, change) = version.split_once('.')?;
    Some(Generation { epoch: epoch.parse().ok()?, change: change.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_which_map_they_are_of() {
        let versions = [Generation::default(), Generation { epoch: 12, change: 3 }];
        for version in versions {
            let key = format!("{}0001", version_prefix("web", version));
            assert_eq!(version_of("maps/web/", &key), Some(version));
        }
        assert_eq!(version_of("maps/web/", "maps/web/x/0000"), None);
    }
}
