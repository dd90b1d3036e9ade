// SPDX-License-Identifier: Apache-2.0
//! Whole objects: which backend has them, and how they are streamed with bounded memory.
//!
//! ```text
//!   client ──▶ writing ── one write, or an upload of parts ──▶ store ──▶ driver
//!   client ◀── reading ◀─ pieces in order, some ahead ──────── store ◀── driver
//!                  └── budget: bytes that all transfers hold at once ──┘
//! ```

mod budget;
mod deleting;
mod incoming;
mod listing;
mod reading;
mod store;
mod stream;
mod writing;

pub use budget::{Budget, Reserved};
pub use deleting::delete_all;
pub use incoming::Incoming;
pub use listing::{Listing, list, page};
pub use reading::{Pieces, Reading, Wanted, read};
pub use store::{LONG, Reader, Store};
pub use stream::Stream;
pub use writing::{LARGEST_PART, put, put_part};

use std::{sync::Arc, time::Duration};

use driver_api::Result;
use tokio::sync::Semaphore;

use crate::volumes::Volumes;

/// A client that neither sends nor takes anything for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of objects on their way to stores, at most.
const WRITING: u64 = LARGEST_PART;
/// Bytes of objects on their way to clients, at most.
const READING: u64 = 256 << 20;
/// Clients' files that are written to at a time; the bytes of others go through their sockets.
const FILES: usize = 64;

/// What operations on objects share. A cheap handle.
#[derive(Clone)]
pub struct Objects {
    volumes: Volumes,
    /// For what is written. Apart from the other, so that clients that take slowly do not hold up those that send.
    pub writing: Budget,
    /// For what is read.
    pub reading: Budget,
    /// Places for what is written straight into clients' files: each takes a thread.
    pub files: Arc<Semaphore>,
}

impl Objects {
    /// Objects of these backends.
    pub fn new(volumes: Volumes) -> Self {
        let files = Arc::new(Semaphore::new(FILES));
        Self { volumes, writing: Budget::new(WRITING), reading: Budget::new(READING), files }
    }

    /// The object store of the backend of this name; `-`: of the only one that has objects.
    pub fn store(&self, backend: &str) -> Result<Store> {
        Store::choose(&self.volumes, backend)
    }
}
