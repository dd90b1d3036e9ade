// SPDX-License-Identifier: Apache-2.0
//! One node before the judge.

use super::{
    FIRST_CALM_NS, FIRST_PROBATION_NS, HealthRules, LONGEST_CALM_NS, LONGEST_PROBATION_NS,
    NodeHealth, NodeState, SOON_NS, SOONEST_NS, Window,
    penalty::{Penalty, doubled},
};

/// Operations without which a p99 says nothing.
const FEW: u64 = 32;
/// What is quicker than this is never slow, in nanoseconds.
const QUICK_NS: u64 = 20_000_000;
/// Times that a node has to be slower than it was, and than others are.
const SLOWER_THAN_BEFORE: u64 = 8;
const SLOWER_THAN_OTHERS: u64 = 4;
/// Intervals in a row in which it has to be.
const SLOW_ROUNDS: u32 = 3;
/// A check that takes longer is odd.
const SLOW_CHECK_NS: u64 = 2_000_000_000;
/// Failures within this time are one.
const ONE_FAILURE_NS: u64 = 10_000_000_000;
/// Failures that are not forgiven, from which on a node is down although it answers checks.
const TOO_OFTEN: u32 = 3;

#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) state: NodeState,
    /// Since when, and why.
    since: u64,
    why: String,
    /// Whether the operator has it in use, and since when.
    available: bool,
    available_since: u64,
    /// When it is to be checked; never while it is being checked.
    pub(super) check_at: u64,
    /// Checks in a row that failed.
    failed: u32,
    /// Since when no check succeeds; `None`: the last one did.
    silent_since: Option<u64>,
    /// Since when it answers while it is down or lost, and for how long it has to.
    answers_since: Option<u64>,
    probation_ns: u64,
    /// Intervals in a row in which most operations failed, and in which it was slow.
    bad_rounds: u32,
    slow_rounds: u32,
    /// When something was odd last.
    odd_at: u64,
    /// How it usually is, in nanoseconds; zero: not known.
    usual_p99: u64,
    /// Failures, and suspicions.
    failures: Penalty,
    doubts: Penalty,
    /// It was lost before this judge began, and was not found silent since.
    pub(super) is_presumed: bool,
    /// What was not told yet.
    pub(super) changes: Vec<(NodeState, NodeState, String)>,
}

impl Judged {
    pub(super) fn new(clock: u64, check_at: u64) -> Self {
        Self {
            state: NodeState::Healthy,
            since: clock,
            why: String::new(),
            available: true,
            available_since: clock,
            check_at,
            failed: 0,
            silent_since: None,
            answers_since: None,
            probation_ns: 0,
            bad_rounds: 0,
            slow_rounds: 0,
            odd_at: clock,
            usual_p99: 0,
            failures: Penalty::default(),
            doubts: Penalty::default(),
            is_presumed: false,
            changes: Vec::new(),
        }
    }

    pub(super) fn set_available(&mut self, clock: u64, available: bool) {
        if available && !self.available {
            self.available_since = clock;
        }
        self.available = available;
    }

    /// Whether it is one of those of which most may fail together.
    pub(super) fn counts(&self) -> bool {
        self.available && self.state != NodeState::Lost
    }

    /// It was lost when somebody last looked: it is checked at once, and back as soon as it answers.
    pub(super) fn presume_lost(&mut self, clock: u64) {
        self.is_presumed = true;
        self.check_at = clock;
        self.enter(
            clock,
            NodeState::Lost,
            "it was lost when this host was last at work".to_owned(),
        );
    }

    pub(super) fn fails(&self) -> bool {
        self.state == NodeState::Down || self.silent_since.is_some()
    }

    pub(super) fn health(&self, clock: u64) -> NodeHealth {
        let served = self.answers_since.map(|since| clock.saturating_sub(since));
        NodeHealth {
            state: self.state,
            for_ns: clock.saturating_sub(self.since),
            why: self.why.clone(),
            probation_ns: served.map(|served| self.probation_ns.saturating_sub(served)),
        }
    }

    pub(super) fn checked(&mut self, rules: &HealthRules, clock: u64, result: Result<u64, &str>) {
        match result {
            Ok(took) => {
                self.failed = 0;
                self.silent_since = None;
                if self.is_out() {
                    self.answers_since.get_or_insert(clock);
                    self.end_probation(clock);
                } else if took > SLOW_CHECK_NS {
                    self.suspect(clock, format!("its check took {} ms", took / 1_000_000));
                }
            }
            Err(why) => {
                self.is_presumed = false;
                self.failed = self.failed.saturating_add(1);
                let silent_since = *self.silent_since.get_or_insert(clock);
                if self.is_out() {
                    if self.answers_since.take().is_some() {
                        // It was not back yet: this counts as a further failure.
                        self.failures.strike(clock);
                        self.begin_probation(clock, 0);
                    }
                    why.clone_into(&mut self.why);
                } else {
                    self.suspect(clock, why.to_owned());
                }
                if !self.is_out() && self.failed >= rules.failures {
                    if !self.failures.is_since(silent_since.saturating_sub(ONE_FAILURE_NS)) {
                        self.failures.strike(clock);
                    }
                    self.begin_probation(clock, 0);
                    self.enter(clock, NodeState::Down, why.to_owned());
                }
            }
        }
        self.check_at = clock.saturating_add(self.check_interval(rules));
    }

    fn check_interval(&self, rules: &HealthRules) -> u64 {
        let soon = (rules.check_ns / 8).clamp(SOONEST_NS, SOON_NS).min(rules.check_ns);
        let in_doubt = matches!(self.state, NodeState::Suspected | NodeState::Down);
        if in_doubt || self.answers_since.is_some() { soon } else { rules.check_ns }
    }

    pub(super) fn observed(
        &mut self,
        rules: &HealthRules,
        clock: u64,
        window: &Window,
        peers: Option<u64>,
    ) {
        let is_slow = self.is_slow(window, peers);
        self.slow_rounds = if is_slow { self.slow_rounds.saturating_add(1) } else { 0 };
        if window.errors * 2 >= window.operations && window.errors > 0 {
            self.bad_rounds = self.bad_rounds.saturating_add(1);
        } else if window.operations > 0 {
            self.bad_rounds = 0;
        }
        if self.is_out() {
            return;
        }
        if window.falls > 0 && !self.failures.is_since(clock.saturating_sub(ONE_FAILURE_NS)) {
            self.failures.strike(clock);
        }
        let failed = if window.errors > 0 {
            format!("{} errors in {} operations", window.errors, window.operations)
        } else {
            "a brick was given up for what it answered, or did not".to_owned()
        };
        if self.bad_rounds >= rules.failures {
            if !self.failures.is_since(clock.saturating_sub(ONE_FAILURE_NS)) {
                self.failures.strike(clock);
            }
            self.fail_although_it_answers(clock, failed);
        } else if window.falls > 0 && self.failures.strikes(clock) >= TOO_OFTEN {
            let why = "its bricks fail again and again".to_owned();
            self.fail_although_it_answers(clock, why);
        } else if window.errors > 0 || window.falls > 0 {
            self.suspect(clock, failed);
        } else if self.slow_rounds >= SLOW_ROUNDS {
            let ms = |ns: u64| ns / 1_000_000;
            let (took, others) = (ms(window.p99_ns), ms(peers.unwrap_or_default()));
            self.suspect(clock, format!("p99 is {took} ms, that of other nodes {others} ms"));
        }
    }

    /// Whether it is slow now; takes note of how it is.
    fn is_slow(&mut self, window: &Window, peers: Option<u64>) -> bool {
        if window.operations < FEW {
            return false;
        }
        let (p99, usual) = (window.p99_ns, self.usual_p99);
        let is_slow = usual > 0
            && p99 > QUICK_NS
            && p99 > usual.saturating_mul(SLOWER_THAN_BEFORE)
            && peers.is_some_and(|peers| p99 > peers.saturating_mul(SLOWER_THAN_OTHERS));
        self.usual_p99 = match usual {
            0 => p99.max(1),
            // What is slow for long becomes usual: this doubles in a quarter of an hour.
            usual if is_slow => usual.saturating_add(usual / 256 + 1),
            usual => (usual - usual / 16).saturating_add(p99 / 16).max(1),
        };
        is_slow
    }

    fn suspect(&mut self, clock: u64, why: String) {
        self.odd_at = clock;
        if self.state == NodeState::Healthy {
            self.doubts.strike(clock);
            self.enter(clock, NodeState::Suspected, why);
            if self.check_at != u64::MAX {
                self.check_at = self.check_at.min(clock);
            }
        } else {
            self.why = why;
        }
    }

    fn fail_although_it_answers(&mut self, clock: u64, why: String) {
        self.suspect(clock, why.clone());
        self.begin_probation(clock, FIRST_PROBATION_NS);
        self.answers_since = self.silent_since.is_none().then_some(clock);
        self.bad_rounds = 0;
        self.enter(clock, NodeState::Down, why);
    }

    fn begin_probation(&mut self, clock: u64, least: u64) {
        let repeated = self.failures.strikes(clock).saturating_sub(1);
        let probation = doubled(FIRST_PROBATION_NS, repeated, LONGEST_PROBATION_NS);
        self.probation_ns = probation.max(least);
    }

    fn end_probation(&mut self, clock: u64) {
        if self.answers_since.is_some_and(|since| clock - since >= self.probation_ns) {
            self.odd_at = clock;
            self.answers_since = None;
            self.enter(clock, NodeState::Suspected, format!("it was away: {}", self.why));
        }
    }

    fn is_out(&self) -> bool {
        matches!(self.state, NodeState::Down | NodeState::Lost)
    }

    fn enter(&mut self, clock: u64, state: NodeState, why: String) {
        self.changes.push((self.state, state, why.clone()));
        self.state = state;
        self.since = clock;
        self.why = why;
    }

    /// Time passed. No grace began before `floor`.
    pub(super) fn pass(&mut self, rules: &HealthRules, clock: u64, floor: u64) {
        match self.state {
            NodeState::Suspected if self.calm_at() <= clock && self.silent_since.is_none() => {
                self.enter(clock, NodeState::Healthy, String::new());
            }
            NodeState::Down if self.lost_at(rules, floor) <= clock => {
                self.begin_probation(clock, FIRST_PROBATION_NS);
                let why = self.why.clone();
                self.enter(clock, NodeState::Lost, why);
            }
            _ => {}
        }
    }

    /// When time alone makes it something else; never, if it does not.
    pub(super) fn due(&self, rules: &HealthRules, floor: u64) -> u64 {
        match self.state {
            NodeState::Suspected if self.silent_since.is_none() => self.calm_at(),
            NodeState::Down => self.lost_at(rules, floor),
            _ => u64::MAX,
        }
    }

    fn calm_at(&self) -> u64 {
        let strikes = self.doubts.strikes(self.odd_at).max(1);
        self.odd_at.saturating_add(doubled(FIRST_CALM_NS, strikes, LONGEST_CALM_NS))
    }

    /// While it answers it is about to be back, but not for ever.
    fn lost_at(&self, rules: &HealthRules, floor: u64) -> u64 {
        if !self.available {
            return u64::MAX;
        }
        let begun = self.since.max(floor).max(self.available_since);
        let out_for_long = rules.grace_ns.saturating_add(LONGEST_PROBATION_NS);
        let in_any_case = begun.saturating_add(out_for_long);
        match self.silent_since {
            Some(silent) => begun.max(silent).saturating_add(rules.grace_ns).min(in_any_case),
            None => in_any_case,
        }
    }
}

/// The median of the p99 of nodes that did enough for one.
pub(super) fn median_p99<'a>(windows: impl Iterator<Item = &'a Window>) -> Option<u64> {
    let mut all: Vec<u64> =
        windows.filter(|window| window.operations >= FEW).map(|window| window.p99_ns).collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}
