// SPDX-License-Identifier: Apache-2.0
//! A disk with a filesystem that can be pulled out while it is in use, and put in again with what it had.

use std::{
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    clients,
    failure::{Context, Failure, Outcome, ensure},
    mount::Mounted,
    program::{Program, Running, until},
};

const SIZE: u64 = 256 << 20;

/// An ext4 filesystem on a loop device over NBD, which its server leaves when it is pulled out.
pub(in crate::show) struct Disk {
    room: PathBuf,
    // In the order of their undoing.
    mounted: Option<Mounted>,
    server: Option<Running>,
}

impl Disk {
    /// A new disk, in use.
    pub fn new(room: &Path) -> Outcome<Self> {
        fs::create_dir_all(room).context(room.display())?;
        clients::ext4_empty(&room.join("image"), SIZE)?;
        let mut disk = Self { room: room.to_owned(), mounted: None, server: None };
        disk.put_in()?;
        Ok(disk)
    }

    /// The root of its filesystem.
    pub fn path(&self) -> PathBuf {
        self.room.join("in-use/mnt")
    }

    /// Pulls it out: whatever uses it fails from now on.
    pub fn pull_out(&mut self) -> Outcome {
        let server = self.server.take();
        server.ok_or_else(|| Failure::new("the disk is out"))?.kill9()?;
        self.mounted.take().map_or(Ok(()), Mounted::lose)
    }

    /// Lets it stand still, so that whatever uses it waits, or lets it go on.
    pub fn hang(&self, hangs: bool) -> Outcome {
        let server = self.server.as_ref().ok_or_else(|| Failure::new("the disk is out"))?;
        server.signal(if hangs { Signal::STOP } else { Signal::CONT })
    }

    /// Puts it in again, with what it had when it was pulled out.
    pub fn put_in(&mut self) -> Outcome {
        let (image, socket) = (self.room.join("image"), self.room.join("socket"));
        clients::fsck_preen(&image)?;
        if socket.exists() {
            fs::remove_file(&socket).context(socket.display())?;
        }
        let server = Program::new("nbdkit").args(["--foreground", "--unix"]).arg(&socket);
        let server = server.arg("file").arg(&image).start(&self.room.join("log"))?;
        self.server = Some(server);
        until(Duration::from_secs(10), || {
            let kind = fs::metadata(&socket).context(socket.display())?.file_type();
            ensure(kind.is_socket(), || "nbdkit does not listen".to_owned())
        })?;
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        self.mounted = Some(Mounted::new(&self.room.join("in-use"), &uri)?);
        Ok(())
    }

    /// Takes it out of use in good order.
    pub fn close(mut self) -> Outcome {
        self.mounted.take().map_or(Ok(()), Mounted::close)
    }
}
