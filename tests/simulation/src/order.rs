// SPDX-License-Identifier: Apache-2.0
//! Judges followers: what a brick holds at a point must be exactly the writes up to it, in the order of their points.
//!
//! A write has its place once it was acknowledged with a point. One that was not, or failed, may be anywhere, but not
//! under a write that was called after it had ended.

use std::{collections::BTreeMap, ops::Range};

use distributed_core::Point;

use crate::storage::Tag;

/// Sectors of a batch's largest piece: a longer write takes several places.
pub const PIECE_SECTORS: usize = 8;
/// Sectors of a step of a write of zeros: a longer one takes places that nobody tells.
const STEP_SECTORS: usize = 16;

#[derive(Clone, Debug)]
struct Placed {
    sequence: u64,
    sectors: Range<usize>,
    tag: Tag,
    id: u32,
    called: u64,
    answered: u64,
    /// Its parts have places that nobody knows, all before this one.
    is_scattered: bool,
}

#[derive(Clone, Debug)]
struct Unplaced {
    sectors: Range<usize>,
    tag: Tag,
    called: u64,
    ended: u64,
}

#[derive(Clone, Debug, Default)]
struct Epoch {
    base: Vec<Tag>,
    placed: Vec<Placed>,
}

/// What a promotion lost, as the judge knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    pub writes: u64,
    pub bytes: u64,
    /// `None`: a write of zeros may have been lost in part.
    pub ranges: Option<u64>,
    /// The last of them; `None` if there is none.
    pub to: Option<u64>,
}

/// The judge of followers.
#[derive(Clone, Debug, Default)]
pub struct Order {
    epochs: BTreeMap<u64, Epoch>,
    unplaced: BTreeMap<u32, Unplaced>,
}

impl Order {
    /// A write is called.
    pub fn called(&mut self, now: u64, id: u32, sectors: Range<usize>, tag: Tag) {
        let ended = u64::MAX;
        self.unplaced.insert(id, Unplaced { sectors, tag, called: now, ended });
    }

    /// It ended, and nobody told where it stands.
    pub fn ended(&mut self, now: u64, id: u32) {
        if let Some(write) = self.unplaced.get_mut(&id) {
            write.ended = write.ended.min(now);
        }
    }

    /// It was refused before anything was done.
    pub fn refused(&mut self, id: u32) {
        self.unplaced.remove(&id);
    }

    /// It was acknowledged.
    pub fn acknowledged(&mut self, now: u64, id: u32, point: Point) {
        let Some(write) = self.unplaced.get(&id).cloned() else { return };
        let Unplaced { sectors, tag, called, .. } = write;
        let epoch = self.epochs.entry(point.epoch).or_default();
        let is_scattered = tag == 0 && sectors.len() > STEP_SECTORS;
        let piece = if tag == 0 { sectors.len() } else { PIECE_SECTORS };
        let pieces = sectors.len().div_ceil(piece) as u64;
        for (number, first) in (1..).zip(sectors.clone().step_by(piece)) {
            let sequence = (point.sequence + number).saturating_sub(pieces);
            let sectors = first..sectors.end.min(first + piece);
            let answered = now;
            epoch.placed.push(Placed {
                sequence,
                sectors,
                tag,
                id,
                called,
                answered,
                is_scattered,
            });
        }
        if is_scattered {
            self.ended(now, id);
        } else {
            self.unplaced.remove(&id);
        }
    }

    /// The volume has no more than so many sectors; what comes past them later begins with zeros. Every follower has all
    /// that is before: a resize waits for them.
    pub fn cut_off(&mut self, to: usize) {
        for epoch in self.epochs.values_mut() {
            epoch.base.truncate(to);
            for write in &mut epoch.placed {
                write.sectors.end = write.sectors.end.min(to);
                write.sectors.start = write.sectors.start.min(to);
            }
        }
        for write in self.unplaced.values_mut().filter(|write| write.ended != u64::MAX) {
            write.sectors.end = write.sectors.end.min(to);
        }
    }

    /// An attachment begins to serve with what the brick that counts holds; others' writes have come to their end.
    pub fn begins(&mut self, now: u64, epoch: u64, base: Vec<Tag>, still_called: &[u32]) {
        self.epochs.entry(epoch).or_default().base = base;
        for (id, write) in &mut self.unplaced {
            if !still_called.contains(id) {
                write.ended = write.ended.min(now);
            }
        }
    }

    /// Whether a sector holds this at a point. What no attachment began with is not judged.
    pub fn admits(&self, point: Point, sector: usize, tag: Tag) -> bool {
        let Some(epoch) = self.epochs.get(&point.epoch).filter(|epoch| !epoch.base.is_empty())
        else {
            return true;
        };
        let before = epoch
            .placed
            .iter()
            .filter(|write| write.sectors.contains(&sector) && write.sequence <= point.sequence);
        let last = before.max_by_key(|write| (write.sequence, write.answered));
        let called = last.map_or(0, |write| write.called);
        // What an attachment did not begin with came with more room, and was zero.
        let base = epoch.base.get(sector).copied().unwrap_or_default();
        let value = last.map_or(base, |write| write.tag);
        value == tag
            || self.unplaced.values().any(|write| {
                write.sectors.contains(&sector) && write.tag == tag && write.ended >= called
            })
    }

    /// The first sector that does not hold what it has to at a point.
    pub fn complaint(&self, point: Point, first: usize, data: &[Tag]) -> Option<String> {
        let wrong = (first..).zip(data).find(|(at, tag)| !self.admits(point, *at, **tag));
        wrong.map(|(at, tag)| format!("sector {at} holds {tag}, which it does not at {point:?}"))
    }

    /// The highest point at which a brick may be that holds this, among the writes that are known.
    pub fn place_of(&self, data: &[Tag], below: u64) -> Option<Point> {
        let epochs = self.epochs.range(..below).rev();
        let points =
            epochs.filter(|(_, epoch)| !epoch.base.is_empty()).flat_map(|(number, epoch)| {
                let mut sequences: Vec<u64> = epoch.placed.iter().map(|w| w.sequence).collect();
                sequences.push(0);
                sequences.sort_unstable();
                sequences.into_iter().rev().map(|sequence| Point { epoch: *number, sequence })
            });
        let mut points = points;
        points.find(|point| self.complaint(*point, 0, data).is_none())
    }

    /// What comes after a point within its epoch.
    pub fn after(&self, point: Point) -> Lost {
        let none = Lost { writes: 0, bytes: 0, ranges: Some(0), to: None };
        let Some(epoch) = self.epochs.get(&point.epoch) else { return none };
        let lost: Vec<&Placed> =
            epoch.placed.iter().filter(|write| write.sequence > point.sequence).collect();
        let mut ids: Vec<u32> = lost.iter().map(|write| write.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let data = lost.iter().filter(|write| write.tag != 0);
        let bytes = data.map(|write| write.sectors.len() as u64 * crate::storage::SECTOR).sum();
        let mut ranges: Vec<Range<usize>> = lost.iter().map(|w| w.sectors.clone()).collect();
        ranges.sort_by_key(|range| range.start);
        let (mut count, mut end) = (0, 0);
        for (index, range) in ranges.iter().enumerate() {
            if index == 0 || range.start > end {
                count += 1;
            }
            end = end.max(range.end);
        }
        let is_known = lost.iter().all(|write| !write.is_scattered);
        Lost {
            writes: ids.len() as u64,
            bytes,
            ranges: is_known.then_some(count),
            to: lost.iter().map(|write| write.sequence).max(),
        }
    }

    /// Bytes that were acknowledged before a time and come after a point.
    pub fn bytes_behind(&self, point: Point, before: u64) -> u64 {
        let Some(epoch) = self.epochs.get(&point.epoch) else { return 0 };
        let behind = epoch.placed.iter().filter(|write| {
            write.sequence > point.sequence && write.answered <= before && write.tag != 0
        });
        behind.map(|write| write.sectors.len() as u64 * crate::storage::SECTOR).sum()
    }

    /// Whether a write that was acknowledged before a time comes after a point.
    pub fn is_behind_since(&self, point: Point, before: u64) -> bool {
        let Some(epoch) = self.epochs.get(&point.epoch) else { return false };
        epoch.placed.iter().any(|write| write.sequence > point.sequence && write.answered < before)
    }

    /// The place of what a sector holds, if that is certain.
    pub fn sequence_of(&self, epoch: u64, sector: usize, tag: Tag) -> Option<u64> {
        let epoch = self.epochs.get(&epoch).filter(|_| tag != 0)?;
        let here = |write: &&Placed| write.sectors.contains(&sector) && write.tag == tag;
        let found = epoch.placed.iter().find(here).map(|write| write.sequence);
        found.or_else(|| (epoch.base.get(sector) == Some(&tag)).then_some(0))
    }

    /// What comes after a point is gone.
    pub fn lose_after(&mut self, point: Point) {
        if let Some(epoch) = self.epochs.get_mut(&point.epoch) {
            epoch.placed.retain(|write| write.sequence <= point.sequence);
        }
    }

    /// Forgets epochs of which no follower can be any more.
    pub fn forget_before(&mut self, epoch: u64) {
        self.epochs.retain(|number, _| *number >= epoch);
    }
}
