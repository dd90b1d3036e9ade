// SPDX-License-Identifier: Apache-2.0
//! The judge over simulated time.

use std::collections::BTreeMap;

use super::{HealthChange, HealthRules, Judge, NodeState, Window};
use crate::{NodeId, Time};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const RULES: HealthRules = HealthRules { failures: 5, check_ns: MINUTE, grace_ns: 10 * MINUTE };
/// Most changes of one node within an hour, whatever it does.
const MOST_PER_HOUR: usize = 32;

/// A node at a time: whether it answers, and what was done on it since the time before that.
type Truth<'a> = dyn FnMut(NodeId, u64) -> (bool, Window) + 'a;

struct World {
    judge: Judge,
    now: u64,
    observed: u64,
    changes: Vec<(u64, HealthChange)>,
}

fn nodes(count: u32) -> Vec<(NodeId, bool)> {
    (0..count).map(|node| (NodeId(node), true)).collect()
}

fn well() -> Window {
    Window { operations: 1_000, errors: 0, falls: 0, p99_ns: 2_000_000 }
}

impl World {
    fn new(count: u32) -> Self {
        Self::with(count, RULES)
    }

    fn with(count: u32, rules: HealthRules) -> Self {
        let mut judge = Judge::new(rules);
        judge.set_nodes(Time(HOUR), &nodes(count));
        Self { judge, now: HOUR, observed: HOUR, changes: Vec::new() }
    }

    /// Lives for so long; checks end at once.
    fn live(&mut self, nanoseconds: u64, truth: &mut Truth<'_>) {
        let end = self.now + nanoseconds;
        while self.now < end {
            let due = self.judge.due_in().unwrap_or(u64::MAX);
            let step = due.min(self.observed + 5 * SECOND - self.now).min(end - self.now);
            self.now += step;
            self.judge.tick(Time(self.now));
            self.take();
            for node in self.judge.checks_due(Time(self.now)) {
                let result = if truth(node, self.now).0 { Ok(1_000_000) } else { Err("no answer") };
                self.judge.checked(Time(self.now), node, result);
            }
            if self.now >= self.observed + 5 * SECOND {
                self.observed = self.now;
                let ids: Vec<NodeId> = self.judge.nodes.keys().copied().collect();
                let windows: Vec<_> =
                    ids.into_iter().map(|node| (node, truth(node, self.now).1)).collect();
                self.judge.observed(Time(self.now), &windows);
            }
            self.take();
        }
    }

    fn take(&mut self) {
        while let Some(change) = self.judge.poll_change() {
            self.changes.push((self.now, change));
        }
    }

    fn state(&self, node: u32) -> NodeState {
        self.judge.health(NodeId(node)).unwrap().state
    }

    /// When a node came to this state, last.
    fn when(&self, node: u32, state: NodeState) -> Option<u64> {
        let here =
            |(_, change): &&(u64, HealthChange)| change.node == NodeId(node) && change.to == state;
        self.changes.iter().rev().find(here).map(|(at, _)| *at)
    }

    fn path(&self, node: u32) -> Vec<NodeState> {
        let of = self.changes.iter().filter(|(_, change)| change.node == NodeId(node));
        of.map(|(_, change)| change.to).collect()
    }

    /// The most changes of any one node within an hour.
    fn busiest_hour(&self) -> usize {
        let mut by_node: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
        for (at, change) in &self.changes {
            by_node.entry(change.node).or_default().push(*at);
        }
        let busiest = |times: &Vec<u64>| {
            let within =
                |from: u64| times.iter().filter(|at| (from..from + HOUR).contains(at)).count();
            times.iter().map(|at| within(*at)).max().unwrap_or_default()
        };
        by_node.values().map(busiest).max().unwrap_or_default()
    }
}

use NodeState::{Down, Healthy, Lost, Suspected};

#[test]
fn a_node_is_suspected_then_down_then_lost_after_exactly_its_grace() {
    let mut world = World::new(3);
    world.live(HOUR, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.path(1), [Suspected, Down, Lost]);
    let suspected = world.when(1, Suspected).unwrap();
    assert_eq!(suspected, HOUR + MINUTE, "with its first check");
    let down = world.when(1, Down).unwrap();
    assert_eq!(down - suspected, 4 * MINUTE / 8, "four more checks, which come sooner");
    assert_eq!(world.when(1, Lost).unwrap() - down, RULES.grace_ns);
    assert_eq!(world.judge.lost_nodes(), [NodeId(1)]);
    let health = world.judge.health(NodeId(1)).unwrap();
    assert_eq!((health.why.as_str(), health.probation_ns), ("no answer", None));
    assert_eq!((world.path(0), world.path(2)), (vec![], vec![]));
}

#[test]
fn checks_that_fail_now_and_then_make_nobody_down() {
    let mut world = World::new(3);
    let mut checks = 0;
    world.live(5 * HOUR, &mut |node, _| {
        checks += u32::from(node == NodeId(1));
        (node != NodeId(1) || checks % 5 != 0, well())
    });
    assert!(!world.path(1).contains(&Down), "{:?}", world.path(1));
    assert!(world.busiest_hour() <= MOST_PER_HOUR);
}

#[test]
fn a_node_that_was_away_once_is_back_with_its_next_check() {
    let mut world = World::new(3);
    let away = |now: u64| (2 * HOUR..2 * HOUR + 5 * MINUTE).contains(&now);
    world.live(3 * HOUR, &mut |node, now| (node != NodeId(1) || !away(now), well()));
    assert_eq!(world.path(1), [Suspected, Down, Suspected, Healthy]);
    let back = world.changes[2].0 - (2 * HOUR + 5 * MINUTE);
    assert!(back <= 10 * SECOND, "after {} s", back / SECOND);
}

#[test]
fn a_lost_node_comes_back_after_a_probation() {
    let mut world = World::new(3);
    let back = 3 * HOUR;
    world.live(4 * HOUR, &mut |node, now| (node != NodeId(1) || now >= back, well()));
    assert_eq!(world.path(1), [Suspected, Down, Lost, Suspected, Healthy]);
    let served = world.changes[3].0 - back;
    assert!((30 * SECOND..=100 * SECOND).contains(&served), "after {} s", served / SECOND);
}

#[test]
fn a_node_that_comes_and_goes_makes_no_storm() {
    let mut most = 0;
    for rules in [RULES, HealthRules { failures: 1, check_ns: SECOND, grace_ns: MINUTE }] {
        for period in [2, 10, 60, 300, 1200, 3000] {
            for up in [1, 5, 9] {
                let period = period * SECOND;
                let mut world = World::with(3, rules);
                world.live(8 * HOUR, &mut |node, now| {
                    (node != NodeId(1) || now % period < period / 10 * up, well())
                });
                most = most.max(world.busiest_hour());
                assert!(
                    world.busiest_hour() <= MOST_PER_HOUR,
                    "{} s, {up}/10 of it up: {} changes in an hour",
                    period / SECOND,
                    world.busiest_hour()
                );
                let last = world.changes.iter().filter(|(at, _)| *at > 5 * HOUR);
                let downs = last.filter(|(_, change)| change.to == Down).count();
                assert!(downs <= 4 * 4, "{} s: down {downs} times in 4 h", period / SECOND);
            }
        }
    }
    println!("most changes within an hour: {most}");
}

#[test]
fn bricks_that_fail_again_and_again_make_no_storm() {
    let mut most = 0;
    for every in [5, 10, 40, 100, 400, 1000] {
        let mut world = World::new(3);
        let mut downs = 0;
        world.live(8 * HOUR, &mut |node, now| {
            let falls = node == NodeId(1) && now / SECOND % every < 5;
            (true, Window { falls: u64::from(falls), ..well() })
        });
        downs += world.path(1).iter().filter(|state| **state == Down).count();
        most = most.max(world.busiest_hour());
        assert!(world.busiest_hour() <= MOST_PER_HOUR, "every {every} s");
        assert!(downs > 2, "every {every} s: down {downs} times");
    }
    println!("most changes within an hour: {most}");
}

#[test]
fn probation_doubles_and_is_forgiven() {
    let mut world = World::new(3);
    let mut waited = Vec::new();
    for _ in 0..8 {
        world.live(MINUTE * 2, &mut |node, _| (node != NodeId(1), well()));
        assert_eq!(world.state(1), Down);
        let begun = world.now;
        while world.state(1) == Down {
            world.live(SECOND, &mut |_, _| (true, well()));
        }
        waited.push((world.now - begun) / SECOND);
    }
    let expected = [0, 30, 60, 120, 240, 480, 900, 900];
    for (waited, expected) in waited.iter().zip(expected) {
        assert!((expected..=expected + 16).contains(waited), "{waited} s, not {expected}");
    }
    world.live(8 * HOUR, &mut |_, _| (true, well()));
    world.live(2 * MINUTE, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.state(1), Down);
    world.live(10 * SECOND, &mut |_, _| (true, well()));
    assert_ne!(world.state(1), Down, "forgiven");
}

#[test]
fn when_most_fail_together_nobody_is_lost() {
    for failing in [3, 5] {
        let mut world = World::new(5);
        let (from, to) = (2 * HOUR, 8 * HOUR);
        let fails = |node: NodeId, now: u64| node.0 < failing && (from..to).contains(&now);
        world.live(9 * HOUR, &mut |node, now| (!fails(node, now), well()));
        assert!(world.changes.iter().any(|(_, change)| change.to == Down));
        assert!(world.changes.iter().all(|(_, change)| change.to != Lost), "{failing} of 5");
        assert!((0..5).all(|node| world.state(node) == Healthy));
    }
}

#[test]
fn who_is_missing_after_a_common_failure_has_its_whole_grace() {
    let mut world = World::new(5);
    let back = 8 * HOUR;
    world.live(9 * HOUR, &mut |node, now| {
        (node.0 >= 3 || (node != NodeId(1) && now >= back), well())
    });
    assert_eq!(world.judge.lost_nodes(), [NodeId(1)]);
    let after = world.when(1, Lost).unwrap() - back;
    assert!((RULES.grace_ns..=RULES.grace_ns + 10 * SECOND).contains(&after), "{after}");
}

#[test]
fn nodes_that_fail_one_after_another_are_lost_one_after_another() {
    let mut world = World::new(5);
    let dies = |node: NodeId| HOUR * u64::from(2 + node.0);
    world.live(8 * HOUR, &mut |node, now| (node.0 >= 3 || now < dies(node), well()));
    assert_eq!(world.judge.lost_nodes(), [NodeId(0), NodeId(1), NodeId(2)]);
}

#[test]
fn a_node_out_of_use_is_not_lost_and_has_its_grace_when_it_is_used_again() {
    let mut world = World::new(3);
    let mut dead = |node: NodeId, _: u64| (node != NodeId(1), well());
    let mut set = nodes(3);
    set[1].1 = false;
    world.judge.set_nodes(Time(world.now), &set);
    world.live(5 * HOUR, &mut dead);
    assert_eq!(world.path(1), [Suspected, Down]);
    world.judge.set_nodes(Time(world.now), &nodes(3));
    let used = world.now;
    world.live(HOUR, &mut dead);
    assert_eq!(world.when(1, Lost), Some(used + RULES.grace_ns));
    world.judge.set_nodes(Time(world.now), &set[..1]);
    assert_eq!((world.judge.lost_nodes(), world.judge.health(NodeId(1))), (vec![], None));
}

#[test]
fn a_clock_that_jumps_makes_nobody_lost() {
    let mut world = World::new(3);
    world.live(6 * MINUTE, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.state(1), Down);
    let down_for = world.judge.health(NodeId(1)).unwrap().for_ns;
    // Far ahead: at most what would have been watched counts.
    world.judge.tick(Time(world.now + 100 * HOUR));
    assert_eq!(world.state(1), Down);
    let ahead = world.judge.health(NodeId(1)).unwrap().for_ns;
    assert_eq!(ahead, down_for + 2 * MINUTE);
    // Back: no time passed.
    world.judge.tick(Time(0));
    assert_eq!(world.judge.health(NodeId(1)).unwrap().for_ns, ahead);
    (world.now, world.observed) = (0, 0);
    world.live(RULES.grace_ns - ahead - 1, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.state(1), Down);
    world.live(1, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.state(1), Lost, "the rest of its grace, to the nanosecond");
}

#[test]
fn one_that_became_far_slower_than_others_is_suspected_until_it_is_quick_again() {
    let mut world = World::new(4);
    let slow = |now: u64| (2 * HOUR..2 * HOUR + 5 * MINUTE).contains(&now);
    world.live(3 * HOUR, &mut |node, now| {
        let p99_ns = if node == NodeId(2) && slow(now) { 60_000_000 } else { 2_000_000 };
        (true, Window { p99_ns, ..well() })
    });
    assert_eq!(world.path(2), [Suspected, Healthy]);
    let (at, change) = &world.changes[0];
    assert!((2 * HOUR + 10 * SECOND..=2 * HOUR + 20 * SECOND).contains(at), "the third interval");
    assert!(change.why.contains("60 ms") && change.why.contains("2 ms"), "{}", change.why);
    assert!(world.changes[1].0 - (2 * HOUR + 5 * MINUTE) <= 20 * SECOND);
}

#[test]
fn nobody_is_suspected_who_is_slow_with_all_others_or_always_was_or_did_little() {
    let spike = |now: u64| (2 * HOUR..2 * HOUR + 5 * MINUTE).contains(&now);
    let p99 = |is_slow: bool| if is_slow { 100_000_000 } else { 2_000_000 };
    for case in 0..3 {
        let mut world = World::new(4);
        world.live(3 * HOUR, &mut |node, now| {
            let is_slow = match case {
                0 => spike(now),
                1 => node == NodeId(2),
                _ => node == NodeId(2) && spike(now),
            };
            let operations = if case == 2 { 5 } else { 1_000 };
            (true, Window { p99_ns: p99(is_slow), operations, ..well() })
        });
        assert_eq!(world.changes, [], "case {case}");
    }
}

#[test]
fn single_errors_are_suspicious_and_errors_that_persist_are_a_failure() {
    let mut world = World::new(3);
    let mut world_of = |errors: u64, rounds: u64| {
        let until = world.now + rounds * 5 * SECOND;
        world.live(HOUR, &mut |node, now| {
            let bad = node == NodeId(0) && now <= until;
            (true, Window { errors: if bad { errors } else { 0 }, ..well() })
        });
        std::mem::take(&mut world.changes).into_iter().map(|(_, c)| c.to).collect::<Vec<_>>()
    };
    assert_eq!(world_of(1, 1), [Suspected, Healthy]);
    assert_eq!(world_of(900, 4), [Suspected, Healthy], "four intervals of five");
    assert_eq!(world_of(900, 5), [Suspected, Down, Suspected, Healthy]);
}

#[test]
fn a_check_that_takes_long_is_suspicious() {
    let mut judge = Judge::new(RULES);
    judge.set_nodes(Time(0), &nodes(1));
    judge.checked(Time(0), NodeId(0), Ok(3 * SECOND));
    assert_eq!(judge.poll_change().map(|change| change.to), Some(Suspected));
    assert!(judge.health(NodeId(0)).unwrap().why.contains("3000 ms"));
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A history of a seed: nodes fail and come back, alone and together, and clocks jump.
fn history(seed: u64) -> World {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let count = 1 + random.below(8) as u32;
    let rules = HealthRules {
        failures: 1 + random.below(6) as u32,
        check_ns: SECOND * (1 + random.below(90)),
        grace_ns: SECOND * (1 + random.below(1200)),
    };
    let mut world = World::with(count, rules);
    let mut dead = vec![false; count as usize];
    let mut used = nodes(count);
    let mut weather = Random(seed | 1);
    for _ in 0..60 {
        match random.below(12) {
            0 => dead.fill(true),
            1 => dead.fill(false),
            2 => {
                let node = random.below(u64::from(count)) as usize;
                used[node].1 = !used[node].1;
                world.judge.set_nodes(Time(world.now), &used);
            }
            3 if seed.is_multiple_of(2) => {
                let jump = random.below(2 * HOUR);
                world.now = if random.below(2) == 0 {
                    world.now + jump
                } else {
                    world.now.saturating_sub(jump)
                };
                world.observed = world.now;
            }
            _ => {
                let node = random.below(u64::from(count)) as usize;
                dead[node] = !dead[node];
            }
        }
        let noise = random.below(3) == 0;
        let length = SECOND * (1 + random.below(1800));
        let before = world.changes.len();
        let begun = world.now;
        let all_count = used.iter().all(|(_, used)| *used) && world.judge.lost_nodes().is_empty();
        // Who is lost before the others are known to fail counts no more.
        let mut any_lost = false;
        let gone = dead.iter().filter(|dead| **dead).count();
        let far_gone = all_count && gone * 2 > dead.len();
        let in_use = used.clone();
        world.live(length, &mut |node, _| {
            let odd = noise && weather.below(20) == 0;
            let window = Window {
                errors: if odd { weather.below(1_000) } else { 0 },
                falls: u64::from(odd && weather.below(2) == 0),
                p99_ns: 2_000_000 << if odd { weather.below(8) } else { 0 },
                ..well()
            };
            let hiccup = odd && weather.below(3) == 0;
            (!dead[node.0 as usize] && !hiccup, window)
        });
        for (at, change) in &world.changes[before..] {
            let index = change.node.0 as usize;
            assert!(change.to != Lost || in_use[index].1, "seed {seed}: out of use, and lost");
            // By then every node was checked.
            let is_known = far_gone && !any_lost && *at > begun + rules.check_ns + 10 * SECOND;
            assert!(change.to != Lost || !is_known, "seed {seed}: lost while most fail");
            any_lost |= change.to == Lost;
        }
    }
    world
}

#[test]
fn histories_keep_to_the_drawn_ways_and_give_the_same_again() {
    let mut losses = 0;
    for seed in 1..=80 {
        let world = history(seed);
        let drawn = [
            (Healthy, Suspected),
            (Suspected, Healthy),
            (Suspected, Down),
            (Down, Suspected),
            (Down, Lost),
            (Lost, Suspected),
        ];
        let mut states: BTreeMap<NodeId, NodeState> = BTreeMap::new();
        let mut downs = BTreeMap::new();
        for (at, change) in &world.changes {
            if change.to == Down {
                downs.insert(change.node, *at);
            }
            if change.to == Lost && seed % 2 == 1 {
                let down_for = at - downs[&change.node];
                assert!(down_for >= world.judge.rules.grace_ns, "seed {seed}: {down_for} ns");
            }
            let before = states.insert(change.node, change.to).unwrap_or(Healthy);
            assert_eq!(before, change.from, "seed {seed}: {change:?}");
            assert!(drawn.contains(&(change.from, change.to)), "seed {seed}: {change:?}");
            assert_eq!(change.why.is_empty(), change.to == Healthy, "seed {seed}: {change:?}");
            losses += usize::from(change.to == Lost);
        }
        let again = history(seed);
        assert_eq!(world.changes, again.changes, "seed {seed}");
    }
    assert!(losses > 30, "the histories show too little: {losses} losses");
}

#[test]
fn who_was_lost_before_is_lost_still_unless_it_answers() {
    let mut world = World::new(4);
    world.judge.presume_lost(Time(world.now), &[NodeId(1), NodeId(2), NodeId(9)]);
    assert_eq!(world.judge.in_state(Lost), [NodeId(1), NodeId(2)]);
    assert!(world.judge.lost_nodes().is_empty(), "nobody has asked them yet");
    world.live(MINUTE, &mut |node, _| (node != NodeId(1), well()));
    assert_eq!(world.judge.lost_nodes(), [NodeId(1)], "without a second grace");
    assert_eq!(world.path(2), [Lost, Suspected, Healthy]);
    assert!(!world.judge.most_fail());
}
