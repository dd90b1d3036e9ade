// SPDX-License-Identifier: Apache-2.0
//! Attachments: this host holds a volume once, and everybody here who needs it shares that.
//!
//! ```text
//!              save epoch+1            backend attached it
//!   detached ---------------> attaching -----------------> attached
//!      ^                         | refused                    | last user and hold gone
//!      |<------------------------+                            v
//!      +-------------------------------------------------- detaching
//! ```
//! A *use* lives in memory and ends with the process; a *hold* lives in the state and is taken up again at restart.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use driver_api::{Attach, AttachMode, Error, ErrorKind, Result, state::Transaction};

use super::{
    backends::{OpenBackend, control},
    owner::is_only_held_by_the_dead,
    record::{AttachState, Hold, VolumeRecord},
    room::Stored,
    service::Volumes,
};
use crate::plugins::GuardedVolume;

/// The holder of a volume that an operator attached.
pub const OPERATOR: &str = "operator";

/// A volume that this host holds.
pub(super) struct Attached {
    pub(super) volume: GuardedVolume,
    pub(super) backend: Arc<OpenBackend>,
    /// Its name in the backend.
    pub(super) inner_name: String,
    pub(super) epoch: u64,
    pub(super) read_only: bool,
    users: Mutex<BTreeMap<u64, String>>,
    next: AtomicU64,
}

impl Attached {
    pub(super) fn users(&self) -> Vec<String> {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.values().cloned().collect()
    }
}

/// A share in an attachment. Give it back with [`Volumes::release`], so that the last one detaches the volume.
pub struct Use {
    name: String,
    id: u64,
    attached: Arc<Attached>,
}

impl Use {
    fn new(name: &str, attached: &Arc<Attached>, user: &str) -> Self {
        let id = attached.next.fetch_add(1, Ordering::Relaxed);
        let mut users = attached.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.insert(id, user.to_owned());
        Self { name: name.to_owned(), id, attached: Arc::clone(attached) }
    }

    /// The volume's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The volume.
    pub fn volume(&self) -> &GuardedVolume {
        &self.attached.volume
    }

    /// The backend that holds it.
    pub fn backend(&self) -> &OpenBackend {
        &self.attached.backend
    }

    /// The volume's name in its backend.
    pub fn inner_name(&self) -> &str {
        &self.attached.inner_name
    }

    /// The attachment's epoch.
    pub fn epoch(&self) -> u64 {
        self.attached.epoch
    }

    /// Whether others use the volume, beside this one and the operator's hold.
    pub fn others(&self) -> Vec<String> {
        let users = self.attached.users.lock().unwrap_or_else(PoisonError::into_inner);
        users.iter().filter(|(id, _)| **id != self.id).map(|(_, user)| user.clone()).collect()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.attached.users.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What a user of a volume wants to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

impl Volumes {
    pub(super) fn attached(&self, name: &str) -> Option<Arc<Attached>> {
        self.0.attached.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn set_attached(&self, name: &str, attached: Option<Arc<Attached>>) {
        let mut all = self.0.attached.lock().unwrap_or_else(PoisonError::into_inner);
        match attached {
            Some(attached) => all.insert(name.to_owned(), attached),
            None => all.remove(name),
        };
    }

    /// Everybody here who keeps the volume attached.
    pub(super) fn users_of(&self, stored: &Stored<VolumeRecord>) -> Vec<String> {
        let mut users: Vec<String> = stored.record.holds.keys().cloned().collect();
        for user in self.attached(&stored.name).map(|a| a.users()).unwrap_or_default() {
            if !users.contains(&user) {
                users.push(user);
            }
        }
        users
    }

    /// Refuses what needs the volume for itself while somebody uses it.
    pub(super) fn refuse_in_use(&self, stored: &Stored<VolumeRecord>, what: &str) -> Result<()> {
        let users = self.users_of(stored);
        if users.is_empty() {
            return Ok(());
        }
        let name = &stored.name;
        let remedy = match users.iter().find_map(|user| user.strip_prefix("export ")) {
            Some(export) => format!("novastor export remove {export}"),
            None if users.iter().any(|user| user == OPERATOR) => {
                format!("novastor volume detach {name}")
            }
            None => "wait until they are done: novastor job list".to_owned(),
        };
        let message = format!("volume `{name}` is in use by {}", users.join(", "));
        Err(Error::new(ErrorKind::IN_USE, message).during(what).remedy(remedy))
    }

    /// A share in the volume's attachment, which is made first if there is none.
    pub async fn acquire(&self, name: &str, access: Access, user: &str) -> Result<Use> {
        let _turn = self.turn(name, user).await?;
        let mut stored = self.usable(name).await?;
        self.attach_in_turn(&mut stored, access, user, false).await
    }

    /// As [`Volumes::acquire`], for the job that fills the volume.
    pub(crate) async fn acquire_unfinished(&self, name: &str, user: &str) -> Result<Use> {
        let _turn = self.turn(name, user).await?;
        let mut stored = self.record(name).await?;
        self.attach_in_turn(&mut stored, Access::Write, user, false).await
    }

    /// Gives a share back; the last one detaches the volume, unless it is held.
    pub async fn release(&self, used: Use) -> Result<()> {
        let name = used.name.clone();
        let _turn = self.turn(&name, "detach").await?;
        let mut stored = self.record(&name).await?;
        self.release_in_turn(&mut stored, used).await
    }

    pub(super) async fn attach_in_turn(
        &self,
        stored: &mut Stored<VolumeRecord>,
        access: Access,
        user: &str,
        force: bool,
    ) -> Result<Use> {
        if let Some(attached) = self.attached(&stored.name) {
            if attached.read_only && access == Access::Write {
                let users = self.users_of(stored).join(", ");
                return Err(Error::new(
                    ErrorKind::IN_USE,
                    format!("volume `{}` is attached read-only, by {users}", stored.name),
                )
                .remedy(format!("detach it first: novastor volume detach {}", stored.name)));
            }
            return Ok(Use::new(&stored.name, &attached, user));
        }
        let backend = self.backend_of(stored)?;
        stored.record.epoch += 1;
        stored.record.attach = AttachState::Attaching;
        self.0.records.save(stored).await?;
        let mode = match access {
            Access::Read => AttachMode::READ_ONLY,
            Access::Write => AttachMode::EXCLUSIVE,
        };
        let mut made = self.attach_as(stored, &backend, mode, force).await;
        match &made {
            Err(refused) if !force && is_only_held_by_the_dead(&self.0.owner, refused) => {
                tracing::info!(volume = %stored.name, "taking it from this host's own earlier life: {refused}");
                made = self.attach_as(stored, &backend, mode, true).await;
            }
            Err(refused) if force && let Some(latest) = latest_epoch(refused) => {
                // Another host had it since, which counts by itself.
                stored.record.epoch = latest.saturating_add(1);
                self.0.records.save(stored).await?;
                made = self.attach_as(stored, &backend, mode, true).await;
            }
            _ => {}
        }
        let volume = match made {
            Ok(volume) => volume,
            Err(error) => {
                stored.record.attach = AttachState::Detached;
                self.0.records.save(stored).await?;
                return Err(attach_error(error, &stored.name, force));
            }
        };
        stored.record.attach = AttachState::Attached;
        if let Err(error) = self.0.records.save(stored).await {
            let undone = backend.call("detach", volume.detach(&control())).await;
            if let Err(second) = undone {
                tracing::error!(volume = %stored.name, "could not detach again: {second:#}");
            }
            return Err(error);
        }
        let attached = Arc::new(Attached {
            volume: volume.gated(),
            backend,
            inner_name: stored.record.inner_name.clone(),
            epoch: stored.record.epoch,
            read_only: access == Access::Read,
            users: Mutex::default(),
            next: AtomicU64::new(0),
        });
        self.set_attached(&stored.name, Some(Arc::clone(&attached)));
        Ok(Use::new(&stored.name, &attached, user))
    }

    async fn attach_as(
        &self,
        stored: &Stored<VolumeRecord>,
        backend: &OpenBackend,
        mode: AttachMode,
        force: bool,
    ) -> Result<GuardedVolume> {
        let mut attach = Attach::new(mode, stored.record.epoch, &self.0.owner);
        attach.force = force;
        let cx = control().with_epoch(stored.record.epoch);
        let attaching = backend.handle().attach(&cx, &stored.record.inner_name, attach);
        backend.call("attach", attaching).await
    }

    pub(super) async fn release_in_turn(
        &self,
        stored: &mut Stored<VolumeRecord>,
        used: Use,
    ) -> Result<()> {
        drop(used);
        self.detach_unused(stored).await
    }

    /// Detaches the volume if nobody uses or holds it.
    pub(super) async fn detach_unused(&self, stored: &mut Stored<VolumeRecord>) -> Result<()> {
        let Some(attached) = self.attached(&stored.name) else { return Ok(()) };
        if !stored.record.holds.is_empty() || !attached.users().is_empty() {
            return Ok(());
        }
        stored.record.attach = AttachState::Detaching;
        self.0.records.save(stored).await?;
        let cx = control().with_epoch(attached.epoch);
        let detaching = attached.volume.detach(&cx);
        let detached = attached.backend.call("detach", detaching).await;
        if let Err(error) = &detached
            && matches!(error.kind(), ErrorKind::UNAVAILABLE | ErrorKind::TIMED_OUT)
        {
            // The volume stays ours, so that what it acknowledged can still become durable.
            return detached.map_err(|error| {
                error.remedy(format!("repeat: novastor volume detach {}", stored.name))
            });
        }
        self.set_attached(&stored.name, None);
        stored.record.attach = AttachState::Detached;
        if let Err(error) = &detached {
            stored.record.note = Some(format!("the last detach failed: {error}"));
        }
        self.0.records.save(stored).await?;
        detached
    }

    /// Attaches the volume until it is detached by name; taken up again at restart.
    pub async fn attach(
        &self,
        name: &str,
        read_only: bool,
        take_over: bool,
    ) -> Result<Stored<VolumeRecord>> {
        let _turn = self.turn(name, "attach").await?;
        let mut stored = self.usable(name).await?;
        let hold = Hold { read_only };
        let used = self.hold(&mut stored, OPERATOR, hold, take_over, Transaction::new()).await?;
        drop(used);
        Ok(stored)
    }

    /// Ends [`Volumes::attach`].
    pub async fn detach(&self, name: &str) -> Result<Stored<VolumeRecord>> {
        let _turn = self.turn(name, "detach").await?;
        let mut stored = self.record(name).await?;
        self.unhold(&mut stored, OPERATOR, Transaction::new()).await?;
        if stored.record.attach != AttachState::Detached {
            self.refuse_in_use(&stored, "detach")?;
        }
        Ok(stored)
    }

    /// Attaches the volume and notes `holder` in its record, together with the changes of `more`.
    pub(super) async fn hold(
        &self,
        stored: &mut Stored<VolumeRecord>,
        holder: &str,
        hold: Hold,
        force: bool,
        more: Transaction,
    ) -> Result<Use> {
        let access = if hold.read_only { Access::Read } else { Access::Write };
        let used = self.attach_in_turn(stored, access, holder, force).await?;
        let held = stored.record.holds.insert(holder.to_owned(), hold);
        if held == Some(hold) && more.mutations.is_empty() {
            return Ok(used);
        }
        if let Err(error) = self.save_with(stored, more).await {
            if held.is_none() {
                stored.record.holds.remove(holder);
            }
            self.release_in_turn(stored, used).await.unwrap_or_else(|second| {
                tracing::error!(volume = %stored.name, "could not detach again: {second:#}");
            });
            return Err(error);
        }
        Ok(used)
    }

    /// Removes a hold together with the changes of `more`, and detaches the volume if that was the last.
    pub(super) async fn unhold(
        &self,
        stored: &mut Stored<VolumeRecord>,
        holder: &str,
        more: Transaction,
    ) -> Result<()> {
        let held = stored.record.holds.remove(holder).is_some();
        if held || !more.mutations.is_empty() {
            self.save_with(stored, more).await?;
        }
        self.detach_unused(stored).await
    }

    async fn save_with(&self, stored: &mut Stored<VolumeRecord>, more: Transaction) -> Result<()> {
        let records = &self.0.records;
        let key = records.key(&stored.name);
        let transaction =
            more.expect(&key, stored.revision).put(&key, &records.encode(&stored.record)?);
        stored.revision = records.commit(transaction).await?.revision;
        Ok(())
    }
}

fn attach_error(error: Error, name: &str, force: bool) -> Error {
    match error.kind() {
        ErrorKind::IN_USE if !force => error.remedy(format!(
            "if its holder is gone for good: novastor volume attach {name} --take-over"
        )),
        ErrorKind::FENCED if !force => error.remedy(format!(
            "another host has had it since; to have it here again: novastor volume attach {name} --take-over"
        )),
        ErrorKind::TIMED_OUT => error.remedy(format!(
            "whether it was attached is unknown; repeat: novastor volume attach {name}"
        )),
        _ => error,
    }
}

/// The epoch that the backend remembers, if it refused a smaller one.
fn latest_epoch(error: &Error) -> Option<u64> {
    let (_, latest) = error.context().find(|(key, _)| *key == "latest_epoch")?;
    latest.parse().ok().filter(|_| error.kind() == ErrorKind::FENCED)
}
