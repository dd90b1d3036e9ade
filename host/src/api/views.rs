// SPDX-License-Identifier: Apache-2.0
//! The services' types as the API shows them.

use std::collections::BTreeMap;

use driver_api::{
    ErrorKind, MetricKind, OptionSpec, RString, RVec, Stats,
    ext::{BrickPlace, Lag, NodeInfo, ReplicaInfo, ReplicationInfo, ShardInfo, SnapshotInfo},
};

use super::types::{
    BrickView, GroupView, JobErrorView, JobView, LagView, MemberView, MetricView, ModeView,
    NodeView, OptionView, RecoveredView, ReplicaView, ReplicationView, ShardView, SnapshotView,
    VolumeView,
};
use crate::{
    config::format_size,
    jobs,
    volumes::{Group, Regained, Unmanaged, VolumeFigures},
};

type Pairs = RVec<driver_api::export::abi_stable::std_types::Tuple2<RString, RString>>;

fn pairs(pairs: &Pairs) -> BTreeMap<String, String> {
    pairs.iter().map(|pair| (pair.0.to_string(), pair.1.to_string())).collect()
}

/// The name of a figure's kind. One that a newer driver knows is shown as a gauge.
fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::COUNTER => "counter",
        MetricKind::HISTOGRAM => "histogram",
        _ => "gauge",
    }
}

pub(super) fn metrics(stats: &Stats) -> Vec<MetricView> {
    let view = |metric: &driver_api::Metric| MetricView {
        name: metric.name.to_string(),
        kind: kind(metric.kind).to_owned(),
        value: metric.value,
        labels: pairs(&metric.labels),
    };
    stats.metrics.iter().map(view).collect()
}

impl From<VolumeFigures> for VolumeView {
    fn from(figures: VolumeFigures) -> Self {
        let record = figures.stored.record;
        let state = record.shown_state().to_owned();
        Self {
            name: figures.stored.name,
            backend: record.backend,
            inner_name: record.inner_name,
            size: record.size,
            used: figures.info.as_ref().map(|info| info.used),
            state,
            attach: record.attach.name().to_owned(),
            epoch: record.epoch,
            users: figures.users,
            created_unix_secs: record.created_unix_secs,
            labels: record.labels,
            facts: figures.info.map(|info| pairs(&info.labels)).unwrap_or_default(),
            job: record.job,
            note: record.note,
            stats: figures.stats.as_ref().map(metrics).unwrap_or_default(),
        }
    }
}

impl From<Unmanaged> for VolumeView {
    fn from(found: Unmanaged) -> Self {
        Self {
            name: found.info.name.to_string(),
            inner_name: found.info.name.to_string(),
            backend: found.backend,
            size: found.info.size,
            used: Some(found.info.used),
            state: "unmanaged".to_owned(),
            attach: "unknown".to_owned(),
            epoch: 0,
            users: Vec::new(),
            created_unix_secs: 0,
            labels: BTreeMap::new(),
            facts: pairs(&found.info.labels),
            job: None,
            note: None,
            stats: Vec::new(),
        }
    }
}

impl From<SnapshotInfo> for SnapshotView {
    fn from(info: SnapshotInfo) -> Self {
        Self {
            protected: info.is_protected(),
            name: info.name.into_string(),
            size: info.size,
            created_unix_secs: info.created_unix_secs,
            method: info.method.into_string(),
            used: info.used,
        }
    }
}

impl From<Group> for GroupView {
    fn from(group: Group) -> Self {
        let member =
            |(volume, info): (String, SnapshotInfo)| MemberView { volume, snapshot: info.into() };
        Self {
            paused_ms: u64::try_from(group.paused.as_millis()).unwrap_or(u64::MAX),
            snapshots: group.snapshots.into_iter().map(member).collect(),
        }
    }
}

pub(super) fn unless_empty(text: RString) -> Option<String> {
    Some(text.into_string()).filter(|text| !text.is_empty())
}

fn texts(list: RVec<RString>) -> Vec<String> {
    list.into_iter().map(RString::into_string).collect()
}

impl From<NodeInfo> for NodeView {
    fn from(node: NodeInfo) -> Self {
        Self {
            draining: node.is_draining(),
            id: node.id,
            name: node.spec.name.into_string(),
            role: node.spec.role.into_string(),
            address: node.spec.address.into_string(),
            port: node.spec.port,
            zone: node.spec.zone.into_string(),
            weight: node.spec.weight,
            available: node.spec.available,
            health: node.health.state.name().to_owned(),
            why: unless_empty(node.health.reason),
            used: node.used,
            provisioned: node.provisioned,
        }
    }
}

impl From<BrickPlace> for BrickView {
    fn from(place: BrickPlace) -> Self {
        Self { node: place.node.into_string(), brick: place.brick.into_string() }
    }
}

impl From<Regained> for RecoveredView {
    fn from(regained: Regained) -> Self {
        let Regained { volume, managed } = regained;
        Self {
            name: volume.name.into_string(),
            identity: format!("{:016x}", volume.identity),
            generation: volume.generation.into_string(),
            size: volume.size,
            found: volume.found.into_iter().map(Into::into).collect(),
            missing: volume.missing.into_iter().map(Into::into).collect(),
            outcome: volume.outcome.name().to_owned(),
            reason: unless_empty(volume.reason),
            managed,
        }
    }
}

fn mode(info: &ReplicationInfo) -> ModeView {
    let mode = info.mode();
    let acknowledging = info.replicas.iter().find(|replica| replica.acknowledges());
    ModeView {
        asynchronous: mode.asynchronous,
        acknowledging: acknowledging.map(|replica| replica.node.to_string()),
        consistency: mode.consistency.name().to_owned(),
        most_behind_bytes: mode.most_behind_bytes,
        most_behind_secs: mode.most_behind_ns as f64 / 1e9,
    }
}

impl ModeView {
    /// Where a flush is durable, and how far others are behind, if that is not everywhere and not at all.
    pub fn durability(&self) -> Option<String> {
        if !self.asynchronous {
            return None;
        }
        let node = self.acknowledging.as_deref().unwrap_or("the acknowledging node");
        let (bytes, secs) = (format_size(self.most_behind_bytes), self.most_behind_secs);
        Some(format!(
            "asynchronous: flush is durable on {node} only; others follow, at most {bytes} and {secs} s behind"
        ))
    }
}

impl From<Lag> for LagView {
    fn from(lag: Lag) -> Self {
        Self { writes: lag.writes, bytes: lag.bytes, secs: lag.age_ns as f64 / 1e9 }
    }
}

impl From<ReplicationInfo> for ReplicationView {
    fn from(info: ReplicationInfo) -> Self {
        Self {
            mode: mode(&info),
            state: info.state.name().to_owned(),
            why: unless_empty(info.reason),
            generation: info.generation.into_string(),
            size: info.size,
            shard_size: info.shard_size,
            shards: info.shards,
            replicas: info.replicas.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<ReplicaInfo> for ReplicaView {
    fn from(replica: ReplicaInfo) -> Self {
        Self {
            lag: replica.lag().map(Into::into),
            node: replica.node.into_string(),
            brick: replica.brick.into_string(),
            state: replica.state.name().to_owned(),
            dirty: replica.dirty,
            copied: replica.copied,
            cause: unless_empty(replica.cause),
        }
    }
}

impl From<ShardInfo> for ShardView {
    fn from(shard: ShardInfo) -> Self {
        let nodes = texts(shard.nodes);
        Self { index: shard.index, offset: shard.offset, len: shard.len, nodes }
    }
}

impl From<jobs::JobView> for JobView {
    fn from(job: jobs::JobView) -> Self {
        let record = job.record;
        Self {
            id: job.id,
            kind: record.kind,
            target: record.target,
            detail: record.detail,
            state: record.state.name().to_owned(),
            unit: record.emptying.is_some().then(|| "objects".to_owned()),
            done: job.done,
            total: job.total,
            walk: record.walk,
            started_unix_secs: record.started_unix_secs,
            ended_unix_secs: record.ended_unix_secs,
            error: record.error.map(|error| JobErrorView {
                code: error.code,
                kind: ErrorKind::from_code(error.code).name().to_owned(),
                message: error.message,
                remedy: error.remedy,
            }),
        }
    }
}

impl From<&OptionSpec> for OptionView {
    fn from(option: &OptionSpec) -> Self {
        Self {
            name: option.name.to_string(),
            kind: option.kind.name().to_owned(),
            default: option.default.as_ref().map(|text| text.to_string()).into_option(),
            required: option.required,
            secret: option.secret,
            choices: option.choices.iter().map(|choice| choice.to_string()).collect(),
            help: option.help.to_string(),
        }
    }
}
