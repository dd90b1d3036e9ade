// SPDX-License-Identifier: Apache-2.0
//! The API through its socket, and the command line as users type it.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Instant,
};

use driver_api::Result;
use novastor::{
    api::{self, Api, Drivers, Gates, Parts, requests::Requests, types::DriverView},
    cli::Client,
    volumes::Boxed,
};

use super::disks::{Storage, start, state};

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
        format!("nbd+unix:///{export}?socket=none")
    }
    fn socket(&self) -> String {
        "none".to_owned()
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

struct Served {
    socket: PathBuf,
    storage: Storage,
    _room: tempfile::TempDir,
}

async fn serve() -> Served {
    let ((state, room), storage) = (state(), Storage::default());
    let house = start(&state, &storage).await;
    let socket = room.path().join("api.sock");
    let api = Api::new(Parts {
        volumes: house.volumes,
        jobs: house.jobs,
        transfers: house.transfers,
        replicas: house.replicas,
        requests: Requests::new(state),
        drivers: Box::new(NoDrivers),
        gates: Box::new(NoGates),
        started: Instant::now(),
    });
    let listener = api::listen(&socket, 0o660).expect("listening");
    tokio::spawn(api.serve(listener, std::future::pending()));
    Served { socket, storage, _room: room }
}

impl Served {
    async fn novastor(&self, arguments: &[&str], input: &[u8]) -> Output {
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

    async fn say(&self, arguments: &[&str]) -> String {
        let output = self.novastor(arguments, b"").await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn refuse(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.novastor(arguments, b"").await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_lives_through_the_command_line() {
    let served = serve().await;
    served.say(&["volume", "create", "a", "--size", "1MiB"]).await;
    let list = served.say(&["volume", "list"]).await;
    assert!(list.contains("NAME") && list.contains("1 MiB"), "{list}");
    let data: Vec<u8> = (0..300_000).map(|index| (index % 241) as u8).collect();
    let written = served.novastor(&["volume", "write", "a", "--offset", "4096"], &data).await;
    assert!(written.status.success());
    let read = ["volume", "read", "a", "--offset", "4096", "--length", "300000"];
    assert_eq!(served.novastor(&read, b"").await.stdout, data);
    assert!(!served.storage.is_held("a"));
    let added = served.say(&["export", "add", "a"]).await;
    assert!(added.contains("nbd+unix:///a?socket=none"), "{added}");
    let json = served.say(&["export", "list", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["state"], "ready");
    served.say(&["export", "remove", "a"]).await;
    served.say(&["volume", "resize", "a", "2MiB"]).await;
    served.say(&["volume", "clone", "a", "b"]).await;
    served.say(&["volume", "delete", "a"]).await;
    let status = served.say(&["status"]).await;
    assert!(status.contains("1 of 1 open"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_snapshots_and_names_as_users_type_them() {
    let served = serve().await;
    served.say(&["volume", "create", "a", "--size", "1MiB"]).await;
    served.say(&["snapshot", "create", "a", "monday"]).await;
    let shown = served.say(&["snapshot", "protect", "a", "monday"]).await;
    assert!(shown.contains("protected") && shown.contains("yes"), "{shown}");
    assert!(served.say(&["snapshot", "list", "a"]).await.contains("PROTECTED"));
    let (code, text) = served.refuse(&["snapshot", "delete", "a", "monday"]).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("novastor snapshot protect a monday --undo"), "{text}");
    super::disks::lock(&served.storage.disk("a").unwrap().bytes)[8192] = 1;
    let told = served.say(&["volume", "changes", "a", "--since", "monday"]).await;
    assert!(told.contains("8192") && told.contains("4 KiB of data and 0"), "{told}");
    let json =
        served.say(&["volume", "changes", "a", "--since", "monday", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let extent = serde_json::json!({ "offset": 8192, "len": 4096, "kind": "data" });
    assert_eq!(json["extents"], serde_json::json!([extent]), "{json}");
    assert_eq!(json["size"], 1 << 20);
    let part = ["volume", "changes", "a", "--until", "monday", "--offset", "512", "--length", "1K"];
    assert!(!served.say(&part).await.contains("data\n"), "{part:?}");
    served.say(&["snapshot", "protect", "a", "monday", "--undo"]).await;
    served.say(&["snapshot", "delete", "a", "monday"]).await;
    served.say(&["volume", "clone", "a", "b"]).await;
    assert!(
        served.say(&["volume", "flatten", "b"]).await.contains("flatten: the content of b done")
    );
    let shown = served.say(&["volume", "rename", "b", "c"]).await;
    assert!(shown.contains('c'), "{shown}");
    assert!(served.storage.has("c") && !served.storage.has("b"));
    let (code, text) = served.refuse(&["volume", "rename", "b", "d"]).await;
    assert_eq!(code, 3, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_exit_codes_and_remedies() {
    let served = serve().await;
    served.say(&["volume", "create", "a", "--size", "1MiB"]).await;
    let (code, text) = served.refuse(&["volume", "show", "none"]).await;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("try: novastor volume list"), "{text}");
    let (code, text) = served.refuse(&["volume", "create", "a", "--size", "2MiB"]).await;
    assert_eq!(code, 4, "{text}");
    served.say(&["volume", "attach", "a"]).await;
    let (code, text) = served.refuse(&["volume", "delete", "a"]).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("try: novastor volume detach a"), "{text}");
    let (code, text) = served.refuse(&["volume", "show", "../etc"]).await;
    assert_eq!(code, 3, "{text}");
    let beyond = ["volume", "read", "a", "--offset", "2MiB", "--length", "1"];
    assert_eq!(served.refuse(&beyond).await.0, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_a_key_is_done_once() {
    let served = serve().await;
    let create = ["volume", "create", "a", "--size", "1MiB", "--request-id", "key-1"];
    let first = served.say(&[&create[..], &["--output", "json"]].concat()).await;
    served.say(&["volume", "delete", "a"]).await;
    let again = served.say(&[&create[..], &["--output", "json"]].concat()).await;
    assert_eq!(first, again, "the answer of the first time");
    assert!(!served.storage.has("a"), "and nothing was done");
    let other = ["volume", "create", "b", "--size", "1MiB", "--request-id", "key-1"];
    let (code, text) = served.refuse(&other).await;
    assert_eq!(code, 2, "{text}");
    assert!(!served.storage.has("b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_requests_are_answered_with_problems() {
    let served = serve().await;
    let client = Client::new(&served.socket, None).unwrap();
    let error = client.get::<serde_json::Value>("/v1/nothing").await.unwrap_err();
    assert_eq!(error.kind(), driver_api::ErrorKind::NOT_FOUND);
    let body = serde_json::json!({ "name": "a", "size": 1, "sice": 2 });
    let error = client.post::<serde_json::Value>("/v1/volumes", &body).await.unwrap_err();
    assert!(error.message().contains("sice"), "{error}");
    assert_eq!(error.kind(), driver_api::ErrorKind::INVALID_ARGUMENT);
}
