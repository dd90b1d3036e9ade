// SPDX-License-Identifier: Apache-2.0
//! From the nodes that a volume has to those that it should have, with the least movement.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    MAX_SETS, MAX_SHARDS, Movement, PlacementError, Policy,
    flow::{Class, Flow},
    hash::mix,
    ideal::bounds,
    sites::Sites,
    units::{Held, Units},
};
use crate::{MAX_BRICKS, Node, NodeId, ShardMap, Slot, SlotSet};

/// What a volume has now.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// The node of each slot; `None`: vacant.
    pub slots: &'a [Option<NodeId>],
    /// The slots of each shard. In the middle of a movement, or of healing, a shard may have more or fewer than it should.
    pub map: &'a ShardMap,
    /// Bytes.
    pub size: u64,
}

/// What is wanted of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// How replicas are spread.
    pub policy: Policy,
    /// Replicas of each shard.
    pub factor: u32,
    /// All registered nodes. One that is not available keeps up to its share of what it has whole, and gets nothing; of
    /// one of weight 0, or not in this list, everything goes.
    pub nodes: &'a [Node],
    /// Drained or lost nodes: nothing stays there.
    pub leaving: &'a [NodeId],
    /// The volume's identity.
    pub seed: u64,
}

/// Where everything is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The node of each slot. Those of [`Present::slots`] keep theirs, also when they end with nothing; newcomers that get
    /// shards have slots that were vacant, or new ones.
    pub slots: Vec<Option<NodeId>>,
    /// The slots that each shard is to have. What [`Present::map`] lacks of it is to be copied; the rest goes after that.
    pub map: ShardMap,
    /// The figures.
    pub moves: Movement,
}

/// Units in a row with the same of both: what they have (a number into [`Units::held`]), and what they shall have.
pub(super) struct Span {
    pub held: u32,
    pub set: SlotSet,
    pub units: u32,
}

/// Plans what a volume should have, with the fewest copies that reach it. A plan from the middle of another plan's
/// execution copies no more than that has left; where nothing is to be done, [`Movement::is_empty`].
///
/// Never two replicas of a shard on one node, nor in one zone while a zone is free. At most [`MAX_BRICKS`] nodes are used:
/// those of the volume, then those that [`place`](super::place) would choose. Each node ends within one shard of its
/// share by weight where zones and unavailable nodes allow, except by policy:
/// - [`Policy::Random`] ends where hashes say, whatever that copies;
/// - [`Policy::Locality`] moves groups of neighbouring shards, so it is within one group;
/// - so it is under all where single shards would make more different sets than a map can hold.
///
/// # Errors
/// When the shards cannot be placed; nothing is changed by asking.
pub fn plan(present: &Present<'_>, wish: &Wish<'_>) -> Result<Plan, PlacementError> {
    plan_groups(present, wish, 1)
}

/// The same for shards that are to have another size, of which one divides the other: the map of the plan has that size.
/// Shards that are to be split are split first, which copies nothing. Of those that are to be merged each is counted in
/// the figures, and goes where the group has most.
///
/// # Errors
/// Also when no size divides the other, or the new one makes too many shards.
pub fn plan_with_shards_of(
    shard_size: u64,
    present: &Present<'_>,
    wish: &Wish<'_>,
) -> Result<Plan, PlacementError> {
    let has = present.map.shard_size();
    if !present.map.can_have(shard_size, present.size) {
        return Err(PlacementError::OtherShards { has, wanted: shard_size });
    }
    if shard_size <= has {
        let split = present.map.in_shards_of(shard_size, present.size);
        let map = split.as_ref().unwrap_or(present.map);
        return plan(&Present { map, ..*present }, wish);
    }
    let group = u32::try_from(shard_size / has).map_err(|_| PlacementError::Size)?;
    let plan = plan_groups(present, wish, group)?;
    let merged = plan.map.in_shards_of(shard_size, present.size);
    Ok(Plan { map: merged.ok_or(PlacementError::Size)?, ..plan })
}

/// A plan in which each `group` of neighbouring shards has one set.
fn plan_groups(present: &Present<'_>, wish: &Wish<'_>, group: u32) -> Result<Plan, PlacementError> {
    if wish.factor == 0 {
        return Err(PlacementError::NoReplicas);
    }
    let shard_size = present.map.shard_size();
    let shards = present.size.div_ceil(shard_size);
    if shards == 0 || shards > MAX_SHARDS {
        return Err(PlacementError::Size);
    }
    let sites = Sites::gather(present.slots, wish);
    let coarse = (shards.div_ceil(MAX_SETS) as u32).next_multiple_of(group);
    let fine = match wish.policy {
        Policy::Locality => group * neighbours(shards.div_ceil(u64::from(group))),
        Policy::Random if combinations(MAX_BRICKS as u32, wish.factor) > MAX_SETS => coarse,
        Policy::Random | Policy::Balanced | Policy::Zone => group,
    };
    let mut solved = None;
    for len in [fine, coarse.max(fine)] {
        let units = Units::of(present, shards, len);
        let spans = match wish.policy {
            Policy::Random => Some(hashed(&sites, &units, wish)?),
            Policy::Balanced | Policy::Locality | Policy::Zone => even(&sites, &units, wish)?,
        };
        let Some(spans) = spans else { continue };
        let places = Places::of(present, &sites, &spans);
        if let Some(map) = places.map(&spans, len, shards, shard_size) {
            solved = Some((units, spans, places, map));
            break;
        }
    }
    let (units, spans, places, map) = solved.ok_or(PlacementError::Size)?;
    let moves = Movement::of(present, wish, &sites, &units, &spans);
    let slots = places.slots;
    Ok(Plan { slots, map, moves })
}

/// How many neighbouring shards stay together under locality: as many as leave each node some groups, however many nodes
/// there are, so that groups stay what they are when nodes come and go; a power of two, so that they only split or join when the
/// volume grows.
pub(super) fn neighbours(shards: u64) -> u32 {
    const MOST: u64 = 16;
    let len = (shards / MAX_BRICKS as u64).clamp(1, MOST);
    1 << len.ilog2()
}

fn combinations(nodes: u32, factor: u32) -> u64 {
    let factor = factor.min(nodes.saturating_sub(factor));
    (0..factor).fold(1_u64, |product, step| {
        product.saturating_mul(u64::from(nodes - step)) / u64::from(step + 1)
    })
}

/// Hashing alone.
fn hashed(sites: &Sites, units: &Units, wish: &Wish<'_>) -> Result<Vec<Span>, PlacementError> {
    let mut spans = Vec::with_capacity(units.runs.len());
    let mut group = 0_u64;
    for (held, run) in &units.runs {
        let candidates = enough(sites, &units.held[*held as usize], wish.factor)?;
        if candidates.len() == wish.factor {
            push(&mut spans, Span { held: *held, set: candidates, units: *run });
            group += u64::from(*run);
            continue;
        }
        for _ in 0..*run {
            let set = sites.choose(candidates, wish.factor, group, |_| 0);
            push(&mut spans, Span { held: *held, set, units: 1 });
            group += 1;
        }
    }
    Ok(spans)
}

/// Hashing for what is new, then the least movement that evens it out; `None` if that makes too many sets.
fn even(
    sites: &Sites,
    units: &Units,
    wish: &Wish<'_>,
) -> Result<Option<Vec<Span>>, PlacementError> {
    let Some(classes) = first_choice(sites, units, wish.factor)? else { return Ok(None) };
    let bounds = bounds(wish.policy, sites, units, wish.factor);
    let mut classes = Flow::new(sites, &units.held, classes, bounds, units.len).even_out();
    // In an order of their own, whatever the flow did first.
    classes.sort_unstable_by_key(|class| (class.held, class.set));
    let mut hands: Vec<Hand<'_>> = Vec::with_capacity(units.held.len());
    let mut rest = &classes[..];
    for number in 0..units.held.len() as u32 {
        let (own, others) = rest.split_at(rest.partition_point(|class| class.held == number));
        hands.push(Hand::of(own, wish.seed));
        rest = others;
    }
    let mut spans = Vec::with_capacity(units.runs.len());
    for (held, run) in &units.runs {
        let mut left = *run;
        while left > 0 {
            let (set, units) = hands[*held as usize].deal(left);
            push(&mut spans, Span { held: *held, set, units });
            left = left.saturating_sub(units);
        }
    }
    Ok(Some(spans))
}

/// Where units are cheapest each for itself, by hash among equals; `None` if that makes too many sets.
fn first_choice(
    sites: &Sites,
    units: &Units,
    factor: u32,
) -> Result<Option<Vec<Class>>, PlacementError> {
    let mut candidates = Vec::with_capacity(units.held.len());
    for held in &units.held {
        candidates.push(enough(sites, held, factor)?);
    }
    let choice = |held: usize| fixed(sites, &units.held[held], candidates[held], factor);
    let fixed: Vec<Option<SlotSet>> = (0..units.held.len()).map(choice).collect();
    let mut counts: BTreeMap<(u32, SlotSet), u32> = BTreeMap::new();
    let mut unmoved = vec![0; units.held.len()];
    let mut sets: BTreeSet<SlotSet> = fixed.iter().copied().flatten().collect();
    let mut group = 0_u64;
    for (number, run) in &units.runs {
        let held = *number as usize;
        if fixed[held].is_some() {
            unmoved[held] += run;
            group += u64::from(*run);
            continue;
        }
        for _ in 0..*run {
            let missing = |slot| units.held[held].missing(slot);
            let set = sites.choose(candidates[held], factor, group, missing);
            let count = counts.entry((*number, set)).or_default();
            if *count == 0 && sets.insert(set) && sets.len() as u64 > MAX_SETS {
                return Ok(None);
            }
            *count += 1;
            group += 1;
        }
    }
    for (held, (set, units)) in (0..).zip(fixed.iter().zip(unmoved)) {
        if let Some(set) = set {
            counts.insert((held, *set), units);
        }
    }
    let class = |((held, set), units)| Class { held, set, units };
    Ok(Some(counts.into_iter().map(class).collect()))
}

/// The slots that may hold such a unit, if they are enough.
fn enough(sites: &Sites, held: &Held, factor: u32) -> Result<SlotSet, PlacementError> {
    let candidates = held.candidates(sites);
    if candidates.len() < factor {
        return Err(sites.too_few(factor, candidates));
    }
    Ok(candidates)
}

/// Where a unit goes that has no choice, or is best left where it is.
fn fixed(sites: &Sites, held: &Held, candidates: SlotSet, factor: u32) -> Option<SlotSet> {
    if candidates.len() == factor {
        return Some(candidates);
    }
    let whole = held.whole().and(candidates);
    let apart = || sites.span(whole) == factor.min(sites.span(candidates));
    (whole.len() == factor && apart()).then_some(whole)
}

/// The sets that units with the same are still to be given, in an order by hash: what changes lies all over the volume.
enum Hand<'a> {
    All(SlotSet),
    Mixed { classes: &'a [Class], order: Vec<u32> },
}

impl<'a> Hand<'a> {
    fn of(classes: &'a [Class], seed: u64) -> Self {
        if let [class] = classes {
            return Self::All(class.set);
        }
        let mut order = Vec::new();
        for (number, class) in (0..).zip(classes) {
            order.extend(std::iter::repeat_n(number, class.units as usize));
        }
        let mut state = seed;
        for place in (1..order.len()).rev() {
            state = mix(state);
            order.swap(place, (state % (place as u64 + 1)) as usize);
        }
        Self::Mixed { classes, order }
    }

    /// A set, and how many of `most` units get it.
    fn deal(&mut self, most: u32) -> (SlotSet, u32) {
        match self {
            Self::All(set) => (*set, most),
            Self::Mixed { classes, order } => {
                let set = order.pop().map(|number| classes[number as usize].set);
                (set.unwrap_or_default(), 1)
            }
        }
    }
}

pub(super) fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.held == span.held && last.set == span.set => last.units += span.units,
        _ => spans.push(span),
    }
}

/// Where nodes are in the end: newcomers without a shard have no slot.
pub(super) struct Places {
    pub slots: Vec<Option<NodeId>>,
    /// The slot that the plan's slots become.
    renumbered: Vec<Slot>,
}

impl Places {
    pub fn of(present: &Present<'_>, sites: &Sites, spans: &[Span]) -> Self {
        let used = spans.iter().fold(SlotSet::EMPTY, |used, span| used.or(span.set));
        let mut slots: Vec<Option<NodeId>> = present.slots.to_vec();
        let mut renumbered: Vec<Slot> = (0..sites.slots.len() as u8).map(Slot).collect();
        for (slot, site) in sites.iter().filter(|(slot, _)| used.has(*slot)) {
            if present.slots.get(slot.index()).is_some_and(Option::is_some) {
                continue;
            }
            let place = slots.iter().position(Option::is_none).unwrap_or(slots.len());
            if place == slots.len() {
                slots.push(None);
            }
            slots[place] = Some(site.id);
            renumbered[slot.index()] = Slot(place as u8);
        }
        Self { slots, renumbered }
    }

    /// The map of these spans; `None` if it would have too many sets.
    pub fn map(&self, spans: &[Span], len: u32, shards: u64, shard_size: u64) -> Option<ShardMap> {
        let final_set =
            |set: SlotSet| set.iter().map(|slot| self.renumbered[slot.index()]).collect();
        let first = spans.first()?.set;
        if spans.iter().all(|span| span.set == first) {
            return Some(ShardMap::uniform(shard_size, shards, final_set(first)));
        }
        let each = spans.iter().flat_map(|span| {
            std::iter::repeat_n(final_set(span.set), span.units as usize * len as usize)
        });
        ShardMap::from_sets(shard_size, each.take(usize::try_from(shards).ok()?))
    }
}
