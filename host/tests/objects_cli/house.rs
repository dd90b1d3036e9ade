// SPDX-License-Identifier: Apache-2.0
//! A host, its store, and whoever types.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{road::Road, support};

const NOVASTOR: &str = env!("CARGO_BIN_EXE_novastor");
const PATIENCE: Duration = Duration::from_secs(60);

/// A host with one backend, `mem`, whose store lives as long as it does.
pub struct House {
    pub room: TempDir,
    pub road: Road,
    host: Child,
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

/// Bytes that differ from place to place, and from seed to seed.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Waits until something is so.
pub fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}: it never came to that");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl House {
    pub fn new() -> Self {
        Self::with("")
    }

    /// A host whose store has these further options.
    pub fn with(options: &str) -> Self {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name);
        let plugins = at("plugins.d");
        fs::create_dir(&plugins).unwrap();
        fs::set_permissions(&plugins, fs::Permissions::from_mode(0o755)).unwrap();
        let library = plugins.join("libobjects.so");
        fs::copy(support::objects(), &library).unwrap();
        fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).unwrap();
        let config = format!(
            "runtime_dir = {0:?}\nstate_dir = {0:?}\n[plugins]\ndir = {1:?}\n\
             [backends.mem]\ndriver = \"objects\"\n{options}\n",
            room.path(),
            plugins,
        );
        fs::write(at("host.toml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let host = Command::new(NOVASTOR)
            .args(["serve", "--config"])
            .arg(at("host.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let road = Road::new(&at("road.sock"), &at("api.sock"));
        let house = Self { room, road, host };
        until("the host serves", || house.run(&["backend", "show", "mem"]).status.success());
        house.say(&["bucket", "create", "photos"]);
        house
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.file(name), content).unwrap();
        self.text(name)
    }

    /// A path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NOVASTOR);
        command.arg("--socket").arg(self.file("road.sock")).args(arguments);
        command.env("XDG_STATE_HOME", self.file("state")).current_dir(self.room.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Begins a command in the background.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// A command that succeeds, and what it writes.
    pub fn say(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = arguments.contains(&"--output");
        let more: &[&str] = if said { &[] } else { &["--output", "json"] };
        let text = self.say(&[arguments, more].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A command that fails: its exit code and what it says.
    pub fn refuse(&self, arguments: &[&str]) -> (i32, String) {
        ended(self.begin(arguments))
    }

    /// Has the next calls of the store go wrong.
    pub fn fault(&self, fault: Value) {
        self.say(&["backend", "run", "mem", "fault", &fault.to_string()]);
    }

    /// Has the next calls of this name take their time.
    pub fn slow(&self, call: &str, milliseconds: u64) {
        self.fault(json!({ "call": call, "wait_ms": milliseconds, "times": 100_000 }));
    }

    /// How often the store was asked for something.
    pub fn asked(&self, call: &str) -> u64 {
        let mut host = UnixStream::connect(self.file("api.sock")).unwrap();
        let head = "GET /v1/backends/mem HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        host.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        host.read_to_string(&mut text).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        let backend: Value = serde_json::from_str(body).unwrap();
        let name = format!("{call}_total");
        let figures = backend["stats"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["name"].as_str().unwrap().ends_with(&name));
        found.map_or(0, |figure| figure["value"].as_f64().unwrap() as u64)
    }

    /// The bytes of an object, as the host has them.
    pub fn content(&self, object: &str) -> Vec<u8> {
        let output = self.run(&["object", "get", object, "-"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    pub fn exists(&self, object: &str) -> bool {
        self.run(&["object", "head", object]).status.success()
    }

    /// Unfinished uploads.
    pub fn uploads(&self) -> usize {
        self.json(&["bucket", "uploads", "photos"]).as_array().unwrap().len()
    }

    /// Journals of transfers that can go on.
    pub fn journals(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.file("state/novastor/transfers")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

/// The exit code of a command that fails, and what it says.
pub fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    (output.status.code().unwrap(), text)
}

/// A command that succeeds, and its answer.
pub fn answered(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Ends a command as a crash does.
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Presses Ctrl-C.
pub fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
}

/// What a file has.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
