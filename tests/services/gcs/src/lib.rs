// SPDX-License-Identifier: Apache-2.0
//! Plays Google Cloud Storage for tests, as far as clients of its XML and JSON API want it.
//!
//! ```text
//!  tls ── dispatch ─┬─ auth (bearer), signed (V4 URLs)
//!                   ├─ xml::{objects, multipart, list, buckets} ─┐
//!                   └─ json::{buckets, objects} ─────────────────┴─ store ── files, journal
//! ```
//!
//! What it is strict about, because clients that get it wrong fail with Google only: every request proves who asks by a
//! token that was signed with the service account's key, or by a signed URL whose signature covers what is asked; checksums
//! that are sent are compared; a body that ends early stores nothing; a precondition and the change it guards are one step;
//! parts but the last have 5 MiB and more. As with Google, completing a multipart upload heeds no precondition, its object
//! has no MD5, and `If-Match` matters to reads alone.
//!
//! What it is not: durable when the machine fails (a killed process loses nothing that was answered), nor fit for secrets.

pub mod auth;
mod body;
mod call;
mod clock;
mod conditions;
mod dispatch;
mod json;
pub mod keys;
mod refusal;
pub mod serve;
mod signed;
mod store;
mod xml;

pub use keys::Account;
pub use serve::{Fake, serve};
