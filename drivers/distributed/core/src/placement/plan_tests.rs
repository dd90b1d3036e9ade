// SPDX-License-Identifier: Apache-2.0
use super::{
    PlacementError, Plan, Policy, Present, Wish, exact_tests::Case, hash::mix, place, plan,
    plan_with_shards_of,
};
use crate::{Node, NodeId, ShardMap, Slot, SlotSet};

const SHARD: u64 = 4096;

fn node(id: u32, zone: &str, weight: u32) -> Node {
    Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: "storage".into(),
        address: String::new(),
        port: 0,
        zone: zone.into(),
        weight,
        available: true,
    }
}

/// A volume as it is.
#[derive(Clone)]
struct Volume {
    slots: Vec<Option<NodeId>>,
    map: ShardMap,
    size: u64,
}

impl Volume {
    fn placed(policy: Policy, nodes: &[Node], factor: u32, shards: u64, seed: u64) -> Self {
        let placement = place(policy, nodes, factor, shards * SHARD, SHARD, seed).unwrap();
        let slots = placement.nodes.into_iter().map(Some).collect();
        Self { slots, map: placement.map, size: shards * SHARD }
    }

    fn after(&self, plan: &Plan) -> Self {
        Self { slots: plan.slots.clone(), map: plan.map.clone(), size: self.size }
    }

    fn plan(&self, wish: &Wish<'_>) -> Result<Plan, PlacementError> {
        plan(&Present { slots: &self.slots, map: &self.map, size: self.size }, wish)
    }

    fn shards(&self) -> Vec<Vec<NodeId>> {
        (0..self.size.div_ceil(SHARD)).map(|shard| self.on(shard)).collect()
    }

    fn on(&self, shard: u64) -> Vec<NodeId> {
        self.map.set(shard).iter().filter_map(|slot| self.slots[slot.index()]).collect()
    }

    fn held(&self, node: u32) -> u64 {
        self.shards().iter().filter(|shard| shard.contains(&NodeId(node))).count() as u64
    }

    /// With the first `copied` changes of a plan made, and the next one only half.
    fn halfway(&self, plan: &Plan, copied: u64) -> (Self, u64) {
        let (mut changes, mut bytes) = (0, 0);
        let mut next = |shard| {
            let (had, has) = (self.map.set(shard), plan.map.set(shard));
            changes += u64::from(had != has);
            let set = match changes {
                _ if had == has || changes > copied + 1 => had,
                _ if changes == copied + 1 => {
                    had.or(has.without(had).first().map_or(SlotSet::EMPTY, SlotSet::only))
                }
                _ => has,
            };
            bytes += u64::from(set.without(had).len()) * SHARD;
            set
        };
        let sets: Vec<SlotSet> = (0..self.size / SHARD).map(&mut next).collect();
        let map = ShardMap::from_sets(SHARD, sets).unwrap();
        (Self { slots: plan.slots.clone(), map, size: self.size }, bytes)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % end
    }
}

const CHANGES: [&str; 9] = [
    "nothing",
    "add",
    "remove",
    "drain",
    "reweight",
    "factor up",
    "factor down",
    "zone",
    "unavailable",
];

/// A random volume and change; `None` where the change leaves too few nodes.
struct Instance {
    volume: Volume,
    case: Case,
    policy: Policy,
    seed: u64,
}

impl Instance {
    fn random(seed: u64) -> Self {
        let mut random = Random(mix(seed));
        let count = 3 + random.below(5) as u32;
        let zones = random.below(5);
        let zone = |random: &mut Random| match zones {
            0 => String::new(),
            zones => format!("z{}", random.below(zones + 1)),
        };
        let mut nodes = Vec::new();
        for id in 0..count {
            let name = zone(&mut random);
            nodes.push(node(id, &name, 1 + random.below(4) as u32));
        }
        let mut factor = 1 + random.below(3) as u32;
        let shards = 1 + random.below(16);
        let policy = [Policy::Balanced, Policy::Zone][random.below(2) as usize];
        let mut volume = Volume::placed(policy, &nodes, factor, shards, seed);
        if random.below(3) == 0 {
            // Whatever it has become, with copies missing and too many.
            let slots = volume.slots.len() as u64;
            let mut set = || (0..factor).map(|_| Slot(random.below(slots) as u8)).collect();
            let sets: Vec<SlotSet> = (0..shards).map(|_| set()).collect();
            volume.map = ShardMap::from_sets(SHARD, sets).unwrap();
        }
        let mut leaving = Vec::new();
        let chosen = random.below(u64::from(count)) as usize;
        match CHANGES[seed as usize % CHANGES.len()] {
            "add" => {
                let name = zone(&mut random);
                nodes.push(node(count, &name, 1 + random.below(4) as u32));
            }
            "remove" => drop(nodes.remove(chosen)),
            "drain" => leaving.push(nodes[chosen].id),
            "reweight" => nodes[chosen].weight = random.below(6) as u32,
            "factor up" => factor += 1,
            "factor down" => factor = (factor - 1).max(1),
            "zone" => nodes[chosen].zone = zone(&mut random),
            "unavailable" => nodes[chosen].available = false,
            _ => {}
        }
        let case = Case { shards: volume.shards(), nodes, leaving, factor: factor as usize };
        Self { volume, case, policy, seed }
    }

    fn wish(&self) -> Wish<'_> {
        Wish {
            policy: self.policy,
            factor: self.case.factor as u32,
            nodes: &self.case.nodes,
            leaving: &self.case.leaving,
            seed: self.seed,
        }
    }
}

#[test]
fn movement_is_the_least_and_nodes_are_even() {
    let (mut planned, mut worst_ratio, mut worst_spread, mut excess) = (0, 1.0_f64, 0.0_f64, 0);
    for seed in 0..1800 {
        let instance = Instance::random(seed);
        let (volume, case) = (&instance.volume, &instance.case);
        let Ok(plan) = volume.plan(&instance.wish()) else {
            let takes = |shard: &Vec<NodeId>| {
                let may = |node: &&Node| node.available || shard.contains(&node.id);
                case.nodes.iter().filter(|node| case.stays(node)).filter(may).count()
            };
            assert!(case.shards.iter().map(takes).min().unwrap() < case.factor, "seed {seed}");
            continue;
        };
        planned += 1;
        let what = format!("seed {seed}, {}", CHANGES[seed as usize % CHANGES.len()]);
        let bounds = case.bounds(instance.policy == Policy::Zone);
        let after = volume.after(&plan).shards();
        for (had, has) in case.shards.iter().zip(&after) {
            assert_eq!(has.len(), case.factor, "{what}");
            for id in has {
                let node = case.nodes.iter().find(|node| node.id == *id).expect(&what);
                assert!(case.stays(node) && (node.available || had.contains(id)), "{what}");
            }
        }
        let (ours, least) = (case.cost(&after, &bounds), case.cost(&case.solve(&bounds), &bounds));
        assert_eq!((ours.together, ours.uneven), (least.together, least.uneven), "{what}");
        assert_eq!(plan.moves.zone_violations_after, 0, "{what}");
        assert_eq!(plan.moves.bytes, ours.copied as u64 * SHARD, "{what}");
        let allowed = (least.copied * 105 / 100).max(least.copied + 1);
        assert!(ours.copied <= allowed, "{what}: {} copied, {} needed", ours.copied, least.copied);
        worst_ratio = worst_ratio.max(ours.copied as f64 / least.copied.max(1) as f64);
        excess = excess.max(ours.copied - least.copied);
        if case.nodes.iter().all(|node| node.available) {
            assert_eq!(ours.uneven, 0, "{what}");
            let ideals = case.ideals(instance.policy == Policy::Zone);
            for (node, ideal) in case.nodes.iter().zip(ideals) {
                let held = after.iter().filter(|shard| shard.contains(&node.id)).count() as f64;
                worst_spread = worst_spread.max((held - ideal).abs());
            }
        }
    }
    println!(
        "{planned} plans: at most {worst_ratio:.3} times the minimum, {excess} over it; spread {worst_spread:.3}"
    );
    assert!(planned > 1000 && worst_spread <= 1.001);
}

#[test]
fn a_plan_from_halfway_copies_no_more_than_was_left() {
    for seed in 0..900 {
        let instance = Instance::random(seed);
        let Ok(plan) = instance.volume.plan(&instance.wish()) else { continue };
        let what = format!("seed {seed}, {}", CHANGES[seed as usize % CHANGES.len()]);
        assert_eq!(instance.volume.plan(&instance.wish()).unwrap(), plan, "{what}");
        let mut copied = 0;
        let mut volume = instance.volume.clone();
        let mut left = plan;
        let mut random = Random(seed);
        // Several crashes in a row.
        while !left.moves.is_empty() {
            let (halfway, bytes) = volume.halfway(&left, random.below(left.moves.shards + 1));
            let next = halfway.plan(&instance.wish()).unwrap();
            assert!(bytes + next.moves.bytes <= left.moves.bytes, "{what}: {copied} copied before");
            copied += bytes;
            if bytes == 0 {
                volume = halfway.after(&next);
                left = volume.plan(&instance.wish()).unwrap();
                assert!(left.moves.is_empty(), "{what}: {:?}", left.moves);
            } else {
                (volume, left) = (halfway, next);
            }
        }
    }
}

fn wish(policy: Policy, factor: u32, nodes: &[Node]) -> Wish<'_> {
    Wish { policy, factor, nodes, leaving: &[], seed: 7 }
}

fn alike(count: u32) -> Vec<Node> {
    (0..count).map(|id| node(id, "", 1)).collect()
}

#[test]
fn random_moves_only_what_hashes_say_also_from_halfway() {
    let nodes = alike(9);
    let volume = Volume::placed(Policy::Random, &nodes[..8], 2, 4000, 7);
    let for_nine = wish(Policy::Random, 2, &nodes);
    let plan = volume.plan(&for_nine).unwrap();
    let there = volume.after(&plan);
    for (had, has) in volume.shards().iter().zip(there.shards()) {
        assert!(has.iter().all(|id| had.contains(id) || *id == NodeId(8)), "{had:?} {has:?}");
    }
    assert!(there.held(8).abs_diff(8000 / 9) < 100, "{} on the ninth", there.held(8));
    assert_eq!(plan.moves.bytes, there.held(8) * SHARD);
    let (halfway, bytes) = volume.halfway(&plan, 300);
    let rest = halfway.plan(&for_nine).unwrap();
    assert_eq!((rest.map, bytes + rest.moves.bytes), (plan.map, plan.moves.bytes));
    assert!(there.plan(&for_nine).unwrap().moves.is_empty());
    let drained = there.plan(&Wish { leaving: &[NodeId(3)], ..for_nine }).unwrap();
    assert_eq!(drained.moves.bytes, there.held(3) * SHARD);
}

#[test]
fn locality_moves_whole_groups_and_changes_to_it_and_back_settle() {
    let nodes = alike(9);
    let shards = 1600;
    let groups = |volume: &Volume| {
        let on = volume.shards();
        on.chunks(16).for_each(|group| assert!(group.iter().all(|shard| *shard == group[0])));
        for id in (0..9).filter(|id| volume.held(*id) > 0) {
            let ideal = 3200 / volume.slots.len() as u64;
            assert!(volume.held(id).abs_diff(ideal) <= 16, "{} on {id}", volume.held(id));
        }
    };
    let volume = Volume::placed(Policy::Locality, &nodes[..8], 2, shards, 7);
    groups(&volume);
    let nine = wish(Policy::Locality, 2, &nodes);
    let plan = volume.plan(&nine).unwrap();
    let there = volume.after(&plan);
    groups(&there);
    // A ninth of 200 group replicas, less one.
    assert_eq!(plan.moves.bytes, 22 * 16 * SHARD);
    assert!(there.plan(&nine).unwrap().moves.is_empty());
    // A crash amid groups leaves them mixed; what they have got already counts.
    for changes in [0, 5, 100, 200, 351] {
        let (halfway, bytes) = volume.halfway(&plan, changes);
        let rest = halfway.plan(&nine).unwrap();
        assert!(bytes + rest.moves.bytes <= plan.moves.bytes, "{changes} changes made");
        groups(&halfway.after(&rest));
    }
    let mut volume = there;
    for policy in [Policy::Balanced, Policy::Random, Policy::Zone, Policy::Locality] {
        let wish = wish(policy, 2, &nodes);
        volume = volume.after(&volume.plan(&wish).unwrap());
        assert!(volume.plan(&wish).unwrap().moves.is_empty(), "{policy:?}");
    }
    groups(&volume);
}

#[test]
fn of_many_nodes_those_of_the_volume_stay() {
    let nodes: Vec<_> =
        (0..1000).map(|id| node(id, ["a", "b", "rare"][(id % 100 / 49) as usize], 1)).collect();
    let few = Volume::placed(Policy::Balanced, &nodes[700..710], 3, 2000, 7);
    let offered = wish(Policy::Balanced, 3, &nodes);
    let plan = few.plan(&offered).unwrap();
    assert_eq!(plan.slots.len(), 64);
    assert_eq!(plan.slots[..10], few.slots, "slots stay what they are");
    // All were in one zone. Now one replica of each shard is in each.
    assert_eq!((plan.moves.zone_violations_before, plan.moves.zone_violations_after), (2000, 0));
    assert!(few.after(&plan).plan(&offered).unwrap().moves.is_empty());
    let many = Volume::placed(Policy::Balanced, &nodes, 3, 2000, 7);
    assert_eq!(many.slots.len(), 64);
    assert!(many.plan(&offered).unwrap().moves.is_empty());
    let gone: Vec<NodeId> = many.slots.iter().copied().flatten().collect();
    let refused = many.plan(&Wish { leaving: &gone, ..offered }).unwrap_err();
    assert_eq!(refused, PlacementError::NoSlots { factor: 3, nodes: 0 });
    assert!(refused.to_string().contains("fewer nodes leave"), "{refused}");
}

#[test]
fn more_sets_than_a_map_holds_are_placed_and_planned_in_groups() {
    let nodes = alike(64);
    let shards = 70_000;
    let volume = Volume::placed(Policy::Balanced, &nodes, 4, shards, 7);
    let drained = Wish { leaving: &[NodeId(5)], ..wish(Policy::Balanced, 4, &nodes) };
    let held = volume.held(5);
    let plan = volume.plan(&drained).unwrap();
    assert_eq!(plan.moves.bytes, held * SHARD);
    assert!(plan.moves.worst_after <= 2 * SHARD, "{}", plan.moves.worst_after);
    assert_eq!(volume.after(&plan).held(5), 0);
}

#[test]
fn a_whole_copy_is_moved_without_a_table() {
    let nodes = alike(4);
    let size = (1_u64 << 43) + 1;
    let map = ShardMap::uniform(SHARD, size.div_ceil(SHARD), SlotSet(0b101));
    let slots = vec![Some(NodeId(0)), None, Some(NodeId(2))];
    let volume = Volume { slots, map, size };
    let nodes = [nodes[0].clone(), nodes[3].clone()];
    // Too many shards for a map by one.
    assert_eq!(volume.plan(&wish(Policy::Zone, 2, &nodes)), Err(PlacementError::Size));
    let volume = Volume { size: size - SHARD, ..volume };
    let plan = volume.plan(&wish(Policy::Zone, 2, &nodes)).unwrap();
    assert_eq!(plan.slots, [0, 3, 2].map(|id| Some(NodeId(id))), "the vacant slot is taken");
    assert_eq!(plan.map.set(1 << 30), SlotSet(0b11));
    assert!(plan.map.memory() < 200);
    let moves = plan.moves;
    assert_eq!((moves.bytes, moves.shards), (volume.size, 1 << 31));
    assert_eq!(moves.copies, [0, 0, 1 << 31]);
    let shares: Vec<_> = moves.nodes.iter().map(|s| (s.node.0, s.before, s.after)).collect();
    assert_eq!(shares, [(0, volume.size, volume.size), (3, 0, volume.size), (2, volume.size, 0)]);
}

#[test]
fn figures_say_what_is_at_risk() {
    let nodes = [node(0, "a", 1), node(1, "a", 1), node(2, "b", 0), node(3, "b", 3)];
    let sets = [0b0011, 0b0101, 0b1000, 0b0100].map(SlotSet);
    let volume = Volume {
        slots: (0..4).map(|id| Some(NodeId(id))).collect(),
        map: ShardMap::from_sets(SHARD, sets).unwrap(),
        size: 3 * SHARD + 100,
    };
    let leaving = [NodeId(1), NodeId(2)];
    let plan =
        volume.plan(&Wish { leaving: &leaving, ..wish(Policy::Balanced, 2, &nodes) }).unwrap();
    let moves = plan.moves;
    assert_eq!(moves.copies, [1, 3, 0]);
    assert_eq!((moves.zone_violations_before, moves.zone_violations_after), (1, 0));
    // Two shards go to node 3, one to node 0, and the short one to both.
    assert_eq!((moves.bytes, moves.shards), (3 * SHARD + 200, 4));
    let all = volume.size;
    let shares: Vec<_> = moves.nodes.iter().map(|s| (s.before, s.after, s.ideal)).collect();
    assert_eq!(
        shares,
        [(2 * SHARD, all, 4 * SHARD), (SHARD, 0, 0), (SHARD + 100, 0, 0), (SHARD, all, 4 * SHARD)]
    );
    assert_eq!((moves.worst_before, moves.worst_after), (3 * SHARD, SHARD - 100));
}

#[test]
fn a_volume_that_grew_has_a_longer_map() {
    let nodes = alike(5);
    for policy in [Policy::Balanced, Policy::Locality] {
        let small = Volume::placed(policy, &nodes, 3, 640, 7);
        let grown = Volume { size: 2 * small.size, ..small };
        let plan = grown.plan(&wish(policy, 3, &nodes)).unwrap();
        assert_eq!(plan.map.len(), 1280);
        let group = if policy == Policy::Locality { 16 } else { 1 };
        assert!(plan.moves.worst_after <= group * SHARD, "{policy:?}");
        let least = plan.moves.bytes / SHARD <= 5 || policy == Policy::Locality;
        assert!(least, "{} copied", plan.moves.bytes / SHARD);
    }
}

#[test]
fn the_last_available_nodes_are_not_enough() {
    let mut nodes = alike(4);
    let volume = Volume::placed(Policy::Balanced, &nodes, 2, 100, 7);
    nodes[0].available = false;
    nodes[1].available = false;
    let drained = [NodeId(2)];
    let refused = volume.plan(&Wish { leaving: &drained, ..wish(Policy::Balanced, 2, &nodes) });
    assert_eq!(refused, Err(PlacementError::TooFewNodes { factor: 2, nodes: 1 }));
    let none = volume.plan(&wish(Policy::Balanced, 0, &nodes));
    assert_eq!(none, Err(PlacementError::NoReplicas));
}

#[test]
fn a_split_copies_only_what_was_uneven_and_a_merge_little() {
    let nodes = alike(5);
    for policy in [Policy::Balanced, Policy::Zone, Policy::Locality] {
        for seed in 0..20 {
            let volume = Volume::placed(policy, &nodes, 2, 40, seed);
            let present = Present { slots: &volume.slots, map: &volume.map, size: volume.size };
            let wish = Wish { seed, ..wish(policy, 2, &nodes) };
            let split = plan_with_shards_of(SHARD / 4, &present, &wish).unwrap();
            // Nodes were off by one shard at most.
            assert!(split.moves.bytes <= 5 * SHARD / 2, "{policy:?} {seed}: {:?}", split.moves);
            assert_eq!(split.map.shard_size(), SHARD / 4);

            let merged = plan_with_shards_of(4 * SHARD, &present, &wish).unwrap();
            assert_eq!((merged.map.shard_size(), merged.map.len()), (4 * SHARD, 10));
            let (mut bytes, mut least) = (0, 0);
            for shard in 0..40 {
                let gained = merged.map.set(shard / 4).without(volume.map.set(shard));
                bytes += u64::from(gained.len()) * SHARD;
            }
            for group in 0..10 {
                // The two nodes that have most of a group could keep that.
                let mut has: Vec<u64> = (0..5)
                    .map(|slot| {
                        let has = |n: &u64| volume.map.set(group * 4 + n).has(Slot(slot));
                        (0..4).filter(has).count() as u64
                    })
                    .collect();
                has.sort_unstable();
                least += (8 - has[3] - has[4]) * SHARD;
            }
            assert_eq!(merged.moves.bytes, bytes, "{policy:?} {seed}");
            assert!(bytes >= least && bytes <= least + 8 * SHARD, "{bytes}, at least {least}");
        }
    }
    let volume = Volume::placed(Policy::Balanced, &nodes, 2, 40, 1);
    let present = Present { slots: &volume.slots, map: &volume.map, size: volume.size };
    let refused = plan_with_shards_of(3 * SHARD / 2, &present, &wish(Policy::Balanced, 2, &nodes));
    assert!(matches!(refused, Err(PlacementError::OtherShards { .. })), "{refused:?}");
}
