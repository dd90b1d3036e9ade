// SPDX-License-Identifier: Apache-2.0
//! A backend's shares and the volumes on them: making, finding, attaching and removing.
//!
//! A volume exists once its file does. Making one goes: the file, empty, under its name, where nothing may be; its
//! companion; its size. What a crash leaves half made is an empty file, which making the same volume again completes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use driver_api::{
    Error, ErrorKind, Health, OpContext, Result, Stats, Usage, VolumeInfo, VolumeSpec,
};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    companion::{self, Record},
    config::{Config, NamedShare},
    error::{Fault, invalid, not_found},
    formatting,
    mounts::{Mount, Patience, Shown},
    names::{ExtentFile, Files, Format, Layout, extent_file},
    places::{Place, find_on, list_on},
    resize::{check_image_size, check_size},
    share::Offers,
    verified,
    volume::{Able, Attached, IMAGE_OFFERS},
    wishes::Wishes,
};

/// An open backend.
pub(crate) struct Store {
    /// Most bytes of a volume that are written but not durable.
    pub unstable_bytes: u64,
    /// The shares; their number changes while the backend is open.
    mounts: RwLock<Vec<Arc<Mount>>>,
    config: Config,
    pub patience: Patience,
    /// One change of a volume's files at a time.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    attached: Mutex<Vec<std::sync::Weak<Attached>>>,
}

impl Store {
    /// Opens a backend. Its shares are mounted when they are needed.
    pub fn open(config: &Config) -> Result<Self> {
        config.check()?;
        let secs = Duration::from_secs;
        let patience = Patience {
            mount: secs(config.mount_timeout_secs),
            operation: secs(config.operation_timeout_secs),
            idle: secs(config.idle_unmount_secs),
            keep_alive: secs(config.keep_alive_secs),
        };
        let places = config.places()?;
        let mounts = places.into_iter().map(|place| Mount::new(place, patience)).collect();
        Ok(Self {
            unstable_bytes: config.unstable_bytes,
            mounts: RwLock::new(mounts),
            config: config.clone(),
            patience,
            turns: Mutex::default(),
            attached: Mutex::default(),
        })
    }

    /// The mounts there are.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.mounts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When an operation that begins now has to end.
    pub fn until(&self, cx: &OpContext) -> Instant {
        let left = cx.time_left().unwrap_or(self.patience.operation);
        Instant::now() + left.min(self.patience.operation)
    }

    /// Adds a share, if it can be mounted.
    pub async fn add_share(&self, share: &NamedShare, until: Instant) -> Result<Shown> {
        let place = self.config.place(share).map_err(|error| error.with("share", &share.name))?;
        self.free_name(&place.name)?;
        let mount = Mount::new(place, self.patience);
        let limit = until.min(Instant::now() + self.patience.mount);
        let mounted = mount.share(limit).await;
        mounted.map_err(|fault| {
            fault.told("the share cannot be mounted").with("share", mount.place.shown())
        })?;
        let added = {
            let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
            let taken = mounts.iter().any(|other| other.place.name == mount.place.name);
            if !taken {
                mounts.push(Arc::clone(&mount));
            }
            !taken
        };
        if !added {
            mount.unmount(until).await;
            self.free_name(&mount.place.name)?;
        }
        tracing::info!(share = mount.place.name, "added");
        Ok(mount.shown())
    }

    fn free_name(&self, name: &str) -> Result<()> {
        if self.mounts().iter().all(|mount| mount.place.name != name) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is a share of this name")
            .with("share", name)
            .remedy("choose another name, or take that share away first: remove-share"))
    }

    /// Takes a share away that nobody uses. What lies on it stays.
    pub async fn remove_share(&self, name: &str, until: Instant) -> Result<()> {
        let mount = self.mount(name)?;
        {
            let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
            let attached = self.attachments();
            let of_it = |one: &&Arc<Attached>| Arc::ptr_eq(&one.mount, &mount);
            let volumes = attached.iter().filter(of_it).count();
            if volumes > 0 {
                return Err(Error::new(ErrorKind::IN_USE, "volumes of this share are attached")
                    .with("share", name)
                    .with("volumes", volumes)
                    .remedy("detach them first; novastor volume list shows who uses them"));
            }
            mounts.retain(|other| !Arc::ptr_eq(other, &mount));
        }
        mount.unmount(until).await;
        tracing::info!(share = name, "taken away");
        Ok(())
    }

    /// The mount of this name.
    pub fn mount(&self, name: &str) -> Result<Arc<Mount>> {
        let mounts = self.mounts();
        let found = mounts.iter().find(|mount| mount.place.name == name);
        found.cloned().ok_or_else(|| {
            let names: Vec<&str> = mounts.iter().map(|mount| mount.place.name.as_str()).collect();
            invalid("there is no share of this name")
                .with("share", name)
                .remedy(format!("name one of: {}", names.join(", ")))
        })
    }

    /// Waits until nobody else changes the volume's files.
    pub async fn turn(&self, volume: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(volume.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// Looks for a volume on every share.
    pub async fn find(&self, volume: &str, until: Instant) -> Result<Option<Place>> {
        let files = Files::of(volume)?;
        let mounts = self.mounts();
        let mut looking: FuturesUnordered<_> =
            mounts.iter().map(|mount| find_on(mount, volume, &files, until)).collect();
        let (mut found, mut failed): (Option<Place>, _) = (None, None);
        while let Some(looked) = looking.next().await {
            match (looked, &found) {
                (Ok(Some(place)), Some(other)) => {
                    return Err(invalid("two shares have a file for this volume")
                        .with("volume", volume)
                        .with("file", place.mount.place.shown_file(&place.file))
                        .with("other_file", other.mount.place.shown_file(&other.file))
                        .remedy("rename one of the two files on its server"));
                }
                (Ok(Some(place)), None) => found = Some(place),
                (Ok(None), _) => {}
                (Err(error), _) => failed = Some(error),
            }
        }
        match (found, failed) {
            (Some(place), _) => Ok(Some(place)),
            // It may be there.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// The same; `NotFound` if no share has it.
    pub async fn found(&self, volume: &str, until: Instant) -> Result<Place> {
        self.find(volume, until).await?.ok_or_else(|| not_found(volume))
    }

    /// Whether every share keeps a second writer away.
    pub fn is_exclusive(&self) -> bool {
        self.mounts().iter().all(|mount| mount.place.is_exclusive())
    }

    /// What may be done with volumes that name neither format nor layout.
    pub fn may_be_able(&self) -> Able {
        if self.config.format == Format::Qcow2 {
            return Able::whole(IMAGE_OFFERS);
        }
        let offers = self.mounts().iter().fold(Offers::default(), |all, mount| {
            let may = mount.place.may_offer();
            Offers { punch: all.punch || may.punch, map: all.map || may.map }
        });
        match self.config.layout {
            None | Some(Layout::Whole) => Able::whole(offers),
            Some(Layout::Extents) => Able::in_extents(offers),
        }
    }

    /// Creates a volume that reads zeros.
    pub async fn create(&self, spec: &VolumeSpec, until: Instant) -> Result<VolumeInfo> {
        let wishes = Config::wishes(spec)?;
        let name = spec.name.as_str();
        let mount = match &wishes.share {
            Some(share) => self.mount(share)?,
            None => self.mounts().first().cloned().ok_or_else(no_shares)?,
        };
        let may_punch = mount.place.may_offer().punch;
        let (format, extent_size) = self.config.shape(&wishes, may_punch)?;
        let _turn = self.turn(name).await;
        if let Some(place) = self.find(name, until).await? {
            return self.complete(&place, spec, &wishes, until).await;
        }
        let files = Files::of(name)?;
        let told = |what: &'static str| {
            let mount = Arc::clone(&mount);
            move |fault: Fault| fault.told(what).with("share", mount.place.shown())
        };
        let (mounted, _) = mount.share(until).await.map_err(told("the share cannot be mounted"))?;
        let traits = mounted.traits().clone();
        check_size(spec.size, traits.max_file_size)?;
        if format == Format::Qcow2 {
            check_image_size(spec.size)?;
        }
        let latest = ExtentFile { number: spec.size, epoch: u64::MAX, count: u64::MAX };
        let longest = extent_file(name, &"0".repeat(16), latest)?;
        let extents = (extent_size > 0).then_some(&longest);
        for file in [files.made(format), &files.fresh_companion].into_iter().chain(extents) {
            if file.as_str().len() > traits.max_name as usize {
                return Err(invalid("the server takes no file name of that length")
                    .with("file", file)
                    .with("longest", traits.max_name));
            }
        }
        let made = match verified::create(&mount, files.made(format), until).await {
            Ok(found) => found,
            Err(Fault::Exists) => {
                let place = self.found(name, until).await?;
                return self.complete(&place, spec, &wishes, until).await;
            }
            Err(fault) => return Err(told("the file cannot be made")(fault)),
        };
        let file = files.made(format).clone();
        let place = Place::new(mount, files, file, format, made.facts);
        let finished = self.finish(&place, spec, extent_size, until).await;
        if finished.is_err() {
            self.discard(&place, until).await;
        }
        finished
    }

    /// Gives an empty file its companion, and its size or an image.
    async fn finish(
        &self,
        place: &Place,
        spec: &VolumeSpec,
        extent_size: u64,
        until: Instant,
    ) -> Result<VolumeInfo> {
        let Place { mount, files, file, .. } = place;
        let record = Record { extent_size, ..Record::made(spec.size) };
        companion::write(mount, files, &record, until).await?;
        let told = |fault: Fault| {
            fault.told("the volume's size cannot be set").with("file", mount.place.shown_file(file))
        };
        let there = verified::look(mount, file, until).await.map_err(told)?;
        let same = there.is_some_and(|there| there.facts.identity == place.facts.identity);
        match place.format {
            _ if !same => {}
            Format::Raw => verified::set_size(mount, file, spec.size, until).await.map_err(told)?,
            Format::Qcow2 => {
                formatting::format(mount, file, spec.size, until).await.map_err(told)?;
            }
        }
        match self.find(&spec.name, until).await? {
            Some(made)
                if made.facts.identity == place.facts.identity && made.size == Some(spec.size) =>
            {
                Ok(made.info(&spec.name))
            }
            _ => Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                "another host made a volume of this name at the same time",
            )
            .with("volume", &spec.name)
            .remedy("choose another name, or look at that volume")),
        }
    }

    /// Takes a volume away that could not be made. What is left is empty, and completed by the next attempt.
    async fn discard(&self, place: &Place, until: Instant) {
        let until = until.max(Instant::now() + self.patience.mount);
        let Place { mount, files, file, facts, .. } = place;
        let looked = verified::look(mount, file, until).await;
        // Somebody else's file stays, and so does one with content.
        if !matches!(&looked, Ok(Some(found)) if found.facts.identity == facts.identity) {
            return;
        }
        for name in [file, &files.companion, &files.fresh_companion] {
            if let Err(fault) = verified::remove_if_there(mount, name, until).await {
                tracing::warn!(file = %mount.place.shown_file(name), %fault, "a half made volume stays");
                return;
            }
        }
    }

    /// A volume that is there already: the one that is asked for, or another one.
    async fn complete(
        &self,
        place: &Place,
        spec: &VolumeSpec,
        wishes: &Wishes,
        until: Instant,
    ) -> Result<VolumeInfo> {
        let elsewhere = wishes.share.as_ref().is_some_and(|share| *share != place.mount.place.name);
        let may_punch = place.mount.place.may_offer().punch;
        let (format, extent_size) = self.config.shape(wishes, may_punch)?;
        if elsewhere || format != place.format {
            return Err(taken(&spec.name, place));
        }
        let record = companion::read(&place.mount, &place.files, until).await?;
        if record.as_ref().is_some_and(|record| record.extent_size != extent_size) {
            return Err(taken(&spec.name, place));
        }
        let empty = place.is_empty();
        match record {
            // Another volume is about to have this name.
            Some(record) if !record.renamed_from.is_empty() => Err(taken(&spec.name, place)),
            Some(record) if record.admit(&spec.name).is_err() => Err(taken(&spec.name, place)),
            Some(record) if record.made && !empty && place.size == Some(spec.size) => {
                Ok(place.info(&spec.name))
            }
            Some(record) if record.made && empty && record.made_with == spec.size => {
                self.finish(place, spec, extent_size, until).await
            }
            None if empty => self.finish(place, spec, extent_size, until).await,
            _ => Err(taken(&spec.name, place)),
        }
    }

    /// All volumes, by name.
    pub async fn list(&self, until: Instant) -> Result<Vec<VolumeInfo>> {
        let mounts = self.mounts();
        let listing = mounts.iter().map(|mount| list_on(mount, until));
        let mut all = futures_util::future::try_join_all(listing).await?.concat();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// One volume.
    pub async fn show(&self, volume: &str, until: Instant) -> Result<VolumeInfo> {
        Ok(self.found(volume, until).await?.info(volume))
    }

    /// Space on the servers.
    pub async fn usage(&self, until: Instant) -> Result<Usage> {
        let volumes = self.list(until).await?;
        let mut usage = Usage {
            used: volumes.iter().map(|volume| volume.used).sum(),
            provisioned: volumes.iter().map(|volume| volume.size).sum(),
            ..Usage::default()
        };
        let mut counted: Vec<(String, String)> = Vec::new();
        for mount in self.mounts() {
            let space = mount.space(until).await.map_err(|fault| {
                fault
                    .told("the server cannot be asked for space")
                    .with("share", mount.place.shown())
            })?;
            // Two directories of one share have its space once.
            let share = (mount.place.server.clone(), mount.place.share.clone());
            if !counted.contains(&share) {
                usage.capacity += space.total;
                usage.available += space.available;
                counted.push(share);
            }
        }
        Ok(usage)
    }

    /// How the servers are.
    pub async fn health(&self, until: Instant) -> Health {
        let until = until.min(Instant::now() + self.patience.mount);
        let mounts = self.mounts();
        let asked = mounts.iter().map(|mount| async move {
            let asked = mount.space(until).await;
            asked.err().map(|fault| {
                let error =
                    fault.told("the share does not answer").with("share", mount.place.shown());
                format!("{error:#}")
            })
        });
        let failed: Vec<String> =
            futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        match failed.len() {
            0 => Health::healthy(),
            some if some < mounts.len() => Health::degraded(&failed.join("; ")),
            _ => Health::failed(&failed.join("; ")),
        }
    }

    /// The backend's figures.
    pub fn stats(&self) -> Stats {
        let stats = Stats::new().gauge("attached_volumes", self.attachments().len() as f64);
        self.mounts().iter().fold(stats, |stats, mount| mount.stats(stats))
    }

    /// Remembers an attachment.
    pub fn remember(&self, attached: &Arc<Attached>) {
        let mut all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(attached));
    }

    /// The attachments of this backend that are open.
    pub fn attachments(&self) -> Vec<Arc<Attached>> {
        let all = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter_map(std::sync::Weak::upgrade)
            .filter(|one| one.standing.is_open())
            .collect()
    }

    /// Closes the backend: nobody has a volume of it.
    pub async fn close(&self, until: Instant) -> Result<()> {
        if let Some(attached) = self.attachments().first() {
            return Err(Error::new(ErrorKind::IN_USE, "a volume is attached")
                .with("volume", &attached.name)
                .remedy("detach it first"));
        }
        for mount in self.mounts() {
            mount.unmount(until.min(Instant::now() + self.patience.mount)).await;
        }
        Ok(())
    }
}

pub(crate) fn taken(volume: &str, place: &Place) -> Error {
    Error::new(
        ErrorKind::ALREADY_EXISTS,
        "another volume, or an image that was there before, has this name",
    )
    .with("volume", volume)
    .with("size", place.size.unwrap_or(0))
    .with("file", place.mount.place.shown_file(&place.file))
    .remedy("choose another name, delete that volume, or adopt it: novastor volume adopt")
}

fn no_shares() -> Error {
    Error::new(ErrorKind::UNAVAILABLE, "the backend has no share")
        .remedy("add one to `shares` in the configuration")
}
