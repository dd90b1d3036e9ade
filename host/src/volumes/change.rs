// SPDX-License-Identifier: Apache-2.0
//! Resize and snapshots. On a volume that nobody holds they attach it for their own time.

use driver_api::{Abilities, Capabilities, Error, ErrorKind, Result, ext::SnapshotInfo};

use super::{
    attach::{Access, OPERATOR, Use},
    backends::control,
    record::VolumeRecord,
    room::Stored,
    service::Volumes,
};
use crate::config::validate_name;

pub(super) fn need(capabilities: &Capabilities, ability: Abilities, volume: &str) -> Result<()> {
    if capabilities.has(ability) {
        return Ok(());
    }
    let name = ability.names().next().unwrap_or("this");
    Err(Error::new(ErrorKind::UNSUPPORTED, format!("volume `{volume}` cannot do it: no `{name}`"))
        .remedy("see what its backend can do: novastor backend list"))
}

impl Volumes {
    /// Ends an operation's share, and answers with the operation's own result.
    async fn give_back<T>(
        &self,
        stored: &mut Stored<VolumeRecord>,
        used: Use,
        result: Result<T>,
    ) -> Result<T> {
        if let Err(error) = self.release_in_turn(stored, used).await {
            tracing::error!(volume = %stored.name, "detach after the operation failed: {error:#}");
        }
        result
    }

    /// Makes a volume `size` bytes long; smaller only with `shrink`.
    pub async fn resize(
        &self,
        name: &str,
        size: u64,
        shrink: bool,
    ) -> Result<Stored<VolumeRecord>> {
        let _turn = self.turn(name, "resize").await?;
        let mut stored = self.usable(name).await?;
        let smaller = size < stored.record.size;
        if smaller && !shrink {
            let now = stored.record.size;
            let why = format!("volume `{name}` has {now} bytes; {size} would cut off its end");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .during("resize")
                .remedy("if what is cut off may be lost, add --shrink"));
        }
        if smaller {
            self.refuse_clients(&stored, "resize")?;
        }
        let used = self.attach_in_turn(&mut stored, Access::Write, "resize", false).await?;
        let resized = self.resize_attached(&mut stored, &used, size, shrink).await;
        self.give_back(&mut stored, used, resized).await?;
        Ok(stored)
    }

    async fn resize_attached(
        &self,
        stored: &mut Stored<VolumeRecord>,
        used: &Use,
        size: u64,
        shrink: bool,
    ) -> Result<()> {
        let volume = used.volume();
        let capabilities = volume.capabilities()?;
        let smaller = size < stored.record.size;
        let ability = if smaller { Abilities::SHRINK } else { Abilities::GROW };
        need(&capabilities, ability, &stored.name)?;
        let block = u64::from(capabilities.min_block.max(1));
        if size == 0 || size > capabilities.max_volume_size || !size.is_multiple_of(block) {
            let most = capabilities.max_volume_size;
            let why = format!("{size} bytes is not a multiple of {block} from 1 to {most}");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy("choose another size"));
        }
        stored.record.pending = Some(format!("resize to {size} bytes"));
        self.0.records.save(stored).await?;
        let resized = used.backend().call("resize", volume.resize(&control(), size, shrink)).await;
        // Also after a failure the volume itself knows best how large it is.
        if let Ok(now) = volume.size() {
            stored.record.size = now;
        }
        stored.record.pending = None;
        self.0.records.save(stored).await?;
        resized
    }

    /// Refuses what would pull the ground from under clients of an export or a running job.
    fn refuse_clients(&self, stored: &Stored<VolumeRecord>, what: &str) -> Result<()> {
        if self.users_of(stored).iter().all(|user| user == OPERATOR) {
            return Ok(());
        }
        self.refuse_in_use(stored, what)
    }

    /// Takes a snapshot of every write acknowledged before the call.
    pub async fn snapshot_create(&self, name: &str, snapshot: &str) -> Result<SnapshotInfo> {
        validate_name("snapshot", snapshot)?;
        let _turn = self.turn(name, "snapshot create").await?;
        let mut stored = self.usable(name).await?;
        let used = self.attach_in_turn(&mut stored, Access::Write, "snapshot", false).await?;
        let creating = used.volume().snapshot_create(&control(), snapshot);
        let done = used.backend().call("snapshot create", creating).await;
        self.give_back(&mut stored, used, done.map_err(|error| unknown_outcome(error, name))).await
    }

    /// All snapshots of a volume, oldest first.
    pub async fn snapshot_list(&self, name: &str) -> Result<Vec<SnapshotInfo>> {
        let _turn = self.turn(name, "snapshot list").await?;
        let mut stored = self.usable(name).await?;
        self.snapshots_in_turn(&mut stored).await
    }

    pub(super) async fn snapshots_in_turn(
        &self,
        stored: &mut Stored<VolumeRecord>,
    ) -> Result<Vec<SnapshotInfo>> {
        let used = self.attach_in_turn(stored, Access::Read, "snapshot", false).await?;
        let listing = used.volume().snapshot_list(&control());
        let done = used.backend().call("snapshot list", listing).await;
        let list = self.give_back(stored, used, done).await?;
        Ok(list.into_iter().collect())
    }

    /// The same; none of a volume that is able to do less than its backend, by what it lies on.
    pub(super) async fn snapshots_if_able(
        &self,
        stored: &mut Stored<VolumeRecord>,
    ) -> Result<Vec<SnapshotInfo>> {
        let used = self.attach_in_turn(stored, Access::Read, "snapshot", false).await?;
        let done = match used.volume().capabilities() {
            Ok(able) if !able.has(Abilities::SNAPSHOT) => Ok(Vec::new()),
            Ok(_) => {
                let listing = used.volume().snapshot_list(&control());
                let listed = used.backend().call("snapshot list", listing).await;
                listed.map(|list| list.into_iter().collect())
            }
            Err(error) => Err(error),
        };
        self.give_back(stored, used, done).await
    }

    /// Deletes a snapshot.
    pub async fn snapshot_delete(&self, name: &str, snapshot: &str) -> Result<()> {
        let _turn = self.turn(name, "snapshot delete").await?;
        let mut stored = self.usable(name).await?;
        let used = self.attach_in_turn(&mut stored, Access::Write, "snapshot", false).await?;
        let done = self.delete_unprotected(&used, snapshot).await;
        self.give_back(&mut stored, used, done.map_err(|error| unknown_outcome(error, name))).await
    }

    async fn delete_unprotected(&self, used: &Use, snapshot: &str) -> Result<()> {
        let (volume, backend) = (used.volume(), used.backend());
        if volume.capabilities()?.has(Abilities::PROTECT) {
            let listed = backend.call("snapshot delete", volume.snapshot_list(&control())).await?;
            if listed.iter().any(|one| one.name == snapshot && one.is_protected()) {
                return Err(protected(used.name(), snapshot).during("snapshot delete"));
            }
        }
        backend.call("snapshot delete", volume.snapshot_delete(&control(), snapshot)).await
    }

    /// Protects a snapshot from being deleted, or ends that.
    pub async fn snapshot_protect(
        &self,
        name: &str,
        snapshot: &str,
        on: bool,
    ) -> Result<SnapshotInfo> {
        let _turn = self.turn(name, "snapshot protect").await?;
        let mut stored = self.usable(name).await?;
        let used = self.attach_in_turn(&mut stored, Access::Write, "snapshot", false).await?;
        let able = used.volume().capabilities();
        let done = match able.and_then(|able| need(&able, Abilities::PROTECT, name)) {
            Ok(()) => {
                let protecting = used.volume().snapshot_protect(&control(), snapshot, on);
                used.backend().call("snapshot protect", protecting).await
            }
            Err(error) => Err(error.during("snapshot protect")),
        };
        self.give_back(&mut stored, used, done.map_err(|error| unknown_outcome(error, name))).await
    }

    /// Puts a volume that no client uses back to a snapshot.
    pub async fn snapshot_rollback(
        &self,
        name: &str,
        snapshot: &str,
    ) -> Result<Stored<VolumeRecord>> {
        let _turn = self.turn(name, "snapshot rollback").await?;
        let mut stored = self.usable(name).await?;
        self.refuse_clients(&stored, "snapshot rollback")?;
        let used = self.attach_in_turn(&mut stored, Access::Write, "rollback", false).await?;
        let done = self.rollback_attached(&mut stored, &used, snapshot).await;
        self.give_back(&mut stored, used, done).await?;
        Ok(stored)
    }

    async fn rollback_attached(
        &self,
        stored: &mut Stored<VolumeRecord>,
        used: &Use,
        snapshot: &str,
    ) -> Result<()> {
        need(&used.volume().capabilities()?, Abilities::ROLLBACK, used.name())?;
        stored.record.pending = Some(format!("rollback to snapshot {snapshot}"));
        self.0.records.save(stored).await?;
        let rolling = used.volume().rollback(&control(), snapshot);
        let done = used.backend().call("snapshot rollback", rolling).await;
        if let Ok(now) = used.volume().size() {
            stored.record.size = now;
        }
        stored.record.pending = None;
        if let Err(error) = &done
            && !super::lifecycle::changed_nothing(error.kind())
        {
            stored.record.note =
                Some(format!("whether it was rolled back to {snapshot} is unknown: {error}"));
        }
        self.0.records.save(stored).await?;
        done.map_err(|error| unknown_outcome(error, &stored.name))
    }
}

/// Refuses to delete what is protected.
fn protected(volume: &str, snapshot: &str) -> Error {
    let why = format!("snapshot `{snapshot}` of volume `{volume}` is protected");
    Error::new(ErrorKind::IN_USE, why)
        .remedy(format!("if it may go: novastor snapshot protect {volume} {snapshot} --undo"))
}

fn unknown_outcome(error: Error, name: &str) -> Error {
    match error.kind() {
        ErrorKind::TIMED_OUT => error
            .remedy(format!("whether it was done is unknown; look: novastor snapshot list {name}")),
        _ => error,
    }
}
