// SPDX-License-Identifier: Apache-2.0
//! What the operator chose for a volume, and the switches that only tests touch.

/// What happens to writes of a shard that has fewer in-sync replicas than `min_in_sync`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    /// They are refused with [`Failure::ReadOnly`](crate::Failure::ReadOnly); reads go on.
    ReadOnly,
    /// They wait until enough replicas are in sync; reads go on.
    Wait,
}

/// How an attached volume behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Replicas of a shard that must be in sync for a write to begin; at least one. In asynchronous mode those count
    /// that acknowledge or follow.
    pub min_in_sync: u32,
    /// What a write does while there are fewer.
    pub shortage: Shortage,
    /// Regions that the write-intent log holds; each is leveled after a crash, so this bounds recovery.
    pub intent_regions: u32,
    /// A region that was flushed and not written for this long leaves the log on a tick.
    pub intent_idle_ns: u64,
    /// Bytes that one copy of a resync moves at most; [`Event::Throttle`](crate::Event::Throttle) changes it.
    pub copy_bytes: u32,
    /// Copies that are under way at once, for the whole volume, until [`Event::Throttle`](crate::Event::Throttle) says
    /// otherwise; zero: nothing is healed.
    pub copies_in_flight: u32,
    /// Time between two attempts to reach a brick, to store the state, or to resync onto a full node.
    pub retry_ns: u64,
    /// How long writes may wait for a snapshot before it is given up.
    pub snapshot_deadline_ns: u64,
    /// Asynchronous mode: bytes of writes that followers may be behind; a write that would make it more waits. One that
    /// is longer than this is let through when nothing is behind.
    pub most_behind_bytes: u64,
    /// Bytes that a follower gets at once; its companion keeps two such journals.
    pub batch_bytes: u32,
    /// So long may a follower be behind: writes wait once the oldest that it lacks is as old.
    pub most_behind_ns: u64,
    /// Serve although a backend cannot prove that earlier sessions with its brick have ended. The operator forces it.
    pub accept_unfenced: bool,
    /// A read is answered only if two replicas agree, where two are in sync; [`Event::VerifyReads`](crate::Event::VerifyReads)
    /// changes it.
    pub verify_reads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_in_sync: 1,
            shortage: Shortage::ReadOnly,
            intent_regions: 512,
            intent_idle_ns: 5_000_000_000,
            copy_bytes: 1 << 20,
            copies_in_flight: 4,
            retry_ns: 1_000_000_000,
            snapshot_deadline_ns: 2_000_000_000,
            most_behind_bytes: 64 << 20,
            batch_bytes: 1 << 20,
            most_behind_ns: 5_000_000_000,
            accept_unfenced: false,
            verify_reads: false,
        }
    }
}

/// The protections of replicated data. All are on; tests switch one off to show that the simulator notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protections {
    /// Regions are named in the companions before they are written, and leveled after a crash.
    pub intent_log: bool,
    /// A failed replica is recorded stale before the write that it missed is acknowledged.
    pub stale_before_acknowledge: bool,
    /// A write waits for an earlier write of the same sectors.
    pub ordered_overlaps: bool,
    /// A read waits for a write of the same sectors that not all replicas have yet.
    pub pinned_reads: bool,
    /// A brick with writes of unknown outcome is replaced, unless its backend proves that they can no longer land.
    pub late_write_rule: bool,
    /// Answers of a backend that restarted are not believed, and what it had not flushed counts as lost.
    pub incarnation_check: bool,
    /// What a full brick that is joining got of a write counts as not flushed there.
    pub volatile_joining: bool,
    /// A brick that lacks something again when it is to be listed as in sync is not.
    pub clean_join: bool,
    /// A snapshot's shards are where they were when it was taken, wherever they are now.
    pub snapshot_map: bool,
    /// A digest is void before anything is written to what it is of.
    pub digest_invalidation: bool,
    /// A read that names a point goes only where that point was reached.
    pub token_check: bool,
    /// A follower gets the log in order, and is at a point only with all that comes before.
    pub log_order: bool,
}

impl Protections {
    /// Names, as the simulator takes them.
    pub const NAMES: [&'static str; 12] = [
        "intent-log",
        "stale-before-acknowledge",
        "ordered-overlaps",
        "pinned-reads",
        "late-write-rule",
        "incarnation-check",
        "volatile-joining",
        "clean-join",
        "snapshot-map",
        "digest-invalidation",
        "token-check",
        "log-order",
    ];

    /// All but the one with this name; `None` if there is none of this name.
    pub fn without(name: &str) -> Option<Self> {
        let mut protections = Self::default();
        let switch = match name {
            "intent-log" => &mut protections.intent_log,
            "stale-before-acknowledge" => &mut protections.stale_before_acknowledge,
            "ordered-overlaps" => &mut protections.ordered_overlaps,
            "pinned-reads" => &mut protections.pinned_reads,
            "late-write-rule" => &mut protections.late_write_rule,
            "incarnation-check" => &mut protections.incarnation_check,
            "volatile-joining" => &mut protections.volatile_joining,
            "clean-join" => &mut protections.clean_join,
            "snapshot-map" => &mut protections.snapshot_map,
            "digest-invalidation" => &mut protections.digest_invalidation,
            "token-check" => &mut protections.token_check,
            "log-order" => &mut protections.log_order,
            _ => return None,
        };
        *switch = false;
        Some(protections)
    }
}

impl Default for Protections {
    fn default() -> Self {
        Self {
            intent_log: true,
            stale_before_acknowledge: true,
            ordered_overlaps: true,
            pinned_reads: true,
            late_write_rule: true,
            incarnation_check: true,
            volatile_joining: true,
            clean_join: true,
            snapshot_map: true,
            digest_invalidation: true,
            token_check: true,
            log_order: true,
        }
    }
}
