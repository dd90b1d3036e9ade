// SPDX-License-Identifier: Apache-2.0
//! What the library boundary costs: CPU nanoseconds of a ready 4 KiB read, in this process, through a driver's `.so`,
//! and through a layer's `.so` over it. Medians of alternating rounds; exits with 1 above the limits. The limits are
//! those of a core on which the in-process call takes 15 ns, and grow with that call on a slower or a shared one.
//!
//! `cargo build --release -p novastor-test-ram -p novastor-test-forward`, then
//! `cargo run --release -p novastor-bench --bin abi [-- --json]`.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::ExitCode,
};

use driver_api::{
    Attach, AttachMode, BackendConfig, Host, IoBuf, Op, OpContext, Result, VolumeHandle,
    VolumeSpec, WriteFlags,
    descriptor::{Descriptor, Role, SIZE, encode},
    ext::unsupported,
    host::NoServices,
    import::{Module, open_library},
};
use serde_json::json;

const ROUNDS: usize = 15;
const READS: u32 = 400_000;
const VOLUME: u64 = 16 << 20;
const READ: u32 = 4096;
/// What the in-process call takes on a core of its own, in CPU nanoseconds: the scale of the limits.
const YARDSTICK: f64 = 15.0;
/// Limits in CPU nanoseconds.
const MAX_READ: f64 = 50.0;
const MAX_LAYER: f64 = 15.0;

/// The in-process yardstick: one virtual call that counts a reference.
trait InProcess {
    fn read(&self, cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf>;
}

struct Blocks(Vec<IoBuf>);

impl InProcess for Blocks {
    fn read(&self, _cx: &OpContext, offset: u64, len: u32) -> Op<IoBuf> {
        let block = &self.0[(offset / u64::from(READ)) as usize];
        if len == READ { Op::ok(block.clone()) } else { Op::ok(block.slice(0, len as usize)) }
    }
}

fn load(directory: &Path, name: &str, role: Role) -> Result<Module> {
    let bytes: [u8; SIZE] = encode(role, true, "bench", "0");
    let Some(descriptor) = Descriptor::decode(&bytes) else {
        return Err(unsupported("descriptor"));
    };
    let file = directory.join(format!("lib{name}.so"));
    // SAFETY: the library was built from this repository.
    unsafe { open_library(&file, &descriptor, Host::new(NoServices)) }
}

/// CPU time of this thread in nanoseconds.
fn cpu_ns() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

fn measure(read: impl Fn(&OpContext, u64) -> Op<IoBuf>) -> f64 {
    let cx = OpContext::new();
    let blocks = VOLUME / u64::from(READ);
    let before = cpu_ns();
    for index in 0..u64::from(READS) {
        let op = read(black_box(&cx), (index * 7919 % blocks) * u64::from(READ));
        let Op::Ready(result) = op else { panic!("the read is not ready") };
        black_box(result.into_result().expect("the read succeeds"));
    }
    (cpu_ns() - before) / f64::from(READS)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// One volume, seen bare, through a layer, and through two: all three read the same memory.
async fn prepare(directory: &Path) -> Result<[VolumeHandle; 3]> {
    let ram = load(directory, "ram", Role::Driver)?;
    let forward = load(directory, "forward", Role::Layer)?;
    let config = |name| BackendConfig::new(name, &json!({}));
    let backend = ram.open(Host::new(NoServices), config("ram")).await?;
    let cx = OpContext::new();
    backend.create(&cx, VolumeSpec::new("bench", VOLUME)).await?;
    let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "bench");
    let plain = backend.attach(&cx, "bench", attach).await?;
    for offset in (0..VOLUME).step_by(READ as usize) {
        let block = IoBuf::copy_from(&[7; READ as usize]);
        plain.write(&cx, offset, block, WriteFlags::NONE).await?;
    }
    let one = forward.wrap(Host::new(NoServices), config("forward"), plain.clone()).await?;
    let two = forward.wrap(Host::new(NoServices), config("forward"), one.clone()).await?;
    Ok([plain, one, two])
}

fn main() -> ExitCode {
    let as_json = std::env::args().any(|argument| argument == "--json");
    let directory = std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let (Some(directory), Ok(runtime)) = (directory, runtime) else {
        eprintln!("the benchmark does not know where it is");
        return ExitCode::FAILURE;
    };
    let [plain, one_layer, two_layers] = match runtime.block_on(prepare(&directory)) {
        Ok(volumes) => volumes,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let block = |_| IoBuf::copy_from(&[7; READ as usize]);
    let local: Box<dyn InProcess> =
        Box::new(Blocks((0..VOLUME / u64::from(READ)).map(block).collect()));
    let mut figures: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let call = measure(|cx, offset| local.read(cx, offset, READ));
        let driver = measure(|cx, offset| plain.read(cx, offset, READ));
        let layer = measure(|cx, offset| one_layer.read(cx, offset, READ));
        let layers = measure(|cx, offset| two_layers.read(cx, offset, READ));
        for (all, one) in figures.iter_mut().zip([call, driver, layer - driver, layers - layer]) {
            all.push(one);
        }
    }
    let [in_process, driver, first, second] = figures.map(median);
    let slower = (in_process / YARDSTICK).max(1.0);
    let (max_read, max_layer) = (MAX_READ * slower, MAX_LAYER * slower);
    if as_json {
        let limits = json!({ "driver_ns": max_read, "layer_ns": max_layer });
        println!(
            "{}",
            json!({ "in_process_ns": in_process, "driver_ns": driver, "layer_ns": first,
                    "second_layer_ns": second, "limits": limits })
        );
    } else {
        println!("ready 4 KiB read, CPU ns, median of {ROUNDS} rounds of {READS} reads");
        println!("  in-process dyn call   {in_process:6.1}");
        println!(
            "  driver .so            {driver:6.1}   {:.2}x, limit {max_read:.1}",
            driver / in_process
        );
        println!("  one forwarding layer  {first:+6.1}   limit {max_layer:.1}");
        println!("  a second one          {second:+6.1}   limit {max_layer:.1}");
    }
    if driver <= max_read && first <= max_layer && second <= max_layer {
        ExitCode::SUCCESS
    } else {
        eprintln!("a limit is exceeded");
        ExitCode::FAILURE
    }
}
