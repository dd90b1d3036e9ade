// SPDX-License-Identifier: Apache-2.0
//! A Ceph cluster on this machine: a monitor, a manager and three OSDs, as `tests/services/ceph` makes it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    artifacts::Artifacts,
    failure::{Context, Outcome, ensure},
    host::{Host, install},
    program::{Program, Said, until},
    workspace::root,
};

/// The backend in this cluster.
pub const BACKEND: &str = "rack";
/// The pool of its images.
pub const POOL: &str = "volumes";
/// The cluster's OSDs.
pub const OSDS: [&str; 3] = ["osd.0", "osd.1", "osd.2"];
/// Its monitor.
pub const MONITOR: &str = "mon.a";
/// How long daemons have to come to terms with each other.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster, which is removed when this is dropped.
pub struct Ceph {
    directory: PathBuf,
}

fn script(verb: &str, directory: &Path) -> Program {
    Program::new(root().join("tests/services/ceph")).arg(verb).arg(directory).limit_secs(180)
}

impl Ceph {
    /// Makes a cluster in this directory, which is made, too.
    ///
    /// # Errors
    /// When its packages are missing, or a daemon does not come up.
    pub fn start(directory: &Path) -> Outcome<Self> {
        script("installed", directory)
            .run()
            .context("librbd or the daemons are missing (tests/services/ceph install)")?;
        // From now on something may be there to be removed.
        let cluster = Self { directory: directory.to_owned() };
        script("start", directory).run()?;
        Ok(cluster)
    }

    /// Its configuration file.
    pub fn conf(&self) -> PathBuf {
        self.directory.join("ceph.conf")
    }

    /// The section of a backend in it, with further options.
    pub fn section(&self, backend: &str, options: &str) -> String {
        format!(
            "\n[backends.{backend}]\ndriver = \"ceph\"\nconf_file = \"{}\"\nuser = \"novastor\"\n\
             pool = \"{POOL}\"\n{options}\n",
            self.conf().display()
        )
    }

    /// A host whose further backend [`BACKEND`] is in it, with these options of that backend, and further sections.
    ///
    /// # Errors
    /// When it does not start, or the backend does not open.
    pub fn host(&self, artifacts: &Artifacts, options: &str) -> Outcome<Host> {
        let host = Host::start(artifacts, &self.section(BACKEND, options))?;
        install(&artifacts.ceph()?, &host.plugins())?;
        until(PATIENCE, || host.cli().ask().args(["backend", "open", BACKEND]).run())?;
        Ok(host)
    }

    /// Signals a daemon, such as `osd.1`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, daemon: &str, signal: &str) -> Outcome {
        script("daemon", &self.directory).args([daemon, signal]).run().map(drop)
    }

    /// Starts a daemon that has ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn again(&self, daemon: &str) -> Outcome {
        // One that was killed may not be gone yet.
        until(Duration::from_secs(10), || {
            let runs = script("runs", &self.directory).arg(daemon).codes(&[0, 1]).run()?.code == 0;
            ensure(!runs, || format!("{daemon} still runs"))
        })?;
        script("again", &self.directory).arg(daemon).run().map(drop)
    }

    /// What an operator of the cluster asks of it, with `ceph`.
    ///
    /// # Errors
    /// When it refuses.
    pub fn admin(&self, words: &[&str]) -> Outcome<Said> {
        Program::new("ceph").arg("-c").arg(self.conf()).args(words).limit_secs(60).run()
    }

    /// The same with `rbd`.
    ///
    /// # Errors
    /// When it refuses.
    pub fn rbd(&self, words: &[&str]) -> Outcome<Said> {
        Program::new("rbd").arg("-c").arg(self.conf()).args(words).limit_secs(300).run()
    }

    /// Waits until all OSDs serve and all objects have all their copies.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_well(&self) -> Outcome {
        until(PATIENCE, || {
            let osds = self.admin(&["osd", "stat"])?.stdout;
            let groups = self.admin(&["pg", "stat"])?.stdout;
            let up = format!(" {} up", OSDS.len());
            let states = groups.split_once(" pgs: ").map_or("", |(_, rest)| rest);
            let clean = states.split(';').next().is_some_and(|states| {
                !states.contains(',') && states.trim_end().ends_with(" active+clean")
            });
            ensure(osds.contains(&up) && clean, || format!("{osds}{groups}"))
        })
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        if !self.conf().exists() {
            return;
        }
        // A drop cannot fail, but what it leaves behind must be seen.
        if let Err(failure) = script("remove", &self.directory).run() {
            eprintln!("cleaning up: {failure}");
        }
    }
}
