// SPDX-License-Identifier: Apache-2.0
//! An export as a file, as a block device, as a mounted filesystem: nbdfuse, a loop device, mount. Each undone on drop.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    failure::{Context, Outcome, ensure},
    program::{Program, Running, until},
};

/// An export that appears as a file.
pub struct ExportFile {
    running: Running,
    directory: PathBuf,
}

impl ExportFile {
    /// Lets `uri` appear as `directory/nbd`; the directory is made.
    ///
    /// # Errors
    /// When nbdfuse cannot start.
    pub fn new(directory: &Path, uri: &str) -> Outcome<Self> {
        fs::create_dir_all(directory).context(directory.display())?;
        let file = directory.join("nbd");
        let log = directory.with_extension("log");
        let mut running = Program::as_root("nbdfuse").arg(&file).arg(uri).start(&log)?;
        until(Duration::from_secs(20), || {
            let size = fs::metadata(&file).context(file.display());
            running.still_runs()?;
            ensure(size?.len() > 0, || format!("{} is empty", file.display()))
        })?;
        Ok(Self { running, directory: directory.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.join("nbd")
    }

    /// Takes the file away again.
    ///
    /// # Errors
    /// When it is in use.
    pub fn close(mut self) -> Outcome {
        self.unmount()
    }

    /// Takes the name away while it is in use; whoever uses it finds nothing behind it.
    ///
    /// # Errors
    /// When it has no name any more.
    pub fn lose(&mut self) -> Outcome {
        // Without an export it may have ended by itself, and taken the name with it.
        let unmount = Program::as_root("fusermount3").arg("-uz").arg(&self.directory);
        let said = unmount.codes(&[0, 1]).run()?.stderr;
        let left = fs::read_dir(&self.directory).context(self.directory.display())?.count();
        ensure(left == 0, || format!("{} is still there: {said}", self.path().display()))?;
        if self.running.still_runs().is_err() {
            return Ok(());
        }
        self.running.signal(Signal::KILL)?;
        self.running.wait(Duration::from_secs(30)).map(drop)
    }

    fn unmount(&mut self) -> Outcome {
        Program::as_root("fusermount3").arg("-u").arg(&self.directory).run()?;
        self.running.wait(Duration::from_secs(30)).map(drop)
    }
}

impl Drop for ExportFile {
    fn drop(&mut self) {
        if self.running.still_runs().is_ok()
            && let Err(failure) = self.unmount()
        {
            report(Err(failure));
            report(Program::as_root("fusermount3").arg("-uz").arg(&self.directory).run().map(drop));
        }
    }
}

/// A filesystem on an export, mounted.
pub struct Mounted {
    // In the order of their undoing.
    mount: Option<PathBuf>,
    device: Option<String>,
    file: ExportFile,
}

impl Mounted {
    /// Mounts the filesystem on `uri` at `directory/mnt`.
    ///
    /// # Errors
    /// When a step fails; the steps before are undone.
    pub fn new(directory: &Path, uri: &str) -> Outcome<Self> {
        let file = ExportFile::new(&directory.join("fuse"), uri)?;
        let mut mounted = Self { mount: None, device: None, file };
        let point = directory.join("mnt");
        fs::create_dir_all(&point).context(point.display())?;
        let said = Program::as_root("losetup")
            .args(["--find", "--show"])
            .arg(mounted.file.path())
            .run()?;
        let device = said.stdout.trim().to_owned();
        mounted.device = Some(device.clone());
        Program::as_root("mount").arg(&device).arg(&point).run()?;
        mounted.mount = Some(point);
        Ok(mounted)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mount.as_deref().unwrap_or(Path::new(""))
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// When it is in use.
    pub fn close(mut self) -> Outcome {
        self.undo()
    }

    /// Takes the filesystem's name away while it is in use, and the export from under it: its users' operations fail from then
    /// on, for ever. The name is free for another filesystem.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lose(mut self) -> Outcome {
        self.abandon();
        self.file.lose()
    }

    fn undo(&mut self) -> Outcome {
        if let Some(point) = &self.mount {
            // Whoever looks into every new mount, such as an indexer, is soon gone.
            until(Duration::from_secs(10), || Program::as_root("umount").arg(point).run())?;
            self.mount = None;
        }
        if let Some(device) = &self.device {
            Program::as_root("losetup").arg("-d").arg(device).run()?;
            self.device = None;
        }
        Ok(())
    }

    /// Takes the names away; the kernel lets go when the last user does.
    fn abandon(&mut self) {
        if let Some(point) = self.mount.take() {
            report(Program::as_root("umount").arg("--lazy").arg(point).run().map(drop));
        }
        if let Some(device) = self.device.take() {
            report(Program::as_root("losetup").arg("-d").arg(device).run().map(drop));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(failure) = self.undo() {
            report(Err(failure));
            self.abandon();
        }
    }
}

/// A drop cannot fail, but what it leaves behind must be seen.
fn report(outcome: Outcome) {
    if let Err(failure) = outcome {
        eprintln!("cleaning up: {failure}");
    }
}
