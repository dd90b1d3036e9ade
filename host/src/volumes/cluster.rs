// SPDX-License-Identifier: Apache-2.0
//! Nodes, replicas and shards: what backends with the ability `cluster` answer. Bytes of shards go through an
//! attachment of the volume, like all others.

use std::sync::Arc;

use driver_api::{
    Abilities, Error, ErrorKind, IoBuf, Result, WriteFlags,
    ext::{Cluster, Comparison, NodeChange, NodeInfo, NodeSpec, ReplicationInfo, ShardInfo},
};

use super::{
    attach::Use,
    backends::{OpenBackend, control},
    service::Volumes,
};
use crate::{config::validate_name, plugins::Call};

/// The shard of a number that the volume does not have.
fn no_shard(volume: &str, shard: u64) -> Error {
    Error::new(ErrorKind::NOT_FOUND, format!("volume `{volume}` has no shard {shard}"))
        .remedy(format!("novastor volume shards {volume}"))
}

impl Volumes {
    fn cluster(&self, backend: Arc<OpenBackend>) -> Result<Arc<OpenBackend>> {
        if self.backend_has(&backend, Abilities::CLUSTER)? {
            return Ok(backend);
        }
        let why = format!("backend `{}` has no nodes, shards and replicas", backend.name);
        Err(Error::new(ErrorKind::UNSUPPORTED, why)
            .with("driver", self.backends().driver_of(&backend.name))
            .remedy("see which backend can `cluster`: novastor backend list --output json"))
    }

    pub(super) fn cluster_named(&self, backend: &str) -> Result<Arc<OpenBackend>> {
        self.cluster(self.backends().get(backend)?)
    }

    /// The backend of a volume, if it has replicas, and the volume's name there.
    pub(super) async fn cluster_of(&self, volume: &str) -> Result<(Arc<OpenBackend>, String)> {
        let stored = self.usable(volume).await?;
        Ok((self.cluster(self.backend_of(&stored)?)?, stored.record.inner_name))
    }

    /// All nodes of a backend, by name.
    pub async fn nodes(&self, backend: &str) -> Result<Vec<NodeInfo>> {
        let backend = self.cluster_named(backend)?;
        let listing =
            backend.handle().cluster(Call::Nodes, &control(), |cluster, cx| cluster.nodes(cx));
        Ok(backend.call("node list", listing).await?.into())
    }

    /// One node of a backend.
    pub async fn node(&self, backend: &str, name: &str) -> Result<NodeInfo> {
        let nodes = self.nodes(backend).await?;
        nodes.into_iter().find(|node| node.spec.name.as_str() == name).ok_or_else(|| {
            let why = format!("backend `{backend}` has no node `{name}`");
            Error::new(ErrorKind::NOT_FOUND, why)
                .remedy(format!("novastor node list --backend {backend}"))
        })
    }

    /// Makes a backend of this host a node of another.
    pub async fn node_add(&self, backend: &str, node: NodeSpec) -> Result<NodeInfo> {
        let backend = self.cluster_named(backend)?;
        validate_name("node", &node.name)?;
        if node.name.as_str() == backend.name {
            let why = format!("backend `{}` cannot be a node of its own", backend.name);
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .during("node add")
                .remedy("name another backend: novastor backend list"));
        }
        let adding = backend
            .handle()
            .cluster(Call::AddNode, &control(), move |cluster, cx| cluster.add_node(cx, node));
        backend.call("node add", adding).await
    }

    /// Changes what is said of a node.
    pub async fn node_set(
        &self,
        backend: &str,
        name: &str,
        change: NodeChange,
    ) -> Result<NodeInfo> {
        if change == NodeChange::default() {
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "nothing is to be changed")
                .during("node set")
                .remedy("say what: --available, --weight, --zone, --role, --address or --port"));
        }
        self.node(backend, name).await?;
        let (backend, name) = (self.cluster_named(backend)?, name.to_owned());
        let setting = backend.handle().cluster(Call::SetNode, &control(), move |cluster, cx| {
            cluster.set_node(cx, &name, change)
        });
        backend.call("node set", setting).await
    }

    /// Takes out a node that holds no bricks.
    pub async fn node_remove(&self, backend: &str, name: &str) -> Result<()> {
        self.node(backend, name).await?;
        let (backend, name) = (self.cluster_named(backend)?, name.to_owned());
        let removing =
            backend.handle().cluster(Call::RemoveNode, &control(), move |cluster, cx| {
                cluster.remove_node(cx, &name)
            });
        backend.call("node remove", removing).await
    }

    /// How a volume's replicas are.
    pub async fn replication(&self, volume: &str) -> Result<ReplicationInfo> {
        let (backend, name) = self.cluster_of(volume).await?;
        replication(&backend, name).await
    }

    /// The same, if the volume's backend has replicas.
    pub async fn replication_if_any(&self, volume: &str) -> Result<Option<ReplicationInfo>> {
        let backend = self.backend_of(&self.usable(volume).await?)?;
        match self.backend_has(&backend, Abilities::CLUSTER)? {
            true => self.replication(volume).await.map(Some),
            false => Ok(None),
        }
    }

    /// A volume's shards from number `first` on, at most `limit`.
    pub async fn shards(&self, volume: &str, first: u64, limit: u32) -> Result<Vec<ShardInfo>> {
        let (backend, name) = self.cluster_of(volume).await?;
        shards(&backend, name, first, limit).await
    }

    /// One shard of a volume.
    pub async fn shard(&self, volume: &str, shard: u64) -> Result<ShardInfo> {
        let found = self.shards(volume, shard, 1).await?;
        found.into_iter().next().ok_or_else(|| no_shard(volume, shard))
    }
}

async fn replication(backend: &OpenBackend, name: String) -> Result<ReplicationInfo> {
    let asking = backend
        .handle()
        .cluster(Call::Replication, &control(), move |cluster, cx| cluster.replication(cx, &name));
    backend.call("volume replicas", asking).await
}

async fn shards(
    backend: &OpenBackend,
    name: String,
    first: u64,
    limit: u32,
) -> Result<Vec<ShardInfo>> {
    let asking = backend.handle().cluster(Call::Shards, &control(), move |cluster, cx| {
        cluster.shards(cx, &name, first, limit)
    });
    Ok(backend.call("volume shards", asking).await?.into())
}

impl Use {
    pub(super) fn cx(&self) -> driver_api::OpContext {
        control().with_epoch(self.epoch())
    }

    /// How the volume's replicas are.
    pub async fn replication(&self) -> Result<ReplicationInfo> {
        replication(self.backend(), self.inner_name().to_owned()).await
    }

    /// One shard of the volume.
    pub async fn shard(&self, shard: u64) -> Result<ShardInfo> {
        let found = shards(self.backend(), self.inner_name().to_owned(), shard, 1).await?;
        found.into_iter().next().ok_or_else(|| no_shard(self.name(), shard))
    }

    /// Reads `len` bytes at `offset` within a shard.
    pub async fn read_shard(&self, shard: u64, offset: u64, len: u32) -> Result<IoBuf> {
        let name = self.inner_name().to_owned();
        let handle = self.backend().handle();
        let reading = handle.cluster(Call::ReadShard, &self.cx(), move |cluster, cx| {
            cluster.read_shard(cx, &name, shard, offset, len)
        });
        self.backend().call("shard read", reading).await
    }

    /// Writes `data` at `offset` within a shard.
    pub async fn write_shard(&self, shard: u64, offset: u64, data: IoBuf) -> Result<()> {
        let name = self.inner_name().to_owned();
        let handle = self.backend().handle();
        let admitted = self.volume().admit().await;
        let writing =
            handle.cluster_admitted(admitted, Call::WriteShard, &self.cx(), move |cluster, cx| {
                cluster.write_shard(cx, &name, shard, offset, data, WriteFlags::NONE)
            });
        self.backend().call("shard write", writing).await
    }

    /// Compares the in-sync replicas of one piece.
    pub async fn verify(&self, offset: u64, len: u32) -> Result<Comparison> {
        let name = self.inner_name().to_owned();
        let handle = self.backend().handle();
        let comparing = handle.cluster(Call::Verify, &self.cx(), move |cluster, cx| {
            cluster.verify(cx, &name, offset, len)
        });
        self.backend().call("verify", comparing).await
    }

    /// Makes the in-sync replicas of one piece equal to that of the node `source`.
    pub async fn repair(&self, offset: u64, len: u32, source: &str) -> Result<()> {
        let (name, source) = (self.inner_name().to_owned(), source.to_owned());
        let handle = self.backend().handle();
        let admitted = self.volume().admit().await;
        let repairing =
            handle.cluster_admitted(admitted, Call::Repair, &self.cx(), move |cluster, cx| {
                cluster.repair(cx, &name, offset, len, &source)
            });
        self.backend().call("repair", repairing).await
    }
}
