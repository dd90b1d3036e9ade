// SPDX-License-Identifier: Apache-2.0
#![doc = include_str!("../README.md")]
#![allow(non_local_definitions)] // abi_stable's macros expand to such

mod backend;
mod buffer;
mod capability;
mod context;
mod driver;
mod error;
mod handles;
mod histogram;
mod op;
mod options;
mod panic;
mod runtime;
mod state_handle;
mod stats;
mod tenancy;
mod trace;
mod volume;
mod waker;

pub mod abi;
pub mod descriptor;
pub mod export;
pub mod ext;
pub mod host;
#[cfg(feature = "import")]
pub mod import;
pub mod state;

pub use abi_stable::std_types::{ROption, RString, RVec, Tuple2};
pub use backend::{Backend, Health, HealthState, Usage};
pub use buffer::{BufferVTable, IoBuf, IoBufMut};
pub use capability::{Abilities, Capabilities, Fencing};
pub use context::OpContext;
pub use driver::{Driver, DriverInfo, Layer};
pub use error::{Error, ErrorKind, Result, Retry};
pub use ext::{Attach, AttachMode};
pub use handles::{
    AllocationMapHandle, BackendHandle, ClonesHandle, ClusterHandle, CommandsHandle,
    ObjectReaderHandle, ObjectsHandle, ResizeHandle, SessionHandle, SessionsHandle,
    SnapshotsHandle, VolumeHandle,
};
pub use histogram::Histogram;
pub use host::{Host, HostServices, Secret};
pub use op::{Op, OpFuture, OpWait};
pub use options::{BackendConfig, OptionSpec, OptionType};
pub use state_handle::{StateHandle, StateService, WatchHandle, WatchService};
pub use stats::{Metric, MetricKind, Stats};
pub use tenancy::Tenancy;
pub use volume::{Volume, VolumeInfo, VolumeSpec, WriteFlags};
