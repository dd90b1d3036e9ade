// SPDX-License-Identifier: Apache-2.0
//! A driver whose volumes have replicas, all of them in memory, for tests of what a host does with the cluster ability.
//!
//! | option of the backend | what it is |
//! |---|---|
//! | `nodes` | the nodes there are from the start, as in `n1,n2,n3` |
//! | `factor` | how many of its nodes hold a shard; 3 if absent |
//! | `shard_size` | bytes of a shard; 1 MiB if absent |
//! | `verify_ms` | how long comparing one piece takes |
//!
//! A volume is on all nodes that are available when it is created. Commands: `damage` turns over the bytes of one
//! replica, as in `{"volume":"v","node":"n2","offset":0,"len":512}`; `state` says of one replica where it is, as in
//! `{"volume":"v","node":"n2","state":2}`; `free` forgets a volume's holder, as its death would. The counter `repaired_bytes_total` tells what was repaired.

mod cluster;
mod volume;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use driver_api::{
    Abilities, Attach, Backend, BackendConfig, Capabilities, Driver, DriverInfo, Error, ErrorKind,
    Fencing, Host, Op, OpContext, OptionSpec, OptionType, RString, RVec, Result, Stats, VolumeInfo,
    VolumeSpec,
    ext::{self, NodeSpec},
};
use serde::Deserialize;

use volume::{Attached, Mirrored};

struct Mirror;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    nodes: String,
    factor: usize,
    shard_size: u64,
    verify_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: String::new(), factor: 3, shard_size: 1 << 20, verify_ms: 0 }
    }
}

impl Driver for Mirror {
    type Backend = Room;

    fn describe() -> DriverInfo {
        let number = |name, help| OptionSpec::new(name, OptionType::INTEGER, help);
        DriverInfo::new("Volumes in memory with replicas, for tests")
            .option(OptionSpec::new("nodes", OptionType::TEXT, "The nodes from the start"))
            .option(number("factor", "Replicas of a shard"))
            .option(number("shard_size", "Bytes of a shard"))
            .option(number("verify_ms", "How long comparing a piece takes"))
    }

    async fn open(_host: Host, config: BackendConfig) -> Result<Room> {
        let room = Room(Arc::new(Inner {
            options: config.parse()?,
            nodes: Mutex::default(),
            ids: AtomicU32::new(0),
            volumes: Mutex::default(),
            repaired: AtomicU64::new(0),
        }));
        let names = room.0.options.nodes.split(',').filter(|name| !name.is_empty());
        names.for_each(|name| room.insert(NodeSpec::new(name)));
        Ok(room)
    }
}

#[derive(Clone)]
struct Room(Arc<Inner>);

struct Inner {
    options: Options,
    nodes: Mutex<BTreeMap<String, (u32, NodeSpec)>>,
    ids: AtomicU32,
    volumes: Mutex<BTreeMap<String, Arc<Mirrored>>>,
    repaired: AtomicU64,
}

fn find(volumes: &BTreeMap<String, Arc<Mirrored>>, name: &str) -> Result<Arc<Mirrored>> {
    let volume = volumes.get(name).cloned();
    volume.ok_or_else(|| Error::new(ErrorKind::NOT_FOUND, "no such volume").with("volume", name))
}

impl Room {
    fn insert(&self, node: NodeSpec) {
        let id = self.0.ids.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.0.nodes).insert(node.name.to_string(), (id, node));
    }

    fn find(&self, name: &str) -> Result<Arc<Mirrored>> {
        find(&lock(&self.0.volumes), name)
    }

    fn make(&self, spec: VolumeSpec) -> Result<VolumeInfo> {
        let nodes: Vec<String> = lock(&self.0.nodes)
            .values()
            .filter(|(_, node)| node.available)
            .map(|(_, node)| node.name.to_string())
            .collect();
        let factor = self.0.options.factor;
        if nodes.len() < factor {
            let why = format!("{factor} replicas need as many nodes, there are {}", nodes.len());
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why));
        }
        let volume = Mirrored::new(&spec, self.0.options.shard_size, factor, nodes);
        let mut volumes = lock(&self.0.volumes);
        let volume = volumes.entry(spec.name.into_string()).or_insert(Arc::new(volume));
        if volume.info.size != spec.size {
            return Err(Error::new(ErrorKind::ALREADY_EXISTS, "it has another size"));
        }
        Ok(volume.info.clone())
    }
}

const fn capabilities() -> Capabilities {
    let abilities = Abilities::WRITE.and(Abilities::FUA).and(Abilities::COMMANDS);
    Capabilities {
        fencing: Fencing::EXCLUSIVE_LOCK,
        max_volume_size: 1 << 30,
        ..Capabilities::new(abilities.and(Abilities::CLUSTER))
    }
}

impl Backend for Room {
    type Volume = Attached;

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn create(&self, _cx: &OpContext, spec: VolumeSpec) -> Op<VolumeInfo> {
        self.make(spec).into()
    }

    fn delete(&self, _cx: &OpContext, name: &str) -> Op<()> {
        let mut volumes = lock(&self.0.volumes);
        let unused = find(&volumes, name).and_then(|volume| volume.tenancy.check_free());
        unused.map(|()| drop(volumes.remove(name))).into()
    }

    fn list(&self, _cx: &OpContext) -> Op<RVec<VolumeInfo>> {
        Op::ok(lock(&self.0.volumes).values().map(|volume| volume.info.clone()).collect())
    }

    fn show(&self, _cx: &OpContext, name: &str) -> Op<VolumeInfo> {
        self.find(name).map(|volume| volume.info.clone()).into()
    }

    fn attach(&self, _cx: &OpContext, name: &str, attach: Attach) -> Op<Attached> {
        // Held on: a delete must not come between finding and holding.
        let volumes = lock(&self.0.volumes);
        let held = find(&volumes, name).and_then(|volume| {
            volume.tenancy.hold(&attach)?;
            *lock(&volume.holder) = Some(attach.clone());
            Ok(Attached(volume, attach))
        });
        held.into()
    }

    fn stats(&self) -> Stats {
        Stats::new().counter("repaired_bytes_total", self.0.repaired.load(Ordering::Relaxed))
    }

    fn commands(&self) -> Option<Arc<dyn ext::Commands>> {
        Some(Arc::new(self.clone()))
    }

    fn cluster(&self) -> Option<Arc<dyn ext::Cluster>> {
        Some(Arc::new(self.clone()))
    }
}

/// The arguments of all commands.
#[derive(Deserialize)]
struct Arguments {
    volume: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    offset: usize,
    #[serde(default)]
    len: usize,
    #[serde(default)]
    state: usize,
}

impl ext::Commands for Room {
    fn list(&self) -> RVec<ext::CommandSpec> {
        let command = |name: &str, help: &str, example: &str| ext::CommandSpec {
            name: name.into(),
            help: help.into(),
            example: example.into(),
            mutates: true,
        };
        let damage = r#"{"volume":"v","node":"n2","offset":0,"len":512}"#;
        let state = r#"{"volume":"v","node":"n2","state":2}"#;
        RVec::from(vec![
            command("damage", "Turns over bytes of one replica.", damage),
            command("state", "Says where a replica is.", state),
            command("free", "Forgets a volume's holder.", r#"{"volume":"v"}"#),
        ])
    }

    fn run(&self, _cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        let run = || {
            if !["damage", "state", "free"].contains(&command) {
                return Err(Error::new(ErrorKind::UNSUPPORTED, "no such command"));
            }
            let arguments: Arguments = serde_json::from_str(arguments)
                .map_err(|error| Error::new(ErrorKind::INVALID_ARGUMENT, error.to_string()))?;
            let volume = self.find(&arguments.volume)?;
            match command {
                "damage" => {
                    let replica = volume.replica(&arguments.node)?;
                    let range = arguments.offset..arguments.offset + arguments.len;
                    lock(&replica.bytes)[range].iter_mut().for_each(|byte| *byte = !*byte);
                }
                "state" => {
                    let replica = volume.replica(&arguments.node)?;
                    *lock(&replica.state) = volume::STATES[arguments.state];
                }
                _ => {
                    if let Some(holder) = lock(&volume.holder).take() {
                        volume.tenancy.release(&holder)?;
                    }
                }
            }
            Ok(RString::from("{}"))
        };
        run().into()
    }
}

driver_api::export_driver!(Mirror, "mirror");
