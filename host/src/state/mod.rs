// SPDX-License-Identifier: Apache-2.0
//! The key-value service: membership, generations, names, attachments, jobs. Never anything that changes per write.
//!
//! Everybody, the host's own rooms and drivers alike, holds it as a [`driver_api::StateHandle`]. One engine stands
//! behind it so far: [`embedded`], one file. [`scoped`] lends a part of it as if it were the whole, and [`limits`] says
//! what every engine refuses, so that nothing works on one engine and fails on the next.
//!
//! One revision counts for the whole store. Each transaction that changes something raises it by one, and every entry
//! remembers the revision that wrote it; that is what compares and watches speak of. A lease that ends removes its
//! entries in a transaction, which watches see like any other.

pub mod embedded;
pub mod limits;
mod scoped;
#[cfg(test)]
#[path = "suite_tests.rs"]
mod suite;

pub use embedded::{EmbeddedState, open_embedded};
pub use scoped::scoped;
