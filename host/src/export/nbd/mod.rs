// SPDX-License-Identifier: Apache-2.0
//! An NBD server (fixed newstyle; unix sockets and TCP, plain and with TLS): one thread per connection, no task and no queue per request.
//!
//! ```text
//!            accept        a thread per connection
//!   server ---------> serve: negotiate ---------> transmission loop
//!                                                  receive once -> inbox: all complete requests
//!                                                  start each inline -> ready: reply into the outbox
//!                                                                    -> pending: a slot in flight
//!                                                  poll the slots that were woken
//!                                                  send the outbox once
//!                                                  sleep in poll(2): socket and wake-up
//! ```
//!
//! What a connection promises:
//! - It starts nothing beyond its bounds (operations, bytes, unsent replies) and beyond its share of the [`budget`]s of
//!   its export and backend: it stops receiving instead.
//! - It is one of a bounded number, and of another bounded number until it has chosen an export; idle, it holds little
//!   memory.
//! - A mutation that a driver started is polled to its end, whatever the client does; only then is the lease dropped.
//! - Replies leave as operations finish; the protocol lets them overtake each other.
//!
//! The protocol's bytes and rules are `nbd_protocol`'s; only `serve` and `welcome` touch the socket, as a
//! `transport`.

mod arrivals;
pub mod budget;
mod busy;
mod complaints;
mod control;
mod flight;
mod listen;
mod operation;
mod serve;
mod server;
mod tls;
mod transport;
mod wakes;
mod welcome;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::event::Timespec;

use crate::{access::Peer, plugins::GuardedVolume};

pub use budget::Amount;
pub use listen::{ListenAddress, Listener};
pub use nbd_protocol::negotiate::Tls;
pub use server::{Server, serve};
pub use tls::{ClientCertificates, TlsFiles, TlsKeys};

/// A client that has not chosen an export after this time is disconnected.
pub const NEGOTIATION_TIME: Duration = Duration::from_secs(10);

/// Where exports come from.
pub trait ExportSource: Send + Sync + 'static {
    /// The names of the exports that this client may open, for when it asks for the list.
    fn list(&self, peer: &Peer) -> Vec<String>;

    /// The name of the default export, which clients ask for by the empty name.
    fn default_name(&self) -> driver_api::Result<String>;

    /// Whether [`ExportSource::open`] would find such an export, and for this client.
    fn find(&self, name: &str, peer: &Peer) -> driver_api::Result<()>;

    /// Opens an export for one connection. It may block.
    ///
    /// `NotFound` where there is none of that name, `PermissionDenied` where it is not for this client; the error's text
    /// is shown to the client.
    fn open(&self, name: &str, peer: &Peer) -> driver_api::Result<Export>;
}

/// What one connection serves.
pub struct Export {
    /// The name.
    pub name: String,
    /// A text for people.
    pub description: String,
    /// What is read and written.
    pub volume: GuardedVolume,
    /// The backend that holds the volume, and whose budget its operations count in.
    pub backend: String,
    /// What one connection wrote and flushed is seen on every other. A volume whose sessions are not strong promises that
    /// to the connection that wrote only.
    pub coherent: bool,
    /// Refuse writes, whatever the volume can do.
    pub read_only: bool,
    /// Dropped last, when the connection ended and every mutation is finished: keeps the attachment.
    pub lease: Box<dyn Send + Sync>,
}

/// How a server is set up.
#[derive(Clone)]
pub struct ServerSettings {
    /// TLS.
    pub tls: TlsSettings,
    /// Connections at once that have chosen an export; more are refused.
    pub max_connections: usize,
    /// Connections at once that have not; when another comes the oldest of them is closed.
    pub max_negotiating: usize,
    /// Operations that one connection has in flight at most.
    pub max_in_flight: usize,
    /// Bytes of data that one connection has in flight at most; one operation is always let through.
    pub max_in_flight_bytes: usize,
    /// What the connections of one export have in flight together at most, but for [`budget::OWN`] of each.
    pub export: Amount,
    /// What the connections of one backend's exports have in flight together at most, but for [`budget::OWN`] of each.
    pub backend: Amount,
    /// How long a connection's thread polls for requests before it sleeps, while that pays; zero: never.
    pub busy_poll: Duration,
    /// How long clients are told that the server or their export ends, before they are not listened to any more.
    pub farewell: Duration,
}

/// Who gets TLS.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// What TLS begins with; without it nobody gets it.
    pub keys: Option<Arc<TlsKeys>>,
    /// Clients on unix sockets.
    pub unix: Tls,
    /// Clients over TCP.
    pub tcp: Tls,
}

/// One connection, as the operator sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionInfo {
    /// Number of the connection in this server's life.
    pub id: u64,
    /// The export's name; empty during negotiation.
    pub export: String,
    /// The client.
    pub peer: Peer,
    /// When the client connected.
    pub since: SystemTime,
    /// Operations that wait for the driver now.
    pub in_flight: u64,
    /// Finished reads.
    pub reads: u64,
    /// Finished writes, with discards and writes of zeros.
    pub writes: u64,
    /// Finished flushes.
    pub flushes: u64,
    /// Bytes of finished reads.
    pub bytes_read: u64,
    /// Bytes of data of finished writes.
    pub bytes_written: u64,
    /// Requests answered with an error.
    pub errors: u64,
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}
