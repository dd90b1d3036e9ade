// SPDX-License-Identifier: Apache-2.0
//! Runs other programs: with a deadline, with everything they said in the failure, and never without an end.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

use crate::failure::{Context, Failure, Outcome, ensure};

const POLL: Duration = Duration::from_millis(10);
/// How long a dropped program has to end by itself.
const GRACE: Duration = Duration::from_secs(3);
/// How much of a program's output a failure repeats, from the end.
const TAIL: usize = 4000;
/// Bytes that a program may say.
const MOST_SAID: u64 = 64 << 20;

/// A program to be run.
pub struct Program {
    command: Command,
    limit: Duration,
    codes: Vec<i32>,
    stdin: Stdio,
    stdout: Option<File>,
}

/// What a program that ended said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Program {
    /// A program of this name or path, with two minutes to end with code 0.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            command: Command::new(name),
            limit: Duration::from_secs(120),
            codes: vec![0],
            stdin: Stdio::null(),
            stdout: None,
        }
    }

    /// A program that needs root: by sudo where this process is not root.
    pub fn as_root(name: &str) -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::new(name);
        }
        Self::new("sudo").args(["-n", name])
    }

    /// A program that leaves the processors to whoever else wants them.
    pub fn giving_way(name: impl AsRef<OsStr>) -> Self {
        Self::new("nice").args(["-n", "19"]).arg(name)
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Takes a variable out of the environment.
    pub fn without_env(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// The directory to run in.
    pub fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// How long it may take.
    pub fn limit_secs(mut self, secs: u64) -> Self {
        self.limit = Duration::from_secs(secs);
        self
    }

    /// The exit codes that are a success; none for any code.
    pub fn codes(mut self, codes: &[i32]) -> Self {
        self.codes = codes.to_vec();
        self
    }

    /// The file that it reads from.
    ///
    /// # Errors
    /// When there is none.
    pub fn reading(mut self, file: &Path) -> Outcome<Self> {
        self.stdin = File::open(file).context(file.display())?.into();
        Ok(self)
    }

    /// The file to whose end it writes its standard output, which it does not say then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn appending(mut self, file: &Path) -> Outcome<Self> {
        let options = File::options().create(true).append(true).open(file);
        self.stdout = Some(options.context(file.display())?);
        Ok(self)
    }

    fn name(&self) -> String {
        let words = std::iter::once(self.command.get_program()).chain(self.command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot start, takes too long, dies of a signal or ends with another code.
    pub fn run(mut self) -> Outcome<Said> {
        let name = self.name();
        let stdout = self.stdout.map_or_else(Stdio::piped, Stdio::from);
        self.command.stdin(self.stdin).stdout(stdout).stderr(Stdio::piped());
        let mut child = self.command.spawn().context(format!("start {name}"))?;
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let status = wait(&mut child, self.limit);
        if status.is_err() {
            end(&mut child);
        }
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        // A grandchild may hold the pipes of a program that was killed: then what it said is lost, not the time.
        let said = match &status {
            Ok(status) => Said {
                code: status.code().unwrap_or(-1),
                stdout: text(stdout),
                stderr: text(stderr),
            },
            Err(_) => Said { code: -1, stdout: String::new(), stderr: String::new() },
        };
        let status = status.context(&name)?;
        ensure(
            status.code().is_some_and(|code| self.codes.is_empty() || self.codes.contains(&code)),
            || format!("{name}: {status}\n{}{}", tail(&said.stdout), tail(&said.stderr)),
        )?;
        Ok(said)
    }

    /// Starts it in a process group of its own, with its output appended to `log`.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(mut self, log: &Path) -> Outcome<Running> {
        use std::os::unix::process::CommandExt;
        let name = self.name();
        let file = File::options().create(true).append(true).open(log).context(log.display())?;
        let errors = file.try_clone().context(log.display())?;
        self.command.stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = self.command.spawn().context(format!("start {name}"))?;
        Ok(Running { child, name, log: log.to_owned() })
    }
}

fn collect(stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing. The pipe of one that says far more than anybody reads is
        // closed, which ends it: it would take all memory.
        let _ = stream.take(MOST_SAID).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, limit: Duration) -> Outcome<ExitStatus> {
    let deadline = Instant::now() + limit;
    let pid = Pid::from_child(child);
    // It is not reaped yet, so that its number is not another's; its end is known at once, for those who take its time.
    let end = pidfd_open(pid, PidfdFlags::empty()).context("watch")?;
    loop {
        if let Some(status) = child.try_wait().context("wait")? {
            return Ok(status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        ensure(!left.is_zero(), || format!("still running after {} s", limit.as_secs()))?;
        let left = Timespec::try_from(left).context("limit")?;
        match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

/// Kills and reaps a child; one that ended meanwhile is fine.
fn end(child: &mut Child) {
    if child.kill().is_ok() {
        let _ = child.wait();
    }
}

fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// A program in the background; asked to end when dropped, then killed with its process group.
pub struct Running {
    child: Child,
    name: String,
    log: std::path::PathBuf,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When it ended.
    pub fn still_runs(&mut self) -> Outcome {
        match self.child.try_wait().context("wait")? {
            None => Ok(()),
            Some(status) => {
                Err(Failure::new(format!("{} ended: {status}\n{}", self.name, self.said())))
            }
        }
    }

    /// The end of what it said.
    pub fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text)).to_owned()
    }

    /// Sends a signal to it alone.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Outcome {
        kill_process(self.pid()?, signal).context(format!("signal {}", self.name))
    }

    /// Sends a signal to its whole process group, as a terminal does.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal_group(&self, signal: Signal) -> Outcome {
        kill_process_group(self.pid()?, signal).context(format!("signal {}", self.name))
    }

    fn pid(&self) -> Outcome<Pid> {
        let id = i32::try_from(self.child.id()).context("process id")?;
        Pid::from_raw(id).ok_or_else(|| Failure::new("process id 0"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Outcome<ExitStatus> {
        wait(&mut self.child, limit).context(&self.name)
    }

    /// Kills it at once, as a power cut would, and reaps it.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill9(&mut self) -> Outcome {
        self.still_runs()?;
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(30))?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Asked first, so that a script can end what it started in other process groups.
            let asked = self.signal(Signal::TERM).and_then(|()| self.wait(GRACE));
            if asked.is_err() {
                // The child is not reaped yet: its group's number is not another's.
                let _ = self.signal_group(Signal::KILL);
                end(&mut self.child);
            }
        }
    }
}

/// Asks again until the answer is a success.
///
/// # Errors
/// The last answer, after `limit`.
pub fn until<T>(limit: Duration, mut ask: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(failure) if Instant::now() >= deadline => {
                return Err(failure).context(format!("not within {} s", limit.as_secs()));
            }
            Err(_) => thread::sleep(POLL * 5),
        }
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
