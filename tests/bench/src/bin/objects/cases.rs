// SPDX-License-Identifier: Apache-2.0
//! What is asked of the contenders, and what shall come of it.

use novastor_bench::table::Limit;

/// The command of novastor, with its host.
pub const NOVASTOR: &str = "novastor";
/// rclone.
pub const RCLONE: &str = "rclone";

/// All limits.
pub const LIMITS: &[Limit] = &[Limit { who: NOVASTOR, of: RCLONE, target: 1.0, least: 0.3 }];

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// A file goes up in parts.
    Up,
    /// An object comes down in ranges.
    Down,
    /// A bucket is listed.
    List,
}

/// All of them.
pub const CASES: [Ask; 3] = [Ask::Up, Ask::Down, Ask::List];

impl Ask {
    /// It, in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up, in parts",
            Self::Down => "down, in parallel ranges",
            Self::List => "list (an operation is an object)",
        }
    }

    /// Bytes of what the table counts as an operation.
    pub fn block(self) -> usize {
        if self == Self::List { 0 } else { 1 << 20 }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of a part.
    pub part: u64,
    /// Parts on the way at a time.
    pub parallel: u64,
    /// Objects of the bucket that is listed.
    pub objects: u64,
}

impl Sizes {
    /// Enough to see that it works and is not broken.
    pub const SHORT: Self = Self { file: 256 << 20, part: 16 << 20, parallel: 4, objects: 20_000 };
    /// What is to be judged.
    pub const LONG: Self = Self { file: 1 << 30, part: 64 << 20, parallel: 4, objects: 100_000 };

    /// What command and host together may take: what is on the way, and 64 MiB.
    pub fn memory_limit(self, ask: Ask) -> u64 {
        let under_way = if ask == Ask::List { 0 } else { self.part * self.parallel };
        under_way + (64 << 20)
    }
}
