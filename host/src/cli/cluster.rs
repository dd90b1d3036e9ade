// SPDX-License-Identifier: Apache-2.0
//! `novastor node`, `novastor shard`, and what `novastor volume` shows of replicas and shards.

use driver_api::{Error, ErrorKind, Result, ext::RecoveryOutcome};

use super::{
    Session,
    args::{Cluster, NodeCommand, NodeFacts, Output, ShardCommand},
    client::part,
    show::{self, Row, size},
    volumes::of,
};
use crate::{
    api::types::{
        AddNode, BackendView, BrickView, LagView, NodeView, RecoverVolumes, RecoveredView,
        ReplicaView, ReplicationView, SetNode, ShardView,
    },
    jobs::Walk,
};

/// What a walk has found, in one line.
pub(super) fn found(walk: &Walk) -> String {
    let mut text = format!("{} compared", size(walk.compared));
    if walk.repaired > 0 {
        text.push_str(&format!(", {} repaired", size(walk.repaired)));
    }
    match walk.differing {
        0 => text.push_str(", none differ"),
        bytes => text.push_str(&format!(", {} differ", size(bytes))),
    }
    if !walk.left_out.is_empty() {
        let nodes: Vec<&str> = walk.left_out.iter().map(String::as_str).collect();
        text.push_str(&format!("; not in sync, and left out: {}", nodes.join(", ")));
    }
    text
}

impl From<NodeFacts> for SetNode {
    fn from(facts: NodeFacts) -> Self {
        let NodeFacts { role, address, port, zone, weight, available } = facts;
        Self { role, address, port, zone, weight, available }
    }
}

impl Session {
    /// The named backend, or the only one that has nodes.
    pub(super) async fn backend_of(&self, cluster: Cluster) -> Result<String> {
        match cluster.backend {
            Some(name) => Ok(name),
            None => only(self.client.get::<Vec<BackendView>>("/v1/backends").await?),
        }
    }

    /// The resource of its nodes.
    pub(super) async fn nodes_of(&self, cluster: Cluster) -> Result<String> {
        Ok(format!("/v1/backends/{}/nodes", part(&self.backend_of(cluster).await?)))
    }

    async fn recover(&self, cluster: Cluster, wish: &RecoverVolumes) -> Result<()> {
        let backend = self.backend_of(cluster).await?;
        let path = format!("/v1/backends/{}/recover", part(&backend));
        let told: Vec<RecoveredView> = self.client.post(&path, wish).await?;
        show::list(self.output, &told)?;
        if self.output == Output::Table {
            let reasons = told.iter().filter_map(|one| Some((&one.name, one.reason.as_ref()?)));
            reasons.for_each(|(name, reason)| eprintln!("{name}: {reason}"));
            if told.is_empty() {
                eprintln!("no bricks were found; the nodes that were asked: novastor node list");
            }
        }
        let is_refused = |one: &&RecoveredView| one.outcome == RecoveryOutcome::REFUSED.name();
        let refused: Vec<&str> =
            told.iter().filter(is_refused).map(|one| one.name.as_str()).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let why = format!("refused, and left as it was: {}", refused.join(", "));
        Err(Error::new(ErrorKind::UNAVAILABLE, why).during("node recover").remedy(format!(
            "bring back what is missing (novastor backend list shows what is not open) and try again; to give \
             missing bricks up for good: novastor node recover {} --backend {backend} --accept-missing",
            refused[0]
        )))
    }

    pub(super) async fn node(&self, command: NodeCommand) -> Result<()> {
        match command {
            NodeCommand::List { cluster, watched } => {
                self.list::<NodeView>(&self.nodes_of(cluster).await?, watched).await
            }
            NodeCommand::Show { name, cluster } => {
                let path = format!("{}/{}", self.nodes_of(cluster).await?, part(&name));
                self.one(&self.client.get::<NodeView>(&path).await?)
            }
            NodeCommand::Add { name, cluster, facts } => {
                let body = AddNode { name, set: facts.into() };
                let path = self.nodes_of(cluster).await?;
                self.one(&self.client.post::<NodeView>(&path, &body).await?)
            }
            NodeCommand::Remove { name, cluster } => {
                let path = format!("{}/{}", self.nodes_of(cluster).await?, part(&name));
                self.client.delete(&path).await?;
                self.done(&format!("node {name} is removed"))
            }
            NodeCommand::Recover { volume, accept_missing, dry_run, cluster } => {
                let body = RecoverVolumes { volume, accept_missing, dry_run };
                self.recover(cluster, &body).await
            }
            NodeCommand::Plan { volume, flags, cluster } => self.plan(volume, flags, cluster).await,
            NodeCommand::Drain { name, undo, cluster } => self.drain(&name, undo, cluster).await,
            NodeCommand::Set { name, cluster, facts } => {
                let path = format!("{}/{}", self.nodes_of(cluster).await?, part(&name));
                self.one(&self.client.patch::<NodeView>(&path, &SetNode::from(facts)).await?)
            }
        }
    }

    pub(super) async fn shard(&self, command: ShardCommand) -> Result<()> {
        let resource = |volume: &str, shard: u64| format!("{}/shards/{shard}", of(volume));
        match command {
            ShardCommand::Read { volume, shard, offset, length } => {
                self.read(&resource(&volume, shard), offset, length, None).await
            }
            ShardCommand::Write { volume, shard, offset } => {
                self.write(&resource(&volume, shard), offset, None).await
            }
        }
    }

    pub(super) async fn replicas(&self, name: &str) -> Result<()> {
        let path = format!("{}/replicas", of(name));
        let replication: ReplicationView = self.client.get(&path).await?;
        self.one(&replication)?;
        match self.output {
            Output::Json => Ok(()),
            Output::Table => {
                show::print("\n")?;
                show::list(self.output, &replication.replicas)
            }
        }
    }

    pub(super) async fn shards(&self, name: &str, first: u64, limit: u32) -> Result<()> {
        let path = format!("{}/shards?first={first}&limit={limit}", of(name));
        let shards: Vec<ShardView> = self.client.get(&path).await?;
        show::list(self.output, &shards)?;
        if shards.len() == limit as usize && self.output == Output::Table {
            let next = first + u64::from(limit);
            eprintln!("there may be more: novastor volume shards {name} --first {next}");
        }
        Ok(())
    }
}

/// The one backend that has nodes.
fn only(backends: Vec<BackendView>) -> Result<String> {
    let able = |backend: &BackendView| backend.abilities.iter().any(|ability| ability == "cluster");
    let mut names: Vec<String> = Vec::new();
    names.extend(backends.into_iter().filter(able).map(|backend| backend.name));
    match names.len() {
        1 => Ok(names.remove(0)),
        0 => Err(Error::new(ErrorKind::NOT_FOUND, "no open backend has nodes").remedy(
            "configure a backend whose driver has the ability `cluster`: novastor backend list",
        )),
        _ => {
            let why = format!("several backends have nodes: {}", names.join(", "));
            Err(Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy("name one with --backend"))
        }
    }
}

impl Row for NodeView {
    const HEAD: &'static [&'static str] =
        &["name", "role", "zone", "weight", "available", "health", "used", "provisioned"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            self.zone.clone(),
            self.weight.to_string(),
            match (self.draining, self.available) {
                (true, _) => "draining",
                (false, true) => "yes",
                (false, false) => "no",
            }
            .to_owned(),
            self.health.clone(),
            size(self.used),
            size(self.provisioned),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.insert(1, ("id", self.id.to_string()));
        let place = match (self.address.is_empty(), self.port) {
            (_, 0) => self.address.clone(),
            (true, port) => format!("port {port}"),
            (false, port) => format!("{}, port {port}", self.address),
        };
        card.extend([("address", place), ("why", self.why.clone().unwrap_or_default())]);
        card
    }
}

impl Row for RecoveredView {
    const HEAD: &'static [&'static str] =
        &["volume", "outcome", "size", "generation", "found on", "missing"];

    fn cells(&self) -> Vec<String> {
        let number = |brick: &BrickView| {
            let number = brick.brick.rsplit_once('.').map_or("", |(_, number)| number);
            format!("{number} of {}", brick.node)
        };
        let missing: Vec<String> = self.missing.iter().map(number).collect();
        let found: Vec<&str> = self.found.iter().map(|brick| brick.node.as_str()).collect();
        vec![
            self.name.clone(),
            self.outcome.clone(),
            if self.size == 0 { String::new() } else { size(self.size) },
            self.generation.clone(),
            found.join(", "),
            missing.join(", "),
        ]
    }
}

impl Row for ReplicationView {
    const HEAD: &'static [&'static str] = &["state", "generation", "size", "shards"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.state.clone(),
            self.generation.clone(),
            size(self.size),
            format!("{} of {}", self.shards, size(self.shard_size)),
        ]
    }

    fn card(&self) -> Vec<(&'static str, String)> {
        let mut card: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        card.push(("why", self.why.clone().unwrap_or_default()));
        card.push(("readers", self.mode.consistency.clone()));
        card.push(("durability", self.mode.durability().unwrap_or_default()));
        card
    }
}

impl Row for ReplicaView {
    const HEAD: &'static [&'static str] =
        &["node", "state", "behind", "lacks", "copied", "brick", "cause"];

    fn cells(&self) -> Vec<String> {
        let unless_zero = |bytes| if bytes == 0 { String::new() } else { size(bytes) };
        vec![
            self.node.clone(),
            self.state.clone(),
            self.lag.map(behind).unwrap_or_default(),
            unless_zero(self.dirty),
            unless_zero(self.copied),
            self.brick.clone(),
            self.cause.clone().unwrap_or_default(),
        ]
    }
}

/// How far a replica is behind, such as `3 writes, 12KiB, 0.250 s`.
fn behind(lag: LagView) -> String {
    let LagView { writes, bytes, secs } = lag;
    if writes == 0 {
        "0".to_owned()
    } else {
        format!("{writes} writes, {}, {secs:.3} s", size(bytes))
    }
}

impl Row for ShardView {
    const HEAD: &'static [&'static str] = &["shard", "offset", "length", "nodes"];

    fn cells(&self) -> Vec<String> {
        vec![self.index.to_string(), self.offset.to_string(), size(self.len), self.nodes.join(", ")]
    }
}
