// SPDX-License-Identifier: Apache-2.0
//! Watches the plugin directory, so that a dropped driver is usable without a restart.
//!
//! A file is looked at once it rests: when its writer closed it, or when nothing happened to it for a while. Looking
//! too early does no lasting harm: a later change makes the registry look again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};

use super::{registry::Registry, scan::is_candidate};

/// After a file was closed, renamed, removed or changed its mode: for bursts of these.
const SETTLE: Duration = Duration::from_millis(100);
/// After a write that no close followed: the writer may only be slow.
const WRITING: Duration = Duration::from_secs(2);
/// Catches what no event tells: a directory that was replaced, the target of a link.
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// A running watch; dropping it ends it.
#[derive(Debug)]
pub struct PluginWatch {
    stop: Sender<Message>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Event(notify::Result<Event>),
    Stop,
}

impl PluginWatch {
    /// Watches the registry's directory from now on, and looks at what is there.
    pub fn start(registry: Arc<Registry>) -> Result<Self> {
        let (stop, messages) = mpsc::channel();
        let events = stop.clone();
        let mut watcher = notify::recommended_watcher(move |event| {
            // Nobody listens only while the watch ends.
            let _ = events.send(Message::Event(event));
        })
        .map_err(|error| no_watch(registry.dir(), &error))?;
        watch(&mut watcher, registry.dir()).map_err(|error| no_watch(registry.dir(), &error))?;
        let thread = thread::Builder::new()
            .name("nova-plugins".to_owned())
            .spawn(move || follow(&registry, &mut watcher, &messages))
            .map_err(|error| Error::from_io("no thread to watch the plugin directory", &error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for PluginWatch {
    fn drop(&mut self) {
        // A thread that is gone needs no word to stop.
        let _ = self.stop.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the watch of the plugin directory had panicked");
        }
    }
}

fn watch(watcher: &mut RecommendedWatcher, dir: &Path) -> notify::Result<()> {
    watcher.watch(dir, RecursiveMode::NonRecursive)
}

fn no_watch(dir: &Path, error: &notify::Error) -> Error {
    Error::new(ErrorKind::UNAVAILABLE, format!("the plugin directory cannot be watched: {error}"))
        .with("directory", dir.display())
        .remedy(
            "check that it exists, and raise fs.inotify.max_user_instances and max_user_watches",
        )
}

fn follow(registry: &Registry, watcher: &mut RecommendedWatcher, messages: &Receiver<Message>) {
    let mut restless = Restless::new(registry.dir());
    look(registry, &restless);
    loop {
        let due = restless.due();
        let wait = due.map_or(LOOK_ANYWAY, |due| due.saturating_duration_since(Instant::now()));
        match messages.recv_timeout(wait) {
            Ok(Message::Event(Ok(event))) => restless.take(&event, Instant::now()),
            Ok(Message::Event(Err(error))) => {
                tracing::warn!(%error, "the watch of the plugin directory missed something");
                restless.touch_all(Instant::now());
            }
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                if due.is_none()
                    // Watching what is watched is no failure; a new directory of this name needs it.
                    && let Err(error) = watch(watcher, registry.dir())
                {
                    tracing::debug!(%error, "the plugin directory is not watched");
                }
                restless.forget_resting(Instant::now());
                look(registry, &restless);
            }
        }
    }
}

fn look(registry: &Registry, restless: &Restless) {
    if let Err(error) = registry.rescan_resting(|file| !restless.files.contains_key(file)) {
        tracing::warn!("{error:#}");
    }
}

/// Files to which something happened, each with the time at which it will have come to rest.
struct Restless {
    dir: PathBuf,
    files: BTreeMap<PathBuf, Instant>,
}

impl Restless {
    fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), files: BTreeMap::new() }
    }

    fn take(&mut self, event: &Event, now: Instant) {
        let rest = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => SETTLE,
            EventKind::Access(_) => return,
            // Whoever created or wrote it will close it.
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                WRITING
            }
            _ => SETTLE,
        };
        if event.need_rescan() {
            self.touch_all(now);
        }
        for path in &event.paths {
            // The directory itself matters, too: its mode decides.
            if is_candidate(path) || *path == self.dir {
                self.files.insert(path.clone(), now + rest);
            }
        }
    }

    fn touch_all(&mut self, now: Instant) {
        self.files.insert(self.dir.clone(), now + SETTLE);
    }

    /// When the next file will have come to rest.
    fn due(&self) -> Option<Instant> {
        self.files.values().min().copied()
    }

    fn forget_resting(&mut self, now: Instant) {
        self.files.retain(|_, rests| *rests > now);
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
