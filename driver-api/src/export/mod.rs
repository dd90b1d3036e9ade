// SPDX-License-Identifier: Apache-2.0
//! Turns a [`Driver`] or [`Layer`] into the module that the host loads. Use [`export_driver!`](crate::export_driver)
//! and [`export_layer!`](crate::export_layer).
//!
//! Every method here enters the driver's tokio, and turns a panic of the author's code into an error.

mod backend;
mod cluster;
mod objects;
mod sessions;
mod volume;

use std::{
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
};

use abi_stable::std_types::RResult;

use crate::{
    BackendConfig, BackendHandle, Driver, DriverInfo, Error, ErrorKind, Host, Layer, Op,
    VolumeHandle, runtime::Entered,
};
pub use backend::export_backend;
use backend::export_checked;
use volume::export_layered;
pub use volume::export_volume;

#[doc(hidden)]
pub use abi_stable;

/// Exports a [`Driver`](crate::Driver) under this name: `export_driver!(Memory, "memory");`
#[macro_export]
macro_rules! export_driver {
    ($driver:ty, $name:literal) => {
        $crate::export_module!(
            $crate::descriptor::Role::Driver,
            $name,
            $crate::export::open::<$driver>,
            $crate::export::wrap_unsupported,
            <$driver as $crate::Driver>::describe
        );
    };
}

/// Exports a [`Layer`](crate::Layer) under this name: `export_layer!(Cache, "cache");`
#[macro_export]
macro_rules! export_layer {
    ($layer:ty, $name:literal) => {
        $crate::export_module!(
            $crate::descriptor::Role::Layer,
            $name,
            $crate::export::open_unsupported,
            $crate::export::wrap::<$layer>,
            <$layer as $crate::Layer>::describe
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_module {
    ($role:expr, $name:literal, $open:expr, $wrap:expr, $describe:expr) => {
        #[used]
        #[unsafe(link_section = ".novastor")]
        static NOVASTOR_DESCRIPTOR: [u8; $crate::descriptor::SIZE] = $crate::descriptor::encode(
            $role,
            cfg!(panic = "unwind"),
            $name,
            env!("CARGO_PKG_VERSION"),
        );

        extern "C" fn novastor_initialise(
            host: $crate::Host,
        ) -> $crate::export::abi_stable::std_types::RResult<(), $crate::Error> {
            $crate::export::initialise(host, $name)
        }

        extern "C" fn novastor_describe()
        -> $crate::export::abi_stable::std_types::RResult<$crate::DriverInfo, $crate::Error> {
            $crate::export::describe($describe)
        }

        /// The entry of this library.
        #[unsafe(no_mangle)]
        pub extern "C" fn novastor_driver_module() -> $crate::abi::DriverModuleRef {
            const MODULE: $crate::abi::DriverModule = $crate::abi::DriverModule {
                initialise: novastor_initialise,
                describe: novastor_describe,
                open: $open,
                wrap: $wrap,
            };
            $crate::export::module_ref(MODULE)
        }

        /// The layout of the entry's type, as this library was built.
        #[unsafe(no_mangle)]
        pub extern "C" fn novastor_driver_layout()
        -> &'static $crate::export::abi_stable::type_layout::TypeLayout {
            $crate::export::layout()
        }
    };
}

/// Leaks a module table, once in the life of a library.
pub fn module_ref(module: crate::abi::DriverModule) -> crate::abi::DriverModuleRef {
    use abi_stable::prefix_type::PrefixTypeTrait;
    module.leak_into_prefix()
}

/// The layout of the entry's type, as this library was built.
pub fn layout() -> &'static abi_stable::type_layout::TypeLayout {
    <crate::abi::DriverModuleRef as abi_stable::StableAbi>::LAYOUT
}

/// Starts the driver's runtime, log and panic hook.
pub fn initialise(host: Host, name: &str) -> RResult<(), Error> {
    crate::panic::guard(|| {
        crate::host::set_library_host(host);
        crate::trace::install();
        crate::runtime::start(name).map_err(|error| {
            Error::from_io("the driver's runtime does not start", &error)
                .remedy("raise the limit on threads")
        })
    })
    .into()
}

/// Asks the author's `describe`.
pub fn describe(call: fn() -> DriverInfo) -> RResult<DriverInfo, Error> {
    crate::panic::guard(|| Ok(call())).into()
}

/// Opens a backend of `D`.
pub extern "C" fn open<D: Driver>(host: Host, config: BackendConfig) -> Op<BackendHandle> {
    let reporter = host.clone();
    start(|| {
        let options = D::describe().volume_options;
        let known = options.into_iter().map(|option| option.name).collect();
        let opening = D::open(host, config);
        Op::run(async move { Ok(export_checked(opening.await?, reporter, Some(known))) })
    })
}

/// Wraps a volume with `L`.
pub extern "C" fn wrap<L: Layer>(
    host: Host,
    config: BackendConfig,
    inner: VolumeHandle,
) -> Op<VolumeHandle> {
    let reporter = host.clone();
    start(|| {
        let wrapping = L::wrap(host, config, inner);
        Op::run(async move { Ok(export_layered(wrapping.await?, reporter)) })
    })
}

/// The `open` of a layer.
pub extern "C" fn open_unsupported(_host: Host, _config: BackendConfig) -> Op<BackendHandle> {
    Op::err(
        Error::new(ErrorKind::UNSUPPORTED, "this is a layer, not a driver")
            .remedy("name it under layers, not as a backend's driver"),
    )
}

/// The `wrap` of a driver.
pub extern "C" fn wrap_unsupported(
    _host: Host,
    _config: BackendConfig,
    _inner: VolumeHandle,
) -> Op<VolumeHandle> {
    Op::err(
        Error::new(ErrorKind::UNSUPPORTED, "this is a driver, not a layer")
            .remedy("name it as a backend's driver, not under layers"),
    )
}

fn start<T>(call: impl FnOnce() -> Op<T>) -> Op<T> {
    let started = catch_unwind(AssertUnwindSafe(|| {
        let _entered = Entered::new();
        call()
    }));
    match started {
        Ok(op) => op,
        Err(payload) => Op::err(crate::panic::error_of(payload)),
    }
}

fn ask<T>(call: impl FnOnce() -> T) -> RResult<T, Error> {
    crate::panic::guard(|| Ok(call())).into()
}

/// The author's object, whose drop may panic without harm.
struct Contained<T> {
    object: ManuallyDrop<T>,
    host: Host,
}

impl<T> Contained<T> {
    fn new(object: T, host: Host) -> Self {
        Self { object: ManuallyDrop::new(object), host }
    }
}

impl<T> std::ops::Deref for Contained<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.object
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        // SAFETY: the object is taken here, in drop, and never touched again.
        let object = unsafe { ManuallyDrop::take(&mut self.object) };
        let dropped = crate::panic::guard(|| {
            let _entered = Entered::new();
            drop(object);
            Ok(())
        });
        if let Err(error) = dropped {
            self.host.raw.report_panic("drop".into(), error.message().into());
        }
    }
}
