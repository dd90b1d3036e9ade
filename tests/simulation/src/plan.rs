// SPDX-License-Identifier: Apache-2.0
//! What a seed decides before anything happens.

use distributed_core::{ShardMap, Shortage, Slot, SlotSet};
use fastrand::Rng;

use crate::storage::SECTOR;

/// Sectors of a shard.
pub const SHARD_SECTORS: usize = 16;
/// No volume is made larger than this.
pub const MOST_SECTORS: usize = 12 * SHARD_SECTORS;

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub hosts: usize,
    pub clients: usize,
    pub factor: usize,
    pub sectors: usize,
    pub region_size: u32,
    pub sharded: bool,
    /// Whether nodes end older sessions of the same epoch when a brick is opened again.
    pub fences: bool,
    pub min_in_sync: u32,
    pub shortage: Shortage,
    /// Whether the state store is slow and fails often.
    pub sick_state: bool,
    /// How long faults are thrown, in milliseconds.
    pub chaos_ms: u64,
    /// Mean time between two faults, in microseconds.
    pub fault_every_us: u64,
    /// Of a thousand messages, how many meet a fault of the network.
    pub network_permille: u32,
    /// Sectors that clients like best: a small number makes them meet.
    pub hot_sectors: usize,
    /// Whether somebody has the volume resized.
    pub resizes: bool,
    /// Whether somebody has it verified and repaired.
    pub checks: bool,
    /// Whether disks change sectors behind everybody's back.
    pub rots: bool,
    /// Whether the state store forgets the volume.
    pub forgets: bool,
    /// Whether faults wait for those moments that are rare and dangerous.
    pub lurks: bool,
    /// Whether somebody has shards moved.
    pub arranges: bool,
    /// Nodes that the volume does not have at first.
    pub spares: usize,
    /// Whether somebody takes snapshots.
    pub snaps: bool,
    /// Whether nodes are judged, and healing throttled.
    pub judges: bool,
    /// Whether those who have shards moved have them split and merged, too.
    pub cuts: bool,
    /// Whether somebody has it scrubbed.
    pub scrubs: bool,
    /// Whether reads are compared.
    pub verifies: bool,
    /// Whether the volume is asynchronous, at times.
    pub follows: bool,
    /// Whether it is from the beginning.
    pub begins_asynchronous: bool,
    /// Whether somebody has the mode changed.
    pub switches: bool,
    pub most_behind_bytes: u64,
    pub most_behind_ns: u64,
    /// Whether acknowledging bricks fail more often than others, and hosts with them.
    pub beheads: bool,
}

/// Whether seeds do what they did before shards could be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Era {
    /// They do.
    Staying,
    /// In some of them shards are moved, and snapshots taken.
    Moving,
    /// In some of these shards are split and merged, too.
    Cutting,
    /// And in some of them digests are taken.
    Scrubbing,
    /// In all of them the volume is asynchronous, at times.
    Following,
    /// And in most of them it is resized.
    Resizing,
}

impl Plan {
    /// Operators are drawn apart: runs without them are what they were before there were any.
    pub fn draw(rng: &mut Rng, apart: &mut Rng) -> Self {
        let is_operated = apart.bool();
        let mut draws = |of: u32| is_operated && apart.u32(0..of) != 0;
        let nodes = rng.usize(2..=4);
        let factor = rng.usize(2..=nodes.min(3));
        let sectors = SHARD_SECTORS * rng.usize(4..=9);
        Self {
            nodes,
            hosts: rng.usize(2..=3),
            clients: rng.usize(4..=9),
            factor,
            sectors,
            region_size: 4096,
            sharded: nodes > factor || rng.u32(0..4) == 0,
            fences: rng.bool(),
            min_in_sync: if rng.u32(0..5) == 0 { 2 } else { 1 },
            shortage: if rng.bool() { Shortage::ReadOnly } else { Shortage::Wait },
            sick_state: rng.bool(),
            chaos_ms: rng.u64(500..1100),
            fault_every_us: rng.u64(1500..9000),
            network_permille: *[0, 5, 20, 40].get(rng.usize(0..4)).unwrap_or(&5),
            hot_sectors: rng.usize(4..=24),
            resizes: draws(2),
            checks: draws(4),
            rots: draws(3),
            forgets: draws(2),
            lurks: draws(4),
            arranges: false,
            spares: 0,
            snaps: false,
            judges: false,
            cuts: false,
            scrubs: false,
            verifies: false,
            follows: false,
            begins_asynchronous: false,
            switches: false,
            most_behind_bytes: 1 << 20,
            most_behind_ns: 1 << 40,
            beheads: false,
        }
    }

    /// Draws what came later, apart from all that was there before.
    pub fn draw_moves(&mut self, apart: &mut Rng) {
        self.arranges = apart.u32(0..3) != 0;
        if self.arranges {
            self.spares = apart.usize(0..=2);
        }
        self.snaps = apart.u32(0..3) != 0;
        self.judges = apart.u32(0..3) != 0;
    }

    /// Draws what came after that.
    pub fn draw_cuts(&mut self, apart: &mut Rng) {
        self.cuts = self.arranges && apart.u32(0..4) != 0;
    }

    /// Draws what came later still. Most of these runs have disks that rot.
    pub fn draw_scrubs(&mut self, apart: &mut Rng) {
        self.scrubs = apart.u32(0..3) != 0;
        self.rots |= self.scrubs && apart.u32(0..4) != 0;
        self.verifies = apart.bool();
    }

    /// Draws what came after followers: their volumes are resized.
    pub fn draw_sizes(&mut self, apart: &mut Rng) {
        self.resizes = apart.u32(0..4) != 0;
    }

    /// Draws what asynchronous mode has, apart from all that was there before.
    pub fn draw_followers(&mut self, apart: &mut Rng) {
        self.follows = true;
        self.sharded = false;
        self.snaps = apart.bool();
        self.begins_asynchronous = apart.u32(0..4) != 0;
        self.switches = apart.u32(0..3) != 0;
        self.most_behind_bytes = apart.u64(8..64) * 1024;
        self.most_behind_ns = apart.u64(4_000_000..60_000_000);
        // Followers need a while without faults to get somewhere.
        self.fault_every_us *= apart.u64(1..6);
        self.network_permille = self.network_permille.min(10);
        // Rot has to be repaired; sizes have an era of their own.
        (self.resizes, self.checks, self.rots) = (false, false, false);
        self.beheads = apart.u32(0..4) != 0;
    }

    /// Shard `i` on `factor` neighbouring nodes, beginning with node `i`.
    pub fn map(&self) -> ShardMap {
        let shard_size = SHARD_SECTORS as u64 * SECTOR;
        let shards = (self.sectors / SHARD_SECTORS) as u64;
        let set = |shard: u64| -> SlotSet {
            (0..self.factor as u64)
                .map(|replica| Slot(((shard + replica) % self.nodes as u64) as u8))
                .collect()
        };
        let all = (0..self.nodes as u8).map(Slot).collect();
        if !self.sharded {
            return ShardMap::uniform(shard_size, shards, all);
        }
        ShardMap::from_sets(shard_size, (0..shards).map(set))
            .unwrap_or_else(|| ShardMap::uniform(shard_size, shards, all))
    }
}
