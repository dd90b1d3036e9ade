// SPDX-License-Identifier: Apache-2.0
//! What a connection's thread and its server share: figures for the operator, and the wish to end.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use rustix::net::{Shutdown, shutdown};

use super::{ConnectionInfo, wakes::Wakes};
use crate::access::{Certificate, Peer};

/// How a connection shall go on; it only ever rises.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Wish {
    /// Serve.
    Serve = 0,
    /// Answer what is in flight, and what comes with the news that this ends.
    Tell = 1,
    /// Take nothing more, answer what is in flight, end.
    Drain = 2,
    /// End without answers; mutations are still polled to their end.
    Abandon = 3,
}

/// A figure with one writer.
#[derive(Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds `count`; only the connection's own thread may.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }

    /// Sets the figure; only the connection's own thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The figure.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures of one connection.
#[derive(Default)]
pub struct Figures {
    pub in_flight: Figure,
    pub reads: Figure,
    pub writes: Figure,
    pub flushes: Figure,
    pub bytes_read: Figure,
    pub bytes_written: Figure,
    pub errors: Figure,
}

/// One connection as both sides hold it.
pub struct Control {
    pub id: u64,
    pub socket: OwnedFd,
    pub wakes: Arc<Wakes>,
    pub figures: Figures,
    since: SystemTime,
    peer: Mutex<Peer>,
    export: Mutex<String>,
    wish: AtomicU8,
}

impl Control {
    /// A connection that begins now.
    pub fn new(id: u64, socket: OwnedFd, peer: Peer, wakes: Arc<Wakes>) -> Self {
        Self {
            id,
            socket,
            wakes,
            figures: Figures::default(),
            since: SystemTime::now(),
            peer: Mutex::new(peer),
            export: Mutex::new(String::new()),
            wish: AtomicU8::new(Wish::Serve as u8),
        }
    }

    /// How the connection shall go on.
    pub fn wish(&self) -> Wish {
        match self.wish.load(Ordering::SeqCst) {
            0 => Wish::Serve,
            1 => Wish::Tell,
            2 => Wish::Drain,
            _ => Wish::Abandon,
        }
    }

    /// Asks the connection to end.
    pub fn ask(&self, wish: Wish) {
        self.wish.fetch_max(wish as u8, Ordering::SeqCst);
        let how = match wish {
            // Who waits in recv has nothing to do before the client sends something, and sees the wish then.
            Wish::Serve | Wish::Tell => None,
            Wish::Drain => Some(Shutdown::Read),
            Wish::Abandon => Some(Shutdown::Both),
        };
        if let Some(how) = how {
            // This ends the thread's wait in recv; it fails only where the client has left already.
            let _ = shutdown(&self.socket, how);
        }
        self.wakes.interrupt();
    }

    /// The client.
    pub fn peer(&self) -> Peer {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The client has shown a certificate.
    pub fn set_certificate(&self, certificate: Certificate) {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner).certificate = Some(certificate);
    }

    /// The name of the export that is served, or being opened.
    pub fn export(&self) -> String {
        self.export.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names the export.
    pub fn set_export(&self, name: &str) {
        *self.export.lock().unwrap_or_else(PoisonError::into_inner) = name.to_owned();
    }

    /// The connection for the operator.
    pub fn info(&self) -> ConnectionInfo {
        let figures = &self.figures;
        ConnectionInfo {
            id: self.id,
            export: self.export(),
            peer: self.peer(),
            since: self.since,
            in_flight: figures.in_flight.get(),
            reads: figures.reads.get(),
            writes: figures.writes.get(),
            flushes: figures.flushes.get(),
            bytes_read: figures.bytes_read.get(),
            bytes_written: figures.bytes_written.get(),
            errors: figures.errors.get(),
        }
    }
}
