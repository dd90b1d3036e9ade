// SPDX-License-Identifier: Apache-2.0
//! A host of one file: loads the driver named as argument, makes a volume, and writes and reads it. Built against this
//! driver-api and against every released one. Prints what it saw as `key=value` lines.

use std::{path::Path, process::ExitCode};

use driver_api::{
    Attach, AttachMode, BackendConfig, BackendHandle, Host, HostServices, IoBuf, Op, OpContext,
    Result, StateHandle, VolumeSpec, WriteFlags,
    descriptor::{Descriptor, MAGIC, SIZE},
    ext::unsupported,
    host::LogRecord,
    import::open_library,
};

/// Written out here, and not `driver_api::host::NoServices`: the driver-api of 1.0 has none, and this host tells what it hears.
struct Services;

impl HostServices for Services {
    fn enabled(&self, _level: u32, _target: &str) -> bool {
        true
    }

    fn log(&self, record: &LogRecord<'_>) {
        println!("log={}", record.message);
    }

    fn report_panic(&self, place: &str, message: &str) {
        println!("panic={place}: {message}");
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

/// The file's descriptor: found by its magic, since this host has no ELF reader.
fn descriptor(file: &Path) -> Option<Descriptor> {
    let bytes = std::fs::read(file).ok()?;
    let starts = (0..bytes.len().saturating_sub(SIZE)).filter(|&at| bytes[at..].starts_with(&MAGIC));
    starts.filter_map(|at| Descriptor::decode(&bytes[at..])).find(|found| !found.name.is_empty())
}

async fn serve(file: &Path) -> Result<()> {
    let Some(descriptor) = descriptor(file) else { return Err(unsupported("descriptor")) };
    println!("host_abi={}.{}", driver_api::abi::MAJOR, driver_api::abi::MINOR);
    println!("driver_abi={}.{}", descriptor.abi_major, descriptor.abi_minor);
    // SAFETY: the tests built the library from this repository, or keep it there.
    let module = unsafe { open_library(file, &descriptor, Host::new(Services)) }?;
    println!("summary={}", module.describe()?.summary);
    let cx = OpContext::new();
    let config = BackendConfig::new("old", &Default::default());
    let backend = module.open(Host::new(Services), config).await?;
    backend.create(&cx, VolumeSpec::new("disk", 1 << 20)).await?;
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "versions");
    let volume = backend.attach(&cx, "disk", attach).await?;
    let written = IoBuf::copy_from(&[0xa5; 9000]);
    volume.write(&cx, 4000, written.clone(), WriteFlags::FUA).await?;
    volume.flush(&cx).await?;
    let read = volume.read(&cx, 3999, 9002).await?;
    let same = read[0] == 0 && read[1..9001] == written[..] && read[9001] == 0;
    println!("data={}", if same { "intact" } else { "damaged" });
    let refused = volume.read(&cx, 1 << 20, 1).await;
    println!("past_the_end={:?}", refused.err().map(|error| error.kind()));
    volume.detach(&cx).await?;
    drop(volume);
    backend.delete(&cx, "disk").await?;
    backend.close(&cx).await
}

fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1) else { return ExitCode::from(2) };
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("refused={error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(Path::new(&file))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("refused={error:#}");
            ExitCode::FAILURE
        }
    }
}
