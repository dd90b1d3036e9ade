// SPDX-License-Identifier: Apache-2.0
//! Builds hosts and drivers against any copy of driver-api, and lets a host serve a driver.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// This repository's driver-api.
pub fn current_api() -> PathBuf {
    repository().join("driver-api")
}

/// A released driver-api, unpacked into `room`.
pub fn released_api(version: &str, room: &Path) -> io::Result<PathBuf> {
    unpack(&fixtures(version).join(format!("{PACKAGE}-{version}.0.crate")), room)
}

/// A released version's driver, as it was built then.
pub fn released_driver(version: &str) -> PathBuf {
    fixtures(version).join("libmemory.so")
}

/// A copy of this repository's driver-api in which each text was replaced by another; each must occur.
pub fn changed_api(room: &Path, file: &str, changes: &[(&str, &str)]) -> io::Result<PathBuf> {
    let copy = unpack(&packaged()?, room)?;
    let source = copy.join("src").join(file);
    let mut text = fs::read_to_string(&source)?;
    for (from, to) in changes {
        if !text.contains(from) {
            return Err(io::Error::other(format!("{file} does not contain {from:?}")));
        }
        text = text.replacen(from, to, 1);
    }
    fs::write(source, text)?;
    Ok(copy)
}

/// The host of one file, built against this driver-api.
pub fn build_host(api: &Path, room: &Path) -> io::Result<PathBuf> {
    let main = fs::read_to_string(repository().join("tests/old-drivers/host/main.rs"))?;
    let target = build(api, room, "old-host", "main.rs", &main, "[\"import\"]")?;
    keep(&target.join("old-host"), &room.join("host"))
}

/// The memory driver of this driver-api, built against it.
pub fn build_driver(api: &Path, room: &Path) -> io::Result<PathBuf> {
    let source = fs::read_to_string(api.join("examples/memory.rs"))?;
    let target = build(api, room, "old-driver", "lib.rs", &source, "[]")?;
    keep(&target.join("libold_driver.so"), &room.join("libmemory.so"))
}

/// The memory driver of this driver-api with the ability `cluster` as of 1.2, built against it.
pub fn build_cluster_driver(api: &Path, room: &Path) -> io::Result<PathBuf> {
    let memory = fs::read_to_string(api.join("examples/memory.rs"))?;
    let ability = "    fn cluster(&self) -> Option<Arc<dyn ext::Cluster>> {\n        Some(Arc::new(self.clone()))\n    }\n\n";
    let create = "    fn create(";
    let with_ability = memory.replacen(create, &format!("{ability}{create}"), 1);
    if with_ability == memory {
        return Err(io::Error::other(format!("the memory driver does not contain {create:?}")));
    }
    let cluster = fs::read_to_string(repository().join("tests/old-drivers/drivers/cluster.rs"))?;
    // What documents a file stands at its top.
    let cluster = cluster.lines().filter(|line| !line.starts_with("//!"));
    let source = with_ability + &cluster.collect::<Vec<_>>().join("\n");
    let target = build(api, room, "old-driver", "lib.rs", &source, "[]")?;
    keep(&target.join("libold_driver.so"), &room.join("libcluster.so"))
}

/// What a host said of a driver: whether it served it, and its lines.
#[derive(Debug)]
pub struct Served {
    /// Whether it served the driver to the end.
    pub ok: bool,
    /// What it printed.
    pub lines: String,
}

/// Lets `host` serve `driver`.
pub fn serve(host: &Path, driver: &Path) -> io::Result<Served> {
    let output = Command::new(host).arg(driver).output()?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code().is_none() {
        return Err(io::Error::other(format!("the host was killed: {}\n{lines}", output.status)));
    }
    Ok(Served { ok: output.status.success(), lines })
}

const PACKAGE: &str = "novastor-driver-api";

fn unpack(archive: &Path, room: &Path) -> io::Result<PathBuf> {
    run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(room))?;
    let name = archive.file_stem().map(PathBuf::from).unwrap_or_default();
    Ok(room.join(name))
}

/// This repository's driver-api as it would be published: free of the workspace.
fn packaged() -> io::Result<PathBuf> {
    static PACKAGED: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut packaged = PACKAGED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(archive) = &*packaged {
        return Ok(archive.clone());
    }
    let target = target_directory().join("old-drivers");
    run(cargo()
        .args(["package", "--package", PACKAGE, "--no-verify", "--allow-dirty", "--quiet"])
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", &target))?;
    let manifest = fs::read_to_string(current_api().join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    let version = version.unwrap_or_default().trim_matches('"');
    let archive = target.join("package").join(format!("{PACKAGE}-{version}.crate"));
    *packaged = Some(archive.clone());
    Ok(archive)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn fixtures(version: &str) -> PathBuf {
    repository().join("tests/old-drivers").join(version)
}

/// One build at a time: all share a target directory, and with it the dependencies.
fn build(
    api: &Path,
    room: &Path,
    name: &str,
    file: &str,
    source: &str,
    features: &str,
) -> io::Result<PathBuf> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building: MutexGuard<'_, ()> = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let package = room.join(name);
    fs::create_dir_all(package.join("src"))?;
    let library = if file == "lib.rs" { "\n[lib]\ncrate-type = [\"cdylib\"]\n" } else { "" };
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{library}\n\
         [dependencies]\ntokio = {{ version = \"1\", features = [\"rt\"] }}\n\
         driver-api = {{ package = \"novastor-driver-api\", path = {api:?}, features = {features} }}\n\
         \n[workspace]\n\n[profile.dev]\ndebug = false\n"
    );
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::write(package.join("src").join(file), source)?;
    // The versions of all dependencies are the repository's.
    fs::copy(repository().join("Cargo.lock"), package.join("Cargo.lock"))?;
    let target = target_directory().join("old-drivers");
    run(cargo().args(["build", "--quiet"]).current_dir(&package).env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join("debug"))
}

fn target_directory() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| repository().join("target"), Path::to_owned)
}

/// The next build replaces what this one made.
fn keep(made: &Path, kept: &Path) -> io::Result<PathBuf> {
    fs::copy(made, kept)?;
    Ok(kept.to_owned())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}\n{errors}", output.status)))
}
