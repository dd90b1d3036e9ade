// SPDX-License-Identifier: Apache-2.0
//! Scrubs, and what they may say: a replica is accused only if its disk made something up, and none is mended from it.

use std::collections::BTreeMap;

use distributed_core::{BrickId, Digest, Event, Finding, Repaired, Slot, SlotSet, Verdict};

use crate::{
    clients::Call,
    deeds::Deed,
    operator::{ROTTEN, Rot, is_rotten},
    storage::{SECTOR, Tag},
    world::{MS, World},
};

/// How long a scrub in peace may take.
const PATIENCE: u64 = 2_000 * MS;

impl World {
    /// The digest of what a driver read.
    pub fn digest_of(&mut self, data: Vec<Tag>) -> Digest {
        let mut halves = [data.len() as u64 ^ 0x9e37_79b9_7f4a_7c15, !(data.len() as u64)];
        for tag in &data {
            for (half, by) in halves.iter_mut().zip([0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53])
            {
                *half = (*half ^ u64::from(*tag)).wrapping_mul(by).rotate_left(31);
            }
        }
        let mut digest = [0; 16];
        digest[..8].copy_from_slice(&halves[0].to_le_bytes());
        digest[8..].copy_from_slice(&halves[1].to_le_bytes());
        if self.contents.get(&digest).is_some_and(|other| *other != data) {
            self.fail("two contents have one digest".to_owned());
        }
        self.contents.insert(digest, data);
        digest
    }

    /// A copy takes what a disk made up along to another brick: nobody can know any more what was there.
    pub fn note_spread(&mut self, data: &[Tag]) {
        for tag in data.iter().filter(|tag| is_rotten(**tag)) {
            if let Some(rot) = self.rot_mut(*tag) {
                rot.is_spread = true;
            }
        }
    }

    fn rot_mut(&mut self, tag: Tag) -> Option<&mut Rot> {
        self.rots.get_mut((tag - ROTTEN) as usize)
    }

    /// Whether nobody can know that a disk made this up: others were given it, or shards may have had one replica.
    fn is_accepted(&self, tag: Tag) -> bool {
        let rot = self.rots.get((tag - ROTTEN) as usize);
        self.plan.arranges || rot.is_some_and(|rot| rot.is_spread)
    }

    /// Somebody has the volume scrubbed.
    pub fn order_scrub(&mut self, host: usize) {
        let repairs = self.rng.bool();
        let (instance, started) = (self.hosts[host].instance, self.now);
        self.deliver(host, instance, Event::Scrub { repairs, started });
    }

    /// A host tells that replicas are not what they must be.
    pub fn damage_told(&mut self, host: usize, finding: &Finding) {
        if self.hosts[host].epoch != self.stored.epoch {
            return;
        }
        self.deeds.count(if finding.verdict == Verdict::Digest {
            Deed::Named
        } else {
            Deed::Suspected
        });
        self.note(|| format!("host {host} found {finding:?}"));
        let held: Vec<(bool, Vec<Tag>)> = finding
            .replicas
            .iter()
            .map(|r| (r.is_bad, self.contents.get(&r.digest).cloned().unwrap_or_default()))
            .collect();
        let good = held.iter().find(|(is_bad, _)| !is_bad).map(|(_, tags)| tags);
        for (index, (is_bad, tags)) in held.iter().enumerate() {
            let has_rot = tags.iter().any(|tag| is_rotten(*tag));
            let complaint = match (finding.verdict, good) {
                (Verdict::Digest | Verdict::Majority, Some(good)) if *is_bad => {
                    // Most may hold what was copied from a bad disk.
                    let made_up = |(bad, good): (&Tag, &Tag)| {
                        bad == good
                            || is_rotten(*bad)
                            || (is_rotten(*good) && self.is_accepted(*good))
                    };
                    let is_proven = tags != good && tags.iter().zip(good).all(made_up);
                    (!is_proven).then_some("is accused of what its disk did not do")
                }
                (Verdict::Digest | Verdict::Majority, Some(_)) => {
                    let mut rots = tags.iter().filter(|tag| is_rotten(**tag));
                    let passes = rots.all(|tag| self.is_accepted(*tag));
                    (!passes).then_some("passes as good, and its disk made something up")
                }
                (Verdict::Digest | Verdict::Majority, None) => Some("nobody is good"),
                // A range of a node that fails reads is as good as read.
                (Verdict::Unreadable, _) => None,
                (Verdict::Everywhere, _) => (!has_rot).then_some("is a false alarm"),
                (Verdict::Undecided, _) => {
                    let is_any = held.iter().any(|(_, tags)| tags.iter().any(|t| is_rotten(*t)));
                    (!is_any).then_some("is a false alarm")
                }
            };
            if let Some(complaint) = complaint {
                return self.fail(format!("replica {index} of {finding:?} {complaint}: {held:?}"));
            }
        }
    }

    /// A host tells what became of a bad replica.
    pub fn mend_told(&mut self, finding: &Finding) {
        let is_verified = finding.mending == Repaired::Verified;
        self.deeds.count(if is_verified { Deed::Mended } else { Deed::NotMended });
        self.note(|| format!("mended: {finding:?}"));
    }

    /// A read that was compared gives nothing that only one disk made up.
    pub fn judge_comparison(&mut self, call: &Call, data: &[Tag]) {
        if !self.plan.verifies || !self.is_as_before(call) {
            return;
        }
        for (sector, tag) in (call.sectors.start..).zip(data) {
            let Some(rot) = tag.checked_sub(ROTTEN).and_then(|i| self.rots.get(i as usize)) else {
                continue;
            };
            let set = self.set_of(sector);
            let is_alone = set.and(call.before.in_sync).len() < 2;
            if !rot.is_spread && !is_alone && rot.since < call.called {
                return self.fail(format!("a compared read of sector {sector} got rot: {call:?}"));
            }
        }
    }

    /// A read is refused only where disks made something up.
    pub fn judge_refusal(&mut self, call: &Call, text: &str) {
        self.deeds.count(Deed::NotRead);
        let (from, to) = (call.sectors.start / 8 * 8, call.sectors.end.next_multiple_of(8));
        let is_rotten_here = self.rots.iter().any(|rot| (from..to).contains(&rot.sector));
        if !is_rotten_here {
            self.fail(format!("a read of {:?} was refused: {text}", call.sectors));
        }
    }

    /// Every digest that counts is of what the in-sync replicas hold, but for what disks made up.
    pub fn check_digests(&mut self, host: usize) {
        let Some(volume) = &self.hosts[host].volume else { return };
        let unit = volume.digest_unit();
        let starts = (0..volume.size().div_ceil(unit)).map(|number| number * unit);
        let digests: Vec<(u64, u64, Digest)> = starts
            .filter_map(|start| volume.digest_at(start).map(|(end, digest)| (start, end, digest)))
            .collect();
        if !digests.is_empty() && self.chaos {
            self.deeds.count(Deed::Restored);
        }
        let bricks = self.in_sync();
        for (start, end, digest) in digests {
            let first = (start / SECTOR) as usize;
            let set = self.set_of(first);
            let Some(known) = self.contents.get(&digest) else {
                return self.fail(format!("nobody took the digest of {start}..{end}"));
            };
            for (at, was) in (first..(end / SECTOR) as usize).zip(known) {
                for (slot, brick, node) in bricks.iter().filter(|(slot, _, _)| set.has(*slot)) {
                    let now = self.held(*brick, *node, at).unwrap_or_default();
                    if now != *was && !is_rotten(now) && !is_rotten(*was) {
                        let text = format!(
                            "the digest of {start}..{end} is of {was} in sector {at}, and {slot:?} holds {now}"
                        );
                        return self.fail(text);
                    }
                }
            }
        }
    }

    /// Scrubs when nothing disturbs: everything gets a digest, then every bad replica is named and mended.
    pub fn scrub_in_peace(&mut self) -> bool {
        if !self.scrub_and_wait(true) || !self.heal("after a scrub") {
            return false;
        }
        let spread = self.rots.iter().any(|rot| rot.is_spread);
        let Some(status) = self.hosts[self.current].volume.as_ref().and_then(|v| v.scrub()) else {
            return false;
        };
        if status.passed_over != 0 || (status.digested != status.units && !spread) {
            self.fail(format!("a scrub in peace left something out: {status:?}"));
            return false;
        }
        let wanted = self.rot_here_and_there();
        if self.plan.verifies && self.rng.bool() {
            // What reads find bad, they mend.
            self.read_everything();
            return self.violation.is_none()
                && self.heal("after reads")
                && self.scrub_and_wait(true)
                && self.heal("after mends")
                && self.are_sound(&wanted);
        }
        if !self.scrub_and_wait(false) || !self.expect_findings(&wanted, false) {
            return false;
        }
        self.scrub_and_wait(true)
            && self.expect_findings(&wanted, true)
            && self.heal("after mends")
            && self.are_sound(&wanted)
    }

    /// Has disks change one replica of some units that have digests: where, and which.
    fn rot_here_and_there(&mut self) -> BTreeMap<u64, (Slot, BrickId, usize)> {
        let mut rotten = BTreeMap::new();
        let Some(volume) = &self.hosts[self.current].volume else { return rotten };
        let unit = volume.digest_unit();
        let starts: Vec<(u64, u64, Digest)> = (0..volume.size().div_ceil(unit))
            .filter_map(|number| {
                let (end, digest) = volume.digest_at(number * unit)?;
                Some((number * unit, end, digest))
            })
            .collect();
        let bricks = self.in_sync();
        for (start, end, digest) in starts {
            let known = self.contents.get(&digest).cloned().unwrap_or_default();
            let sector = self.rng.usize((start / SECTOR) as usize..(end / SECTOR) as usize);
            let set = self.set_of(sector);
            let here: Vec<_> = bricks.iter().filter(|(slot, _, _)| set.has(*slot)).collect();
            let chosen = self.rng.choice(here.iter().copied()).copied();
            // What was copied from a bad disk is nowhere what it was.
            let first = (start / SECTOR) as usize;
            let is_known = here.iter().all(|(_, brick, node)| {
                (first..).zip(&known).all(|(at, was)| self.held(*brick, *node, at) == Some(*was))
            });
            if here.len() < 2 || !is_known || self.rng.u32(0..3) != 0 {
                continue;
            }
            if let Some(bad) = chosen
                && self.rot_at(bad.1, bad.2, sector)
            {
                rotten.insert(start, bad);
            }
        }
        rotten
    }

    fn expect_findings(
        &mut self,
        wanted: &BTreeMap<u64, (Slot, BrickId, usize)>,
        are_mended: bool,
    ) -> bool {
        let status = self.hosts[self.current].volume.as_ref().and_then(|volume| volume.scrub());
        let status = status.unwrap_or_default();
        let told: BTreeMap<u64, SlotSet> = status
            .findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Digest)
            .map(|finding| (finding.offset, finding.bad().map(|bad| bad.slot).collect()))
            .collect();
        let known: BTreeMap<u64, SlotSet> =
            wanted.iter().map(|(start, (slot, _, _))| (*start, SlotSet::only(*slot))).collect();
        let mended = |finding: &Finding| finding.mending == Repaired::Verified;
        if told != known
            || (are_mended
                && !status.findings.iter().filter(|f| f.verdict == Verdict::Digest).all(mended))
        {
            self.fail(format!("rotten are {wanted:?}, and a scrub told of {:?}", status.findings));
            return false;
        }
        true
    }

    fn are_sound(&mut self, wanted: &BTreeMap<u64, (Slot, BrickId, usize)>) -> bool {
        for (start, (slot, brick, node)) in wanted {
            let first = (start / SECTOR) as usize;
            let Some(volume) = &self.hosts[self.current].volume else { return false };
            let Some((end, digest)) = volume.digest_at(*start) else { continue };
            let known = self.contents.get(&digest).cloned().unwrap_or_default();
            let held: Vec<Tag> = (first..(end / SECTOR) as usize)
                .map(|sector| self.held(*brick, *node, sector).unwrap_or_default())
                .collect();
            if held != known {
                self.fail(format!("{slot:?} was mended at {start}, and holds {held:?}"));
                return false;
            }
        }
        true
    }

    /// Has the volume scrubbed, and waits for the end.
    fn scrub_and_wait(&mut self, repairs: bool) -> bool {
        if !self.wait_for_scrub() {
            return false;
        }
        let (host, started) = (self.current, self.now);
        let instance = self.hosts[host].instance;
        self.deliver(host, instance, Event::Scrub { repairs, started });
        self.wait_for_scrub()
    }

    fn wait_for_scrub(&mut self) -> bool {
        let limit = self.now + PATIENCE;
        loop {
            let volume = self.hosts[self.current].volume.as_ref();
            let Some(status) = volume.map(|volume| volume.scrub()) else { return false };
            if status.is_none_or(|status| status.is_over) {
                self.deeds.count(Deed::Scrubbed);
                return true;
            }
            if !self.step() || self.now > limit {
                let status = self.hosts[self.current].volume.as_ref().and_then(|v| v.scrub());
                self.fail(format!("a scrub does not end: {status:?}"));
                return false;
            }
        }
    }
}
