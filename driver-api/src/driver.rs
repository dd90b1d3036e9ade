// SPDX-License-Identifier: Apache-2.0
//! A driver and a layer: what a shared library exports.

use std::future::Future;

use abi_stable::{
    StableAbi,
    std_types::{RString, RVec},
};

use crate::{Backend, BackendConfig, Host, OptionSpec, Result, Volume, VolumeHandle};

/// Makes backends. Exported with [`export_driver!`](crate::export_driver).
pub trait Driver: 'static {
    /// Its backends.
    type Backend: Backend;

    /// What it is. `[any thread · loaded]`
    fn describe() -> DriverInfo;

    /// Opens a backend, with the driver's tokio at hand. `[any thread · loaded]`
    fn open(
        host: Host,
        config: BackendConfig,
    ) -> impl Future<Output = Result<Self::Backend>> + Send + 'static;
}

/// Makes volumes out of a volume: cache, encryption, limits. Exported with [`export_layer!`](crate::export_layer).
///
/// A layer passes on what it does not change: `Op`s as they are, capabilities as a subset. Ranges, flags and abilities
/// are checked where the operation reaches a driver; a layer of another geometry checks its own. Its volume type should deny
/// `clippy::missing_trait_methods`, so that a new optional method is not silently lost.
///
/// What [`Volume`] answers without a `Result` is asked of the volume below in [`wrap`](Layer::wrap), which fails if that
/// fails. Size and incarnation change later (resizing, rollback, loss): a layer asks for them each time it is asked, and
/// where the volume below fails to answer, the last answer stands and the failure is logged; no made-up value.
pub trait Layer: 'static {
    /// Its volumes.
    type Volume: Volume;

    /// What it is. `[any thread · loaded]`
    fn describe() -> DriverInfo;

    /// Puts the layer over `inner`. `[any thread · loaded]`
    fn wrap(
        host: Host,
        config: BackendConfig,
        inner: VolumeHandle,
    ) -> impl Future<Output = Result<Self::Volume>> + Send + 'static;
}

/// What a driver says of itself.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct DriverInfo {
    /// One sentence for the operator.
    pub summary: RString,
    /// The options of `[backends.NAME]`.
    pub options: RVec<OptionSpec>,
    /// The options of a volume at create.
    pub volume_options: RVec<OptionSpec>,
    /// Zero in this version.
    pub reserved: [u64; 4],
}

impl DriverInfo {
    /// A driver without options.
    pub fn new(summary: &str) -> Self {
        Self {
            summary: summary.into(),
            options: RVec::new(),
            volume_options: RVec::new(),
            reserved: [0; 4],
        }
    }

    /// Adds an option of the backend.
    pub fn option(mut self, option: OptionSpec) -> Self {
        self.options.push(option);
        self
    }

    /// Adds an option of a volume.
    pub fn volume_option(mut self, option: OptionSpec) -> Self {
        self.volume_options.push(option);
        self
    }
}
