// SPDX-License-Identifier: Apache-2.0
//! The listening socket, the accepting thread and the list of connections.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{
    ConnectionInfo, ExportSource, ServerSettings,
    control::{Control, Wish},
    serve::run,
    wakes::Wakes,
};

/// A running server. Dropping it asks its connections to end, without waiting for them.
pub struct Server {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Device and inode of the socket that this server made.
    socket_id: (u64, u64),
}

struct Shared {
    settings: ServerSettings,
    connections: Mutex<Connections>,
    /// Signalled whenever a connection has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    open: BTreeMap<u64, Arc<Control>>,
    last_id: u64,
    stopping: bool,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds the socket and starts to serve. A socket on which nobody answers any more is replaced.
pub fn serve(settings: ServerSettings, source: Arc<dyn ExportSource>) -> Result<Server> {
    let listener = bind(&settings.socket, settings.mode)?;
    let failed = |error: io::Error| {
        Error::from_io("the NBD server does not start", &error)
            .remedy("raise the limits on open files and threads")
    };
    let metadata = fs::symlink_metadata(&settings.socket).map_err(failed)?;
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let stop = Arc::new(stop.map_err(|errno| failed(errno.into()))?);
    let shared =
        Arc::new(Shared { settings, connections: Mutex::default(), ended: Condvar::new() });
    let (accepting_shared, accepting_stop) = (Arc::clone(&shared), Arc::clone(&stop));
    let accepting = thread::Builder::new()
        .name("nbd-accept".into())
        .spawn(move || accept(&listener, &accepting_stop, &accepting_shared, &source))
        .map_err(failed)?;
    Ok(Server {
        shared,
        stop,
        accepting: Mutex::new(Some(accepting)),
        socket_id: (metadata.dev(), metadata.ino()),
    })
}

impl Server {
    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.shared.settings.socket
    }

    /// The connections, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.connections().open.values().map(|control| control.info()).collect()
    }

    /// Ends the connections of one export; its source must refuse new ones before.
    ///
    /// Operations in flight are finished and answered. After `timeout` the clients are cut off; then the answer is
    /// `TimedOut` if mutations are still in flight, and the connections' leases are kept until they end.
    pub fn disconnect_export(&self, name: &str, timeout: Duration) -> Result<()> {
        self.end(timeout, |control| control.export() == name)
            .map_err(|error| error.with("export", name))
    }

    /// Accepts nobody any more and ends all connections, as [`Server::disconnect_export`] does.
    pub fn shutdown(&self, timeout: Duration) -> Result<()> {
        self.stop_accepting();
        self.end(timeout, |_| true)
    }

    fn end(&self, timeout: Duration, chosen: impl Fn(&Control) -> bool) -> Result<()> {
        if self.ask_and_wait(Wish::Drain, timeout, &chosen) == 0 {
            return Ok(());
        }
        // Without a client to wait for only mutations keep a connection.
        let left = self.ask_and_wait(Wish::Abandon, CUT_OFF_TIME, &chosen);
        if left == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TIMED_OUT, "changes of the volume are still in flight")
            .during("end NBD connections")
            .with("connections", left)
            .with("waited", format!("{timeout:?}"))
            .remedy("see whether the backend answers; the connections end when their changes do"))
    }

    fn ask_and_wait(&self, wish: Wish, time: Duration, chosen: &dyn Fn(&Control) -> bool) -> usize {
        let deadline = Instant::now() + time;
        let mut connections = self.shared.connections();
        loop {
            let left: Vec<_> = connections.open.values().filter(|one| chosen(one)).collect();
            let rest = deadline.saturating_duration_since(Instant::now());
            if left.is_empty() || (rest.is_zero() && left.iter().all(|one| one.wish() >= wish)) {
                return left.len();
            }
            for control in &left {
                if control.wish() < wish {
                    control.ask(wish);
                }
            }
            let woken = self.shared.ended.wait_timeout(connections, rest);
            connections = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn stop_accepting(&self) {
        self.shared.connections().stopping = true;
        // A full counter is readable as well, so that a failed write has the same effect.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(accepting) = accepting else { return };
        if accepting.join().is_err() {
            tracing::error!("the thread that accepts NBD clients panicked");
        }
        // Another server may have taken the path over; its socket is not ours to remove.
        let ours = fs::symlink_metadata(self.socket())
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.socket_id);
        if ours && let Err(error) = fs::remove_file(self.socket()) {
            tracing::warn!(%error, socket = %self.socket().display(), "the NBD socket stays");
        }
    }
}

/// Time for connections to notice that their clients were cut off.
const CUT_OFF_TIME: Duration = Duration::from_millis(500);

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_accepting();
        for control in self.shared.connections().open.values() {
            control.ask(Wish::Drain);
        }
    }
}

/// Makes the socket beside its place and moves it there, so that nobody sees it with wrong permissions.
fn bind(path: &Path, mode: u32) -> Result<UnixListener> {
    refuse_if_taken(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let bound = (|| {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
        fs::rename(&beside, path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })();
    bound.map_err(|error| {
        Error::from_io("the NBD socket cannot be made", &error)
            .with("socket", path.display())
            .remedy("see that its directory exists and is writable, and that the path is under 100 bytes")
    })
}

fn refuse_if_taken(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Error::from_io("the NBD socket cannot be looked at", &error)
                .with("socket", path.display()));
        }
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(ErrorKind::ALREADY_EXISTS, "the NBD socket's path is no socket")
            .with("socket", path.display())
            .remedy("choose another path, or remove what is there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A listener that is busy, or not ours to talk to, is a listener.
        _ => Err(Error::new(ErrorKind::IN_USE, "somebody answers on the NBD socket")
            .with("socket", path.display())
            .remedy("stop the other server, or choose another path")),
    }
}

fn accept(
    listener: &UnixListener,
    stop: &OwnedFd,
    shared: &Arc<Shared>,
    source: &Arc<dyn ExportSource>,
) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        // An interrupted poll leaves no events, and the accept below finds nobody.
        let _ = poll(&mut fds, None);
        if !fds[1].revents().is_empty() {
            return;
        }
        match listener.accept() {
            Ok((socket, _)) => {
                if let Err(error) = begin(socket, shared, source) {
                    tracing::warn!(error = format!("{error:#}"), "an NBD client was sent away");
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, "an NBD client could not be accepted");
                // The usual cause is a lack of descriptors, which passes only with time.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn begin(socket: UnixStream, shared: &Arc<Shared>, source: &Arc<dyn ExportSource>) -> Result<()> {
    let failed = |error: io::Error| Error::from_io("a connection does not start", &error);
    socket.set_nonblocking(false).map_err(failed)?;
    let wakes = Arc::new(Wakes::new(shared.settings.max_in_flight.max(1)).map_err(failed)?);
    let mut connections = shared.connections();
    if connections.stopping {
        return Ok(());
    }
    if connections.open.len() >= shared.settings.max_connections {
        return Err(Error::new(
            ErrorKind::NO_SPACE,
            "there are as many NBD connections as allowed",
        )
        .with("max_connections", shared.settings.max_connections)
        .remedy("end some, or raise max_connections"));
    }
    connections.last_id += 1;
    let id = connections.last_id;
    let control = Arc::new(Control::new(id, socket, wakes));
    connections.open.insert(id, Arc::clone(&control));
    drop(connections);
    let ending = Ending { id, shared: Arc::clone(shared) };
    let source = Arc::clone(source);
    thread::Builder::new()
        .name(format!("nbd-{id}"))
        .spawn(move || run(&control, &*source, &ending.shared.settings))
        .map_err(failed)?;
    Ok(())
}

/// Takes a connection off the list when its thread ends, or never began.
struct Ending {
    id: u64,
    shared: Arc<Shared>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.id);
        self.shared.ended.notify_all();
    }
}
