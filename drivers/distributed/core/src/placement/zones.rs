// SPDX-License-Identifier: Apache-2.0
//! Zones first, then nodes.

use super::{balanced, spread::same_zone};
use crate::{Node, Slot, SlotSet};

/// Places groups of shards so that each zone has what the weights of its nodes say, and within it each node.
pub(super) fn place(nodes: &[&Node], factor: u32, seed: u64, groups: u64) -> Vec<SlotSet> {
    let zones = zones(nodes);
    if (zones.len() as u32) < factor {
        // Every zone has a replica of everything then; where the others go is up to the nodes.
        return balanced(nodes, factor, seed, groups);
    }
    let as_nodes: Vec<Node> = zones.iter().map(|zone| as_node(nodes, zone)).collect();
    let as_nodes: Vec<&Node> = as_nodes.iter().collect();
    let chosen = balanced(&as_nodes, factor, seed, groups);
    let mut sets = vec![SlotSet::EMPTY; chosen.len()];
    for (number, zone) in zones.iter().enumerate() {
        let here: Vec<usize> =
            (0..chosen.len()).filter(|group| chosen[*group].has(Slot(number as u8))).collect();
        let members: Vec<&Node> = zone.iter().map(|index| nodes[*index]).collect();
        let within = balanced(&members, 1, seed, here.len() as u64);
        for (group, set) in here.into_iter().zip(within) {
            set.iter().for_each(|slot| sets[group].insert(Slot(zone[slot.index()] as u8)));
        }
    }
    sets
}

/// The zones, each as the places of its nodes in the list.
fn zones(nodes: &[&Node]) -> Vec<Vec<usize>> {
    let mut zones: Vec<Vec<usize>> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        match zones.iter_mut().find(|zone| same_zone(nodes[zone[0]], node)) {
            Some(zone) => zone.push(index),
            None => zones.push(vec![index]),
        }
    }
    zones
}

/// A zone as one node of all its nodes' weights.
fn as_node(nodes: &[&Node], zone: &[usize]) -> Node {
    let weight = zone.iter().fold(0_u32, |sum, index| sum.saturating_add(nodes[*index].weight));
    Node { weight, zone: String::new(), ..nodes[zone[0]].clone() }
}
