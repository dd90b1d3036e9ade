// SPDX-License-Identifier: Apache-2.0
//! Finds the files of the plugin directory, and tells which of them changed since the last look.

use std::{
    collections::BTreeMap,
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use driver_api::{Error, Result};

/// Everything about a file that decides whether it must be looked at again: content, owner and mode of the file, and
/// owner and mode of the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    file: Option<Facts>,
    directory: (u32, u32),
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Facts {
    device: u64,
    inode: u64,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The candidates in `directory`: names that end in `.so` and are not hidden. The order is that of their names.
pub(super) fn scan(directory: &Path) -> Result<BTreeMap<PathBuf, Stamp>> {
    let about = |error: std::io::Error| {
        Error::from_io(format!("the plugin directory cannot be read: {error}"), &error)
            .with("directory", directory.display())
            .remedy(format!("mkdir -p '{}', and put drivers there", directory.display()))
    };
    let owner = std::fs::metadata(directory).map_err(about)?;
    let owner = (owner.uid(), owner.mode());
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).map_err(about)? {
        let path = entry.map_err(about)?.path();
        if is_candidate(&path) {
            // A file that vanished meanwhile, or a dangling link, has no facts; verifying it says why.
            let file = std::fs::metadata(&path).ok().map(|stat| facts(&stat));
            found.insert(path, Stamp { file, directory: owner });
        }
    }
    Ok(found)
}

/// Copying tools write to hidden or otherwise named files first and rename them.
pub(super) fn is_candidate(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == "so")
}

fn facts(stat: &Metadata) -> Facts {
    Facts {
        device: stat.dev(),
        inode: stat.ino(),
        len: stat.len(),
        modified: (stat.mtime(), stat.mtime_nsec()),
        changed: (stat.ctime(), stat.ctime_nsec()),
    }
}
