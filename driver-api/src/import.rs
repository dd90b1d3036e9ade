// SPDX-License-Identifier: Apache-2.0
//! The host's half of loading: opens a library whose descriptor was checked, compares versions and layouts, and hands
//! out its module. Where files come from, and who may have written them, is the host's affair.

use std::{cmp::Ordering, ffi::OsStr, fmt, path::Path};

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{
        AbiInstability, AbiInstabilityErrors, CheckingGlobals,
        check_layout_compatibility_with_globals,
    },
    type_layout::{TLFieldOrFunction, TypeLayout},
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use crate::{
    BackendConfig, BackendHandle, DriverInfo, Error, ErrorKind, Host, Op, Result, VolumeHandle,
    abi::{self, DriverModuleRef},
    descriptor::{Descriptor, ENTRY_SYMBOL, LAYOUT_SYMBOL},
};

/// A loaded library, initialised. It is never unloaded: its code may be on some thread's stack for ever.
#[derive(Clone, Copy)]
pub struct Module {
    module: DriverModuleRef,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Module")
    }
}

impl Module {
    /// What the driver says of itself.
    pub fn describe(&self) -> Result<DriverInfo> {
        (self.module.describe())().into()
    }

    /// Opens a backend.
    pub fn open(&self, host: Host, config: BackendConfig) -> Op<BackendHandle> {
        (self.module.open())(host, config)
    }

    /// Wraps a volume.
    pub fn wrap(&self, host: Host, config: BackendConfig, inner: VolumeHandle) -> Op<VolumeHandle> {
        (self.module.wrap())(host, config, inner)
    }
}

/// Refuses a library whose descriptor alone shows that it cannot be served.
pub fn check_descriptor(descriptor: &Descriptor) -> Result<()> {
    if descriptor.abi_major != abi::MAJOR {
        return Err(refused(format!(
            "it was built for driver ABI {}.{}, this host serves {}.x",
            descriptor.abi_major,
            descriptor.abi_minor,
            abi::MAJOR,
        ))
        .remedy(format!("build the driver against driver-api {}.x", abi::MAJOR)));
    }
    if !descriptor.unwinds {
        return Err(refused(
            "it was built with panic=abort: its first panic would end the host and every volume",
        )
        .remedy("build it with panic = \"unwind\" in its profile"));
    }
    Ok(())
}

/// Opens `file`, which must be a private copy that nobody will write to.
///
/// # Safety
/// Opening runs the library's initialisers: the caller trusts its author. The descriptor is that of this file.
pub unsafe fn open_library(file: &Path, descriptor: &Descriptor, host: Host) -> Result<Module> {
    check_descriptor(descriptor)?;
    // SAFETY: the caller trusts the file.
    let library = unsafe { Library::open(Some(file.as_os_str() as &OsStr), RTLD_NOW | RTLD_LOCAL) }
        .map_err(|error| {
            let why = loader_text(&error);
            refused(format!("the system's loader refuses it: {why}"))
                .remedy("install what is missing; `ldd` on the file shows it")
        })?;
    let library = std::mem::ManuallyDrop::new(library);
    // SAFETY: the descriptor's magic and major version say that the symbols have these types.
    let (layout, entry) = unsafe {
        let layout = library.get::<extern "C" fn() -> &'static TypeLayout>(LAYOUT_SYMBOL);
        let entry = library.get::<extern "C" fn() -> DriverModuleRef>(ENTRY_SYMBOL);
        (*layout.map_err(|_| missing(LAYOUT_SYMBOL))?, *entry.map_err(|_| missing(ENTRY_SYMBOL))?)
    };
    check_layout(descriptor, layout())?;
    let module = entry();
    (module.initialise())(host).into_result()?;
    Ok(Module { module })
}

/// The older side is the interface, the newer one the implementation: it may have more methods at the end, and
/// nothing else may differ.
fn check_layout(descriptor: &Descriptor, driver: &'static TypeLayout) -> Result<()> {
    let host = <DriverModuleRef as StableAbi>::LAYOUT;
    let (interface, implementation) = match descriptor.abi_minor.cmp(&abi::MINOR) {
        Ordering::Less => (driver, host),
        Ordering::Equal | Ordering::Greater => (host, driver),
    };
    let globals = CheckingGlobals::new();
    check_layout_compatibility_with_globals(interface, implementation, &globals).map_err(|report| {
        refused(format!(
            "it claims driver ABI {}.{}, but its layout differs: {}",
            descriptor.abi_major,
            descriptor.abi_minor,
            first_difference(&report),
        ))
        .remedy("build the driver against an unchanged, released driver-api")
    })
}

/// The report of a failed check is tens of KiB; this names the first item that differs, and how.
fn first_difference(report: &AbiInstabilityErrors) -> String {
    let Some(error) = report.errors.iter().find(|error| !error.errs.is_empty()) else {
        return "the check gave no reason".to_owned();
    };
    let place: Vec<String> =
        error.stack_trace.iter().filter_map(|step| place_name(&step.found)).collect();
    // A count or a size says less than the field that causes it.
    let vague = |cause: &&AbiInstability| {
        matches!(
            cause,
            AbiInstability::FieldCountMismatch(_)
                | AbiInstability::MismatchedPrefixSize(_)
                | AbiInstability::Size(_)
        )
    };
    let cause = error.errs.iter().find(|cause| !vague(cause)).or(error.errs.first());
    let mut text = format!("in {}: ", place.join("."));
    text.push_str(&cause.map(difference).unwrap_or_default());
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
    }
    text
}

/// How an author would name a step on the way to the difference; `None` for what the macros put in between.
fn place_name(step: &TLFieldOrFunction) -> Option<String> {
    let TLFieldOrFunction::Field(field) = step else { return None };
    let module = field.layout().mod_path().to_string();
    let interface = module.rsplit("::").next().and_then(|last| last.strip_suffix("_trait"));
    match (field.full_type().name(), interface) {
        ("VTable", Some(interface)) => Some(interface.to_owned()),
        _ if ["obj", "vtable", "raw", "0"].contains(&field.name()) => None,
        _ => Some(field.name().to_owned()),
    }
}

fn difference(cause: &AbiInstability) -> String {
    match cause {
        AbiInstability::UnexpectedField(both) => {
            format!("expected `{}`, found `{}`", both.expected.name(), both.found.name())
        }
        AbiInstability::Name(both) => {
            format!("expected type `{}`, found `{}`", both.expected, both.found)
        }
        AbiInstability::FieldCountMismatch(both) => {
            format!("expected {} items, found {}", both.expected, both.found)
        }
        AbiInstability::Size(both) => {
            format!("expected {} bytes, found {}", both.expected, both.found)
        }
        other => format!("{other:?}"),
    }
}

fn loader_text(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), ToString::to_string)
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why)
}

fn missing(symbol: &str) -> Error {
    refused(format!("it does not export `{symbol}`"))
        .remedy("export the driver with export_driver! or export_layer!")
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
