// SPDX-License-Identifier: Apache-2.0
//! Bodies of requests and answers, shared by the server and the command line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::jobs::{FLATTEN, ImageFormat, REBALANCE, Walk};

/// A volume.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct VolumeView {
    /// Its name.
    pub name: String,
    /// The backend that holds it.
    pub backend: String,
    /// Its name there.
    pub inner_name: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it occupies, if its backend said.
    pub used: Option<u64>,
    /// `creating`, `available`, `renaming`, `deleting` or `unmanaged`.
    pub state: String,
    /// `detached`, `attaching`, `attached` or `detaching`.
    pub attach: String,
    /// The epoch of its latest attachment.
    pub epoch: u64,
    /// Who uses it here.
    pub users: Vec<String>,
    /// When it was created, in seconds since 1970.
    pub created_unix_secs: u64,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// Facts of the driver's own.
    pub facts: BTreeMap<String, String>,
    /// The job that fills it.
    pub job: Option<u64>,
    /// What the operator should know.
    pub note: Option<String>,
    /// Counters, while attached.
    pub stats: Vec<MetricView>,
}

/// A figure.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct MetricView {
    /// Name with unit.
    pub name: String,
    /// `counter`, `gauge`, or `histogram` for a part of one.
    pub kind: String,
    /// The value.
    pub value: f64,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A backend.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct BackendView {
    /// Its name in the configuration.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// The driver's version, while open.
    pub version: Option<String>,
    /// Whether volumes that name no backend go here.
    pub active: bool,
    /// `healthy`, `degraded`, `failed` or `unavailable`.
    pub state: String,
    /// Why it is not healthy.
    pub why: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// What its volumes can do.
    pub abilities: Vec<String>,
    /// How deposed writers are kept away.
    pub fencing: Option<String>,
    /// The options in force: those of the configuration, else the driver's defaults; no secret's value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, serde_json::Value>,
    /// Its space, if it said.
    pub usage: Option<UsageView>,
    /// Counters.
    pub stats: Vec<MetricView>,
}

/// Space in bytes.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct UsageView {
    /// All there is.
    pub capacity: u64,
    /// Occupied.
    pub used: u64,
    /// Still writable.
    pub available: u64,
    /// Sum of the volumes' sizes.
    pub provisioned: u64,
}

/// A file in the directory of drivers.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct DriverView {
    /// The driver's name, as far as it is known.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The ABI it was built for.
    pub abi: String,
    /// The sha256 of its content.
    pub sha256: String,
    /// `driver` or `layer`.
    pub role: String,
    /// How many backends and layered volumes use it.
    pub backends_in_use: usize,
    /// How many of its calls held a thread of the host for too long.
    pub blocked_calls: u64,
    /// The last such call.
    pub last_blocked: Option<String>,
    /// `found`, `refused`, `loaded`, `degraded` or `draining`.
    pub state: String,
    /// Why it is refused or degraded.
    pub why: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The file.
    pub file: String,
    /// One sentence.
    pub summary: String,
    /// Options of a backend.
    pub options: Vec<OptionView>,
    /// Options of a volume.
    pub volume_options: Vec<OptionView>,
}

/// An option that a driver declares.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct OptionView {
    /// Its key.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its default, as JSON.
    pub default: Option<String>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it is a secret.
    pub secret: bool,
    /// The allowed values.
    pub choices: Vec<String>,
    /// One sentence.
    pub help: String,
}

/// A command of a driver's own.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct CommandView {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// Its arguments, as an example in JSON.
    pub example: String,
    /// Whether it changes anything.
    pub mutates: bool,
}

/// A snapshot.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// The volume's size then, in bytes.
    pub size: u64,
    /// When it was taken, in seconds since 1970.
    pub created_unix_secs: u64,
    /// How.
    pub method: String,
    /// Bytes of its own.
    pub used: u64,
    /// Whether it cannot be deleted.
    #[serde(default)]
    pub protected: bool,
}

/// Snapshots of several volumes at one point.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct GroupView {
    /// Milliseconds for which changes of the volumes were held.
    pub paused_ms: u64,
    /// One of each volume, by the volume's name.
    pub snapshots: Vec<MemberView>,
}

/// A snapshot that was taken with others.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct MemberView {
    /// The volume.
    pub volume: String,
    /// Its snapshot.
    #[serde(flatten)]
    pub snapshot: SnapshotView,
}

/// An export.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ExportView {
    /// The name that clients ask for.
    pub name: String,
    /// The volume.
    pub volume: String,
    /// Clients may only read.
    pub read_only: bool,
    /// Rules that name the clients it admits; none: whoever may connect.
    #[serde(default)]
    pub allow: Vec<String>,
    /// It is served to clients that name no export.
    #[serde(default)]
    pub default: bool,
    /// `ready`, or why not.
    pub state: String,
    /// Clients connected now.
    pub connections: usize,
    /// Where clients find it.
    pub uri: String,
    /// Where a flush is durable, if not on every replica; told of a single export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
}

/// A job.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct JobView {
    /// Its number.
    pub id: u64,
    /// `import`, `export`, `clone`, `verify`, `repair`, `scrub`, `rebalance`, `flatten`, `empty-bucket` or
    /// `delete-objects`.
    pub kind: String,
    /// The volume it is about.
    pub target: String,
    /// What it does.
    pub detail: String,
    /// `running`, `done`, `failed`, `cancelled` or `interrupted`.
    pub state: String,
    /// What `done` and `total` count, if not bytes: `objects`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; zero while unknown.
    pub total: u64,
    /// What a walk over replicas has found so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<Walk>,
    /// When it started, in seconds since 1970.
    pub started_unix_secs: u64,
    /// When it ended, in seconds since 1970.
    pub ended_unix_secs: Option<u64>,
    /// Why it failed.
    pub error: Option<JobErrorView>,
}

impl JobView {
    /// Whether it can go on once it was cut off.
    pub fn is_resumable(&self) -> bool {
        self.walk.is_some()
            || self.unit.is_some()
            || [FLATTEN, REBALANCE].contains(&self.kind.as_str())
    }
}

/// Why a job failed.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct JobErrorView {
    /// Number of the error's kind.
    pub code: u32,
    /// Its name.
    pub kind: String,
    /// The error.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}

/// The host.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct StatusView {
    /// Its version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Its process.
    pub pid: u32,
    /// The active backend.
    pub active: Option<String>,
    /// Backends open, and all.
    pub backends: (usize, usize),
    /// Volumes.
    pub volumes: usize,
    /// Exports.
    pub exports: usize,
    /// Jobs at work.
    pub jobs_running: usize,
    /// The unix socket where NBD clients connect; empty if there is none.
    pub nbd_socket: String,
    /// The addresses where NBD clients connect over TCP.
    #[serde(default)]
    pub nbd_listen: Vec<String>,
    /// What needs attention.
    pub attention: Vec<String>,
}

/// `POST /v1/volumes`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Its backend; the active one if none.
    #[serde(default)]
    pub backend: Option<String>,
    /// Options of the driver's own.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// `POST /v1/volumes/NAME/resize`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ResizeVolume {
    /// New size in bytes.
    pub size: u64,
    /// It may be smaller.
    #[serde(default)]
    pub shrink: bool,
}

/// `POST /v1/volumes/NAME/clone`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct CloneVolume {
    /// The new volume's name.
    pub name: String,
    /// The snapshot to clone.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// The new volume's backend; the source's if none.
    #[serde(default)]
    pub backend: Option<String>,
    /// Its size in bytes; the source's if none.
    #[serde(default)]
    pub size: Option<u64>,
    /// Options of the driver's own.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// `POST /v1/volumes/NAME/attach`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct AttachVolume {
    /// For reading only.
    #[serde(default)]
    pub read_only: bool,
    /// Take it from its present holder.
    #[serde(default)]
    pub take_over: bool,
}

/// `POST /v1/volumes/NAME/adopt`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct AdoptVolume {
    /// The backend that has it; the active one if none.
    #[serde(default)]
    pub backend: Option<String>,
    /// Its name there, if another.
    #[serde(default)]
    pub inner_name: Option<String>,
}

/// `POST /v1/volumes/NAME/import`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ImportVolume {
    /// The image, as an absolute path on the host.
    pub file: String,
    /// Its format.
    #[serde(default)]
    pub format: ImageFormat,
    /// The volume's backend; the active one if none.
    #[serde(default)]
    pub backend: Option<String>,
    /// Options of the driver's own.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// `POST /v1/volumes/NAME/export`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct ExportVolume {
    /// The image, as an absolute path on the host.
    pub file: String,
    /// Its format.
    #[serde(default)]
    pub format: ImageFormat,
    /// Replace a file of that name.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/volumes/NAME/snapshots`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// Its name.
    pub name: String,
}

/// `POST /v1/snapshots`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The name of each snapshot.
    pub name: String,
    /// The volumes.
    pub volumes: Vec<String>,
    /// Seconds for which changes of the volumes are held at most; 10 if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_pause_secs: Option<u64>,
}

/// `POST /v1/exports`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct CreateExport {
    /// The volume.
    pub volume: String,
    /// The name that clients ask for; the volume's if none.
    #[serde(default)]
    pub name: Option<String>,
    /// Clients may only read.
    #[serde(default)]
    pub read_only: bool,
    /// Rules that name the clients it admits, such as `uid:1000`; none: whoever may connect.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Serve it to clients that name no export.
    #[serde(default)]
    pub default: bool,
    /// Take the volume from its present holder.
    #[serde(default)]
    pub take_over: bool,
}

/// A node of a backend.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct NodeView {
    /// Its number, never given twice.
    pub id: u32,
    /// Its name: that of the backend that it is.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Where it is.
    pub address: String,
    /// Its port; zero for none.
    pub port: u16,
    /// The failure zone; empty: a zone of its own.
    pub zone: String,
    /// Its share of new shards relative to others.
    pub weight: u32,
    /// Whether new shards may be placed on it.
    pub available: bool,
    /// Whether it gets nothing and is to be emptied.
    #[serde(default)]
    pub draining: bool,
    /// `healthy`, `degraded` or `failed`.
    pub health: String,
    /// Why it is not healthy.
    pub why: Option<String>,
    /// Bytes that bricks occupy on it.
    pub used: u64,
    /// Bytes that volumes provision on it.
    pub provisioned: u64,
}

/// `POST /v1/backends/NAME/nodes`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct AddNode {
    /// The backend that becomes a node.
    pub name: String,
    /// What is said of it; what is absent gets the ABI's default.
    #[serde(default)]
    pub set: SetNode,
}

/// `POST /v1/backends/NAME/recover`
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct RecoverVolumes {
    /// The volume to be made anew from its bricks; all that are found if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// Give up bricks that were not found and may have later writes.
    #[serde(default)]
    pub accept_missing: bool,
    /// Change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What recovery found of a volume, and did.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct RecoveredView {
    /// The volume, as its backend names it.
    pub name: String,
    /// A number that no other volume has, in hexadecimal digits.
    pub identity: String,
    /// The newest generation that was found.
    pub generation: String,
    /// Size in bytes.
    pub size: u64,
    /// Its bricks that were found.
    pub found: Vec<BrickView>,
    /// Its bricks that were not found.
    pub missing: Vec<BrickView>,
    /// `recovered`, `would be recovered`, `refused` or `present already`.
    pub outcome: String,
    /// Why it was refused, what may be lost, or what is to be done next.
    pub reason: Option<String>,
    /// The volume's name on this host, if it manages it.
    pub managed: Option<String>,
}

/// A brick of a volume.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct BrickView {
    /// Its node; `node NUMBER` if the name is lost.
    pub node: String,
    /// Its name on the node.
    pub brick: String,
}

/// `PATCH /v1/backends/NAME/nodes/NODE`; what is absent stays.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct SetNode {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its port; zero for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The failure zone; empty: a zone of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its share of new shards relative to others; zero: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Whether new shards may be placed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
}

/// How a volume's replicas are.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ReplicationView {
    /// `detached`, `attaching`, `serving`, `stopped` or `fenced`.
    pub state: String,
    /// Why it does not serve, and what to do.
    pub why: Option<String>,
    /// How it replicates, and what its readers see.
    #[serde(default)]
    pub mode: ModeView,
    /// The generation of its membership.
    pub generation: String,
    /// The volume's size in bytes.
    pub size: u64,
    /// Bytes of a shard.
    pub shard_size: u64,
    /// How many shards there are.
    pub shards: u64,
    /// Its replicas.
    pub replicas: Vec<ReplicaView>,
}

/// How a volume replicates, and what its readers see.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub struct ModeView {
    /// Acknowledged after one replica; flush is durable on that one only.
    pub asynchronous: bool,
    /// The node that acknowledges.
    pub acknowledging: Option<String>,
    /// `strong`, `causal` or `eventual`.
    pub consistency: String,
    /// Asynchronous: how many bytes a replica is behind at most.
    pub most_behind_bytes: u64,
    /// Asynchronous: how many seconds a replica is behind at most.
    pub most_behind_secs: f64,
}

/// How far a replica of an asynchronous volume is behind.
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
pub struct LagView {
    /// Acknowledged writes that it lacks.
    pub writes: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long ago the oldest of them was acknowledged, in seconds.
    pub secs: f64,
}

/// What one node has of a volume.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ReplicaView {
    /// The node.
    pub node: String,
    /// The volume there that has the data.
    pub brick: String,
    /// `in-sync`, `failing`, `stale`, `resyncing`, `joining`, `condemned`, `keeper` or `following`.
    pub state: String,
    /// How far it is behind, of an asynchronous volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<LagView>,
    /// Bytes that it lacks.
    pub dirty: u64,
    /// Bytes copied to it since its resync began.
    pub copied: u64,
    /// Why it was given up last.
    pub cause: Option<String>,
}

/// A shard.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct ShardView {
    /// Its number.
    pub index: u64,
    /// Its first byte in the volume.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The nodes that hold it.
    pub nodes: Vec<String>,
}

/// `POST /v1/volumes/NAME/repair`
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct RepairVolume {
    /// The node whose bytes are the right ones.
    pub source: String,
}

/// The query of `GET` and `PUT /v1/volumes/NAME/data`, and of `/v1/volumes/NAME/shards/SHARD/data`
#[derive(Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(deny_unknown_fields)]
pub struct DataRange {
    /// First byte.
    #[serde(default)]
    pub offset: u64,
    /// Bytes to read; to the end if none.
    #[serde(default)]
    pub length: Option<u64>,
}
