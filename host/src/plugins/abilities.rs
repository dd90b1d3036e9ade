// SPDX-License-Identifier: Apache-2.0
//! The optional abilities of watched volumes and backends: as watched as the rest, and as sure to be finished.

use driver_api::{
    BackendHandle, ClusterHandle, Error, ErrorKind, ObjectsHandle, Op, OpContext, RString, RVec,
    Result, SnapshotsHandle, VolumeHandle, VolumeInfo, VolumeSpec,
    ext::{
        AllocationMap, Clones, CommandSpec, Extent, Flattening, ObjectFeatures, Resize,
        SnapshotInfo, Snapshots,
    },
};

use super::{Admitted, Call, GuardedBackend, GuardedVolume, Started};

/// Goes on with an ability that the driver declares, or says that it is not there.
fn with<A, T>(ability: Result<Option<A>>, name: &str, begin: impl FnOnce(A) -> Op<T>) -> Op<T> {
    match ability {
        Ok(Some(ability)) => begin(ability),
        Ok(None) => Op::err(missing(name)),
        Err(error) => Op::err(error),
    }
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, format!("the driver does not have the ability `{name}`"))
        .remedy("`novastor driver check` on the driver shows what it has")
}

impl GuardedVolume {
    /// Starts a resize.
    pub fn resize(&self, cx: &OpContext, size: u64, shrink: bool) -> Started<()> {
        self.run(Call::Resize, cx, move |volume, cx| {
            with(volume.resize(), "resize", |resize| resize.resize(cx, size, shrink))
        })
    }

    /// Starts taking a snapshot.
    pub fn snapshot_create(&self, cx: &OpContext, name: &str) -> Started<SnapshotInfo> {
        self.snapshots(Call::CreateSnapshot, cx, name, |snapshots, cx, name| {
            snapshots.create(cx, name)
        })
    }

    /// Starts listing snapshots.
    pub fn snapshot_list(&self, cx: &OpContext) -> Started<RVec<SnapshotInfo>> {
        self.snapshots(Call::ListSnapshots, cx, "", |snapshots, cx, _| snapshots.list(cx))
    }

    /// Starts deleting a snapshot.
    pub fn snapshot_delete(&self, cx: &OpContext, name: &str) -> Started<()> {
        self.snapshots(Call::DeleteSnapshot, cx, name, |snapshots, cx, name| {
            snapshots.delete(cx, name)
        })
    }

    /// Starts a roll back.
    pub fn rollback(&self, cx: &OpContext, name: &str) -> Started<()> {
        self.snapshots(Call::Rollback, cx, name, |snapshots, cx, name| snapshots.rollback(cx, name))
    }

    /// Starts protecting a snapshot, or ending that.
    pub fn snapshot_protect(&self, cx: &OpContext, name: &str, on: bool) -> Started<SnapshotInfo> {
        self.snapshots(Call::ProtectSnapshot, cx, name, move |snapshots, cx, name| {
            snapshots.protect(cx, name, on)
        })
    }

    /// Starts asking where two pictures of the volume differ.
    pub fn changes(
        &self,
        cx: &OpContext,
        (from, to): (&str, &str),
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Started<RVec<Extent>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.run(Call::Changes, cx, move |volume, cx| {
            with(volume.allocation_map(), "allocation-map", |map| {
                map.changes(cx, &from, &to, offset, len, limit)
            })
        })
    }

    /// Starts asking for extents.
    pub fn extents(
        &self,
        cx: &OpContext,
        offset: u64,
        len: u64,
        limit: u32,
    ) -> Started<RVec<Extent>> {
        self.run(Call::Extents, cx, move |volume, cx| {
            with(volume.allocation_map(), "allocation-map", |map| {
                map.extents(cx, offset, len, limit)
            })
        })
    }

    fn snapshots<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        name: &str,
        begin: impl FnOnce(&SnapshotsHandle, &OpContext, &str) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        let name = name.to_owned();
        self.run(call, cx, move |volume: &VolumeHandle, cx| {
            with(volume.snapshots(), "snapshot", |snapshots| begin(&snapshots, cx, &name))
        })
    }
}

impl GuardedBackend {
    /// Starts a clone of `source`, or of its snapshot if `snapshot` is not empty.
    pub fn clone_volume(
        &self,
        cx: &OpContext,
        source: &str,
        snapshot: &str,
        target: VolumeSpec,
    ) -> Started<VolumeInfo> {
        let (source, snapshot) = (source.to_owned(), snapshot.to_owned());
        self.run(Call::CloneVolume, cx, move |backend: &BackendHandle, cx| {
            with(backend.clones(), "clone", |clones| {
                clones.clone_volume(cx, &source, &snapshot, target)
            })
        })
    }

    /// Starts or ends flattening an attached volume.
    pub fn flatten(&self, cx: &OpContext, volume: &str, on: bool) -> Started<()> {
        let volume = volume.to_owned();
        self.run(Call::Flatten, cx, move |backend: &BackendHandle, cx| {
            with(backend.clones(), "clone", |clones| clones.flatten(cx, &volume, on))
        })
    }

    /// Starts asking how far a volume's flattening is.
    pub fn flattening(&self, cx: &OpContext, volume: &str) -> Started<Flattening> {
        let volume = volume.to_owned();
        self.run(Call::Flattening, cx, move |backend: &BackendHandle, cx| {
            with(backend.clones(), "clone", |clones| clones.flattening(cx, &volume))
        })
    }

    /// Starts giving a volume another name.
    pub fn rename(&self, cx: &OpContext, name: &str, to: &str) -> Started<VolumeInfo> {
        let (name, to) = (name.to_owned(), to.to_owned());
        self.run(Call::Rename, cx, move |backend: &BackendHandle, cx| {
            backend.rename(cx, &name, &to)
        })
    }

    /// The driver's own commands.
    pub fn commands(&self) -> Result<RVec<CommandSpec>> {
        self.ask(Call::Commands, |backend| match backend.commands()? {
            Some(commands) => commands.list(),
            None => Err(missing("commands")),
        })
    }

    /// Starts one of the driver's own commands.
    pub fn run_command(&self, cx: &OpContext, command: &str, arguments: &str) -> Started<RString> {
        let (command, arguments) = (command.to_owned(), arguments.to_owned());
        self.run(Call::RunCommand, cx, move |backend: &BackendHandle, cx| {
            with(backend.commands(), "commands", |commands| commands.run(cx, &command, &arguments))
        })
    }

    /// Starts an operation of the driver's cluster, named `call`.
    pub fn cluster<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&ClusterHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        self.cluster_admitted(None, call, cx, begin)
    }

    /// As [`GuardedBackend::cluster`], for a change of a volume's content: see [`GuardedVolume::admit`].
    pub fn cluster_admitted<T: Send + 'static>(
        &self,
        admitted: Option<Admitted>,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&ClusterHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        self.run_admitted(admitted, call, cx, move |backend: &BackendHandle, cx| {
            with(backend.cluster(), "cluster", |cluster| begin(&cluster, cx))
        })
    }

    /// What the backend's object store can do, and its limits.
    pub fn object_features(&self) -> Result<ObjectFeatures> {
        self.ask(Call::ObjectFeatures, |backend| match backend.objects()? {
            Some(objects) => objects.features(),
            None => Err(missing("objects")),
        })
    }

    /// Starts an operation on the backend's buckets and objects, named `call`.
    pub fn objects<T: Send + 'static>(
        &self,
        call: Call,
        cx: &OpContext,
        begin: impl FnOnce(&ObjectsHandle, &OpContext) -> Op<T> + Send + 'static,
    ) -> Started<T> {
        self.run(call, cx, move |backend: &BackendHandle, cx| {
            with(backend.objects(), "objects", |objects| begin(&objects, cx))
        })
    }
}
