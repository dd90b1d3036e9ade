// SPDX-License-Identifier: Apache-2.0
//! The servers that are compared, all running at once, each with a disk of the same contents.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use end_to_end::{
    artifacts::Artifacts,
    cpu,
    failure::{Context, Failure, Outcome},
    host::{Host, install},
    program::{Program, Running, until},
};
use tempfile::TempDir;

use crate::load::put_stamps;

const PATIENCE: Duration = Duration::from_secs(30);
/// Where files are that no disk shall slow down.
const MEMORY: &str = "/dev/shm";

/// A kind of disk, as each server has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    /// In memory.
    Ram,
    /// A file in the page cache, all of them on one file system.
    File,
}

impl Disk {
    /// The kind, in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "RAM",
            Self::File => "files",
        }
    }

    /// What the servers serve.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ram => {
                "RAM: driver ram | nbdkit memory | qemu-nbd over a raw file in /dev/shm (cache=writeback)"
            }
            Self::File => {
                "files: driver local (raw) | nbdkit file | qemu-nbd over a raw file (cache=writeback); page cache, one file system"
            }
        }
    }
}

/// A running server.
pub struct Server {
    /// Its name in the table.
    pub name: &'static str,
    /// The export.
    pub uri: String,
    process: Process,
}

enum Process {
    Host(Host),
    Peer(Running),
}

impl Server {
    /// CPU seconds that the server has used, in user and kernel mode.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_secs(&self) -> Outcome<f64> {
        let id = match &self.process {
            Process::Host(host) => host.id()?,
            Process::Peer(running) => running.id(),
        };
        cpu::secs_of(id).context(self.name)
    }
}

/// The servers of one kind of disk, and the image that fills them.
pub struct Servers {
    /// Ours, nbdkit, qemu-nbd.
    pub all: [Server; 3],
    /// A stamped image in memory, as large as the disks.
    pub image: PathBuf,
    /// Where the files lie.
    files: PathBuf,
    // Last: the servers end first.
    _directories: [TempDir; 2],
}

impl Servers {
    /// Starts all three and fills their disks.
    ///
    /// # Errors
    /// When a program is missing or fails.
    pub fn start(disk: Disk, size: u64) -> Outcome<Self> {
        let directory = |builder: &tempfile::Builder<'_, '_>, place: &Path| {
            builder.tempdir_in(place).context(place.display())
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix("novastor-bench-");
        let memory = directory(&builder, Path::new(MEMORY))?;
        let own = directory(&builder, &std::env::temp_dir())?;
        let image = memory.path().join("image");
        write_image(&image, size)?;
        let files = if disk == Disk::Ram { memory.path() } else { own.path() }.to_owned();
        let all = [
            ours(disk, size)?,
            nbdkit(disk, size, own.path(), &files)?,
            qemu_nbd(size, own.path(), &files)?,
        ];
        for server in &all {
            Program::new("nbdcopy").arg(&image).arg(&server.uri).run()?;
        }
        Ok(Self { all, image, files, _directories: [memory, own] })
    }

    /// Waits until the file system has nothing to write, so that nobody pays for what another wrote.
    ///
    /// # Errors
    /// When it cannot write.
    pub fn settle(&self) -> Outcome {
        let directory = File::open(&self.files).context(self.files.display())?;
        rustix::fs::syncfs(&directory).context("syncfs")
    }
}

fn write_image(path: &Path, size: u64) -> Outcome {
    let mut image = BufWriter::new(File::create_new(path).context(path.display())?);
    // Not zeros, which clients and servers might leave out.
    let mut part = vec![0xA5; 1 << 20];
    for offset in (0..size).step_by(part.len()) {
        put_stamps(&mut part, offset);
        image.write_all(&part).context(path.display())?;
    }
    image.flush().context(path.display())
}

fn ours(disk: Disk, size: u64) -> Outcome<Server> {
    let artifacts = Artifacts::of_this_build()?;
    let host = Host::start(&artifacts, "\n[backends.ram]\ndriver = \"ram\"\n")?;
    match disk {
        Disk::Ram => {
            install(&artifacts.ram()?, &host.plugins())?;
            until(PATIENCE, || host.cli().create_volume("bench", size, Some("ram"), &[]))?;
            host.cli().add_export("bench")?;
        }
        Disk::File => host.volume("bench", size, "raw")?,
    }
    Ok(Server { name: "novastor", uri: host.uri("bench"), process: Process::Host(host) })
}

fn nbdkit(disk: Disk, size: u64, sockets: &Path, files: &Path) -> Outcome<Server> {
    let socket = sockets.join("nbdkit.sock");
    let program = Program::new("nbdkit").args(["--foreground", "--unix"]).arg(&socket);
    let program = match disk {
        Disk::Ram => program.args(["memory", &size.to_string()]),
        Disk::File => program.arg("file").arg(empty_file(&files.join("nbdkit.raw"), size)?),
    };
    peer("nbdkit", program, &socket)
}

fn qemu_nbd(size: u64, sockets: &Path, files: &Path) -> Outcome<Server> {
    let socket = sockets.join("qemu.sock");
    let program = Program::new("qemu-nbd")
        .args(["--persistent", "--shared=8", "--format=raw", "--cache=writeback", "--export-name="])
        .arg("--socket")
        .arg(&socket)
        .arg(empty_file(&files.join("qemu.raw"), size)?);
    peer("qemu-nbd", program, &socket)
}

fn empty_file(path: &Path, size: u64) -> Outcome<&Path> {
    let file = File::create_new(path).context(path.display())?;
    file.set_len(size).context(path.display())?;
    Ok(path)
}

fn peer(name: &'static str, program: Program, socket: &Path) -> Outcome<Server> {
    let mut running = program.start(&socket.with_extension("log"))?;
    until(PATIENCE, || {
        running.still_runs()?;
        UnixStream::connect(socket).map(drop).context("connect")
    })
    .map_err(|failure| Failure::new(format!("{name}: {failure}\n{}", running.said())))?;
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    Ok(Server { name, uri, process: Process::Peer(running) })
}
