// SPDX-License-Identifier: Apache-2.0
//! What an operator is told of one volume.

use distributed_core::{BrickId, Descriptor, Node, NodeId};
use driver_api::{
    RVec,
    ext::{BrickPlace, RecoveredVolume, RecoveryOutcome},
};

use super::{decide::Findings, scan::Seen};
use crate::names::base;

/// A brick that was seen, in words.
pub(super) fn place(seen: &Seen) -> String {
    format!("{} on {}", seen.brick.name(&seen.base), seen.node.name)
}

/// The report of a volume while it is worked on: present, until something else is said.
pub(super) struct Report {
    base: String,
    told: RecoveredVolume,
}

impl Report {
    pub fn new(name: &str, identity: u64) -> Self {
        let told = RecoveredVolume {
            name: name.into(),
            identity,
            generation: "".into(),
            size: 0,
            found: RVec::new(),
            missing: RVec::new(),
            outcome: RecoveryOutcome::PRESENT,
            reason: "".into(),
            reserved: [0; 4],
        };
        Self { base: base(name, identity), told }
    }

    /// Of a volume of which nothing more is known.
    pub fn refused(name: &str, why: String) -> Self {
        let mut report = Self::new(name, 0);
        report.say(RecoveryOutcome::REFUSED, why);
        report
    }

    pub fn refuse(mut self, why: String) -> RecoveredVolume {
        self.say(RecoveryOutcome::REFUSED, why);
        self.told
    }

    pub fn say(&mut self, outcome: RecoveryOutcome, reason: String) {
        (self.told.outcome, self.told.reason) = (outcome, reason.into());
    }

    pub fn is(&mut self, descriptor: &Descriptor) {
        self.told.generation = descriptor.generation.to_string().into();
        self.told.size = descriptor.size;
    }

    pub fn of(&mut self, findings: &Findings<'_>) {
        self.is(findings.newest);
        for (brick, node) in &findings.missing {
            self.missing(*brick, *node, None);
        }
    }

    pub fn found(&mut self, seen: &Seen) {
        let place = self.place(seen.brick, seen.node.name.clone());
        self.told.found.push(place);
    }

    /// Notes a brick that was not found; its node's name is known if the node is registered under that number now.
    pub fn missing(&mut self, brick: BrickId, node: NodeId, registered: Option<&Node>) {
        let name = registered.map_or_else(|| node.to_string(), |node| node.name.clone());
        let place = self.place(brick, name);
        self.told.missing.push(place);
    }

    fn place(&self, brick: BrickId, node: String) -> BrickPlace {
        BrickPlace {
            node: node.into(),
            brick: brick.name(&self.base).into(),
            companion: brick.companion_name(&self.base).into(),
            reserved: [0; 4],
        }
    }
}

impl From<Report> for RecoveredVolume {
    fn from(report: Report) -> Self {
        report.told
    }
}
