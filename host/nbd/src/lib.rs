// SPDX-License-Identifier: Apache-2.0
//! The server's side of the NBD protocol, without sockets, threads and volumes: everything here can be fuzzed.
//!
//! ```text
//!   bytes of the client -> negotiate -> an export and its terms
//!                       -> inbox: requests -> terms: may they pass? -> (the volume) -> replies -> outbox -> bytes
//! ```
//!
//! [`wire`] has the bytes, [`terms`] the rules. Names follow the protocol document (NetworkBlockDevice/nbd,
//! `doc/proto.md`).

pub mod contexts;
mod errno;
pub mod inbox;
pub mod negotiate;
pub mod outbox;
pub mod pool;
pub mod replies;
pub mod sparse;
pub mod status;
pub mod terms;
pub mod wire;

pub use errno::Errno;

/// No read or write may be longer, in bytes; what every client knows to stay under.
pub const MAX_PAYLOAD: u32 = 32 << 20;
