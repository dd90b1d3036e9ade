// SPDX-License-Identifier: Apache-2.0
//! Judges nodes by what they answer to checks, and by errors and latencies of what is done on them.
//!
//! ```text
//!            an error, a failed check, far slower         checks in a row failed,
//!            than before and than others                  or errors persist, or it fails again and again
//!   healthy -------------------------------> suspected ------------------------------------------> down
//!      ^                                      |  ^  ^                                               |  |
//!      +--- nothing of that for a while ------+  |  +---- answers throughout its probation ---------+  | for longer
//!                                                |                                                     | than its grace
//!                                                +------- answers throughout its probation ----- lost <+
//! ```
//! - **Suspected**: nothing happens to data. Reads prefer other replicas, and checks come sooner.
//! - **Down**: its bricks are given up and stay closed; they come back with what they missed.
//! - **Lost**: its shards are to be replicated elsewhere.
//!
//! A node that comes and goes waits longer each time until it counts as back: its probation doubles with each failure and
//! halves with each hour without one. So is the time for which a suspicion holds. When most nodes fail together, the fault
//! is likely to be this host's: nobody is declared lost until a grace after most are back. A node that the operator took
//! out of use may be down, but is not declared lost; its grace begins when it is taken into use again.
//!
//! Time counts only while it is watched: a clock that jumps back, or far ahead, declares nobody lost.

mod node;
mod penalty;

#[cfg(test)]
mod health_tests;

use std::collections::{BTreeMap, VecDeque};

use crate::{NodeId, Time};
use node::Judged;

/// Probation of a node that fails once more, in nanoseconds; it doubles with each further failure.
const FIRST_PROBATION_NS: u64 = 30_000_000_000;
/// The longest probation.
const LONGEST_PROBATION_NS: u64 = 900_000_000_000;
/// How long a first suspicion holds.
const FIRST_CALM_NS: u64 = 10_000_000_000;
/// The longest such time.
const LONGEST_CALM_NS: u64 = 600_000_000_000;
/// The least and the longest time between two checks of a node that is suspected or down.
const SOONEST_NS: u64 = 250_000_000;
const SOON_NS: u64 = 10_000_000_000;

/// What the operator chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthRules {
    /// Checks in a row that a node has to fail to be down, or intervals in a row in which most of its operations fail.
    pub failures: u32,
    /// Time between two checks of a healthy node.
    pub check_ns: u64,
    /// For how long a node is down until it is lost.
    pub grace_ns: u64,
}

/// What a node counts as.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum NodeState {
    /// All is well.
    Healthy,
    /// Something is odd.
    Suspected,
    /// It cannot be relied on.
    Down,
    /// It will not be back soon.
    Lost,
}

/// What was done on a node in an interval, all volumes together. Copies are not counted: they are larger than what clients
/// do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// Operations that ended.
    pub operations: u64,
    /// What failed for a reason that is the node's: operations, also copies, and sessions that could not be begun.
    pub errors: u64,
    /// Bricks that were given up for what they answered, or did not.
    pub falls: u64,
    /// The duration that 99 of 100 operations did not exceed, in nanoseconds.
    pub p99_ns: u64,
}

/// A node that counts as something else now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthChange {
    /// The node.
    pub node: NodeId,
    /// Before.
    pub from: NodeState,
    /// Now.
    pub to: NodeState,
    /// Why; empty when healthy.
    pub why: String,
}

/// What is known of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeHealth {
    /// What it counts as.
    pub state: NodeState,
    /// For how long, in nanoseconds.
    pub for_ns: u64,
    /// Why; empty when healthy.
    pub why: String,
    /// It answers, and is on probation for so much longer, in nanoseconds.
    pub probation_ns: Option<u64>,
}

/// Judges the nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Judge {
    rules: HealthRules,
    last: Option<Time>,
    /// Time that was watched; it never goes back.
    clock: u64,
    nodes: BTreeMap<NodeId, Judged>,
    /// When most nodes were last seen not to answer.
    most_failed_at: u64,
    changes: VecDeque<HealthChange>,
}

impl Judge {
    /// Of no node yet.
    pub fn new(rules: HealthRules) -> Self {
        let rules = HealthRules { failures: rules.failures.max(1), ..rules };
        let nodes = BTreeMap::new();
        Self { rules, last: None, clock: 0, nodes, most_failed_at: 0, changes: VecDeque::new() }
    }

    /// These nodes are registered, each with whether the operator has it in use. New ones are healthy until something says
    /// otherwise; others are forgotten.
    pub fn set_nodes(&mut self, now: Time, nodes: &[(NodeId, bool)]) {
        self.advance(now);
        self.nodes.retain(|id, _| nodes.iter().any(|(other, _)| other == id));
        for (id, available) in nodes {
            let new = Judged::new(self.clock, self.clock.saturating_add(self.rules.check_ns));
            let node = self.nodes.entry(*id).or_insert(new);
            node.set_available(self.clock, *available);
        }
    }

    /// These nodes, which [`Judge::set_nodes`] named, were lost when their volumes were last looked after. Each is lost
    /// still if it does not answer its first check, and back if it does: no second grace begins.
    pub fn presume_lost(&mut self, now: Time, nodes: &[NodeId]) {
        self.advance(now);
        let clock = self.clock;
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id) {
                node.presume_lost(clock);
            }
        }
        self.note_changes();
    }

    /// The nodes that are to be checked now; each is given once until [`Judge::checked`].
    pub fn checks_due(&mut self, now: Time) -> Vec<NodeId> {
        self.advance(now);
        let clock = self.clock;
        let due = self.nodes.iter_mut().filter(|(_, node)| node.check_at <= clock);
        let ask = |(id, node): (&NodeId, &mut Judged)| {
            node.check_at = u64::MAX;
            *id
        };
        due.map(ask).collect()
    }

    /// A check has ended: it took so many nanoseconds, or failed for this reason.
    pub fn checked(&mut self, now: Time, node: NodeId, result: Result<u64, &str>) {
        self.advance(now);
        let (rules, clock) = (self.rules, self.clock);
        if let Some(judged) = self.nodes.get_mut(&node) {
            judged.checked(&rules, clock, result);
        }
        self.note_changes();
    }

    /// A check could not be made, for a reason that is not the node's: it is due again after its usual time.
    pub fn not_checked(&mut self, now: Time, node: NodeId) {
        self.advance(now);
        let (rules, clock) = (self.rules, self.clock);
        if let Some(judged) = self.nodes.get_mut(&node) {
            judged.check_at = clock.saturating_add(rules.check_ns);
        }
    }

    /// What was done on nodes since this was told last. Due about every 5 s; all nodes at once, for they are compared.
    pub fn observed(&mut self, now: Time, windows: &[(NodeId, Window)]) {
        self.advance(now);
        let (rules, clock) = (self.rules, self.clock);
        for (id, window) in windows {
            let others = windows.iter().filter(|(other, _)| other != id).map(|(_, window)| window);
            let peers = node::median_p99(others);
            if let Some(judged) = self.nodes.get_mut(id) {
                judged.observed(&rules, clock, window, peers);
            }
        }
        self.note_changes();
    }

    /// Time passed.
    pub fn tick(&mut self, now: Time) {
        self.advance(now);
        self.note_changes();
    }

    /// The next node that counts as something else.
    pub fn poll_change(&mut self) -> Option<HealthChange> {
        self.changes.pop_front()
    }

    /// What is known of a node; `None` of one that is not registered.
    pub fn health(&self, node: NodeId) -> Option<NodeHealth> {
        Some(self.nodes.get(&node)?.health(self.clock))
    }

    /// The nodes in this state.
    pub fn in_state(&self, state: NodeState) -> Vec<NodeId> {
        let here = self.nodes.iter().filter(|(_, node)| node.state == state);
        here.map(|(id, _)| *id).collect()
    }

    /// The nodes whose shards are to be replicated elsewhere.
    pub fn lost_nodes(&self) -> Vec<NodeId> {
        let lost = |node: &Judged| node.state == NodeState::Lost && !node.is_presumed;
        self.nodes.iter().filter(|(_, node)| lost(node)).map(|(id, _)| *id).collect()
    }

    /// Whether most nodes fail: the fault is likely to be this host's, and nothing is to be replicated elsewhere, nor
    /// moved.
    pub fn most_fail(&self) -> bool {
        self.have_most_failed()
    }

    /// Nanoseconds until a check is due, or a node may count as something else by time alone; `None` without nodes.
    pub fn due_in(&self) -> Option<u64> {
        let floor = self.grace_floor();
        let due = self.nodes.values().map(|node| {
            let by_time = node.due(&self.rules, floor);
            node.check_at.min(by_time).saturating_sub(self.clock)
        });
        due.min()
    }

    fn advance(&mut self, now: Time) {
        let passed = now.0.saturating_sub(self.last.unwrap_or(now).0);
        self.last = Some(now);
        // Of what nobody watched nothing is concluded.
        self.clock += passed.min(self.rules.check_ns.max(SOON_NS).saturating_mul(2));
        if self.have_most_failed() {
            self.most_failed_at = self.clock;
        }
        let (clock, floor) = (self.clock, self.grace_floor());
        for node in self.nodes.values_mut() {
            node.pass(&self.rules, clock, floor);
        }
    }

    /// The earliest time at which a grace may have begun.
    fn grace_floor(&self) -> u64 {
        if self.have_most_failed() { u64::MAX } else { self.most_failed_at }
    }

    /// Whether most of those that count fail. Who is lost counts no more: it did not fail together with the others.
    fn have_most_failed(&self) -> bool {
        let counting = self.nodes.values().filter(|node| node.counts());
        let (all, failed) = counting.fold((0_usize, 0_usize), |(all, failed), node| {
            (all + 1, failed + usize::from(node.fails()))
        });
        failed * 2 > all
    }

    fn note_changes(&mut self) {
        for (id, node) in &mut self.nodes {
            for (from, to, why) in node.changes.drain(..) {
                self.changes.push_back(HealthChange { node: *id, from, to, why });
            }
        }
    }
}
