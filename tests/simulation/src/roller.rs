// SPDX-License-Identifier: Apache-2.0
//! Puts the volume back to a snapshot, as the driver does it between two attachments, or a part of the way.

use distributed_core::{BrickId, Descriptor, Record, Slot, Snapshot, Template};
use fastrand::Rng;

use crate::{
    clients::CallKind,
    deeds::Deed,
    operator::is_rotten,
    storage::{Brick, SECTOR, Tag},
    world::World,
};

/// Makes of a seed another one, for roll backs.
const ROLLERS: u64 = 0x726f_6c6c_2062_6163;

/// Where the host dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Death {
    /// The fresh bricks are listed.
    Listed,
    /// So many of them are made.
    Made(usize),
    /// Nowhere.
    Never,
}

impl World {
    /// In peace, with a volume that serves: rolls back, as often as luck has it. False if something was wrong.
    pub fn roll_back_in_peace(&mut self, seed: u64) -> bool {
        let mut luck = Rng::with_seed(seed ^ ROLLERS);
        // What a disk made up comes back with a snapshot, and nothing here could tell it from what was written.
        while self.rots.is_empty() && luck.u32(0..3) > 0 {
            let Ok(descriptor) = Descriptor::decode(&self.stored.bytes) else { return true };
            let taken = descriptor.snapshots.iter().filter(|snapshot| snapshot.is_taken);
            let Some(snapshot) = luck.choice(taken.cloned().collect::<Vec<_>>()) else {
                return true;
            };
            if !self.ask_in_peace(CallKind::Detach, 0..0) {
                return false;
            }
            self.switch_to(&snapshot, &mut luck);
            if self.violation.is_some() || !self.heal("after a roll back") {
                return false;
            }
            self.read_everything();
            self.compare_replicas();
            if self.violation.is_some() {
                return false;
            }
        }
        true
    }

    fn switch_to(&mut self, snapshot: &Snapshot, luck: &mut Rng) {
        let Ok(before) = Descriptor::decode(&self.stored.bytes) else { return };
        let origin = before.origin(Some(snapshot.number), &self.stored.maps);
        let template = origin.and_then(|origin| origin.template("v", before.identity, origin.size));
        let copies = template.as_ref().and_then(|template| self.copies(template, snapshot.number));
        let (Some(template), Some(copies)) = (template, copies) else {
            if !self.has_lost_bricks {
                self.fail(format!("snapshot {} is not whole", snapshot.name));
            }
            return;
        };
        let target = before.rolled_back(&template);
        let death = match luck.u32(0..4) {
            0 => Death::Listed,
            1 => Death::Made(luck.usize(1..=copies.len())),
            _ => Death::Never,
        };
        self.note(|| format!("back to snapshot {}, dies: {death:?}, {target:?}", snapshot.name));
        self.stored.bytes = before.reserving(&target).encode().into();
        if death == Death::Listed {
            return self.deeds.count(Deed::RollBackCut);
        }
        self.stored.maps.insert(target.map, template.map.clone());
        let encoded = template.map.encode();
        for (slot, (entry, copy)) in target.bricks.iter().zip(copies).enumerate() {
            if death == Death::Made(slot) {
                return self.deeds.count(Deed::RollBackCut);
            }
            let record = Record::initial(&target, Slot(slot as u8), encoded.len() as u32);
            let Some(record) = record else { return self.fail("a slot has no brick".into()) };
            let mut brick = Brick::with_record(copy.len(), record.encode(), encoded.clone());
            brick.durable.clone_from(&copy);
            brick.memory = copy;
            self.nodes[entry.node.0 as usize].bricks.insert(entry.brick, brick);
        }
        if death != Death::Never {
            return self.deeds.count(Deed::RollBackCut);
        }
        self.stored.bytes = target.encode().into();
        self.resized(self.now, (target.size / SECTOR) as usize);
        let frozen = self.frozen.get(&snapshot.name);
        let sectors: Vec<Tag> = frozen
            .map(|frozen| frozen.sectors.iter().map(|tag| tag.unwrap_or_default()).collect())
            .unwrap_or_default();
        if sectors.len() != self.sizes.known || sectors.iter().any(|tag| is_rotten(*tag)) {
            return self.fail(format!("snapshot {} has another size than it had", snapshot.name));
        }
        self.oracle.rolled_back(self.now, &sectors);
        self.deeds.count(Deed::RolledBack);
    }

    /// What each brick of a template begins with; `None` if one of its sources has not got the snapshot.
    fn copies(&self, template: &Template, number: u32) -> Option<Vec<Vec<Tag>>> {
        let sectors = (template.descriptor.size / SECTOR) as usize;
        let copy = |(slot, source): (Slot, &BrickId)| {
            let mut copy = self.snapshot_of(*source, number)?.clone();
            copy.resize(sectors, 0);
            for (offset, len) in template.map.beside(slot, template.descriptor.size) {
                copy[(offset / SECTOR) as usize..((offset + len) / SECTOR) as usize].fill(0);
            }
            Some(copy)
        };
        (0..).map(Slot).zip(&template.sources).map(copy).collect()
    }
}
