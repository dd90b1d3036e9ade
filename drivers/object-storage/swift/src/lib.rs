// SPDX-License-Identifier: Apache-2.0

//! A client of OpenStack Swift behind [`object_store`]'s traits.
//!
//! [`Swift`] is one container of one account. It implements [`object_store::ObjectStore`],
//! [`object_store::multipart::MultipartStore`], [`object_store::signer::Signer`] and
//! [`object_store::list::PaginatedListStore`]; what those traits have no words for (containers, versions, expiry,
//! unfinished uploads) are methods of its own.
//!
//! What Swift can and cannot do, and what this client makes of it:
//!
//! * `PutMode::Create` is atomic (`If-None-Match: *`). `PutMode::Update` is refused: Swift ignores `If-Match` on PUT.
//! * A conditional write carries a mark of 128 random bits. If an answer was lost and the repeated write is refused,
//!   the mark proves whose object is there; without the proof the error says that the outcome is unknown
//!   ([`Failure::outcome_unknown`]).
//! * Multi-part uploads are static large objects (SLO). Their segments live in a container of their own, and go with
//!   their object when it is deleted or overwritten, but not when its container keeps old versions.
//! * A copy never shares segments with its source: segments are copied one by one, inside the server.
//! * Dynamic large objects (DLO) are read like any other object.

#![deny(missing_docs)]

mod account;
mod attributes;
mod auth;
mod body;
mod client;
mod completion;
mod conditions;
mod config;
mod containers;
mod copy;
mod encode;
mod error;
mod expiry;
mod info;
mod keystone;
mod listing;
mod manifest;
mod multipart;
mod raw;
mod remove;
mod retry;
mod segments;
mod sign;
mod store;
mod uploads;
mod versions;

pub use account::{Account, TempUrlScope};
pub use config::{Auth, Config, KeystoneIdentity, Secret};
pub use containers::{Container, ContainerEntry, ContainerUpdate, Versioning};
pub use error::{Failure, FailureKind};
pub use expiry::Expiry;
pub use info::{Capabilities, Digest};
pub use multipart::CreateOnly;
pub use raw::{Line, Paging, Wanted};
pub use store::{LargeObject, Swift};
pub use uploads::{Part, Swept, Upload};
pub use versions::Version;
