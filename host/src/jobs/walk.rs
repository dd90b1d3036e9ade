// SPDX-License-Identifier: Apache-2.0
//! What a walk over a volume's replicas has found, and where it goes on.

use std::collections::BTreeSet;

use driver_api::ext::Comparison;
use serde::{Deserialize, Serialize};

use crate::config::format_size;

/// Ranges that are named. More are only counted: a job's record stays small.
const NAMED: usize = 256;

/// A walk, as its job's record keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The node whose bytes are the right ones; none: differences are found, and nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The first byte that was not looked at.
    pub next: u64,
    /// Bytes of which at least two replicas were compared.
    pub compared: u64,
    /// Bytes that differ, in one replica or several.
    pub differing: u64,
    /// Bytes that differed and were made equal.
    pub repaired: u64,
    /// Nodes whose replicas were left out somewhere, since they are not in sync.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left_out: BTreeSet<String>,
    /// The first ranges that differ, in order; adjacent ones that differ alike are one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Difference>,
    /// Whether there are more ranges than these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A range in which replicas differ.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its first byte in the volume.
    pub offset: u64,
    /// Its length in bytes; some of them differ.
    pub len: u64,
    /// The node that the others were compared with.
    pub reference: String,
    /// The nodes that differ from it.
    pub nodes: Vec<String>,
}

impl Walk {
    /// Notes what comparing `len` bytes at the walk's place gave; `holders` are all nodes that have them.
    pub(super) fn compared(
        &mut self,
        len: u64,
        holders: impl IntoIterator<Item = String>,
        comparison: &Comparison,
    ) {
        let missing = holders
            .into_iter()
            .filter(|node| !comparison.compared.iter().any(|one| one.as_str() == node));
        self.left_out.extend(missing);
        if comparison.compared.len() > 1 {
            self.compared += len;
        }
    }

    /// Notes that `len` bytes at the walk's place differ.
    pub(super) fn differs(&mut self, len: u64, comparison: &Comparison) {
        self.differing += len;
        let reference =
            comparison.compared.first().map(|node| node.to_string()).unwrap_or_default();
        let nodes: Vec<String> = comparison.differing.iter().map(|node| node.to_string()).collect();
        if let Some(last) = self.ranges.last_mut()
            && !self.more
            && last.offset + last.len == self.next
            && last.reference == reference
            && last.nodes == nodes
        {
            last.len += len;
        } else if self.ranges.len() < NAMED {
            self.ranges.push(Difference { offset: self.next, len, reference, nodes });
        } else {
            self.more = true;
        }
    }

    /// What differs, in a sentence.
    pub(super) fn summary(&self) -> String {
        let count = match (self.ranges.len(), self.more) {
            (1, false) => "1 range".to_owned(),
            (count, false) => format!("{count} ranges"),
            (count, true) => format!("more than {count} ranges"),
        };
        let first = self.ranges.first().map(ToString::to_string).unwrap_or_default();
        format!("{count}, {} in all; the first: {first}", format_size(self.differing))
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (len, nodes) = (format_size(self.len), self.nodes.join(", "));
        write!(f, "{len} at {}: {nodes} unlike {}", self.offset, self.reference)
    }
}

#[cfg(test)]
mod tests {
    use driver_api::RString;

    use super::*;

    fn comparison(differing: &[&str]) -> Comparison {
        let texts = |names: &[&str]| names.iter().map(|name| RString::from(*name)).collect();
        let compared = texts(&["n1", "n2", "n3"]);
        Comparison { compared, differing: texts(differing), ..Comparison::default() }
    }

    fn step(walk: &mut Walk, differing: &[&str]) {
        let comparison = comparison(differing);
        let holders = ["n1", "n2", "n3", "n4"].map(str::to_owned);
        walk.compared(10, holders, &comparison);
        if !differing.is_empty() {
            walk.differs(10, &comparison);
        }
        walk.next += 10;
    }

    #[test]
    fn adjacent_ranges_that_differ_alike_are_one() {
        let mut walk = Walk::default();
        for differing in [&["n2"][..], &["n2"], &[], &["n2"], &["n2", "n3"]] {
            step(&mut walk, differing);
        }
        let found: Vec<_> =
            walk.ranges.iter().map(|one| (one.offset, one.len, one.nodes.len())).collect();
        assert_eq!(found, [(0, 20, 1), (30, 10, 1), (40, 10, 2)]);
        assert_eq!((walk.compared, walk.differing), (50, 40));
        assert_eq!(walk.left_out, BTreeSet::from(["n4".to_owned()]));
        assert!(walk.summary().starts_with("3 ranges, 40"), "{}", walk.summary());
    }

    #[test]
    fn a_record_stays_small_and_says_that_there_is_more() {
        let mut walk = Walk::default();
        for _ in 0..NAMED + 5 {
            step(&mut walk, &["n2"]);
            step(&mut walk, &[]);
        }
        assert_eq!((walk.ranges.len(), walk.more), (NAMED, true));
        assert_eq!(walk.differing, 10 * (NAMED as u64 + 5), "all are counted");
        step(&mut walk, &["n2"]);
        let last = &walk.ranges[NAMED - 1];
        assert_eq!(last.len, 10, "what is not named does not grow what is");
    }
}
