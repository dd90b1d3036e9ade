// SPDX-License-Identifier: Apache-2.0
//! A libnbd that knows extended headers, whatever the system's is: unpacked beside the build by `tests/end-to-end/libnbd`.

use std::path::PathBuf;

use crate::{
    artifacts::Artifacts,
    failure::{Context, Outcome},
    program::Program,
    workspace::root,
};

/// Where its programs are.
#[derive(Clone, Debug)]
pub struct Libnbd {
    programs: PathBuf,
}

impl Libnbd {
    /// Unpacks it, unless that was done.
    ///
    /// # Errors
    /// When Debian's packages cannot be had.
    pub fn beside(artifacts: &Artifacts) -> Outcome<Self> {
        let directory = artifacts.target().join("libnbd");
        Program::new(root().join("tests/end-to-end/libnbd"))
            .arg(&directory)
            .limit_secs(300)
            .run()
            .context("a libnbd with extended headers")?;
        Ok(Self { programs: directory.join("bin") })
    }

    /// One of its programs: `nbdinfo`, `nbdcopy`, `nbdsh`.
    pub fn program(&self, name: &str) -> Program {
        Program::new(self.programs.join(name))
    }

    /// A script of `tests/end-to-end/nbdsh`, in a Python that has the module `nbd`.
    pub fn script(&self, name: &str) -> Program {
        self.program("python3").arg("-B").arg(root().join("tests/end-to-end/nbdsh").join(name))
    }
}
