// SPDX-License-Identifier: Apache-2.0
use abi_stable::{StableAbi, std_types::RString};

use super::{Consistency, ReplicaInfo, ReplicationInfo};
use crate::{Error, ErrorKind};

/// How far a replica is behind the one that acknowledges. Since 1.3.
///
/// What it lacks was acknowledged within [`Mode::most_behind_ns`], because writes wait for a replica that is further
/// behind. `age_ns` goes on growing then, until the replica has the oldest of them.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Acknowledged writes that it lacks.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long ago the oldest of them was acknowledged, in nanoseconds.
    pub age_ns: u64,
}

/// How a volume replicates, and what its readers see. Since 1.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Acknowledged after one replica; flush and FUA are durable on that one only.
    pub asynchronous: bool,
    /// What a session sees that is opened now.
    pub consistency: Consistency,
    /// Asynchronous: a replica is at most this many bytes behind.
    pub most_behind_bytes: u64,
    /// Asynchronous: a replica is at most this many nanoseconds behind.
    pub most_behind_ns: u64,
}

const ASYNCHRONOUS: u64 = 1;

impl ReplicationInfo {
    /// How the volume replicates: synchronously if the driver is from before 1.3. Since 1.3.
    pub fn mode(&self) -> Mode {
        let [flags, most_behind_bytes, most_behind_ns, _] = self.reserved;
        Mode {
            asynchronous: flags & ASYNCHRONOUS != 0,
            consistency: Consistency::from_bits((flags >> 32) as u32),
            most_behind_bytes,
            most_behind_ns,
        }
    }

    /// The same volume, replicated so. Since 1.3.
    pub fn in_mode(mut self, mode: Mode) -> Self {
        let flags = if mode.asynchronous { ASYNCHRONOUS } else { 0 };
        self.reserved[0] = flags | u64::from(mode.consistency.bits()) << 32;
        (self.reserved[1], self.reserved[2]) = (mode.most_behind_bytes, mode.most_behind_ns);
        self
    }
}

const ACKNOWLEDGES: u64 = 1;
const LAGS: u64 = 2;

impl ReplicaInfo {
    /// Whether writes are acknowledged once this replica has them, and no other: of a volume that replicates
    /// asynchronously. Since 1.3.
    pub fn acknowledges(&self) -> bool {
        self.reserved[0] & ACKNOWLEDGES != 0
    }

    /// How far it is behind, of a volume that replicates asynchronously, if that is known. Since 1.3.
    pub fn lag(&self) -> Option<Lag> {
        let [flags, writes, bytes, age_ns] = self.reserved;
        (flags & LAGS != 0).then_some(Lag { writes, bytes, age_ns })
    }

    /// The same replica, as the one that acknowledges. Since 1.3.
    pub fn acknowledging(mut self) -> Self {
        self.reserved[0] |= ACKNOWLEDGES;
        self
    }

    /// The same replica, so far behind. Since 1.3.
    pub fn behind(mut self, lag: Lag) -> Self {
        let flags = self.reserved[0] | LAGS;
        self.reserved = [flags, lag.writes, lag.bytes, lag.age_ns];
        self
    }
}

/// Which node of an asynchronous volume is to acknowledge, and how it comes to that. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Promote {
    /// The node; empty: the one that lacks least.
    pub node: RString,
    /// Do not first bring it what the host still has in memory of acknowledged writes: that is lost, too.
    pub at_once: bool,
    /// Change nothing.
    pub dry_run: bool,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What becomes of an asynchronous volume when another of its nodes acknowledges from now on. Since 1.3.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Promotion {
    /// The node that acknowledges then.
    pub node: RString,
    /// The node that does until then; empty if its name is lost.
    pub before: RString,
    /// The last write that the volume has then, as a token of a session: see [`Sessions`](super::Sessions).
    pub point: RString,
    /// Whether `lost` is exact: somebody who is asked has seen everything that was acknowledged. Otherwise it is the
    /// most that can be lost, by the bound of the volume; its `writes` are then those that are known of.
    pub exact: bool,
    /// Acknowledged writes that the volume has no more then, none of which is followed by one that it has.
    pub lost: Lag,
    /// Whether it was done.
    pub done: bool,
    /// What else there is to know; empty where there is nothing to say.
    pub note: RString,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

/// What a driver from before 1.3 answers, and one that does not replicate asynchronously.
pub(crate) fn no_promotion() -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the driver has no asynchronous volumes")
        .during("promote")
        .remedy("install a version of the driver that has: one built with driver-api 1.3 or later")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext::{ReplicaState, ReplicationState};

    #[test]
    fn what_is_said_in_reserved_words_is_read_back_and_absent_in_zeros() {
        let replica = ReplicaInfo {
            node: "n1".into(),
            brick: "b".into(),
            state: ReplicaState::IN_SYNC,
            dirty: 0,
            copied: 0,
            cause: "".into(),
            reserved: [0; 4],
        };
        assert_eq!((replica.acknowledges(), replica.lag()), (false, None));
        let lag = Lag { writes: 3, bytes: 4096, age_ns: 5 };
        let told = replica.clone().behind(lag).acknowledging();
        assert_eq!((told.acknowledges(), told.lag()), (true, Some(lag)));
        assert_eq!(replica.behind(Lag::default()).lag(), Some(Lag::default()));
        let info = ReplicationInfo {
            state: ReplicationState::SERVING,
            reason: "".into(),
            generation: "1".into(),
            size: 1,
            shard_size: 1,
            shards: 1,
            replicas: Vec::new().into(),
            reserved: [0; 4],
        };
        assert_eq!(info.mode(), Mode::default());
        assert_eq!(info.mode().consistency, Consistency::STRONG);
        let mode = Mode {
            asynchronous: true,
            consistency: Consistency::EVENTUAL,
            most_behind_bytes: 7,
            most_behind_ns: 9,
        };
        assert_eq!(info.in_mode(mode).mode(), mode);
    }
}
