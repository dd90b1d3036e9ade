// SPDX-License-Identifier: Apache-2.0
//! Builds hosts and drivers against any copy of driver-api, and lets a host serve a driver.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use tempfile::tempdir;

/// A driver-api that hosts and drivers are built against. What belongs to it lies in one place of the target directory, and
/// changes only with its content, so that nothing that is up to date is built again.
#[derive(Clone, Debug)]
pub struct Api {
    sources: PathBuf,
    room: PathBuf,
}

/// This repository's driver-api.
pub fn current_api() -> io::Result<Api> {
    Ok(Api { sources: repository().join("driver-api"), room: room("current")? })
}

/// A released driver-api.
pub fn released_api(version: &str) -> io::Result<Api> {
    let draft = tempdir()?;
    let archive = fixtures(version).join(format!("{PACKAGE}-{version}.0.crate"));
    Api::of(version, &unpack(&archive, draft.path())?)
}

/// A released version's driver, as it was built then.
pub fn released_driver(version: &str) -> PathBuf {
    fixtures(version).join("libmemory.so")
}

/// A text of a file below `src`, and what replaces it.
pub type Change<'a> = (&'a str, &'a str, &'a str);

/// A copy of this repository's driver-api with these changes; each text must occur.
pub fn changed_api(name: &str, changes: &[Change<'_>]) -> io::Result<Api> {
    let draft = tempdir()?;
    let copy = unpack(&packaged()?, draft.path())?;
    for (file, from, to) in changes {
        let source = copy.join("src").join(file);
        let text = fs::read_to_string(&source)?;
        if !text.contains(from) {
            return Err(io::Error::other(format!("{file} does not contain {from:?}")));
        }
        fs::write(source, text.replacen(from, to, 1))?;
    }
    Api::of(name, &copy)
}

/// The host of one file, built against this driver-api.
pub fn build_host(api: &Api) -> io::Result<PathBuf> {
    let main = fs::read_to_string(repository().join("tests/old-drivers/host/main.rs"))?;
    build(api, "host", "main.rs", &main, "[\"import\"]")
}

/// The memory driver of this driver-api, built against it.
pub fn build_driver(api: &Api) -> io::Result<PathBuf> {
    let source = fs::read_to_string(api.sources.join("examples/memory.rs"))?;
    build(api, "memory", "lib.rs", &source, "[]")
}

/// The memory driver of this driver-api with the ability `cluster` as of 1.2, built against it.
pub fn build_cluster_driver(api: &Api) -> io::Result<PathBuf> {
    let memory = fs::read_to_string(api.sources.join("examples/memory.rs"))?;
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
    build(api, "cluster", "lib.rs", &source, "[]")
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

impl Api {
    fn of(name: &str, sources: &Path) -> io::Result<Self> {
        let _alone = alone()?;
        let room = room(name)?;
        let api = Self { sources: room.join("driver-api"), room };
        mirror(sources, &api.sources)?;
        Ok(api)
    }
}

/// While this is held, no other test and no other test program changes what is built, or its sources.
fn alone() -> io::Result<File> {
    let place = old_drivers();
    fs::create_dir_all(&place)?;
    let file = File::create(place.join("lock"))?;
    file.lock()?;
    Ok(file)
}

fn room(name: &str) -> io::Result<PathBuf> {
    let room = old_drivers().join("rooms").join(name);
    fs::create_dir_all(&room)?;
    Ok(room)
}

/// Makes one directory like another; a file that is the same already keeps its time, by which cargo tells what has changed.
fn mirror(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => mirror(&entry.path(), &target)?,
            false => write_if_changed(&target, &fs::read(entry.path())?)?,
        }
    }
    Ok(())
}

fn write_if_changed(file: &Path, content: &[u8]) -> io::Result<()> {
    match fs::read(file) {
        Ok(now) if now == content => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::write(file, content),
    }
}

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
    let target = old_drivers();
    run(cargo()
        .args(["package", "--package", PACKAGE, "--no-verify", "--allow-dirty", "--quiet"])
        .current_dir(repository())
        .env("CARGO_TARGET_DIR", &target))?;
    let manifest = fs::read_to_string(repository().join("driver-api/Cargo.toml"))?;
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

/// All builds share a target directory, and with it the dependencies. Each has a package of its own name, so that nothing that
/// was made is replaced by what another one makes.
fn build(api: &Api, name: &str, file: &str, source: &str, features: &str) -> io::Result<PathBuf> {
    let _alone = alone()?;
    let package = api.room.join(name);
    fs::create_dir_all(package.join("src"))?;
    let is_library = file == "lib.rs";
    let of = api.room.file_name().unwrap_or_default().to_string_lossy().replace('.', "_");
    let made = format!("old_{name}_{of}").replace('-', "_");
    let library = if is_library { "\n[lib]\ncrate-type = [\"cdylib\"]\n" } else { "" };
    let manifest = format!(
        "[package]\nname = \"{made}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n{library}\n\
         [dependencies]\ntokio = {{ version = \"1\", features = [\"rt\"] }}\n\
         driver-api = {{ package = \"novastor-driver-api\", path = {:?}, features = {features} }}\n\
         \n[workspace]\n\n[profile.dev]\ndebug = false\n",
        api.sources
    );
    write_if_changed(&package.join("Cargo.toml"), manifest.as_bytes())?;
    write_if_changed(&package.join("src").join(file), source.as_bytes())?;
    // The versions of all dependencies are the repository's.
    fs::copy(repository().join("Cargo.lock"), package.join("Cargo.lock"))?;
    let target = old_drivers();
    run(cargo().args(["build", "--quiet"]).current_dir(&package).env("CARGO_TARGET_DIR", &target))?;
    let made = if is_library { format!("lib{made}.so") } else { made };
    Ok(target.join("debug").join(made))
}

/// Where everything is built that is not of this workspace.
fn old_drivers() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let target = exe.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| repository().join("target"), Path::to_owned).join("old-drivers")
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}\n{errors}", output.status)))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, SystemTime},
    };

    use super::mirror;

    #[test]
    fn a_mirror_changes_what_differs_and_nothing_else() {
        let room = tempfile::tempdir().unwrap();
        let (from, to) = (room.path().join("from"), room.path().join("to"));
        for (place, file, text) in [
            (&from, "same", "a"),
            (&from, "changed", "b"),
            (&from, "new", "c"),
            (&to, "same", "a"),
            (&to, "changed", "B"),
            (&to, "gone", "d"),
        ] {
            fs::create_dir_all(place.join("in")).unwrap();
            fs::create_dir_all(to.join("gone-too")).unwrap();
            fs::write(place.join("in").join(file), text).unwrap();
        }
        let before = SystemTime::now() - Duration::from_secs(100);
        for file in ["same", "changed"] {
            let file = fs::File::options().write(true).open(to.join("in").join(file)).unwrap();
            file.set_modified(before).unwrap();
        }
        mirror(&from, &to).unwrap();
        let names = |place: &std::path::Path| {
            let mut names: Vec<_> =
                fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&to), ["in"]);
        assert_eq!(names(&to.join("in")), ["changed", "new", "same"]);
        assert_eq!(fs::read_to_string(to.join("in/changed")).unwrap(), "b");
        let changed =
            |file: &str| fs::metadata(to.join("in").join(file)).unwrap().modified().unwrap();
        assert_eq!(changed("same"), before);
        assert!(changed("changed") > before);
    }
}
