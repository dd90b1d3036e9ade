// SPDX-License-Identifier: Apache-2.0
//! Create, adopt and delete.
//!
//! ```text
//!            save             backend created it, job filled it
//!   (none) --------> creating ---------------------------------> available
//!      ^                | refused, or found after a crash            | save
//!      +----------------+<-------------- deleting <------------------+
//! ```
//! A record is written before the driver is called, and only after the backend said that it has no volume of the name:
//! so what a record in `creating` points to is always ours to remove.

use driver_api::{Abilities, Error, ErrorKind, Result, VolumeInfo, VolumeSpec};

use super::{
    backends::{OpenBackend, control},
    lending,
    record::{AttachState, VolumeRecord, VolumeState, unix_now},
    room::Stored,
    service::{NewVolume, Volumes},
};
use crate::config::validate_name;

/// A volume that a backend has and the state does not know.
#[derive(Clone, Debug)]
pub struct Unmanaged {
    /// The backend.
    pub backend: String,
    /// What it says of the volume.
    pub info: VolumeInfo,
}

/// Whether a failed mutation certainly changed nothing.
pub(super) fn changed_nothing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NOT_FOUND
            | ErrorKind::ALREADY_EXISTS
            | ErrorKind::IN_USE
            | ErrorKind::INVALID_ARGUMENT
            | ErrorKind::OUT_OF_RANGE
            | ErrorKind::NO_SPACE
            | ErrorKind::PERMISSION_DENIED
            | ErrorKind::UNAUTHENTICATED
            | ErrorKind::UNSUPPORTED
    )
}

impl Volumes {
    /// Creates a volume that reads zeros. Repeated with the same wishes it gives the same answer.
    pub async fn create(&self, new: NewVolume) -> Result<Stored<VolumeRecord>> {
        let backend = self.check_new(&new)?;
        let _turn = self.turn(&new.name, "create").await?;
        let mut stored = match self.0.records.get(&new.name).await? {
            Some(existing) => match self.same_volume(existing, &new, &backend.name)? {
                stored if stored.record.state == VolumeState::Available => return Ok(stored),
                stored => stored,
            },
            None => self.intend(&new, &backend, None).await?,
        };
        self.make(&mut stored, &backend).await?;
        stored.record.state = VolumeState::Available;
        stored.record.note = None;
        self.0.records.save(&mut stored).await?;
        Ok(stored)
    }

    /// Creates a volume that stays `creating` until its job filled it; its content is made by `fill`.
    pub(crate) async fn begin_filling(&self, new: &NewVolume, job: u64) -> Result<()> {
        let backend = self.check_new(new)?;
        let _turn = self.turn(&new.name, "create").await?;
        let mut stored = self.intend(new, &backend, Some(job)).await?;
        self.make(&mut stored, &backend).await?;
        self.0.records.save(&mut stored).await
    }

    /// Ends [`Volumes::begin_filling`]: the volume is whole, or goes away again.
    pub(crate) async fn end_filling(&self, name: &str, whole: bool) -> Result<()> {
        let _turn = self.turn(name, "create").await?;
        let mut stored = self.record(name).await?;
        if !whole {
            return self.discard_unfinished(&mut stored).await;
        }
        stored.record.job = None;
        stored.record.state = VolumeState::Available;
        self.0.records.save(&mut stored).await
    }

    pub(super) fn check_new(&self, new: &NewVolume) -> Result<std::sync::Arc<OpenBackend>> {
        validate_name("volume", &new.name)?;
        let backend = self.0.backends.choose(new.backend.as_deref())?;
        self.refuse_without_volumes(&backend, "create")?;
        let capabilities = backend.note("create", backend.handle().capabilities())?;
        let invalid = |why: String, remedy: String| {
            Error::new(ErrorKind::INVALID_ARGUMENT, why).during("create").remedy(remedy)
        };
        if new.size == 0 || new.size > capabilities.max_volume_size {
            let most = capabilities.max_volume_size;
            let why = format!("a size of {} bytes is outside 1 to {most} bytes", new.size);
            return Err(invalid(why, "choose another --size".to_owned()));
        }
        let block = u64::from(capabilities.min_block.max(1));
        if !new.size.is_multiple_of(block) {
            let why = format!("the size is not a multiple of the backend's block, {block} bytes");
            let next = new.size.next_multiple_of(block);
            return Err(invalid(why, format!("use --size {next}")));
        }
        let known = &backend.opened.volume_options;
        if let Some(key) = new.options.keys().find(|key| !known.iter().any(|o| o.name == **key)) {
            let names: Vec<&str> = known.iter().map(|option| option.name.as_str()).collect();
            let why = format!("volumes of backend `{}` have no option `{key}`", backend.name);
            return Err(invalid(why, format!("options there are: {}", names.join(", "))));
        }
        Ok(backend)
    }

    fn same_volume(
        &self,
        existing: Stored<VolumeRecord>,
        new: &NewVolume,
        backend: &str,
    ) -> Result<Stored<VolumeRecord>> {
        let record = &existing.record;
        let same = record.backend == backend
            && record.size == new.size
            && record.options == new.options
            && record.job.is_none();
        if same && record.state != VolumeState::Deleting {
            return Ok(existing);
        }
        Err(exists(&new.name))
    }

    /// Records the intent, after making sure that the backend has nothing of this name.
    pub(super) async fn intend(
        &self,
        new: &NewVolume,
        backend: &OpenBackend,
        job: Option<u64>,
    ) -> Result<Stored<VolumeRecord>> {
        if self.0.records.get(&new.name).await?.is_some() {
            return Err(exists(&new.name));
        }
        self.refuse_lent(&backend.name, &new.name).await?;
        match backend.call("create", backend.handle().show(&control(), &new.name)).await {
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
            Err(error) => return Err(error),
            Ok(_) => {
                if let Some(other) = self.managed_as(&backend.name, &new.name).await? {
                    let why = format!(
                        "backend `{}` calls volume `{other}` of this host `{}`",
                        backend.name, new.name
                    );
                    return Err(Error::new(ErrorKind::ALREADY_EXISTS, why)
                        .remedy("choose another name, or another --backend"));
                }
                let why = format!(
                    "backend `{}` has a volume `{}` that this host does not manage",
                    backend.name, new.name
                );
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, why).remedy(format!(
                    "novastor volume adopt {} --backend {}",
                    new.name, backend.name
                )));
            }
        }
        let record = VolumeRecord {
            backend: backend.name.clone(),
            inner_name: new.name.clone(),
            size: new.size,
            created_unix_secs: unix_now(),
            labels: new.labels.clone(),
            options: new.options.clone(),
            state: VolumeState::Creating,
            epoch: 0,
            attach: AttachState::Detached,
            holds: Default::default(),
            job,
            pending: None,
            renaming: None,
            taking: None,
            note: None,
            other: Default::default(),
        };
        self.0.records.create(&new.name, record).await?.ok_or_else(|| exists(&new.name))
    }

    async fn make(&self, stored: &mut Stored<VolumeRecord>, backend: &OpenBackend) -> Result<()> {
        let mut spec = VolumeSpec::new(&stored.record.inner_name, stored.record.size);
        for (key, value) in &stored.record.options {
            spec = spec.option(key, value);
        }
        let made = backend.call("create", backend.handle().create(&control(), spec)).await;
        let info = self.settle_creation(stored, made).await?;
        stored.record.size = info.size;
        Ok(())
    }

    /// Takes the intent back where the backend certainly did nothing; otherwise says that the outcome is unknown.
    pub(super) async fn settle_creation<T>(
        &self,
        stored: &mut Stored<VolumeRecord>,
        made: Result<T>,
    ) -> Result<T> {
        let error = match made {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        if changed_nothing(error.kind()) {
            self.0.records.remove(stored).await?;
            return Err(error);
        }
        stored.record.note = Some(format!("whether it was created is unknown: {error}"));
        self.0.records.save(stored).await?;
        Err(error.remedy(format!(
            "whether it was created is unknown; repeat the command, or: novastor volume delete {}",
            stored.name
        )))
    }

    /// Removes a volume whose creation did not end, from the backend and from the state.
    pub(super) async fn discard_unfinished(&self, stored: &mut Stored<VolumeRecord>) -> Result<()> {
        let backend = self.backend_of(stored)?;
        let name = &stored.record.inner_name;
        match backend.call("delete", backend.handle().delete(&control(), name)).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => {}
            Err(error) => {
                stored.record.job = None;
                stored.record.note = Some(format!("its unfinished remains are left: {error}"));
                self.0.records.save(stored).await?;
                return Err(error.remedy(format!("novastor volume delete {}", stored.name)));
            }
        }
        self.0.records.remove(stored).await
    }

    /// Deletes a volume that nobody uses; one with snapshots only if they may go, too.
    pub async fn delete(&self, name: &str, with_snapshots: bool) -> Result<()> {
        let _turn = self.turn(name, "delete").await?;
        let mut stored = self.record(name).await?;
        if stored.record.job.is_some() || stored.record.renaming.is_some() {
            self.usable(name).await?;
        }
        self.refuse_in_use(&stored, "delete")?;
        if stored.record.attach != AttachState::Detached && self.attached(name).is_some() {
            self.detach_unused(&mut stored).await?;
        }
        let backend = self.backend_of(&stored)?;
        let before = stored.record.state;
        if !with_snapshots && before == VolumeState::Available {
            self.refuse_snapshots(&mut stored, &backend).await?;
        }
        stored.record.state = VolumeState::Deleting;
        self.0.records.save(&mut stored).await?;
        self.finish_deleting(&mut stored, &backend, before).await
    }

    async fn refuse_snapshots(
        &self,
        stored: &mut Stored<VolumeRecord>,
        backend: &OpenBackend,
    ) -> Result<()> {
        let capabilities = backend.note("delete", backend.handle().capabilities())?;
        if !capabilities.has(Abilities::SNAPSHOT) {
            return Ok(());
        }
        let snapshots = self.snapshots_if_able(stored).await?;
        if snapshots.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.name.as_str()).collect();
        let why = format!("volume `{}` has snapshots: {}", stored.name, names.join(", "));
        Err(Error::new(ErrorKind::IN_USE, why)
            .remedy("if they may go with it: novastor volume delete --snapshots NAME"))
    }

    pub(super) async fn finish_deleting(
        &self,
        stored: &mut Stored<VolumeRecord>,
        backend: &OpenBackend,
        before: VolumeState,
    ) -> Result<()> {
        let name = stored.record.inner_name.clone();
        let error = match backend.call("delete", backend.handle().delete(&control(), &name)).await {
            Ok(()) => return self.0.records.remove(stored).await,
            Err(error) if error.kind() == ErrorKind::NOT_FOUND => {
                return self.0.records.remove(stored).await;
            }
            Err(error) => error,
        };
        if changed_nothing(error.kind()) {
            stored.record.state = before;
            self.0.records.save(stored).await?;
            return Err(error);
        }
        stored.record.note = Some(format!("whether it was deleted is unknown: {error}"));
        self.0.records.save(stored).await?;
        Err(error.remedy(format!(
            "whether it was deleted is unknown; repeat: novastor volume delete {}",
            stored.name
        )))
    }

    /// Volumes that open backends have and the state does not know, neither as volumes nor as another backend's.
    pub async fn unmanaged(&self) -> Result<Vec<Unmanaged>> {
        let records = self.records().await?;
        let lent = self.0.lent.list().await?;
        let mut found = Vec::new();
        for (name, status) in self.0.backends.list() {
            let super::BackendStatus::Open(backend) = status else { continue };
            if !self.holds_volumes(&backend)? {
                continue;
            }
            for info in backend.call("list", backend.handle().list(&control())).await? {
                let known = records.iter().any(|one| one.record.is_called(&name, &info.name));
                let key = lending::key(&name, &info.name);
                if !known && !lent.iter().any(|stored| stored.name == key) {
                    found.push(Unmanaged { backend: name.clone(), info });
                }
            }
        }
        Ok(found)
    }

    /// Takes a volume that the backend has under management, as `name`.
    pub async fn adopt(
        &self,
        backend: Option<&str>,
        inner_name: &str,
        name: &str,
    ) -> Result<Stored<VolumeRecord>> {
        validate_name("volume", name)?;
        let backend = self.0.backends.choose(backend)?;
        self.refuse_without_volumes(&backend, "adopt")?;
        let _turn = self.turn(name, "adopt").await?;
        for other in self.records().await? {
            let record = &other.record;
            if !record.is_called(&backend.name, inner_name) {
                continue;
            }
            if other.name == name && record.state == VolumeState::Available {
                return Ok(other);
            }
            return Err(Error::new(
                ErrorKind::ALREADY_EXISTS,
                format!("`{inner_name}` of backend `{}` is volume `{}`", backend.name, other.name),
            ));
        }
        self.refuse_lent(&backend.name, inner_name).await?;
        let showing = backend.handle().show(&control(), inner_name);
        let info = backend.call("adopt", showing).await?;
        let record = VolumeRecord {
            backend: backend.name.clone(),
            inner_name: inner_name.to_owned(),
            size: info.size,
            created_unix_secs: unix_now(),
            labels: Default::default(),
            options: Default::default(),
            state: VolumeState::Available,
            // Larger than every epoch that an earlier manager of this volume can have used.
            epoch: unix_now(),
            attach: AttachState::Detached,
            holds: Default::default(),
            job: None,
            pending: None,
            renaming: None,
            taking: None,
            note: None,
            other: Default::default(),
        };
        self.0.records.create(name, record).await?.ok_or_else(|| exists(name))
    }
}

pub(super) fn exists(name: &str) -> Error {
    Error::new(
        ErrorKind::ALREADY_EXISTS,
        format!("there is a volume `{name}` with other properties"),
    )
    .remedy(format!("choose another name, or look at it: novastor volume show {name}"))
}
