// SPDX-License-Identifier: Apache-2.0
//! What the host lends to a driver: log, other backends, key-value state, secrets.

use std::{fmt, sync::OnceLock};

use abi_stable::{
    StableAbi,
    sabi_trait::TD_Opaque,
    std_types::{RArc, RResult, RSlice, RStr, RString, Tuple2},
};

use crate::{BackendHandle, Error, Op, Result, StateHandle, abi::RawHost_TO, ext::unsupported};

/// The host, as one backend sees it. A cheap handle.
#[repr(transparent)]
#[derive(StableAbi)]
pub struct Host {
    pub(crate) raw: RawHost_TO<'static, RArc<()>>,
}

impl Clone for Host {
    fn clone(&self) -> Self {
        Self { raw: RawHost_TO::from_sabi(self.raw.obj.shallow_clone()) }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// The host's half: lends these services. They must not panic.
    pub fn new(services: impl HostServices) -> Self {
        Self { raw: RawHost_TO::from_ptr(RArc::new(HostGlue(services)), TD_Opaque) }
    }

    /// A secret that the configuration names. It is never logged.
    pub fn secret(&self, name: &str) -> Result<Secret> {
        self.raw.secret(name.into()).into_result().map(|text| Secret(text.into_string()))
    }

    /// Another backend of this host, by its name in the configuration.
    ///
    /// Since 1.2 the host guards it: a panic in its driver is an error of kind `Internal` here, and marks that driver. It
    /// deletes only volumes that this backend created (`PermissionDenied`), attaches none for writing that the host or
    /// another backend has, and creates over none (`AlreadyExists`). Its commands and its cluster are not lent, and
    /// closing it does nothing.
    pub fn backend(&self, name: &str) -> Op<BackendHandle> {
        self.raw.backend(name.into())
    }

    /// The name of the driver that a backend of this host is configured with, open or not.
    ///
    /// Since 1.2; an older host answers with an error of kind `Unsupported`.
    pub fn driver_of(&self, backend: &str) -> Result<String> {
        self.raw.driver_of(backend.into()).into_result().map(RString::into_string)
    }

    /// The key-value service, in a room of this backend's own.
    pub fn state(&self) -> Result<StateHandle> {
        self.raw.state().into()
    }
}

/// A text that does not print itself.
pub struct Secret(String);

impl Secret {
    /// The text. Keep it out of logs, errors and argument lists.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What a host implements to lend itself. Called from any thread.
pub trait HostServices: Send + Sync + 'static {
    /// Whether a log record of this level (1 error … 5 trace) and target would be kept.
    fn enabled(&self, level: u32, target: &str) -> bool;
    /// Keeps a log record.
    fn log(&self, record: &LogRecord<'_>);
    /// Learns that driver code panicked where no error could be returned.
    fn report_panic(&self, place: &str, message: &str);
    /// See [`Host::secret`].
    fn secret(&self, name: &str) -> Result<String>;
    /// See [`Host::backend`].
    fn backend(&self, name: &str) -> Op<BackendHandle>;
    /// See [`Host::state`].
    fn state(&self) -> Result<StateHandle>;
    /// See [`Host::driver_of`]. Since 1.2.
    fn driver_of(&self, _backend: &str) -> Result<String> {
        Err(unsupported("driver_of"))
    }
}

/// A host that lends nothing and keeps no log: for tests and tools that use a driver without one. Since 1.1.
///
/// Nobody would hear of a panic that no error carries, so it ends the process.
#[derive(Clone, Copy, Debug)]
pub struct NoServices;

impl HostServices for NoServices {
    fn enabled(&self, _level: u32, _target: &str) -> bool {
        false
    }

    fn log(&self, _record: &LogRecord<'_>) {}

    fn report_panic(&self, place: &str, message: &str) {
        eprintln!("the driver panicked in {place}: {message}");
        std::process::abort();
    }

    fn secret(&self, _name: &str) -> Result<String> {
        Err(unsupported("secret"))
    }

    fn backend(&self, _name: &str) -> Op<BackendHandle> {
        Op::err(unsupported("backend"))
    }

    fn state(&self) -> Result<StateHandle> {
        Err(unsupported("state"))
    }
}

/// One log record on its way to the host.
#[repr(C)]
#[derive(StableAbi)]
pub struct LogRecord<'a> {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u32,
    /// The module that wrote it.
    pub target: RStr<'a>,
    /// The message.
    pub message: RStr<'a>,
    /// The other fields, with values as text.
    pub fields: RSlice<'a, Tuple2<RString, RString>>,
    /// The spans it happened in, outermost first, as `name{field=value}`.
    pub spans: RSlice<'a, RString>,
    /// Zero in this version.
    pub reserved: [u64; 2],
}

struct HostGlue<H>(H);

impl<H: HostServices> crate::abi::RawHost for HostGlue<H> {
    fn enabled(&self, level: u32, target: RStr<'_>) -> bool {
        self.0.enabled(level, target.as_str())
    }

    fn log(&self, record: &LogRecord<'_>) {
        self.0.log(record);
    }

    fn report_panic(&self, place: RStr<'_>, message: RStr<'_>) {
        self.0.report_panic(place.as_str(), message.as_str());
    }

    fn secret(&self, name: RStr<'_>) -> RResult<RString, Error> {
        self.0.secret(name.as_str()).map(RString::from).into()
    }

    fn backend(&self, name: RStr<'_>) -> Op<BackendHandle> {
        self.0.backend(name.as_str())
    }

    fn state(&self) -> RResult<StateHandle, Error> {
        self.0.state().into()
    }

    fn driver_of(&self, backend: RStr<'_>) -> RResult<RString, Error> {
        self.0.driver_of(backend.as_str()).map(RString::from).into()
    }
}

/// The host as the whole library sees it: for its log and for panics that belong to no backend.
static LIBRARY_HOST: OnceLock<Host> = OnceLock::new();

pub(crate) fn set_library_host(host: Host) {
    // A second initialisation of one library keeps the first host: both are the same.
    let _ = LIBRARY_HOST.set(host);
}

pub(crate) fn library_host() -> Option<&'static Host> {
    LIBRARY_HOST.get()
}

pub(crate) fn report_panic(place: &str, message: &str) {
    if let Some(host) = library_host() {
        host.raw.report_panic(place.into(), message.into());
    }
}
