// SPDX-License-Identifier: Apache-2.0
//! What is asked of contenders, and what they give.

use serde::{Deserialize, Serialize};

/// A load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// CPU microseconds for each operation, of the client with its start and of what serves it on this machine; not the
    /// storage's.
    pub cpu_us: f64,
}
