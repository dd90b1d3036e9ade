// SPDX-License-Identifier: Apache-2.0
//! Buffers used again: fresh ones cost zeroing, and growing and trimming the heap; those of a MiB cost more in page faults
//! than in copying.
//!
//! A connection's thread keeps those that it allocated, wherever their last reference ends: a write's data, for one, may
//! end on a driver's thread. What all threads keep together is bounded, and one that sleeps long keeps nothing.

use std::{
    cell::OnceCell,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering, fence},
    },
};

use driver_api::{BufferVTable, IoBufMut};

/// Below this a fresh buffer is as cheap.
const SMALLEST: usize = 4 << 10;
/// Longer ones are too rare to be kept.
const LARGEST: usize = 4 << 20;
/// Lengths are powers of two, so that clients with mixed lengths find what fits.
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
/// Bytes that a thread keeps at most.
const KEPT: usize = 16 << 20;
/// Bytes that all threads together keep at most.
const KEPT_BY_ALL: usize = 256 << 20;
/// What a thread asks of that at once.
const SHARE: usize = 4 << 20;

/// Bytes that threads may keep of [`KEPT_BY_ALL`].
static SHARED: AtomicUsize = AtomicUsize::new(0);

/// Memory between its uses, and the count of its references during one.
struct Block {
    count: AtomicUsize,
    memory: IoBufMut,
    /// Where it is kept after this use; between uses it has none.
    home: Option<Arc<Home>>,
}

/// What one thread keeps. Other threads bring back what ends with them.
#[derive(Default)]
struct Home(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Whether this thread keeps anything.
    keeps: bool,
    // Boxed already: a block in use is known by its address.
    #[allow(clippy::vec_box)]
    blocks: [Vec<Box<Block>>; CLASSES],
    bytes: usize,
    /// How much `bytes` may be: this thread's part of [`SHARED`].
    room: usize,
}

impl Kept {
    fn has_room(&mut self, len: usize) -> bool {
        if self.bytes + len > self.room && self.room < KEPT {
            let grown = |all: usize| (all + SHARE <= KEPT_BY_ALL).then_some(all + SHARE);
            // A number alone: nothing else is published with it.
            if SHARED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok() {
                self.room += SHARE;
            }
        }
        self.bytes + len <= self.room
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        SHARED.fetch_sub(self.room, Ordering::Relaxed);
    }
}

impl Home {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, len: usize) -> Option<Box<Block>> {
        let mut kept = self.kept();
        let block = kept.blocks[class(len)].pop()?;
        kept.bytes -= block.memory.len();
        Some(block)
    }

    /// Gives back what it does not keep.
    fn keep(&self, block: Box<Block>) -> Option<Box<Block>> {
        let mut kept = self.kept();
        let len = block.memory.len();
        if !kept.keeps || !kept.has_room(len) {
            return Some(block);
        }
        kept.bytes += len;
        kept.blocks[class(len)].push(block);
        None
    }

    /// Frees what is kept; keeps what comes from now on, or not.
    fn begin_anew(&self, keeps: bool) {
        let fresh = Kept { keeps, blocks: Default::default(), bytes: 0, room: 0 };
        let before = std::mem::replace(&mut *self.kept(), fresh);
        // Freed here, outside the lock.
        drop(before);
    }
}

/// This thread's home. Nothing comes back to it after the thread's end.
struct Mine(OnceCell<Arc<Home>>);

impl Drop for Mine {
    fn drop(&mut self) {
        if let Some(home) = self.0.get() {
            home.begin_anew(false);
        }
    }
}

thread_local! {
    static MINE: Mine = const { Mine(OnceCell::new()) };
}

/// This thread's home, if it ever kept buffers and is not about to end.
fn home() -> Option<Arc<Home>> {
    MINE.try_with(|mine| mine.0.get().cloned()).ok().flatten()
}

/// The class of blocks for `len` bytes, which must be between [`SMALLEST`] and [`LARGEST`].
fn class(len: usize) -> usize {
    (len.next_power_of_two() / SMALLEST).ilog2() as usize
}

/// A buffer of `len` bytes, zero or stale; for [`driver_api::OpContext::with_allocator`].
pub extern "C" fn allocate(len: usize) -> IoBufMut {
    if !(SMALLEST..=LARGEST).contains(&len) {
        return IoBufMut::zeroed(len);
    }
    let home = home();
    let kept = home.as_ref().and_then(|home| home.take(len));
    let mut block = kept.unwrap_or_else(|| {
        let memory = IoBufMut::zeroed(len.next_power_of_two());
        Box::new(Block { count: AtomicUsize::new(1), memory, home: None })
    });
    block.count = AtomicUsize::new(1);
    block.home = home;
    let data = block.memory.as_mut_ptr();
    let owner = Box::into_raw(block).cast_const().cast();
    // SAFETY: the block's memory has at least len initialised bytes, is reachable only through this buffer while it
    // has references, and VTABLE counts in the block that owner points to.
    unsafe { IoBufMut::from_raw_parts(data, len, owner, &VTABLE) }
}

/// Lets this thread keep buffers from now on, or frees those that it keeps and keeps none.
pub fn keep_buffers(keeps: bool) {
    // A thread that is ending keeps nothing.
    let _ = MINE.try_with(|mine| {
        if keeps || mine.0.get().is_some() {
            mine.0.get_or_init(Arc::default).begin_anew(keeps);
        }
    });
}

static VTABLE: BufferVTable = BufferVTable { retain, release, is_unique, reserved: [0; 3] };

unsafe extern "C" fn retain(owner: *const ()) {
    // SAFETY: the caller holds a reference to a Block.
    unsafe { (*owner.cast::<Block>()).count.fetch_add(1, Ordering::Relaxed) };
}

unsafe extern "C" fn release(owner: *const ()) {
    // SAFETY: the caller gives up its reference; only the last one takes the block back, after all others' accesses.
    unsafe {
        if (*owner.cast::<Block>()).count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let mut block = Box::from_raw(owner.cast_mut().cast::<Block>());
            if let Some(home) = block.home.take() {
                // What is not kept is freed here, outside the lock.
                drop(home.keep(block));
            }
        }
    }
}

unsafe extern "C" fn is_unique(owner: *const ()) -> bool {
    // SAFETY: the caller holds a reference to a Block.
    unsafe { (*owner.cast::<Block>()).count.load(Ordering::Acquire) == 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_after_its_last_reference() {
        keep_buffers(true);
        let mut first = allocate(100_000);
        first.fill(7);
        let address = first.as_ptr();
        let first = first.freeze();
        let part = first.slice(10, 20);
        drop(first);
        let second = allocate(100_000);
        assert_ne!(second.as_ptr(), address, "a slice of it lives");
        assert_eq!(*part, [7; 20]);
        assert!(part.is_unique());
        drop(part);
        let third = allocate(120_000);
        assert_eq!((third.as_ptr(), third.len()), (address, 120_000));
        assert!(allocate(100).iter().all(|byte| *byte == 0));
        drop(third);
        keep_buffers(false);
    }

    #[test]
    fn what_is_kept_is_bounded_by_thread_and_together() {
        let threads = 3 + KEPT_BY_ALL / KEPT;
        let barrier = std::sync::Barrier::new(threads);
        let kept = || {
            let home = home().unwrap();
            let kept = home.kept();
            (kept.blocks.iter().map(Vec::len).sum::<usize>(), kept.bytes)
        };
        let bytes: Vec<_> = std::thread::scope(|scope| {
            let keep_many = || {
                keep_buffers(true);
                drop((0..20).map(|_| allocate(1 << 20)).collect::<Vec<_>>());
                let (blocks, bytes) = kept();
                assert_eq!(bytes, blocks << 20);
                assert!(bytes <= KEPT);
                // Nobody ends, and gives room back, before all have kept what they could.
                barrier.wait();
                keep_buffers(false);
                drop(allocate(1 << 20));
                assert_eq!(kept(), (0, 0));
                bytes
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(keep_many)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(bytes.iter().max(), Some(&KEPT));
        let together = bytes.iter().sum::<usize>();
        assert!(together <= KEPT_BY_ALL && together > KEPT_BY_ALL - 2 * KEPT, "{together}");
        keep_buffers(true);
        drop((0..20).map(|_| allocate(1 << 20)).collect::<Vec<_>>());
        assert_eq!(kept().1, KEPT, "what threads gave back can be kept by others");
        keep_buffers(false);
    }

    #[test]
    fn what_ends_elsewhere_comes_back_while_its_thread_lives() {
        keep_buffers(true);
        let away = allocate(1 << 20);
        let address = away.as_ptr() as usize;
        std::thread::spawn(move || drop(away)).join().unwrap();
        let back = allocate(1 << 20);
        assert_eq!(back.as_ptr() as usize, address);
        let (ended, away) = std::thread::spawn(|| {
            keep_buffers(true);
            (home().unwrap(), allocate(1 << 20))
        })
        .join()
        .unwrap();
        drop(away);
        assert_eq!(ended.kept().bytes, 0, "its thread has ended");
        let unkept = std::thread::spawn(|| (home().is_none(), allocate(1 << 20))).join().unwrap();
        assert!(unkept.0, "a thread keeps nothing unless it says so");
        keep_buffers(false);
        drop(back);
        assert_eq!(home().unwrap().kept().bytes, 0, "no more");
    }
}
