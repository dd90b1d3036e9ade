// SPDX-License-Identifier: Apache-2.0
//! What the tests of plugins share: real drivers, built once, and a plugin directory to put them into.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use driver_api::{
    Attach, AttachMode, BackendConfig, OpContext, Result, VolumeSpec, abi, descriptor,
};
use novastor::plugins::{
    GuardedBackend, GuardedVolume, PluginSettings, PluginState, PluginStatus, Registry, TracingLog,
};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the volumes that the tests make.
pub const SIZE: u64 = 1 << 20;

/// The directory in which cargo puts this profile's libraries.
fn output() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test").to_owned()
}

/// What a test driver is built together with: what uses every feature that the workspace uses of the driver's dependencies.
/// Alone it would get fewer of them, for which cargo would build all dependencies once more.
const TOGETHER: [&str; 6] =
    ["-p", "novastor", "-p", "novastor-driver-local", "-p", "novastor-driver-distributed"];

/// Builds a test driver in this profile and gives its library.
fn build(package: &str, library: &str) -> PathBuf {
    let output = output();
    let target = output.parent().expect("the target directory");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--lib", "-p", package]).args(TOGETHER);
    cargo.arg("--target-dir").arg(target);
    if output.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "cargo build -p {package}");
    output.join(library)
}

/// The library of the driver that misbehaves on request.
pub fn faulty() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("novastor-test-faulty", "libfaulty.so"))
}

/// The library of the driver whose volumes have replicas.
pub fn mirror() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("novastor-test-mirror", "libmirror.so"))
}

/// The library of the driver that has objects, and no volumes.
pub fn objects() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("novastor-test-objects", "libobjects.so"))
}

/// The library of the layer that forwards.
pub fn forward() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("novastor-test-forward", "libforward.so"))
}

/// Builds a library from source that needs driver-api alone, with this panic strategy.
pub fn from_rust(source: &str, panic: &str) -> Vec<u8> {
    let api = build("novastor-driver-api", "libdriver_api.rlib");
    let room = tempfile::tempdir().expect("a directory");
    let (input, library) = (room.path().join("source.rs"), room.path().join("library.so"));
    fs::write(&input, source).expect("a source file");
    let mut rustc = Command::new("rustc");
    rustc.args([
        "--edition=2024",
        "--crate-type=cdylib",
        "--crate-name=from_source",
        "-A",
        "warnings",
    ]);
    rustc.arg(format!("-Cpanic={panic}")).arg("-o").args([&library, &input]);
    rustc.arg("--extern").arg(format!("driver_api={}", api.display()));
    rustc.arg("-L").arg(format!("dependency={}", output().join("deps").display()));
    let status = rustc.env("CARGO_PKG_VERSION", "1.0.0").status().expect("rustc runs");
    assert!(status.success(), "rustc");
    fs::read(library).expect("a library")
}

/// A plugin directory with its registry.
pub struct House {
    pub registry: Arc<Registry>,
    pub plugins: PathBuf,
    pub private: PathBuf,
    _root: TempDir,
}

impl House {
    pub fn new() -> Self {
        Self::allowing(None)
    }

    pub fn allowing(allow_sha256: Option<Vec<String>>) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let (plugins, private) = (root.path().join("plugins.d"), root.path().join("private"));
        fs::create_dir(&plugins).expect("plugins.d");
        fs::set_permissions(&plugins, fs::Permissions::from_mode(0o755)).expect("its mode");
        let settings =
            PluginSettings { dir: plugins.clone(), private_dir: private.clone(), allow_sha256 };
        let registry = Registry::new(settings, Arc::new(TracingLog));
        Self { registry, plugins, private, _root: root }
    }

    /// Puts a file there in one step, as an installer does.
    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let (hidden, file) = (self.plugins.join(format!(".{name}.new")), self.plugins.join(name));
        fs::write(&hidden, content).expect("a file");
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o755)).expect("its mode");
        fs::rename(&hidden, &file).expect("its name");
        file
    }

    /// Puts a file there and looks at it.
    pub fn offer(&self, name: &str, content: &[u8]) -> PluginStatus {
        self.put(name, content);
        self.registry.rescan().expect("a scan");
        self.status(name)
    }

    /// The first line of the list that is about this file.
    pub fn status(&self, name: &str) -> PluginStatus {
        let list = self.registry.list();
        list.iter().find(|status| status.file == name).cloned().unwrap_or_else(|| {
            panic!("{name} is not listed: {list:?}");
        })
    }

    /// Waits until the watched directory has brought a file into a state.
    pub fn wait_for(&self, name: &str, wanted: impl Fn(&PluginStatus) -> bool) -> PluginStatus {
        let found = || self.registry.list().into_iter().find(|s| s.file == name && wanted(s));
        wait(found).unwrap_or_else(|| panic!("{name} stays as it is: {:?}", self.registry.list()))
    }

    /// A backend of the loaded driver `faulty`.
    pub async fn faulty(&self, options: Value) -> Result<GuardedBackend> {
        let driver = self.registry.driver("faulty")?;
        driver.open(BackendConfig::new("f", &options)).await
    }
}

/// Asks until there is an answer, for ten seconds.
pub fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Creates and attaches a volume.
pub async fn volume(backend: &GuardedBackend, name: &str) -> Result<GuardedVolume> {
    let cx = OpContext::new();
    backend.create(&cx, VolumeSpec::new(name, SIZE)).await?;
    backend.attach(&cx, name, Attach::new(AttachMode::EXCLUSIVE, 1, "test")).await
}

/// Asserts that a file was refused, for a reason and with a remedy that contain these texts.
pub fn assert_refused(status: &PluginStatus, reason: &str, remedy: &str) {
    assert_eq!(status.state, PluginState::Refused, "{status:?}");
    assert!(status.reason.contains(reason), "{reason:?} is not in {status:?}");
    assert!(status.remedy.contains(remedy), "{remedy:?} is not in {status:?}");
}

/// A copy of a driver with another word at this place of its descriptor.
pub fn patched(content: &[u8], at: usize, word: u32) -> Vec<u8> {
    let start = [&descriptor::MAGIC[..], &abi::MAJOR.to_le_bytes()].concat();
    let mut places = content.windows(start.len()).enumerate().filter(|(_, part)| *part == start);
    let (descriptor, _) = places.next().expect("a descriptor");
    assert!(places.next().is_none(), "one descriptor");
    let mut copy = content.to_vec();
    copy[descriptor + at..][..4].copy_from_slice(&word.to_le_bytes());
    copy
}

/// The library of the driver that misbehaves on request, without what only debuggers read.
pub fn small() -> &'static [u8] {
    static STRIPPED: OnceLock<Vec<u8>> = OnceLock::new();
    STRIPPED.get_or_init(|| {
        let target = tempfile::NamedTempFile::new().expect("a file");
        let stripped =
            Command::new("strip").arg("-S").arg("-o").args([target.path(), faulty()]).status();
        assert!(stripped.expect("strip runs").success(), "strip");
        fs::read(target.path()).expect("the stripped library")
    })
}
