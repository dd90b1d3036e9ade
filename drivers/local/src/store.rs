// SPDX-License-Identifier: Apache-2.0
//! A backend's directory: making, finding and removing volumes, and how much space they take.
//!
//! A volume is made under a name that nobody lists and then renamed, and renamed away before it is removed: a crash
//! leaves a whole volume or none. What was left half made or half removed is collected when a backend opens.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use driver_api::{Error, ErrorKind, Health, Result, Usage, VolumeInfo, VolumeSpec};
use rustix::fs::{FlockOperation, StatVfsMountFlags, statvfs};

use crate::{
    client,
    config::{Config, Format, Preallocation},
    error::{invalid, not_found, on_path},
    fence::{self, Door},
    layout::{self, HALF_MADE, VolumeDir},
    metadata::{self, VolumeRecord},
    pool::Pool,
    qcow2, snapshots,
    volume::Attached,
};

const IO_THREADS: usize = 8;
const FLUSH_THREADS: usize = 2;
/// Alignment for files that bypass the page cache: fits every disk with blocks up to 4 KiB.
const DIRECT_ALIGN: usize = 4096;

/// An open backend's directory.
pub(crate) struct Store {
    pub name: String,
    pub config: Config,
    pub pool: Arc<Pool>,
    /// Apart from the others, so that waiting for the disk does not hold up reads.
    pub flush_pool: Pool,
    /// Whether the file system shares blocks between files.
    pub reflink: bool,
    attached: Mutex<HashMap<String, Vec<Weak<Attached>>>>,
    made: AtomicU64,
}

/// How a new volume comes to its content.
pub(crate) struct Plan {
    pub record: VolumeRecord,
    pub size: u64,
}

impl Store {
    /// Opens the directory. May block.
    pub fn open(name: &str, config: Config) -> Result<Self> {
        config.check()?;
        let root = &config.dir;
        if !root.is_dir() {
            return Err(Error::new(ErrorKind::NOT_FOUND, "the backend's directory does not exist")
                .with("dir", root.display())
                .remedy(format!("mount its file system, or: mkdir -p {}", root.display())));
        }
        client::make_dir(&layout::volumes(root))?;
        client::make_dir(&layout::trash(root))?;
        let failed = |error| Error::from_io("the I/O threads do not start", &error);
        let pool = Pool::of_device(root, IO_THREADS).map_err(failed)?;
        let flush_pool = Pool::new(FLUSH_THREADS).map_err(failed)?;
        let reflink = probe_reflink(root)?;
        let store = Self {
            name: name.into(),
            config,
            pool,
            flush_pool,
            reflink,
            attached: Mutex::default(),
            made: AtomicU64::new(0),
        };
        store.collect()?;
        Ok(store)
    }

    fn root(&self) -> &Path {
        &self.config.dir
    }

    /// The alignment that volumes' files want.
    pub fn align(&self) -> usize {
        if self.config.direct { DIRECT_ALIGN } else { 1 }
    }

    /// The directory of a volume that exists.
    pub fn volume(&self, name: &str) -> Result<VolumeDir> {
        let dir = VolumeDir::new(self.root(), name)?;
        if dir.record().exists() { Ok(dir) } else { Err(not_found("volume", name)) }
    }

    /// Refuses sizes that a volume cannot have.
    pub fn check_size(&self, size: u64, format: Format) -> Result<()> {
        let block = if format == Format::Qcow2 { 512.max(self.align()) } else { self.align() };
        if size == 0 || size > i64::MAX as u64 || !size.is_multiple_of(block as u64) {
            return Err(invalid("a volume cannot have this size")
                .with("size", size)
                .remedy(format!("use a multiple of {block} above zero")));
        }
        if self.config.capacity != 0 && size > self.config.capacity {
            return Err(Error::new(
                ErrorKind::NO_SPACE,
                "the volume would be larger than the backend's capacity",
            )
            .with("size", size)
            .with("capacity", self.config.capacity)
            .remedy("choose a smaller size, or raise `capacity`"));
        }
        Ok(())
    }

    /// Refuses when `more` bytes would fill the backend into its reserve.
    pub fn refuse_if_full(&self, more: u64) -> Result<()> {
        let usage = self.usage()?;
        let full = usage.capacity - percent_of(usage.capacity, self.config.reserve_percent);
        let taken = (usage.capacity - usage.available.min(usage.capacity)).saturating_add(more);
        if taken <= full && (more > 0 || taken < full) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NO_SPACE, "the backend is full")
            .with("backend", &self.name)
            .with("taken", taken)
            .with("limit", full)
            .remedy("delete volumes or snapshots, or raise `capacity`"))
    }

    /// Creates a volume that reads zeros.
    pub fn create(&self, spec: &VolumeSpec) -> Result<VolumeInfo> {
        let (format, preallocation) = Config::wishes(spec)?;
        let record = VolumeRecord {
            name: spec.name.to_string(),
            format: format.unwrap_or(self.config.format),
            preallocation: preallocation.unwrap_or(self.config.preallocation),
            origin: String::new(),
            method: String::new(),
            epoch: 0,
            incarnation: 1,
            clean: true,
        };
        let plan = Plan { record, size: spec.size };
        if let Some(existing) = self.existing(&plan)? {
            return Ok(existing);
        }
        self.admit(&plan)?;
        self.make(&plan, |path| make_disk(path, &plan))
    }

    /// Refuses a volume for which there is no room.
    pub fn admit(&self, plan: &Plan) -> Result<()> {
        self.check_size(plan.size, plan.record.format)?;
        let at_once = if plan.record.preallocation == Preallocation::Off { 0 } else { plan.size };
        self.refuse_if_full(at_once)
    }

    /// The volume that `plan` describes, if it exists; `AlreadyExists` if another of its name does.
    pub fn existing(&self, plan: &Plan) -> Result<Option<VolumeInfo>> {
        let dir = VolumeDir::new(self.root(), &plan.record.name)?;
        if !dir.record().exists() {
            return Ok(None);
        }
        let record: VolumeRecord = metadata::read(&dir.record())?;
        let info = self.show(&dir.name)?;
        let same = record.format == plan.record.format
            && record.preallocation == plan.record.preallocation
            && record.origin == plan.record.origin
            && (info.size == plan.size || plan.size == 0);
        if same {
            return Ok(Some(info));
        }
        Err(Error::new(ErrorKind::ALREADY_EXISTS, "another volume of this name exists")
            .with("volume", &dir.name)
            .with("size", info.size)
            .with("format", record.format.name())
            .remedy("choose another name, or delete that volume"))
    }

    /// Makes a volume whose disk file `fill` creates at the path it is given; `fill` may complete the record.
    pub fn make(
        &self,
        plan: &Plan,
        fill: impl FnOnce(&Path) -> Result<Option<&'static str>>,
    ) -> Result<VolumeInfo> {
        let _making = self.making()?;
        let dir = VolumeDir::new(self.root(), &plan.record.name)?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let fresh = VolumeDir {
            name: dir.name.clone(),
            path: layout::volumes(self.root()).join(format!(
                "{HALF_MADE}{}-{}-{number}",
                std::process::id(),
                dir.name
            )),
        };
        let made = self.make_in(&fresh, &dir, plan, fill);
        if !matches!(made, Ok(true)) && fresh.path.exists() {
            remove_tree(&fresh.path)?;
        }
        match made? {
            true => self.show(&dir.name),
            false => self.existing(plan)?.ok_or_else(|| not_found("volume", &dir.name)),
        }
    }

    fn make_in(
        &self,
        fresh: &VolumeDir,
        dir: &VolumeDir,
        plan: &Plan,
        fill: impl FnOnce(&Path) -> Result<Option<&'static str>>,
    ) -> Result<bool> {
        client::make_dir(&fresh.path)?;
        client::make_dir(&fresh.holders())?;
        client::make_dir(&fresh.snapshots())?;
        client::open_lock(&fresh.door())?;
        let method = fill(&fresh.disk(plan.record.format))?;
        let mut record = plan.record.clone();
        record.method = method.unwrap_or_default().into();
        metadata::write(&fresh.record(), &record)?;
        client::sync_dir(&fresh.path)?;
        client::rename_new(&fresh.path, &dir.path)
    }

    /// Deletes a volume that nobody holds.
    pub fn delete(&self, name: &str, deadline: Instant) -> Result<()> {
        let dir = self.volume(name)?;
        let _making = self.making()?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let trash =
            layout::trash(self.root()).join(format!("{}-{number}-{name}", std::process::id()));
        {
            let _door = Door::open(&dir, deadline)?;
            fence::refuse_holders(&dir)?;
            client::rename(&dir.path, &trash)?;
        }
        remove_tree(&trash)
    }

    /// All volumes, by name.
    pub fn list(&self) -> Result<Vec<VolumeInfo>> {
        let mut infos = Vec::new();
        for name in self.names()? {
            match self.show(&name) {
                Ok(info) => infos.push(info),
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    fn names(&self) -> Result<Vec<String>> {
        let path = layout::volumes(self.root());
        let mut names: Vec<String> = entries(&path)?
            .iter()
            .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
            .filter(|name| layout::check_name("volume", name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// One volume.
    pub fn show(&self, name: &str) -> Result<VolumeInfo> {
        let dir = self.volume(name)?;
        let record: VolumeRecord = metadata::read(&dir.record())?;
        let path = dir.disk(record.format);
        let file = client::open(&path, false, false)?;
        let (size, used) = measure(&file, record.format)
            .map_err(|error| on_path("cannot measure the volume", &path, &error))?;
        let mut info = VolumeInfo::new(name, size, used)
            .label("format", record.format.name())
            .label("preallocation", record.preallocation.name())
            .label(
                "snapshot_method",
                if self.reflink { snapshots::REFLINK } else { snapshots::COPY },
            );
        if !record.origin.is_empty() {
            info = info.label("origin", &record.origin).label("clone_method", &record.method);
        }
        Ok(info)
    }

    /// Space in the backend.
    pub fn usage(&self) -> Result<Usage> {
        let (mut used, mut provisioned) = (0, 0);
        for name in self.names()? {
            let dir = VolumeDir::new(self.root(), &name)?;
            let size = self.show(&name).map(|info| info.size);
            match size {
                Ok(size) => provisioned += size,
                Err(error) if error.kind() == ErrorKind::NOT_FOUND => continue,
                // A damaged volume still occupies what it occupies.
                Err(error) => tracing::warn!(volume = name, %error, "a volume cannot be measured"),
            }
            for place in [dir.path.clone(), dir.snapshots()] {
                used += occupied_in(&place)?;
            }
        }
        let root = self.root();
        let system = statvfs(root).map_err(|errno| on_path("cannot ask", root, &errno.into()))?;
        let (total, free) = (system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize);
        let capacity = if self.config.capacity == 0 { total } else { self.config.capacity };
        let available =
            if self.config.capacity == 0 { free } else { free.min(capacity.saturating_sub(used)) };
        Ok(Usage { capacity, used, available, provisioned, reserved: [0; 4] })
    }

    /// How the storage is.
    pub fn health(&self) -> Health {
        let root = self.root();
        let system = match statvfs(root) {
            Ok(system) if layout::volumes(root).is_dir() => system,
            Ok(_) => {
                return Health::failed(
                    "the directory holds no volumes any more: is its file system mounted?",
                );
            }
            Err(errno) => {
                return Health::failed(&format!("the directory cannot be reached: {errno}"));
            }
        };
        if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Health::failed("the file system is read-only");
        }
        match self.usage() {
            Err(error) => Health::failed(&format!("{error:#}")),
            Ok(usage) => {
                let taken = usage.capacity - usage.available.min(usage.capacity);
                if taken > percent_of(usage.capacity, self.config.high_watermark_percent) {
                    return Health::degraded(&format!(
                        "{} of {} bytes are taken, the watermark is {} percent",
                        taken, usage.capacity, self.config.high_watermark_percent
                    ));
                }
                Health::healthy()
            }
        }
    }

    /// Remembers an attachment, so that clones can be taken from it.
    pub fn remember(&self, name: &str, attached: &Arc<Attached>) {
        let mut all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(name.into()).or_default();
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(attached));
    }

    /// Forgets an attachment.
    pub fn forget(&self, name: &str, attached: &Arc<Attached>) {
        let mut all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(name) {
            known.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(attached)));
        }
    }

    /// The attachment of this backend's own that may still use the volume `name`, if there is one.
    pub fn attachment(&self, name: &str) -> Option<Arc<Attached>> {
        let all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut living = all.get(name)?.iter().rev().filter_map(Weak::upgrade);
        living.find(|attached| attached.slot.check().is_ok())
    }

    /// All attachments of this backend's own.
    pub fn attachments(&self) -> Vec<Arc<Attached>> {
        let all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().flatten().filter_map(Weak::upgrade).collect()
    }

    fn making(&self) -> Result<File> {
        let path = layout::makers(self.root());
        let lock = client::open_lock(&path)?;
        let deadline = Instant::now() + fence::PATIENCE;
        client::lock_until(&lock, &path, true, deadline, || {
            Error::new(ErrorKind::TIMED_OUT, "a host that opens this directory does not finish")
                .remedy("wait, or end the host process that hangs or is stopped")
        })?;
        Ok(lock)
    }

    /// Removes what crashes left, unless somebody is making or removing a volume right now.
    fn collect(&self) -> Result<()> {
        let path = layout::makers(self.root());
        let lock = client::open_lock(&path)?;
        let alone = client::try_lock(&lock, FlockOperation::NonBlockingLockExclusive);
        if !alone.map_err(|error| on_path("cannot lock", &path, &error))? {
            return Ok(());
        }
        for entry in entries(&layout::volumes(self.root()))? {
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with(HALF_MADE)) {
                remove_tree(&entry)?;
            }
        }
        for entry in entries(&layout::trash(self.root()))? {
            remove_tree(&entry)?;
        }
        Ok(())
    }
}

fn make_disk(path: &Path, plan: &Plan) -> Result<Option<&'static str>> {
    let file = client::create_new(path)?;
    let (size, preallocation) = (plan.size, plan.record.preallocation);
    match plan.record.format {
        Format::Qcow2 => qcow2::format(&plan.record.name, file, size, preallocation)?,
        Format::Raw => {
            let made = file
                .set_len(size)
                .and_then(|()| client::preallocate(&file, 0, size, preallocation))
                .and_then(|()| file.sync_all());
            made.map_err(|error| on_path("cannot make the volume's file", path, &error))?;
        }
    }
    Ok(None)
}

/// Size of the volume in `file` and bytes that it occupies.
pub(crate) fn measure(file: &File, format: Format) -> std::io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    let size = match format {
        Format::Raw => metadata.len(),
        Format::Qcow2 => qcow2::size_of(file)?,
    };
    Ok((size, client::occupied(&metadata)))
}

fn percent_of(value: u64, percent: u64) -> u64 {
    (u128::from(value) * u128::from(percent) / 100) as u64
}

fn occupied_in(path: &Path) -> Result<u64> {
    let mut used = 0;
    for entry in entries(path)? {
        // A file that has gone meanwhile occupies nothing.
        if let Ok(metadata) = fs::symlink_metadata(&entry)
            && metadata.is_file()
        {
            used += client::occupied(&metadata);
        }
    }
    Ok(used)
}

fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Ok(listed) => listed
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<_>>()
            .map_err(|error| on_path("cannot list the directory", path, &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(on_path("cannot list the directory", path, &error)),
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).map_err(|error| on_path("cannot remove the directory", path, &error))
}

fn probe_reflink(root: &Path) -> Result<bool> {
    let probe = |name: &str| root.join(format!("{HALF_MADE}{name}-{}", std::process::id()));
    let (from, to) = (probe("probe-a"), probe("probe-b"));
    client::remove(&from)?;
    client::remove(&to)?;
    let source = client::create_new(&from)?;
    let target = client::create_new(&to)?;
    let shared =
        client::write_zeros(&source, 0, 4096).and_then(|()| client::reflink(&source, &target));
    client::remove(&from)?;
    client::remove(&to)?;
    Ok(matches!(shared, Ok(true)))
}
