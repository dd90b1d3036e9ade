// SPDX-License-Identifier: Apache-2.0
//! One connection: requests in, replies out, one after the other.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::{fs::FileExt, fs::MetadataExt, net::UnixStream},
    },
    path::{Path, PathBuf},
};

use driver_api::ErrorKind;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, fcntl_lock, seek},
    io::Errno,
    process::{
        Flock, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal,
    },
};

use crate::wire::{Answer, Call, PREFIX, Refusal, Reply, Request, Volume, Way, frame, lengths};

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK: u64 = 512;

struct Session<'a> {
    directory: &'a Path,
    open: Option<File>,
}

/// Serves the connection that is this process's standard input, until the client ends it.
pub(crate) fn serve(directory: &Path) -> io::Result<()> {
    // A frozen session must not outlive the server.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut session = Session { directory, open: None };
    while let Some((head, bytes)) = receive(&mut stream)? {
        let Request { id, call } = serde_json::from_slice(&head)?;
        let (result, bytes) = match session.perform(call, &bytes) {
            Ok((answer, bytes)) => (Ok(answer), bytes),
            Err(error) => {
                let kind = ErrorKind::of_io(&error).code();
                (Err(Refusal { kind, message: error.to_string() }), Vec::new())
            }
        };
        match stream.write_all(&frame(&Reply { id, result }, &bytes)?) {
            // What was asked is done, also for a client that is gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
    }
    Ok(())
}

/// The next request's head and bytes; nothing at the end.
fn receive(stream: &mut UnixStream) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut prefix = [0; PREFIX];
    match stream.read_exact(&mut prefix) {
        Err(error)
            if [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset]
                .contains(&error.kind()) =>
        {
            return Ok(None);
        }
        read => read?,
    }
    let (head, bytes) = lengths(prefix);
    let (mut head, mut bytes) = (vec![0; head], vec![0; bytes]);
    stream.read_exact(&mut head)?;
    stream.read_exact(&mut bytes)?;
    Ok(Some((head, bytes)))
}

impl Session<'_> {
    fn perform(&mut self, call: Call, bytes: &[u8]) -> io::Result<(Answer, Vec<u8>)> {
        let mut reply = Vec::new();
        let answer = match call {
            Call::Create { name, size } => self.create(&name, size)?,
            Call::Delete { name } => {
                fs::remove_file(self.path(&name)?)?;
                Answer::Done
            }
            Call::List => self.list()?,
            Call::Show { name } => Answer::Volume(volume(&name, &fs::metadata(self.path(&name)?)?)),
            Call::Open { name, way } => {
                let file = File::options().read(true).write(true).open(self.path(&name)?)?;
                match way {
                    Way::Beside => {}
                    Way::Alone => fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
                        .map_err(|_| io::Error::from(io::ErrorKind::ResourceBusy))?,
                    Way::TakeOver => take_over(&file)?,
                }
                let shown = volume(&name, &file.metadata()?);
                self.open = Some(file);
                println!("session {} {name}", std::process::id());
                Answer::Volume(shown)
            }
            Call::Read { offset, len } => {
                reply.resize(len as usize, 0);
                self.file()?.read_exact_at(&mut reply, offset)?;
                Answer::Done
            }
            Call::Write { offset } => {
                let end = offset + bytes.len() as u64;
                if self.is_asked("full") && seek(self.file()?, SeekFrom::Hole(offset))? < end {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                self.file()?.write_all_at(bytes, offset)?;
                Answer::Done
            }
            Call::Discard { offset, len } => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(self.file()?, hole, offset, len)?;
                Answer::Done
            }
            Call::Close => {
                self.file()?.sync_data()?;
                self.open = None;
                Answer::Done
            }
            Call::Flush => {
                if self.is_asked("refuses-flush") {
                    return Err(Errno::IO.into());
                }
                self.file()?.sync_data()?;
                Answer::Done
            }
        };
        Ok((answer, reply))
    }

    /// Whether there is a file of this name, by which a test asks for a fault.
    fn is_asked(&self, fault: &str) -> bool {
        self.directory.join(fault).exists()
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if name.contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name has no slash"));
        }
        Ok(self.directory.join(format!("{name}.raw")))
    }

    fn file(&self) -> io::Result<&File> {
        let nothing = || io::Error::new(io::ErrorKind::InvalidInput, "no volume is open");
        self.open.as_ref().ok_or_else(nothing)
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Answer> {
        let path = self.path(name)?;
        let file = match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let known = fs::metadata(&path)?;
                if known.len() != size {
                    return Err(io::Error::new(error.kind(), "it has another size"));
                }
                return Ok(Answer::Volume(volume(name, &known)));
            }
            file => file?,
        };
        file.set_len(size)?;
        file.sync_all()?;
        File::open(self.directory)?.sync_all()?;
        Ok(Answer::Volume(volume(name, &file.metadata()?)))
    }

    fn list(&self) -> io::Result<Answer> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(self.directory)? {
            let entry = entry?;
            if let Some(name) =
                entry.file_name().to_str().and_then(|file| file.strip_suffix(".raw"))
            {
                volumes.push(volume(name, &entry.metadata()?));
            }
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Answer::Volumes(volumes))
    }
}

/// Takes the lock on a volume; whoever has it is ended first, whatever it still has to do.
fn take_over(file: &File) -> io::Result<()> {
    while let Err(refused) = fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        if ![Errno::AGAIN, Errno::ACCESS].contains(&refused) {
            return Err(refused.into());
        }
        let Some(holder) = holder(file)? else { continue };
        let process = match pidfd_open(holder, PidfdFlags::empty()) {
            Err(Errno::SRCH) => continue,
            process => process?,
        };
        // The number may have become another process's before there was a handle.
        if self::holder(file)? == Some(holder) {
            pidfd_send_signal(&process, Signal::KILL)?;
            poll(&mut [PollFd::new(&process, PollFlags::IN)], None)?;
        }
    }
    Ok(())
}

/// The process that has the lock on a volume.
fn holder(file: &File) -> io::Result<Option<Pid>> {
    let lock = fcntl_getlk(file, &Flock::from(FlockType::WriteLock))?;
    Ok(lock.and_then(|lock| lock.pid))
}

fn volume(name: &str, file: &fs::Metadata) -> Volume {
    Volume { name: name.to_owned(), size: file.len(), used: file.blocks() * STAT_BLOCK }
}
