// SPDX-License-Identifier: Apache-2.0
//! A host with an object store and a backend of volumes, and clients of its socket.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::{BackendConfig, Result, StateHandle};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use novastor::{
    api::{self, Api, Drivers, Gates, Parts, requests::Requests, types::DriverView},
    jobs::{Jobs, ReplicaJobs, Transfers},
    plugins::Registry,
    volumes::{Backends, Boxed, Opened, Opener, Volumes},
};
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::plugins_support::{self, objects, small};

/// Where buckets of the object store are.
pub const BUCKETS: &str = "/v1/backends/o/buckets";

struct Open {
    registry: Arc<Registry>,
    backends: BTreeMap<String, (String, Value)>,
}

impl Opener for Open {
    fn open(&self, name: &str) -> Boxed<Result<Opened>> {
        let (registry, name) = (self.registry.clone(), name.to_owned());
        let (driver, options) = self.backends[&name].clone();
        Box::pin(async move {
            let config = BackendConfig::new(&name, &options);
            let handle = registry.driver(&driver)?.open(config).await?;
            let (options, volume_options) = Default::default();
            Ok(Opened { version: "1.0".to_owned(), handle, options, volume_options })
        })
    }
}

struct Nothing;

impl Drivers for Nothing {
    fn list(&self) -> Vec<DriverView> {
        Vec::new()
    }
    fn rescan(&self) -> Result<()> {
        Ok(())
    }
}

impl Gates for Nothing {
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

pub struct House {
    pub socket: PathBuf,
    pub api: Api,
    state: StateHandle,
    backends: Backends,
    _plugins: plugins_support::House,
    _room: tempfile::TempDir,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{self:?}");
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Asserts a refusal of this status and kind, and gives its text.
    pub fn refused(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json()["title"], kind, "{self:?}");
        String::from_utf8(self.body.to_vec()).unwrap()
    }
}

/// A part of a path.
pub fn part(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Where an object of the bucket `box` is.
pub fn at(key: &str) -> String {
    format!("{BUCKETS}/box/objects/{}", part(key))
}

pub fn content(len: usize) -> Vec<u8> {
    (0..len).map(|place| (place * 7 + place / 251) as u8).collect()
}

async fn serve(
    state: &StateHandle,
    backends: &Backends,
    room: &tempfile::TempDir,
) -> (Api, PathBuf) {
    let volumes = Volumes::new(state.clone(), backends.clone(), "this test");
    volumes.begin().await.unwrap();
    let jobs = Jobs::begin(state.clone()).await.unwrap();
    volumes.open_backends().await.unwrap();
    let socket = room.path().join("api.sock");
    let _ = std::fs::remove_file(&socket);
    let listener = api::listen(&socket, 0o660).unwrap();
    let api = Api::new(Parts {
        volumes: volumes.clone(),
        jobs: jobs.clone(),
        transfers: Transfers::new(volumes.clone(), jobs.clone()),
        replicas: ReplicaJobs::new(volumes, jobs),
        requests: Requests::new(state.clone()),
        drivers: Box::new(Nothing),
        gates: Box::new(Nothing),
        started: Instant::now(),
    });
    tokio::spawn(api.clone().serve(listener, std::future::pending()));
    (api, socket)
}

impl House {
    /// With the store `o`, whose bucket `box` is there, and the backend `f` of volumes.
    pub async fn new() -> Self {
        Self::with(json!({})).await
    }

    pub async fn with(options: Value) -> Self {
        let house = Self::of(&[("o", "objects", options), ("f", "faulty", json!({}))]).await;
        house.post(BUCKETS, json!({ "name": "box" })).await.ok();
        house
    }

    pub async fn of(backends: &[(&str, &str, Value)]) -> Self {
        let plugins = plugins_support::House::new();
        plugins.offer("objects.so", &std::fs::read(objects()).unwrap());
        plugins.offer("faulty.so", small());
        let room = tempfile::tempdir().unwrap();
        let engine = novastor::state::open_embedded(&room.path().join("state.redb")).unwrap();
        let state = StateHandle::new(engine);
        let named: BTreeMap<_, _> = backends
            .iter()
            .map(|(name, driver, options)| {
                let mut all = match *driver {
                    "objects" => json!({
                        "max_put": 65536, "max_piece": 16384, "min_part": 1024, "max_part": 65536,
                        "max_parts": 1000, "max_page": 100, "without": "", "checksum": "",
                    }),
                    _ => json!({}),
                };
                all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
                ((*name).to_owned(), ((*driver).to_owned(), all))
            })
            .collect();
        let drivers =
            named.iter().map(|(name, (driver, _))| (name.clone(), driver.clone())).collect();
        let opener = Open { registry: plugins.registry.clone(), backends: named };
        let backends = Backends::new(Some("o".to_owned()), drivers, opener);
        let (api, socket) = serve(&state, &backends, &room).await;
        Self { socket, api, state, backends, _plugins: plugins, _room: room }
    }

    /// Another life of the host, while the store goes on.
    pub async fn restart(&mut self) {
        (self.api, self.socket) = serve(&self.state, &self.backends, &self._room).await;
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "novastor");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send("PUT", path, &[], body).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Has calls of the driver go wrong.
    pub async fn fault(&self, fault: Value) {
        self.post("/v1/backends/o/commands/fault", fault).await.ok();
    }

    /// A figure of the store.
    pub async fn figure(&self, name: &str) -> u64 {
        let backend = self.get("/v1/backends/o").await.ok().json();
        let stats = backend["stats"].as_array().unwrap().clone();
        let found = stats.into_iter().find(|stat| stat["name"] == name);
        found.map_or(0, |stat| stat["value"].as_f64().unwrap() as u64)
    }

    pub async fn keys(&self) -> Vec<String> {
        let listed = self.get(&format!("{BUCKETS}/box/objects")).await.ok().json();
        let objects = listed["objects"].as_array().unwrap();
        objects.iter().map(|object| object["key"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn open_uploads(&self) -> usize {
        let listed = self.get(&format!("{BUCKETS}/box/uploads")).await.ok().json();
        listed["uploads"].as_array().unwrap().len()
    }

    /// A job at its end.
    pub async fn ended(&self, job: &Value) -> Value {
        let path = format!("/v1/jobs/{}?wait_secs=20", job["id"]);
        self.get(&path).await.ok().json()
    }
}

/// Asks again until it holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    for _ in 0..500 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to that: {what}");
}
