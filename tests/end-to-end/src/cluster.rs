// SPDX-License-Identifier: Apache-2.0
//! A host with a distributed backend over local ones: each directory is a node.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::{
    artifacts::Artifacts,
    clients,
    failure::{Context, Failure, Outcome, ensure},
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
    /// Starts a host whose distributed backend has so many local nodes, and `others`. `more` goes on with that backend's
    /// section, and may have the sections of the others.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        artifacts: &Artifacts,
        room: &Path,
        nodes: usize,
        others: &[&str],
        more: &str,
    ) -> Outcome<Self> {
        let nodes: Vec<PathBuf> = (1..=nodes).map(|node| room.join(format!("n{node}"))).collect();
        let mut backends = String::new();
        for (number, directory) in (1..).zip(&nodes) {
            fs::create_dir_all(directory).context(directory.display())?;
            backends += &format!(
                "\n[backends.n{number}]\ndriver = \"local\"\ndir = \"{}\"\nreserve_percent = 0\n",
                directory.display()
            );
        }
        let local = (1..=nodes.len()).map(|node| format!("\"n{node}\""));
        let names: Vec<String> =
            local.chain(others.iter().map(|other| format!("\"{other}\""))).collect();
        backends += &format!(
            "\n[backends.{BACKEND}]\ndriver = \"distributed\"\nsynchronous_replication = true\n\
             nodes = [{}]\n{more}\n",
            names.join(", ")
        );
        let host = Host::start(artifacts, &backends)?;
        install(&artifacts.distributed()?, &host.plugins())?;
        Ok(Self { host, nodes })
    }

    /// What the host says of a volume's replicas: for each node with a brick in use the brick's state, and the bytes
    /// copied to it since its last resync began.
    ///
    /// # Errors
    /// When it does not answer, or not in JSON.
    pub fn replicas(&self, volume: &str) -> Outcome<BTreeMap<String, (String, u64)>> {
        let in_use = self.in_use(volume)?;
        let of = |replica: &Value| {
            let node = replica["node"].as_str()?.to_owned();
            Some((node, (replica["state"].as_str()?.to_owned(), replica["copied"].as_u64()?)))
        };
        let states: Option<BTreeMap<_, _>> = in_use.iter().map(of).collect();
        states
            .filter(|states| !states.is_empty())
            .ok_or_else(|| Failure::new(format!("replicas are {in_use:?}")))
    }

    /// The name of the brick that a volume has on a node.
    ///
    /// # Errors
    /// When it has none, or the host does not answer.
    pub fn brick(&self, volume: &str, node: &str) -> Outcome<String> {
        let in_use = self.in_use(volume)?;
        let brick = in_use.iter().find(|replica| replica["node"] == node);
        let name = brick.and_then(|brick| brick["brick"].as_str());
        name.map(ToOwned::to_owned)
            .ok_or_else(|| Failure::new(format!("no brick on {node}: {in_use:?}")))
    }

    /// A volume's replicas that were not replaced.
    fn in_use(&self, volume: &str) -> Outcome<Vec<Value>> {
        let said = self.host.cli().ask().args(["volume", "replicas", volume, "--output", "json"]);
        let answer: Value = serde_json::from_str(&said.run()?.stdout).context("replicas")?;
        let mut replicas = answer["replicas"].as_array().cloned().unwrap_or_default();
        replicas.retain(|replica| replica["state"] != "condemned" && replica["state"] != "keeper");
        Ok(replicas)
    }

    /// Waits until a node's replica is in this state; gives the bytes copied to it.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_replica(&self, volume: &str, node: &str, state: &str) -> Outcome<u64> {
        until(PATIENCE, || {
            let replicas = self.replicas(volume)?;
            match replicas.get(node) {
                Some((now, copied)) if now == state => Ok(*copied),
                _ => Err(Failure::new(format!("{node} is not {state}: {replicas:?}"))),
            }
        })
    }

    /// Creates a volume and exports it.
    ///
    /// # Errors
    /// When that fails.
    pub fn volume(&self, name: &str, size: u64) -> Outcome {
        self.volume_with(name, size, &[])
    }

    /// The same, with options.
    ///
    /// # Errors
    /// When that fails.
    pub fn volume_with(&self, name: &str, size: u64, options: &[(&str, &str)]) -> Outcome {
        // The driver is loaded a moment after it was installed.
        until(PATIENCE, || self.host.cli().create_volume(name, size, Some(BACKEND), options))?;
        self.host.cli().add_export(name)
    }

    /// What lies in the local nodes' directories for volumes.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Outcome<Vec<PathBuf>> {
        let mut files = Vec::new();
        for node in &self.nodes {
            let volumes = node.join("volumes");
            for entry in fs::read_dir(&volumes).context(volumes.display())? {
                files.push(entry.context(volumes.display())?.path());
            }
        }
        files.sort();
        Ok(files)
    }

    /// How many of its nodes are local directories.
    pub fn local_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The files of a volume's bricks, one on each local node that has one.
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
