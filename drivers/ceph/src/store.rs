// SPDX-License-Identifier: Apache-2.0
//! A backend's images: making, finding and removing them, and how much space they take.
//!
//! Everything here may block, and runs on threads that may.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use driver_api::{Attach, AttachMode, Error, ErrorKind, Result, VolumeInfo, VolumeSpec, ext};

use crate::{
    attached::{Attached, Held, Opened},
    cluster::{Cluster, Connection},
    config::Config,
    ending,
    error::{internal, invalid, not_found},
    ffi, groups, holders,
    image::{self, Image, Options},
    layout::{self, Layout},
    mirrored,
    perf::{Perf, Sockets},
    protection::protected,
    trash,
    watch::Watch,
};

/// Where a volume came from, in the image's metadata.
const ORIGIN: &str = "novastor.origin";
/// Begins the names of images that are not yet what they shall be.
const HALF_MADE: &str = ".novastor-";
/// Begins the names of snapshots that a clone is made from.
const FOR_CLONE: &str = ".novastor-clone-";

/// How long closing waits for connections to end.
const ENDING: Duration = Duration::from_secs(10);

/// An open backend.
pub(crate) struct Store {
    pub cluster: Arc<Cluster>,
    pub watch: Watch,
    /// Where librbd tells its counters, if they are wanted.
    pub sockets: Option<Arc<Sockets>>,
    attached: Mutex<HashMap<String, Weak<Attached>>>,
    /// Writers and readers.
    all_attached: Mutex<Vec<Weak<Attached>>>,
    made: AtomicU64,
    /// Volumes that are being deleted, each by one: another's look at the image would keep it from being removed.
    deleting: Mutex<HashSet<String>>,
    deleted: Condvar,
}

impl Store {
    /// Connects to the cluster.
    pub fn open(config: Config) -> Result<Self> {
        let cluster = Cluster::open(config)?;
        let data_pool = &cluster.config.data_pool;
        if !data_pool.is_empty() {
            cluster.with(|connection| connection.pool_id(data_pool)).map_err(|error| {
                error
                    .with("option", "data_pool")
                    .remedy("correct `data_pool`, or make the pool: ceph osd pool create")
            })?;
        }
        let sockets = match cluster.config.librbd_counters {
            true => Some(Sockets::new()?),
            false => None,
        };
        Ok(Self {
            cluster: Arc::new(cluster),
            sockets,
            watch: Watch::default(),
            attached: Mutex::default(),
            all_attached: Mutex::default(),
            made: AtomicU64::new(0),
            deleting: Mutex::default(),
            deleted: Condvar::new(),
        })
    }

    fn config(&self) -> &Config {
        &self.cluster.config
    }

    /// The volumes that are attached through this backend.
    pub fn attachments(&self) -> Vec<Arc<Attached>> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.retain(|_, volume| volume.strong_count() > 0);
        let living = attached.values().filter_map(Weak::upgrade);
        living.filter(|volume| !volume.is_closed() && !volume.is_fenced()).collect()
    }

    /// The volume of this name that is attached for writing through this backend, also if it was taken over since.
    pub fn attachment(&self, name: &str) -> Option<Arc<Attached>> {
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let found = attached.get(name).and_then(Weak::upgrade);
        found.filter(|volume| !volume.is_closed())
    }

    fn check_size(size: u64, layout: &Layout) -> Result<()> {
        let most = layout::max_size(layout.object_size);
        if (1..=most).contains(&size) {
            return Ok(());
        }
        Err(invalid("a volume cannot have this size")
            .with("size", size)
            .remedy(format!("use 1 to {most} bytes; a larger `object_size` allows more")))
    }

    fn options(connection: &Connection, layout: &Layout) -> Result<Options> {
        let order = u64::from(layout.object_size.trailing_zeros());
        let mut options = Options::new()
            .number(ffi::OPTION_FEATURES, layout.features)?
            .number(ffi::OPTION_ORDER, order)?;
        if layout.is_striped() {
            options = options
                .number(ffi::OPTION_STRIPE_UNIT, layout.stripe_unit)?
                .number(ffi::OPTION_STRIPE_COUNT, layout.stripe_count)?;
        }
        if !layout.data_pool.is_empty() {
            connection.pool_id(&layout.data_pool)?;
            options = options.text(ffi::OPTION_DATA_POOL, &layout.data_pool)?;
        }
        Ok(options)
    }

    /// Ends the backend's connection, and waits for those of its volumes that are ending.
    pub fn close(&self) -> Result<()> {
        if let Some(volume) = self.attachments().first() {
            return Err(Error::new(ErrorKind::IN_USE, "a volume is attached")
                .with("volume", &volume.name)
                .remedy("detach it first"));
        }
        self.cluster.close();
        if !ending::wait(ENDING) {
            tracing::warn!("connections are still ending, {ENDING:?} after the backend was closed");
        }
        if let Some(sockets) = &self.sockets {
            sockets.remove();
        }
        Ok(())
    }

    /// Asks librbd for its counters, of all volumes that are attached.
    pub fn ask_librbd(&self) {
        for volume in self.all_attached() {
            volume.ask_librbd();
        }
    }

    /// All volumes that are attached through this backend, by writers and by readers.
    pub fn all_attached(&self) -> Vec<Arc<Attached>> {
        let all = self.all_attached.lock().unwrap_or_else(PoisonError::into_inner);
        let living = all.iter().filter_map(Weak::upgrade);
        living.filter(|volume| !volume.is_closed()).collect()
    }

    /// Creates a volume that reads zeros.
    pub fn create(&self, spec: &VolumeSpec) -> Result<VolumeInfo> {
        let layout = Layout::of_volume(self.config(), spec)?;
        Self::check_size(spec.size, &layout)?;
        self.cluster.with(|connection| {
            let options = Self::options(connection, &layout);
            let made = options.and_then(|one| one.create(connection, &spec.name, spec.size));
            let made = made.map_err(|error| refused(error, &spec.name, &layout))?;
            let info = show(connection, &spec.name)?;
            if made {
                return Ok(info);
            }
            let laid_out = image::with(connection, &spec.name, false, |image| {
                has_layout(connection, image, &layout)
            })?;
            if info.size != spec.size || has_origin(&info) || !laid_out {
                return Err(another(&info));
            }
            Ok(info)
        })
    }

    /// Deletes a volume and its snapshots, or moves it with them into the trash.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.refuse_attached(name)?;
        let (_alone, keep) = (self.alone(name), Duration::from_secs(self.config().trash_secs));
        self.cluster.with(|connection| {
            let whole = image::with(connection, name, true, |image| {
                if let Some(holder) = holders::living(connection, image)? {
                    return Err(holders::in_use(name, &holder));
                }
                trash::refuse_parent(image, name)?;
                if let Some(group) = groups::group_of(image)? {
                    return Err(trash::in_group(name, &group));
                }
                let snapshots = image.snapshots()?;
                for snapshot in &snapshots {
                    if image.is_protected(&snapshot.name)? {
                        return Err(protected(&snapshot.name).with("volume", name));
                    }
                }
                if !keep.is_zero() {
                    return Ok(());
                }
                for snapshot in snapshots {
                    image.remove_snapshot(&snapshot.name)?;
                }
                Ok(())
            });
            let gone = whole.and_then(|()| match keep.is_zero() {
                true => image::remove(connection, name),
                false => trash::move_there(connection, name, keep),
            });
            gone.map_err(|error| {
                if error.kind() == ErrorKind::NOT_FOUND { not_found("volume", name) } else { error }
            })
        })
    }

    /// Refuses what needs a volume that is not attached.
    pub fn refuse_attached(&self, name: &str) -> Result<()> {
        match self.attachments().iter().find(|volume| volume.name == name) {
            None => Ok(()),
            Some(attached) => {
                Err(Error::new(ErrorKind::IN_USE, "the volume is attached by this host")
                    .with("volume", &attached.name)
                    .remedy("detach it first"))
            }
        }
    }

    /// Waits until nobody else deletes or renames this volume.
    pub fn alone(&self, name: &str) -> Deleting<'_> {
        let deleting = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let others = |names: &mut HashSet<String>| names.contains(name);
        let waited = self.deleted.wait_while(deleting, others);
        waited.unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Deleting(self, name.to_owned())
    }

    /// All volumes, by name.
    pub fn list(&self) -> Result<Vec<VolumeInfo>> {
        self.cluster.with(|connection| {
            let entries = image::entries(connection)?;
            let mut names: Vec<_> = entries.into_iter().map(|(_, name)| name).collect();
            names.retain(|name| !name.starts_with('.'));
            names.sort();
            let mut volumes = Vec::with_capacity(names.len());
            for name in names {
                match show(connection, &name) {
                    Ok(info) => volumes.push(info),
                    // It was deleted meanwhile.
                    Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(volumes)
        })
    }

    /// One volume.
    pub fn show(&self, name: &str) -> Result<VolumeInfo> {
        self.cluster.with(|connection| mirrored::add_facts(connection, show(connection, name)?))
    }

    /// Attaches a volume, over a connection of its own.
    pub fn attach(&self, name: &str, attach: &Attach) -> Result<Arc<Attached>> {
        if ![AttachMode::READ_ONLY, AttachMode::EXCLUSIVE].contains(&attach.mode) {
            return Err(ext::unsupported("this attach mode"));
        }
        let writer = attach.mode == AttachMode::EXCLUSIVE;
        let perf = self.sockets.as_ref().map(Sockets::another).transpose()?;
        let connection = self.cluster.another(perf.as_ref().map(Perf::path))?;
        // A reader opens it for writing as well: only so the cluster notices when it dies. It never writes.
        let opened = Opened::new(Image::open(&connection, name, true)?, &connection);
        let image = opened.image();
        if image.features()? & ffi::FEATURE_EXCLUSIVE_LOCK == 0 {
            return Err(Error::new(
                ErrorKind::UNSUPPORTED,
                "the image lacks the feature exclusive-lock, which keeps other writers away",
            )
            .with("volume", name)
            .remedy(format!("rbd feature enable {}/{name} exclusive-lock", self.config().pool)));
        }
        let entry = holders::enter(&connection, &image, name, attach)?;
        let size = match image.size() {
            Ok(size) => size,
            Err(error) => {
                entry.remove(&connection)?;
                return Err(error);
            }
        };
        let (image, held) = (opened.keep(), Held { connection, entry });
        let attached =
            Arc::new(Attached::new((name, writer), size, image, held, perf, &self.cluster));
        {
            let mut all = self.all_attached.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|volume| volume.strong_count() > 0);
            all.push(Arc::downgrade(&attached));
        }
        let mut all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        if writer {
            all.insert(name.to_owned(), Arc::downgrade(&attached));
        }
        Ok(attached)
    }

    /// Makes a volume with the content of another, or of its snapshot: a clone that shares objects with it.
    pub fn clone_volume(
        &self,
        source: &str,
        snapshot: &str,
        target: &VolumeSpec,
    ) -> Result<VolumeInfo> {
        let layout = Layout::of_volume(self.config(), target)?;
        if target.size != 0 {
            Self::check_size(target.size, &layout)?;
        }
        let origin =
            if snapshot.is_empty() { source.to_owned() } else { format!("{source}@{snapshot}") };
        let attached = self.attachment(source);
        self.cluster.with(|connection| {
            image::with(connection, source, true, |image| {
                let from = if snapshot.is_empty() {
                    image.size()?
                } else {
                    let all = image.snapshots()?;
                    let found = all.iter().find(|one| one.name == snapshot);
                    found.ok_or_else(|| not_found("snapshot", snapshot))?.size
                };
                if target.size != 0 && target.size < from {
                    return Err(invalid("a clone cannot be smaller than its source")
                        .with("size", target.size)
                        .with("source", from)
                        .remedy("clone it whole, then shrink the clone"));
                }
                match show(connection, &target.name) {
                    Ok(info) => return same_clone(info, &origin, target.size),
                    Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
                    Err(error) => return Err(error),
                }
                let passing = format!("{FOR_CLONE}{}", target.name);
                if !snapshot.is_empty() {
                    let parent = (source, snapshot);
                    return self.make_clone(connection, parent, &origin, target, &layout);
                }
                // One that a crash left behind is of another moment.
                if image.snapshots()?.iter().any(|one| one.name == passing) {
                    image.remove_snapshot(&passing)?;
                }
                {
                    let _still = attached.as_ref().map(|attached| attached.flatten.pause());
                    image.create_snapshot(&passing)?;
                }
                let parent = (source, passing.as_str());
                let made = self.make_clone(connection, parent, &origin, target, &layout);
                // The clone keeps what it needs of it.
                let removed = image.remove_snapshot(&passing);
                made.and_then(|info| removed.map(|()| info))
            })
        })
    }

    /// Makes the clone under a passing name, so that a crash leaves a whole one or none.
    fn make_clone(
        &self,
        connection: &Connection,
        parent: (&str, &str),
        origin: &str,
        target: &VolumeSpec,
        layout: &Layout,
    ) -> Result<VolumeInfo> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let passing = format!("{HALF_MADE}{}-{number}-{}", std::process::id(), target.name);
        let options = Self::options(connection, layout)
            .and_then(|options| options.number(ffi::OPTION_CLONE_FORMAT, 2))
            .map_err(|error| refused(error, &target.name, layout))?;
        let made = options.clone_of(connection, parent, &passing);
        if !made.map_err(|error| refused(error, &target.name, layout))? {
            image::remove(connection, &passing)?;
            return Err(internal("a clone of an earlier life was in the way: try again"));
        }
        let filled = image::with(connection, &passing, true, |image| {
            if target.size > image.size()? {
                image.resize(target.size, false)?;
            }
            image.set_metadata(ORIGIN, origin)
        });
        let named = filled.and_then(|()| image::rename(connection, &passing, &target.name));
        if !matches!(named, Ok(true)) {
            image::remove(connection, &passing)?;
        }
        let info = named.and_then(|_| show(connection, &target.name))?;
        same_clone(info, origin, target.size)
    }
}

/// The right to delete or rename a volume of this name.
pub(crate) struct Deleting<'a>(&'a Store, String);

impl Drop for Deleting<'_> {
    fn drop(&mut self) {
        self.0.deleting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
        self.0.deleted.notify_all();
    }
}

/// Why an image cannot be made, where librbd says no more than that something does not fit.
fn refused(error: Error, volume: &str, layout: &Layout) -> Error {
    let error = error.with("volume", volume);
    if error.kind() != ErrorKind::INVALID_ARGUMENT || layout.data_pool.is_empty() {
        return error;
    }
    error.with("data_pool", &layout.data_pool).remedy(format!(
        "an erasure-coded data pool needs: ceph osd pool set {} allow_ec_overwrites true",
        layout.data_pool
    ))
}

/// Whether an image is laid out like this.
fn has_layout(connection: &Connection, image: &Image, layout: &Layout) -> Result<bool> {
    let pool = match layout.data_pool.as_str() {
        "" => connection.own_pool_id(),
        name => connection.pool_id(name)?,
    };
    Ok(image.object_size()? == layout.object_size
        && image.stripes()? == (layout.stripe_unit, layout.stripe_count)
        && image.data_pool() == pool
        && Layout::features_of(image.features()?) == layout.features)
}

pub(crate) fn show(connection: &Connection, name: &str) -> Result<VolumeInfo> {
    if name.starts_with('.') {
        return Err(not_found("volume", name));
    }
    image::with(connection, name, false, |image| {
        let (unit, count) = image.stripes()?;
        let object_size = image.object_size()?;
        let mut info = VolumeInfo::new(name, image.size()?, image.used()?.unwrap_or(0))
            .label("image_id", &image.id()?)
            .label("object_size", &object_size.to_string())
            .label("features", &layout::feature_names(image.features()?));
        if image.data_pool() != connection.own_pool_id() {
            info = info.label("data_pool", &connection.pool_name(image.data_pool())?);
        }
        if count > 1 || unit != object_size {
            info = info.label("stripes", &format!("{count} of {unit}"));
        }
        if let Some(origin) = image.metadata(ORIGIN)? {
            info = info.label("origin", &origin);
        }
        if let Some(parent) = image.parent()? {
            info = info.label("needs", &parent);
        }
        Ok(info)
    })
}

fn has_origin(info: &VolumeInfo) -> bool {
    info.labels.iter().any(|label| label.0 == "origin")
}

fn another(info: &VolumeInfo) -> Error {
    Error::new(ErrorKind::ALREADY_EXISTS, "another volume of this name exists")
        .with("volume", &info.name)
        .with("size", info.size)
        .remedy("choose another name, or delete that volume; its size and options say which it is (novastor volume show)")
}

/// The clone that was asked for, if that is what it is.
fn same_clone(info: VolumeInfo, origin: &str, size: u64) -> Result<VolumeInfo> {
    let same = info.labels.iter().any(|label| label.0 == "origin" && label.1 == origin);
    if same && (size == 0 || size == info.size) { Ok(info) } else { Err(another(&info)) }
}
