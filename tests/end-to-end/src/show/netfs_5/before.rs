// SPDX-License-Identifier: Apache-2.0
//! What lies in some directories: names, kinds, lengths, times and bytes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::failure::{Context, Outcome, ensure};

/// One thing in a directory.
#[derive(PartialEq, Eq, Debug)]
struct Thing {
    inode: u64,
    mode: u32,
    len: u64,
    changed: (i64, i64),
    content: Vec<u8>,
}

/// What lay in some directories once.
pub(super) struct Before {
    rooms: Vec<PathBuf>,
    things: BTreeMap<PathBuf, Thing>,
}

impl Before {
    /// What lies in these directories below `top` now; those that are not there are empty.
    pub fn of(top: &Path, rooms: &[&str]) -> Outcome<Self> {
        let rooms: Vec<PathBuf> = rooms.iter().map(|room| top.join(room)).collect();
        let things = look(&rooms)?;
        Ok(Self { rooms, things })
    }

    /// Fails if anything is different now.
    pub fn is_unchanged(&self) -> Outcome {
        let now = look(&self.rooms)?;
        let paths: std::collections::BTreeSet<_> = self.things.keys().chain(now.keys()).collect();
        let changed: Vec<_> =
            paths.into_iter().filter(|path| self.things.get(*path) != now.get(*path)).collect();
        ensure(changed.is_empty(), || format!("it was refused, and changed {changed:?}"))
    }
}

fn look(rooms: &[PathBuf]) -> Outcome<BTreeMap<PathBuf, Thing>> {
    let mut things = BTreeMap::new();
    let mut rooms: Vec<PathBuf> = rooms.iter().filter(|room| room.is_dir()).cloned().collect();
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).context(room.display())? {
            let path = entry.context(room.display())?.path();
            let meta = fs::symlink_metadata(&path).context(path.display())?;
            if meta.is_dir() {
                rooms.push(path.clone());
            }
            let content =
                if meta.is_file() { fs::read(&path).context(path.display())? } else { Vec::new() };
            // Reading changes when a directory was last read, not when it was changed.
            let changed = (meta.mtime(), meta.mtime_nsec());
            let thing =
                Thing { inode: meta.ino(), mode: meta.mode(), len: meta.len(), changed, content };
            things.insert(path, thing);
        }
    }
    Ok(things)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Before;

    #[test]
    fn a_change_is_seen_wherever_it_is() {
        let room = tempfile::tempdir().unwrap();
        fs::create_dir_all(room.path().join("a/b")).unwrap();
        fs::write(room.path().join("a/b/file"), "content").unwrap();
        let before = Before::of(room.path(), &["a", "nowhere"]).unwrap();
        before.is_unchanged().unwrap();
        fs::write(room.path().join("a/new"), "").unwrap();
        assert!(before.is_unchanged().unwrap_err().to_string().contains("a/new"));
        fs::remove_file(room.path().join("a/new")).unwrap();
        fs::write(room.path().join("a/b/file"), "contend").unwrap();
        assert!(before.is_unchanged().is_err());
    }
}
