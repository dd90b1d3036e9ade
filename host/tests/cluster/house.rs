// SPDX-License-Identifier: Apache-2.0
//! A host over real drivers, with its API on a socket and the command line as its client.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Instant,
};

use driver_api::{BackendConfig, Result, StateHandle};
use novastor::{
    api::{self, Api, Drivers, Gates, Parts, requests::Requests, types::DriverView},
    jobs::{JobView, Jobs, ReplicaJobs, Transfers},
    plugins::{GuardedBackend, Registry},
    volumes::{Backends, Boxed, NewVolume, Opened, Opener, Volumes, control},
};
use serde_json::{Value, json};

use super::plugins_support::{self, mirror, small};

pub const MIB: u64 = 1 << 20;

/// What outlives a host: the state, and what the drivers hold in memory.
#[derive(Clone)]
pub struct Ground {
    pub plugins: Arc<plugins_support::House>,
    pub state: StateHandle,
    open: Arc<Mutex<BTreeMap<String, GuardedBackend>>>,
    options: BTreeMap<String, (String, Value)>,
    room: Arc<tempfile::TempDir>,
}

impl Ground {
    /// Backends by name, with their drivers (`mirror` or `faulty`) and options.
    pub fn new(backends: &[(&str, &str, Value)]) -> Self {
        let plugins = plugins_support::House::new();
        plugins.offer("mirror.so", &std::fs::read(mirror()).expect("the library"));
        plugins.offer("faulty.so", small());
        let room = tempfile::tempdir().expect("a directory");
        let engine = novastor::state::open_embedded(&room.path().join("state.redb"));
        let options = backends.iter().map(|(name, driver, options)| {
            ((*name).to_owned(), ((*driver).to_owned(), options.clone()))
        });
        Self {
            plugins: Arc::new(plugins),
            state: StateHandle::new(engine.expect("a new state")),
            open: Arc::default(),
            options: options.collect(),
            room: Arc::new(room),
        }
    }

    /// A backend that is open.
    pub fn backend(&self, name: &str) -> GuardedBackend {
        self.open.lock().unwrap().get(name).cloned().expect("an open backend")
    }

    /// Runs a command of a driver.
    pub async fn run(&self, backend: &str, command: &str, arguments: Value) {
        let backend = self.backend(backend);
        backend.run_command(&control(), command, &arguments.to_string()).await.expect("it is done");
    }

    pub async fn damage(&self, volume: &str, node: &str, offset: u64, len: u64) {
        let what = json!({ "volume": volume, "node": node, "offset": offset, "len": len });
        self.run("m", "damage", what).await;
    }

    /// Says where a replica is, by the number that the driver's documentation gives.
    pub async fn put(&self, volume: &str, node: &str, state: u64) {
        self.run("m", "state", json!({ "volume": volume, "node": node, "state": state })).await;
    }
}

struct Open(Ground, Arc<Registry>);

impl Opener for Open {
    fn open(&self, name: &str) -> Boxed<Result<Opened>> {
        let (ground, registry, name) = (self.0.clone(), self.1.clone(), name.to_owned());
        Box::pin(async move {
            let known = ground.open.lock().unwrap().get(&name).cloned();
            let (driver, options) = &ground.options[&name];
            let handle = match known {
                Some(handle) => handle,
                None => registry.driver(driver)?.open(BackendConfig::new(&name, options)).await?,
            };
            ground.open.lock().unwrap().insert(name, handle.clone());
            Ok(Opened {
                version: "1.0".to_owned(),
                handle,
                options: BTreeMap::new(),
                volume_options: Vec::new(),
            })
        })
    }
}

pub struct House {
    pub ground: Ground,
    pub volumes: Volumes,
    pub jobs: Jobs,
    pub replicas: ReplicaJobs,
    pub socket: PathBuf,
}

struct NoDrivers;

impl Drivers for NoDrivers {
    fn list(&self) -> Vec<DriverView> {
        Vec::new()
    }
    fn rescan(&self) -> Result<()> {
        Ok(())
    }
}

struct NoGates;

impl Gates for NoGates {
    fn uri(&self, export: &str) -> String {
        export.to_owned()
    }
    fn socket(&self) -> String {
        String::new()
    }
    fn listen(&self) -> Vec<String> {
        Vec::new()
    }
    fn connections(&self, _export: &str) -> usize {
        0
    }
    fn disconnect(&self, _export: &str) -> Boxed<Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// A host of one life.
pub async fn start(ground: &Ground) -> House {
    let drivers = ground.options.iter().map(|(name, (driver, _))| (name.clone(), driver.clone()));
    let opener = Open(ground.clone(), ground.plugins.registry.clone());
    let backends = Backends::new(Some("m".to_owned()), drivers.collect(), opener);
    let volumes = Volumes::new(ground.state.clone(), backends, "this test");
    volumes.begin().await.expect("a state that can be read");
    let jobs = Jobs::begin(ground.state.clone()).await.expect("jobs that can be read");
    volumes.open_backends().await.expect("recovery");
    let replicas = ReplicaJobs::new(volumes.clone(), jobs.clone());
    let socket = ground.room.path().join("api.sock");
    // The socket of an earlier life is nobody's.
    let _ = std::fs::remove_file(&socket);
    let listener = api::listen(&socket, 0o660).expect("listening");
    let api = Api::new(Parts {
        volumes: volumes.clone(),
        jobs: jobs.clone(),
        transfers: Transfers::new(volumes.clone(), jobs.clone()),
        replicas: replicas.clone(),
        requests: Requests::new(ground.state.clone()),
        drivers: Box::new(NoDrivers),
        gates: Box::new(NoGates),
        started: Instant::now(),
    });
    tokio::spawn(api.serve(listener, std::future::pending()));
    House { ground: ground.clone(), volumes, jobs, replicas, socket }
}

/// A host with the backend `m` on three nodes, with these further options.
pub async fn mirrored(options: Value) -> House {
    let mut all = json!({ "nodes": "n1,n2,n3" });
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    start(&Ground::new(&[("m", "mirror", all), ("plain", "faulty", json!({}))])).await
}

pub fn new(name: &str, size: u64) -> NewVolume {
    NewVolume { name: name.to_owned(), size, ..NewVolume::default() }
}

impl House {
    pub async fn novastor(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_novastor"));
        command.arg("--socket").arg(&self.socket).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_vec();
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("started");
            // The command may refuse before it read everything.
            let _ = child.stdin.take().expect("a pipe").write_all(&input);
            child.wait_with_output().expect("ended")
        });
        ended.await.unwrap()
    }

    pub async fn say(&self, arguments: &[&str]) -> String {
        let output = self.novastor(arguments, b"").await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.say(&[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub async fn refuse(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.novastor(arguments, b"").await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text)
    }

    pub async fn end(&self, job: JobView) -> JobView {
        self.jobs.wait(job.id, std::time::Duration::from_secs(60)).await.unwrap()
    }
}
