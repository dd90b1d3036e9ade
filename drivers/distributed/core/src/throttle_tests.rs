// SPDX-License-Identifier: Apache-2.0
//! The throttle over a model of a disk: one queue, clients that come when they come, copies that come one after another.

use std::collections::{BTreeMap, VecDeque};

use super::{FIRST_RATE, HealingPace, Pace, Throttle, ThrottleRules};
use crate::{Healing, Latencies, Time, budget::Budget};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const WANTED: Healing = Healing { is_wanted: true, fewest: 2, is_short: false };

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> u64 {
        (-mean * (1.0 - self.next()).ln()) as u64
    }
}

/// A disk: what an operation costs, and what a byte of a copy costs besides, in nanoseconds.
#[derive(Clone, Copy)]
struct Disk {
    fixed: u64,
    varying: u64,
    each_kib: u64,
    /// Part of the time that clients occupy.
    load: f64,
}

/// NVMe or a good SSD: 0.1 ms, 500 MB/s.
const SSD: Disk = Disk { fixed: 60_000, varying: 40_000, each_kib: 2_000, load: 0.5 };
/// A disk with an arm: 6 ms, 150 MB/s.
const ARM: Disk = Disk { fixed: 2_000_000, varying: 4_000_000, each_kib: 6_700, load: 0.4 };

#[derive(Clone, Copy)]
enum Job {
    Client { came: u64 },
    Copy { bytes: u32 },
}

/// What a run was like.
struct Run {
    clients: Latencies,
    /// Part of the time that clients left and copies took.
    share: f64,
    paces: Vec<Pace>,
    levels: Vec<usize>,
    longest_rest: u64,
}

/// Runs for so long; without rules nothing is healed. The load changes to `later` at half time.
fn run(disk: Disk, later: f64, seconds: u64, healing: Option<Healing>, seed: u64) -> Run {
    run_at(HealingPace::Gentle, disk, later, seconds, healing, seed)
}

fn run_at(
    pace: HealingPace,
    disk: Disk,
    later: f64,
    seconds: u64,
    healing: Option<Healing>,
    seed: u64,
) -> Run {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    // What copies do must not change when clients come.
    let mut arrivals = Random(seed.wrapping_mul(0xD1B5_4A32_D192_ED03) | 1);
    let mean = disk.fixed as f64 + disk.varying as f64;
    let warm = 2 * SECOND;
    let end = warm + seconds * SECOND;
    let mut throttle = Throttle::new(ThrottleRules::new(pace));
    let (mut queue, mut thinking) = (VecDeque::new(), BTreeMap::new());
    let mut serving: Option<(u64, Job)> = None;
    let (mut next_client, mut next_decision, mut ids) = (0, 0, 0_u64);
    let (mut window, mut clients) = (Latencies::default(), Latencies::default());
    let nothing_allowed = Pace { copies: 0, bytes: 0, rate: None };
    let (mut pace, mut budget) = (nothing_allowed, Budget::unlimited());
    let (mut paces, mut levels) = (Vec::new(), Vec::new());
    let (mut in_flight, mut copying, mut occupied) = (0_u32, 0_u64, 0_u64);
    let (mut rested_since, mut longest_rest) = (warm, 0);
    loop {
        let thought = thinking.keys().next().map_or(u64::MAX, |(at, _)| *at);
        let served = serving.as_ref().map_or(u64::MAX, |(at, _)| *at);
        let allowed = budget.next().map_or(u64::MAX, |at| at.0);
        let now = served.min(next_client).min(next_decision).min(thought).min(allowed);
        if now >= end {
            break;
        }
        if now == served {
            match serving.take().unwrap().1 {
                Job::Client { came } => {
                    window.record(now - came);
                    if now >= warm {
                        clients.record(now - came);
                    }
                }
                Job::Copy { bytes } => {
                    // The other side of the copy takes as long.
                    ids += 1;
                    let there = disk.fixed + disk.each_kib * u64::from(bytes >> 10);
                    thinking.insert((now + there, ids), ());
                }
            }
        } else if now == next_client {
            let load = if now < warm + seconds * SECOND / 2 { disk.load } else { later };
            if load > 0.0 {
                queue.push_back(Job::Client { came: now });
            }
            next_client = now + 1 + arrivals.exponential(mean / load.max(1e-9)).min(SECOND);
        } else if now == thought {
            thinking.pop_first();
            in_flight -= 1;
        } else if now == next_decision {
            let healing = healing.filter(|_| now >= warm);
            let nothing = Healing { is_wanted: false, ..WANTED };
            let given = throttle.decide(Time(now), &window, healing.unwrap_or(nothing));
            pace = if healing.is_some() { given } else { nothing_allowed };
            budget.set(Time(now), pace.rate);
            if healing.is_some() {
                paces.push(given);
                levels.push(throttle.level);
            }
            window.clear();
            next_decision = now + throttle.interval(healing.unwrap_or(nothing)).min(100 * MS);
        }
        // Whoever was refused is told once.
        let _ = now == allowed && budget.allows(Time(now));
        if in_flight > 0 || now < warm {
            rested_since = now;
        }
        longest_rest = longest_rest.max(now - rested_since);
        while in_flight < pace.copies && budget.allows(Time(now)) {
            in_flight += 1;
            budget.spend(u64::from(pace.bytes));
            queue.push_back(Job::Copy { bytes: pace.bytes });
        }
        if serving.is_none()
            && let Some(job) = queue.pop_front()
        {
            let took = match job {
                Job::Client { .. } => disk.fixed + random.exponential(disk.varying as f64),
                Job::Copy { bytes } => disk.fixed + disk.each_kib * u64::from(bytes >> 10),
            };
            match job {
                Job::Client { .. } if now >= warm => occupied += took,
                Job::Copy { .. } => copying += took,
                Job::Client { .. } => {}
            }
            serving = Some((now + took, job));
        }
    }
    let left = (seconds * SECOND).saturating_sub(occupied).max(1);
    Run { clients, share: copying as f64 / left as f64, paces, levels, longest_rest }
}

/// p99 with healing by that without, and the share of what clients left that healing took.
fn compare(disk: Disk, later: f64, seconds: u64, seed: u64) -> (f64, Run) {
    let without = run(disk, later, seconds, None, seed);
    let with = run(disk, later, seconds, Some(WANTED), seed);
    (with.clients.p99() as f64 / without.clients.p99() as f64, with)
}

#[test]
fn clients_hardly_feel_healing_and_healing_gets_a_share() {
    for load in [0.2, 0.4, 0.6, 0.8] {
        let mut shares = 0.0;
        for seed in 1..=5 {
            let (ratio, with) = compare(Disk { load, ..SSD }, load, 60, seed);
            println!("load {load}, seed {seed}: p99 x {ratio:.2}, share {:.2}", with.share);
            assert!(ratio <= 1.5, "load {load}, seed {seed}: p99 x {ratio:.2}");
            assert!(with.share >= 0.03, "load {load}, seed {seed}: share {:.2}", with.share);
            shares += with.share;
        }
        assert!(shares / 5.0 >= 0.15, "load {load}: share {:.2} on average", shares / 5.0);
    }
}

#[test]
fn without_a_throttle_clients_feel_it() {
    let short = Healing { is_short: true, ..WANTED };
    let (rest, full) = (run(SSD, SSD.load, 20, None, 1), run(SSD, SSD.load, 20, Some(short), 1));
    let ratio = full.clients.p99() as f64 / rest.clients.p99() as f64;
    assert!(ratio > 5.0, "the model shows nothing: p99 x {ratio:.2}");
}

#[test]
fn a_disk_with_an_arm_is_spared_too() {
    for seed in 1..=5 {
        let (ratio, with) = compare(ARM, ARM.load, 300, seed);
        println!("seed {seed}: p99 x {ratio:.2}, share {:.2}", with.share);
        assert!(ratio <= 1.5, "seed {seed}: p99 x {ratio:.2}");
        assert!(with.share >= 0.1, "seed {seed}: share {:.2}", with.share);
    }
}

#[test]
fn it_follows_clients_that_come_and_go() {
    for (first, later) in [(0.2, 0.7), (0.7, 0.2), (0.5, 0.0), (0.0, 0.5)] {
        for seed in 1..=3 {
            let (ratio, with) = compare(Disk { load: first, ..SSD }, later, 60, seed);
            println!("{first} to {later}, seed {seed}: x {ratio:.2}, share {:.2}", with.share);
            assert!(ratio <= 1.5, "{first} to {later}, seed {seed}: p99 x {ratio:.2}");
            let least = if first * later == 0.0 { 0.4 } else { 0.1 };
            assert!(with.share >= least, "{first} to {later}: share {:.2}", with.share);
        }
    }
}

#[test]
fn it_settles() {
    for load in [0.3, 0.6] {
        for seed in 1..=5 {
            let with = run(Disk { load, ..SSD }, load, 180, Some(WANTED), seed);
            let last = &with.levels[600..];
            let changes = last.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let (low, high) = (last.iter().min().unwrap(), last.iter().max().unwrap());
            println!("load {load}, seed {seed}: {changes} changes in 120 s, {low} to {high}");
            assert!(changes <= 120, "load {load}, seed {seed}: {changes} changes in 120 s");
        }
    }
}

#[test]
fn it_never_rests_for_longer_than_it_may() {
    let busy = Disk { load: 0.97, ..SSD };
    for (pace, most) in [(HealingPace::Gentle, 10 * SECOND), (HealingPace::Balanced, 3 * SECOND)] {
        let mut longest = 0;
        for seed in 1..=5 {
            let with = run_at(pace, busy, busy.load, 120, Some(WANTED), seed);
            longest = longest.max(with.longest_rest);
        }
        println!("{pace:?}: longest rest {} ms", longest / MS);
        assert!(longest <= most + 200 * MS, "{pace:?}: {} ms", longest / MS);
        assert!(longest >= SECOND, "{pace:?} never rests on a busy disk");
    }
}

#[test]
fn who_favours_healing_gets_more_of_it() {
    let busy = Disk { load: 0.9, ..SSD };
    let share = |pace: HealingPace| {
        let with = (1..=3).map(|seed| run_at(pace, busy, busy.load, 60, Some(WANTED), seed).share);
        with.sum::<f64>() / 3.0
    };
    let shares = [HealingPace::Gentle, HealingPace::Balanced, HealingPace::Urgent].map(share);
    println!("gentle, balanced, urgent: {shares:.3?}");
    assert!(shares[0] > 0.0 && shares[0] * 1.5 < shares[1] && shares[1] * 1.2 < shares[2]);
    let mut throttle = Throttle::new(ThrottleRules::default());
    throttle.obey(ThrottleRules::new(HealingPace::Urgent));
    let pace = throttle.decide(Time(SECOND), &Latencies::default(), WANTED);
    assert_eq!(pace, Pace { copies: 4, bytes: 1 << 20, rate: None });
}

#[test]
fn a_shard_with_one_copy_is_always_copied() {
    let last = Healing { fewest: 1, ..WANTED };
    // Also while clients come and go.
    for (seed, later) in (1..=3).flat_map(|seed| [(seed, 0.95), (seed, 0.0)]) {
        let with = run(Disk { load: 0.95, ..SSD }, later, 20, Some(last), seed);
        assert!(
            with.paces
                .iter()
                .all(|pace| pace.copies >= 1 && pace.rate.is_none_or(|rate| rate >= 64 << 20))
        );
    }
}

#[test]
fn writes_that_wait_for_healing_are_healed_for_as_fast_as_can_be() {
    let short = Healing { fewest: 1, is_short: true, ..WANTED };
    let with = run(SSD, SSD.load, 5, Some(short), 1);
    assert!(with.paces.iter().all(|pace| *pace == Pace { copies: 4, bytes: 1 << 20, rate: None }));
}

#[test]
fn without_clients_it_goes_as_fast_as_can_be() {
    let idle = Disk { load: 0.0, ..SSD };
    let with = run(idle, 0.0, 20, Some(WANTED), 1);
    assert_eq!(with.paces.last(), Some(&Pace { copies: 4, bytes: 1 << 20, rate: None }));
    assert!(with.share > 0.6, "{}", with.share);
}

#[test]
fn a_clock_that_jumps_changes_nothing_at_once() {
    let mut throttle = Throttle::new(ThrottleRules::default());
    let mut window = Latencies::default();
    (0..2_000).for_each(|_| window.record(MS));
    let nothing = Healing { is_wanted: false, ..WANTED };
    throttle.decide(Time(1000 * SECOND), &window, nothing);
    let pace = throttle.decide(Time(1000 * SECOND + 100 * MS), &window, WANTED);
    assert_eq!(throttle.decide(Time(0), &Latencies::default(), WANTED).bytes, pace.bytes);
    let later = throttle.decide(Time(u64::MAX), &window, WANTED);
    assert!(later.copies <= 1, "{later:?}");
}

#[test]
fn paces_grow_from_level_to_level_up_to_what_the_operator_allows() {
    let rules = ThrottleRules { most_copies: 2, most_bytes: 100 << 10, ..ThrottleRules::default() };
    let throttle = Throttle::new(rules);
    let levels: Vec<(u32, u32, Option<u64>)> = (0..=throttle.top())
        .map(|level| throttle.pace(level))
        .map(|pace| (pace.copies, pace.bytes >> 10, pace.rate.map(|rate| rate >> 20)))
        .collect();
    assert_eq!(
        levels[..4],
        [(0, 16, Some(0)), (1, 16, Some(1)), (1, 16, Some(1)), (1, 16, Some(2))]
    );
    assert!(levels.windows(2).all(|two| two[0].2 <= two[1].2 || two[1].2.is_none()), "{levels:?}");
    let top = [(1, 100, Some(181)), (1, 100, Some(256)), (1, 100, None), (2, 100, None)];
    assert_eq!(levels[levels.len() - 4..], top);
    assert_eq!(throttle.pace(throttle.rules.level_of(FIRST_RATE)).rate, Some(FIRST_RATE));
}
