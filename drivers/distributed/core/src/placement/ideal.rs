// SPDX-License-Identifier: Apache-2.0
//! What each node should hold by its weight, as far as its zone and the volume let it.

use super::{Policy, sites::Sites, units::Units};
use crate::{Slot, SlotSet};

/// Bits of a unit's fraction.
pub(super) const FRACTION: u32 = 20;
/// Shares this close to a whole number are that number: the rest is rounding.
const ROUNDING: u64 = 1 << (FRACTION - 10);
/// Bits of the fraction of a level, which is a share of weight 1.
const LEVEL_FRACTION: u32 = 64;
/// No level is higher: all units of the largest volume, for a node of weight 1.
const TOP_LEVEL: u128 = 1 << (LEVEL_FRACTION + 31);

/// A node's weight and the most it can hold, in units.
type Vessel = (Slot, u32, u64);

/// The nodes of a zone, and how much the zone shall hold, in fractions of a unit.
struct Zone {
    vessels: Vec<Vessel>,
    least: u64,
    most: u64,
}

/// The share of each slot, in 2^-20 units: as many as it should hold, which need not be a whole number. All nodes are filled to one level per weight; a zone has a replica of everything
/// where there are no more zones than replicas, and one at most where there are as many.
pub(super) fn shares(policy: Policy, sites: &Sites, units: &Units, factor: u32) -> Vec<u64> {
    let count = units.count();
    let kept = kept(sites, units);
    let spanned = sites.span(sites.gaining);
    let zones = zones(sites, |slot| {
        match kept[slot.index()] {
            _ if sites.gaining.has(slot) => count,
            0 => 0,
            // One more than it has, so that a share between two numbers is the same once it gave away what is above.
            kept => count.min(kept + 1),
        }
    });
    let zones: Vec<Zone> = zones
        .into_iter()
        .map(|vessels| {
            let room = vessels.iter().fold(0_u64, |room, vessel| room.saturating_add(vessel.2));
            let gains = vessels.iter().any(|(slot, ..)| sites.gaining.has(*slot));
            Zone {
                least: if spanned <= factor && gains { count << FRACTION } else { 0 },
                most: if spanned >= factor { room.min(count) } else { room } << FRACTION,
                vessels,
            }
        })
        .collect();
    let held = |zone: &Zone, level: u128| {
        let wanted = match policy {
            Policy::Zone => {
                poured(level, zone.vessels.iter().map(|vessel| u64::from(vessel.1)).sum())
            }
            _ => zone.vessels.iter().map(|vessel| filled(level, vessel)).sum(),
        };
        wanted.clamp(zone.least.min(zone.most), zone.most)
    };
    let total = (count * u64::from(factor)) << FRACTION;
    let level = level(total, |level| zones.iter().map(|zone| held(zone, level)).sum());
    let mut shares = vec![0; sites.slots.len()];
    for zone in &zones {
        let within = |level: u128| zone.vessels.iter().map(|vessel| filled(level, vessel)).sum();
        let own = self::level(held(zone, level), within);
        for vessel in &zone.vessels {
            shares[vessel.0.index()] = rounded(filled(own, vessel));
        }
    }
    shares
}

/// The fewest and most units that each slot should have: within one of its share. A node that only keeps what it has
/// gives nothing away of its share, so that the shares of all are the same when a plan is half executed.
pub(super) fn bounds(policy: Policy, sites: &Sites, units: &Units, factor: u32) -> Vec<(i64, i64)> {
    let one = 1 << FRACTION;
    let kept = kept(sites, units);
    let bounds = |(slot, share): (Slot, u64)| {
        let least = if sites.keeping.has(slot) {
            share.div_ceil(one).min(kept[slot.index()])
        } else {
            share.saturating_sub(one).div_ceil(one)
        };
        (least as i64, ((share + one) >> FRACTION) as i64)
    };
    (0..).map(Slot).zip(shares(policy, sites, units, factor)).map(bounds).collect()
}

/// How many units each slot has whole.
fn kept(sites: &Sites, units: &Units) -> Vec<u64> {
    let mut kept = vec![0; sites.slots.len()];
    if sites.keeping.is_empty() {
        return kept;
    }
    for (held, run) in &units.runs {
        for slot in units.held[*held as usize].whole().and(sites.keeping).iter() {
            kept[slot.index()] += u64::from(*run);
        }
    }
    kept
}

fn zones(sites: &Sites, most: impl Fn(Slot) -> u64) -> Vec<Vec<Vessel>> {
    let staying = sites.gaining.or(sites.keeping);
    let mut zones: Vec<(SlotSet, Vec<Vessel>)> = Vec::new();
    for (slot, site) in sites.iter().filter(|(slot, _)| staying.has(*slot)) {
        let vessel = (slot, site.weight, most(slot));
        if vessel.2 == 0 {
            continue;
        }
        match zones.iter_mut().find(|(peers, _)| peers.has(slot)) {
            Some((_, zone)) => zone.push(vessel),
            None => zones.push((sites.peers(slot), vec![vessel])),
        }
    }
    zones.into_iter().map(|(_, zone)| zone).collect()
}

fn poured(level: u128, weight: u64) -> u64 {
    // Levels beyond what 64 bits hold are above every limit.
    u64::try_from(level.saturating_mul(u128::from(weight)) >> (LEVEL_FRACTION - FRACTION))
        .unwrap_or(u64::MAX)
}

fn filled(level: u128, (_, weight, most): &Vessel) -> u64 {
    poured(level, u64::from(*weight)).min(most << FRACTION)
}

/// The lowest level at which `held` is `total`, or the top where it never is.
fn level(total: u64, held: impl Fn(u128) -> u64) -> u128 {
    let (mut low, mut high) = (0, TOP_LEVEL);
    while low < high {
        let middle = low + (high - low) / 2;
        if held(middle) >= total { high = middle } else { low = middle + 1 }
    }
    low
}

fn rounded(share: u64) -> u64 {
    let whole = (share + (1 << (FRACTION - 1))) >> FRACTION << FRACTION;
    if share.abs_diff(whole) <= ROUNDING { whole } else { share }
}
