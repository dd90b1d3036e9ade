// SPDX-License-Identifier: Apache-2.0
//! The protocol's error numbers.

/// Error numbers that the NBD protocol has; its own, whatever the client's system uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Errno {
    /// The operation is not permitted.
    Perm = 1,
    /// Input or output failed.
    Io = 5,
    /// The request is wrong.
    Inval = 22,
    /// There is no room.
    NoSpc = 28,
    /// The operation is not supported.
    NotSup = 95,
    /// The server, or this export, ends.
    Shutdown = 108,
}
