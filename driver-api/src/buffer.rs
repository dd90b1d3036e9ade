// SPDX-License-Identifier: Apache-2.0
//! Owned, counted buffers that cross the ABI without a copy and are freed by the side that allocated them.

use std::{
    alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error},
    fmt,
    mem::{ManuallyDrop, MaybeUninit},
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering, fence},
};

use abi_stable::StableAbi;
use bytes::Bytes;

/// How a buffer's owner counts and frees it. Every function may be called from any thread and must not unwind.
#[repr(C)]
#[derive(StableAbi)]
pub struct BufferVTable {
    /// Adds one reference to the owner.
    pub retain: unsafe extern "C" fn(*const ()),
    /// Takes one reference from the owner, and frees it with the last one.
    pub release: unsafe extern "C" fn(*const ()),
    /// Whether the caller's is the only reference.
    pub is_unique: unsafe extern "C" fn(*const ()) -> bool,
    /// Zero in this version.
    pub reserved: [usize; 3],
}

/// A read-only view of counted memory. Cloning counts a reference; the bytes are never copied.
#[repr(C)]
#[derive(StableAbi)]
pub struct IoBuf {
    data: *const u8,
    len: usize,
    owner: *const (),
    vtable: *const BufferVTable,
}

// SAFETY: the bytes are immutable while shared, and the vtable's functions are callable from any thread.
unsafe impl Send for IoBuf {}
// SAFETY: as above.
unsafe impl Sync for IoBuf {}

impl IoBuf {
    /// An empty buffer.
    pub fn empty() -> Self {
        Self::from_static(&[])
    }

    /// A view of memory that lives for ever.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self {
            data: bytes.as_ptr(),
            len: bytes.len(),
            owner: std::ptr::null(),
            vtable: &STATIC_VTABLE,
        }
    }

    /// A copy of `bytes` in memory of this side.
    pub fn copy_from(bytes: &[u8]) -> Self {
        let copied = |memory: &mut [MaybeUninit<u8>]| {
            memory.write_copy_of_slice(bytes);
            Ok::<(), std::convert::Infallible>(())
        };
        // SAFETY: the closure writes all bytes of the slice, which has the length of `bytes`.
        let Ok(buffer) = unsafe { IoBufMut::filled_by(bytes.len(), copied) };
        buffer.freeze()
    }

    /// A view of memory with an owner of the caller's own.
    ///
    /// # Safety
    /// `data..data + len` stays readable and unchanged while `owner` has references; the caller hands over one
    /// reference; `vtable` is valid for ever and keeps the promises of [`BufferVTable`].
    pub unsafe fn from_raw_parts(
        data: *const u8,
        len: usize,
        owner: *const (),
        vtable: &'static BufferVTable,
    ) -> Self {
        Self { data, len, owner, vtable }
    }

    /// A view of `len` bytes at `start`, sharing the owner.
    ///
    /// # Panics
    /// If the range is not inside this buffer.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        assert!(start <= self.len && len <= self.len - start, "slice outside the buffer");
        let mut part = self.clone();
        part.data = self.data.wrapping_add(start);
        part.len = len;
        part
    }

    /// Whether nobody else holds a reference to this memory.
    pub fn is_unique(&self) -> bool {
        // SAFETY: self holds a reference, so owner and vtable are valid.
        unsafe { ((*self.vtable).is_unique)(self.owner) }
    }
}

impl Deref for IoBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the constructor promised that the range is readable while a reference exists.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for IoBuf {
    fn clone(&self) -> Self {
        // SAFETY: self holds a reference, so owner and vtable are valid.
        unsafe { ((*self.vtable).retain)(self.owner) };
        Self { data: self.data, len: self.len, owner: self.owner, vtable: self.vtable }
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        // SAFETY: self holds a reference and gives it up here.
        unsafe { ((*self.vtable).release)(self.owner) };
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

impl From<IoBuf> for Bytes {
    fn from(buffer: IoBuf) -> Self {
        Bytes::from_owner(buffer)
    }
}

impl From<Bytes> for IoBuf {
    fn from(bytes: Bytes) -> Self {
        let (data, len) = (bytes.as_ptr(), bytes.len());
        let owner =
            Box::into_raw(Box::new(BytesOwner { count: AtomicUsize::new(1), _bytes: bytes }));
        Self { data, len, owner: owner.cast(), vtable: &BYTES_VTABLE }
    }
}

/// A buffer with a single owner, writable until frozen into an [`IoBuf`].
#[repr(C)]
#[derive(StableAbi)]
pub struct IoBufMut {
    data: *mut u8,
    len: usize,
    owner: *const (),
    vtable: *const BufferVTable,
}

// SAFETY: the buffer is the memory's only user, and the vtable's functions are callable from any thread.
unsafe impl Send for IoBufMut {}
// SAFETY: as above.
unsafe impl Sync for IoBufMut {}

impl IoBufMut {
    /// The alignment in bytes of buffers made by this side: enough for O_DIRECT on every common device.
    pub const ALIGN: usize = 4096;

    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        let (data, owner) = heap_block(len, true);
        Self { data, len, owner, vtable: &HEAP_VTABLE }
    }

    /// `len` bytes that `fill` must all write: it gets the uninitialised memory and returns only once it wrote
    /// every byte, or an error.
    ///
    /// # Safety
    /// If `fill` returns `Ok`, all bytes of the slice it was given are initialised.
    pub unsafe fn filled_by<E>(
        len: usize,
        fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (data, owner) = heap_block(len, false);
        let buffer = Self { data, len, owner, vtable: &HEAP_VTABLE };
        // SAFETY: the block has len writable bytes, and MaybeUninit asks for no initialisation.
        fill(unsafe { std::slice::from_raw_parts_mut(data.cast(), len) })?;
        Ok(buffer)
    }

    /// Writable memory with an owner of the caller's own.
    ///
    /// # Safety
    /// As [`IoBuf::from_raw_parts`], and nobody else reads or writes the range until this buffer is frozen or dropped.
    pub unsafe fn from_raw_parts(
        data: *mut u8,
        len: usize,
        owner: *const (),
        vtable: &'static BufferVTable,
    ) -> Self {
        Self { data, len, owner, vtable }
    }

    /// Ends writing. No copy.
    pub fn freeze(self) -> IoBuf {
        let this = ManuallyDrop::new(self);
        IoBuf { data: this.data, len: this.len, owner: this.owner, vtable: this.vtable }
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for IoBufMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is initialised and owned.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl DerefMut for IoBufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is initialised, and this buffer is its only user.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl Drop for IoBufMut {
    fn drop(&mut self) {
        // SAFETY: self holds the only reference and gives it up here.
        unsafe { ((*self.vtable).release)(self.owner) };
    }
}

impl fmt::Debug for IoBufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBufMut({} bytes)", self.len)
    }
}

/// Stands behind the data of a heap block, so that small buffers need one allocation and stay aligned.
struct HeapOwner {
    count: AtomicUsize,
    block: NonNull<u8>,
    layout: Layout,
}

fn heap_layout(len: usize) -> (Layout, usize) {
    let align = if len >= IoBufMut::ALIGN { IoBufMut::ALIGN } else { 64 };
    let owner_at = len.next_multiple_of(align_of::<HeapOwner>());
    match Layout::from_size_align(owner_at + size_of::<HeapOwner>(), align) {
        Ok(layout) => (layout, owner_at),
        Err(_) => handle_alloc_error(Layout::new::<HeapOwner>()),
    }
}

fn heap_block(len: usize, zeroed: bool) -> (*mut u8, *const ()) {
    let (layout, owner_at) = heap_layout(len);
    // SAFETY: the layout's size is never zero, since it holds a HeapOwner.
    let data = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
    let Some(block) = NonNull::new(data) else { handle_alloc_error(layout) };
    let owner = data.wrapping_add(owner_at).cast::<HeapOwner>();
    // SAFETY: owner_at is aligned for HeapOwner and the block has room for one there.
    unsafe { owner.write(HeapOwner { count: AtomicUsize::new(1), block, layout }) };
    (data, owner.cast_const().cast())
}

static HEAP_VTABLE: BufferVTable = BufferVTable {
    retain: heap_retain,
    release: heap_release,
    is_unique: heap_is_unique,
    reserved: [0; 3],
};

unsafe extern "C" fn heap_retain(owner: *const ()) {
    // SAFETY: the caller holds a reference to a HeapOwner.
    unsafe { (*owner.cast::<HeapOwner>()).count.fetch_add(1, Ordering::Relaxed) };
}

unsafe extern "C" fn heap_release(owner: *const ()) {
    let owner = owner.cast::<HeapOwner>();
    // SAFETY: the caller gives up its reference; only the last one frees, after all others' accesses.
    unsafe {
        if (*owner).count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let (block, layout) = ((*owner).block, (*owner).layout);
            dealloc(block.as_ptr(), layout);
        }
    }
}

unsafe extern "C" fn heap_is_unique(owner: *const ()) -> bool {
    // SAFETY: the caller holds a reference to a HeapOwner.
    unsafe { (*owner.cast::<HeapOwner>()).count.load(Ordering::Acquire) == 1 }
}

struct BytesOwner {
    count: AtomicUsize,
    _bytes: Bytes,
}

static BYTES_VTABLE: BufferVTable = BufferVTable {
    retain: bytes_retain,
    release: bytes_release,
    is_unique: bytes_is_unique,
    reserved: [0; 3],
};

unsafe extern "C" fn bytes_retain(owner: *const ()) {
    // SAFETY: the caller holds a reference to a BytesOwner.
    unsafe { (*owner.cast::<BytesOwner>()).count.fetch_add(1, Ordering::Relaxed) };
}

unsafe extern "C" fn bytes_release(owner: *const ()) {
    let owner = owner.cast::<BytesOwner>().cast_mut();
    // SAFETY: the caller gives up its reference; only the last one frees, after all others' accesses.
    unsafe {
        if (*owner).count.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let owner = Box::from_raw(owner);
            // The owner of foreign Bytes is foreign code: its panic must not cross into the caller.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(owner)));
        }
    }
}

unsafe extern "C" fn bytes_is_unique(owner: *const ()) -> bool {
    // SAFETY: the caller holds a reference to a BytesOwner.
    unsafe { (*owner.cast::<BytesOwner>()).count.load(Ordering::Acquire) == 1 }
}

static STATIC_VTABLE: BufferVTable = BufferVTable {
    retain: static_noop,
    release: static_noop,
    is_unique: static_is_unique,
    reserved: [0; 3],
};

unsafe extern "C" fn static_noop(_owner: *const ()) {}

unsafe extern "C" fn static_is_unique(_owner: *const ()) -> bool {
    false
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
