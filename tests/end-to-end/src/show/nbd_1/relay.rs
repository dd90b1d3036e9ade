// SPDX-License-Identifier: Apache-2.0
//! nbdkit as a client of an export, which serves it on a socket of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    failure::{Context, Outcome, ensure},
    program::{Program, Running, until},
};

/// An nbdkit that runs until it is dropped.
pub struct Relay {
    running: Running,
    socket: PathBuf,
}

impl Relay {
    /// Starts one: options of its own, then parameters of its plugin `nbd` and of filters.
    ///
    /// # Errors
    /// When it does not open its socket.
    pub fn start(socket: &Path, options: &[&str], parameters: &[&str]) -> Outcome<Self> {
        let program = Program::new("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--unix"])
            .arg(socket)
            .args(options)
            .arg("nbd")
            .args(parameters);
        let mut running = program.start(&socket.with_extension("log"))?;
        until(Duration::from_secs(20), || {
            running.still_runs()?;
            let there = fs::exists(socket).context(socket.display())?;
            ensure(there, || "nbdkit has no socket".to_owned())
        })?;
        Ok(Self { running, socket: socket.to_owned() })
    }

    /// Its address.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        self.running.said()
    }
}
