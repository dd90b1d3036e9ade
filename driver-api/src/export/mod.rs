// SPDX-License-Identifier: Apache-2.0
//! Turns a [`Driver`] or [`Layer`] into the module that the host loads. Use [`export_driver!`](crate::export_driver)
//! and [`export_layer!`](crate::export_layer).
//!
//! Every method here enters the driver's tokio, and turns a panic of the author's code into an error.

mod volume;

use std::{
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use abi_stable::{
    sabi_trait::TD_Opaque,
    std_types::{RArc, ROption, RResult, RStr, RString, RVec},
};

use crate::{
    Attach, AttachMode, Backend, BackendConfig, BackendHandle, Capabilities, ClonesHandle,
    CommandsHandle, Driver, DriverInfo, Error, ErrorKind, Health, Host, Layer, Op, OpContext,
    Stats, Usage, VolumeHandle, VolumeInfo, VolumeSpec,
    abi::{
        RawBackend, RawBackend_TO, RawClones, RawClones_TO, RawCommands, RawCommands_TO,
        RawSnapshots,
    },
    ext,
    runtime::Entered,
};

pub use volume::export_volume;
use volume::{export_attached, export_layered};

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
        let opening = D::open(host, config);
        Op::run(async move { Ok(export_backend(opening.await?, reporter)) })
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

/// A backend as the other side holds it.
pub fn export_backend<B: Backend>(backend: B, host: Host) -> BackendHandle {
    let glue = BackendGlue(Contained::new(backend, host));
    BackendHandle { raw: RawBackend_TO::from_ptr(RArc::new(glue), TD_Opaque) }
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

struct BackendGlue<B>(Contained<B>);

impl<B: Backend> RawBackend for BackendGlue<B> {
    fn capabilities(&self) -> RResult<Capabilities, Error> {
        ask(|| self.0.capabilities())
    }

    fn create(&self, cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        start(|| self.0.create(cx, spec))
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.0.delete(cx, name.as_str()))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        start(|| self.0.list(cx))
    }

    fn show(&self, cx: &OpContext, name: RStr<'_>) -> Op<VolumeInfo> {
        start(|| self.0.show(cx, name.as_str()))
    }

    fn attach(&self, cx: &OpContext, name: RStr<'_>, attach: Attach) -> Op<VolumeHandle> {
        let host = self.0.host.clone();
        let writable = attach.mode == AttachMode::EXCLUSIVE;
        start(|| {
            let attaching = self.0.attach(cx, name.as_str(), attach);
            attaching.map(move |volume| Ok(export_attached(volume?, host, writable)))
        })
    }

    fn usage(&self, cx: &OpContext) -> Op<Usage> {
        start(|| self.0.usage(cx))
    }

    fn health(&self, cx: &OpContext) -> Op<Health> {
        start(|| self.0.health(cx))
    }

    fn stats(&self) -> RResult<Stats, Error> {
        ask(|| self.0.stats())
    }

    fn close(&self, cx: &OpContext) -> Op<()> {
        start(|| self.0.close(cx))
    }

    fn clones(&self) -> RResult<ROption<ClonesHandle>, Error> {
        let host = &self.0.host;
        ask(|| {
            let clones = self.0.clones()?;
            let glue = ClonesGlue(Contained::new(clones, host.clone()));
            Some(ClonesHandle { raw: RawClones_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }

    fn commands(&self) -> RResult<ROption<CommandsHandle>, Error> {
        let host = &self.0.host;
        ask(|| {
            let commands = self.0.commands()?;
            let glue = CommandsGlue(Contained::new(commands, host.clone()));
            Some(CommandsHandle { raw: RawCommands_TO::from_ptr(RArc::new(glue), TD_Opaque) })
        })
        .map(Into::into)
    }
}

struct SnapshotsGlue(Contained<Arc<dyn ext::Snapshots>>);

impl RawSnapshots for SnapshotsGlue {
    fn create(&self, cx: &OpContext, name: RStr<'_>) -> Op<ext::SnapshotInfo> {
        start(|| self.0.create(cx, name.as_str()))
    }

    fn list(&self, cx: &OpContext) -> Op<RVec<ext::SnapshotInfo>> {
        start(|| self.0.list(cx))
    }

    fn delete(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.0.delete(cx, name.as_str()))
    }

    fn rollback(&self, cx: &OpContext, name: RStr<'_>) -> Op<()> {
        start(|| self.0.rollback(cx, name.as_str()))
    }
}

struct ClonesGlue(Contained<Arc<dyn ext::Clones>>);

impl RawClones for ClonesGlue {
    fn clone_volume(
        &self,
        cx: &OpContext,
        source: RStr<'_>,
        snapshot: RStr<'_>,
        target: VolumeSpec,
    ) -> Op<VolumeInfo> {
        start(|| self.0.clone_volume(cx, source.as_str(), snapshot.as_str(), target))
    }
}

struct CommandsGlue(Contained<Arc<dyn ext::Commands>>);

impl RawCommands for CommandsGlue {
    fn list(&self) -> RResult<RVec<ext::CommandSpec>, Error> {
        ask(|| self.0.list())
    }

    fn run(&self, cx: &OpContext, command: RStr<'_>, arguments: RStr<'_>) -> Op<RString> {
        start(|| self.0.run(cx, command.as_str(), arguments.as_str()))
    }
}
