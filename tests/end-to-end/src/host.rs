// SPDX-License-Identifier: Apache-2.0
//! A host of one's own: `novastor serve` in a temporary directory, with its own sockets, data and plugins.d.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    artifacts::Artifacts,
    cli::Cli,
    failure::{Context, Failure, Outcome, ensure},
    nbd::Client,
    program::{Running, until},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A host and everything it owns. Dropping it kills the process and removes the directory.
pub struct Host {
    // Before the directory, so that it is dead when its files go.
    running: Option<Running>,
    cli: Cli,
    environment: Vec<(&'static str, String)>,
    directory: TempDir,
}

impl Host {
    /// Starts a host with the local driver as its active backend `disk`; `more` is appended to its configuration.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn start(artifacts: &Artifacts, more: &str) -> Outcome<Self> {
        Self::start_serving(artifacts, "", more)
    }

    /// The same, with further keys of the section `nbd`.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn start_serving(artifacts: &Artifacts, nbd: &str, more: &str) -> Outcome<Self> {
        Self::start_in(artifacts, nbd, more, Vec::new())
    }

    /// The same with variables of its environment.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn start_in(
        artifacts: &Artifacts,
        nbd: &str,
        more: &str,
        environment: Vec<(&'static str, String)>,
    ) -> Outcome<Self> {
        let directory = tempfile::Builder::new()
            .prefix("novastor-")
            .tempdir()
            .context("temporary directory")?;
        let cli = Cli::new(&artifacts.host()?, &directory.path().join("api.sock"));
        let mut host = Self { running: None, cli, environment, directory };
        for room in ["plugins.d", "data"] {
            fs::create_dir(host.path(room)).context(room)?;
        }
        let configuration = configuration(host.directory.path());
        let configuration = configuration.replace("[nbd]\n", &format!("[nbd]\n{nbd}\n"));
        fs::write(host.config(), configuration + more).context("host.toml")?;
        install(&artifacts.local()?, &host.plugins())?;
        host.restart()?;
        Ok(host)
    }

    /// Starts the process again, once it is gone, and waits for its answer.
    ///
    /// # Errors
    /// When it still runs, or does not answer in time.
    pub fn restart(&mut self) -> Outcome {
        ensure(self.running.is_none(), || "the host still runs".to_owned())?;
        let program = self
            .environment
            .iter()
            .fold(self.cli.serve(&self.config()), |program, (key, value)| program.env(key, value));
        let mut running = program.start(&self.path("host.log"))?;
        let answer = until(PATIENCE, || match running.still_runs() {
            Ok(()) => self.cli.status().map(|_| None),
            Err(ended) => Ok(Some(ended)),
        });
        let said = running.said();
        self.running = Some(running);
        match answer {
            Ok(None) => Ok(()),
            Ok(Some(ended)) => Err(ended),
            Err(silent) => Err(silent).context(format!("the host said:\n{said}\nbut")),
        }
    }

    /// Kills the process as a power cut would.
    ///
    /// # Errors
    /// When it had died on its own.
    pub fn kill9(&mut self) -> Outcome {
        self.running.take().ok_or_else(|| Failure::new("the host does not run"))?.kill9()
    }

    /// Ends the process as an operator would.
    ///
    /// # Errors
    /// When it takes too long, or ends with another code than 0.
    pub fn stop(&mut self) -> Outcome {
        let mut running =
            self.running.take().ok_or_else(|| Failure::new("the host does not run"))?;
        running.signal(Signal::TERM)?;
        let status = running.wait(PATIENCE)?;
        ensure(status.success(), || format!("the host ended with {status}\n{}", running.said()))
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Outcome {
        let running = self.running.as_ref();
        running.ok_or_else(|| Failure::new("the host does not run"))?.signal(signal)
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it does not run.
    pub fn id(&self) -> Outcome<u32> {
        let running = self.running.as_ref();
        running.map(Running::id).ok_or_else(|| Failure::new("the host does not run"))
    }

    /// Its command line.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.path("host.toml")
    }

    /// Its directory of drivers.
    pub fn plugins(&self) -> PathBuf {
        self.path("plugins.d")
    }

    /// Its NBD socket.
    pub fn nbd_socket(&self) -> PathBuf {
        self.path("nbd.sock")
    }

    /// An export's address, as clients write it.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.nbd_socket().display())
    }

    /// Creates a volume of the active backend and exports it.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn volume(&self, name: &str, size: u64, format: &str) -> Outcome {
        self.cli.create_volume(name, size, None, &[("format", format)])?;
        self.cli.add_export(name)
    }

    /// A connection to an export, which a restart must not have forgotten.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn connect(&self, export: &str) -> Outcome<Client> {
        Client::connect(&self.nbd_socket(), export).context(format!("connect to {export}"))
    }
}

/// Puts a driver into a directory of plugins as one should: under another name first, so that no half file is seen.
///
/// # Errors
/// When the file cannot be copied.
pub fn install(driver: &Path, plugins: &Path) -> Outcome<PathBuf> {
    let name = driver.file_name().ok_or_else(|| Failure::new("a driver without a name"))?;
    let (target, draft) = (plugins.join(name), plugins.join(".incoming"));
    fs::copy(driver, &draft).context(format!("copy {}", driver.display()))?;
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).context(draft.display())?;
    fs::rename(&draft, &target).context(target.display())?;
    Ok(target)
}

/// The configuration of a host that lives in this directory. Its storage keeps no reserve: how full the disk of the
/// machine is, that tests build on, is not what they ask.
pub fn configuration(directory: &Path) -> String {
    let at = |name: &str| format!("{:?}", directory.join(name).display().to_string());
    format!(
        "active = \"disk\"\n\n\
         [plugins]\ndir = {}\nprivate_dir = {}\n\n\
         [state]\npath = {}\n\n\
         [api]\nsocket = {}\n\n\
         [nbd]\nsocket = {}\n\n\
         [backends.disk]\ndriver = \"local\"\ndir = {}\nreserve_percent = 0\n",
        at("plugins.d"),
        at("private"),
        at("state.redb"),
        at("api.sock"),
        at("nbd.sock"),
        at("data"),
    )
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::install;

    #[test]
    fn a_driver_is_installed_whole_and_not_writable_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let (source, plugins) =
            (directory.path().join("liba.so"), directory.path().join("plugins.d"));
        fs::create_dir(&plugins).unwrap();
        fs::write(&source, "code").unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o777)).unwrap();
        let target = install(&source, &plugins).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "code");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(&plugins).unwrap().count(), 1);
    }
}
