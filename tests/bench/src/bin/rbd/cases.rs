// SPDX-License-Identifier: Apache-2.0
//! What is asked of each contender, and what shall come of it.

use novastor_bench::{load::Case, table::Limit};

use crate::contenders::Contender;

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

const fn limit(who: Contender, of: Contender, target: f64, least: f64) -> Limit {
    Limit { who: who.name(), of: of.name(), target, least }
}

/// All limits.
pub const LIMITS: &[Limit] = &[
    limit(Contender::Driver, Contender::Fio, 0.95, 0.5),
    limit(Contender::Nbd, Contender::Fio, 0.9, 0.4),
    limit(Contender::Nbd, Contender::Qemu, 1.0, 0.5),
];
