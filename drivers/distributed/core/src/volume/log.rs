// SPDX-License-Identifier: Apache-2.0
//! The order of mutations, and what followers have yet to get of it.
//!
//! A mutation has its number from the moment at which it is issued to the acknowledging brick, so that whoever saw it has
//! a point which covers it. Followers get what the acknowledging brick has completed, up to the first that it has not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{RequestId, Time, ZeroKind, extents::ExtentSet};

/// What an entry does to its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    /// Writes it from the buffer of this request.
    Data(RequestId),
    /// Makes it read zeros.
    Zero(ZeroKind),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EntryState {
    /// The acknowledging brick may have it.
    Open,
    /// It has it.
    Done,
    /// Nobody knows what it has of it: a follower has to copy the range.
    Broken,
}

/// One mutation of one range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    /// The operation that it is of; those of others may come between its own.
    pub(super) op: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) what: What,
    pub(super) state: EntryState,
    /// When it was issued; later entries were not before. Zero: not known, because the clock jumped.
    pub(super) issued_at: Time,
    /// When the acknowledging brick had it.
    pub(super) done_at: Time,
    /// The request's client was told.
    pub(super) acknowledged: Option<RequestId>,
}

impl Entry {
    /// Bytes of a buffer that it needs.
    pub(super) fn bytes(&self) -> u64 {
        match self.what {
            What::Data(_) => self.len,
            What::Zero(_) => 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// Entries in order, and the buffers that they need.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    issued: u64,
    open: BTreeSet<u64>,
    bytes: u64,
    /// How many entries need a request's buffer.
    kept: BTreeMap<RequestId, u32>,
    released: Vec<RequestId>,
}

impl Log {
    /// The number of the last mutation that was issued.
    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// All up to this number have ended.
    pub(super) fn head(&self) -> u64 {
        self.open.first().map_or(self.issued, |first| first - 1)
    }

    /// Bytes of buffers that are kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts a mutation of which no follower has to get anything.
    pub(super) fn pass(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Adds a mutation that is issued now; true if its request's buffer is to be kept from now on.
    pub(super) fn push(&mut self, now: Time, op: u64, offset: u64, len: u64, what: What) -> bool {
        self.issued += 1;
        let (sequence, state) = (self.issued, EntryState::Open);
        let (issued_at, done_at, acknowledged) = (now, Time(u64::MAX), None);
        let entry =
            Entry { sequence, op, offset, len, what, state, issued_at, done_at, acknowledged };
        self.open.insert(sequence);
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        let What::Data(request) = what else { return false };
        let uses = self.kept.entry(request).or_default();
        *uses += 1;
        *uses == 1
    }

    /// The entries of an operation from one number to another have ended.
    pub(super) fn ended(&mut self, op: u64, (from, to): (u64, u64), state: EntryState, now: Time) {
        let mut ended = Vec::new();
        for entry in self.between(from, to).filter(|entry| entry.op == op) {
            if entry.state == EntryState::Open {
                (entry.state, entry.done_at) = (state, now);
                ended.push(entry.sequence);
            }
        }
        for sequence in ended {
            self.open.remove(&sequence);
        }
    }

    /// The client of an operation's request was told that these are done.
    pub(super) fn acknowledged(&mut self, op: u64, from: u64, to: u64, request: RequestId) {
        let entries = self.between(from, to).filter(|entry| entry.op == op);
        entries.for_each(|entry| entry.acknowledged = Some(request));
    }

    fn between(&mut self, from: u64, to: u64) -> impl Iterator<Item = &mut Entry> {
        let first = self.entries.partition_point(|entry| entry.sequence < from);
        self.entries.range_mut(first..).take_while(move |entry| entry.sequence <= to)
    }

    /// The entries after a number, in order.
    pub(super) fn after(&self, sequence: u64) -> impl Iterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.sequence <= sequence);
        self.entries.range(first..)
    }

    /// All ranges after a number.
    pub(super) fn ranges_after(&self, sequence: u64) -> ExtentSet {
        let mut set = ExtentSet::default();
        self.after(sequence).for_each(|entry| set.insert(entry.offset, entry.end()));
        set
    }

    /// The highest number, after `sequence`, of an entry that touches a range.
    pub(super) fn last_in(&self, offset: u64, end: u64) -> u64 {
        let touches = |entry: &&Entry| entry.offset < end && offset < entry.end();
        self.entries.iter().rev().find(touches).map_or(0, |entry| entry.sequence)
    }

    /// Forgets what has ended and came before or with a number; all that has, with `None`.
    pub(super) fn trim(&mut self, up_to: Option<u64>) {
        while let Some(entry) = self.entries.front() {
            let is_needed = up_to.is_some_and(|up_to| entry.sequence > up_to);
            if is_needed || entry.state == EntryState::Open {
                break;
            }
            let entry = *entry;
            self.entries.pop_front();
            self.forget(&entry);
        }
    }

    /// Forgets what comes after a number, and what is not done.
    pub(super) fn cut(&mut self, sequence: u64) {
        for entry in std::mem::take(&mut self.entries) {
            if entry.sequence <= sequence && entry.state == EntryState::Done {
                self.entries.push_back(entry);
            } else {
                self.open.remove(&entry.sequence);
                self.forget(&entry);
            }
        }
    }

    fn forget(&mut self, entry: &Entry) {
        self.bytes -= entry.bytes();
        let What::Data(request) = entry.what else { return };
        if let Some(uses) = self.kept.get_mut(&request) {
            *uses -= 1;
            if *uses == 0 {
                self.kept.remove(&request);
                self.released.push(request);
            }
        }
    }

    /// Buffers that nobody needs any more.
    pub(super) fn take_released(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.released)
    }

    /// The clock jumped back: how old entries are is not known, so they count as old.
    pub(super) fn forget_times(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.issued_at = Time(0));
    }
}
