// SPDX-License-Identifier: Apache-2.0
//! Who has a volume attached: a list in the volume's companion, which hosts keep to among themselves.
//!
//! Where the server enforces no lock (NFSv3), this is all there is: it keeps a second host away that asks, and cannot
//! keep away one that does not. What it tells surely is whether a holder on this very machine still lives.

use std::{
    collections::HashMap,
    fmt, fs,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
};

use driver_api::{Attach, AttachMode, Error, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::{companion::is_zero, volume::Attached};

/// An attachment, as others see it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// Tells it from every other attachment.
    pub token: String,
    /// Who attached it.
    pub owner: String,
    /// At which epoch.
    pub epoch: u64,
    /// Whether it writes.
    pub writer: bool,
    /// On which machine: its boot, and the namespace of its processes.
    pub machine: String,
    /// In which process.
    pub pid: u32,
    /// When that process was started, in the kernel's ticks.
    pub started: u64,
    /// The server's number for its login, by which the server can be told to end that; zero where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub session: u64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.writer { "writer" } else { "reader" };
        let place = if self.machine == *MACHINE { "of this machine" } else { "of another machine" };
        write!(f, "{} (process {} {place}, {mode}, epoch {})", self.owner, self.pid, self.epoch)
    }
}

/// How sure it is that a holder lives.
pub(crate) enum Life {
    /// It is an attachment of this process.
    Here(Arc<Attached>),
    /// It may live, or surely does.
    Elsewhere,
    /// It has ended.
    Over,
}

static MACHINE: LazyLock<String> = LazyLock::new(|| {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let names = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), names.display())
});

/// The attachments of this process, of all its backends.
static HERE: LazyLock<Mutex<HashMap<String, Weak<Attached>>>> = LazyLock::new(Mutex::default);

fn here() -> MutexGuard<'static, HashMap<String, Weak<Attached>>> {
    HERE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers an attachment of this process.
pub(crate) fn enter(holder: &Holder, attached: &Arc<Attached>) {
    let mut all = here();
    all.retain(|_, other| other.strong_count() > 0);
    all.insert(holder.token.clone(), Arc::downgrade(attached));
}

/// Forgets it.
pub(crate) fn leave(holder: &Holder) {
    here().remove(&holder.token);
}

impl Holder {
    /// An attachment of this process.
    pub fn this(attach: &Attach) -> Self {
        let pid = std::process::id();
        Self {
            token: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            owner: attach.owner.to_string(),
            epoch: attach.epoch,
            writer: attach.mode != AttachMode::READ_ONLY,
            machine: MACHINE.clone(),
            pid,
            started: started(pid).unwrap_or(0),
            session: 0,
        }
    }

    /// Whether it and another attachment cannot be there at the same time.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.writer || other.writer
    }

    /// Whether it still lives.
    pub fn life(&self) -> Life {
        if self.machine != *MACHINE {
            return Life::Elsewhere;
        }
        if self.pid == std::process::id() && started(self.pid) == Some(self.started) {
            let attached = here().get(&self.token).and_then(Weak::upgrade);
            return match attached.filter(|attached| attached.standing.is_open()) {
                Some(attached) => Life::Here(attached),
                None => Life::Over,
            };
        }
        if started(self.pid) == Some(self.started) { Life::Elsewhere } else { Life::Over }
    }

    /// What somebody else is told who wants the volume.
    pub fn in_use(&self, volume: &str) -> Error {
        Error::new(ErrorKind::IN_USE, format!("the volume is attached by {self}"))
            .with("volume", volume)
            .with("holder", &self.owner)
            .with("pid", self.pid)
            .remedy("detach it there; if that host is gone for good, attach with --take-over")
    }
}

/// When a process was started, if it runs.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_holds_nothing() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("started");
        let attach = Attach::new(AttachMode::EXCLUSIVE, 1, "o");
        let mut holder = Holder::this(&attach);
        holder.pid = child.id();
        holder.started = started(child.id()).expect("runs");
        assert!(matches!(holder.life(), Life::Elsewhere));
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(matches!(holder.life(), Life::Over));
        holder.machine = "another".into();
        assert!(matches!(holder.life(), Life::Elsewhere));
    }

    #[test]
    fn an_attachment_that_this_process_dropped_is_over() {
        let holder = Holder::this(&Attach::new(AttachMode::EXCLUSIVE, 1, "o"));
        assert!(matches!(holder.life(), Life::Over));
    }
}
