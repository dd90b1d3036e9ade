// SPDX-License-Identifier: Apache-2.0
//! The least movement, by a flow in which every shard is a vertex: slow, simple, and nothing of the planner's in it.

use crate::{Node, NodeId};

/// A small volume and what is wanted of it.
pub struct Case {
    /// The nodes that have each shard.
    pub shards: Vec<Vec<NodeId>>,
    pub nodes: Vec<Node>,
    pub leaving: Vec<NodeId>,
    pub factor: usize,
}

/// What an assignment costs; the first that differs decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Cost {
    /// Replicas in a zone that has one of the shard already.
    pub together: i64,
    /// Replicas above or below the bounds of their nodes.
    pub uneven: i64,
    /// Replicas that are copied.
    pub copied: i64,
}

impl Case {
    pub fn stays(&self, node: &Node) -> bool {
        node.weight > 0 && !self.leaving.contains(&node.id)
    }

    fn may_hold(&self, shard: usize, node: &Node) -> bool {
        self.stays(node) && (node.available || self.shards[shard].contains(&node.id))
    }

    /// The zones of `nodes`, each node's as a number.
    pub fn zones(&self) -> Vec<usize> {
        let zone = |(at, node): (usize, &Node)| {
            let first = self.nodes.iter().position(|other| other.zone == node.zone);
            if node.zone.is_empty() { at } else { first.unwrap_or(at) }
        };
        self.nodes.iter().enumerate().map(zone).collect()
    }

    /// What each node should hold. `zone_first`: by zones, then within them.
    pub fn ideals(&self, zone_first: bool) -> Vec<f64> {
        let all = self.shards.len() as f64;
        let zones = self.zones();
        let most: Vec<f64> = self
            .nodes
            .iter()
            .map(|node| {
                let has =
                    self.shards.iter().filter(|shard| shard.contains(&node.id)).count() as f64;
                match node {
                    _ if !self.stays(node) => 0.0,
                    _ if node.available => all,
                    _ if has == 0.0 => 0.0,
                    _ => all.min(has + 1.0),
                }
            })
            .collect();
        let members = |zone| (0..zones.len()).filter(|at| zones[*at] == zone).collect::<Vec<_>>();
        let gains = |zone: &usize| {
            members(*zone)
                .iter()
                .any(|at| self.nodes[*at].available && self.stays(&self.nodes[*at]))
        };
        let mut names = zones.clone();
        names.sort_unstable();
        names.dedup();
        let spanned = names.iter().filter(|zone| gains(zone)).count();
        let node = |level: f64, at: usize| (level * f64::from(self.nodes[at].weight)).min(most[at]);
        let zone = |level: f64, zone: usize| {
            let own = members(zone);
            let room: f64 = own.iter().map(|at| most[*at]).sum();
            let weight: f64 = own
                .iter()
                .filter(|at| most[**at] > 0.0)
                .map(|at| f64::from(self.nodes[*at].weight))
                .sum();
            let wanted = if zone_first {
                level * weight
            } else {
                own.iter().map(|at| node(level, *at)).sum()
            };
            let least = if spanned <= self.factor && gains(&zone) { all } else { 0.0 };
            let most = if spanned >= self.factor { room.min(all) } else { room };
            wanted.clamp(least.min(most), most)
        };
        let level = bisect(all * self.factor as f64, |level| {
            names.iter().map(|name| zone(level, *name)).sum()
        });
        let own = |at: usize| {
            let total = zone(level, zones[at]);
            let level =
                bisect(total, |level| members(zones[at]).iter().map(|at| node(level, *at)).sum());
            node(level, at)
        };
        (0..zones.len()).map(own).collect()
    }

    /// Fewest and most replicas within one of the ideals; an unavailable node gives nothing away of its own.
    pub fn bounds(&self, zone_first: bool) -> Vec<(i64, i64)> {
        let bounds = |(node, ideal): (&Node, f64)| {
            let has = self.shards.iter().filter(|shard| shard.contains(&node.id)).count() as i64;
            let least = if node.available || !self.stays(node) {
                (ideal - 1.0 - 1e-3).ceil().max(0.0) as i64
            } else {
                has.min((ideal - 1e-3).ceil() as i64)
            };
            (least, (ideal + 1.0 + 1e-3).floor() as i64)
        };
        self.nodes.iter().zip(self.ideals(zone_first)).map(bounds).collect()
    }

    /// What it costs to go to this assignment.
    pub fn cost(&self, to: &[Vec<NodeId>], bounds: &[(i64, i64)]) -> Cost {
        let zones = self.zones();
        let at = |id: &NodeId| self.nodes.iter().position(|node| node.id == *id).unwrap();
        let mut cost = Cost::default();
        let mut load = vec![0; self.nodes.len()];
        for (had, has) in self.shards.iter().zip(to) {
            let mut spanned: Vec<usize> = has.iter().map(|id| zones[at(id)]).collect();
            spanned.sort_unstable();
            spanned.dedup();
            cost.together += (has.len() - spanned.len()) as i64;
            cost.copied += has.iter().filter(|id| !had.contains(id)).count() as i64;
            has.iter().for_each(|id| load[at(id)] += 1);
        }
        for (load, (least, most)) in load.into_iter().zip(bounds) {
            cost.uneven += (load - most).max(0) + (least - load).max(0);
        }
        cost
    }

    /// The cheapest assignment.
    pub fn solve(&self, bounds: &[(i64, i64)]) -> Vec<Vec<NodeId>> {
        const UNEVEN: i64 = 1 << 12;
        const TOGETHER: i64 = 1 << 24;
        let (shards, nodes) = (self.shards.len(), self.nodes.len());
        let zones = self.zones();
        let (source, sink) = (0, 1);
        let shard_at = |shard: usize| 2 + shard;
        let node_at = |node: usize| 2 + shards + node;
        let zone_at = |shard: usize, zone: usize| 2 + shards + nodes + shard * nodes + zone;
        let mut net = Net { edges: Vec::new(), vertices: zone_at(shards, 0) };
        for shard in 0..shards {
            net.edge(source, shard_at(shard), self.factor as i64, 0);
            for zone in 0..nodes {
                net.edge(shard_at(shard), zone_at(shard, zone), 1, 0);
                net.edge(shard_at(shard), zone_at(shard, zone), nodes as i64, TOGETHER);
            }
            for (at, node) in self.nodes.iter().enumerate() {
                if self.may_hold(shard, node) {
                    let copied = i64::from(!self.shards[shard].contains(&node.id));
                    net.edge(zone_at(shard, zones[at]), node_at(at), 1, copied);
                }
            }
        }
        for (node, (least, most)) in bounds.iter().enumerate() {
            net.edge(node_at(node), sink, *least, -UNEVEN);
            net.edge(node_at(node), sink, most - least, 0);
            net.edge(node_at(node), sink, shards as i64, UNEVEN);
        }
        net.fill(source, sink);
        let mut chosen = vec![Vec::new(); shards];
        for edge in net.edges.iter().step_by(2) {
            let node = edge.to.wrapping_sub(2 + shards);
            if edge.from >= zone_at(0, 0) && edge.flow == 1 && node < nodes {
                chosen[(edge.from - zone_at(0, 0)) / nodes].push(self.nodes[node].id);
            }
        }
        chosen
    }
}

fn bisect(total: f64, held: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if held(middle) >= total { high = middle } else { low = middle }
    }
    high
}

struct Edge {
    from: usize,
    to: usize,
    room: i64,
    price: i64,
    flow: i64,
}

struct Net {
    /// Each with its reverse behind it.
    edges: Vec<Edge>,
    vertices: usize,
}

impl Net {
    fn edge(&mut self, from: usize, to: usize, room: i64, price: i64) {
        self.edges.push(Edge { from, to, room, price, flow: 0 });
        self.edges.push(Edge { from: to, to: from, room: 0, price: -price, flow: 0 });
    }

    /// As much as fits, one unit at a time, each along a cheapest path.
    fn fill(&mut self, source: usize, sink: usize) {
        loop {
            let mut price = vec![i64::MAX; self.vertices];
            let mut by = vec![usize::MAX; self.vertices];
            price[source] = 0;
            let mut changed = true;
            while changed {
                changed = false;
                for (number, edge) in self.edges.iter().enumerate() {
                    if edge.flow < edge.room && price[edge.from] != i64::MAX {
                        let through = price[edge.from] + edge.price;
                        if through < price[edge.to] {
                            price[edge.to] = through;
                            by[edge.to] = number;
                            changed = true;
                        }
                    }
                }
            }
            if price[sink] == i64::MAX {
                return;
            }
            let mut at = sink;
            while at != source {
                let number = by[at];
                self.edges[number].flow += 1;
                self.edges[number ^ 1].flow -= 1;
                at = self.edges[number].from;
            }
        }
    }
}

#[test]
fn the_solver_finds_what_trying_everything_finds() {
    let node = |id: u32, zone: &str| Node {
        id: NodeId(id),
        name: format!("n{id}"),
        role: String::new(),
        address: String::new(),
        port: 0,
        zone: zone.into(),
        weight: 1 + id % 2,
        available: true,
    };
    for seed in 0..8_usize {
        let zones = if seed % 2 == 0 { ["", "", "", ""] } else { ["a", "a", "b", "c"] };
        let nodes: Vec<Node> = (0..).zip(zones).map(|(id, zone)| node(id, zone)).collect();
        let shards = (0..4).map(|shard| {
            (0..4)
                .filter(|id| (seed * 7 + shard * 5 + *id as usize).is_multiple_of(3))
                .map(NodeId)
                .collect()
        });
        let case = Case { shards: shards.collect(), nodes, leaving: vec![], factor: 2 };
        let bounds = case.bounds(false);
        let pairs: Vec<Vec<NodeId>> =
            (0..4).flat_map(|a| (0..a).map(move |b| vec![NodeId(b), NodeId(a)])).collect();
        let every = (0..pairs.len().pow(4)).map(|number| {
            let pair = |place: u32| pairs[number / pairs.len().pow(place) % pairs.len()].clone();
            case.cost(&[pair(0), pair(1), pair(2), pair(3)], &bounds)
        });
        assert_eq!(case.cost(&case.solve(&bounds), &bounds), every.min().unwrap(), "seed {seed}");
    }
}
