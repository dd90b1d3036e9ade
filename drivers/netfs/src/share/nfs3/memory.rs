// SPDX-License-Identifier: Apache-2.0
//! Memory for long answers, which comes back when nobody reads the answer any more. Fresh memory costs about as much as the
//! copy into it: the kernel has to find, clear and map each page, and no cache knows it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

/// Buffers that wait for their next use, at most: more than that are not read at once for long.
const KEPT: usize = 8;
/// Buffers come in multiples of this.
const STEP: usize = 64 << 10;

type Shelf = Mutex<Vec<Vec<u8>>>;

fn open(shelf: &Shelf) -> MutexGuard<'_, Vec<Vec<u8>>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The buffers of a connection.
#[derive(Default)]
pub(crate) struct Memory(Arc<Shelf>);

impl Memory {
    /// A buffer of at least `len` bytes, the one that was used last if there is one: caches still know it.
    pub fn lend(&self, len: usize) -> Lent {
        let mut shelf = open(&self.0);
        let fitting = shelf.iter().rposition(|buffer| buffer.len() >= len);
        let data = fitting.map(|index| shelf.remove(index));
        drop(shelf);
        let data = data.unwrap_or_else(|| vec![0; len.next_multiple_of(STEP)]);
        Lent { data, len, home: Arc::downgrade(&self.0) }
    }
}

/// A buffer that goes back when it is dropped.
pub(crate) struct Lent {
    data: Vec<u8>,
    len: usize,
    home: Weak<Shelf>,
}

impl Lent {
    /// Its bytes: what it held before, until they are written.
    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }

    /// It, for any number of readers.
    pub fn frozen(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut shelf = open(&home);
        if shelf.len() < KEPT {
            shelf.push(std::mem::take(&mut self.data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Memory, STEP, open};

    #[test]
    fn what_nobody_reads_any_more_is_lent_again() {
        let memory = Memory::default();
        let mut lent = memory.lend(100_000);
        lent.bytes().fill(7);
        let place = lent.bytes().as_ptr();
        let answer = lent.frozen();
        let part = answer.slice(10..20);
        drop(answer);
        assert_ne!(memory.lend(100_000).bytes().as_ptr(), place, "somebody reads it");
        assert_eq!(part, [7; 10][..]);
        drop(part);
        let mut again = memory.lend(2 * STEP);
        assert_eq!((again.bytes().as_ptr(), again.bytes().len()), (place, 2 * STEP));
    }

    #[test]
    fn a_buffer_that_is_too_short_is_left_for_others_and_few_are_kept() {
        let memory = Memory::default();
        drop(memory.lend(1));
        assert_eq!(memory.lend(STEP + 1).bytes().len(), STEP + 1);
        let many: Vec<_> = (0..2 * KEPT).map(|_| memory.lend(1)).collect();
        drop(many);
        assert_eq!(open(&memory.0).len(), KEPT);
        let lent = memory.lend(1);
        drop(memory);
        drop(lent);
    }
}
