// SPDX-License-Identifier: Apache-2.0
//! How often operators did something, and disks and the state store did something to them.

use std::fmt;

use serde_json::{Value, json};

/// What is counted besides faults that meet replicas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The volume grew.
    Grown,
    /// The volume shrank.
    Shrunk,
    /// Replicas were compared, and equal.
    Verified,
    /// Replicas were compared, and some differed.
    Found,
    /// Replicas were made equal to one of them.
    Repaired,
    /// A check or repair could not be done.
    Refused,
    /// A disk changed a sector behind everybody's back.
    Rotted,
    /// Nothing holds that any more.
    Healed,
    /// The state store forgot the volume.
    Forgotten,
    /// The state was made anew from companions.
    Rebuilt,
    /// So it was, without a member that the newest companion named.
    RebuiltWithout,
    /// Somebody wanted shards to be elsewhere.
    Arranged,
    /// They are.
    Moved,
    /// They are smaller.
    Split,
    /// They are larger.
    Merged,
    /// The state store got a shard map.
    Mapped,
    /// A snapshot was taken.
    Snapped,
    /// One was deleted.
    Unsnapped,
    /// That, or this, was refused.
    NotSnapped,
    /// A piece of a snapshot was copied to a keeper.
    Replayed,
    /// Healing was told how hard it may work.
    Throttled,
    /// A node was left alone for a time.
    Held,
    /// Reads were to avoid a node, or no more.
    Shunned,
    /// What a lost node had was to be elsewhere.
    Rehomed,
    /// The state store got a checkpoint of digests.
    Digested,
    /// A scrub came to its end.
    Scrubbed,
    /// It named bad replicas by digests.
    Named,
    /// It named bad ones, or suspects, otherwise.
    Suspected,
    /// A bad replica was mended, and read back.
    Mended,
    /// It could not be, or not be read back.
    NotMended,
    /// Digests outlived an attachment.
    Restored,
    /// A read was refused, since nothing told which replica is right.
    NotRead,
    /// The mode or its bounds were changed.
    Configured,
    /// A follower served a read.
    Followed,
    /// A follower was promoted.
    Promoted,
    /// Writes were lost by it, and the host told which.
    Lost,
    /// One was promoted by a new attachment.
    Inherited,
    /// The volume was put back to a snapshot.
    RolledBack,
    /// So it was to be, but the host died over it.
    RollBackCut,
}

impl Deed {
    const ALL: [Self; 39] = [
        Self::Grown,
        Self::Shrunk,
        Self::Verified,
        Self::Found,
        Self::Repaired,
        Self::Refused,
        Self::Rotted,
        Self::Healed,
        Self::Forgotten,
        Self::Rebuilt,
        Self::RebuiltWithout,
        Self::Arranged,
        Self::Moved,
        Self::Split,
        Self::Merged,
        Self::Mapped,
        Self::Snapped,
        Self::Unsnapped,
        Self::NotSnapped,
        Self::Replayed,
        Self::Throttled,
        Self::Held,
        Self::Shunned,
        Self::Rehomed,
        Self::Digested,
        Self::Scrubbed,
        Self::Named,
        Self::Suspected,
        Self::Mended,
        Self::NotMended,
        Self::Restored,
        Self::NotRead,
        Self::Configured,
        Self::Followed,
        Self::Promoted,
        Self::Lost,
        Self::Inherited,
        Self::RolledBack,
        Self::RollBackCut,
    ];
}

/// Counts of deeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deeds {
    counts: [u64; Deed::ALL.len()],
}

impl Default for Deeds {
    fn default() -> Self {
        Self { counts: [0; Deed::ALL.len()] }
    }
}

impl Deeds {
    /// Counts one.
    pub fn count(&mut self, deed: Deed) {
        self.counts[deed as usize] += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// How often something was done.
    pub fn of(&self, deed: Deed) -> u64 {
        self.counts[deed as usize]
    }

    /// As JSON: deed, count.
    pub fn to_json(&self) -> Value {
        let counts = Deed::ALL.iter().map(|deed| (format!("{deed:?}"), json!(self.of(*deed))));
        Value::Object(counts.collect())
    }
}

impl fmt::Display for Deeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> =
            Deed::ALL.iter().map(|deed| format!("{deed:?} {}", self.of(*deed))).collect();
        f.write_str(&counts.join(", "))
    }
}
