// SPDX-License-Identifier: Apache-2.0
//! What to ask, and of whom.

use std::{future::Future, pin::Pin, time::Duration};

use driver_api::{BackendHandle, Result};

/// How the suite goes about its work.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Options given to every volume at create.
    pub volume_options: Vec<(String, String)>,
    /// Size of a usual volume, in bytes; at least 4 MiB.
    pub volume_size: u64,
    /// What random content and places are made from.
    pub seed: u64,
    /// Areas (`data`) or checks (`data/boundaries`) to run; empty for all.
    pub only: Vec<String>,
    /// More rounds of everything that is random.
    pub long: bool,
    /// Begins the names of all volumes and buckets made. If there are such already, nothing runs.
    pub prefix: String,
    /// No answer may take longer.
    pub deadline: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            volume_options: Vec::new(),
            volume_size: 64 << 20,
            seed: 1,
            only: Vec::new(),
            long: false,
            prefix: "conformance-".to_owned(),
            deadline: Duration::from_secs(60),
        }
    }
}

impl Plan {
    /// Rounds of a random check: `short`, or ten times that.
    pub(crate) fn rounds(&self, short: u64) -> u64 {
        if self.long { short * 10 } else { short }
    }

    pub(crate) fn wants(&self, area: &str, name: &str) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|only| match only.split_once('/') {
                Some((wanted_area, wanted)) => wanted_area == area && wanted == name,
                None => only == area,
            })
    }
}

/// Opens the backend anew on the same storage, as a host does after a restart.
///
/// It is called once at the start, again after the suite closed or dropped its handle, and, to play a second host,
/// while an earlier handle is open; then it may answer `InUse`. Any function that returns such a future is one.
pub trait Reopen: Send + Sync {
    /// Opens it.
    fn reopen(&self) -> Pin<Box<dyn Future<Output = Result<BackendHandle>> + Send + '_>>;
}

impl<F, O> Reopen for F
where
    F: Fn() -> O + Send + Sync,
    O: Future<Output = Result<BackendHandle>> + Send + 'static,
{
    fn reopen(&self) -> Pin<Box<dyn Future<Output = Result<BackendHandle>> + Send + '_>> {
        Box::pin(self())
    }
}
