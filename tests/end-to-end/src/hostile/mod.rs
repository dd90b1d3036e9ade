// SPDX-License-Identifier: Apache-2.0
//! Clients that nobody wants, and one that must not notice them.
//!
//! [`session`] makes up what a hostile client says, [`play`] says it, [`herd`] is a thousand slow ones, [`pump`] is the
//! good client, [`vitals`] is what the host's process costs meanwhile.

pub mod herd;
pub mod play;
pub mod pump;
pub mod session;
pub mod vitals;
