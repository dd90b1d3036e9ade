// SPDX-License-Identifier: Apache-2.0
//! Where the built host and drivers are: beside the program that asks.

use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Outcome, ensure};

/// The files of one build.
#[derive(Clone, Debug)]
pub struct Artifacts {
    directory: PathBuf,
}

impl Artifacts {
    /// The build that the running program belongs to.
    ///
    /// # Errors
    /// When its path is unknown.
    pub fn of_this_build() -> Outcome<Self> {
        let program = std::env::current_exe().context("path of this program")?;
        let directory =
            program.parent().ok_or_else(|| Failure::new("this program has no directory"))?;
        // cargo puts test programs one deeper.
        let directory = if directory.ends_with("deps") {
            directory.parent().unwrap_or(directory)
        } else {
            directory
        };
        Ok(Self { directory: directory.to_owned() })
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        self.directory.parent().unwrap_or(&self.directory)
    }

    /// The host.
    ///
    /// # Errors
    /// When it was not built.
    pub fn host(&self) -> Outcome<PathBuf> {
        self.file("novastor")
    }

    /// The local driver.
    ///
    /// # Errors
    /// When it was not built.
    pub fn local(&self) -> Outcome<PathBuf> {
        self.file("liblocal.so")
    }

    /// The distributed driver.
    ///
    /// # Errors
    /// When it was not built.
    pub fn distributed(&self) -> Outcome<PathBuf> {
        self.file("libdistributed.so")
    }

    /// The ceph driver.
    ///
    /// # Errors
    /// When it was not built.
    pub fn ceph(&self) -> Outcome<PathBuf> {
        self.file("libceph.so")
    }

    /// The netfs driver.
    ///
    /// # Errors
    /// When it was not built.
    pub fn netfs(&self) -> Outcome<PathBuf> {
        self.file("libnetfs.so")
    }

    /// The object-storage driver.
    ///
    /// # Errors
    /// When it was not built.
    pub fn object_storage(&self) -> Outcome<PathBuf> {
        self.file("libobject_storage.so")
    }

    /// The program that plays the test suite of the crate `object_store`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn object_suite(&self) -> Outcome<PathBuf> {
        self.file("object-suite")
    }

    /// The simulator of the distributed core.
    ///
    /// # Errors
    /// When it was not built.
    pub fn simulator(&self) -> Outcome<PathBuf> {
        self.file("novastor-simulation")
    }

    /// The driver of volumes in memory.
    ///
    /// # Errors
    /// When it was not built.
    pub fn ram(&self) -> Outcome<PathBuf> {
        self.file("libram.so")
    }

    /// The driver that misbehaves on request.
    ///
    /// # Errors
    /// When it was not built.
    pub fn faulty(&self) -> Outcome<PathBuf> {
        self.file("libfaulty.so")
    }

    /// The driver of volumes behind a server.
    ///
    /// # Errors
    /// When it was not built.
    pub fn remote(&self) -> Outcome<PathBuf> {
        self.file("libremote.so")
    }

    /// That server.
    ///
    /// # Errors
    /// When it was not built.
    pub fn remote_server(&self) -> Outcome<PathBuf> {
        self.file("remote-server")
    }

    /// A benchmark: `abi`, `distributed`, `nbd`, `netfs`, `objects` or `rbd`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn benchmark(&self, name: &str) -> Outcome<PathBuf> {
        self.file(name)
    }

    fn file(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.directory.join(name);
        ensure(path.is_file(), || {
            format!("{} is not built: run tests/show, which builds it", path.display())
        })?;
        Ok(path)
    }
}
