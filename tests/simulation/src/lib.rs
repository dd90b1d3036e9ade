// SPDX-License-Identifier: Apache-2.0
//! Runs hosts, nodes and clients of a distributed volume through seeded faults, and judges what clients saw.
//!
//! Everything is drawn from the seed: a run has no clock, thread or order of its own, so a seed that fails replays
//! exactly, with `--trace`. The hosts run the real core; nodes, network, state store and clocks are made up here.
//!
//! What must hold, whatever happens:
//! - reads are linearizable, sector by sector; after a crash each sector is old or new, and nothing that was flushed
//!   is lost (`oracle`);
//! - in asynchronous mode every follower is at a point of the order of writes, exactly (`order`), reads of followers are
//!   no older than they may be, and a promotion loses what it says (`follower`);
//! - when the faults are over, all replicas come back in sync and are equal, nobody waits for ever, and no brick is
//!   left that nobody knows (`verdict`).

mod clients;
mod deeds;
mod faults;
mod figures;
mod follower;
mod hosts;
mod judge;
mod matrix;
mod mover;
mod network;
mod operator;
mod oracle;
mod order;
mod plan;
mod roller;
mod scrubber;
mod snapper;
mod storage;
mod store;
mod verdict;
mod world;

pub use deeds::{Deed, Deeds};
pub use figures::figures;
pub use matrix::{Fault, Matrix};
pub use plan::Era;
pub use verdict::{Verdict, run};
