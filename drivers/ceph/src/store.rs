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
};

use driver_api::{
    Attach, AttachMode, Error, ErrorKind, Health, Result, Usage, VolumeInfo, VolumeSpec, ext,
};

use crate::{
    attached::{Attached, Opened},
    cluster::{Cluster, Connection},
    config::Config,
    error::{internal, invalid, not_found},
    ffi, holders,
    image::{self, Image, Options},
    protection::protected,
};

/// Where a volume came from, in the image's metadata.
const ORIGIN: &str = "novastor.origin";
/// Begins the names of images that are not yet what they shall be.
const HALF_MADE: &str = ".novastor-";
/// Begins the names of snapshots that a clone is made from.
const FOR_CLONE: &str = ".novastor-clone-";

/// An open backend.
pub(crate) struct Store {
    pub cluster: Cluster,
    attached: Mutex<HashMap<String, Weak<Attached>>>,
    made: AtomicU64,
    /// Volumes that are being deleted, each by one: another's look at the image would keep it from being removed.
    deleting: Mutex<HashSet<String>>,
    deleted: Condvar,
}

impl Store {
    /// Connects to the cluster.
    pub fn open(config: Config) -> Result<Self> {
        let cluster = Cluster::open(config)?;
        Ok(Self {
            cluster,
            attached: Mutex::default(),
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

    fn check_size(&self, size: u64) -> Result<()> {
        let most = self.config().max_volume_size();
        if (1..=most).contains(&size) {
            return Ok(());
        }
        Err(invalid("a volume cannot have this size")
            .with("size", size)
            .remedy(format!("use 1 to {most} bytes; a larger `object_size` allows more")))
    }

    fn options(&self) -> Result<Options> {
        let config = self.config();
        let order = u64::from(config.object_size.trailing_zeros());
        let mut options = Options::new()
            .number(ffi::OPTION_FEATURES, config.feature_bits()?)?
            .number(ffi::OPTION_ORDER, order)?;
        if config.stripe_unit != 0 {
            options = options
                .number(ffi::OPTION_STRIPE_UNIT, config.stripe_unit)?
                .number(ffi::OPTION_STRIPE_COUNT, config.stripe_count)?;
        }
        if !config.data_pool.is_empty() {
            options = options.text(ffi::OPTION_DATA_POOL, &config.data_pool)?;
        }
        Ok(options)
    }

    /// Creates a volume that reads zeros.
    pub fn create(&self, spec: &VolumeSpec) -> Result<VolumeInfo> {
        refuse_options(spec)?;
        self.check_size(spec.size)?;
        self.cluster.with(|connection| {
            let made = self.options()?.create(connection, &spec.name, spec.size);
            let made = made.map_err(|error| error.with("volume", &spec.name))?;
            let info = show(connection, &spec.name)?;
            if !made && (info.size != spec.size || has_origin(&info)) {
                return Err(another(&info));
            }
            Ok(info)
        })
    }

    /// Deletes a volume and its snapshots.
    pub fn delete(&self, name: &str) -> Result<()> {
        self.refuse_attached(name)?;
        let _alone = self.alone(name);
        self.cluster.with(|connection| {
            let whole = image::with(connection, name, true, |image| {
                if let Some(holder) = holders::living(connection, image)? {
                    return Err(holders::in_use(name, &holder));
                }
                if let Some(child) = image.children()?.first() {
                    return Err(Error::new(ErrorKind::IN_USE, "a clone needs the volume")
                        .with("volume", name)
                        .with("clone", child)
                        .remedy(format!(
                            "delete the clone first, or: novastor volume flatten {child}"
                        )));
                }
                let snapshots = image.snapshots()?;
                for snapshot in &snapshots {
                    if image.is_protected(&snapshot.name)? {
                        return Err(protected(&snapshot.name).with("volume", name));
                    }
                }
                for snapshot in snapshots {
                    image.remove_snapshot(&snapshot.name)?;
                }
                Ok(())
            });
            whole.and_then(|()| image::remove(connection, name)).map_err(|error| {
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
        self.cluster.with(|connection| show(connection, name))
    }

    /// Attaches a volume, over a connection of its own.
    pub fn attach(&self, name: &str, attach: &Attach) -> Result<Arc<Attached>> {
        if ![AttachMode::READ_ONLY, AttachMode::EXCLUSIVE].contains(&attach.mode) {
            return Err(ext::unsupported("this attach mode"));
        }
        let writer = attach.mode == AttachMode::EXCLUSIVE;
        let connection = Connection::open(self.config())?;
        // A reader opens it for writing as well: only so the cluster notices when it dies. It never writes.
        let opened = Opened::new(Image::open(&connection, name, true)?);
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
        let attached = Attached::new(name, writer, size, opened.keep(), connection, entry);
        let attached = Arc::new(attached);
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
        refuse_options(target)?;
        if target.size != 0 {
            self.check_size(target.size)?;
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
                    return self.make_clone(connection, (source, snapshot), &origin, target);
                }
                // One that a crash left behind is of another moment.
                if image.snapshots()?.iter().any(|one| one.name == passing) {
                    image.remove_snapshot(&passing)?;
                }
                {
                    let _still = attached.as_ref().map(|attached| attached.flatten.pause());
                    image.create_snapshot(&passing)?;
                }
                let made = self.make_clone(connection, (source, &passing), &origin, target);
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
    ) -> Result<VolumeInfo> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let passing = format!("{HALF_MADE}{}-{number}-{}", std::process::id(), target.name);
        let options = self.options()?.number(ffi::OPTION_CLONE_FORMAT, 2)?;
        if !options.clone_of(connection, parent, &passing)? {
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

    /// Space in the pool of the data.
    pub fn usage(&self) -> Result<Usage> {
        let provisioned = self.list()?.iter().map(|volume| volume.size).sum();
        let config = self.config();
        let pool = if config.data_pool.is_empty() { &config.pool } else { &config.data_pool };
        self.cluster.with(|connection| {
            let answer = connection.ask_monitors("df")?;
            let pools = answer["pools"].as_array().map(Vec::as_slice).unwrap_or_default();
            let Some(found) = pools.iter().find(|one| one["name"] == pool.as_str()) else {
                return Err(
                    internal("the monitors do not know how full the pool is").with("pool", pool)
                );
            };
            let figure = |name: &str| {
                found["stats"][name].as_u64().ok_or_else(|| {
                    internal(format!("the monitors do not tell {name} of the pool"))
                        .with("pool", pool)
                })
            };
            let (used, available) = (figure("stored")?, figure("max_avail")?);
            Ok(Usage { capacity: used + available, used, available, provisioned, reserved: [0; 4] })
        })
    }

    /// What the monitors say of the cluster.
    pub fn health(&self) -> Result<Health> {
        let asked = self.cluster.with(|connection| connection.ask_monitors("health"));
        let (state, why) = self.cluster.state();
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                return Ok(Health::failed(&format!("the connection is {state}: {error:#} {why}")));
            }
        };
        if answer["status"] == "HEALTH_OK" {
            return Ok(Health::healthy());
        }
        let checks = answer["checks"].as_object().into_iter().flatten();
        let texts: Vec<_> = checks
            .map(|(name, check)| {
                let text = check["summary"]["message"].as_str().unwrap_or_default();
                format!("{name}: {text}")
            })
            .collect();
        let status = answer["status"].as_str().unwrap_or("no status");
        Ok(Health::degraded(&format!("the cluster says {status} ({})", texts.join("; "))))
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

fn refuse_options(spec: &VolumeSpec) -> Result<()> {
    match spec.options.first() {
        None => Ok(()),
        Some(option) => Err(invalid(format!("the volume option `{}` is unknown", option.0))
            .with("volume", &spec.name)
            .remedy("volumes of this driver have no options of their own")),
    }
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
            .label("object_size", &object_size.to_string());
        if count > 1 {
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
        .remedy("choose another name, or delete that volume")
}

/// The clone that was asked for, if that is what it is.
fn same_clone(info: VolumeInfo, origin: &str, size: u64) -> Result<VolumeInfo> {
    let same = info.labels.iter().any(|label| label.0 == "origin" && label.1 == origin);
    if same && (size == 0 || size == info.size) { Ok(info) } else { Err(another(&info)) }
}
