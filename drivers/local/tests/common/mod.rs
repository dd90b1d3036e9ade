// SPDX-License-Identifier: Apache-2.0
//! What the driver's integration tests share.
#![allow(dead_code, missing_docs)]

use std::{path::Path, process::Command};

use driver_api::{Attach, AttachMode, Backend, IoBuf, OpContext, Volume, VolumeSpec, WriteFlags};
use local::{Config, LocalBackend, LocalVolume};

pub const CX: OpContext = OpContext::new();
pub const MIB: u64 = 1 << 20;

pub async fn backend(dir: &Path) -> LocalBackend {
    backend_with(dir, "{}").await
}

pub async fn backend_with(dir: &Path, options: &str) -> LocalBackend {
    let mut options: serde_json::Value = serde_json::from_str(options).expect("JSON");
    options["dir"] = dir.to_str().expect("UTF-8").into();
    let config: Config = serde_json::from_value(options).expect("options");
    LocalBackend::open("test", config).await.expect("opened")
}

pub async fn made(backend: &LocalBackend, name: &str, size: u64, format: &str) -> LocalVolume {
    let spec = VolumeSpec::new(name, size).option("format", format);
    backend.create(&CX, spec).await.expect("created");
    attach(backend, name).await
}

pub async fn attach(backend: &LocalBackend, name: &str) -> LocalVolume {
    backend.attach(&CX, name, writer(1)).await.expect("attached")
}

pub fn writer(epoch: u64) -> Attach {
    Attach::new(AttachMode::EXCLUSIVE, epoch, "test")
}

pub fn reader(epoch: u64) -> Attach {
    Attach::new(AttachMode::READ_ONLY, epoch, "test")
}

pub async fn write(volume: &LocalVolume, offset: u64, data: &[u8]) {
    volume.write(&CX, offset, IoBuf::copy_from(data), WriteFlags::NONE).await.expect("written");
}

pub async fn read(volume: &LocalVolume, offset: u64, len: u32) -> Vec<u8> {
    volume.read(&CX, offset, len).await.expect("read").to_vec()
}

pub async fn is_all(volume: &LocalVolume, offset: u64, len: u32, byte: u8) -> bool {
    read(volume, offset, len).await.iter().all(|&found| found == byte)
}

/// Runs a command to its end, and gives its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{text}", output.status);
    text
}

/// A file system of its own, unmounted at the end.
pub struct Mounted {
    pub dir: tempfile::TempDir,
}

impl Mounted {
    /// `size_mib` MiB of memory as a file system. Needs root.
    pub fn tmpfs(size_mib: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={size_mib}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", dir.path().to_str().expect("UTF-8")]);
        Self { dir }
    }

    /// XFS with shared blocks, in a file at `image`. Needs root.
    pub fn xfs(image: &Path) -> Self {
        let file = std::fs::File::create(image).expect("an image");
        file.set_len(512 * MIB).expect("sized");
        let image = image.to_str().expect("UTF-8");
        run("mkfs.xfs", &["-q", "-m", "reflink=1", image]);
        let dir = tempfile::tempdir().expect("a directory");
        run("mount", &["-o", "loop", image, dir.path().to_str().expect("UTF-8")]);
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the file system stays mounted");
    }
}

/// This test binary again, running only the test `name`, with these variables.
pub fn respawn(name: &str, variables: &[(&str, &str)]) -> std::process::Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture", "--ignored"]);
    command.envs(variables.iter().copied());
    command.stdout(std::process::Stdio::null());
    command.spawn().expect("started")
}
