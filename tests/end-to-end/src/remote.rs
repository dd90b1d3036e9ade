// SPDX-License-Identifier: Apache-2.0
//! Storage in other processes, which can be frozen: the server of the driver `remote`.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{RecvFlags, recv},
    process::{
        Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
    },
};

use crate::{
    artifacts::Artifacts,
    failure::{Context, Failure, Outcome, ensure},
    program::{Program, Running, until},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// More than a socket holds.
const MOST_PARKED: usize = 4 << 20;

/// A server, and the directory of its volumes.
pub struct Remote {
    server: Running,
    directory: PathBuf,
}

impl Remote {
    /// Starts a server whose files are in this directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(artifacts: &Artifacts, directory: &Path) -> Outcome<Self> {
        fs::create_dir_all(directory).context(directory.display())?;
        // One that was killed leaves its socket and its words.
        for left in ["socket", "log"] {
            match fs::remove_file(directory.join(left)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.context(left)?,
            }
        }
        let program = Program::new(artifacts.remote_server()?);
        let program = program.arg(directory.join("socket")).arg(directory);
        let server = program.start(&directory.join("log"))?;
        let remote = Self { server, directory: directory.to_owned() };
        until(PATIENCE, || {
            ensure(remote.log()?.contains("listening"), || "the server does not listen".into())
        })?;
        Ok(remote)
    }

    /// The section of a backend over it, with further options.
    pub fn section(&self, backend: &str, options: &str) -> String {
        format!(
            "\n[backends.{backend}]\ndriver = \"remote\"\nsocket = \"{}\"\n{options}\n",
            self.directory.join("socket").display()
        )
    }

    /// Has it behave so from now on: `full` or `refuses-flush`.
    ///
    /// # Errors
    /// When its directory cannot be written.
    pub fn fault(&self, name: &str) -> Outcome {
        fs::write(self.directory.join(name), "").context(name)
    }

    /// Ends such a fault; one that did not begin is as good.
    ///
    /// # Errors
    /// When its directory cannot be written.
    pub fn no_fault(&self, name: &str) -> Outcome {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.context(name),
        }
    }

    /// The file of a volume.
    pub fn file(&self, volume: &str) -> PathBuf {
        self.directory.join(format!("{volume}.raw"))
    }

    /// Kills it and all its sessions, as a power cut would; the volumes stay.
    ///
    /// # Errors
    /// When it is gone.
    pub fn kill9(&mut self) -> Outcome {
        self.server.signal_group(Signal::KILL)?;
        self.server.wait(PATIENCE).map(drop)
    }

    /// It and all its sessions stand still.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze_all(&self) -> Outcome {
        self.server.signal_group(Signal::STOP)
    }

    /// They go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw_all(&self) -> Outcome {
        self.server.signal_group(Signal::CONT)
    }

    /// From now on it takes no connections; sessions go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Outcome {
        self.server.signal(Signal::STOP)
    }

    /// It takes connections again, and those that came meanwhile.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Outcome {
        self.server.signal(Signal::CONT)
    }

    /// The process that serves the last attachment of a volume.
    ///
    /// # Errors
    /// When there is none.
    pub fn session(&self, volume: &str) -> Outcome<Session> {
        let log = self.log()?;
        let of_volume = |line: &str| {
            let (id, name) = line.strip_prefix("session ")?.split_once(' ')?;
            (name == volume).then(|| id.parse().ok()).flatten()
        };
        let id: Option<i32> = log.lines().filter_map(of_volume).next_back();
        let pid = id.and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(format!("no session of {volume}: {log}")))?;
        let process =
            pidfd_open(pid, PidfdFlags::empty()).context(format!("session of {volume}"))?;
        Ok(Session { pid, process })
    }

    fn log(&self) -> Outcome<String> {
        fs::read_to_string(self.directory.join("log")).context("log of the server")
    }
}

/// The process behind one connection.
pub struct Session {
    pid: Pid,
    process: OwnedFd,
}

impl Session {
    /// Stops it; returns when it stands still.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Outcome {
        pidfd_send_signal(&self.process, Signal::STOP).context("freeze a session")?;
        until(PATIENCE, || {
            ensure(self.is_frozen()?, || "the session does not stand still".to_owned())
        })
    }

    /// Whether it stands still.
    ///
    /// # Errors
    /// When it is gone.
    pub fn is_frozen(&self) -> Outcome<bool> {
        let stat = format!("/proc/{}/stat", self.pid.as_raw_nonzero());
        let stat = fs::read_to_string(&stat).context(stat)?;
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// Whether it is no more.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn has_ended(&self) -> Outcome<bool> {
        let mut process = [PollFd::new(&self.process, PollFlags::IN)];
        Ok(poll(&mut process, Some(&Timespec::default())).context("watch a session")? > 0)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Outcome {
        pidfd_send_signal(&self.process, Signal::CONT).context("thaw a session")
    }

    /// What was sent to it and it has not read yet, as its socket holds it.
    ///
    /// # Errors
    /// When it is gone, or this process may not look.
    pub fn parked(&self) -> Outcome<Vec<u8>> {
        // Its connection is its standard input.
        let socket = pidfd_getfd(&self.process, 0, PidfdGetfdFlags::empty())
            .context("connection of a session")?;
        let mut bytes = vec![0; MOST_PARKED];
        match recv(&socket, &mut bytes[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((len, _)) => {
                bytes.truncate(len);
                Ok(bytes)
            }
            Err(Errno::AGAIN) => Ok(Vec::new()),
            Err(error) => Err(error).context("look into a connection"),
        }
    }
}
