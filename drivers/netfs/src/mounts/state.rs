// SPDX-License-Identifier: Apache-2.0
//! The states of a mount, each with its reason.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use driver_api::Error;
use serde::Serialize;

use crate::{error::Fault, share::Share};

/// A mount that ends sooner than this counts as a failure.
const PROBATION: Duration = Duration::from_secs(1);

/// What a mount is doing.
pub(super) enum State {
    /// Nobody needs it.
    Idle,
    /// Somebody is mounting it. After how many failures, and why the last one.
    Mounting { failures: u32, reason: Option<String> },
    /// It serves.
    Mounted { share: Arc<dyn Share>, generation: u64, since: Instant, failures: u32 },
    /// It failed, and is tried again.
    Waiting { failures: u32, until: Instant, reason: String, lasting: Option<(Instant, Fault)> },
}

/// What a server was seen to do when a volume was opened; none: no volume was yet.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Seen {
    /// It frees ranges of files.
    pub discard: Option<bool>,
    /// It tells which ranges have data.
    pub allocation_map: Option<bool>,
}

/// A mount's state, for the operator.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Shown {
    /// The share's name in this backend.
    pub name: String,
    /// `idle`, `mounting`, `mounted` or `waiting`.
    pub state: &'static str,
    /// Why it is so.
    pub reason: String,
    /// The server.
    pub server: String,
    /// The export or share there.
    pub share: String,
    /// The directory of the volumes: `share:path`.
    pub location: String,
    /// Protocol and version; empty while it is not mounted.
    pub protocol: &'static str,
    /// Most bytes of one read.
    pub max_read: u32,
    /// Most bytes of one write.
    pub max_write: u32,
    /// Names that differ in case alone are one.
    pub case_insensitive: bool,
    /// What its server does with ranges of files.
    #[serde(flatten)]
    pub seen: Seen,
    /// Volumes that are attached.
    pub volumes: usize,
    /// How many times it was mounted.
    pub generation: u64,
}

impl State {
    /// A share that was mounted just now, after so many failures.
    pub fn mounted_now(share: Arc<dyn Share>, generation: u64, failures: u32) -> Self {
        Self::Mounted { share, generation, since: Instant::now(), failures }
    }

    /// After a failure.
    pub fn waiting(
        failures: u32,
        until: Instant,
        error: &Error,
        lasting: Option<(Instant, Fault)>,
    ) -> Self {
        Self::Waiting { failures, until, reason: format!("{error:#}"), lasting }
    }

    /// What an attempt that ended after `moment` failed with, if waiting does not help.
    pub fn failed_since(&self, moment: Instant) -> Option<Fault> {
        match self {
            Self::Waiting { lasting: Some((at, fault)), .. } if *at >= moment => {
                Some(fault.clone())
            }
            _ => None,
        }
    }

    /// The share, if it is mounted.
    pub fn mounted(&self) -> Option<(Arc<dyn Share>, u64)> {
        match self {
            Self::Mounted { share, generation, .. } => Some((Arc::clone(share), *generation)),
            _ => None,
        }
    }

    /// When the pause after a failure ends.
    pub fn pause_ends(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Somebody mounts it now. Returns how many attempts failed before.
    pub fn begin(&mut self) -> u32 {
        let (failures, reason) = match self {
            Self::Waiting { failures, reason, .. } => (*failures, Some(reason.clone())),
            Self::Mounting { failures, reason } => (*failures, reason.clone()),
            _ => (0, None),
        };
        *self = Self::Mounting { failures, reason };
        failures
    }

    /// The share of this generation has ended; whether it was the present one.
    pub fn end(&mut self, ended: u64, why: &str) -> bool {
        match self {
            Self::Mounted { generation, since, failures, .. } if *generation == ended => {
                // The first attempt comes at once, unless this server ends every connection soon.
                let (failures, until) = if since.elapsed() < PROBATION {
                    (*failures + 1, Instant::now() + super::pause_after(*failures))
                } else {
                    (0, Instant::now())
                };
                *self = Self::Waiting { failures, until, reason: why.to_owned(), lasting: None };
                true
            }
            _ => false,
        }
    }

    /// Why it is not mounted.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Waiting { reason, .. } => Some(reason.clone()),
            Self::Mounting { reason, .. } => reason.clone(),
            _ => None,
        }
    }

    /// For the operator.
    pub fn shown(&self) -> Shown {
        let shown = Shown::default();
        match self {
            Self::Idle => Shown { state: "idle", reason: "nobody uses it".into(), ..shown },
            Self::Mounting { failures, reason } => {
                let reason = reason.clone().unwrap_or_else(|| "it is needed".into());
                let reason = format!("{reason} ({failures} attempts failed)");
                Shown { state: "mounting", reason, ..shown }
            }
            Self::Mounted { share, since, .. } => {
                let traits = share.traits();
                let since = format!("for {} s", since.elapsed().as_secs());
                let fell_back = traits.fell_back.as_ref();
                Shown {
                    state: "mounted",
                    reason: fell_back
                        .map_or(since.clone(), |why| format!("{since}; fell back: {why}")),
                    protocol: traits.protocol,
                    max_read: traits.max_read,
                    max_write: traits.max_write,
                    case_insensitive: traits.case_insensitive,
                    ..shown
                }
            }
            Self::Waiting { failures, reason, .. } => {
                let reason = format!("{reason} ({failures} attempts failed)");
                Shown { state: "waiting", reason, ..shown }
            }
        }
    }
}
