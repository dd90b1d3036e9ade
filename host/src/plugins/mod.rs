// SPDX-License-Identifier: Apache-2.0
//! Drivers: found, verified, loaded, watched.
//!
//! ```text
//!   watch ──▶ registry ──▶ scan ──▶ verify (elf) ──▶ load ──▶ LoadedDriver
//!                                                               │ open, wrap
//!   watchdog ──▶ meter ◀── every call ── started ◀── guarded ◀──┘
//!                  └─ lane: the thread of a driver that blocks
//! ```

mod abilities;
mod call;
mod elf;
mod gate;
mod guarded;
mod lane;
mod lent;
mod load;
mod log;
mod meter;
mod reader;
mod registry;
mod scan;
mod sessions;
mod started;
mod verify;
mod watch;
mod watchdog;

pub use call::Call;
pub use gate::{Admitted, Pause};
pub use guarded::{Guarded, GuardedBackend, GuardedVolume, Started};
pub use lent::{Holder, Tenure, lend, lend_volume};
pub use log::{DriverLog, TracingLog};
pub use meter::DriverMeter;
pub use reader::GuardedReader;
pub use registry::{
    InUse, Lender, LoadedDriver, PluginSettings, PluginState, PluginStatus, Registry,
};
pub use sessions::GuardedSession;
pub use verify::{Rules, Verified, verify};
pub use watch::PluginWatch;
