// SPDX-License-Identifier: Apache-2.0
//! What is asked of each contender.

use serde::{Deserialize, Serialize};

/// A load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Case {
    /// Write instead of read.
    pub write: bool,
    /// Anywhere instead of one after the other.
    pub random: bool,
    /// Bytes of an operation.
    pub block: usize,
    /// Operations in flight.
    pub depth: usize,
}

const fn random(write: bool, depth: usize) -> Case {
    Case { write, random: true, block: 4 << 10, depth }
}

const fn sequential(write: bool) -> Case {
    Case { write, random: false, block: 4 << 20, depth: 4 }
}

/// All of them.
pub const CASES: [Case; 6] = [
    random(true, 1),
    random(true, 16),
    random(false, 1),
    random(false, 16),
    sequential(true),
    sequential(false),
];

/// Writes an image once.
pub const FILL: Case = Case { depth: 8, ..sequential(true) };

impl Case {
    /// It, in words.
    pub fn name(&self) -> String {
        let order = if self.random { "random" } else { "sequential" };
        format!("{} {order} {}, depth {}", self.length(), self.way(), self.depth)
    }

    fn length(&self) -> String {
        match self.block >> 20 {
            0 => format!("{} KiB", self.block >> 10),
            mebibytes => format!("{mebibytes} MiB"),
        }
    }

    /// `read` or `write`.
    pub fn way(&self) -> &'static str {
        if self.write { "write" } else { "read" }
    }
}

/// How long a load lasts: without an end given, until the whole image was used once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Span {
    /// Milliseconds before anything counts.
    pub warm_millis: u64,
    /// Milliseconds that count.
    pub millis: u64,
}

/// What a load gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Operations in a second.
    pub rate: f64,
    /// How long half of them took at most, and all but a hundredth, in microseconds, where that is told.
    pub latency_us: Option<[f64; 2]>,
    /// CPU microseconds for each operation, of the client with its start and of the server it uses; not the cluster's.
    pub cpu_us: f64,
}
