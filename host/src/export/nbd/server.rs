// SPDX-License-Identifier: Apache-2.0
//! The accepting thread and the list of connections.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::{access::Peer, memory};

use super::{
    ConnectionInfo, ExportSource, ServerSettings,
    arrivals::Arrivals,
    budget::Budgets,
    complaints::complain,
    control::{Control, Wish},
    listen::{ListenAddress, Listener, prepare},
    serve::run,
    wakes::Wakes,
};

/// A running server. Dropping it asks its connections to end, without waiting for them.
pub struct Server {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    addresses: Vec<ListenAddress>,
    source: Arc<dyn ExportSource>,
}

struct Shared {
    settings: ServerSettings,
    budgets: Budgets,
    connections: Mutex<Connections>,
    /// Signalled whenever a connection has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    /// All of them.
    open: BTreeMap<u64, Arc<Control>>,
    /// Those of them that have not chosen an export.
    arrivals: Arrivals,
    /// How many have chosen one.
    seated: usize,
    /// The most that were open at once since freed memory was last given back.
    most: usize,
    last_id: u64,
    stopping: bool,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts to serve the clients that arrive on these sockets, if any.
pub fn serve(
    settings: ServerSettings,
    listeners: Vec<Listener>,
    source: Arc<dyn ExportSource>,
) -> Result<Server> {
    let failed = |error: io::Error| {
        Error::from_io("the NBD server does not start", &error)
            .remedy("raise the limits on open files and threads")
    };
    let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
    let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let stop = Arc::new(stop.map_err(|errno| failed(errno.into()))?);
    let shared = Arc::new(Shared {
        budgets: Budgets::new(settings.export, settings.backend),
        settings,
        connections: Mutex::default(),
        ended: Condvar::new(),
    });
    let (accepting_shared, accepting_stop) = (Arc::clone(&shared), Arc::clone(&stop));
    let accepting_source = Arc::clone(&source);
    let accepting = thread::Builder::new()
        .name("nbd-accept".into())
        .spawn(move || accept(&listeners, &accepting_stop, &accepting_shared, &accepting_source))
        .map_err(failed)?;
    Ok(Server { shared, stop, accepting: Mutex::new(Some(accepting)), addresses, source })
}

impl Server {
    /// Where clients find it.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Serves a client that is connected already, and returns when it has left.
    pub fn serve_one(&self, socket: OwnedFd) -> Result<()> {
        let peer = prepare(&socket).map_err(|error| {
            Error::from_io("the client's socket cannot be used", &error)
                .remedy("connect a stream socket, unix or TCP")
        })?;
        let Some(id) = begin(socket, peer, &self.shared, &self.source)? else { return Ok(()) };
        let mut connections = self.shared.connections();
        while connections.open.contains_key(&id) {
            let woken = self.shared.ended.wait(connections);
            connections = woken.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// The connections, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.connections().open.values().map(|control| control.info()).collect()
    }

    /// Ends the connections of one export; its source must refuse new ones before.
    ///
    /// Operations in flight are finished and answered, and what clients still ask for in the first half second is
    /// refused with `ESHUTDOWN`. After `timeout` the clients are cut off; then the answer is
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
        let begun = Instant::now();
        if self.ask_and_wait(Wish::Tell, timeout.min(self.shared.settings.farewell), &chosen) == 0 {
            return Ok(());
        }
        let rest = timeout.saturating_sub(begun.elapsed());
        if self.ask_and_wait(Wish::Drain, rest, &chosen) == 0 {
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
    }
}

/// So many connections leave memory behind that is worth giving back.
const HERD: usize = 64;
/// A connection's stack, on which drivers run. Only what is used of it becomes memory.
const STACK: usize = 1 << 20;
/// Time for connections that were sent away to leave before more are let in.
const LEAVING_TIME: Duration = Duration::from_millis(100);
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

fn accept(
    listeners: &[Listener],
    stop: &OwnedFd,
    shared: &Arc<Shared>,
    source: &Arc<dyn ExportSource>,
) {
    loop {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        // An interrupted poll leaves no events.
        let _ = poll(&mut fds, None);
        if !fds[0].revents().is_empty() {
            return;
        }
        for (listener, fd) in listeners.iter().zip(&fds[1..]) {
            if !fd.revents().is_empty() {
                accept_one(listener, shared, source);
            }
        }
    }
}

fn accept_one(listener: &Listener, shared: &Arc<Shared>, source: &Arc<dyn ExportSource>) {
    match listener.accept() {
        Ok((socket, peer)) => {
            if let Err(error) = begin(socket, peer, shared, source) {
                complain!(error = format!("{error:#}"), "an NBD client was sent away");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        // It left before it was received.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotConnected
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::InvalidInput
            ) => {}
        Err(error) => {
            tracing::warn!(%error, "an NBD client could not be accepted");
            // The usual cause is a lack of descriptors, which passes only with time.
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Gives the connection a thread and returns its number; none if the server ends.
fn begin(
    socket: OwnedFd,
    peer: Peer,
    shared: &Arc<Shared>,
    source: &Arc<dyn ExportSource>,
) -> Result<Option<u64>> {
    let failed = |error: io::Error| Error::from_io("a connection does not start", &error);
    let wakes = Arc::new(Wakes::new(shared.settings.max_in_flight.max(1)));
    let most = shared.settings.max_connections + 2 * shared.settings.max_negotiating;
    let mut connections = shared.connections();
    if connections.open.len() >= most {
        // Those who were sent away leave at once, unless they are about to open a slow volume.
        let woken = shared.ended.wait_timeout(connections, LEAVING_TIME);
        connections = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
    if connections.stopping {
        return Ok(None);
    }
    if connections.open.len() >= most {
        return Err(Error::new(ErrorKind::NO_SPACE, "too many clients open exports at once")
            .remedy("see whether the backends answer"));
    }
    connections.last_id += 1;
    let id = connections.last_id;
    let control = Arc::new(Control::new(id, socket, peer, wakes));
    connections.open.insert(id, Arc::clone(&control));
    connections.most = connections.most.max(connections.open.len());
    connections.arrivals.add(Arc::clone(&control), shared.settings.max_negotiating);
    drop(connections);
    let seat = Seat { id, taken: AtomicBool::new(false), shared: Arc::clone(shared) };
    let source = Arc::clone(source);
    thread::Builder::new()
        .name(format!("nbd-{id}"))
        .stack_size(STACK)
        .spawn(move || run(&control, &*source, &seat))
        .map_err(failed)?;
    Ok(Some(id))
}

/// A connection's place in its server; it is taken off the list when its thread ends, or never began.
pub struct Seat {
    id: u64,
    /// Whether it counts as one that has chosen an export.
    taken: AtomicBool,
    shared: Arc<Shared>,
}

impl Seat {
    /// The server's settings.
    pub fn settings(&self) -> &ServerSettings {
        &self.shared.settings
    }

    /// The server's budgets.
    pub fn budgets(&self) -> &Budgets {
        &self.shared.budgets
    }

    /// Whether there is room for one more connection that has chosen an export.
    pub fn check_free(&self) -> Result<()> {
        self.check(&self.shared.connections())
    }

    /// Makes this connection one that has chosen an export. It may have been sent away, or there may be no room any
    /// more.
    pub fn take(&self) -> Result<()> {
        let mut connections = self.shared.connections();
        if !connections.arrivals.remove(self.id) {
            return Err(Error::new(ErrorKind::UNAVAILABLE, "the connection was sent away"));
        }
        self.check(&connections)?;
        connections.seated += 1;
        self.taken.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn check(&self, connections: &Connections) -> Result<()> {
        let most = self.shared.settings.max_connections;
        if connections.seated < most {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NO_SPACE, "there are as many NBD connections as allowed")
            .with("max_connections", most)
            .remedy("end some, or raise max_connections"))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connections = self.shared.connections();
        connections.open.remove(&self.id);
        connections.arrivals.remove(self.id);
        if *self.taken.get_mut() {
            connections.seated -= 1;
        }
        let herd_left = connections.most >= HERD && connections.open.len() <= connections.most / 2;
        if herd_left {
            connections.most = connections.open.len();
        }
        drop(connections);
        self.shared.ended.notify_all();
        if herd_left {
            memory::trim();
        }
    }
}
