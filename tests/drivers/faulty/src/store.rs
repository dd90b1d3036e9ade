// SPDX-License-Identifier: Apache-2.0
//! Volumes in memory: each with what was written and what was flushed.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use driver_api::{
    Abilities, Attach, AttachMode, Capabilities, Error, ErrorKind, RVec, Result, Usage, VolumeInfo,
    VolumeSpec, WriteFlags,
};

const LARGEST: u64 = 64 << 20;

pub(crate) const CAPABILITIES: Capabilities = {
    let abilities = Abilities::WRITE.and(Abilities::FUA).and(Abilities::COMMANDS);
    let mut capabilities = Capabilities::new(abilities);
    capabilities.max_volume_size = LARGEST;
    capabilities
};

/// All volumes of a backend. A cheap handle.
#[derive(Clone, Default)]
pub(crate) struct Store {
    volumes: Arc<Mutex<BTreeMap<String, Disk>>>,
    writes_finished: Arc<AtomicU64>,
}

/// A volume. A cheap handle.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    writes_finished: Arc<AtomicU64>,
    /// The attachment that this handle belongs to.
    session: u64,
}

struct State {
    /// The last attachment for writing.
    session: u64,
    written: Vec<u8>,
    durable: Vec<u8>,
    attached: Option<String>,
    incarnation: u64,
    lost: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic on request may happen anywhere; the data is as good as before.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    pub(crate) fn create(&self, spec: &VolumeSpec) -> Result<VolumeInfo> {
        if spec.size > LARGEST {
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the volume is too large"));
        }
        let mut volumes = lock(&self.volumes);
        if let Some(disk) = volumes.get(spec.name.as_str()) {
            return match disk.size() == spec.size {
                true => Ok(disk.info(&spec.name)),
                false => Err(Error::new(ErrorKind::ALREADY_EXISTS, "it has another size")),
            };
        }
        let zeros = vec![0; spec.size as usize];
        let state = State {
            session: 0,
            written: zeros.clone(),
            durable: zeros,
            attached: None,
            incarnation: 1,
            lost: false,
        };
        let disk = Disk {
            state: Arc::new(Mutex::new(state)),
            writes_finished: self.writes_finished.clone(),
            session: 0,
        };
        let info = disk.info(&spec.name);
        volumes.insert(spec.name.to_string(), disk);
        Ok(info)
    }

    pub(crate) fn delete(&self, name: &str) -> Result<()> {
        let mut volumes = lock(&self.volumes);
        let disk = volumes.get(name).ok_or_else(|| missing(name))?;
        if let Some(owner) = &lock(&disk.state).attached {
            return Err(Error::new(ErrorKind::IN_USE, format!("{owner} has it attached")));
        }
        volumes.remove(name);
        Ok(())
    }

    pub(crate) fn list(&self) -> RVec<VolumeInfo> {
        lock(&self.volumes).iter().map(|(name, disk)| disk.info(name)).collect()
    }

    pub(crate) fn show(&self, name: &str) -> Result<VolumeInfo> {
        let volumes = lock(&self.volumes);
        volumes.get(name).map(|disk| disk.info(name)).ok_or_else(|| missing(name))
    }

    /// The volume's storage restarts. Returns how many bytes it has lost.
    pub(crate) fn restart(&self, name: &str) -> Result<u64> {
        let disk = lock(&self.volumes).get(name).cloned().ok_or_else(|| missing(name))?;
        Ok(lock(&disk.state).restart())
    }

    pub(crate) fn attach(&self, name: &str, attach: &Attach) -> Result<Disk> {
        let mut disk = lock(&self.volumes).get(name).cloned().ok_or_else(|| missing(name))?;
        let shared = disk.state.clone();
        let mut state = lock(&shared);
        if let Some(owner) = &state.attached
            && !attach.force
        {
            return Err(Error::new(ErrorKind::IN_USE, format!("{owner} has it attached")));
        }
        // What was lost stays lost; who opens the volume now begins with what is there.
        state.lost = false;
        if attach.mode == AttachMode::EXCLUSIVE {
            state.attached = Some(attach.owner.to_string());
            state.session += 1;
        }
        disk.session = state.session;
        drop(state);
        Ok(disk)
    }

    pub(crate) fn usage(&self) -> Usage {
        let used = lock(&self.volumes).values().map(Disk::size).sum();
        Usage { capacity: LARGEST, used, available: LARGEST, provisioned: used, ..Usage::default() }
    }

    pub(crate) fn writes_finished(&self) -> u64 {
        self.writes_finished.load(Ordering::Relaxed)
    }
}

impl State {
    fn restart(&mut self) -> u64 {
        let both = self.written.iter().zip(&self.durable);
        let lost = both.filter(|(written, durable)| written != durable).count() as u64;
        if lost > 0 {
            self.written = self.durable.clone();
            self.incarnation += 1;
            self.lost = true;
        }
        lost
    }
}

impl Disk {
    fn info(&self, name: &str) -> VolumeInfo {
        VolumeInfo::new(name, self.size(), self.size())
    }

    pub(crate) fn size(&self) -> u64 {
        lock(&self.state).written.len() as u64
    }

    pub(crate) fn incarnation(&self) -> u64 {
        lock(&self.state).incarnation
    }

    /// Fails once another attachment has taken the volume.
    pub(crate) fn check_session(&self) -> Result<()> {
        self.same_session(&lock(&self.state))
    }

    fn same_session(&self, state: &State) -> Result<()> {
        if state.session == self.session {
            return Ok(());
        }
        Err(Error::new(ErrorKind::FENCED, "another attachment has the volume"))
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let state = lock(&self.state);
        let range = range(&state, offset, buffer.len())?;
        buffer.copy_from_slice(&state.written[range]);
        Ok(())
    }

    /// Writes; `fences`: unless another attachment has the volume.
    pub(crate) fn write(
        &self,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        fences: bool,
    ) -> Result<()> {
        let mut state = lock(&self.state);
        if fences {
            self.same_session(&state)?;
        }
        let range = range(&state, offset, data.len())?;
        state.written[range.clone()].copy_from_slice(data);
        if flags.has(WriteFlags::FUA) {
            state.durable[range].copy_from_slice(data);
        }
        self.writes_finished.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn flush(&self, lose: bool) -> Result<()> {
        let mut state = lock(&self.state);
        if lose {
            state.restart();
        }
        if state.lost {
            return Err(Error::new(ErrorKind::CORRUPTED, "unflushed writes were lost"));
        }
        state.durable = state.written.clone();
        Ok(())
    }

    pub(crate) fn detach(&self) -> Result<()> {
        let mut state = lock(&self.state);
        state.attached = None;
        Ok(())
    }
}

fn range(state: &State, offset: u64, len: usize) -> Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(len));
    match (start, end) {
        (Some(start), Some(end)) if end <= state.written.len() => Ok(start..end),
        _ => Err(Error::new(ErrorKind::OUT_OF_RANGE, "outside the volume")),
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("there is no volume `{name}`"))
}
