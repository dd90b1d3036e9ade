// SPDX-License-Identifier: Apache-2.0
//! A host with a distributed backend over local ones: each directory is a node.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    artifacts::Artifacts,
    clients,
    failure::{Context, Outcome, ensure},
    host::{Host, install},
    program::until,
};

/// The distributed backend.
pub const BACKEND: &str = "dist";
const PATIENCE: Duration = Duration::from_secs(30);

/// The host, and the directories of its nodes.
pub struct Cluster {
    /// The host.
    pub host: Host,
    nodes: Vec<PathBuf>,
}

impl Cluster {
    /// Starts a host whose distributed backend has so many nodes, with further keys of that backend's section.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(artifacts: &Artifacts, room: &Path, nodes: usize, more: &str) -> Outcome<Self> {
        let nodes: Vec<PathBuf> = (1..=nodes).map(|node| room.join(format!("n{node}"))).collect();
        let mut backends = String::new();
        for (number, directory) in (1..).zip(&nodes) {
            fs::create_dir_all(directory).context(directory.display())?;
            backends += &format!(
                "\n[backends.n{number}]\ndriver = \"local\"\ndir = \"{}\"\n",
                directory.display()
            );
        }
        let names: Vec<String> = (1..=nodes.len()).map(|node| format!("\"n{node}\"")).collect();
        backends += &format!(
            "\n[backends.{BACKEND}]\ndriver = \"distributed\"\nsynchronous_replication = true\n\
             nodes = [{}]\n{more}\n",
            names.join(", ")
        );
        let host = Host::start(artifacts, &backends)?;
        install(&artifacts.distributed()?, &host.plugins())?;
        Ok(Self { host, nodes })
    }

    /// Creates a volume and exports it.
    ///
    /// # Errors
    /// When that fails.
    pub fn volume(&self, name: &str, size: u64) -> Outcome {
        // The driver is loaded a moment after it was installed.
        until(PATIENCE, || self.host.cli().create_volume(name, size, Some(BACKEND), &[]))?;
        self.host.cli().add_export(name)
    }

    /// The files of a volume's bricks, one on each node that has one.
    ///
    /// # Errors
    /// When a node's directory cannot be read.
    pub fn bricks(&self, volume: &str) -> Outcome<Vec<PathBuf>> {
        let mut bricks = Vec::new();
        for node in &self.nodes {
            let volumes = node.join("volumes");
            for entry in fs::read_dir(&volumes).context(volumes.display())? {
                let path = entry.context(volumes.display())?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let number = name.strip_prefix(&format!("{volume}.b"));
                if number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
                    bricks.push(path.join("disk.raw"));
                }
            }
        }
        Ok(bricks)
    }

    /// Looks whether the bricks of a fully replicated volume are equal, byte for byte.
    ///
    /// # Errors
    /// When they are not, or there are not so many.
    pub fn replicas_agree(&self, volume: &str, replicas: usize) -> Outcome {
        let bricks = self.bricks(volume)?;
        ensure(bricks.len() == replicas, || {
            format!("{} bricks of {volume}, expected {replicas}", bricks.len())
        })?;
        for other in &bricks[1..] {
            clients::same_bytes(&bricks[0], other)?;
        }
        Ok(())
    }
}
