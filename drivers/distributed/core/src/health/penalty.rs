// SPDX-License-Identifier: Apache-2.0
//! What a node has to its discredit; it is forgiven with time.

/// Time without a further strike after which one is forgiven, in nanoseconds.
const FORGIVEN_NS: u64 = 3_600_000_000_000;
/// Strikes beyond these change nothing.
const MOST: u32 = 7;

/// Strikes against a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Penalty {
    strikes: u32,
    last: u64,
}

impl Penalty {
    /// One more.
    pub(super) fn strike(&mut self, clock: u64) {
        self.strikes = (self.strikes(clock) + 1).min(MOST);
        self.last = clock;
    }

    /// Those that are not forgiven yet.
    pub(super) fn strikes(&self, clock: u64) -> u32 {
        let forgiven = clock.saturating_sub(self.last) / FORGIVEN_NS;
        self.strikes.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// Whether the last one came in this time, or later.
    pub(super) fn is_since(&self, clock: u64) -> bool {
        self.strikes > 0 && self.last >= clock
    }
}

/// `first` for one strike, doubled with each further one, up to `most`; nothing for none.
pub(super) fn doubled(first: u64, strikes: u32, most: u64) -> u64 {
    match strikes {
        0 => 0,
        strikes => first.saturating_mul(1 << (strikes - 1).min(MOST)).min(most),
    }
}
