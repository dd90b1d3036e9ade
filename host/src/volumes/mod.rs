// SPDX-License-Identifier: Apache-2.0
//! Volumes: their life, attachments, snapshots and exports.
//!
//! Every step records its intent in the state before the driver is called, and its end afterwards; what a crash left
//! in between is finished or taken back at restart. An operation whose outcome is unknown says so.

mod attach;
mod backends;
mod change;
mod changes;
mod clone;
mod cluster;
mod exports;
mod figures;
mod flatten;
mod group;
mod lending;
mod lifecycle;
mod locks;
mod movement;
mod owner;
mod promotion;
mod record;
mod recover;
mod regain;
mod rename;
mod room;
mod scrubs;
mod service;

pub use attach::{Access, OPERATOR, Use};
pub use backends::{
    BackendStatus, Backends, Boxed, CONTROL_TIMEOUT, OpenBackend, Opened, Opener, control,
};
pub use changes::{Between, Changes};
pub use exports::NewExport;
pub use figures::{BackendFigures, VolumeFigures};
pub use group::{Group, LONGEST_PAUSE, NewGroup};
pub use lifecycle::Unmanaged;
pub use owner::begin_life;
pub use record::{AttachState, ExportRecord, Hold, VolumeRecord, VolumeState, unix_now};
pub use regain::{Recovery, Regained};
pub use room::{Room, Stored};
pub use service::{NewVolume, Volumes};
