// SPDX-License-Identifier: Apache-2.0
//! What travels with every operation.

use std::time::Duration;

use abi_stable::StableAbi;

use crate::buffer::IoBufMut;

/// Deadline, identity and trace of one operation. Plain data: futures keep a copy.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct OpContext {
    deadline_ns: u64,
    request_id: u64,
    epoch: u64,
    session_epoch: u64,
    session_sequence: u64,
    trace_id: [u64; 2],
    allocate: Option<extern "C" fn(usize) -> IoBufMut>,
    /// Words get a meaning in later minor versions, through accessors; zero means absent.
    reserved: [u64; 6],
}

impl OpContext {
    /// A context without deadline, request id, epoch, session or trace.
    pub const fn new() -> Self {
        Self {
            deadline_ns: 0,
            request_id: 0,
            epoch: 0,
            session_epoch: 0,
            session_sequence: 0,
            trace_id: [0; 2],
            allocate: None,
            reserved: [0; 6],
        }
    }

    /// Sets the deadline, `after` from now.
    pub fn with_timeout(mut self, after: Duration) -> Self {
        self.deadline_ns = monotonic_ns().saturating_add(after.as_nanos() as u64).max(1);
        self
    }

    /// Sets the request id: two requests with one id are one request.
    pub fn with_request_id(mut self, id: u64) -> Self {
        self.request_id = id;
        self
    }

    /// Sets the attach epoch that the caller believes to hold.
    pub fn with_epoch(mut self, epoch: u64) -> Self {
        self.epoch = epoch;
        self
    }

    /// Sets the causal session token: (epoch, sequence).
    pub fn with_session(mut self, epoch: u64, sequence: u64) -> Self {
        (self.session_epoch, self.session_sequence) = (epoch, sequence);
        self
    }

    /// Sets the W3C trace id.
    pub fn with_trace_id(mut self, id: u128) -> Self {
        self.trace_id = [(id >> 64) as u64, id as u64];
        self
    }

    /// Makes [`OpContext::buffer`] use `allocate`, which must not unwind.
    pub const fn with_allocator(mut self, allocate: extern "C" fn(usize) -> IoBufMut) -> Self {
        self.allocate = Some(allocate);
        self
    }

    /// Time left until the deadline: `None` without one, zero once it has passed.
    pub fn time_left(&self) -> Option<Duration> {
        (self.deadline_ns != 0)
            .then(|| Duration::from_nanos(self.deadline_ns.saturating_sub(monotonic_ns())))
    }

    /// The request id; zero if there is none.
    pub fn request_id(&self) -> u64 {
        self.request_id
    }

    /// The attach epoch; zero if there is none.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The causal session token: (epoch, sequence).
    pub fn session(&self) -> (u64, u64) {
        (self.session_epoch, self.session_sequence)
    }

    /// The W3C trace id; zero if there is none.
    pub fn trace_id(&self) -> u128 {
        (u128::from(self.trace_id[0]) << 64) | u128::from(self.trace_id[1])
    }

    /// A buffer of `len` zero or stale bytes for a reply, where the host wants it: filling it spares the host a copy.
    ///
    /// Call it from the method that got the context, not from its future. Every byte must be overwritten.
    pub fn buffer(&self, len: usize) -> IoBufMut {
        match self.allocate {
            Some(allocate) => allocate(len),
            None => IoBufMut::zeroed(len),
        }
    }
}

impl Default for OpContext {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for OpContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpContext")
            .field("time_left", &self.time_left())
            .field("request_id", &self.request_id)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// Nanoseconds of the machine's monotonic clock, which the host and all drivers share.
fn monotonic_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
