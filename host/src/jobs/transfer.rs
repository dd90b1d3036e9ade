// SPDX-License-Identifier: Apache-2.0
//! The jobs there are: import, export and clone. Each makes something whole or leaves nothing behind.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use driver_api::{Error, ErrorKind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::runtime::Handle;

use super::{
    ImageFormat, JobControl, JobRecord, JobState, JobView, Jobs,
    copy::{Input, Output, copy},
    image::{Sink, Source},
};
use crate::{
    plugins::GuardedVolume,
    volumes::{Access, NewVolume, OPERATOR, Use, Volumes, unix_now},
};

/// An image that is to become a volume.
#[derive(Clone, Debug)]
pub struct ImportPlan {
    /// The image, as an absolute path.
    pub file: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// The new volume; its size is the image's.
    pub volume: NewVolume,
}

/// A volume that is to become an image.
#[derive(Clone, Debug)]
pub struct ExportPlan {
    /// The volume.
    pub volume: String,
    /// The image, as an absolute path.
    pub file: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Replace a file of that name.
    pub force: bool,
}

/// A volume that is to become another one.
#[derive(Clone, Debug)]
pub struct ClonePlan {
    /// The volume.
    pub source: String,
    /// Its snapshot, if that is what is cloned.
    pub snapshot: Option<String>,
    /// The new volume; size zero: the source's, no backend: the source's.
    pub volume: NewVolume,
}

/// Starts those jobs. A cheap handle.
#[derive(Clone)]
pub struct Transfers {
    volumes: Volumes,
    jobs: Jobs,
}

pub(super) fn record(
    kind: &str,
    target: &str,
    detail: String,
    scratch: Option<PathBuf>,
) -> JobRecord {
    JobRecord {
        kind: kind.to_owned(),
        target: target.to_owned(),
        detail,
        state: JobState::Running,
        started_unix_secs: unix_now(),
        ended_unix_secs: None,
        error: None,
        scratch,
        done: 0,
        total: 0,
        walk: None,
        emptying: None,
        other: Default::default(),
    }
}

/// Runs work that may block, and whose futures stay on one thread.
async fn on_a_thread<T: Send + 'static, F: Future<Output = Result<T>>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(work())).await.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::INTERNAL, format!("the copy panicked: {panic}")))
    })
}

fn absolute(path: &Path) -> Result<()> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the path is not absolute")
        .with("file", path.display())
        .remedy("name the whole path"))
}

impl Transfers {
    /// Jobs over these volumes.
    pub fn new(volumes: Volumes, jobs: Jobs) -> Self {
        Self { volumes, jobs }
    }

    /// Starts making a volume of an image.
    pub async fn import(&self, plan: ImportPlan) -> Result<JobView> {
        absolute(&plan.file)?;
        let (file, format) = (plan.file.clone(), plan.format);
        let size =
            on_a_thread(move || async move { Ok(Source::open(&file, format).await?.size()) })
                .await?;
        let mut new = plan.volume;
        let backend = self.volumes.backends().choose(new.backend.as_deref())?;
        let block = u64::from(backend.handle().capabilities()?.min_block.max(1));
        new.size = size.next_multiple_of(block);
        let id = self.jobs.next_id();
        self.volumes.begin_filling(&new, id).await?;
        let detail = format!("{} into {}", plan.file.display(), new.name);
        let (volumes, name, file) = (self.volumes.clone(), new.name.clone(), plan.file);
        let started =
            self.jobs.start(id, record("import", &new.name, detail, None), |control| async move {
                let filled = fill(&volumes, &name, id, move |volume| async move {
                    let input = Input::Image(Source::open(&file, format).await?);
                    if input.size() > volume.size()? {
                        return Err(Error::new(ErrorKind::IN_USE, "the image grew meanwhile")
                            .remedy("import it again"));
                    }
                    copy(&input, &mut Output::volume(&volume)?, &control).await
                });
                let filled = filled.await;
                end_filling(&volumes, &name, filled).await
            });
        self.undo_unless(started.await, &new.name).await
    }

    async fn undo_unless(&self, started: Result<JobView>, name: &str) -> Result<JobView> {
        match started {
            Ok(job) => Ok(job),
            Err(error) => end_filling(&self.volumes, name, Err(error))
                .await
                .and(Err(Error::new(ErrorKind::INTERNAL, "a job that did not start ended well"))),
        }
    }

    /// Starts making an image of a volume that nobody else writes.
    pub async fn export(&self, plan: ExportPlan) -> Result<JobView> {
        absolute(&plan.file)?;
        if !plan.force && plan.file.exists() {
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, "there is a file of that name")
                .with("file", plan.file.display())
                .remedy("choose another name, or replace it with --force"));
        }
        let id = self.jobs.next_id();
        let scratch = scratch_path(&plan.file, id)?;
        let used = self.acquire_source(&plan.volume, id).await?;
        let detail = format!("{} into {}", plan.volume, plan.file.display());
        let job = record("export", &plan.volume, detail, Some(scratch.clone()));
        let volumes = self.volumes.clone();
        let share = Arc::new(std::sync::Mutex::new(Some(used)));
        let kept = Arc::clone(&share);
        let started = self.jobs.start(id, job, |control| async move {
            let Some(used) = take(&kept) else { return Ok(()) };
            let written = write_image(used.volume().clone(), &plan, scratch, control).await;
            let released = volumes.release(used).await;
            written.and(released)
        });
        let started = started.await;
        if started.is_err()
            && let Some(used) = take(&share)
        {
            self.volumes.release(used).await?;
        }
        started
    }

    async fn acquire_source(&self, name: &str, job: u64) -> Result<Use> {
        let used = self.volumes.acquire(name, Access::Read, &format!("job {job}")).await?;
        let others: Vec<String> =
            used.others().into_iter().filter(|user| user != OPERATOR).collect();
        if others.is_empty() {
            return Ok(used);
        }
        self.volumes.release(used).await?;
        let why = format!(
            "volume `{name}` is in use by {}; a copy would mix old and new",
            others.join(", ")
        );
        Err(Error::new(ErrorKind::IN_USE, why).remedy(format!(
            "copy a clone: novastor volume clone {name} NEW, or remove the export first"
        )))
    }

    /// Starts making a volume of another, or of its snapshot: by the backend where it can, otherwise by copying.
    pub async fn clone_volume(&self, plan: ClonePlan) -> Result<JobView> {
        let source = self.volumes.record(&plan.source).await?;
        let mut new = plan.volume;
        let backend_name = new.backend.get_or_insert_with(|| source.record.backend.clone()).clone();
        if new.size == 0 {
            new.size = source.record.size;
        } else if new.size < source.record.size {
            let why = format!("a clone cannot be smaller than its {} bytes", source.record.size);
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy("leave out --size"));
        }
        let backend = self.volumes.backends().get(&backend_name)?;
        let able = backend_name == source.record.backend
            && self.volumes.backend_has(&backend, driver_api::Abilities::CLONE)?;
        let id = self.jobs.next_id();
        let detail = match &plan.snapshot {
            Some(snapshot) => format!("{} at {snapshot} into {}", plan.source, new.name),
            None => format!("{} into {}", plan.source, new.name),
        };
        let job = record("clone", &new.name, detail, None);
        let (volumes, name) = (self.volumes.clone(), new.name.clone());
        let started = if able {
            self.volumes.begin_cloning(&new, id).await?;
            let snapshot = plan.snapshot.unwrap_or_default();
            self.jobs
                .start(id, job, |_control| async move {
                    let cloned = volumes.clone_in_backend(&plan.source, &snapshot, &name).await;
                    end_filling(&volumes, &name, cloned).await
                })
                .await
        } else {
            if plan.snapshot.is_some() {
                let why = format!("backend `{}` cannot clone a snapshot", source.record.backend);
                return Err(Error::new(ErrorKind::UNSUPPORTED, why)
                    .remedy("clone the volume itself, without --snapshot"));
            }
            self.volumes.begin_filling(&new, id).await?;
            let transfers = self.clone();
            self.jobs
                .start(id, job, |control| async move {
                    let filled = transfers.copy_volume(&plan.source, &name, id, control).await;
                    end_filling(&volumes, &name, filled).await
                })
                .await
        };
        self.undo_unless(started, &new.name).await
    }

    async fn copy_volume(
        &self,
        source: &str,
        target: &str,
        id: u64,
        control: Arc<JobControl>,
    ) -> Result<()> {
        let used = self.acquire_source(source, id).await?;
        let from = used.volume().clone();
        let filled = fill(&self.volumes, target, id, move |volume| async move {
            let input = Input::volume(&from)?;
            copy(&input, &mut Output::volume(&volume)?, &control).await
        })
        .await;
        let released = self.volumes.release(used).await;
        filled.and(released)
    }
}

fn take<T>(shared: &std::sync::Mutex<Option<T>>) -> Option<T> {
    shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

/// Attaches the unfinished volume and lets `work` write it.
async fn fill<F: Future<Output = Result<()>>>(
    volumes: &Volumes,
    name: &str,
    job: u64,
    work: impl FnOnce(GuardedVolume) -> F + Send + 'static,
) -> Result<()> {
    let used = volumes.acquire_unfinished(name, &format!("job {job}")).await?;
    let volume = used.volume().clone();
    let worked = on_a_thread(move || work(volume)).await;
    let released = volumes.release(used).await;
    worked.and(released)
}

async fn end_filling(volumes: &Volumes, name: &str, filled: Result<()>) -> Result<()> {
    let ended = volumes.end_filling(name, filled.is_ok()).await;
    if let (Err(_), Err(left)) = (&filled, &ended) {
        tracing::error!(volume = name, "its unfinished remains are left: {left:#}");
    }
    filled.and(ended)
}

fn scratch_path(file: &Path, job: u64) -> Result<PathBuf> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the path names no file")
            .with("file", file.display()));
    };
    Ok(folder.join(format!(".{}.novastor-{job}.part", name.to_string_lossy())))
}

async fn write_image(
    volume: GuardedVolume,
    plan: &ExportPlan,
    scratch: PathBuf,
    control: Arc<JobControl>,
) -> Result<()> {
    let (format, force, file) = (plan.format, plan.force, plan.file.clone());
    on_a_thread(move || async move {
        let written = async {
            let input = Input::volume(&volume)?;
            let sink = Sink::create(&scratch, format, input.size()).await?;
            copy(&input, &mut Output::Image(sink), &control).await?;
            put_in_place(&scratch, &file, force)
        }
        .await;
        if written.is_err()
            && let Err(error) = std::fs::remove_file(&scratch)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %scratch.display(), "left behind: {error}");
        }
        written
    })
    .await
}

/// Gives the finished file its name, durably.
fn put_in_place(scratch: &Path, file: &Path, force: bool) -> Result<()> {
    let flags = if force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, scratch, CWD, file, flags).map_err(|error| {
        let error = std::io::Error::from(error);
        Error::from_io(format!("the finished image cannot get its name: {error}"), &error)
            .with("file", file.display())
            .remedy("choose another name, or replace the file with --force")
    })?;
    let folder = file.parent().unwrap_or(Path::new("/"));
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| Error::from_io("the folder cannot be made durable", &error))
}
