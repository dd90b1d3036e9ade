// SPDX-License-Identifier: Apache-2.0
//! Judges what clients saw, sector by sector.
//!
//! Each write has an interval: from its call to its answer. The sector's value is that of some write; a write that
//! ended before another one began, which was acknowledged or seen, can never be seen again. `floor` is the latest such
//! beginning. `durable_floor` is the same, counting only what a flush covered: a crash puts `floor` back to it, since
//! what was not flushed may be old or new.

use crate::storage::Tag;

#[derive(Clone, Copy, Debug)]
struct Write {
    tag: Tag,
    /// Tells writes of zeros apart.
    id: u32,
    start: u64,
    /// When it was answered; `u64::MAX` while it may still take effect.
    end: u64,
    /// A completed read saw it, at this time.
    seen: u64,
    /// Another value was seen after it: no read that starts later may see it.
    dead_from: u64,
    /// It failed: what it wrote may have been taken back.
    failed: bool,
}

#[derive(Clone, Debug)]
struct Sector {
    writes: Vec<Write>,
    /// The latest start of a write that was acknowledged or seen.
    floor: u64,
    /// The latest start of an acknowledged write; what a flush that begins now will cover.
    acknowledged: u64,
    durable_floor: u64,
}

/// The number of a write of zeros that nobody asked for, while it is made.
const CUT: u32 = u32::MAX;

/// What a client's read or flush has to be judged by: the sectors' floors when it began.
pub type Snapshot = Vec<u64>;

/// The judge.
#[derive(Clone, Debug)]
pub struct Oracle {
    sectors: Vec<Sector>,
}

impl Oracle {
    /// A new volume: zeros.
    pub fn new(sectors: usize) -> Self {
        let initial =
            Write { tag: 0, id: 0, start: 0, end: 0, seen: 0, dead_from: u64::MAX, failed: false };
        let sector = Sector { writes: vec![initial], floor: 0, acknowledged: 0, durable_floor: 0 };
        Self { sectors: vec![sector; sectors] }
    }

    /// A write of `tag` was called; `id` is its own.
    pub fn write_called(&mut self, now: u64, range: std::ops::Range<usize>, tag: Tag, id: u32) {
        for sector in &mut self.sectors[range] {
            let (end, dead_from) = (u64::MAX, u64::MAX);
            sector.writes.push(Write {
                tag,
                id,
                start: now,
                end,
                seen: 0,
                dead_from,
                failed: false,
            });
        }
    }

    /// A write was acknowledged.
    pub fn write_acknowledged(
        &mut self,
        now: u64,
        range: std::ops::Range<usize>,
        id: u32,
        durable: bool,
    ) {
        for sector in &mut self.sectors[range] {
            let Some(write) = sector.writes.iter_mut().find(|write| write.id == id) else {
                continue;
            };
            let start = write.start;
            if write.end < now && !durable {
                // A crash took its chance to be lost before the answer came.
                continue;
            }
            write.end = write.end.min(now);
            sector.floor = sector.floor.max(start);
            sector.acknowledged = sector.acknowledged.max(start);
            if durable {
                sector.durable_floor = sector.durable_floor.max(start);
            }
        }
    }

    /// A write can have no further effect; whether it had one is open.
    pub fn write_ended(&mut self, now: u64, range: std::ops::Range<usize>, id: u32) {
        for sector in &mut self.sectors[range] {
            if let Some(write) = sector.writes.iter_mut().find(|write| write.id == id) {
                write.end = write.end.min(now);
            }
        }
    }

    /// A write failed: what reads saw of it while it was under way does not count, since it may have been taken back.
    pub fn write_failed(&mut self, now: u64, range: std::ops::Range<usize>, id: u32) {
        self.write_ended(now, range.clone(), id);
        for sector in &mut self.sectors[range] {
            sector.floor = sector.acknowledged.max(sector.durable_floor);
            for write in &mut sector.writes {
                write.failed |= write.id == id;
                write.seen = 0;
                write.dead_from = u64::MAX;
            }
        }
    }

    /// A write was refused before anything was done.
    pub fn write_refused(&mut self, range: std::ops::Range<usize>, id: u32) {
        for sector in &mut self.sectors[range] {
            sector.writes.retain(|write| write.id != id);
        }
    }

    /// The volume became smaller, and remembers it: if it grows again, it reads zeros there.
    pub fn cut_off(&mut self, called: u64, now: u64, range: std::ops::Range<usize>) {
        self.write_called(called, range.clone(), 0, CUT);
        self.write_acknowledged(now, range.clone(), CUT, true);
        for sector in &mut self.sectors[range] {
            // What is under way was not begun, and will be refused.
            sector.writes.retain(|write| write.end == u64::MAX || write.id == CUT);
            sector.writes.iter_mut().filter(|write| write.id == CUT).for_each(|write| write.id = 0);
        }
    }

    /// The volume, which nobody uses at this time, has these contents now, durably.
    pub fn rolled_back(&mut self, now: u64, contents: &[Tag]) {
        for (sector, tag) in contents.iter().enumerate() {
            let range = sector..sector + 1;
            self.write_called(now, range.clone(), *tag, CUT);
            self.write_acknowledged(now, range, CUT, true);
            let writes = &mut self.sectors[sector].writes;
            writes.retain(|write| write.id == CUT);
            writes.iter_mut().for_each(|write| write.id = 0);
        }
    }

    /// The volume may have been smaller for a while: it has what it had, or zeros.
    pub fn may_be_cut_off(&mut self, now: u64, range: std::ops::Range<usize>) {
        self.write_called(now, range.clone(), 0, CUT);
        self.write_ended(now, range.clone(), CUT);
        for sector in &mut self.sectors[range] {
            sector.writes.iter_mut().filter(|write| write.id == CUT).for_each(|write| write.id = 0);
        }
    }

    /// A read is called.
    pub fn read_called(&self, range: std::ops::Range<usize>) -> Snapshot {
        self.sectors[range].iter().map(|sector| sector.floor).collect()
    }

    /// Judges a read's answer, but for the sectors that are `unjudged`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read_answered(
        &mut self,
        called: u64,
        now: u64,
        first: usize,
        floors: &[u64],
        data: &[Tag],
        unjudged: &[bool],
    ) -> Result<(), String> {
        let told = (first..).zip(floors).zip(data.iter().zip(unjudged));
        for ((at, floor), (tag, _)) in told.filter(|(_, (_, unjudged))| !**unjudged) {
            let sector = &mut self.sectors[at];
            let may_be = |write: &Write| {
                write.tag == *tag && write.end >= *floor && write.dead_from > called
            };
            let mut fitting = sector.writes.iter().filter(|write| may_be(write));
            let Some(found) = fitting.next().copied() else {
                return Err(sector.complaint(at, *tag, *floor, called));
            };
            // A read that met a write which failed may have seen what was taken back since.
            let is_void = found.failed && called <= found.end;
            if fitting.next().is_some() || is_void {
                continue;
            }
            for write in &mut sector.writes {
                if write.id == found.id {
                    write.seen = write.seen.max(now);
                } else if write.seen > 0 && write.seen < called {
                    write.dead_from = write.dead_from.min(now);
                }
            }
            sector.floor = sector.floor.max(found.start);
        }
        Ok(())
    }

    /// A flush is called: it will cover what was acknowledged before.
    pub fn flush_called(&self) -> Snapshot {
        self.sectors.iter().map(|sector| sector.acknowledged).collect()
    }

    /// A flush was acknowledged.
    pub fn flush_answered(&mut self, covered: &[u64]) {
        for (sector, covered) in self.sectors.iter_mut().zip(covered) {
            sector.durable_floor = sector.durable_floor.max(*covered);
            sector.floor = sector.floor.max(*covered);
        }
    }

    /// What earlier attachments were asked and did not answer has taken effect or never will. Nobody reads.
    pub fn attachment_ended(&mut self, now: u64) {
        for sector in &mut self.sectors {
            sector.prune();
            for write in &mut sector.writes {
                write.end = write.end.min(now);
            }
        }
    }

    /// A volume was recovered: of what was not flushed, each sector has old or new.
    pub fn crashed(&mut self) {
        for sector in &mut self.sectors {
            sector.floor = sector.durable_floor;
            sector.acknowledged = sector.durable_floor;
            for write in &mut sector.writes {
                write.seen = 0;
                write.dead_from = u64::MAX;
            }
        }
    }

    /// Every sector holds exactly this, durably, because a follower took over that holds it.
    pub fn taken_over(&mut self, now: u64, held: &[Tag]) {
        for (sector, tag) in self.sectors.iter_mut().zip(held) {
            // Zeros may be of any write of zeros: one that has not begun yet stays.
            let found = sector.writes.iter().find(|write| write.tag == *tag && *tag != 0).copied();
            let kept = Write {
                tag: *tag,
                id: 0,
                start: now,
                end: now,
                seen: 0,
                dead_from: u64::MAX,
                failed: false,
            };
            let id = found.map_or(0, |write| write.id);
            // What was not begun yet may come.
            sector.writes.retain(|write| write.end == u64::MAX && write.id != id);
            sector.writes.push(Write { id, ..kept });
            for write in &mut sector.writes {
                write.seen = 0;
                write.dead_from = u64::MAX;
            }
            (sector.floor, sector.acknowledged, sector.durable_floor) = (now, now, now);
        }
    }

    /// Whether a sector may hold this value for good.
    pub fn may_hold(&self, at: usize, tag: Tag) -> bool {
        let sector = &self.sectors[at];
        sector.writes.iter().any(|write| write.tag == tag && write.end >= sector.floor)
    }
}

impl Sector {
    /// Forgets what can never be seen again. Only when nobody reads: a read that is under way may yet see it.
    fn prune(&mut self) {
        let floor = self.durable_floor;
        self.writes.retain(|write| write.end >= floor);
    }

    fn complaint(&self, at: usize, tag: Tag, floor: u64, called: u64) -> String {
        let known = self.writes.iter().find(|write| write.tag == tag);
        let verdict = match known {
            Some(write) if write.dead_from <= called => {
                "which another read had seen overwritten".to_owned()
            }
            Some(write) => format!("of a write that ended at {}", write.end),
            None => "which nobody wrote there since the last flush".to_owned(),
        };
        let durable = if floor <= self.durable_floor { "flushed" } else { "acknowledged or seen" };
        format!(
            "sector {at}: a read called at {called} got value {tag}, {verdict}, although a write that began at {floor} \
             is {durable}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Oracle;

    fn read(oracle: &mut Oracle, from: u64, to: u64, tag: u32) -> bool {
        let floors = oracle.read_called(0..1);
        oracle.read_answered(from, to, 0, &floors, &[tag], &[false]).is_ok()
    }

    #[test]
    fn reads_see_the_latest_write_or_one_under_way() {
        let mut oracle = Oracle::new(1);
        assert!(read(&mut oracle, 1, 2, 0));
        oracle.write_called(3, 0..1, 7, 7);
        assert!(read(&mut oracle, 4, 5, 0), "the write is still under way");
        assert!(read(&mut oracle, 6, 7, 7));
        assert!(!read(&mut oracle, 8, 9, 0), "the sector went back");
        oracle.write_acknowledged(10, 0..1, 7, false);
        assert!(!read(&mut oracle, 11, 12, 0));
        assert!(!read(&mut oracle, 11, 12, 9), "foreign");
        assert!(read(&mut oracle, 11, 12, 7));
    }

    #[test]
    fn two_values_do_not_alternate() {
        let mut oracle = Oracle::new(1);
        oracle.write_called(1, 0..1, 5, 5);
        oracle.write_called(1, 0..1, 6, 6);
        assert!(read(&mut oracle, 2, 3, 5));
        assert!(read(&mut oracle, 4, 5, 6));
        assert!(!read(&mut oracle, 6, 7, 5));
    }

    #[test]
    fn what_may_be_cut_off_is_old_or_zero_and_stays_so() {
        let mut oracle = Oracle::new(1);
        oracle.write_called(1, 0..1, 5, 5);
        oracle.write_acknowledged(2, 0..1, 5, true);
        assert!(!read(&mut oracle, 3, 4, 0));
        oracle.may_be_cut_off(5, 0..1);
        assert!(read(&mut oracle.clone(), 6, 7, 5));
        assert!(!read(&mut oracle.clone(), 6, 7, 9), "foreign");
        assert!(read(&mut oracle, 6, 7, 0));
        assert!(!read(&mut oracle, 8, 9, 5), "it came back");
    }

    #[test]
    fn crashes_take_what_was_not_flushed_only() {
        let mut oracle = Oracle::new(1);
        oracle.write_called(1, 0..1, 5, 5);
        oracle.write_acknowledged(2, 0..1, 5, false);
        let covered = oracle.flush_called();
        oracle.write_called(3, 0..1, 6, 6);
        oracle.write_acknowledged(4, 0..1, 6, false);
        oracle.flush_answered(&covered);
        oracle.attachment_ended(10);
        oracle.crashed();
        assert!(read(&mut oracle.clone(), 11, 12, 5));
        assert!(read(&mut oracle.clone(), 11, 12, 6));
        assert!(!read(&mut oracle, 11, 12, 0));
        assert!(read(&mut oracle, 13, 14, 5));
        oracle.write_called(15, 0..1, 8, 8);
        oracle.write_acknowledged(16, 0..1, 8, true);
        oracle.attachment_ended(17);
        oracle.crashed();
        assert!(!read(&mut oracle, 18, 19, 6), "a late write of the old attachment landed");
        assert!(read(&mut oracle, 18, 19, 8));
    }
}
