// SPDX-License-Identifier: Apache-2.0
//! Large buffers used again: fresh ones of a MiB cost more in page faults and zeroing than in copying.
//!
//! Each thread keeps a few; a buffer goes to the thread that drops it last, which for replies and writes that finish
//! inline is the connection's own.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering, fence},
};

use driver_api::{BufferVTable, IoBufMut};

/// Below this a fresh buffer is as cheap.
const SMALLEST: usize = 32 << 10;
/// Longer ones are too rare to be kept.
const LARGEST: usize = 4 << 20;
/// Bytes that a thread keeps.
const KEPT: usize = 16 << 20;

/// Memory between its uses, and the count of its references during one.
struct Block {
    count: AtomicUsize,
    memory: IoBufMut,
}

#[derive(Default)]
struct Kept {
    // Boxed already: a block in use is known by its address.
    #[allow(clippy::vec_box)]
    blocks: Vec<Box<Block>>,
    bytes: usize,
}

thread_local! {
    static KEPT_BLOCKS: RefCell<Kept> = RefCell::default();
}

/// A buffer of `len` bytes, zero or stale; for [`driver_api::OpContext::with_allocator`].
pub extern "C" fn allocate(len: usize) -> IoBufMut {
    if !(SMALLEST..=LARGEST).contains(&len) {
        return IoBufMut::zeroed(len);
    }
    // Classes of powers of two, so that clients with mixed lengths find what fits.
    let class = len.next_power_of_two();
    let mut block = take(class).unwrap_or_else(|| {
        Box::new(Block { count: AtomicUsize::new(1), memory: IoBufMut::zeroed(class) })
    });
    block.count = AtomicUsize::new(1);
    let data = block.memory.as_mut_ptr();
    let owner = Box::into_raw(block).cast_const().cast();
    // SAFETY: the block's memory has at least len initialised bytes, is reachable only through this buffer while it
    // has references, and VTABLE counts in the block that owner points to.
    unsafe { IoBufMut::from_raw_parts(data, len, owner, &VTABLE) }
}

fn take(class: usize) -> Option<Box<Block>> {
    let taken = KEPT_BLOCKS.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        let at = kept.blocks.iter().rposition(|block| block.memory.len() == class)?;
        kept.bytes -= class;
        Some(kept.blocks.swap_remove(at))
    });
    // A thread that is ending keeps nothing.
    taken.ok().flatten()
}

fn keep(block: Box<Block>) {
    let kept = KEPT_BLOCKS.try_with(|kept| {
        let kept = &mut *kept.borrow_mut();
        let len = block.memory.len();
        if kept.bytes + len > KEPT {
            return Some(block);
        }
        kept.bytes += len;
        kept.blocks.push(block);
        None
    });
    // What is not kept is freed here, outside the borrow.
    drop(kept);
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
            keep(Box::from_raw(owner.cast_mut().cast::<Block>()));
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
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        let many: Vec<_> = (0..100).map(|_| allocate(1 << 20)).collect();
        drop(many);
        KEPT_BLOCKS.with_borrow(|kept| {
            assert_eq!(kept.blocks.len(), KEPT >> 20);
            assert_eq!(kept.bytes, KEPT);
        });
        let elsewhere = allocate(1 << 20);
        std::thread::spawn(move || drop(elsewhere)).join().unwrap();
    }
}
