// SPDX-License-Identifier: Apache-2.0
//! The room of one check: its names, its volumes, its randomness, and the backend.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use driver_api::{
    Abilities, Attach, AttachMode, BackendHandle, Capabilities, Error, Op, OpContext, VolumeInfo,
    VolumeSpec, ext::Clones as _,
};

use crate::{
    Plan, Reopen,
    pattern::Random,
    volume::{Checked, Vol, answer, broken, success},
};

/// What all checks of a run share.
pub(crate) struct Session<'a> {
    pub plan: &'a Plan,
    pub opener: &'a dyn Reopen,
    pub backend: Mutex<BackendHandle>,
    /// What volumes of this plan can do.
    pub caps: Capabilities,
    pub epoch: AtomicU64,
}

/// The room of one check.
pub(crate) struct Case<'a> {
    pub session: &'a Session<'a>,
    pub plan: &'a Plan,
    pub caps: Capabilities,
    label: String,
    seed: u64,
    pub attached: Mutex<Vec<Vol>>,
    pub names: Mutex<Vec<String>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Case<'a> {
    pub(crate) fn new(session: &'a Session<'a>, label: &str) -> Self {
        let seed = label
            .bytes()
            .fold(session.plan.seed, |seed, byte| Random::new(seed ^ u64::from(byte)).next());
        Self {
            session,
            plan: session.plan,
            caps: session.caps,
            label: label.to_owned(),
            seed,
            attached: Mutex::default(),
            names: Mutex::default(),
        }
    }

    pub(crate) fn backend(&self) -> BackendHandle {
        lock(&self.session.backend).clone()
    }

    pub(crate) fn random(&self) -> Random {
        Random::new(self.seed)
    }

    pub(crate) fn cx(&self) -> OpContext {
        OpContext::new().with_timeout(self.plan.deadline)
    }

    pub(crate) fn has(&self, abilities: Abilities) -> bool {
        self.caps.has(abilities)
    }

    pub(crate) fn sector(&self) -> u64 {
        u64::from(self.caps.min_block).max(512)
    }

    /// A name of this check's own.
    pub(crate) fn name(&self, suffix: &str) -> String {
        let name = format!("{}{}-{suffix}", self.plan.prefix, self.label);
        lock(&self.names).push(name.clone());
        name
    }

    pub(crate) async fn answer<T>(&self, what: &str, op: Op<T>) -> Checked<Result<T, Error>> {
        answer(self.plan.deadline, what, op).await
    }

    pub(crate) async fn done<T>(&self, what: &str, op: Op<T>) -> Checked<T> {
        success(what, self.answer(what, op).await?)
    }

    /// What this plan's volumes are created with.
    pub(crate) fn spec(&self, name: &str, size: u64) -> VolumeSpec {
        let spec = VolumeSpec::new(name, size);
        self.plan.volume_options.iter().fold(spec, |spec, (key, value)| spec.option(key, value))
    }

    pub(crate) async fn try_create(
        &self,
        name: &str,
        size: u64,
    ) -> Checked<Result<VolumeInfo, Error>> {
        self.answer("create", self.backend().create(&self.cx(), self.spec(name, size))).await
    }

    pub(crate) async fn create(&self, name: &str, size: u64) -> Checked<VolumeInfo> {
        success("create", self.try_create(name, size).await?)
    }

    pub(crate) async fn try_delete(&self, name: &str) -> Checked<Result<(), Error>> {
        self.answer("delete", self.backend().delete(&self.cx(), name)).await
    }

    pub(crate) async fn delete(&self, name: &str) -> Checked {
        success("delete", self.try_delete(name).await?)
    }

    pub(crate) async fn show(&self, name: &str) -> Checked<VolumeInfo> {
        self.done("show", self.backend().show(&self.cx(), name)).await
    }

    /// The volumes whose names begin with the plan's prefix.
    pub(crate) async fn list(&self) -> Checked<Vec<VolumeInfo>> {
        let all = self.done("list", self.backend().list(&self.cx())).await?;
        Ok(all.into_iter().filter(|volume| volume.name.starts_with(&self.plan.prefix)).collect())
    }

    /// An epoch above all earlier ones.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.session.epoch.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) async fn try_attach(
        &self,
        name: &str,
        attach: Attach,
    ) -> Checked<Result<Vol, Error>> {
        self.try_attach_at(&self.backend(), name, attach).await
    }

    pub(crate) async fn try_attach_at(
        &self,
        backend: &BackendHandle,
        name: &str,
        attach: Attach,
    ) -> Checked<Result<Vol, Error>> {
        let epoch = attach.epoch;
        let op = backend.attach(&self.cx().with_epoch(epoch), name, attach);
        match self.answer("attach", op).await? {
            Err(error) => Ok(Err(error)),
            Ok(handle) => {
                let caps = success("capabilities", handle.capabilities())?;
                let deadline = self.plan.deadline;
                let vol = Vol { handle, name: name.to_owned(), caps, epoch, deadline };
                lock(&self.attached).push(vol.clone());
                Ok(Ok(vol))
            }
        }
    }

    pub(crate) fn exclusive(&self, owner: &str) -> Attach {
        Attach::new(AttachMode::EXCLUSIVE, self.next_epoch(), owner)
    }

    pub(crate) fn reader(&self, owner: &str) -> Attach {
        Attach::new(AttachMode::READ_ONLY, self.next_epoch(), owner)
    }

    pub(crate) async fn attach(&self, name: &str) -> Checked<Vol> {
        success("attach", self.try_attach(name, self.exclusive("conformance")).await?)
    }

    /// A new volume of this size, attached.
    pub(crate) async fn fresh_sized(&self, suffix: &str, size: u64) -> Checked<Vol> {
        let name = self.name(suffix);
        self.create(&name, size).await?;
        self.attach(&name).await
    }

    /// A new volume of the usual size, attached.
    pub(crate) async fn fresh(&self, suffix: &str) -> Checked<Vol> {
        self.fresh_sized(suffix, self.plan.volume_size).await
    }

    /// Makes a clone and attaches it.
    pub(crate) async fn cloned(
        &self,
        source: &str,
        snapshot: &str,
        suffix: &str,
        size: u64,
    ) -> Checked<Vol> {
        let name = self.name(suffix);
        let info = self.try_clone(source, snapshot, &name, size).await?;
        success("clone", info)?;
        self.attach(&name).await
    }

    pub(crate) async fn try_clone(
        &self,
        source: &str,
        snapshot: &str,
        target: &str,
        size: u64,
    ) -> Checked<Result<VolumeInfo, Error>> {
        let clones = success("clones", self.backend().clones())?;
        let Some(clones) = clones else {
            return broken("clones are claimed, but there is no accessor");
        };
        let spec = self.spec(target, size);
        self.answer("clone", clones.clone_volume(&self.cx(), source, snapshot, spec)).await
    }

    /// Forgets all attachments of this check without a word to the driver, as a dying host does.
    pub(crate) fn forget_attachments(&self) {
        lock(&self.attached).clear();
    }

    /// Detaches everything of this check, closes the backend and opens it anew.
    pub(crate) async fn restart(&self) -> Checked {
        let attached: Vec<Vol> = lock(&self.attached).drain(..).collect();
        for vol in attached {
            // Already detached handles may answer either way.
            let _ = vol.try_detach().await?;
        }
        self.done("close", self.backend().close(&self.cx())).await?;
        self.reopen().await
    }

    /// Opens the backend anew, with the present handle dropped as it is.
    pub(crate) async fn reopen(&self) -> Checked {
        let opened = self.open_another().await?;
        *lock(&self.session.backend) = success("open", opened)?;
        Ok(())
    }

    /// Opens the backend once more, beside the present handle.
    pub(crate) async fn open_another(&self) -> Checked<Result<BackendHandle, Error>> {
        let deadline = self.plan.deadline;
        match tokio::time::timeout(deadline, self.session.opener.reopen()).await {
            Ok(opened) => Ok(opened),
            Err(_) => broken(format!("`open` did not answer within {deadline:?}")),
        }
    }
}
