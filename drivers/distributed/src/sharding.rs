// SPDX-License-Identifier: Apache-2.0
//! How large shards are where the operator names no size.
//!
//! | pattern | shards aimed at | a shard is at least | and at most, up to 131072 shards |
//! |---|---|---|---|
//! | `random` | 4096 | 4 MiB | 64 MiB |
//! | `mixed` | 1024 | 4 MiB | 256 MiB |
//! | `sequential` | 256 | 16 MiB | 1 GiB |
//!
//! So a small volume still has shards for all nodes, and the map of a huge one stays small. Every size is a power of two
//! MiB, and a multiple of the volume's region, which is what the write-intent log counts in.

use distributed_core::region_size;
use serde::{Deserialize, Serialize};

/// How clients use a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Small accesses all over: small shards spread them over nodes.
    Random,
    /// Long runs: large shards meet few nodes.
    Sequential,
    /// Both, or unknown.
    #[default]
    Mixed,
}

/// The names of patterns.
pub(crate) const PATTERNS: &[&str] = &["random", "sequential", "mixed"];
/// Most shards of a volume whose size asks for no larger ones.
const MOST_SHARDS: u64 = 1 << 17;
const MIB: u64 = 1 << 20;

impl Pattern {
    /// Its name among the options.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::Mixed => "mixed",
        }
    }

    /// Bytes of a shard of a volume of `size` bytes that is used so.
    pub fn shard_size(self, size: u64) -> u64 {
        let (aim, least, most) = match self {
            Self::Random => (4096, 4 * MIB, 64 * MIB),
            Self::Mixed => (1024, 4 * MIB, 256 * MIB),
            Self::Sequential => (256, 16 * MIB, 1024 * MIB),
        };
        let wanted = power(size.div_ceil(aim)).clamp(least, most);
        wanted.max(power(size.div_ceil(MOST_SHARDS))).max(u64::from(region_size(size)))
    }
}

/// The next power of two.
fn power(bytes: u64) -> u64 {
    bytes.checked_next_power_of_two().unwrap_or(1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    #[test]
    fn small_volumes_are_spread_and_huge_ones_have_few_shards() {
        let sizes = [GIB, 64 * GIB, TIB, 32 * TIB, 256 * TIB];
        let of = |pattern: Pattern| sizes.map(|size| pattern.shard_size(size) / MIB);
        assert_eq!(of(Pattern::Random), [4, 16, 64, 256, 2048]);
        assert_eq!(of(Pattern::Mixed), [4, 64, 256, 256, 2048]);
        assert_eq!(of(Pattern::Sequential), [16, 256, 1024, 1024, 2048]);
    }

    #[test]
    fn every_size_fits_the_regions_and_is_a_power_of_two() {
        for pattern in [Pattern::Random, Pattern::Sequential, Pattern::Mixed] {
            for size in (0..62).flat_map(|bits| [1_u64 << bits, (1 << bits) + 4096]) {
                let shard = pattern.shard_size(size);
                assert!(shard.is_power_of_two() && shard >= MIB, "{size}: {shard}");
                assert!(shard.is_multiple_of(u64::from(region_size(size))), "{size}: {shard}");
                assert!(size.div_ceil(shard) <= MOST_SHARDS, "{size}: {shard}");
            }
        }
    }
}
