// SPDX-License-Identifier: Apache-2.0
//! Evens out what nodes hold, with the least movement: a min-cost flow from shards to nodes.
//!
//! The flow's vertices are the nodes. An edge from a to b is a unit that a would hold and b would not: it may go to b
//! instead, at the price of what that copies more (or less) and of zones that it brings together (or apart). Units that have
//! and shall have the same are one class, so that an edge is a list of classes by price, and a million shards are few.
//!
//! To begin with each unit lies where it is cheapest for itself, whatever nodes hold. Then, again and again, the
//! cheapest path from a node to another is taken, with what it does to their shares in its price, until none saves anything.
//! Taking shortest paths only leaves no cheaper detour behind, so the end is the optimum (Edmonds and Karp 1972). The
//! shortest of equally cheap paths meets no unit twice in ways that exclude each other.

use std::collections::{BTreeMap, VecDeque};

use super::{sites::Sites, units::Held};
use crate::{Slot, SlotSet};

/// Units that have the same and shall have the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Class {
    /// What they have: a number into the list of [`Held`].
    pub held: u32,
    /// What they shall have.
    pub set: SlotSet,
    pub units: u32,
}

const NO_EDGE: i64 = i64::MAX;

/// What an edge has at one price.
struct Offer {
    price: i64,
    /// How many classes that have units.
    classes: u32,
    /// These classes, and some that are used up; made when the edge is first taken at this price.
    list: Option<VecDeque<u32>>,
}

/// The flow, as far as it has got.
pub(super) struct Flow<'a> {
    sites: &'a Sites,
    held: &'a [Held],
    nodes: usize,
    classes: Vec<Class>,
    known: BTreeMap<(u32, SlotSet), u32>,
    /// From node to node; a few offers each.
    edges: Vec<Vec<Offer>>,
    /// The lowest price of each edge.
    price: Vec<i64>,
    load: Vec<i64>,
    /// Fewest and most units that each node should hold.
    bounds: Vec<(i64, i64)>,
    /// The price of a unit out of bounds: more than the copies of any path.
    uneven: i64,
    /// The price of two replicas in one zone: more than that of any path that keeps zones apart.
    together: i64,
}

/// An edge of a path, and its price.
struct Step {
    from: Slot,
    to: Slot,
    edge: usize,
    price: i64,
}

/// The cheapest way to each node, from where units are taken.
struct Reach {
    price: i64,
    steps: u32,
    from: usize,
}

impl<'a> Flow<'a> {
    /// A flow of these classes, each where it is cheapest for itself; `len` is the shards of a unit.
    pub fn new(
        sites: &'a Sites,
        held: &'a [Held],
        classes: Vec<Class>,
        bounds: Vec<(i64, i64)>,
        len: u32,
    ) -> Self {
        let nodes = sites.slots.len();
        let mut load = vec![0; nodes];
        for class in &classes {
            class.set.iter().for_each(|slot| load[slot.index()] += i64::from(class.units));
        }
        let uneven = i64::from(len) << 10;
        let together = uneven << 4;
        Self {
            sites,
            held,
            nodes,
            classes,
            known: BTreeMap::new(),
            edges: Vec::new(),
            price: Vec::new(),
            load,
            bounds,
            uneven,
            together,
        }
    }

    /// Takes paths until none saves anything. The classes then, none empty.
    pub fn even_out(mut self) -> Vec<Class> {
        // Where all nodes are within bounds, nothing is cheaper than where each unit is cheapest for itself.
        let within = |(load, (least, most)): (&i64, &(i64, i64))| (least..=most).contains(&load);
        if !self.load.iter().zip(&self.bounds).all(within) {
            self.index();
            while let Some(path) = self.cheapest() {
                if !self.take(&path) {
                    debug_assert!(false, "an edge has a price and no class");
                    break; // What there is by now is a valid placement.
                }
            }
        }
        self.classes.retain(|class| class.units > 0);
        self.classes
    }

    /// Offers all classes.
    fn index(&mut self) {
        self.edges.resize_with(self.nodes * self.nodes, Vec::new);
        self.price = vec![NO_EDGE; self.nodes * self.nodes];
        for number in 0..self.classes.len() as u32 {
            let class = &self.classes[number as usize];
            self.known.insert((class.held, class.set), number);
            self.offer(number, true);
        }
    }

    /// Offers a class that has units at all its edges, or one that has none no more.
    fn offer(&mut self, number: u32, has_units: bool) {
        let class = &self.classes[number as usize];
        let (set, held) = (class.set, &self.held[class.held as usize]);
        let to = held.candidates(self.sites).without(set);
        for from in set.iter() {
            for to in to.iter() {
                let edge = from.index() * self.nodes + to.index();
                let price = self.worth(held, set, from, to);
                let offers = &mut self.edges[edge];
                let place = offers.iter().position(|offer| offer.price == price);
                if has_units {
                    let place = place.unwrap_or_else(|| {
                        offers.push(Offer { price, classes: 0, list: None });
                        offers.len() - 1
                    });
                    offers[place].classes += 1;
                    if let Some(list) = &mut offers[place].list {
                        list.push_back(number);
                    }
                    self.price[edge] = self.price[edge].min(price);
                } else if let Some(place) = place {
                    offers[place].classes -= 1;
                    if offers[place].classes == 0 && self.price[edge] == price {
                        let left = offers.iter().filter(|offer| offer.classes > 0);
                        self.price[edge] = left.map(|offer| offer.price).min().unwrap_or(NO_EDGE);
                    }
                }
            }
        }
    }

    /// What it costs when a unit goes from a node to another.
    fn worth(&self, held: &Held, set: SlotSet, from: Slot, to: Slot) -> i64 {
        let copies = i64::from(held.missing(to)) - i64::from(held.missing(from));
        copies + self.zones_lost(set, from, to) * self.together
    }

    /// The next class that an edge offers at its price.
    fn next_class(&mut self, step: &Step) -> Option<u32> {
        let place = self.edges[step.edge].iter().position(|offer| offer.price == step.price)?;
        if self.edges[step.edge][place].list.is_none() {
            let offers = |(number, class): (u32, &Class)| {
                let held = &self.held[class.held as usize];
                let fits = class.units > 0
                    && class.set.has(step.from)
                    && !class.set.has(step.to)
                    && held.candidates(self.sites).has(step.to)
                    && self.worth(held, class.set, step.from, step.to) == step.price;
                fits.then_some(number)
            };
            let list = (0..).zip(&self.classes).filter_map(offers).collect();
            self.edges[step.edge][place].list = Some(list);
        }
        let list = self.edges[step.edge][place].list.as_mut()?;
        while let Some(number) = list.pop_front() {
            if self.classes[number as usize].units > 0 {
                list.push_back(number);
                return Some(number);
            }
        }
        None
    }

    /// How many zones fewer a set spans when a replica goes from a node to another.
    fn zones_lost(&self, set: SlotSet, from: Slot, to: Slot) -> i64 {
        let rest = set.without(SlotSet::only(from));
        let alone = |slot| i64::from(rest.and(self.sites.peers(slot)).is_empty());
        alone(from) - alone(to)
    }

    /// What it costs to take a unit from a node.
    fn less(&self, node: usize) -> i64 {
        let (load, (least, most)) = (self.load[node], self.bounds[node]);
        self.uneven * (i64::from(load <= least) - i64::from(load > most))
    }

    /// What it costs to give a unit to a node.
    fn more(&self, node: usize) -> i64 {
        let (load, (least, most)) = (self.load[node], self.bounds[node]);
        self.uneven * (i64::from(load >= most) - i64::from(load < least))
    }

    /// The path that saves most, as nodes; the shortest of those (Bellman and Ford).
    fn cheapest(&self) -> Option<Vec<usize>> {
        let start = |from| Reach { price: self.less(from), steps: 0, from };
        let mut reach: Vec<Reach> = (0..self.nodes).map(start).collect();
        let mut changed = true;
        let mut rounds = 0;
        while changed && rounds < self.nodes {
            changed = false;
            rounds += 1;
            for from in 0..self.nodes {
                let (price, steps) = (reach[from].price, reach[from].steps + 1);
                let edges = &self.price[from * self.nodes..][..self.nodes];
                for (to, edge) in edges.iter().enumerate().filter(|(_, edge)| **edge != NO_EDGE) {
                    if (price + edge, steps) < (reach[to].price, reach[to].steps) {
                        reach[to] = Reach { price: price + edge, steps, from };
                        changed = true;
                    }
                }
            }
        }
        let end = (0..self.nodes)
            .min_by_key(|to| (reach[*to].price + self.more(*to), reach[*to].steps))?;
        if reach[end].price + self.more(end) >= 0 {
            return None;
        }
        let mut path = vec![end];
        let mut at = end;
        while reach[at].from != at && path.len() <= self.nodes {
            at = reach[at].from;
            path.push(at);
        }
        path.reverse();
        Some(path)
    }

    /// Takes a path as often as its price stays. Whether it could be taken at all.
    fn take(&mut self, path: &[usize]) -> bool {
        let (Some(&first), Some(&last)) = (path.first(), path.last()) else { return false };
        let steps: Vec<Step> = path.windows(2).map(|step| self.step(step)).collect();
        let ends = (self.less(first), self.more(last));
        // A part from each of an edge's classes, so that no two nodes have more in common than others.
        let offers = steps.iter().flat_map(|step| {
            self.edges[step.edge].iter().filter(|offer| offer.price == step.price)
        });
        let choices = offers.map(|offer| offer.classes).min().unwrap_or(1).max(1);
        let part = (self.slack(first, last) / i64::from(choices)).max(1);
        let mut taken = false;
        while ends == (self.less(first), self.more(last))
            && steps.iter().all(|step| self.price[step.edge] == step.price)
            && self.take_once(&steps, part.min(self.slack(first, last)))
        {
            taken = true;
        }
        taken
    }

    fn step(&self, nodes: &[usize]) -> Step {
        let edge = nodes[0] * self.nodes + nodes[1];
        let price = self.price[edge];
        Step { from: Slot(nodes[0] as u8), to: Slot(nodes[1] as u8), edge, price }
    }

    /// How many units can go from a node to another at the same price.
    fn slack(&self, from: usize, to: usize) -> i64 {
        let (load, (least, most)) = (self.load[from], self.bounds[from]);
        let out = match load {
            _ if load > most => load - most,
            _ if load > least => load - least,
            _ => i64::MAX,
        };
        let (load, (least, most)) = (self.load[to], self.bounds[to]);
        let into = match load {
            _ if load < least => least - load,
            _ if load < most => most - load,
            _ => i64::MAX,
        };
        out.min(into)
    }

    /// Moves up to `most` units along a path. Whether it could.
    fn take_once(&mut self, steps: &[Step], most: i64) -> bool {
        let mut used: Vec<u32> = Vec::with_capacity(steps.len());
        let mut units = u32::try_from(most).unwrap_or(u32::MAX);
        for step in steps {
            let Some(number) = self.next_class(step) else { return false };
            // Of a class that serves two steps, one unit at a time: it may be the same.
            let most = if used.contains(&number) { 1 } else { self.classes[number as usize].units };
            units = units.min(most);
            used.push(number);
        }
        let mut became: Vec<(u32, u32)> = Vec::with_capacity(steps.len());
        for (step, number) in steps.iter().zip(used) {
            let number = if self.classes[number as usize].units >= units {
                number
            } else {
                // The only unit of its class has taken an earlier step of this path; it takes this one as well.
                let fits = |new: u32| {
                    let set = self.classes[new as usize].set;
                    set.has(step.from) && !set.has(step.to)
                };
                let later = became.iter().rev().find(|(old, new)| *old == number && fits(*new));
                let Some((_, new)) = later else {
                    debug_assert!(false, "a shortest path meets a unit twice");
                    return false;
                };
                *new
            };
            let new = self.shift(number, step.from, step.to, units);
            became.push((number, new));
        }
        true
    }

    /// Moves units of a class from a node to another. The class they have become.
    fn shift(&mut self, number: u32, from: Slot, to: Slot, units: u32) -> u32 {
        let class = &mut self.classes[number as usize];
        class.units -= units;
        let (held, left) = (class.held, class.units);
        let set = class.set.without(SlotSet::only(from)).or(SlotSet::only(to));
        self.load[from.index()] -= i64::from(units);
        self.load[to.index()] += i64::from(units);
        let new = *self.known.entry((held, set)).or_insert_with(|| {
            self.classes.push(Class { held, set, units: 0 });
            self.classes.len() as u32 - 1
        });
        let before = self.classes[new as usize].units;
        self.classes[new as usize].units += units;
        if before == 0 {
            self.offer(new, true);
        }
        if left == 0 {
            self.offer(number, false);
        }
        new
    }
}
