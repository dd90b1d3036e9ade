// SPDX-License-Identifier: Apache-2.0
//! The NBD server against a client of the test's own, hostile clients and the clients that people use.

#![allow(clippy::unwrap_used)] // Clippy's exemption for tests does not reach their shared functions.

mod client;
mod hostile;
mod negotiation;
mod real_clients;
mod server;
mod tls;
mod transmission;
mod volume;

use std::{path::PathBuf, sync::Arc, time::Duration};

use novastor::export::nbd::{Amount, Listener, Server, ServerSettings, TlsSettings, serve};
use volume::{Exports, TestVolume};

/// A server in a directory of its own.
struct Serving {
    server: Server,
    socket: PathBuf,
    _directory: tempfile::TempDir,
}

fn settings() -> ServerSettings {
    ServerSettings {
        tls: TlsSettings::default(),
        max_connections: 16,
        max_in_flight: 128,
        max_in_flight_bytes: 64 << 20,
        busy_poll: Duration::from_micros(50),
        farewell: Duration::from_millis(100),
        max_negotiating: 16,
        export: Amount { operations: 1024, bytes: 256 << 20 },
        backend: Amount { operations: 1024, bytes: 512 << 20 },
    }
}

fn serving_with(
    exports: Vec<(&'static str, TestVolume)>,
    adjust: impl FnOnce(&mut ServerSettings),
) -> Serving {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nbd.sock");
    let mut settings = settings();
    adjust(&mut settings);
    let listener = Listener::unix(&socket, 0o600).unwrap();
    let server = serve(settings, vec![listener], Arc::new(Exports(exports))).unwrap();
    Serving { server, socket, _directory: directory }
}

fn serving(volume: &TestVolume) -> Serving {
    serving_with(vec![("disk", volume.clone())], |_| {})
}

/// Bytes that tell places apart.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}
