// SPDX-License-Identifier: Apache-2.0
//! How hard a volume may heal: as hard as clients do not feel it much.
//!
//! ```text
//!             nothing wanted: gentle, clients are measured at rest
//!                   |  something to heal
//!                   v
//!   paused <---- working: clients are measured under healing
//!     | rest is       |  slower than they may be: half the level, and not above it for a time that doubles
//!     | measured      |  hardly slower: one level more
//!     +-------------> |  measured at rest too long ago: pause
//! ```
//! A level is a number of bytes a second, in copies as small as that allows, for what a client waits for on a disk is the
//! copy before it; the highest have no such number, but several copies under way. Both measures are histograms of clients'
//! operations, so that what is compared is their p99 with healing and without.
//!
//! Healing never stands still for long ([`ThrottleRules::longest_rest_ns`]), and not at all while a shard has one copy
//! left; while writes wait for healing there is nothing to protect from it. How much clients may feel is the operator's
//! choice: [`HealingPace`].

use crate::{Healing, Latencies, Time};

/// Bytes of the smallest copies.
const LEAST_BYTES: u32 = 16 << 10;
/// Copies a second above which they become larger.
const MOST_A_SECOND: u64 = 2048;
/// Where healing begins, not knowing what clients bear, or at the lowest level if that is more.
const FIRST_RATE: u64 = 4 << 20;
/// Bytes a second whatever clients feel, when a shard has one copy left.
const FLOOR_RATE: u64 = 64 << 20;
/// Operations after which a p99 is believed.
const ENOUGH: u64 = 1_500;
/// Percent above the limit up to which more are waited for.
const DOUBT: u64 = 40;
/// Operations without which a p99 says nothing.
const FEW: u64 = 20;
/// Operations at rest that are remembered while more are seen; of more, half is forgotten.
const MEMORY: u64 = 8_000;
/// How long clients are watched while nothing is healed until what was seen counts.
const WATCH_NS: u64 = 2_000_000_000;
/// How many times slower or faster clients at rest are until they are thought to do something else than before.
const ANOTHER_LOAD: u64 = 2;
/// How long operations are collected when they are few.
const PATIENCE_NS: u64 = 3_000_000_000;
/// How long nobody is answered until nobody is there, at least; and how many times longer than they waited last.
const IDLE_NS: u64 = 600_000_000;
const IDLE_WAITS: u64 = 8;
/// How often healing then grows, and by how many levels: those who pause for a moment come back to little.
const CLIMB_NS: u64 = 300_000_000;
const CLIMB: usize = 3;
/// Clients at rest are not faster than this for the throttle: asking costs them as much, and smaller differences drown in it.
const LEAST_REST_NS: u64 = 120_000;
/// What is left to be done of copies when a pause begins still slows clients for so long.
const DUST_NS: u64 = 300_000_000;
/// How long a pause is, to measure clients at rest: what they wait in one moment is much like what they wait in the next, so
/// many operations in little time say little.
const LEAST_PAUSE_NS: u64 = 700_000_000;
const PAUSE_NS: u64 = 1_300_000_000;
/// How old the measure of clients at rest may be.
const OLD_NS: u64 = 10_000_000_000;
/// The same when it is to convict healing.
const YOUNG_NS: u64 = 3_000_000_000;
/// How long a level that was too much is not tried again, at first.
const FIRST_BAR_NS: u64 = 4_000_000_000;
/// The longest such time.
const LONGEST_BAR_NS: u64 = 12_000_000_000;
/// The longest time between two decisions that is believed.
const LONGEST_STEP_NS: u64 = 1_000_000_000;

/// Whom healing is to favour where both cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HealingPace {
    /// Clients: their p99 stays within 1.5 times that at rest. Where the disks are busy all the time, healing then moves
    /// about 1 MiB a second, and takes that long.
    #[default]
    Gentle,
    /// Clients' p99 may double; healing moves 4 MiB a second at least, with rests.
    Balanced,
    /// Healing, whatever clients feel.
    Urgent,
}

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ThrottleRules {
    /// Copies that are under way at most; at least one.
    pub most_copies: u32,
    /// Bytes of a copy at most; 16 KiB at least.
    pub most_bytes: u32,
    /// Up to here healing grows: p99 with healing, in percent of that without; `None`: clients do not count.
    pub more_below: Option<u64>,
    /// From here on it shrinks.
    pub less_above: u64,
    /// Bytes a second of the lowest level; of every second one it is twice as much. A power of two.
    pub least_rate: u64,
    /// The longest time for which nothing is copied although something is to be healed.
    pub longest_rest_ns: u64,
}

impl Default for ThrottleRules {
    fn default() -> Self {
        Self::new(HealingPace::default())
    }
}

impl ThrottleRules {
    /// What a pace means.
    pub fn new(pace: HealingPace) -> Self {
        let (more_below, less_above, least_rate, longest_rest_ns) = match pace {
            HealingPace::Gentle => (Some(125), 140, 1 << 20, 10_000_000_000),
            HealingPace::Balanced => (Some(160), 200, 4 << 20, 3_000_000_000),
            HealingPace::Urgent => (None, u64::MAX, 4 << 20, 0),
        };
        Self {
            most_copies: 4,
            most_bytes: 1 << 20,
            more_below,
            less_above,
            least_rate,
            longest_rest_ns,
        }
    }

    /// The first level with so many bytes a second.
    fn level_of(&self, rate: u64) -> usize {
        1 + 2 * rate.div_ceil(self.least_rate).next_power_of_two().ilog2() as usize
    }

    /// Bytes a second of a level; zero of the first.
    fn rate_of(&self, level: usize) -> u64 {
        let Some(steps) = level.checked_sub(1) else { return 0 };
        let rate = self.least_rate << (steps / 2);
        // Half way to the next one: times the root of two, nearly.
        if steps % 2 == 1 { rate + rate / 12 * 5 } else { rate }
    }
}

/// What healing may do until the next decision: the fields of [`Event::Throttle`](crate::Event::Throttle).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Copies under way at once; zero: none begins.
    pub copies: u32,
    /// Bytes of a copy at most.
    pub bytes: u32,
    /// Bytes a second; `None`: as many as possible.
    pub rate: Option<u64>,
}

/// Decides for one volume.
#[derive(Clone, Debug)]
pub struct Throttle {
    rules: ThrottleRules,
    last: Option<Time>,
    /// Time that has passed between decisions; it never goes back.
    clock: u64,
    /// The level that is thought right.
    level: usize,
    /// The level that was given.
    given: usize,
    /// Whether the next window still shows the level before.
    is_mixed: bool,
    /// Whether the level was reached while there were no clients.
    is_unwatched: bool,
    /// For how long nobody was answered, and how long those waited who were answered last.
    silence: u64,
    last_waits: u64,
    /// Clients at rest, and when they were last measured.
    rest: Latencies,
    rested_at: Option<u64>,
    /// What was seen of them since then, and since when.
    fresh: Latencies,
    fresh_since: u64,
    /// Clients under the present level, and since when.
    busy: Latencies,
    busy_since: u64,
    /// Since when a pause is taken, and what was measured in it.
    pause: Option<(u64, u64)>,
    /// The last level that clients bore.
    borne: usize,
    /// The least level that was too much, until when it is not tried again, and for how long next time.
    barred: usize,
    barred_until: u64,
    bar_ns: u64,
}

impl Throttle {
    /// Begins at a low level.
    pub fn new(rules: ThrottleRules) -> Self {
        Self {
            rules,
            last: None,
            clock: 0,
            level: rules.level_of(FIRST_RATE),
            given: rules.level_of(FIRST_RATE),
            is_mixed: false,
            is_unwatched: false,
            silence: 0,
            last_waits: 0,
            rest: Latencies::default(),
            rested_at: None,
            fresh: Latencies::default(),
            fresh_since: 0,
            busy: Latencies::default(),
            busy_since: 0,
            pause: None,
            borne: 0,
            barred: usize::MAX,
            barred_until: 0,
            bar_ns: FIRST_BAR_NS,
        }
    }

    /// The rules from now on; with others than before it begins anew.
    pub fn obey(&mut self, rules: ThrottleRules) {
        if rules != self.rules {
            *self = Self::new(rules);
        }
    }

    /// Takes the latencies of clients' operations that ended since the last decision, and decides anew. Due when
    /// [`Throttle::interval`] says.
    pub fn decide(&mut self, now: Time, window: &Latencies, healing: Healing) -> Pace {
        let passed = now.0.saturating_sub(self.last.unwrap_or(now).0).min(LONGEST_STEP_NS);
        self.last = Some(now);
        self.clock += passed;
        let is_mixed = std::mem::take(&mut self.is_mixed);
        if !healing.is_wanted {
            self.is_unwatched = false;
            self.note_rest(window, is_mixed);
            self.pause = None;
            self.level = self.rules.level_of(FIRST_RATE).min(self.top());
            return self.give(self.level);
        }
        let Some(more_below) = self.rules.more_below.filter(|_| !healing.is_short) else {
            self.pause = None;
            return self.give(self.top());
        };
        let is_last = healing.fewest <= 1;
        let floor = if is_last { self.rules.level_of(FLOOR_RATE).min(self.top()) } else { 0 };
        if self.is_silent(window, passed) {
            return self.climb(floor);
        }
        if self.pause.is_some() {
            self.rest_on(window, is_mixed);
        } else if self.given == 0 {
            self.note_rest(window, is_mixed);
            let longest = self.bar_ns.min(self.rules.longest_rest_ns);
            // The interval in which it begins again counts too.
            if self.clock - self.busy_since + passed >= longest {
                self.enter(1);
            }
        } else {
            self.judge(window, is_mixed, floor, more_below);
        }
        if floor > 0 {
            self.pause = None;
        }
        let wanted = if self.pause.is_some() { 0 } else { self.level };
        self.give(wanted.max(floor))
    }

    /// Nanoseconds until the next decision is due: soon while nobody is there to be heeded, for whoever comes meets copies as
    /// large as can be; later otherwise, and much later while nothing is healed, to know clients at rest.
    pub fn interval(&self, healing: Healing) -> u64 {
        match (healing.is_wanted, self.is_unwatched) {
            (false, _) => 1_000_000_000,
            (true, false) => 100_000_000,
            (true, true) => 10_000_000,
        }
    }

    fn give(&mut self, level: usize) -> Pace {
        if level != self.given {
            self.is_mixed = true;
            self.busy.clear();
            self.busy_since = self.clock;
        }
        self.given = level;
        self.pace(level)
    }

    fn enter(&mut self, level: usize) {
        self.level = level;
        self.busy.clear();
        self.busy_since = self.clock;
    }

    /// One step towards as much as is possible, since nobody is there.
    fn climb(&mut self, floor: usize) -> Pace {
        if !self.is_unwatched || self.clock - self.busy_since >= CLIMB_NS {
            self.is_unwatched = true;
            self.pause = None;
            self.enter((self.level + CLIMB).min(self.top()));
        }
        self.give(self.level.max(floor))
    }

    fn is_silent(&mut self, window: &Latencies, passed: u64) -> bool {
        if window.count() > 0 {
            (self.silence, self.last_waits) = (0, window.p99());
            return false;
        }
        self.silence += passed;
        self.silence >= IDLE_NS.max(self.last_waits.saturating_mul(IDLE_WAITS))
    }

    fn note_rest(&mut self, window: &Latencies, is_mixed: bool) {
        if is_mixed || window.count() == 0 {
            return;
        }
        if self.fresh.count() == 0 {
            self.fresh_since = self.clock;
        }
        self.fresh.merge(window);
        if self.pause.is_none() && self.clock - self.fresh_since >= WATCH_NS {
            self.believe();
        }
    }

    /// Takes what was seen of clients at rest for how they are now. What they did before counts less the less alike it is: that
    /// they are faster is believed at once, that they are slower may be chance.
    fn believe(&mut self) {
        let (before, now) = (self.rest.p99(), self.fresh.p99());
        let is_believable = self.fresh.count() >= FEW;
        let remembered = match () {
            () if is_believable && before > now.saturating_mul(ANOTHER_LOAD) => 0,
            () if is_believable && now > before.saturating_mul(ANOTHER_LOAD) => ENOUGH,
            () => MEMORY,
        };
        while self.rest.count() > remembered {
            self.rest.halve();
        }
        self.rest.merge(&self.fresh);
        self.fresh.clear();
        self.rested_at = Some(self.clock);
    }

    fn rest_on(&mut self, window: &Latencies, is_mixed: bool) {
        let since = self.pause.map_or(0, |(since, _)| since);
        let is_mixed = is_mixed || self.clock - since <= DUST_NS;
        self.note_rest(window, is_mixed);
        let Some((since, seen)) = &mut self.pause else { return };
        *seen += if is_mixed { 0 } else { window.count() };
        let lasts = self.clock - *since;
        if (*seen >= ENOUGH && lasts >= LEAST_PAUSE_NS) || lasts >= PAUSE_NS {
            // What little came is all there is to know.
            self.believe();
            self.pause = None;
        }
    }

    fn begin_pause(&mut self) {
        self.fresh.clear();
        self.pause = Some((self.clock, 0));
    }

    fn judge(&mut self, window: &Latencies, is_mixed: bool, floor: usize, more_below: u64) {
        if !is_mixed {
            self.busy.merge(window);
        }
        let (spent, seen) = (self.clock - self.busy_since, self.busy.count());
        if seen > 0 && std::mem::take(&mut self.is_unwatched) {
            // Somebody came: what nobody felt says nothing.
            self.borne = 0;
            self.enter(1);
            self.rested_at = None;
        }
        let rest_age = self.rested_at.map_or(u64::MAX, |at| self.clock - at);
        if seen > 0 && (rest_age > OLD_NS || self.rest.count() < FEW) && floor == 0 {
            return self.begin_pause();
        }
        // What is far too much shows at once.
        let rest = self.rest.p99().max(LEAST_REST_NS);
        let is_awful = window.count() >= 2 * FEW
            && window.p99().saturating_mul(100) / rest >= 2 * self.rules.less_above
            && !is_mixed;
        if seen < ENOUGH && spent < PATIENCE_NS && !is_awful {
            return;
        }
        if seen < FEW {
            return self.rise();
        }
        let percent = self.busy.p99().saturating_mul(100) / rest;
        let is_doubtful = percent > self.rules.less_above
            && percent < self.rules.less_above + DOUBT
            && seen < 3 * ENOUGH
            && spent < PATIENCE_NS;
        if is_doubtful && !is_awful {
            return;
        }
        if percent > self.rules.less_above || is_awful {
            self.fall(is_awful);
            if rest_age > YOUNG_NS && floor == 0 {
                self.begin_pause();
            }
        } else if percent < more_below {
            self.rise();
        } else {
            self.borne = self.level;
            self.enter(self.level);
        }
    }

    fn rise(&mut self) {
        self.borne = self.level;
        let next = (self.level + 1).min(self.top());
        if next >= self.barred && self.clock < self.barred_until {
            return self.enter(self.level);
        }
        if self.level >= self.barred {
            // It is borne by now.
            self.barred = usize::MAX;
            self.bar_ns = FIRST_BAR_NS;
        }
        self.enter(next);
    }

    fn fall(&mut self, is_awful: bool) {
        // About the same level again: it is not the load that changed.
        let is_known = self.level.abs_diff(self.barred) <= 1;
        self.bar_ns = if is_known { self.bar_ns.saturating_mul(2) } else { FIRST_BAR_NS };
        self.bar_ns = self.bar_ns.min(LONGEST_BAR_NS);
        self.barred = self.level;
        self.barred_until = self.clock + self.bar_ns;
        // One step too far is taken back; what was borne before and is not now, is not by far.
        let is_step = self.level == self.borne + 1 && !is_awful;
        self.borne = if is_step { self.borne } else { self.level / 2 };
        self.enter(self.borne);
    }

    fn most_bytes(&self) -> u32 {
        self.rules.most_bytes.clamp(LEAST_BYTES, 1 << 30)
    }

    /// The levels that say how many bytes a second: until copies are as large as they may be.
    fn rates(&self) -> usize {
        self.rules.level_of(u64::from(self.most_bytes()) * MOST_A_SECOND)
    }

    fn top(&self) -> usize {
        self.rates() + self.rules.most_copies.max(1) as usize
    }

    fn pace(&self, level: usize) -> Pace {
        let most = self.most_bytes();
        if level > self.rates() {
            let copies = (level - self.rates()) as u32;
            return Pace { copies, bytes: most, rate: None };
        }
        let rate = self.rules.rate_of(level);
        let bytes = u32::try_from((rate / MOST_A_SECOND).next_power_of_two()).unwrap_or(most);
        let copies = u32::from(level > 0);
        Pace { copies, bytes: bytes.clamp(LEAST_BYTES, most), rate: Some(rate) }
    }
}

#[cfg(test)]
#[path = "throttle_tests.rs"]
mod throttle_tests;
