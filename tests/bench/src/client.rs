// SPDX-License-Identifier: Apache-2.0
//! The driver's client: loads the driver as a host does, and keeps so many operations in flight, in one thread, as fio does.
//!
//! It is a process of its own, as fio is: `BENCHMARK client JSON` runs a [`Load`] and prints a [`Sample`].

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use driver_api::{
    Attach, AttachMode, BackendConfig, Error, ErrorKind, Host, IoBuf, OpContext, Result,
    VolumeHandle, VolumeSpec, WriteFlags,
    descriptor::{Descriptor, Role, SIZE, encode},
    ext::unsupported,
    host::NoServices,
    import::{Module, open_library},
};
use end_to_end::{
    failure::{Context, Failure, Outcome},
    program::Program,
    random::Random,
};
use nbd_protocol::pool;
use serde::{Deserialize, Serialize};

use crate::load::{Case, Sample, Span};

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// The driver's library.
    pub driver: PathBuf,
    /// The backend's options.
    pub options: serde_json::Value,
    /// The volume.
    pub volume: String,
    /// Its size.
    pub size: u64,
    /// The load.
    pub case: Case,
    /// How long; none: use all of it once.
    pub span: Option<Span>,
    /// Make the volume, after deleting one that is there.
    pub fresh: bool,
    /// Where random places come from.
    pub seed: u64,
}

/// What all operations in flight share.
struct Course {
    load: Load,
    counts_from: Instant,
    ends: Option<Instant>,
    done: Mutex<Done>,
}

struct Done {
    random: Random,
    next: u64,
    latencies_ns: Vec<u64>,
    last: Instant,
}

impl Course {
    fn new(load: &Load) -> Self {
        let begun = Instant::now();
        let after = |millis| begun + Duration::from_millis(millis);
        let warm = load.span.map_or(0, |span| span.warm_millis);
        Self {
            counts_from: after(warm),
            ends: load.span.map(|span| after(warm + span.millis)),
            done: Mutex::new(Done {
                random: Random::new(load.seed),
                next: 0,
                latencies_ns: Vec::new(),
                last: begun,
            }),
            load: load.clone(),
        }
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next operation goes; none when it is over.
    fn next(&self, now: Instant) -> Option<u64> {
        let blocks = self.load.size / self.load.case.block as u64;
        let mut done = self.done();
        if self.ends.map_or(done.next >= blocks, |ends| now >= ends) {
            return None;
        }
        let block = if self.load.case.random { done.random.within(0..blocks) } else { done.next };
        done.next += 1;
        Some(block % blocks * self.load.case.block as u64)
    }

    fn ended(&self, begun: Instant) -> Instant {
        let now = Instant::now();
        let mut done = self.done();
        done.last = now;
        if now >= self.counts_from {
            done.latencies_ns.push(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
        }
        now
    }

    fn sample(&self) -> Outcome<Sample> {
        let mut done = self.done();
        done.latencies_ns.sort_unstable();
        let latencies = &done.latencies_ns;
        let micros =
            |part: usize| latencies.get(latencies.len() * part / 100).map(|ns| *ns as f64 / 1e3);
        let (Some(half), Some(most)) = (micros(50), micros(99)) else {
            return Err(Failure::new("no operation was done in time"));
        };
        let secs = done.last.duration_since(self.counts_from).as_secs_f64();
        Ok(Sample {
            rate: latencies.len() as f64 / secs,
            latency_us: Some([half, most]),
            cpu_us: 0.0,
        })
    }
}

/// One operation after the other.
async fn worker(course: Arc<Course>, volume: VolumeHandle, data: IoBuf) -> Result<()> {
    // Buffers as a host lends them.
    let cx = OpContext::new().with_allocator(pool::allocate);
    let (write, len) = (course.load.case.write, course.load.case.block as u32);
    let mut now = Instant::now();
    while let Some(offset) = course.next(now) {
        if write {
            volume.write(&cx, offset, data.clone(), WriteFlags::NONE).await?;
        } else {
            drop(volume.read(&cx, offset, len).await?);
        }
        now = course.ended(now);
    }
    Ok(())
}

fn open(load: &Load) -> Result<Module> {
    let bytes: [u8; SIZE] = encode(Role::Driver, true, "bench", "0");
    let Some(descriptor) = Descriptor::decode(&bytes) else {
        return Err(unsupported("descriptor"));
    };
    // SAFETY: the library was built from this repository.
    unsafe { open_library(&load.driver, &descriptor, Host::new(NoServices)) }
}

async fn attach(load: &Load) -> Result<VolumeHandle> {
    let config = BackendConfig::new("bench", &load.options);
    let backend = open(load)?.open(Host::new(NoServices), config).await?;
    let cx = OpContext::new();
    if load.fresh {
        match backend.delete(&cx, &load.volume).await {
            Err(error) if error.kind() != ErrorKind::NOT_FOUND => return Err(error),
            _ => {}
        }
        backend.create(&cx, VolumeSpec::new(&load.volume, load.size)).await?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Later than all before.
    let epoch = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    backend.attach(&cx, &load.volume, Attach::new(AttachMode::EXCLUSIVE, epoch, "bench")).await
}

async fn drive(load: &Load) -> Result<Outcome<Sample>> {
    let volume = attach(load).await?;
    let mut random = Random::new(load.seed);
    let mut data = || {
        let words = (0..load.case.block / 8).flat_map(|_| random.number().to_le_bytes());
        IoBuf::copy_from(&words.collect::<Vec<_>>())
    };
    let data: Vec<IoBuf> = (0..load.case.depth).map(|_| data()).collect();
    let course = Arc::new(Course::new(load));
    let mut workers = tokio::task::JoinSet::new();
    for data in data {
        workers.spawn(worker(Arc::clone(&course), volume.clone(), data));
    }
    for ended in workers.join_all().await {
        ended?;
    }
    volume.detach(&OpContext::new()).await?;
    Ok(course.sample())
}

/// Runs a load in a process of its own, which this program is asked to be.
///
/// # Errors
/// When the driver refuses anything, or nothing was done in time.
pub fn apart(load: &Load) -> Outcome<Sample> {
    let itself = std::env::current_exe().context("this program")?;
    let load = serde_json::to_string(load).context("load")?;
    let said = Program::new(itself).args(["client", &load]).run()?;
    serde_json::from_str(&said.stdout).context(format!("the client says {:?}", said.stdout))
}

/// Runs a load.
///
/// # Errors
/// When the driver refuses anything, or nothing was done in time.
pub fn run(load: &Load) -> Outcome<Sample> {
    pool::keep_buffers(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().context("runtime")?;
    let said = |error: Error| Failure::new(format!("{error:#}"));
    runtime.block_on(drive(load)).map_err(said)?
}
