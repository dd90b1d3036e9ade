// SPDX-License-Identifier: Apache-2.0
//! Reads the repository: its files from git, its crates from cargo.

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{rules::arrows::Package, source::Source};

/// The top of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file that git tracks or would add, in order.
///
/// # Errors
/// When git is missing or this is no repository.
pub fn files(root: &Path) -> Result<Vec<Source>, Box<dyn Error>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = run(Command::new("git").arg("-C").arg(root).args(list))?;
    let mut paths: Vec<_> = output.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut files = Vec::new();
    for path in paths {
        let place = root.join(path);
        // A deleted file stays listed until the deletion is committed; a link's target is listed by itself.
        if place.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            let bytes = std::fs::read(&place).map_err(|error| format!("read {path}: {error}"))?;
            files.push(Source::new(path, &String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(files)
}

/// The workspace's crates.
///
/// # Errors
/// When cargo cannot read the workspace.
pub fn packages(root: &Path) -> Result<Vec<Package>, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = run(Command::new(cargo).current_dir(root).args(metadata))?;
    Package::all(&serde_json::from_str(&output)?)
}

fn run(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {reason}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
