// SPDX-License-Identifier: Apache-2.0
//! What was written to a server and is not durable there yet. Pure: it knows no server and no clock.
//!
//! A server may lose unstable writes when it crashes, and says so by another verifier. So each byte written stays here
//! until a commit came back with the verifier of its write. The pieces do not overlap: a later write takes the place of
//! an earlier one, so writing them again in any order gives the newest content, and nothing that is durable already is
//! written over.
//!
//! Who uses it sees to it that writes of one range are entered in the order in which the server did them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::share::Verifier;

/// Moments in the life of a ledger: a commit covers what was entered before it was sent.
pub(crate) type Mark = u64;

/// The writes that a commit has still to cover.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By first byte; they do not overlap.
    pieces: BTreeMap<u64, Piece>,
    bytes: u64,
    entered: Mark,
}

struct Piece {
    data: Bytes,
    /// In which life of the server it was written; `None`: it has to be written again.
    written: Option<Verifier>,
    entered: Mark,
}

/// Bytes at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    /// The first byte.
    pub offset: u64,
    /// The bytes.
    pub data: Bytes,
}

impl Ledger {
    /// Bytes that it keeps.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The moment now: what was entered before.
    pub fn mark(&self) -> Mark {
        self.entered
    }

    /// Whether everything that was entered before `mark` is durable.
    pub fn is_durable(&self, mark: Mark) -> bool {
        self.pieces.values().all(|piece| piece.entered >= mark)
    }

    /// Enters a write that the server has taken but may lose.
    pub fn unstable(&mut self, offset: u64, data: Bytes, verifier: Verifier) {
        self.durable(offset, data.len() as u64);
        if data.is_empty() {
            return;
        }
        self.bytes += data.len() as u64;
        let piece = Piece { data, written: Some(verifier), entered: self.entered };
        self.pieces.insert(offset, piece);
        self.entered += 1;
    }

    /// Notes that the range is durable as it is on the server, or gone: what is kept of it is forgotten.
    pub fn durable(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        if len == 0 {
            return;
        }
        let first = self.pieces.range(..offset).next_back().map(|(start, _)| *start);
        let overlapping: Vec<u64> = first
            .into_iter()
            .chain(self.pieces.range(offset..end).map(|(start, _)| *start))
            .collect();
        for start in overlapping {
            let Some(piece) = self.pieces.get(&start) else { continue };
            let stop = start + piece.data.len() as u64;
            if stop <= offset {
                continue;
            }
            let Some(piece) = self.pieces.remove(&start) else { continue };
            self.bytes -= piece.data.len() as u64;
            if start < offset {
                self.keep(start, &piece, 0, (offset - start) as usize);
            }
            if stop > end {
                self.keep(end, &piece, (end - start) as usize, piece.data.len());
            }
        }
    }

    fn keep(&mut self, at: u64, of: &Piece, from: usize, to: usize) {
        let data = of.data.slice(from..to);
        self.bytes += data.len() as u64;
        self.pieces.insert(at, Piece { data, written: of.written, entered: of.entered });
    }

    /// Notes that what is kept of the range was written again. It stays as old as it was: a flush that waits for it goes
    /// on waiting.
    pub fn rewritten(&mut self, offset: u64, len: u64, verifier: Verifier) {
        let kept: Vec<(Patch, Mark)> = self
            .overlay(offset, len)
            .into_iter()
            .filter_map(|patch| Some((self.entered_at(patch.offset)?, patch)))
            .map(|(entered, patch)| (patch, entered))
            .collect();
        self.durable(offset, len);
        for (Patch { offset, data }, entered) in kept {
            self.bytes += data.len() as u64;
            self.pieces.insert(offset, Piece { data, written: Some(verifier), entered });
        }
    }

    fn entered_at(&self, offset: u64) -> Option<Mark> {
        self.pieces.range(..=offset).next_back().map(|(_, piece)| piece.entered)
    }

    /// A commit that was sent at `mark` came back with `verifier`: what was written in that life of the server is
    /// durable; the rest has to be written again.
    pub fn committed(&mut self, mark: Mark, verifier: Verifier) {
        let mut durable = 0;
        self.pieces.retain(|_, piece| {
            let covered = piece.entered < mark && piece.written == Some(verifier);
            if covered {
                durable += piece.data.len() as u64;
            } else if piece.entered < mark {
                piece.written = None;
            }
            !covered
        });
        self.bytes -= durable;
    }

    /// A commit that was sent at `mark` failed: the server may have thrown away what it should have made durable.
    pub fn commit_failed(&mut self, mark: Mark) {
        for piece in self.pieces.values_mut().filter(|piece| piece.entered < mark) {
            piece.written = None;
        }
    }

    /// What has to be written again, in order of place.
    pub fn lost(&self) -> Vec<Patch> {
        let lost = self.pieces.iter().filter(|(_, piece)| piece.written.is_none());
        lost.map(|(offset, piece)| Patch { offset: *offset, data: piece.data.clone() }).collect()
    }

    /// What of the range is kept here: newer than, or the same as, what the server has.
    pub fn overlay(&self, offset: u64, len: u64) -> Vec<Patch> {
        let end = offset.saturating_add(len);
        if self.pieces.is_empty() {
            return Vec::new();
        }
        let first = self.pieces.range(..offset).next_back();
        first
            .into_iter()
            .chain(self.pieces.range(offset..end))
            .filter_map(|(start, piece)| {
                let from = offset.max(*start);
                let to = end.min(*start + piece.data.len() as u64);
                (from < to).then(|| Patch {
                    offset: from,
                    data: piece.data.slice((from - start) as usize..(to - start) as usize),
                })
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "unstable_tests.rs"]
mod tests;
