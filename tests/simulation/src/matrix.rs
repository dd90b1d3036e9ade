// SPDX-License-Identifier: Apache-2.0
//! How often each fault met a replica in each state.

use std::fmt;

use distributed_core::BrickState;
use serde_json::{Value, json};

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A node dies and comes back; what it had not flushed may be gone.
    Kill,
    /// A backend restarts without telling; what it had not flushed may be gone.
    Restart,
    /// A node does nothing for a while, and then everything.
    Pause,
    /// A node cannot be reached by some hosts.
    Partition,
    /// A node's messages take long.
    Slow,
    /// A node is full.
    Full,
    /// A node fails reads and writes now and then.
    FailData,
    /// A node fails every flush.
    RefuseFlush,
    /// A message is lost.
    Lost,
    /// A message comes late, perhaps when nobody waits for it.
    Late,
    /// A message is overtaken by later ones.
    Reordered,
    /// A message comes twice.
    Duplicated,
    /// A node dies in the middle of a write.
    Torn,
    /// The state store refuses, is slow to, or does what it then does not tell.
    StateError,
    /// The host's clock jumps.
    ClockJump,
    /// The host dies.
    HostCrash,
    /// Another host takes the volume, and the host that had it goes on.
    TakeOver,
}

impl Fault {
    /// All of them, in the order of the matrix.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::Partition,
        Self::Slow,
        Self::Full,
        Self::FailData,
        Self::RefuseFlush,
        Self::Lost,
        Self::Late,
        Self::Reordered,
        Self::Duplicated,
        Self::Torn,
        Self::StateError,
        Self::ClockJump,
        Self::HostCrash,
        Self::TakeOver,
    ];
}

const STATES: [BrickState; 6] = [
    BrickState::InSync,
    BrickState::Failing,
    BrickState::Stale,
    BrickState::Resyncing,
    BrickState::Joining,
    BrickState::Following,
];

/// Counts of faults, by the state of the replica that they met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matrix {
    counts: [[u64; STATES.len()]; Fault::ALL.len()],
}

impl Matrix {
    /// Counts one.
    pub fn count(&mut self, fault: Fault, state: BrickState) {
        let column = STATES.iter().position(|other| *other == state).unwrap_or_default();
        self.counts[fault as usize][column] += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            for (count, more) in row.iter_mut().zip(others) {
                *count += more;
            }
        }
    }

    /// The smallest count, with its fault and state.
    pub fn rarest(&self) -> (u64, Fault, BrickState) {
        let cells = Fault::ALL.iter().flat_map(|fault| {
            STATES.iter().zip(&self.counts[*fault as usize]).map(|(s, count)| (*count, *fault, *s))
        });
        // Volumes that are never asynchronous have none.
        let follows = self.counts.iter().any(|row| row[STATES.len() - 1] > 0);
        let cells = cells.filter(|cell| follows || cell.2 != BrickState::Following);
        cells.min_by_key(|cell| cell.0).unwrap_or((0, Fault::Kill, BrickState::InSync))
    }

    /// As JSON: fault, state, count.
    pub fn to_json(&self) -> Value {
        let rows = Fault::ALL.iter().map(|fault| {
            let cells = STATES.iter().zip(&self.counts[*fault as usize]);
            let cells: serde_json::Map<String, Value> =
                cells.map(|(state, count)| (format!("{state:?}"), json!(count))).collect();
            (format!("{fault:?}"), Value::Object(cells))
        });
        Value::Object(rows.collect())
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<14}", "fault")?;
        for state in STATES {
            write!(f, "{:>12}", format!("{state:?}"))?;
        }
        for fault in Fault::ALL {
            write!(f, "\n{:<14}", format!("{fault:?}"))?;
            for count in self.counts[fault as usize] {
                write!(f, "{count:>12}")?;
            }
        }
        Ok(())
    }
}
